//! How far the policy is from a reference, by token, and what steers the weight of that.
//!
//! Estimators of `KL(policy || reference)` from a token that the policy drew (Schulman 2020, "Approximating KL
//! divergence"). k1 and k3 have the right mean, but as a loss their slopes have not: `Straight` ones carry the value of
//! k1 or k3 and the slope of k2, which is right on average.

/// Which estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlEstimator {
    /// `log p - log ref`.
    K1,
    /// `|log p - log ref|`.
    Abs,
    /// `(log p - log ref)^2 / 2`.
    K2,
    /// `exp(log ref - log p) - (log ref - log p) - 1`, never negative; cut at 10.
    K3,
    /// Value of k1, slope of k2.
    StraightK1,
    /// Value of k3, slope of k2.
    StraightK3,
}

/// Bound of the log-ratio in k3.
const MOST_LOG_RATIO: f64 = 20.0;
/// Bound of k3 itself.
const MOST_K3: f64 = 10.0;

impl KlEstimator {
    /// Value in nats and slope with respect to `log_prob`.
    #[must_use]
    pub fn token(self, log_prob: f64, reference: f64) -> (f64, f64) {
        let difference = log_prob - reference;
        match self {
            Self::K1 => (difference, 1.0),
            Self::Abs => (difference.abs(), if difference == 0.0 { 0.0 } else { difference.signum() }),
            Self::K2 => (0.5 * difference * difference, difference),
            Self::K3 => k3(difference),
            Self::StraightK1 => (difference, difference),
            Self::StraightK3 => (k3(difference).0, difference),
        }
    }
}

fn k3(difference: f64) -> (f64, f64) {
    let log_ratio = (-difference).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO);
    let value = log_ratio.exp() - log_ratio - 1.0;
    let cut = difference.abs() > MOST_LOG_RATIO || value > MOST_K3;
    (value.min(MOST_K3), if cut { 0.0 } else { 1.0 - log_ratio.exp() })
}

/// k3 without bounds: value and slope. One token far off can outweigh a batch.
#[must_use]
pub fn k3_unbounded(log_prob: f64, reference: f64) -> (f64, f64) {
    let log_ratio = reference - log_prob;
    (log_ratio.exp() - log_ratio - 1.0, 1.0 - log_ratio.exp())
}

/// The distance to the reference taken out of each token's reward: `r - weight * k1`.
#[must_use]
pub fn in_reward(rewards: &[f64], log_probs: &[f64], reference: &[f64], weight: f64) -> Vec<f64> {
    let tokens = rewards.iter().zip(log_probs.iter().zip(reference));
    tokens.map(|(reward, (new, reference))| reward - weight * (new - reference)).collect()
}

/// A weight that follows a target (Ziegler et al. 2019): `weight *= 1 + clip(kl / target - 1, ±0.2) n / horizon`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AdaptiveKl {
    /// Present weight.
    pub weight: f64,
    /// Wanted divergence, in the unit of what [`AdaptiveKl::update`] is told.
    pub target: f64,
    /// Samples over which the weight may change by its whole.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Takes in the divergence of `samples` samples.
    pub fn update(&mut self, kl: f64, samples: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.weight *= 1.0 + error * samples as f64 / self.horizon;
    }
}
