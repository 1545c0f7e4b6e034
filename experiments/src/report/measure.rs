//! The figures of one metric over pairs.

use super::input::Pair;
use super::metric::{Better, Metric};
use super::output::{Counted, Measured, Sequential};
use crate::betting_interval::BettingInterval;
use crate::bootstrap::{Bootstrap, Estimate, Interval, Method, bootstrap_mean};
use crate::confidence::AsymptoticInterval;
use crate::e_process::{Direction, TwoSidedBettingTest};
use crate::noise::noise_floor;
use crate::sign_flip::sign_flip;
use crate::win_rate::WinTieLoss;

/// Resamples of a bootstrap and of a permutation test in a report.
pub(super) const RESAMPLES: usize = 2000;
/// Values that a bootstrap draws from at most: more of them are averaged in groups first.
const GROUPS: usize = 2000;
/// Candidates of a betting interval: 0.002 apart for a metric between 0 and 1.
const CANDIDATES: u32 = 1001;
/// Values before an interval from the central limit theorem says anything.
const FIRST: u64 = 50;

/// How the figures are to be computed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Probability of a wrong claim.
    pub alpha: f64,
    /// Where an interval without bounds is narrowest, in values.
    pub tightest_at: u64,
    /// Of all draws.
    pub seed: u64,
}

/// The figures of a metric; nothing where no pair has it.
pub(super) fn measure(metric: Metric, pairs: &[Pair], controls: &[Pair], settings: Settings) -> Option<Measured> {
    let values: Vec<(f64, f64)> = pairs.iter().filter_map(|pair| metric.of_pair(pair)).collect();
    let differences: Vec<f64> = values.iter().map(|(control, treatment)| treatment - control).collect();
    let difference = interval_of(&differences, settings.seed)?;
    let repeated: Vec<f64> = controls.iter().filter_map(|pair| metric.of_pair(pair)).map(|(a, b)| b - a).collect();
    // Each resample draws as many values as there are pairs; their number falls so that the time does not explode.
    let resamples = (RESAMPLES * GROUPS / differences.len()).clamp(RESAMPLES / 5, RESAMPLES);
    let noise = noise_floor(&repeated, differences.len(), resamples, settings.seed).ok();
    let zeros = vec![0.0; differences.len()];
    Some(Measured {
        metric,
        title: metric.title().to_owned(),
        unit: metric.unit().to_owned(),
        better: metric.better(),
        n: to_u64(values.len()),
        control_mean: mean(values.iter().map(|(control, _)| *control)),
        treatment_mean: mean(values.iter().map(|(_, treatment)| *treatment)),
        difference,
        p: sign_flip(&differences, &zeros, RESAMPLES, settings.seed).ok().map(|test| test.p_two_sided),
        sequential: sequential(metric, &differences, settings),
        outcomes: outcomes(metric, &differences),
        beyond_noise: noise.map(|noise| noise.beyond(difference.mean)),
        noise,
    })
}

/// Mean with its BCa interval; nothing without a value.
pub(super) fn interval_of(values: &[f64], seed: u64) -> Option<Estimate> {
    let settings = Bootstrap { method: Method::Bca, level: 0.95, resamples: RESAMPLES, seed };
    if values.len() <= GROUPS {
        return bootstrap_mean(values, settings).ok();
    }
    // Averages of groups dealt like cards have the same mean and, drawn in their turn, means of the same spread.
    let groups: Vec<f64> = (0..GROUPS).map(|group| mean(values.iter().skip(group).step_by(GROUPS).copied())).collect();
    let estimate = bootstrap_mean(&groups, settings).ok()?;
    let shift = mean(values.iter().copied()) - estimate.mean;
    let Interval { lower, upper } = estimate.interval;
    Some(Estimate { mean: estimate.mean + shift, interval: Interval { lower: lower + shift, upper: upper + shift } })
}

/// Pairs by outcome, where one way is better.
pub(super) fn outcomes(metric: Metric, differences: &[f64]) -> Option<Counted> {
    let sign = match metric.better() {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
        Better::Neither => return None,
    };
    let turned: Vec<f64> = differences.iter().map(|difference| sign * difference).collect();
    WinTieLoss::count(&turned, metric.slack()).ok().map(Counted::of)
}

