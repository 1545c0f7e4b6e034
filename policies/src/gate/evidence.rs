//! The checks before a candidate meets live traffic.

use std::collections::BTreeMap;

use recast_experiments::{Bootstrap, bootstrap_mean};

use super::observation::{OfflineReport, Pair, SanityReport};
use super::record::Finding;
use super::rules::{OfflineRules, SanityRules};
use crate::error::Result;

/// More resamples than this are not drawn, however small alpha becomes.
const RESAMPLES_MAX: usize = 1_000_000;
/// Resamples that should lie beyond the bound that is read off.
const BEYOND_BOUND: f64 = 20.0;

/// Does the candidate work at all?
#[expect(clippy::cast_precision_loss, reason = "counts of prompts are small")]
pub(crate) fn sanity(rules: &SanityRules, report: &SanityReport) -> Vec<Finding> {
    vec![
        Finding::at_least("adapter_loads", Some(if report.refused.is_none() { 1.0 } else { 0.0 }), 1.0),
        Finding::at_least("prompts", Some(report.prompts as f64), rules.prompts as f64),
        Finding::at_most("empty_outputs", report.empty.map(|n| n as f64), 0.0),
        Finding::at_least("distinct_outputs", report.distinct.map(|n| n as f64), 2.0),
        Finding::at_most("invalid_format_rate", report.invalid_format_rate, rules.invalid_format_max),
        Finding::at_most("kl", report.kl, rules.kl_max),
    ]
}

/// Is the candidate better on held-out questions, and no worse where it must not be? `None`: too few questions to look.
///
/// The lower bound of the mean gain at confidence `1 - alpha` must lie above 0, that of each guardrail, at
/// `1 - guardrail_alpha`, above minus its margin.
pub(crate) fn offline(
    rules: &OfflineRules,
    report: &OfflineReport,
    alpha: f64,
    guardrail_alpha: f64,
) -> Result<Option<Vec<Finding>>> {
    let gains = by_session(&report.primary);
    if report.primary.len() < rules.min_items || gains.len() < rules.min_sessions {
        return Ok(None);
    }
    let mut gain = lower_bound("gain", &gains, 0.0, alpha, rules)?;
    gain.passed = gain.value.is_some_and(|bound| bound > 0.0);
    let mut findings = vec![gain];
    for (name, margin) in &rules.guardrails {
        let differences = report.guardrails.get(name).map(|pairs| by_session(pairs)).unwrap_or_default();
        findings.push(if differences.len() < rules.min_sessions {
            Finding { measure: name.clone(), bound: Some(-margin), passed: false, ..Finding::default() }
        } else {
            lower_bound(name, &differences, -margin, guardrail_alpha, rules)?
        });
    }
    Ok(Some(findings))
}

/// The mean of each session, so that one long session does not count as many users.
#[expect(clippy::cast_precision_loss, reason = "a session has few questions")]
fn by_session(pairs: &[Pair]) -> Vec<f64> {
    let mut sessions: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for pair in pairs {
        let (sum, n) = sessions.entry(&pair.session).or_default();
        *sum += pair.value();
        *n += 1;
    }
    sessions.into_values().map(|(sum, n)| sum / n as f64).collect()
}

/// One-sided lower bound of a mean (BCa bootstrap over sessions, Efron 1987), held against `bound`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by RESAMPLES_MAX")]
fn lower_bound(measure: &str, values: &[f64], bound: f64, alpha: f64, rules: &OfflineRules) -> Result<Finding> {
    let wanted = (BEYOND_BOUND / alpha).ceil() as usize;
    let resamples = rules.resamples.max(wanted.min(RESAMPLES_MAX));
    let settings = Bootstrap { level: 1.0 - 2.0 * alpha, resamples, seed: rules.seed, ..Bootstrap::default() };
    let estimate = bootstrap_mean(values, settings)?;
    let mut finding = Finding::at_least(measure, Some(estimate.interval.lower), bound);
    finding.n = Some(values.len() as u64);
    finding.alpha = Some(alpha);
    finding.mean = Some(estimate.mean);
    Ok(finding)
}
