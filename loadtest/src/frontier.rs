//! The highest rate that a server holds at each bound on its 99th percentile.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::open_loop::{self, Finished, Load, Plan};

/// The bounds on the 99th percentile, in milliseconds.
pub const BOUNDS_MS: [u64; 5] = [1, 5, 10, 50, 100];

/// Share of late starts above which a run says more about the generator than about the server.
pub const LATE_SHARE_LIMIT: f64 = 0.01;

/// How often a rung is measured before a late generator ends the matter.
const TRIES: u64 = 3;

/// One rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// Requests per second asked for.
    pub rate: f64,
    /// 99th percentile from the intended start, in microseconds.
    pub p99_us: u64,
    /// Median, in microseconds.
    pub p50_us: u64,
    /// Requests answered with 200.
    pub answered: u64,
    /// Requests not answered with 200.
    pub errors: u64,
    /// Answers in which a stage was replaced by a weaker one.
    pub degraded: u64,
    /// Share of requests that the generator started late.
    pub late_share: f64,
    /// CPU microseconds of the server a request.
    pub cpu_us_per_request: Option<f64>,
}

impl Step {
    /// Whether the generator was too late for the figure to count.
    #[must_use]
    pub fn voided(&self) -> bool {
        self.late_share > LATE_SHARE_LIMIT
    }

    /// Whether the step holds a bound: nothing failed, enough was measured, and the percentile is below.
    #[must_use]
    pub fn holds(&self, bound_ms: u64) -> bool {
        !self.voided() && self.errors == 0 && self.answered > 0 && self.p99_us <= bound_ms * 1_000
    }

    /// Sums up an open-loop run.
    #[must_use]
    pub fn of(rate: f64, finished: &Finished) -> Self {
        let latency = finished.record.latency.percentiles();
        Self {
            rate,
            p99_us: latency.p99,
            p50_us: latency.p50,
            answered: finished.record.answered,
            errors: finished.record.error_count(),
            degraded: finished.record.degraded,
            late_share: late_share(finished),
            cpu_us_per_request: finished.cpu_us_per_request,
        }
    }
}

/// Share of the measured requests that were started later than the tolerance.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn late_share(finished: &Finished) -> f64 {
    let started = finished.record.lateness.percentiles().count;
    if started == 0 { 0.0 } else { finished.record.late as f64 / started as f64 }
}

/// The frontier at one bound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reach {
    /// Bound on the 99th percentile, in milliseconds.
    pub bound_ms: u64,
    /// Highest rate that held it; `None` where none did.
    pub rate: Option<f64>,
    /// A lower rate failed the bound although a higher one held it: the machine was noisy, measure again.
    pub noisy: bool,
}

/// The highest rate that holds each bound. Voided steps neither hold nor fail.
#[must_use]
pub fn frontier(steps: &[Step], bounds_ms: &[u64]) -> Vec<Reach> {
    let reach = |bound_ms: u64| {
        let held = steps.iter().filter(|step| step.holds(bound_ms)).map(|step| step.rate);
        let rate = held.max_by(f64::total_cmp);
        let failed_below =
            |step: &Step| !step.voided() && !step.holds(bound_ms) && rate.is_some_and(|rate| step.rate < rate);
        Reach { bound_ms, rate, noisy: steps.iter().any(failed_below) }
    };
    bounds_ms.iter().map(|bound| reach(*bound)).collect()
}

/// The rates of a ladder: `from`, then each `factor` times the one before.
pub fn rates(from: f64, factor: f64, steps: usize) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(from), move |rate| Some(rate * factor)).take(steps)
}

/// Whether climbing on can still change the frontier: two steps in a row that hold no bound end the ladder, as one
/// may be an accident of the machine.
#[must_use]
pub fn exhausted(steps: &[Step], widest_ms: u64) -> bool {
    match steps {
        [.., before, last] => !before.holds(widest_ms) && !last.holds(widest_ms),
        _ => false,
    }
}

