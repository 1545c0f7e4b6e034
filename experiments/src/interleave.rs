use std::collections::HashSet;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::win_rate::{WinRate, WinTieLoss};

/// Below this share of slots on which the arms differ, clicks say too little: pause and sample elsewhere.
pub const MIN_COMPETITIVE: f64 = 0.3;

/// One slot of a merged ranking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// The passage.
    pub id: String,
    /// Whether the first list placed it, else the second.
    pub first: bool,
    /// Whether a click on it says anything. It does not where both lists begin alike up to and with this slot: either
    /// arm alone would have shown it here.
    pub competitive: bool,
}

/// Merges two rankings by team draft (Radlinski and others 2008): the lists take turns to place their best passage that
/// is not there yet; who starts each round is tossed with a coin from `seed`. At most `most` slots.
#[must_use]
pub fn team_draft<S: AsRef<str>>(first: &[S], second: &[S], most: usize, seed: u64) -> Vec<Pick> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    draft(first, second, most, || rng.next_u32() & 1 == 0)
}

/// `first_starts` is asked whenever the lists have placed equally many.
fn draft<S: AsRef<str>>(first: &[S], second: &[S], most: usize, mut first_starts: impl FnMut() -> bool) -> Vec<Pick> {
    let alike = first.iter().zip(second).take_while(|(a, b)| a.as_ref() == b.as_ref()).count();
    let mut placed: HashSet<&str> = HashSet::new();
    let (mut of_first, mut of_second) = (first.iter().map(AsRef::as_ref), second.iter().map(AsRef::as_ref));
    let mut lead = 0_i64;
    let mut picks = Vec::new();
    while picks.len() < most {
        let first_turn = lead < 0 || (lead == 0 && first_starts());
        let mut next_first = || of_first.find(|id| !placed.contains(id)).map(|id| (id, true));
        let mut next_second = || of_second.find(|id| !placed.contains(id)).map(|id| (id, false));
        // A list that has run out leaves its turn to the other one.
        let next = if first_turn { next_first().or_else(next_second) } else { next_second().or_else(next_first) };
        let Some((id, by_first)) = next else { break };
        placed.insert(id);
        lead += if by_first { 1 } else { -1 };
        picks.push(Pick { id: id.to_owned(), first: by_first, competitive: picks.len() >= alike });
    }
    picks
}

/// What the clicks on one merged ranking say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credit {
    /// Clicks on passages that the first list placed.
    pub first: u64,
    /// Clicks on passages that the second list placed.
    pub second: u64,
    /// Clicks that say nothing, on slots where the lists are alike or on nothing that was shown.
    pub shared: u64,
    /// Slots of the ranking.
    pub slots: u64,
    /// Slots on which a click would say something.
    pub competitive: u64,
}

/// Credits the clicked passages to the lists that placed them; a passage counts once, however often it was clicked.
#[must_use]
pub fn credit<S: AsRef<str>>(picks: &[Pick], clicked: &[S]) -> Credit {
    let clicked: HashSet<&str> = clicked.iter().map(AsRef::as_ref).collect();
    let count = |is: &dyn Fn(&Pick) -> bool| u64::try_from(picks.iter().filter(|pick| is(pick)).count()).unwrap_or(0);
    let hit = |pick: &Pick| pick.competitive && clicked.contains(pick.id.as_str());
    let (first, second) = (count(&|pick| hit(pick) && pick.first), count(&|pick| hit(pick) && !pick.first));
    Credit {
        first,
        second,
        shared: u64::try_from(clicked.len()).unwrap_or(u64::MAX).saturating_sub(first + second),
        slots: u64::try_from(picks.len()).unwrap_or(u64::MAX),
        competitive: count(&|pick| pick.competitive),
    }
}

/// What the clicks of many queries say; a win is a query whose clicks went to the second list rather than the first.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Interleaving {
    /// Merged rankings.
    pub queries: u64,
    /// Those of them with a click that counts.
    pub clicked: u64,
    /// Queries by who got more clicks; only those with a click that counts.
    pub outcomes: WinTieLoss,
    /// The second list's rate of wins with its sign test, where a query has a winner.
    pub win_rate: Option<WinRate>,
    /// Share of all slots on which the lists differ, 0 to 1.
    pub competitive_share: f64,
    /// Whether that share is below [`MIN_COMPETITIVE`].
    pub pause: bool,
}

