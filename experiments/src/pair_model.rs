use rand::Rng;
use rand_distr::{Beta, Distribution};
use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check_bounds, check_positive, check_share};

/// What the differences of pairs are assumed to look like, for planning and for simulation.
///
/// A share of the pairs ties at exactly 0; the others follow a beta distribution stretched over the bounds, whose mean
/// and spread are such that all pairs together have `effect` and `sd`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairModel {
    /// Mean difference over all pairs, ties included.
    pub effect: f64,
    /// Standard deviation of a difference, ties included.
    pub sd: f64,
    /// Share of pairs that tie, at least 0 and below 1.
    pub tie_share: f64,
    /// The lowest difference there can be.
    pub lower: f64,
    /// The highest difference there can be.
    pub upper: f64,
}

impl PairModel {
    /// Differences of a metric in [0, 1], so in [-1, 1].
    #[must_use]
    pub fn of_unit_metric(effect: f64, sd: f64, tie_share: f64) -> Self {
        Self { effect, sd, tie_share, lower: -1.0, upper: 1.0 }
    }

    /// The distribution of a difference.
    ///
    /// # Errors
    /// The bounds are no range around 0, `tie_share` or `sd` is out of range, or no distribution within the bounds has
    /// this mean and spread.
    pub(crate) fn sampler(&self) -> Result<PairSampler, StatsError> {
        let Self { effect, sd, tie_share, lower, upper } = *self;
        check_bounds(lower, upper)?;
        check_positive("sd", sd)?;
        check_share("tie_share", tie_share)?;
        let no_fit = StatsError::Spread { mean: effect, sd, lower, upper };
        if lower >= 0.0 || upper <= 0.0 || tie_share >= 1.0 || !effect.is_finite() {
            return Err(no_fit);
        }
        // E[d^2] = (1 - ties) E[d^2 | no tie], so the pairs without a tie are known from all of them.
        let mean = effect / (1.0 - tie_share);
        let variance = (sd * sd + effect * effect) / (1.0 - tie_share) - mean * mean;

        let range = upper - lower;
        let (unit_mean, unit_variance) = ((mean - lower) / range, variance / (range * range));
        let size = unit_mean * (1.0 - unit_mean) / unit_variance - 1.0;
        if !(variance > 0.0 && unit_mean > 0.0 && unit_mean < 1.0 && size > 0.0) {
            return Err(no_fit);
        }
        let beta = Beta::new(unit_mean * size, (1.0 - unit_mean) * size).map_err(|_| no_fit)?;
        Ok(PairSampler { beta, tie_share, lower, range })
    }
}

/// Draws differences of a [`PairModel`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairSampler {
    beta: Beta<f64>,
    tie_share: f64,
    lower: f64,
    range: f64,
}

impl PairSampler {
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> f64 {
        if rng.random::<f64>() < self.tie_share { 0.0 } else { self.lower + self.range * self.beta.sample(rng) }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::running::Running;

    #[test]
    fn draws_have_the_mean_the_spread_and_the_ties() {
        for model in [
            PairModel::of_unit_metric(0.08, 0.266, 0.55),
            PairModel::of_unit_metric(0.0, 0.9, 0.0),
            PairModel { effect: -0.3, sd: 0.5, tie_share: 0.2, lower: -4.0, upper: 2.0 },
        ] {
            let sampler = model.sampler().unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let values: Vec<f64> = (0..100_000).map(|_| sampler.draw(&mut rng)).collect();
            let running = Running::of(&values);
            assert!((running.mean - model.effect).abs() < 4.0 * model.sd / 316.0, "{model:?}: {running:?}");
            assert!((running.variance().sqrt() / model.sd - 1.0).abs() < 0.02, "{model:?}: {running:?}");
            let ties = values.iter().filter(|value| **value == 0.0).count();
            assert!((1e-5 * f64::from(u32::try_from(ties).unwrap()) - model.tie_share).abs() < 0.007, "{model:?}");
            assert!(values.iter().all(|value| (model.lower..=model.upper).contains(value)), "{model:?}");
        }
    }

    #[test]
    fn refuses_what_no_pairs_can_be() {
        let fits = PairModel::of_unit_metric(0.1, 0.3, 0.5);
        let no_fit = |model: PairModel| matches!(model.sampler(), Err(StatsError::Spread { .. }));
        // Half the pairs tie, so the rest would need a mean beyond the bound.
        assert!(no_fit(PairModel { effect: 0.6, ..fits }));
        // Differences in [-1, 1] cannot be spread wider than a coin of both ends.
        assert!(no_fit(PairModel { sd: 1.1, ..fits }));
        // A mean of 0.1 over half ties has a spread of 0.1 at least.
        assert!(no_fit(PairModel { sd: 0.05, ..fits }));
        assert!(no_fit(PairModel { lower: 0.0, ..fits }));
        assert!(matches!(
            PairModel { tie_share: -0.1, ..fits }.sampler(),
            Err(StatsError::Share { name: "tie_share", .. })
        ));
    }
}
