//! Fits what `tuning.toml` holds to labelled candidates. Pure functions; the validation split only.
use std::collections::HashMap;
use std::hash::Hash;

use crate::fuse::{FusionWeights, fuse};
use crate::score::{Calibration, RerankScore, Similarity, logit};

/// A fused candidate of a validation query with what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelledCandidate {
    /// Cosine of query and passage, where an embedder ran.
    pub cosine: Option<f32>,
    /// Lexical similarity, 0 to 1.
    pub lexical: f32,
    /// The reranker's own score, where it ran.
    pub raw_rerank: Option<f32>,
    /// Whether the passage is labelled relevant for the query.
    pub relevant: bool,
}

/// The lists of one validation query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabelledLists<Id> {
    /// The lexical leg, best first.
    pub bm25: Vec<Id>,
    /// The dense leg, best first.
    pub dense: Vec<Id>,
    /// The passages labelled relevant.
    pub relevant: Vec<Id>,
}

/// Logistic regression by Newton's method with a ridge of 1e-3 on all but the constant.
///
/// Rows are features without the constant; returns the weights and then the constant. `None` where the labels are all
/// alike or nothing can be solved.
#[must_use]
pub fn logistic_regression(rows: &[Vec<f64>], labels: &[bool]) -> Option<Vec<f64>> {
    let size = rows.first()?.len() + 1;
    if labels.len() != rows.len() || labels.iter().all(|label| *label) || !labels.contains(&true) {
        return None;
    }
    let mut weights = vec![0.0; size];
    for _ in 0..50 {
        let mut gradient = vec![0.0; size];
        let mut hessian = vec![vec![0.0; size]; size];
        for (row, label) in rows.iter().zip(labels) {
            let x = |index: usize| row.get(index).copied().unwrap_or(1.0);
            let z: f64 = (0..size).map(|index| weights[index] * x(index)).sum();
            let p = 1.0 / (1.0 + (-z).exp());
            let curve = (p * (1.0 - p)).max(1e-9);
            for i in 0..size {
                gradient[i] += (p - f64::from(u8::from(*label))) * x(i);
                for (j, cell) in hessian[i].iter_mut().enumerate() {
                    *cell += curve * x(i) * x(j);
                }
            }
        }
        for index in 0..size {
            let ridge = if index + 1 < size { 1e-3 } else { 1e-9 };
            gradient[index] += ridge * weights[index];
            hessian[index][index] += ridge;
        }
        let step = solve(hessian, gradient)?;
        let largest = step.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        // Far steps overshoot where the classes are nearly separable.
        let damping = if largest > 5.0 { 5.0 / largest } else { 1.0 };
        weights.iter_mut().zip(&step).for_each(|(weight, delta)| *weight -= damping * delta);
        if largest < 1e-9 {
            break;
        }
    }
    weights.iter().all(|weight| weight.is_finite()).then_some(weights)
}

/// Gaussian elimination with partial pivoting.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..size {
            let factor = matrix[row][column] / matrix[column][column];
            let above = matrix[column].clone();
            for (cell, pivot) in matrix[row].iter_mut().zip(above).skip(column) {
                *cell -= factor * pivot;
            }
            right[row] -= factor * right[column];
        }
    }
    for column in (0..size).rev() {
        let known: f64 = (column + 1..size).map(|index| matrix[column][index] * right[index]).sum();
        right[column] = (right[column] - known) / matrix[column][column];
    }
    Some(right)
}

/// Fits the calibration; parts that the candidates cannot tell keep their fallback.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "coefficients are used as f32")]
pub fn fit_calibration(candidates: &[LabelledCandidate]) -> Calibration {
    let mut calibration = Calibration::default();
    let fit = |rows: Vec<(Vec<f64>, bool)>| {
        let (rows, labels): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        logistic_regression(&rows, &labels)
    };
    let hybrid = candidates.iter().filter_map(|candidate| {
        let cosine = candidate.cosine?;
        Some((vec![f64::from(cosine), f64::from(candidate.lexical)], candidate.relevant))
    });
    if let Some(weights) = fit(hybrid.collect()) {
        calibration.hybrid =
            Similarity { dense: weights[0] as f32, lexical: weights[1] as f32, bias: weights[2] as f32 };
    }
    let lexical = candidates.iter().map(|candidate| (vec![f64::from(candidate.lexical)], candidate.relevant));
    if let Some(weights) = fit(lexical.collect()) {
        calibration.lexical_only = Similarity { dense: 0.0, lexical: weights[0] as f32, bias: weights[1] as f32 };
    }
    let reranked = candidates.iter().filter_map(|candidate| {
        let score = calibration.score(candidate.cosine, candidate.lexical);
        Some((vec![f64::from(candidate.raw_rerank?), f64::from(logit(score))], candidate.relevant))
    });
    if let Some(weights) = fit(reranked.collect()) {
        calibration.rerank =
            RerankScore { scale: weights[0] as f32, similarity: weights[1] as f32, bias: weights[2] as f32 };
    }
    calibration
}

