//! The figures of one metric over a split, where each answer has one arm.

use std::collections::BTreeMap;

use super::input::Single;
use super::measure::{Settings, count, inside, side_of, to_u64};
use super::metric::Metric;
use super::output::{Measured, Sequential};
use crate::betting_interval::BettingInterval;
use crate::bootstrap::{Estimate, Interval};
use crate::confidence::AsymptoticInterval;
use crate::normal::{normal_cdf, normal_quantile};
use crate::running::Running;

/// The figures of a metric; nothing where an arm has fewer than two units with it.
///
/// Answers of one unit are averaged first: users differ from each other more than one user's questions do, and counting
/// each question would claim more than is known. At one look the interval is Welch's with normal quantiles. At every
/// look each arm has an interval at alpha / 2, and the difference lies between their far ends; units that come back
/// later change their average, so that this is close rather than exact.
pub(super) fn measure(metric: Metric, arms: [&str; 2], singles: &[Single], settings: Settings) -> Option<Measured> {
    let [control, treatment] = arms.map(|arm| by_unit(metric, arm, singles));
    let [c, t] = [Running::of(&control), Running::of(&treatment)];
    if c.n < 2 || t.n < 2 {
        return None;
    }
    let mean = t.mean - c.mean;
    let error = (c.variance() / count(c.n) + t.variance() / count(t.n)).sqrt();
    let radius = normal_quantile(0.975) * error;
    let difference = Estimate { mean, interval: Interval { lower: mean - radius, upper: mean + radius } };
    Some(Measured {
        metric,
        title: metric.title().to_owned(),
        unit: metric.unit().to_owned(),
        better: metric.better(),
        n: c.n.min(t.n),
        control_mean: c.mean,
        treatment_mean: t.mean,
        difference,
        p: (error > 0.0).then(|| 2.0 * normal_cdf(-(mean / error).abs())),
        sequential: sequential(metric, &control, &treatment, settings),
        outcomes: None,
        noise: None,
        beyond_noise: None,
    })
}

/// The average of each unit of an arm, in the order in which the units came.
fn by_unit(metric: Metric, arm: &str, singles: &[Single]) -> Vec<f64> {
    let mut position: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sums: Vec<(f64, u64)> = Vec::new();
    for single in singles.iter().filter(|single| single.arm == arm) {
        let value = match metric {
            Metric::Judge => single.judge.filter(|judge| judge.is_finite()),
            _ => metric.of(&single.facts),
        };
        if let Some(value) = value {
            let index = *position.entry(&single.unit).or_insert(sums.len());
            if index == sums.len() {
                sums.push((0.0, 0));
            }
            sums[index].0 += value;
            sums[index].1 += 1;
        }
    }
    sums.into_iter().map(|(sum, n)| sum / count(n)).collect()
}

fn sequential(metric: Metric, control: &[f64], treatment: &[f64], settings: Settings) -> Option<Sequential> {
    let half = Settings { alpha: 0.5 * settings.alpha, ..settings };
    let both = |of: &dyn Fn(&[f64]) -> Option<Interval>| Some((of(control)?, of(treatment)?));
    let bounded = metric.bounds().and_then(|bounds| both(&|values| bounded(bounds, values, half)));
    let (c, t) = bounded.or_else(|| both(&|values| unbounded(values, half)))?;
    let interval = Interval { lower: t.lower - c.upper, upper: t.upper - c.lower };
    Some(Sequential { interval, anytime_p: None, direction: side_of(interval), bounded: bounded.is_some() })
}

fn bounded((lower, upper): (f64, f64), values: &[f64], settings: Settings) -> Option<Interval> {
    let mut sequence = BettingInterval::new(settings.alpha, lower, upper, 501).ok()?;
    for value in values {
        sequence.push(inside(*value, lower, upper)?).ok()?;
    }
    Some(sequence.interval())
}

fn unbounded(values: &[f64], settings: Settings) -> Option<Interval> {
    let mut sequence = AsymptoticInterval::new(settings.alpha, settings.tightest_at.max(50), 50).ok()?;
    values.iter().try_for_each(|value| sequence.push(*value)).ok()?;
    sequence.interval()
}

/// Units that an arm answered, as far as its answers are there.
pub(super) fn units(arm: &str, singles: &[Single]) -> u64 {
    let units: std::collections::BTreeSet<&str> =
        singles.iter().filter(|single| single.arm == arm).map(|single| single.unit.as_str()).collect();
    to_u64(units.len())
}
