//! Entropy of the policy: numbers for tests and reports, and what keeps it up.

/// Log-probabilities of `softmax(logits / temperature)`. The temperature must be that of sampling, or the ratio of new to
/// old is not 1 where nothing has changed.
#[must_use]
pub fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let scaled: Vec<f64> = logits.iter().map(|logit| (logit - most) / temperature).collect();
    let total = scaled.iter().map(|x| x.exp()).sum::<f64>().ln();
    scaled.iter().map(|x| x - total).collect()
}

/// Entropy in nats, and its slope with respect to each logit: `-p (log p + H) / temperature`.
#[must_use]
pub fn entropy(logits: &[f64], temperature: f64) -> (f64, Vec<f64>) {
    let log_probs = log_softmax(logits, temperature);
    let entropy: f64 = -log_probs.iter().map(|l| l.exp() * l).sum::<f64>();
    (entropy, log_probs.iter().map(|l| -l.exp() * (l + entropy) / temperature).collect())
}

/// The weight of the entropy in the loss.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum EntropyControl {
    /// Always the same; 0 for none.
    Fixed(f64),
    /// Rises by `step` while the entropy is at or below `target`, falls by it otherwise, stays within 0 and 1, and is
    /// used only at or below the target.
    Adaptive {
        /// Present weight.
        weight: f64,
        /// Wanted entropy, nats a token.
        target: f64,
        /// Change of the weight a step.
        step: f64,
    },
}

impl EntropyControl {
    /// Takes in the entropy of a batch and gives the weight for it.
    pub fn weight(&mut self, entropy: f64) -> f64 {
        match self {
            Self::Fixed(weight) => *weight,
            Self::Adaptive { weight, target, step } => {
                let low = entropy <= *target;
                *weight = (*weight + if low { *step } else { -*step }).clamp(0.0, 1.0);
                if low { *weight } else { 0.0 }
            }
        }
    }

    /// Whether it never enters the loss.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::Fixed(0.0)
    }
}
