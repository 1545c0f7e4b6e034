use serde::{Deserialize, Serialize};
use statrs::function::gamma::{gamma_ur, ln_gamma};

use crate::error::StatsError;

/// Weight of the prior in [`SampleRatio::anytime_p`], in observations.
const PRIOR: f64 = 100.0;

/// Whether the arms were filled in the shares that they were given ("sample ratio mismatch").
///
/// Where they were not, units were lost on the way, seldom by chance, and no difference of the arms can be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRatio {
    /// Units expected in each arm.
    pub expected: Vec<f64>,
    /// Pearson's chi-square of the counts against them.
    pub statistic: f64,
    /// Arms with a weight above 0, less one.
    pub degrees: u32,
    /// Exact tail of the chi-square distribution. Right at one look chosen beforehand; looking again and again at it
    /// raises false alarms as it does for any other test.
    pub p: f64,
    /// A p-value that may be looked at as often as one likes: one over the ratio of a Dirichlet mixture around the
    /// weights to the weights themselves (Lindon and Malek 2022). Use it while an experiment runs.
    pub anytime_p: f64,
}

impl SampleRatio {
    /// Whether the counts contradict the weights at `alpha`, by the p-value that holds at every look.
    ///
    /// 0.001 is usual: a mismatch stops an experiment, so it must not be called lightly.
    #[must_use]
    pub fn mismatch(&self, alpha: f64) -> bool {
        self.anytime_p <= alpha
    }
}

/// Compares the units counted in each arm with the arms' weights.
///
/// # Errors
/// The sides differ in length, no unit was counted, fewer than two weights are above 0, or a weight is negative or not
/// finite.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn sample_ratio(counts: &[u64], weights: &[f64]) -> Result<SampleRatio, StatsError> {
    if counts.len() != weights.len() {
        return Err(StatsError::Lengths { left: counts.len(), right: weights.len() });
    }
    if let Some(index) = weights.iter().position(|weight| !weight.is_finite() || *weight < 0.0) {
        return Err(StatsError::Weight { index, value: weights[index] });
    }
    let filled = weights.iter().filter(|weight| **weight > 0.0).count();
    if filled < 2 {
        return Err(StatsError::TooFew { needed: 2, given: filled });
    }
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return Err(StatsError::Empty);
    }
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    let n = total as f64;
    let expected: Vec<f64> = shares.iter().map(|share| share * n).collect();
    let degrees = u32::try_from(filled - 1).unwrap_or(u32::MAX);

    // An arm that should be empty and is not cannot be chance.
    let impossible = counts.iter().zip(&shares).any(|(count, share)| *count > 0 && *share <= 0.0);
    if impossible {
        return Ok(SampleRatio { expected, statistic: f64::MAX, degrees, p: 0.0, anytime_p: 0.0 });
    }
    let arms = || counts.iter().map(|count| *count as f64).zip(&expected).filter(|(_, expected)| **expected > 0.0);
    let statistic: f64 = arms().map(|(count, expected)| (count - expected).powi(2) / expected).sum();
    let p = if statistic > 0.0 { gamma_ur(0.5 * f64::from(degrees), 0.5 * statistic) } else { 1.0 };

    // ln of B(prior + counts) / (B(prior) prod share^count), with the multivariate beta function B.
    let log_ratio = ln_gamma(PRIOR) - ln_gamma(PRIOR + n)
        + arms()
            .map(|(count, expected)| {
                let share = expected / n;
                ln_gamma(PRIOR * share + count) - ln_gamma(PRIOR * share) - count * share.ln()
            })
            .sum::<f64>();
    Ok(SampleRatio { expected, statistic, degrees, p, anytime_p: (-log_ratio).exp().min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chi_square_by_hand() {
        // (60 - 50)^2 / 50 on either side is 4; P(chi-square with 1 degree > 4) = P(|Z| > 2) = 0.04550.
        let ratio = sample_ratio(&[60, 40], &[1.0, 1.0]).unwrap();
        assert_eq!((ratio.statistic, ratio.degrees, ratio.expected.as_slice()), (4.0, 1, [50.0, 50.0].as_slice()));
        assert!((ratio.p - 0.045_500_263_896_358_4).abs() < 1e-10, "{}", ratio.p);
        // With 2 degrees the tail is exp(-x / 2).
        let ratio = sample_ratio(&[50, 30, 20], &[0.4, 0.4, 0.2]).unwrap();
        assert!((ratio.p - (-0.5 * ratio.statistic).exp()).abs() < 1e-12);
    }

    #[test]
    fn a_balanced_split_is_no_mismatch_and_a_lost_arm_is() {
        assert!(!sample_ratio(&[5_050, 4_950], &[0.5, 0.5]).unwrap().mismatch(0.001));
        assert!(!sample_ratio(&[8_980, 1_020], &[0.9, 0.1]).unwrap().mismatch(0.001));
        assert!(sample_ratio(&[5_300, 4_700], &[0.5, 0.5]).unwrap().mismatch(0.001));
        assert!(sample_ratio(&[100_000, 1], &[0.5, 0.5]).unwrap().mismatch(1e-12));
    }

    #[test]
    fn an_arm_without_weight_stays_empty() {
        let counts = [510, 490, 0];
        let ratio = sample_ratio(&counts, &[1.0, 1.0, 0.0]).unwrap();
        assert_eq!(ratio.degrees, 1);
        assert!(!ratio.mismatch(0.001));
        assert!(sample_ratio(&[510, 490, 1], &[1.0, 1.0, 0.0]).unwrap().mismatch(0.001));
    }

    #[test]
    fn refuses_what_is_no_split() {
        assert_eq!(sample_ratio(&[1, 2], &[1.0]), Err(StatsError::Lengths { left: 2, right: 1 }));
        assert_eq!(sample_ratio(&[1, 2], &[1.0, 0.0]), Err(StatsError::TooFew { needed: 2, given: 1 }));
        assert_eq!(sample_ratio(&[1, 2], &[1.0, -1.0]), Err(StatsError::Weight { index: 1, value: -1.0 }));
        assert_eq!(sample_ratio(&[0, 0], &[1.0, 1.0]), Err(StatsError::Empty));
    }
}
