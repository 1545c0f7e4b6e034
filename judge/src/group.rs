//! What all judges do the same way with the rewrites of a question: leave out what is no rewrite, and ask about equal
//! texts once.
use crate::{
    Candidate, Flips, GroupVerdict, InvalidRewrite, Judged, RewriteRules, Scores, VerdictFault, invalid_rewrite,
};

/// The distinct texts of a group, and which of them each rewrite is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distinct<'a> {
    /// The valid texts, each once, in the order of their first occurrence.
    pub candidates: Vec<&'a Candidate>,
    /// A place in `candidates` for each rewrite, the baseline last, or why it has none.
    places: Vec<Result<usize, InvalidRewrite>>,
}

/// The verdict on one distinct text.
pub(crate) type Opinion = Result<(Vec<Scores>, String), VerdictFault>;

impl<'a> Distinct<'a> {
    pub fn of(query: &str, rewrites: &'a [Candidate], baseline: &'a Candidate, rules: &RewriteRules) -> Self {
        let mut candidates: Vec<&Candidate> = Vec::new();
        let place = |candidate: &'a Candidate| {
            if let Some(reason) = invalid_rewrite(query, &candidate.text, rules) {
                return Err(reason);
            }
            let known = candidates.iter().position(|other| other.text == candidate.text);
            Ok(known.unwrap_or_else(|| {
                candidates.push(candidate);
                candidates.len() - 1
            }))
        };
        let places = rewrites.iter().chain([baseline]).map(place).collect();
        Self { candidates, places }
    }

    /// The group's verdict from one opinion a distinct text.
    pub fn verdict(&self, judge: &str, opinions: &[Opinion], flips: Flips, replies: Vec<String>) -> GroupVerdict {
        let judged = |place: &Result<usize, InvalidRewrite>| match place {
            Err(reason) => Judged::Invalid { reason: *reason },
            Ok(index) => match &opinions[*index] {
                Ok((orders, reason)) => Judged::scored(orders.clone(), reason.clone()),
                Err(fault) => Judged::Missing { fault: fault.clone() },
            },
        };
        let mut all: Vec<Judged> = self.places.iter().map(judged).collect();
        for one in &all {
            let label = match one {
                Judged::Scored { .. } => "scored",
                Judged::Invalid { .. } => "invalid",
                Judged::Missing { fault } => fault.label(),
            };
            metrics::counter!("recast_judge_verdicts_total", "result" => label).increment(1);
        }
        let baseline = all.pop().unwrap_or(Judged::Missing { fault: VerdictFault::Blank });
        GroupVerdict { judge: judge.to_owned(), rewrites: all, baseline, flips, replies }
    }

    /// The group's verdict where there is no opinion at all; `reply` is what the judge said instead, or empty.
    pub fn missing(&self, judge: &str, fault: &VerdictFault, reply: String) -> GroupVerdict {
        let opinions = vec![Err(fault.clone()); self.candidates.len()];
        let replies = Some(reply).filter(|reply| !reply.is_empty());
        self.verdict(judge, &opinions, Flips::default(), replies.into_iter().collect())
    }
}

/// Pairs that both orders tell apart, and those that they tell apart differently.
pub(crate) fn flips(first: &[Scores], second: &[Scores]) -> Flips {
    let mut flips = Flips::default();
    for i in 0..first.len() {
        for j in 0..i {
            let lead = |scores: &[Scores]| scores[i].overall() - scores[j].overall();
            let product = lead(first) * lead(second);
            flips.compared += u32::from(product != 0.0);
            flips.flipped += u32::from(product < 0.0);
        }
    }
    flips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(all: u8) -> Scores {
        Scores::try_from([all; 4]).unwrap()
    }

    #[test]
    fn equal_texts_are_one_and_junk_is_none() {
        let rewrites: Vec<Candidate> = ["甲 能喝吗", "：", "能喝吗", "甲 能喝吗"].map(Candidate::from).into();
        let baseline = Candidate::from("甲 能喝吗");
        let distinct = Distinct::of("能喝吗", &rewrites, &baseline, &RewriteRules::default());
        assert_eq!(distinct.candidates.len(), 2);
        let opinions = [Ok((vec![scores(5), scores(4)], String::new())), Err(VerdictFault::Blank)];
        let group = distinct.verdict("j", &opinions, Flips::default(), Vec::new());
        let overall: Vec<_> = group.rewrites.iter().map(Judged::overall).collect();
        assert_eq!(overall, [Some(4.5), None, None, Some(4.5)]);
        assert_eq!(group.baseline.overall(), Some(4.5));
        assert_eq!(group.rewrites[1], Judged::Invalid { reason: InvalidRewrite::Junk });
        assert_eq!(group.rewrites[2], Judged::Missing { fault: VerdictFault::Blank }, "a copy of the query is legal");
    }

    #[test]
    fn a_flip_is_a_pair_that_changes_sides() {
        let first = [scores(5), scores(3), scores(3)];
        let second = [scores(2), scores(4), scores(4)];
        assert_eq!(flips(&first, &second), Flips { compared: 2, flipped: 2 });
        assert_eq!(flips(&first, &first), Flips { compared: 2, flipped: 0 });
    }
}
