use serde::{Deserialize, Serialize};
use statrs::function::beta::beta_reg;

use crate::bootstrap::Interval;
use crate::error::{StatsError, check_level, check_sample};
use crate::running::Running;

/// What the paired t-test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedT {
    /// Mean of the differences.
    pub mean: f64,
    /// Student's t: the mean over its standard error.
    pub t: f64,
    /// Probability of a t this far from 0, either way, if the mean were 0.
    pub p_two_sided: f64,
    /// Interval of the mean.
    pub interval: Interval,
}

/// Student's t-test of "the mean of the paired differences is 0", with its interval at a confidence `level`.
///
/// For one look at a number of pairs fixed beforehand; a stream is for [`crate::BettingTest`].
///
/// # Errors
/// There are fewer than two differences, one is not finite, or all are equal; `level` is not between 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn paired_t(differences: &[f64], level: f64) -> Result<PairedT, StatsError> {
    check_sample(differences)?;
    check_level(level)?;
    if differences.len() < 2 {
        return Err(StatsError::TooFew { needed: 2, given: differences.len() });
    }
    let running = Running::of(differences);
    let error = (running.variance() / running.n as f64).sqrt();
    if error <= 0.0 {
        return Err(StatsError::NotPositive { name: "the spread of the differences", value: error });
    }
    let degrees = (running.n - 1) as f64;
    let t = running.mean / error;
    let radius = t_quantile(1.0 - level, degrees) * error;
    Ok(PairedT {
        mean: running.mean,
        t,
        p_two_sided: t_outside(t, degrees),
        interval: Interval { lower: running.mean - radius, upper: running.mean + radius },
    })
}

/// P(|T| >= |t|) for Student's distribution.
fn t_outside(t: f64, degrees: f64) -> f64 {
    beta_reg(0.5 * degrees, 0.5, degrees / (degrees + t * t))
}

/// The t that leaves `outside` beyond it, both tails together.
fn t_quantile(outside: f64, degrees: f64) -> f64 {
    let mut high = 1.0;
    // One degree of freedom has tails as heavy as 1 / t; a level next to 1 asks for a t far out.
    while t_outside(high, degrees) > outside && high < 1e12 {
        high *= 2.0;
    }
    let mut low = 0.0;
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if t_outside(middle, degrees) > outside {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_t() {
        for (degrees, t) in [(1.0, 12.706_204_736), (10.0, 2.228_138_852), (199.0, 1.971_956_544)] {
            assert!((t_quantile(0.05, degrees) - t).abs() < 1e-7, "{degrees}: {}", t_quantile(0.05, degrees));
        }
    }

    #[test]
    fn the_interval_ends_where_the_test_does() {
        let result = paired_t(&[0.2, -0.1, 0.35, 0.0, 0.5, -0.25], 0.95).unwrap();
        let at_the_edge =
            paired_t(&[0.2, -0.1, 0.35, 0.0, 0.5, -0.25].map(|d| d - result.interval.lower), 0.95).unwrap();
        assert!((at_the_edge.p_two_sided - 0.05).abs() < 1e-9, "{at_the_edge:?}");
    }

    #[test]
    fn refuses_differences_without_spread() {
        assert_eq!(paired_t(&[0.1], 0.95), Err(StatsError::TooFew { needed: 2, given: 1 }));
        assert!(matches!(paired_t(&[0.5; 8], 0.95), Err(StatsError::NotPositive { .. })));
    }
}
