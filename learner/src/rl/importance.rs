//! Samples that another engine, or an older policy, drew: weights, rejections, and figures of how far off they are.
//!
//! Three policies take part: behaviour (drew the tokens), proximal (the trainer's weights before the update) and current.
//! Weights are `proximal / behaviour` and constants; the loss compares current with proximal. Where the behaviour's
//! log-probabilities stand in for the proximal ones, the ratio in the loss corrects already, and there are no weights.
use super::losses::ratio;
use super::tokens::Layout;

/// Whether a weight is one token's or the product over its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Each token has its own: biased, little variance.
    Token,
    /// All tokens of a sequence share the product: unbiased, much variance.
    Sequence,
    /// All tokens of a sequence share the geometric mean.
    GeometricMean,
}

/// What happens to weights out of bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At most so much: truncated importance sampling (Yao et al. 2025).
    Truncate(f64),
    /// 0 outside of the two: IcePop.
    Mask(f64, f64),
}

/// How samples of a policy that is not quite the present one are corrected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correction {
    /// Unit of the weights.
    pub level: Level,
    /// Bound of the weights.
    pub bound: Bound,
    /// Whether the weights are divided by their mean.
    pub normalise: bool,
}

/// Figures of weights before normalising.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct WeightFigures {
    /// Mean over tokens; healthy from 0.5 to 2.
    pub mean: f64,
    /// Deviation over tokens; healthy up to 1.
    pub deviation: f64,
    /// `(sum w)^2 / (n sum w^2)`: which share of the tokens is of use; healthy from 0.3.
    pub effective_share: f64,
    /// Share of tokens out of bounds.
    pub out_of_bounds: f64,
}

impl Correction {
    /// Weights by token (0 where a token does not count) and their figures.
    #[must_use]
    pub fn weights(&self, proximal: &[f64], behaviour: &[f64], layout: &Layout) -> (Vec<f64>, WeightFigures) {
        let raw = raw_weights(self.level, proximal, behaviour, layout);
        let outside = |weight: f64| match self.bound {
            Bound::Truncate(most) => weight > most,
            Bound::Mask(least, most) => weight < least || weight > most,
        };
        let bounded: Vec<f64> = raw
            .iter()
            .map(|weight| match self.bound {
                Bound::Truncate(most) => weight.min(most),
                Bound::Mask(..) if outside(*weight) => 0.0,
                Bound::Mask(..) => *weight,
            })
            .zip(layout.mask())
            .map(|(weight, counts)| if *counts { weight } else { 0.0 })
            .collect();
        let figures = figures(&bounded, layout, layout.mean_of(|place| f64::from(u8::from(outside(raw[place])))));
        let norm = match (self.normalise, self.level) {
            (false, _) => 1.0,
            (true, Level::Token) => figures.mean,
            (true, _) => {
                let row_mean = |row| {
                    layout.counted(row).map(|place| bounded[place]).sum::<f64>() / (layout.count(row) as f64 + 1e-8)
                };
                (0..layout.rows()).map(row_mean).sum::<f64>() / layout.live_rows().max(1) as f64
            }
        };
        let norm = if norm > 1e-8 { norm } else { 1.0 };
        (bounded.iter().map(|weight| weight / norm).collect(), figures)
    }
}

fn raw_weights(level: Level, proximal: &[f64], behaviour: &[f64], layout: &Layout) -> Vec<f64> {
    if level == Level::Token {
        return (0..layout.len()).map(|place| ratio(proximal[place], behaviour[place])).collect();
    }
    let by_row: Vec<f64> = (0..layout.rows())
        .map(|row| {
            let sum: f64 = layout.counted(row).map(|place| proximal[place] - behaviour[place]).sum();
            let count = if level == Level::Sequence { 1.0 } else { layout.count(row).max(1) as f64 };
            ratio(sum / count, 0.0)
        })
        .collect();
    layout.spread(&by_row)
}

fn figures(weights: &[f64], layout: &Layout, out_of_bounds: f64) -> WeightFigures {
    let mean = layout.mean(weights);
    let squares = layout.mean_of(|place| weights[place] * weights[place]);
    WeightFigures {
        mean,
        deviation: (squares - mean * mean).max(0.0).sqrt(),
        effective_share: if squares > 0.0 { mean * mean / squares } else { 0.0 },
        out_of_bounds,
    }
}

/// What of the log-ratio `x = proximal - behaviour` a rejection looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// `-x`.
    K1,
    /// `x^2 / 2`.
    K2,
    /// `exp(x) - 1 - x`.
    K3,
}

/// Over what a rejection looks, and what it throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One token decides on itself.
    Token,
    /// The sum over a sequence decides on all its tokens.
    SequenceSum,
    /// The mean does.
    SequenceMean,
    /// The largest does.
    SequenceMax,
}

