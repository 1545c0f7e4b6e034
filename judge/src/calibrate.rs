//! Whether a judge may be trusted: how far it agrees with people, with itself, and with what a search finds.
use std::collections::BTreeMap;

use futures::stream::{StreamExt, iter};
use recast_config::TenantProfile;
use recast_domain::TenantId;
use recast_experiments::wilson;
use serde::{Deserialize, Serialize};

use crate::{Candidate, GroupVerdict, Judge, JudgeError, JudgeItem, Judged, LabelledPair, Winner};

/// Below or above these a judge is not trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CalibrationRules {
    /// Overall scores that differ by less are a tie.
    pub tie_margin: f64,
    /// Fewer judged pairs say too little.
    pub min_pairs: usize,
    /// Cohen's kappa over a, b and tie.
    pub min_kappa: f64,
    /// Share of pairs that the order decides.
    pub max_flip_rate: f64,
    /// Share of pairs without a verdict.
    pub max_missing: f64,
    /// Correlation with the gain in retrieval, where gains are given.
    pub min_gain_correlation: f64,
    /// Pairs that are judged at once.
    pub at_once: usize,
}

impl Default for CalibrationRules {
    fn default() -> Self {
        Self {
            tie_margin: 0.25,
            min_pairs: 100,
            min_kappa: 0.4,
            max_flip_rate: 0.2,
            max_missing: 0.2,
            min_gain_correlation: 0.3,
            at_once: 4,
        }
    }
}

/// What calibrating found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The judge's id. A calibration says nothing of a judge with another one.
    pub judge: String,
    /// Pairs with a verdict.
    pub judged: usize,
    /// Pairs without.
    pub missing: usize,
    /// Why these have none, by the fault's label.
    #[serde(default)]
    pub missing_because: BTreeMap<String, usize>,
    /// Share of pairs where judge and person say the same.
    pub agreement: Option<f64>,
    /// Its 95 % interval (Wilson).
    pub agreement_interval: Option<[f64; 2]>,
    /// Cohen's kappa over a, b and tie: agreement beyond what chance gives.
    pub kappa: Option<f64>,
    /// The same over the pairs where neither the person nor the judge says tie.
    pub kappa_decided: Option<f64>,
    /// Kappa by tenant.
    pub by_tenant: BTreeMap<TenantId, Option<f64>>,
    /// Share of pairs that two orders of one list tell apart differently; `None` where the judge has no orders.
    pub flip_rate: Option<f64>,
    /// Standard deviation of an overall score between two askings.
    pub repeat_sd: Option<f64>,
    /// Pearson's correlation of score difference and retrieval gain; `None` without gains, or where one is constant.
    pub gain_correlation: Option<f64>,
    /// Whether the judge may be trained on.
    pub certified: bool,
    /// Why not; empty where it may.
    pub reasons: Vec<String>,
}

/// Compares a judge with people. Each pair is judged twice, the second time as a repetition.
///
/// `gains[i]` is by how much the search with pair i's first rewrite is better than with its second, in any unit.
/// `judged` is called after each pair.
///
/// # Errors
/// When a pair's tenant is not among `tenants`, or `gains` has another length than `pairs`.
pub async fn calibrate(
    judge: &dyn Judge,
    pairs: &[LabelledPair],
    tenants: &[TenantProfile],
    gains: Option<&[f64]>,
    rules: &CalibrationRules,
    judged: &(dyn Fn() + Sync),
) -> Result<Calibration, JudgeError> {
    if gains.is_some_and(|gains| gains.len() != pairs.len()) {
        return Err(JudgeError::Rows(vec!["there must be one gain a pair".to_owned()]));
    }
    let mut items = Vec::with_capacity(pairs.len());
    let mut unknown = Vec::new();
    for pair in pairs {
        match tenants.iter().find(|tenant| tenant.id == pair.tenant) {
            Some(tenant) => items.push(JudgeItem::new(tenant, pair.conversation.clone())),
            None => unknown.push(format!("pair {}: there is no tenant {}", pair.id, pair.tenant.as_str())),
        }
    }
    if !unknown.is_empty() {
        return Err(JudgeError::Rows(unknown));
    }
    let asked = items.into_iter().zip(pairs).map(|(mut item, pair)| async move {
        let (a, b) = (Candidate::from(pair.rewrite_a.as_str()), Candidate::from(pair.rewrite_b.as_str()));
        let first = judge.judge_group(&item, std::slice::from_ref(&a), &b).await;
        item.repeat = 1;
        let second = judge.judge_group(&item, std::slice::from_ref(&a), &b).await;
        judged();
        (first, second)
    });
    let answers: Vec<(GroupVerdict, GroupVerdict)> = iter(asked).buffered(rules.at_once.max(1)).collect().await;
    Ok(summary(judge.id(), pairs, &answers, gains, rules))
}

