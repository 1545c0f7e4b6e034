use crate::bootstrap::Interval;
use crate::error::{StatsError, check_level};
use crate::normal::normal_quantile;

/// The score interval of a rate (Wilson 1927): stays inside [0, 1] and has width where all or none succeeded.
///
/// Ties of a win rate are dropped by the caller: `trials` = wins + losses.
///
/// # Errors
/// `trials` is 0 or below `successes`; `level` is not between 0 and 1.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn wilson(successes: u64, trials: u64, level: f64) -> Result<Interval, StatsError> {
    check_level(level)?;
    if trials == 0 || successes > trials {
        return Err(StatsError::Rate { successes, trials });
    }
    let n = trials as f64;
    let rate = successes as f64 / n;
    let z = normal_quantile(0.5 + 0.5 * level);
    let z2 = z * z;
    let centre = (rate + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let radius = z / (1.0 + z2 / n) * (rate * (1.0 - rate) / n + z2 / (4.0 * n * n)).sqrt();
    // At 0 and n successes the bound is exact, which rounding would miss by an ulp.
    let lower = if successes == 0 { 0.0 } else { (centre - radius).max(0.0) };
    let upper = if successes == trials { 1.0 } else { (centre + radius).min(1.0) };
    Ok(Interval { lower, upper })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_rate() {
        assert_eq!(wilson(3, 2, 0.95), Err(StatsError::Rate { successes: 3, trials: 2 }));
        assert_eq!(wilson(0, 0, 0.95), Err(StatsError::Rate { successes: 0, trials: 0 }));
        assert_eq!(wilson(1, 2, 1.0), Err(StatsError::Level(1.0)));
    }

    #[test]
    fn all_and_none_mirror_each_other() {
        let none = wilson(0, 20, 0.95).unwrap();
        let all = wilson(20, 20, 0.95).unwrap();
        assert_eq!((none.lower, all.upper), (0.0, 1.0));
        assert!((none.upper - (1.0 - all.lower)).abs() < 1e-12);
    }
}
