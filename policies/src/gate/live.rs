//! What is known of a candidate on live traffic.

use std::collections::{BTreeMap, BTreeSet};

use recast_experiments::{BettingTest, Evidence};
use serde::{Deserialize, Serialize};

use super::observation::{Pair, Pairing};
use super::record::Finding;
use super::rules::{CheckRules, GateRules};
use crate::error::Result;

/// Sessions remembered, in each of two generations.
const SESSIONS: usize = 32_768;

/// The sessions whose first pair was taken. Those of long ago are forgotten: memory stays bounded on any traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Sessions {
    newer: BTreeSet<u64>,
    older: BTreeSet<u64>,
}

impl Sessions {
    /// Whether the session was unknown until now.
    fn is_new(&mut self, session: &str) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(session.as_bytes()).as_bytes();
        let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        if self.older.contains(&key) || !self.newer.insert(key) {
            return false;
        }
        if self.newer.len() >= SESSIONS {
            self.older = std::mem::take(&mut self.newer);
        }
        true
    }
}

/// The comparison with the incumbent during one stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Of "the candidate is no better": its rejection is what a promotion needs.
    gain: BettingTest,
    gain_alpha: f64,
    /// Of "the candidate is worse by the margin at most": its rejection ends the candidate.
    harm: BettingTest,
    sessions: Sessions,
    /// Pairs since the last advance.
    paired: u64,
    unpaired: u64,
}

impl Comparison {
    pub fn new(rules: &GateRules, attempt: u32) -> Result<Self> {
        let gain_alpha = rules.alpha_of(attempt);
        Ok(Self {
            gain: BettingTest::new(gain_alpha, -1.0, 1.0, 0.0)?,
            gain_alpha,
            harm: BettingTest::new(rules.rollback_alpha, -1.0, 1.0, rules.margin)?,
            sessions: Sessions::default(),
            paired: 0,
            unpaired: 0,
        })
    }

    /// Takes the first pair of each session; stops where harm is shown.
    pub fn take(&mut self, pairing: Pairing, pairs: &[Pair]) -> Result<()> {
        for pair in pairs {
            if self.shows_harm() {
                break;
            }
            if !self.sessions.is_new(&pair.session) {
                continue;
            }
            match pairing {
                Pairing::SameQuestion => self.paired += 1,
                Pairing::SameTime => self.unpaired += 1,
            }
            self.gain.push(pair.value())?;
            self.harm.push(-pair.value())?;
        }
        Ok(())
    }

    pub fn next_share(&mut self) {
        (self.paired, self.unpaired) = (0, 0);
    }

    pub fn n(&self) -> u64 {
        self.gain.evidence().n
    }

    pub fn mean(&self) -> f64 {
        self.gain.evidence().mean
    }

    pub fn shows_gain(&self) -> bool {
        self.gain.evidence().rejected
    }

    pub fn shows_harm(&self) -> bool {
        self.harm.evidence().rejected
    }

    /// Whether enough pairs came since the last advance; those of different questions say less.
    pub fn is_enough(&self, rules: &GateRules) -> bool {
        let (paired, unpaired) = (rules.canary.min_paired, rules.canary.min_unpaired);
        self.paired.saturating_mul(unpaired).saturating_add(self.unpaired.saturating_mul(paired))
            >= paired.saturating_mul(unpaired)
    }

    /// Both tests as evidence. `passed` says whether each speaks for the candidate.
    pub fn findings(&self, rules: &GateRules) -> Vec<Finding> {
        let finding = |measure: &str, evidence: Evidence, alpha: f64, bound: f64, passed: bool| Finding {
            measure: measure.to_owned(),
            value: Some(self.mean()),
            bound: Some(bound),
            passed,
            n: Some(evidence.n),
            alpha: Some(alpha),
            mean: Some(self.mean()),
            e_value: Some(evidence.e_value),
            anytime_p: Some(evidence.anytime_p),
        };
        let (gain, harm) = (self.gain.evidence(), self.harm.evidence());
        vec![
            finding("gain", gain, self.gain_alpha, 0.0, gain.rejected),
            finding("no_harm", harm, rules.rollback_alpha, -rules.margin, !harm.rejected),
        ]
    }
}

/// The regular checks of the service's figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checks {
    /// When the last one came, or was missed.
    last_ms: i64,
    /// The last checks, the newest in the lowest bit; 1 is failed.
    failed: u32,
    /// Checks since the last advance.
    count: u32,
}

impl Checks {
    pub fn new(now_ms: i64) -> Self {
        Self { last_ms: now_ms, failed: 0, count: 0 }
    }

    /// Counts the intervals that went by without a check as failed ones.
    pub fn miss(&mut self, rules: &CheckRules, now_ms: i64) {
        let late = now_ms.saturating_sub(self.last_ms) / rules.interval_ms - 1;
        for _ in 0..late.clamp(0, 32) {
            self.push(true);
        }
        if late > 0 {
            self.last_ms = self.last_ms.saturating_add(late.saturating_mul(rules.interval_ms));
        }
    }

    /// Holds the figures against their limits.
    pub fn take(&mut self, rules: &CheckRules, figures: &BTreeMap<String, Option<f64>>, now_ms: i64) -> Vec<Finding> {
        let limits = rules.limits.iter();
        let findings: Vec<Finding> =
            limits.map(|(name, bound)| Finding::at_most(name, figures.get(name).copied().flatten(), *bound)).collect();
        self.push(findings.iter().any(|finding| !finding.passed));
        self.last_ms = self.last_ms.max(now_ms);
        findings
    }

    fn push(&mut self, failed: bool) {
        self.failed = self.failed << 1 | u32::from(failed);
        self.count = self.count.saturating_add(1);
    }

    /// Failed ones among the last checks.
    pub fn failed(&self, rules: &CheckRules) -> u32 {
        let window = u32::MAX >> (32 - rules.window);
        (self.failed & window).count_ones()
    }

    /// Whether a check came since the last advance, and the newest is good.
    pub fn is_good(&self) -> bool {
        self.count > 0 && self.failed & 1 == 0
    }

    pub fn next_share(&mut self) {
        self.count = 0;
    }
}
