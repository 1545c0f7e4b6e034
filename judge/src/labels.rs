//! The retrieval part of the reward from relevance labels, beside the one from scores.
//!
//! A score says how sure the retriever is, a label whether it is right. Where labels exist the second is the better
//! signal; it cannot be raised by a query that merely makes the retriever sure.

use serde::{Deserialize, Serialize};

/// Weights of the nDCG and of the first answer's place in [`label_quality`]; they add up to 1.
const WEIGHTS: [f64; 2] = [0.7, 0.3];
/// Hits that count.
const DEPTH: usize = 10;

/// What a search found, in terms of labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelledHits {
    /// The grade of each hit, best first; 0 where the passage has no label.
    pub found: Vec<u32>,
    /// All grades that the question has, in any order.
    pub labelled: Vec<u32>,
}

/// nDCG@10 with linear gains: `sum(grade_i / log2(i + 1))` over that of the best order; 0 without labels.
#[must_use]
pub fn ndcg_at_10(hits: &LabelledHits) -> f64 {
    let dcg = |grades: &[u32]| -> f64 {
        let terms = (2_u32..).zip(grades.iter().take(DEPTH));
        terms.map(|(place, grade)| f64::from(*grade) / f64::from(place).log2()).sum()
    };
    let mut best = hits.labelled.clone();
    best.sort_unstable_by(|a, b| b.cmp(a));
    let best = dcg(&best);
    if best > 0.0 { dcg(&hits.found) / best } else { 0.0 }
}

/// `1 / log2(rank + 1)` of the first hit with the highest grade that the question has; 0 beyond the tenth.
#[must_use]
pub fn rank_incentive(hits: &LabelledHits) -> f64 {
    let Some(best) = hits.labelled.iter().max().filter(|grade| **grade > 0) else { return 0.0 };
    let place = (2_u32..).zip(hits.found.iter().take(DEPTH)).find(|(_, grade)| *grade >= best);
    place.map_or(0.0, |(place, _)| 1.0 / f64::from(place).log2())
}

/// q from labels, 0 to 1: `0.7 nDCG@10 + 0.3 rank incentive`. A question without labels has none.
#[must_use]
pub fn label_quality(hits: &LabelledHits) -> Option<f64> {
    let labelled = hits.labelled.iter().any(|grade| *grade > 0);
    labelled.then(|| WEIGHTS[0] * ndcg_at_10(hits) + WEIGHTS[1] * rank_incentive(hits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(found: &[u32], labelled: &[u32]) -> LabelledHits {
        LabelledHits { found: found.into(), labelled: labelled.into() }
    }

    #[test]
    fn by_hand() {
        let best = hits(&[2, 1, 0], &[1, 2]);
        assert!((label_quality(&best).unwrap() - 1.0).abs() < 1e-12);
        let swapped = hits(&[1, 2], &[2, 1]);
        let (log3, ideal) = (3_f64.log2(), 2.0 + 1.0 / 3_f64.log2());
        assert!((ndcg_at_10(&swapped) - (1.0 + 2.0 / log3) / ideal).abs() < 1e-12);
        assert!((rank_incentive(&swapped) - 1.0 / log3).abs() < 1e-12);
    }

    #[test]
    fn found_nothing_is_zero_and_no_labels_is_nothing() {
        assert_eq!(label_quality(&hits(&[], &[2])), Some(0.0));
        assert_eq!(label_quality(&hits(&[0; 10].iter().chain(&[2]).copied().collect::<Vec<_>>(), &[2])), Some(0.0));
        assert_eq!(label_quality(&hits(&[], &[])), None);
        assert_eq!(label_quality(&hits(&[0], &[0])), None);
    }
}
