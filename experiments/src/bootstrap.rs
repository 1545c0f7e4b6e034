use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check_level, check_sample, paired_differences};
use crate::normal::{normal_cdf, normal_quantile};

/// How the interval is read off the resampled means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The quantiles of the resampled means.
    Percentile,
    /// Quantiles corrected for bias and skew (Efron 1987, "BCa").
    Bca,
}

/// The settings of a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// How the interval is read.
    pub method: Method,
    /// Confidence level in (0, 1).
    pub level: f64,
    /// Resamples drawn, at least 1.
    pub resamples: usize,
    /// Seed of the draws: the same seed gives the same interval.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// BCa at 95 % from 10,000 resamples.
    fn default() -> Self {
        Self { method: Method::Bca, level: 0.95, resamples: 10_000, seed: 0 }
    }
}

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// A mean with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean of the sample.
    pub mean: f64,
    /// Where the mean of the population is likely to lie.
    pub interval: Interval,
}

/// Bootstrap interval of a mean.
///
/// A sample of equal values gives an interval of no width.
///
/// # Errors
/// The sample is empty or holds a value that is not finite; `level` or `resamples` is out of range.
pub fn bootstrap_mean(values: &[f64], settings: Bootstrap) -> Result<Estimate, StatsError> {
    check_sample(values)?;
    check_level(settings.level)?;
    if settings.resamples == 0 {
        return Err(StatsError::Resamples);
    }
    let observed = mean(values);
    if values.iter().all(|value| *value == values[0]) {
        return Ok(Estimate { mean: observed, interval: Interval { lower: observed, upper: observed } });
    }
    let resampled = resampled_means(values, values.len(), settings.resamples, settings.seed);
    let tail = 0.5 * (1.0 - settings.level);
    let (low, high) = match settings.method {
        Method::Percentile => (tail, 1.0 - tail),
        Method::Bca => bca_tails(values, &resampled, observed, tail),
    };
    let interval = Interval { lower: quantile(&resampled, low), upper: quantile(&resampled, high) };
    Ok(Estimate { mean: observed, interval })
}

/// Bootstrap interval of the mean of `left - right`, pairs kept together.
///
/// # Errors
/// As [`bootstrap_mean`]; also where the sides differ in length.
pub fn bootstrap_paired_difference(left: &[f64], right: &[f64], settings: Bootstrap) -> Result<Estimate, StatsError> {
    bootstrap_mean(&paired_differences(left, right)?, settings)
}

#[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The means of samples of `size` drawn with replacement, ascending.
#[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
pub(crate) fn resampled_means(values: &[f64], size: usize, resamples: usize, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = values.len();
    let mut means: Vec<f64> =
        (0..resamples).map(|_| (0..size).map(|_| values[rng.random_range(0..n)]).sum::<f64>() / size as f64).collect();
    means.sort_by(f64::total_cmp);
    means
}

/// The two probabilities at which BCa reads the resampled means (Efron 1987, equation 6.8): `z0` is the bias of
/// their median, `a` the skew of the leave-one-out means.
#[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
fn bca_tails(values: &[f64], resampled: &[f64], observed: f64, tail: f64) -> (f64, f64) {
    let count = resampled.len() as f64;
    let below = resampled.partition_point(|value| *value < observed) as f64;
    let not_above = resampled.partition_point(|value| *value <= observed) as f64;
    // Half a resample from either end: a mean outside all resamples must not make z0 infinite.
    let share = (0.5 * (below + not_above) / count).clamp(0.5 / count, 1.0 - 0.5 / count);
    let z0 = normal_quantile(share);

    // For a mean, the leave-one-out influence of a value is proportional to its distance from the mean.
    let squares: f64 = values.iter().map(|value| (value - observed).powi(2)).sum();
    let cubes: f64 = values.iter().map(|value| (value - observed).powi(3)).sum();
    let a = cubes / (6.0 * squares.powf(1.5));

    let corrected = |z: f64| normal_cdf(z0 + (z0 + z) / (1.0 - a * (z0 + z)));
    (corrected(normal_quantile(tail)), corrected(normal_quantile(1.0 - tail)))
}

/// Quantile of an ascending list, linear between neighbours.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the position lies in 0..len"
)]
pub(crate) fn quantile(ascending: &[f64], p: f64) -> f64 {
    let position = p.clamp(0.0, 1.0) * (ascending.len() - 1) as f64;
    let index = position.floor() as usize;
    let next = (index + 1).min(ascending.len() - 1);
    ascending[index] + (position - index as f64) * (ascending[next] - ascending[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let values: Vec<f64> = (0..50).map(|n| f64::from(n % 7)).collect();
        let settings = Bootstrap { resamples: 500, ..Bootstrap::default() };
        assert_eq!(bootstrap_mean(&values, settings), bootstrap_mean(&values, settings));
        let other = Bootstrap { seed: 1, ..settings };
        assert_ne!(bootstrap_mean(&values, settings), bootstrap_mean(&values, other));
    }

    #[test]
    fn pairs_stay_together() {
        // A constant gain has no spread, however much the questions differ.
        let left: Vec<f64> = (0..40).map(|n| f64::from(n) + 0.5).collect();
        let right: Vec<f64> = (0..40).map(f64::from).collect();
        let estimate = bootstrap_paired_difference(&left, &right, Bootstrap::default()).unwrap();
        assert_eq!(estimate.interval, Interval { lower: 0.5, upper: 0.5 });
    }

    #[test]
    fn one_value_and_equal_values_have_no_width() {
        for values in [vec![0.25], vec![1.0; 9]] {
            let estimate = bootstrap_mean(&values, Bootstrap::default()).unwrap();
            assert_eq!(estimate.interval, Interval { lower: values[0], upper: values[0] });
        }
    }

    #[test]
    fn a_lone_success_keeps_a_finite_interval() {
        let mut values = vec![0.0; 30];
        values[3] = 1.0;
        let estimate = bootstrap_mean(&values, Bootstrap::default()).unwrap();
        assert!(estimate.interval.lower >= 0.0 && estimate.interval.upper < 0.4, "{estimate:?}");
    }

    #[test]
    fn refuses_what_cannot_be_computed() {
        let settings = Bootstrap::default();
        assert_eq!(bootstrap_mean(&[], settings), Err(StatsError::Empty));
        assert_eq!(bootstrap_mean(&[1.0, f64::NAN], settings), Err(StatsError::NotFinite { index: 1 }));
        assert_eq!(bootstrap_mean(&[1.0], Bootstrap { level: 95.0, ..settings }), Err(StatsError::Level(95.0)));
        assert_eq!(bootstrap_mean(&[1.0], Bootstrap { resamples: 0, ..settings }), Err(StatsError::Resamples));
    }
}
