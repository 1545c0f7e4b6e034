//! Policy losses by token, with their slopes.
//!
//! Each loss is a plain function of numbers: what a token's loss is, and its derivative with respect to the token's new
//! log-probability. A training step weighs the slopes ([`super::Aggregation`]) and sends them into the network as the
//! gradient of its log-probabilities, so that what is tested here is what trains.
use super::tokens::Layout;

/// Log-ratios are kept within this before `exp`.
const MOST_LOG_RATIO: f64 = 20.0;

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PolicyLoss {
    /// PPO (Schulman et al. 2017): `max(-A r, -A clip(r, 1 - low, 1 + high))`; with `high > low` DAPO's clip-higher
    /// (Yu et al. 2025). `dual` bounds the loss of bad completions by `-A dual` (Ye et al. 2020); `most` bounds the
    /// ratio itself in the first term (INTELLECT-2).
    Clip {
        /// How far a ratio may fall below 1.
        low: f64,
        /// How far it may rise above 1.
        high: f64,
        /// Bound of the loss where the advantage is negative, above 1.
        dual: Option<f64>,
        /// Bound of the ratio.
        most: Option<f64>,
    },
    /// GSPO (Zheng et al. 2025): one ratio a sequence, the geometric mean over its tokens.
    Sequence {
        /// As for `Clip`; the paper's is 3e-4.
        low: f64,
        /// As for `Clip`; the paper's is 4e-4.
        high: f64,
    },
    /// CISPO (MiniMax 2025): `-clip(r) A log p` with the clipped ratio as a constant; no token loses its gradient.
    Cispo {
        /// Least ratio.
        least: f64,
        /// Largest ratio.
        most: f64,
    },
    /// SAPO (Gao et al. 2025): a sigmoid in place of the clip.
    Soft {
        /// Steepness where the advantage is positive.
        positive: f64,
        /// Steepness where it is not.
        negative: f64,
    },
    /// GMPO (Zhao et al. 2025): the geometric mean of clipped token ratios; wants `SeqMeanTokenMean`.
    GeometricMean {
        /// How far a log-ratio may fall below 0.
        low: f64,
        /// How far it may rise above 0.
        high: f64,
    },
    /// DPPO: `-min(r, cap) A log p` with the ratio as a constant, without the tokens whose probability has moved too far.
    TotalVariation {
        /// How far a probability may fall.
        low: f64,
        /// How far it may rise.
        high: f64,
        /// Largest ratio.
        cap: f64,
    },
    /// VESPO: `-phi A log p` with a weight that a gamma-like function makes of the whole sequence's ratio.
    Variational {
        /// Power and rate where the advantage is not negative.
        positive: (f64, f64),
        /// Power and rate where it is.
        negative: (f64, f64),
    },
    /// `-A log p`: REINFORCE, with importance weights from outside.
    Reinforce,
}

/// Losses and slopes by token, not yet weighted.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLosses {
    /// The loss of each token; its sum under the weights of an aggregation is the loss.
    pub loss: Vec<f64>,
    /// Its derivative with respect to the new log-probability. Where a loss is one of a whole sequence, what the slopes
    /// sum to under the weights is right, though each token's own is its share.
    pub slope: Vec<f64>,
    /// Where the clipped term was the larger.
    pub clipped: Vec<bool>,
    /// Where the second bound (dual clip, or negative advantages of GMPO) held.
    pub clipped_low: Vec<bool>,
}

/// What the update tells of a step's ratios.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RatioFigures {
    /// Share of tokens whose ratio was clipped.
    pub clip_fraction: f64,
    /// Share of tokens at the second bound.
    pub low_clip_fraction: f64,
    /// Mean of `old - new`, nats a token.
    pub approx_kl: f64,
    /// Largest `|ratio - 1|`.
    pub ratio_deviation: f64,
}

/// Ratio of new to old probability, with the log-ratio kept within 20 nats.
#[must_use]
pub fn ratio(new: f64, old: f64) -> f64 {
    clamped(new - old).exp()
}

fn clamped(log_ratio: f64) -> f64 {
    log_ratio.clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)
}

/// Slope of [`ratio`]: itself, or 0 where the log-ratio was cut.
fn ratio_slope(new: f64, old: f64) -> f64 {
    if (new - old).abs() > MOST_LOG_RATIO { 0.0 } else { ratio(new, old) }
}

impl PolicyLoss {
    /// Losses by token, of new and old log-probabilities and advantages.
    #[must_use]
    pub fn tokens(self, new: &[f64], old: &[f64], advantages: &[f64], layout: &Layout) -> TokenLosses {
        let n = layout.len();
        let mut out = TokenLosses {
            loss: vec![0.0; n],
            slope: vec![0.0; n],
            clipped: vec![false; n],
            clipped_low: vec![false; n],
        };
        for row in 0..layout.rows() {
            match self {
                Self::Sequence { low, high } => sequence(&mut out, new, old, advantages, layout, row, (low, high)),
                Self::GeometricMean { low, high } => {
                    geometric_mean(&mut out, new, old, advantages, layout, row, (low, high));
                }
                Self::Variational { positive, negative } => {
                    variational(&mut out, new, old, advantages, layout, row, positive, negative);
                }
                _ => {
                    for place in layout.counted(row) {
                        self.token(&mut out, place, new[place], old[place], advantages[place]);
                    }
                }
            }
        }
        out
    }

