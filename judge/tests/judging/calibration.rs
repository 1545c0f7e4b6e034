//! Judges held against the pairs that come with the repository.

use std::path::Path;

use async_trait::async_trait;
use recast_config::TenantProfile;
use recast_judge::{
    CalibrationRules, Candidate, Flips, GroupVerdict, HeuristicJudge, Judge, JudgeError, JudgeItem, Judged,
    LabelledPair, RubricVerdict, Scores, Verdict, VerdictFault, Winner, calibrate, read_pairs,
};

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../data"))
}

fn pairs() -> Vec<LabelledPair> {
    read_pairs(&data().join("judge/pairs.csv")).unwrap()
}

fn tenants() -> Vec<TenantProfile> {
    TenantProfile::load_all(data()).unwrap()
}

/// Knows what people said, and answers by a rule about it.
struct Oracle {
    pairs: Vec<LabelledPair>,
    flips: Flips,
    answer: fn(Winner, u32) -> Option<(u8, u8)>,
}

#[async_trait]
impl Judge for Oracle {
    fn id(&self) -> &str {
        "oracle-1"
    }
    async fn judge_rubric(&self, _: &JudgeItem, _: &Candidate) -> RubricVerdict {
        Verdict::Missing { fault: VerdictFault::Blank }.into()
    }
    async fn judge_group(&self, item: &JudgeItem, rewrites: &[Candidate], baseline: &Candidate) -> GroupVerdict {
        let same = |pair: &&LabelledPair| {
            pair.conversation == item.conversation
                && pair.rewrite_a == rewrites[0].text
                && pair.rewrite_b == baseline.text
        };
        let answer = (self.answer)(self.pairs.iter().find(same).unwrap().winner, item.repeat);
        let judged = |all: Option<u8>| match all {
            Some(all) => {
                Judged::from(Verdict::Scored { scores: Scores::try_from([all; 4]).unwrap(), reason: String::new() })
            }
            None => Judged::Missing { fault: VerdictFault::Blank },
        };
        GroupVerdict {
            judge: self.id().to_owned(),
            rewrites: vec![judged(answer.map(|(a, _)| a))],
            baseline: judged(answer.map(|(_, b)| b)),
            flips: self.flips,
            replies: Vec::new(),
        }
    }
}

const AGREES: fn(Winner, u32) -> Option<(u8, u8)> = |winner, _| {
    Some(match winner {
        Winner::A => (4, 2),
        Winner::B => (2, 4),
        Winner::Tie => (3, 3),
    })
};

async fn calibrated(flips: Flips, answer: fn(Winner, u32) -> Option<(u8, u8)>) -> recast_judge::Calibration {
    let judge = Oracle { pairs: pairs(), flips, answer };
    calibrate(&judge, &pairs(), &tenants(), None, &CalibrationRules::default(), &|| ()).await.unwrap()
}

#[test]
fn the_pairs_are_enough_balanced_and_of_three_tenants() {
    let pairs = pairs();
    assert!(pairs.len() >= 120);
    let count = |of: &dyn Fn(&LabelledPair) -> bool| pairs.iter().filter(|pair| of(pair)).count();
    let (a, b) = (count(&|pair| pair.winner == Winner::A), count(&|pair| pair.winner == Winner::B));
    assert!(a.abs_diff(b) <= pairs.len() / 20, "neither side is the better one by its place: {a} and {b}");
    for tenant in tenants() {
        assert!(count(&|pair| pair.tenant == tenant.id) >= 40, "{}", tenant.id.as_str());
    }
}

#[tokio::test]
async fn one_that_agrees_is_certified() {
    let found = calibrated(Flips { compared: 10, flipped: 1 }, AGREES).await;
    assert!(found.certified && found.reasons.is_empty(), "{found:?}");
    assert_eq!((found.agreement, found.kappa, found.repeat_sd), (Some(1.0), Some(1.0), Some(0.0)));
    assert_eq!((found.flip_rate, found.by_tenant.len()), (Some(0.1), 3));
}

#[tokio::test]
async fn one_that_guesses_flips_or_is_silent_is_refused() {
    let first = calibrated(Flips::default(), |_, _| Some((4, 2))).await;
    assert!(!first.certified && first.kappa.unwrap().abs() < 1e-9, "always the first: {first:?}");
    let flips = calibrated(Flips { compared: 4, flipped: 1 }, AGREES).await;
    assert!(!flips.certified && flips.reasons.len() == 1 && flips.reasons[0].contains("flip rate"), "{flips:?}");
    let silent = calibrated(Flips::default(), |_, _| None).await;
    assert_eq!((silent.judged, silent.agreement, silent.kappa), (0, None, None));
    assert_eq!(silent.reasons.len(), 3, "too few, too many missing, no kappa: {silent:?}");
}

#[tokio::test]
async fn noise_between_askings_is_measured() {
    // every score one lower the second time: differences of 1, a deviation of 1 / sqrt 2
    let noisy = calibrated(Flips::default(), |winner, repeat| {
        AGREES(winner, repeat).map(|(a, b)| (a - u8::from(repeat > 0), b - u8::from(repeat > 0)))
    });
    assert!((noisy.await.repeat_sd.unwrap() - 0.5_f64.sqrt()).abs() < 1e-12);
}

#[tokio::test]
async fn scores_that_do_not_follow_retrieval_are_refused() {
    let judge = Oracle { pairs: pairs(), flips: Flips::default(), answer: AGREES };
    let gain = |pair: &LabelledPair| match pair.winner {
        Winner::A => 0.3,
        Winner::B => -0.3,
        Winner::Tie => 0.0,
    };
    let gains: Vec<f64> = pairs().iter().map(gain).collect();
    let against: Vec<f64> = gains.iter().map(|gain| -gain).collect();
    let rules = CalibrationRules::default();
    let with = calibrate(&judge, &pairs(), &tenants(), Some(&gains), &rules, &|| ()).await.unwrap();
    assert!(with.certified && with.gain_correlation.unwrap() > 0.99);
    let without = calibrate(&judge, &pairs(), &tenants(), Some(&against), &rules, &|| ()).await.unwrap();
    assert!(!without.certified && without.reasons[0].contains("retrieval"), "{:?}", without.reasons);
    let short = calibrate(&judge, &pairs(), &tenants(), Some(&gains[1..]), &rules, &|| ()).await;
    assert!(matches!(short, Err(JudgeError::Rows(_))));
    let nobody = calibrate(&judge, &pairs(), &[], None, &rules, &|| ()).await.unwrap_err();
    assert!(nobody.to_string().contains("no tenant fivedoctors"));
}

#[tokio::test]
async fn the_judge_of_rules_is_what_its_figures_say() {
    let (judge, pairs, tenants) = (HeuristicJudge::default(), pairs(), tenants());
    let found = calibrate(&judge, &pairs, &tenants, None, &CalibrationRules::default(), &|| ()).await.unwrap();
    assert_eq!((found.missing, found.repeat_sd, found.flip_rate), (0, Some(0.0), None));
    // the figures of data/judge/README.md: change both together
    let (agreement, kappa) = (found.agreement.unwrap(), found.kappa.unwrap());
    assert!((agreement - 0.68).abs() < 0.005 && (kappa - 0.48).abs() < 0.005, "{found:#?}");
}