/// Throws tokens away that the two policies disagree on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rejection {
    /// What is looked at.
    pub divergence: Divergence,
    /// Over what.
    pub reach: Reach,
    /// Least and largest value to keep, in nats. For ratios within `[a, b]` under k1 that is `[-ln b, -ln a]`.
    pub bounds: (f64, f64),
}

impl Rejection {
    /// Which tokens stay; those that do not count never do.
    #[must_use]
    pub fn kept(&self, proximal: &[f64], behaviour: &[f64], layout: &Layout) -> Vec<bool> {
        let value = |place: usize| {
            let x = (proximal[place] - behaviour[place]).clamp(-20.0, 20.0);
            match self.divergence {
                Divergence::K1 => -x,
                Divergence::K2 => 0.5 * x * x,
                Divergence::K3 => x.exp() - 1.0 - x,
            }
        };
        let fits = |value: f64| value >= self.bounds.0 && value <= self.bounds.1;
        let mut kept = vec![false; layout.len()];
        for row in 0..layout.rows() {
            let whole = match self.reach {
                Reach::Token => None,
                Reach::SequenceSum => Some(layout.counted(row).map(value).sum()),
                Reach::SequenceMean => {
                    Some(layout.counted(row).map(value).sum::<f64>() / layout.count(row).max(1) as f64)
                }
                Reach::SequenceMax => Some(layout.counted(row).map(value).fold(f64::NEG_INFINITY, f64::max)),
            };
            for place in layout.counted(row) {
                kept[place] = fits(whole.unwrap_or_else(|| value(place)));
            }
        }
        kept
    }
}

/// Sequences to drop although they are bad: those of negative advantage that the behaviour found much likelier a token
/// than the policy does (mean of `behaviour - current` above `most`), as in DeepSeek-V3.2.
#[must_use]
pub fn unlikely_failures(
    current: &[f64],
    behaviour: &[f64],
    advantages: &[f64],
    layout: &Layout,
    most: f64,
) -> Vec<bool> {
    (0..layout.rows())
        .map(|row| {
            let gap: f64 = layout.counted(row).map(|place| behaviour[place] - current[place]).sum();
            let bad = layout.row_mean(row, advantages) < 0.0;
            bad && gap / layout.count(row).max(1) as f64 > most
        })
        .collect()
}

/// How far the trainer is from the policy that drew the samples.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct OffPolicy {
    /// Mean of `behaviour - proximal`, nats a token; healthy up to 0.1.
    pub kl: f64,
    /// As `kl`, by the estimator k3.
    pub k3: f64,
    /// Perplexity under the trainer, mean over sequences.
    pub proximal_perplexity: f64,
    /// Perplexity under the behaviour, mean over sequences.
    pub behaviour_perplexity: f64,
    /// Mean over sequences of the difference of their mean log-probabilities, behaviour less trainer.
    pub mean_gap: f64,
    /// Mean of its amount.
    pub mean_abs_gap: f64,
    /// Mean of squared ratios less 1, by token; healthy up to 1.
    pub chi2_token: f64,
    /// The same of whole sequences.
    pub chi2_sequence: f64,
}

/// Figures of [`OffPolicy`].
#[must_use]
pub fn off_policy(proximal: &[f64], behaviour: &[f64], layout: &Layout) -> OffPolicy {
    let rows: Vec<usize> = (0..layout.rows()).filter(|row| layout.count(*row) > 0).collect();
    let by_row =
        |value: &dyn Fn(usize) -> f64| rows.iter().map(|row| value(*row)).sum::<f64>() / rows.len().max(1) as f64;
    let log_ratio = |place: usize| (proximal[place] - behaviour[place]).clamp(-20.0, 20.0);
    let gap = |row: usize| layout.row_mean(row, behaviour) - layout.row_mean(row, proximal);
    OffPolicy {
        kl: layout.mean_of(|place| behaviour[place] - proximal[place]),
        k3: layout.mean_of(|place| log_ratio(place).exp() - log_ratio(place) - 1.0),
        proximal_perplexity: by_row(&|row| (-layout.row_mean(row, proximal)).exp()),
        behaviour_perplexity: by_row(&|row| (-layout.row_mean(row, behaviour)).exp()),
        mean_gap: by_row(&gap),
        mean_abs_gap: by_row(&|row| gap(row).abs()),
        chi2_token: layout.mean_of(|place| (2.0 * log_ratio(place)).exp()) - 1.0,
        chi2_sequence: by_row(&|row| {
            let sum: f64 = layout.counted(row).map(|place| proximal[place] - behaviour[place]).sum();
            ratio(2.0 * sum.clamp(-20.0, 20.0), 0.0)
        }) - 1.0,
    }
}