/// What holds at every look. Values outside the metric's bounds, which scores of a foreign reranker may have, are
/// treated as if it had none.
fn sequential(metric: Metric, differences: &[f64], settings: Settings) -> Option<Sequential> {
    bounded(metric, differences, settings).or_else(|| unbounded(differences, settings))
}

fn bounded(metric: Metric, differences: &[f64], settings: Settings) -> Option<Sequential> {
    let range = metric.range()?;
    let mut interval = BettingInterval::new(settings.alpha, -range, range, CANDIDATES).ok()?;
    let mut test = TwoSidedBettingTest::new(settings.alpha, -range, range, 0.0).ok()?;
    for difference in differences {
        let difference = inside(*difference, -range, range)?;
        interval.push(difference).ok()?;
        test.push(difference).ok()?;
    }
    Some(Sequential {
        interval: interval.interval(),
        anytime_p: Some(test.evidence().anytime_p.min(1.0)),
        direction: test.direction(),
        bounded: true,
    })
}

fn unbounded(differences: &[f64], settings: Settings) -> Option<Sequential> {
    let mut sequence = AsymptoticInterval::new(settings.alpha, settings.tightest_at.max(FIRST), FIRST).ok()?;
    for difference in differences {
        sequence.push(*difference).ok()?;
    }
    let interval = sequence.interval()?;
    Some(Sequential { interval, anytime_p: None, direction: side_of(interval), bounded: false })
}

/// A value within its bounds, where rounding may have put it a hair outside; nothing where it is further out.
pub(super) fn inside(value: f64, lower: f64, upper: f64) -> Option<f64> {
    let slack = 1e-6 * (upper - lower);
    (value >= lower - slack && value <= upper + slack).then(|| value.clamp(lower, upper))
}

/// The side of 0 on which an interval lies.
pub(super) fn side_of(interval: Interval) -> Option<Direction> {
    if interval.lower > 0.0 {
        Some(Direction::Above)
    } else if interval.upper < 0.0 {
        Some(Direction::Below)
    } else {
        None
    }
}

/// The mean of some values; 0 of none.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0_u64), |(sum, n), value| (sum + value, n + 1));
    if n == 0 { 0.0 } else { sum / count(n) }
}

/// A count among measurements.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(super) fn count(n: u64) -> f64 {
    n as f64
}

pub(super) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn groups_of_many_values_give_the_interval_of_all() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let values: Vec<f64> = (0..9_001).map(|_| rng.random::<f64>()).collect();
        let fast = interval_of(&values, 3).unwrap();
        let full = bootstrap_mean(&values, Bootstrap { resamples: RESAMPLES, ..Bootstrap::default() }).unwrap();
        assert!((fast.mean - full.mean).abs() < 1e-12);
        let width = full.interval.upper - full.interval.lower;
        for (fast, full) in [(fast.interval.lower, full.interval.lower), (fast.interval.upper, full.interval.upper)] {
            assert!((fast - full).abs() < 0.1 * width, "{fast} against {full}");
        }
    }

    #[test]
    fn less_time_is_a_win() {
        let counted = outcomes(Metric::RewriteMs, &[-100.0, -50.0, 30.0, 0.2]).unwrap();
        assert_eq!((counted.counts.wins, counted.counts.losses, counted.counts.ties), (2, 1, 1));
        assert_eq!(outcomes(Metric::RewriteChars, &[1.0]), None);
    }

    #[test]
    fn scores_out_of_bounds_are_still_measured() {
        let settings = Settings { alpha: 0.05, tightest_at: 100, seed: 0 };
        let differences: Vec<f64> = (0..100).map(|index| 5.0 + f64::from(index % 7)).collect();
        let result = sequential(Metric::Top1Score, &differences, settings).unwrap();
        assert!(!result.bounded);
        assert_eq!(result.direction, Some(Direction::Above));
        assert_eq!(sequential(Metric::Top1Score, &differences[..20], settings), None);
    }
}
