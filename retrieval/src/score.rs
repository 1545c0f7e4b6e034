//! Scores that read as probabilities of relevance.
use serde::{Deserialize, Serialize};

/// 1 / (1 + e^-x), without overflow.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// The inverse of [`sigmoid`], bounded to +-13.8 (probabilities of 1e-6 and 1 - 1e-6).
#[must_use]
pub fn logit(p: f32) -> f32 {
    let p = p.clamp(1e-6, 1.0 - 1e-6);
    (p / (1.0 - p)).ln()
}

/// P(relevant) = sigmoid(dense * cosine + lexical * lexical similarity + bias).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Similarity {
    /// Weight of the cosine, -1 to 1.
    pub dense: f32,
    /// Weight of the lexical similarity, 0 to 1.
    pub lexical: f32,
    /// Constant.
    pub bias: f32,
}

/// P(relevant) = sigmoid(scale * raw reranker score + similarity * logit(score) + bias).
///
/// The similarity takes part because the reranker sees only its ten best, and a small one is a weak witness alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RerankScore {
    /// Weight of the model's own score.
    pub scale: f32,
    /// Weight of the similarity's logit.
    pub similarity: f32,
    /// Constant.
    pub bias: f32,
}

/// How raw scores become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// With the cosine.
    pub hybrid: Similarity,
    /// Where no cosine is known; its weight is ignored.
    pub lexical_only: Similarity,
    /// For the reranker.
    pub rerank: RerankScore,
}

impl Default for Calibration {
    /// For data that nobody tuned on: half of the reachable score, or a cosine of 0.6, is as good as a coin toss.
    fn default() -> Self {
        Self {
            hybrid: Similarity { dense: 5.0, lexical: 5.0, bias: -4.25 },
            lexical_only: Similarity { dense: 0.0, lexical: 10.0, bias: -3.0 },
            rerank: RerankScore { scale: 6.0, similarity: 0.5, bias: -3.5 },
        }
    }
}

impl Calibration {
    /// The `score` of a hit: 0 to 1. Without a cosine the lexical coefficients stand alone.
    #[must_use]
    pub fn score(&self, cosine: Option<f32>, lexical: f32) -> f32 {
        match cosine {
            Some(cosine) => {
                let Similarity { dense, lexical: weight, bias } = self.hybrid;
                sigmoid(dense * cosine + weight * lexical + bias)
            }
            None => sigmoid(self.lexical_only.lexical * lexical + self.lexical_only.bias),
        }
    }

    /// The `reranker_score` of a hit: 0 to 1.
    #[must_use]
    pub fn reranker_score(&self, raw: f32, score: f32) -> f32 {
        sigmoid(self.rerank.scale * raw + self.rerank.similarity * logit(score) + self.rerank.bias)
    }
}

/// Cosine of two vectors; 0 where one is empty, of another size, or zero.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return 0.0;
    }
    let (mut dot, mut aa, mut bb) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (x, y) in a.iter().zip(b) {
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    let norm = (aa * bb).sqrt();
    if norm > 0.0 { dot / norm } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_probabilities_and_grow_with_their_parts() {
        let calibration = Calibration::default();
        let low = calibration.score(Some(0.1), 0.0);
        let high = calibration.score(Some(0.8), 0.6);
        assert!((0.0..0.5).contains(&low) && high > 0.5 && high <= 1.0);
        assert!(calibration.score(None, 0.9) > calibration.score(None, 0.1));
        assert!(calibration.reranker_score(0.9, 0.5) > calibration.reranker_score(0.2, 0.5));
    }

    #[test]
    fn extremes_stay_finite() {
        assert_eq!(sigmoid(1e9), 1.0);
        assert_eq!(sigmoid(-1e9), 0.0);
        assert!(logit(0.0).is_finite() && logit(1.0).is_finite());
        assert!((sigmoid(logit(0.3)) - 0.3).abs() < 1e-6);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), 0.0);
    }
}
