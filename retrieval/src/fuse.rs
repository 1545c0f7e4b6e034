//! Weighted reciprocal rank fusion, in our own code so that every engine ranks alike.
use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

/// How much each leg counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionWeights {
    /// The lexical leg.
    pub bm25: f32,
    /// The dense leg.
    pub dense: f32,
}

impl Default for FusionWeights {
    fn default() -> Self {
        Self { bm25: 1.0, dense: 1.0 }
    }
}

/// Fuses ranked lists: score(d) = sum over lists of weight / (k + rank) (Cormack et al., 2009); ranks start at 1.
///
/// Best first; ties keep the order of the lists, so that the result never depends on a hash.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
pub fn fuse<Id: Copy + Eq + Hash>(lists: &[(f32, Vec<Id>)], k: f32, limit: usize) -> Vec<Id> {
    let mut scores: HashMap<Id, f32> = HashMap::new();
    let mut order = Vec::new();
    for (weight, list) in lists {
        for (rank, id) in (1..).zip(list) {
            let score = scores.entry(*id).or_insert_with(|| {
                order.push(*id);
                0.0
            });
            *score += weight / (k + rank as f32);
        }
    }
    order.sort_by(|a, b| scores[b].total_cmp(&scores[a]));
    order.truncate(limit);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_wins_and_weights_count() {
        let (bm25, dense) = (vec!["a", "b", "c"], vec!["c", "b", "d"]);
        // a 1/61, b 2/62, c 1/63 + 1/61, d 1/63
        assert_eq!(fuse(&[(1.0, bm25.clone()), (1.0, dense.clone())], 60.0, 10), ["c", "b", "a", "d"]);
        assert_eq!(fuse(&[(1.0, bm25), (0.0, dense)], 60.0, 2), ["a", "b"]);
    }

    #[test]
    fn one_list_keeps_its_order() {
        assert_eq!(fuse(&[(0.3, vec![3, 1, 2])], 60.0, 10), [3, 1, 2]);
    }
}