/// Median, lowest and highest of the values; `None` where there are none.
#[must_use]
pub fn median_and_range(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.first()?, sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { 0.5 * (sorted[middle - 1] + sorted[middle]) };
    Some((median, *low, *high))
}

/// Climbs once. `plan.rate` is the first rate; a voided rung is measured again, twice at most; `on_step` sees each
/// finished run, voided ones too.
///
/// # Errors
/// As [`open_loop::run`].
pub async fn climb(
    plan: Plan,
    factor: f64,
    max_steps: usize,
    load: &Arc<Load>,
    mut on_step: impl FnMut(&Step, Finished),
) -> Result<Vec<Step>, Error> {
    let widest = BOUNDS_MS.iter().copied().max().unwrap_or(0);
    let mut steps = Vec::new();
    for rate in rates(plan.rate, factor, max_steps) {
        // The warm-up of the first step fills caches; later ones only need the new rate to settle.
        let warm_up = if steps.is_empty() { plan.warm_up } else { plan.warm_up.min(Duration::from_secs(1)) };
        for attempt in 1..=TRIES {
            let seed = plan.seed.wrapping_add(attempt - 1);
            let finished = open_loop::run(Plan { rate, warm_up, seed, ..plan }, Arc::clone(load)).await?;
            let step = Step::of(rate, &finished);
            on_step(&step, finished);
            if attempt == TRIES || !step.voided() {
                steps.push(step);
                break;
            }
        }
        if exhausted(&steps, widest) {
            break;
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: f64, p99_us: u64) -> Step {
        Step {
            rate,
            p99_us,
            p50_us: p99_us / 2,
            answered: 100,
            errors: 0,
            degraded: 0,
            late_share: 0.0,
            cpu_us_per_request: None,
        }
    }

    #[test]
    fn each_bound_has_its_own_highest_rate() {
        let steps = [step(100.0, 900), step(125.0, 4_000), step(156.0, 60_000), step(195.0, 400_000)];
        let reached: Vec<Option<f64>> = frontier(&steps, &BOUNDS_MS).iter().map(|reach| reach.rate).collect();
        assert_eq!(reached, [Some(100.0), Some(125.0), Some(125.0), Some(125.0), Some(156.0)]);
        assert!(frontier(&steps, &BOUNDS_MS).iter().all(|reach| !reach.noisy));
    }

    #[test]
    fn errors_and_late_generators_do_not_count() {
        let failed = Step { errors: 1, ..step(200.0, 500) };
        let late = Step { late_share: 0.011, ..step(300.0, 500) };
        let empty = Step { answered: 0, ..step(400.0, 0) };
        let reach = frontier(&[step(100.0, 500), failed, late, empty], &[1])[0];
        assert_eq!(reach, Reach { bound_ms: 1, rate: Some(100.0), noisy: false });
    }

    #[test]
    fn a_lower_rate_that_failed_is_told() {
        let reach = frontier(&[step(100.0, 2_000), step(125.0, 500)], &[1])[0];
        assert_eq!(reach, Reach { bound_ms: 1, rate: Some(125.0), noisy: true });
        assert_eq!(frontier(&[step(100.0, 2_000)], &[1])[0].rate, None);
    }

    #[test]
    fn the_ladder_ends_after_two_steps_beyond_the_widest_bound() {
        let (good, bad) = (step(1.0, 500), step(2.0, 200_000));
        assert!(!exhausted(&[bad], 100));
        assert!(!exhausted(&[bad, good], 100) && !exhausted(&[good, bad], 100));
        assert!(exhausted(&[good, bad, bad], 100));
    }

    #[test]
    fn rates_grow_by_the_factor() {
        assert_eq!(rates(64.0, 1.25, 3).collect::<Vec<_>>(), [64.0, 80.0, 100.0]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median_and_range(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(median_and_range(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(median_and_range(&[]), None);
    }
}
