use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{PolicyError, Result};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// What a candidate must show at each stage. Scores lie in [0, 1], so differences lie in [-1, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateRules {
    /// Chance that an incumbent is ever replaced by a candidate that is no better, over all attempts. 0.05.
    pub alpha: f64,
    /// Chance that a stage with users rolls back a candidate that is worse by `margin` at most. 0.05.
    pub rollback_alpha: f64,
    /// How much worse than the incumbent, in mean score, is not yet a reason to roll back. 0.02.
    pub margin: f64,
    /// Before anything is compared.
    pub sanity: SanityRules,
    /// On held-out questions.
    pub offline: OfflineRules,
    /// On live questions, unseen by users.
    pub shadow: ShadowRules,
    /// On a share of the users.
    pub canary: CanaryRules,
    /// Of the service, while users see the candidate.
    pub checks: CheckRules,
    /// How long the candidate is watched after its promotion, milliseconds. A day.
    pub watch_ms: i64,
}

/// What must hold before a candidate is compared at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SanityRules {
    /// Largest share of outputs that are no rewrite plan. 0.02.
    pub invalid_format_max: f64,
    /// Fixed prompts that must have been tried. 20.
    pub prompts: u64,
    /// Largest mean KL divergence from the base model, nats for each token. 0.5.
    pub kl_max: f64,
}

/// The one look at held-out questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfflineRules {
    /// Fewest questions: below a few hundred the intervals are too narrow (arXiv 2503.01747). 300.
    pub min_items: usize,
    /// Fewest sessions among them. 100.
    pub min_sessions: usize,
    /// Resamples of the bootstrap, more where alpha is small. 10,000.
    pub resamples: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Measures that must not fall by more than this: name -> margin. Differences are such that more is better.
    pub guardrails: BTreeMap<String, f64>,
}

/// The sequential test on live questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShadowRules {
    /// Fewest pairs, each of another session. 200.
    pub min_pairs: u64,
    /// A candidate that has not shown a gain after as many pairs is rejected. 5,000.
    pub max_pairs: u64,
    /// So is one that has not after this time, milliseconds. A week.
    pub max_ms: i64,
}

/// The growing share of users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryRules {
    /// Shares of sessions, ascending, the last one 1. 0.05, 0.25, 0.5, 1.
    pub shares: Vec<f64>,
    /// Fewest pairs of the same question at each share. 200.
    pub min_paired: u64,
    /// Fewest pairs of different questions at each share; a mixture counts in proportion. 1,000.
    pub min_unpaired: u64,
    /// Shortest time at each share, milliseconds. Ten minutes.
    pub min_ms: i64,
    /// Longest time at each share; after it the candidate is rolled back. A week.
    pub max_ms: i64,
}

/// The regular check of the service's own figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckRules {
    /// A check is due this often, milliseconds. A minute.
    pub interval_ms: i64,
    /// How many of the last checks count, at most 32. 10.
    pub window: u32,
    /// As many failed ones among them roll back. 5.
    pub failed_max: u32,
    /// Largest value of each figure: name -> bound. A figure that is missing has failed.
    pub limits: BTreeMap<String, f64>,
}

impl Default for GateRules {
    fn default() -> Self {
        Self {
            alpha: 0.05,
            rollback_alpha: 0.05,
            margin: 0.02,
            sanity: SanityRules::default(),
            offline: OfflineRules::default(),
            shadow: ShadowRules::default(),
            canary: CanaryRules::default(),
            checks: CheckRules::default(),
            watch_ms: DAY,
        }
    }
}

impl Default for SanityRules {
    fn default() -> Self {
        Self { invalid_format_max: 0.02, prompts: 20, kl_max: 0.5 }
    }
}

impl Default for OfflineRules {
    fn default() -> Self {
        let guardrails = [("recall@3", 0.02), ("ndcg@10", 0.02), ("latency", 0.05), ("length", 0.05)];
        let guardrails = guardrails.map(|(name, margin)| (name.to_owned(), margin)).into();
        Self { min_items: 300, min_sessions: 100, resamples: 10_000, seed: 0, guardrails }
    }
}

impl Default for ShadowRules {
    fn default() -> Self {
        Self { min_pairs: 200, max_pairs: 5_000, max_ms: 7 * DAY }
    }
}

impl Default for CanaryRules {
    fn default() -> Self {
        Self {
            shares: vec![0.05, 0.25, 0.5, 1.0],
            min_paired: 200,
            min_unpaired: 1_000,
            min_ms: 10 * MINUTE,
            max_ms: 7 * DAY,
        }
    }
}

