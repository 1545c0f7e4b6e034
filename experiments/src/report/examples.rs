//! Pairs worth reading: those that were won and lost by most.

use super::input::{ArmFacts, Pair};
use super::metric::{Better, Metric};
use super::output::Example;

/// Pairs of each sort.
const EXAMPLES: usize = 5;
/// Hits of each answer that are kept.
const HITS: usize = 5;

/// The largest wins of the treatment, and its largest losses, the largest one first.
pub(super) fn examples(metric: Metric, pairs: &[Pair]) -> (Vec<Example>, Vec<Example>) {
    let sign = if metric.better() == Better::Lower { -1.0 } else { 1.0 };
    let mut by_gain: Vec<(f64, &Pair, (f64, f64))> = pairs
        .iter()
        .filter_map(|pair| {
            let values = metric.of_pair(pair)?;
            Some((sign * (values.1 - values.0), pair, values))
        })
        .collect();
    // Ties by id, so that the choice does not hang on the order of the input.
    by_gain.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.episode.cmp(&b.1.episode)));
    let example = |(_, pair, (control, treatment)): &(f64, &Pair, (f64, f64))| Example {
        episode: pair.episode.clone(),
        tenant: pair.tenant.clone(),
        query_type: pair.query_type.clone(),
        query: pair.query.clone(),
        control_value: *control,
        treatment_value: *treatment,
        control: shortened(&pair.live),
        treatment: shortened(&pair.other),
    };
    let slack = metric.slack();
    let wins = by_gain.iter().take_while(|(gain, ..)| *gain > slack).take(EXAMPLES).map(example).collect();
    let losses = by_gain.iter().rev().take_while(|(gain, ..)| *gain < -slack).take(EXAMPLES).map(example).collect();
    (wins, losses)
}

fn shortened(facts: &ArmFacts) -> ArmFacts {
    let mut facts = facts.clone();
    facts.hits.truncate(HITS);
    facts.scores.truncate(HITS);
    facts
}