impl Interleaving {
    /// Counts the credits of queries, with a win rate at 95 %.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn of(credits: &[Credit]) -> Self {
        let mut outcomes = WinTieLoss::default();
        let (mut slots, mut competitive, mut clicked) = (0, 0, 0);
        for one in credits {
            slots += one.slots;
            competitive += one.competitive;
            if one.first + one.second > 0 {
                clicked += 1;
                match one.second.cmp(&one.first) {
                    std::cmp::Ordering::Greater => outcomes.wins += 1,
                    std::cmp::Ordering::Equal => outcomes.ties += 1,
                    std::cmp::Ordering::Less => outcomes.losses += 1,
                }
            }
        }
        let competitive_share = if slots == 0 { 0.0 } else { competitive as f64 / slots as f64 };
        Self {
            queries: u64::try_from(credits.len()).unwrap_or(u64::MAX),
            clicked,
            outcomes,
            win_rate: outcomes.win_rate(0.95).ok().flatten(),
            competitive_share,
            pause: slots > 0 && competitive_share < MIN_COMPETITIVE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn texts(value: &Value) -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn drafts_meet_the_recorded_ones() {
        let vectors: Value = serde_json::from_str(include_str!("../tests/golden/stats_vectors.json")).unwrap();
        let is_draft = |case: &&Value| case["id"].as_str().unwrap().starts_with("team_draft/");
        let cases: Vec<&Value> = vectors["cases"].as_array().unwrap().iter().filter(is_draft).collect();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let inputs = &case["inputs"];
            let coins = inputs["coins_0_means_A_first"].as_array().unwrap();
            let mut coins = coins.iter().map(|coin| coin.as_u64().unwrap() == 0);
            let most = usize::try_from(inputs["k"].as_u64().unwrap()).unwrap();
            let picks = draft(&texts(&inputs["A"]), &texts(&inputs["B"]), most, || coins.next().unwrap_or(true));
            let ids: Vec<&str> = picks.iter().map(|pick| pick.id.as_str()).collect();
            let teams: Vec<&str> = picks.iter().map(|pick| if pick.first { "A" } else { "B" }).collect();
            assert_eq!(ids, texts(&case["outputs"]["list"]), "{}", case["id"]);
            assert_eq!(teams, texts(&case["outputs"]["team"]), "{}", case["id"]);
        }
    }

    #[test]
    fn slots_where_both_lists_begin_alike_give_no_credit() {
        let (first, second) = (["a", "b", "c", "d"], ["a", "b", "d", "e"]);
        for seed in 0..50 {
            let picks = team_draft(&first, &second, 5, seed);
            let competitive: Vec<bool> = picks.iter().map(|pick| pick.competitive).collect();
            assert_eq!(competitive, [false, false, true, true, true], "{picks:?}");
            let credit = credit(&picks, &["a", "b", "b", "unseen"]);
            assert_eq!((credit.first, credit.second, credit.shared), (0, 0, 3));
        }
    }

    #[test]
    fn a_click_is_credited_to_the_list_that_placed_the_passage() {
        let picks = team_draft(&["a", "b"], &["x", "y"], 4, 3);
        assert_eq!(credit(&picks, &["x", "x"]).second, 1);
        assert_eq!(
            credit(&picks, &["a", "b", "y"]),
            Credit { first: 2, second: 1, shared: 0, slots: 4, competitive: 4 }
        );
    }

    #[test]
    fn neither_list_gains_from_the_draft_itself() {
        // Somebody who clicks on one slot chosen without looking must not prefer a side.
        let (first, second) = (["a", "b", "c", "d", "e"], ["a", "c", "f", "b", "g"]);
        let credits: Vec<Credit> = (0..20_000_u64)
            .map(|seed| {
                let picks = team_draft(&first, &second, 5, seed);
                let slot = usize::try_from(seed % 5).unwrap();
                credit(&picks, &[&picks[slot].id])
            })
            .collect();
        let result = Interleaving::of(&credits);
        assert!(result.win_rate.unwrap().p_two_sided > 0.001, "{result:?}");
        assert_eq!(result.clicked, 16_000);
    }

    #[test]
    fn a_better_list_is_found_and_its_seed_repeats() {
        let (first, second) = (["x", "y", "good"], ["good", "z", "w"]);
        let credits: Vec<Credit> =
            (0..40).map(|seed| credit(&team_draft(&first, &second, 3, seed), &["good"])).collect();
        let result = Interleaving::of(&credits);
        assert!(result.win_rate.unwrap().p_two_sided < 0.01, "{result:?}");
        assert!(!result.pause);
        assert_eq!(team_draft(&first, &second, 3, 9), team_draft(&first, &second, 3, 9));
    }

    #[test]
    fn lists_that_hardly_differ_ask_for_a_pause() {
        let picks = team_draft(&["a", "b", "c", "d"], &["a", "b", "c", "e"], 4, 0);
        let result = Interleaving::of(&[credit(&picks, &["a"])]);
        assert_eq!((result.competitive_share, result.pause, result.clicked), (0.25, true, 0));
        assert!(!Interleaving::of(&[]).pause);
    }

    #[test]
    fn repeated_and_missing_passages_are_no_trouble() {
        let ids = |picks: Vec<Pick>| picks.into_iter().map(|pick| pick.id).collect::<Vec<_>>();
        assert_eq!(ids(team_draft(&["a", "a", "b"], &[], 5, 1)), ["a", "b"]);
        assert_eq!(ids(team_draft::<&str>(&[], &[], 5, 1)), Vec::<String>::new());
        assert!(team_draft(&["a"], &["b"], 0, 1).is_empty());
    }
}