impl Default for CheckRules {
    fn default() -> Self {
        let limits = [
            ("error_rate", 0.01),
            ("rewrite_p99_ms", 500.0),
            ("empty_retrieval_rate", 0.05),
            ("fallback_rate", 0.05),
            ("invalid_format_rate", 0.02),
        ];
        let limits = limits.map(|(name, bound)| (name.to_owned(), bound)).into();
        Self { interval_ms: MINUTE, window: 10, failed_max: 5, limits }
    }
}

impl GateRules {
    /// Alpha of one attempt, such that all attempts together stay below [`GateRules::alpha`]:
    /// `alpha 6 / (pi^2 k^2)`, whose sum over k = 1, 2, ... is `alpha`.
    #[must_use]
    pub fn alpha_of(&self, attempt: u32) -> f64 {
        let k = f64::from(attempt.max(1));
        self.alpha * 6.0 / (std::f64::consts::PI * k).powi(2)
    }

    /// Refuses rules under which the gate could not work.
    ///
    /// # Errors
    /// Names the first rule that is out of range.
    pub fn check(&self) -> Result<()> {
        let inside = |value: f64, low: f64, high: f64| value > low && value < high;
        let bounds = |map: &BTreeMap<String, f64>| map.values().all(|bound| bound.is_finite() && *bound >= 0.0);
        let shares = &self.canary.shares;
        let ascending = shares.windows(2).all(|pair| pair[0] < pair[1]);
        let checks = &self.checks;
        let rules = [
            (inside(self.alpha, 0.0, 0.5), "alpha", "must lie between 0 and 0.5"),
            (inside(self.rollback_alpha, 0.0, 0.5), "rollback_alpha", "must lie between 0 and 0.5"),
            (self.margin >= 0.0 && self.margin < 1.0, "margin", "must be at least 0 and below 1"),
            (self.offline.min_sessions >= 2, "offline.min_sessions", "must be at least 2"),
            (self.offline.resamples >= 1_000, "offline.resamples", "must be at least 1000"),
            (bounds(&self.offline.guardrails), "offline.guardrails", "must be finite margins of at least 0"),
            (self.shadow.max_pairs >= self.shadow.min_pairs, "shadow.max_pairs", "must be at least shadow.min_pairs"),
            (
                ascending && shares.first().is_some_and(|first| *first > 0.0),
                "canary.shares",
                "must ascend from above 0",
            ),
            (shares.last() == Some(&1.0), "canary.shares", "must end with 1"),
            (self.canary.min_paired > 0 && self.canary.min_unpaired > 0, "canary.min_paired", "must be above 0"),
            (self.canary.max_ms > self.canary.min_ms, "canary.max_ms", "must be above canary.min_ms"),
            (checks.interval_ms > 0, "checks.interval_ms", "must be above 0"),
            ((1..=32).contains(&checks.window), "checks.window", "must lie between 1 and 32"),
            ((1..=checks.window).contains(&checks.failed_max), "checks.failed_max", "must lie within checks.window"),
            (!checks.limits.is_empty() && bounds(&checks.limits), "checks.limits", "must name finite bounds"),
            (self.watch_ms > 0, "watch_ms", "must be above 0"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, reason)) => Err(PolicyError::Rules { field, reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_survive_json() {
        let rules = GateRules::default();
        rules.check().unwrap();
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<GateRules>(&text).unwrap(), rules);
        assert!(serde_json::from_str::<GateRules>(r#"{"alfa": 1}"#).is_err());
    }

    #[test]
    fn rules_that_cannot_work_are_named() {
        let refused = |change: fn(&mut GateRules)| {
            let mut rules = GateRules::default();
            change(&mut rules);
            rules.check().unwrap_err().to_string()
        };
        assert!(refused(|rules| rules.alpha = f64::NAN).contains("alpha"));
        assert!(refused(|rules| rules.canary.shares = vec![0.5, 0.25, 1.0]).contains("canary.shares"));
        assert!(refused(|rules| rules.canary.shares.truncate(3)).contains("end with 1"));
        assert!(refused(|rules| rules.checks.limits.clear()).contains("checks.limits"));
        assert!(refused(|rules| rules.checks.failed_max = 11).contains("checks.failed_max"));
    }

    #[test]
    fn all_attempts_together_spend_alpha() {
        let rules = GateRules::default();
        let spent: f64 = (1..=100_000).map(|attempt| rules.alpha_of(attempt)).sum();
        assert!(spent < rules.alpha && spent > rules.alpha - 1e-6, "{spent}");
    }
}
