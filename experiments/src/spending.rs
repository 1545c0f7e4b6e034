use std::f64::consts::PI;

use crate::error::{StatsError, check_level};

/// The share of `alpha` that the `attempt`-th promotion may spend, counted from 1: `alpha 6 / (pi^2 k^2)`.
///
/// The shares of all attempts together are `alpha`, so that however many candidates are tried, one that is no better
/// passes with probability alpha at most. Without it, every lucky candidate in twenty would pass at 0.05.
///
/// # Errors
/// `alpha` is not between 0 and 1, or `attempt` is 0.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn attempt_alpha(alpha: f64, attempt: u64) -> Result<f64, StatsError> {
    check_level(alpha)?;
    if attempt == 0 {
        return Err(StatsError::Zero("attempt"));
    }
    let k = attempt as f64;
    Ok(alpha * 6.0 / (PI * PI * k * k))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attempts_together_spend_alpha() {
        let spent: f64 = (1..=100_000).map(|attempt| attempt_alpha(0.05, attempt).unwrap()).sum();
        assert!(spent < 0.05 && spent > 0.0499, "{spent}");
        assert!((attempt_alpha(0.05, 1).unwrap() - 0.030_396_355).abs() < 1e-8);
    }

    #[test]
    fn attempts_are_counted_from_one() {
        assert_eq!(attempt_alpha(0.05, 0), Err(StatsError::Zero("attempt")));
        assert_eq!(attempt_alpha(1.0, 1), Err(StatsError::Level(1.0)));
    }
}