    fn token(self, out: &mut TokenLosses, place: usize, new: f64, old: f64, advantage: f64) {
        let r = ratio(new, old);
        let (loss, slope) = match self {
            Self::Clip { low, high, dual, most } => {
                let bounded = most.map_or(r, |most| r.min(most));
                let bounded_slope = if bounded < r { 0.0 } else { ratio_slope(new, old) };
                let (plain, held) = (-advantage * bounded, -advantage * r.clamp(1.0 - low, 1.0 + high));
                out.clipped[place] = held > plain;
                let (loss, slope) = if held > plain { (held, 0.0) } else { (plain, -advantage * bounded_slope) };
                match dual.map(|dual| -advantage * dual) {
                    Some(bound) if advantage < 0.0 && loss > bound => {
                        out.clipped_low[place] = true;
                        (bound, 0.0)
                    }
                    _ => (loss, slope),
                }
            }
            Self::Cispo { least, most } => {
                let held = r.clamp(least, most);
                out.clipped[place] = held != r;
                (-held * advantage * new, -held * advantage)
            }
            Self::Soft { positive, negative } => {
                let tau = if advantage > 0.0 { positive } else { negative };
                let gate = 1.0 / (1.0 + (-tau * (r - 1.0)).exp());
                (-gate * 4.0 / tau * advantage, -4.0 * gate * (1.0 - gate) * advantage * ratio_slope(new, old))
            }
            Self::TotalVariation { low, high, cap } => {
                let moved = new.exp() - old.exp();
                let too_far = (advantage > 0.0 && moved > high) || (advantage < 0.0 && moved < -low);
                out.clipped[place] = too_far;
                let weight = if too_far { 0.0 } else { r.min(cap) };
                (-weight * advantage * new, -weight * advantage)
            }
            _ => (-advantage * new, -advantage),
        };
        out.loss[place] = loss;
        out.slope[place] = slope;
    }

    /// Whether the ratio to the old policy enters.
    #[must_use]
    pub fn uses_ratio(self) -> bool {
        !matches!(self, Self::Reinforce)
    }
}

impl TokenLosses {
    /// Multiplies by importance weights, which are constants; the denominators stay.
    pub fn weigh(&mut self, weights: &[f64]) {
        for ((loss, slope), weight) in self.loss.iter_mut().zip(&mut self.slope).zip(weights) {
            *loss *= weight;
            *slope *= weight;
        }
    }

    /// Shares of clipped tokens and how far the policies are apart.
    #[must_use]
    pub fn figures(&self, new: &[f64], old: &[f64], layout: &Layout) -> RatioFigures {
        let share = |flags: &[bool]| layout.mean_of(|place| f64::from(u8::from(flags[place])));
        let deviations = (0..layout.len()).filter(|p| layout.mask()[*p]).map(|p| (ratio(new[p], old[p]) - 1.0).abs());
        RatioFigures {
            clip_fraction: share(&self.clipped),
            low_clip_fraction: share(&self.clipped_low),
            approx_kl: layout.mean_of(|place| -clamped(new[place] - old[place])),
            // a number that is none must not look small
            ratio_deviation: deviations.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most }),
        }
    }
}

fn sequence(
    out: &mut TokenLosses,
    new: &[f64],
    old: &[f64],
    advantages: &[f64],
    layout: &Layout,
    row: usize,
    (low, high): (f64, f64),
) {
    let log_ratio: f64 = layout.counted(row).map(|p| new[p] - old[p]).sum::<f64>() / layout.count(row).max(1) as f64;
    // the sequence's ratio could overflow where a token is far off
    let (r, slope) = if log_ratio > 10.0 { (10f64.exp(), 0.0) } else { (log_ratio.exp(), log_ratio.exp()) };
    for place in layout.counted(row) {
        let (plain, held) = (-advantages[place] * r, -advantages[place] * r.clamp(1.0 - low, 1.0 + high));
        out.clipped[place] = held > plain;
        out.loss[place] = plain.max(held);
        out.slope[place] = if held > plain { 0.0 } else { -advantages[place] * slope };
    }
}

fn geometric_mean(
    out: &mut TokenLosses,
    new: &[f64],
    old: &[f64],
    advantages: &[f64],
    layout: &Layout,
    row: usize,
    (low, high): (f64, f64),
) {
    let count = layout.count(row) as f64 + 1e-8;
    let advantage = layout.counted(row).map(|place| advantages[place]).sum::<f64>() / count;
    let mut sum = 0.0;
    for place in layout.counted(row) {
        let (plain, sign) = (new[place] - old[place], advantages[place].signum());
        let held = plain.clamp(-low, high);
        sum += sign * (sign * plain).min(sign * held);
        out.clipped[place] = held != plain && advantages[place] > 0.0;
        out.clipped_low[place] = held != plain && advantages[place] < 0.0;
        out.slope[place] = if sign * held < sign * plain { 0.0 } else { 1.0 };
    }
    let loss = -advantage * (sum / count).exp();
    for place in layout.counted(row) {
        out.loss[place] = loss;
        out.slope[place] *= loss;
    }
}

#[expect(clippy::too_many_arguments, reason = "a row of five parallel slices and two pairs of constants")]
fn variational(
    out: &mut TokenLosses,
    new: &[f64],
    old: &[f64],
    advantages: &[f64],
    layout: &Layout,
    row: usize,
    positive: (f64, f64),
    negative: (f64, f64),
) {
    let sum: f64 = layout.counted(row).map(|place| clamped(new[place] - old[place])).sum();
    let log_ratio = sum.clamp(1e-8f64.ln(), MOST_LOG_RATIO);
    for place in layout.counted(row) {
        let (power, rate) = if advantages[place] >= 0.0 { positive } else { negative };
        let weight = (rate + power * log_ratio - rate * log_ratio.exp()).exp();
        out.loss[place] = -weight * advantages[place] * new[place];
        out.slope[place] = -weight * advantages[place];
    }
}