/// Mean over queries of 1 / rank of the first relevant passage within `depth`; 0 where there is none.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "ranks are small")]
pub fn fused_mrr<Id: Copy + Eq + Hash>(
    queries: &[LabelledLists<Id>],
    weights: FusionWeights,
    k: f32,
    depth: usize,
) -> f64 {
    let reciprocal = |query: &LabelledLists<Id>| {
        let fused = fuse(&[(weights.bm25, query.bm25.clone()), (weights.dense, query.dense.clone())], k, depth);
        fused.iter().position(|id| query.relevant.contains(id)).map_or(0.0, |at| 1.0 / (at + 1) as f64)
    };
    if queries.is_empty() { 0.0 } else { queries.iter().map(reciprocal).sum::<f64>() / queries.len() as f64 }
}

/// The weights of the grid 0.00, 0.05 ... 1.00 (dense) and its complement (BM25) with the best mean reciprocal rank.
///
/// Ties go to the setting nearest to equal weights, then to the lexical leg: the plateau's middle generalises best.
#[must_use]
pub fn tune_fusion<Id: Copy + Eq + Hash>(queries: &[LabelledLists<Id>], k: f32, depth: usize) -> (FusionWeights, f64) {
    let grid = (0..=20_u8).map(|step| f32::from(step) / 20.0);
    let scored = grid.map(|dense| {
        let weights = FusionWeights { bm25: 1.0 - dense, dense };
        (weights, fused_mrr(queries, weights, k, depth))
    });
    let better = |a: (FusionWeights, f64), b: (FusionWeights, f64)| {
        let off_centre = |weights: FusionWeights| (weights.dense - 0.5).abs();
        let gain = b.1 - a.1;
        if gain > 1e-9 || (gain > -1e-9 && off_centre(b.0) + 1e-6 < off_centre(a.0)) { b } else { a }
    };
    scored.reduce(better).unwrap_or_default()
}

/// Expected calibration error over ten equal bins: the mean distance of stated probability and observed frequency.
#[must_use]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bins of 0..1"
)]
pub fn calibration_error(scores: &[(f32, bool)]) -> f64 {
    let mut bins: HashMap<usize, (f64, f64, f64)> = HashMap::new();
    for (score, relevant) in scores {
        let bin = bins.entry(((score.clamp(0.0, 1.0) * 10.0) as usize).min(9)).or_default();
        bin.0 += f64::from(*score);
        bin.1 += f64::from(u8::from(*relevant));
        bin.2 += 1.0;
    }
    let total: f64 = bins.values().map(|(stated, observed, _)| (stated - observed).abs()).sum();
    if scores.is_empty() { 0.0 } else { total / scores.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_recovers_known_weights() {
        // Labels drawn at the probabilities of sigmoid(3x - 1), by a fixed low-discrepancy sequence.
        let mut rows = Vec::new();
        let mut labels = Vec::new();
        for step in 0..20_000_u32 {
            let x = f64::from(step % 200) / 100.0 - 1.0;
            let u = (f64::from(step) * 0.618_033_988_75).fract();
            rows.push(vec![x]);
            labels.push(u < 1.0 / (1.0 + (-(3.0 * x - 1.0)).exp()));
        }
        let weights = logistic_regression(&rows, &labels).unwrap();
        assert!((weights[0] - 3.0).abs() < 0.15 && (weights[1] + 1.0).abs() < 0.1, "{weights:?}");
    }

    #[test]
    fn labels_that_are_all_alike_teach_nothing() {
        assert!(logistic_regression(&[vec![1.0], vec![2.0]], &[true, true]).is_none());
        assert!(logistic_regression(&[], &[]).is_none());
        assert_eq!(fit_calibration(&[]), Calibration::default());
    }

    #[test]
    fn separable_labels_stay_finite() {
        let candidate = |cosine: f32| LabelledCandidate {
            cosine: Some(cosine),
            lexical: 0.0,
            raw_rerank: Some(cosine),
            relevant: cosine > 0.5,
        };
        let candidates: Vec<_> = (0_u8..100).map(|step| candidate(f32::from(step) / 100.0)).collect();
        let calibration = fit_calibration(&candidates);
        assert!(calibration.score(Some(0.9), 0.0) > 0.9 && calibration.score(Some(0.1), 0.0) < 0.1);
    }

    #[test]
    fn the_grid_finds_the_useful_leg() {
        let query = LabelledLists { bm25: vec![1, 2, 3], dense: vec![4, 5, 3], relevant: vec![1] };
        let (weights, mrr) = tune_fusion(&[query], 60.0, 10);
        assert!(weights.bm25 > weights.dense - 0.01 && (mrr - 1.0).abs() < 1e-9, "{weights:?} {mrr}");
    }

    #[test]
    fn calibration_error_is_zero_when_stated_equals_observed() {
        let scores: Vec<(f32, bool)> = (0..100).map(|index| (0.25, index % 4 == 0)).collect();
        assert!(calibration_error(&scores) < 1e-9);
        assert!((calibration_error(&[(1.0, false)]) - 1.0).abs() < 1e-9);
    }
}