/// The score of one side: an invalid rewrite is below all others.
fn score(judged: &Judged) -> Option<f64> {
    match judged {
        Judged::Scored { overall, .. } => Some(*overall),
        Judged::Invalid { .. } => Some(0.0),
        Judged::Missing { .. } => None,
    }
}

/// Why a pair has no verdict: the fault of the side that has none.
fn fault(group: &GroupVerdict) -> &'static str {
    let missing = group.rewrites.iter().chain([&group.baseline]).find_map(|judged| match judged {
        Judged::Missing { fault } => Some(fault.label()),
        Judged::Scored { .. } | Judged::Invalid { .. } => None,
    });
    missing.unwrap_or("unknown")
}

fn sides(group: &GroupVerdict) -> Option<(f64, f64)> {
    Some((score(group.rewrites.first()?)?, score(&group.baseline)?))
}

fn summary(
    judge: &str,
    pairs: &[LabelledPair],
    answers: &[(GroupVerdict, GroupVerdict)],
    gains: Option<&[f64]>,
    rules: &CalibrationRules,
) -> Calibration {
    let mut choices: Vec<(&TenantId, Winner, Winner)> = Vec::new();
    let (mut leads, mut led_gains, mut repeats) = (Vec::new(), Vec::new(), Vec::new());
    let (mut compared, mut flipped) = (0_u32, 0_u32);
    let mut missing_because: BTreeMap<String, usize> = BTreeMap::new();
    for (index, (pair, (first, second))) in pairs.iter().zip(answers).enumerate() {
        for flips in [first.flips, second.flips] {
            compared += flips.compared;
            flipped += flips.flipped;
        }
        let Some((a, b)) = sides(first) else {
            *missing_because.entry(fault(first).to_owned()).or_default() += 1;
            continue;
        };
        let choice = match a - b {
            lead if lead.abs() < rules.tie_margin => Winner::Tie,
            lead if lead > 0.0 => Winner::A,
            _ => Winner::B,
        };
        choices.push((&pair.tenant, pair.winner, choice));
        if let Some(gains) = gains {
            leads.push(a - b);
            led_gains.push(gains[index]);
        }
        if let Some((a2, b2)) = sides(second) {
            repeats.extend([a - a2, b - b2]);
        }
    }
    let all: Vec<(Winner, Winner)> = choices.iter().map(|(_, person, judge)| (*person, *judge)).collect();
    let decided: Vec<_> = all.iter().copied().filter(|(p, j)| *p != Winner::Tie && *j != Winner::Tie).collect();
    let same = all.iter().filter(|(person, judge)| person == judge).count();
    let mut by_tenant: BTreeMap<TenantId, Option<f64>> = BTreeMap::new();
    for (tenant, ..) in &choices {
        let own = choices.iter().filter(|(other, ..)| other == tenant).map(|(_, person, judge)| (*person, *judge));
        by_tenant.entry((*tenant).clone()).or_insert_with(|| kappa(&own.collect::<Vec<_>>()));
    }
    let interval = wilson(same as u64, all.len() as u64, 0.95).ok();
    // two askings differ by sqrt(2) times what one asking varies by
    let squares: f64 = repeats.iter().map(|difference| difference * difference).sum();
    let mut calibration = Calibration {
        judge: judge.to_owned(),
        judged: all.len(),
        missing: pairs.len() - all.len(),
        missing_because,
        agreement: (!all.is_empty()).then(|| same as f64 / all.len() as f64),
        agreement_interval: interval.map(|interval| [interval.lower, interval.upper]),
        kappa: kappa(&all),
        kappa_decided: kappa(&decided),
        by_tenant,
        flip_rate: (compared > 0).then(|| f64::from(flipped) / f64::from(compared)),
        repeat_sd: (!repeats.is_empty()).then(|| (squares / (2 * repeats.len()) as f64).sqrt()),
        gain_correlation: correlation(&leads, &led_gains),
        certified: false,
        reasons: Vec::new(),
    };
    calibration.reasons = objections(&calibration, gains.is_some(), rules);
    calibration.certified = calibration.reasons.is_empty();
    calibration
}

