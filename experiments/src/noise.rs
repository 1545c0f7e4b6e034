use serde::{Deserialize, Serialize};

use crate::bootstrap::{quantile, resampled_means};
use crate::error::{StatsError, check_sample};
use crate::running::Running;

/// How far apart a rewriter lies from itself: what a comparison must exceed to be about the rewriters.
///
/// Sampling, a judge's mood and an index that changes make the control differ from the control.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NoiseFloor {
    /// Control-versus-control pairs measured.
    pub controls: u64,
    /// Mean of their differences; far from 0 it says that the second run of a pair is at a disadvantage.
    pub mean: f64,
    /// Standard deviation of one difference.
    pub sd: f64,
    /// Mean size of one difference, sign dropped.
    pub mean_absolute: f64,
    /// Pairs of the comparison that the floor is for.
    pub pairs: u64,
    /// 95 % of the means of so many control differences are no larger than this, sign dropped.
    pub floor: f64,
}

/// The noise floor of a comparison of `pairs` pairs, from differences of the control with itself.
///
/// Means of `pairs` differences are drawn with replacement, `resamples` times, from `seed`.
///
/// # Errors
/// There are fewer than two differences, one is not finite, or `pairs` or `resamples` is 0.
#[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
pub fn noise_floor(controls: &[f64], pairs: usize, resamples: usize, seed: u64) -> Result<NoiseFloor, StatsError> {
    check_sample(controls)?;
    if controls.len() < 2 {
        return Err(StatsError::TooFew { needed: 2, given: controls.len() });
    }
    if pairs == 0 {
        return Err(StatsError::Zero("pairs"));
    }
    if resamples == 0 {
        return Err(StatsError::Resamples);
    }
    let running = Running::of(controls);
    let mut sizes = resampled_means(controls, pairs, resamples, seed);
    sizes.iter_mut().for_each(|mean| *mean = mean.abs());
    sizes.sort_by(f64::total_cmp);
    Ok(NoiseFloor {
        controls: running.n,
        mean: running.mean,
        sd: running.variance().sqrt(),
        mean_absolute: controls.iter().map(|value| value.abs()).sum::<f64>() / controls.len() as f64,
        pairs: u64::try_from(pairs).unwrap_or(u64::MAX),
        floor: quantile(&sizes, 0.95),
    })
}

impl NoiseFloor {
    /// Whether a mean difference is larger than the control's from itself would be.
    #[must_use]
    pub fn exceeded_by(&self, difference: f64) -> bool {
        difference.abs() > self.floor
    }

    /// What is left of a mean difference above the floor, with its sign; 0 within it.
    #[must_use]
    pub fn beyond(&self, difference: f64) -> f64 {
        difference.signum() * (difference.abs() - self.floor).max(0.0)
    }

    /// The comparison with the floor, in words.
    #[must_use]
    pub fn statement(&self, difference: f64) -> String {
        let Self { controls, pairs, floor, .. } = self;
        let side = if self.exceeded_by(difference) { "beyond" } else { "within" };
        format!(
            "a difference of {difference:+.4} is {side} noise: over {pairs} pairs the control differs from itself by at \
             most {floor:.4} in 95 % of cases ({controls} control pairs)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls() -> Vec<f64> {
        (0..100).map(|n| [0.2, -0.2, 0.0, 0.0][n % 4]).collect()
    }

    #[test]
    fn the_floor_falls_with_the_root_of_the_pairs() {
        let few = noise_floor(&controls(), 100, 2_000, 1).unwrap();
        let many = noise_floor(&controls(), 400, 2_000, 1).unwrap();
        // The sd is 0.1414..., so the mean of 100 stays within 1.96 x 0.01414 = 0.0277 in 95 % of cases.
        assert!((few.floor - 0.0277).abs() < 0.003, "{few:?}");
        assert!((many.floor / few.floor - 0.5).abs() < 0.08, "{many:?}");
        assert!((few.mean_absolute - 0.1).abs() < 1e-12 && few.mean.abs() < 1e-12);
    }

    #[test]
    fn a_constant_shift_is_part_of_the_floor() {
        let shifted: Vec<f64> = controls().iter().map(|value| value - 0.05).collect();
        let floor = noise_floor(&shifted, 10_000, 200, 1).unwrap();
        assert!(floor.floor > 0.05 && !floor.exceeded_by(0.05), "{floor:?}");
    }

    #[test]
    fn the_statement_takes_sides() {
        let noise = noise_floor(&controls(), 100, 2_000, 1).unwrap();
        assert!(noise.statement(0.2).starts_with("a difference of +0.2000 is beyond noise: over 100 pairs"));
        assert!(noise.statement(-0.001).contains("-0.0010 is within noise"));
        assert_eq!(noise.beyond(-0.001), 0.0);
        assert!((noise.beyond(-0.2) + 0.2 - noise.floor).abs() < 1e-12);
    }

    #[test]
    fn refuses_too_little() {
        assert_eq!(noise_floor(&[0.1], 10, 10, 0), Err(StatsError::TooFew { needed: 2, given: 1 }));
        assert_eq!(noise_floor(&[0.1, 0.2], 0, 10, 0), Err(StatsError::Zero("pairs")));
        assert_eq!(noise_floor(&[0.1, f64::NAN], 1, 10, 0), Err(StatsError::NotFinite { index: 1 }));
    }
}
