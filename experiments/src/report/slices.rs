//! The primary metric by tenant and by sort of question.

use std::collections::BTreeMap;

use super::input::Pair;
use super::measure::{interval_of, mean, outcomes, to_u64};
use super::metric::Metric;
use super::output::{Counted, Slice};
use crate::win_rate::WinTieLoss;

/// Slices, by tenant first, each in the order of its values. What all pairs share is no slice.
pub(super) fn slices(metric: Metric, pairs: &[Pair], seed: u64) -> Vec<Slice> {
    let mut slices = by("tenant", metric, pairs, seed, |pair| Some(&pair.tenant));
    slices.extend(by("query_type", metric, pairs, seed, |pair| pair.query_type.as_ref()));
    slices
}

fn by(name: &str, metric: Metric, pairs: &[Pair], seed: u64, key: fn(&Pair) -> Option<&String>) -> Vec<Slice> {
    let mut values: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for pair in pairs {
        if let (Some(key), Some(value)) = (key(pair), metric.of_pair(pair)) {
            values.entry(key).or_default().push(value);
        }
    }
    if values.len() < 2 {
        return Vec::new();
    }
    let slice = |(value, values): (&str, Vec<(f64, f64)>)| {
        let differences: Vec<f64> = values.iter().map(|(control, treatment)| treatment - control).collect();
        Some(Slice {
            by: name.to_owned(),
            value: value.to_owned(),
            n: to_u64(values.len()),
            control_mean: mean(values.iter().map(|(control, _)| *control)),
            treatment_mean: mean(values.iter().map(|(_, treatment)| *treatment)),
            difference: interval_of(&differences, seed)?,
            outcomes: outcomes(metric, &differences).unwrap_or(Counted::of(WinTieLoss::default())),
        })
    };
    values.into_iter().filter_map(slice).collect()
}