fn objections(found: &Calibration, gains: bool, rules: &CalibrationRules) -> Vec<String> {
    let mut reasons = Vec::new();
    let below = |value: Option<f64>, least: f64| value.is_none_or(|value| value < least);
    let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.3}"));
    if found.judged < rules.min_pairs {
        reasons.push(format!("{} judged pairs are too few: at least {}", found.judged, rules.min_pairs));
    }
    let missing = found.missing as f64 / (found.judged + found.missing).max(1) as f64;
    if missing > rules.max_missing {
        reasons.push(format!(
            "no verdict on {:.0} % of the pairs: at most {:.0} %",
            100.0 * missing,
            100.0 * rules.max_missing
        ));
    }
    if below(found.kappa, rules.min_kappa) {
        reasons.push(format!("kappa is {}: at least {}", shown(found.kappa), rules.min_kappa));
    }
    if found.flip_rate.is_some_and(|rate| rate > rules.max_flip_rate) {
        reasons.push(format!("flip rate is {}: at most {}", shown(found.flip_rate), rules.max_flip_rate));
    }
    if gains && below(found.gain_correlation, rules.min_gain_correlation) {
        let correlation = shown(found.gain_correlation);
        reasons.push(format!("correlation with retrieval is {correlation}: at least {}", rules.min_gain_correlation));
    }
    reasons
}

/// Cohen's kappa `(p_o - p_e) / (1 - p_e)`; `None` where both always say the same one thing, or there is nothing.
fn kappa(choices: &[(Winner, Winner)]) -> Option<f64> {
    if choices.is_empty() {
        return None;
    }
    let total = choices.len() as f64;
    let share =
        |says: &dyn Fn(&(Winner, Winner)) -> bool| choices.iter().filter(|pair| says(pair)).count() as f64 / total;
    let observed = share(&|(person, judge)| person == judge);
    let expected: f64 = [Winner::A, Winner::B, Winner::Tie]
        .map(|winner| share(&|(person, _)| *person == winner) * share(&|(_, judge)| *judge == winner))
        .iter()
        .sum();
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

/// Pearson's r; `None` for fewer than three points or where one side is constant.
fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() < 3 {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (dx, dy) = (x - mean_x, y - mean_y);
        (xy, xx, yy) = (xy + dx * dy, xx + dx * dx, yy + dy * dy);
    }
    (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
}

#[cfg(test)]
mod tests {
    use super::Winner::{A, B, Tie};
    use super::*;

    #[test]
    fn kappa_by_hand() {
        // p_o = 3/4; p_e = 1/2 * 1/4 + 1/2 * 3/4 = 1/2
        assert!((kappa(&[(A, A), (A, B), (B, B), (B, B)]).unwrap() - 0.5).abs() < 1e-12);
        assert!((kappa(&[(A, A), (B, B), (Tie, Tie)]).unwrap() - 1.0).abs() < 1e-12);
        assert!(kappa(&[(A, B), (B, A)]).unwrap() < -0.99);
        assert_eq!((kappa(&[(A, A), (A, A)]), kappa(&[])), (None, None));
    }

    #[test]
    fn correlation_by_hand() {
        assert!((correlation(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((correlation(&[1.0, 2.0, 3.0], &[1.0, 3.0, 2.0]).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(correlation(&[1.0, 1.0, 1.0], &[1.0, 3.0, 2.0]), None);
    }
}
