//! The promotion gate: a candidate goes from stage to stage, each of which can only stop it.
//!
//! sanity -> held-out questions -> shadow -> canary 5, 25, 50, 100 % -> promoted and watched -> accepted
//!
//! The gate does no I/O and has no clock: it is told what was observed and what time it is, and says what it decides,
//! why, and from which numbers. Whoever drives it moves the pointer and writes the records down.

mod evidence;
mod live;
mod observation;
mod record;
mod rules;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;

use recast_domain::PolicyId;
use serde::{Deserialize, Serialize};

use self::live::{Checks, Comparison};
pub use self::observation::{Observation, OfflineReport, Pair, Pairing, SanityReport};
pub use self::record::{Finding, GateRecord, Stage, Verdict};
pub use self::rules::{CanaryRules, CheckRules, GateRules, OfflineRules, SanityRules, ShadowRules};
use crate::assign::Canary;
use crate::error::{PolicyError, Result};
use crate::scope::Scope;

/// A candidate at the gate. As JSON it survives a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    scope: Scope,
    policy: PolicyId,
    attempt: u32,
    stage: Stage,
    /// Share of sessions the candidate serves.
    share: f64,
    /// When the stage, or the share, began.
    entered_ms: i64,
    comparison: Comparison,
    checks: Checks,
}

/// A decision before it becomes a record: what, why, from which numbers.
struct Decision {
    verdict: Verdict,
    reason: String,
    evidence: Vec<Finding>,
}

impl Decision {
    fn new(verdict: Verdict, reason: impl Into<String>, evidence: Vec<Finding>) -> Self {
        Self { verdict, reason: reason.into(), evidence }
    }
}

impl Gate {
    /// A candidate before its first stage. `attempt` counts the candidates, from 1, that tried to replace this
    /// incumbent: each gets a smaller share of alpha ([`GateRules::alpha_of`]), else one of many would pass by luck.
    ///
    /// # Errors
    /// The rules cannot work.
    pub fn new(scope: Scope, policy: PolicyId, attempt: u32, rules: &GateRules, now_ms: i64) -> Result<Self> {
        rules.check()?;
        Ok(Self {
            scope,
            policy,
            attempt,
            stage: Stage::Sanity,
            share: 0.0,
            entered_ms: now_ms,
            comparison: Comparison::new(rules, attempt)?,
            checks: Checks::new(now_ms),
        })
    }

    /// Where the candidate stands.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The candidate.
    #[must_use]
    pub fn policy(&self) -> &PolicyId {
        &self.policy
    }

    /// The candidate and its share while users are assigned to it by share; `None` before, and once it is the active
    /// policy.
    #[must_use]
    pub fn canary(&self) -> Option<Canary> {
        let serving = matches!(self.stage, Stage::Canary { .. });
        serving.then(|| Canary { policy: self.policy.clone(), share: self.share })
    }

    /// Takes an observation and decides.
    ///
    /// On the advance to [`Stage::Watched`] the caller promotes the candidate; on a roll-back from there it rolls the
    /// pointer back.
    ///
    /// # Errors
    /// The observation belongs to another stage, or a statistic cannot be computed; the gate is as before then.
    pub fn observe(&mut self, rules: &GateRules, observation: &Observation, now_ms: i64) -> Result<GateRecord> {
        // A failed computation must not leave half of an observation behind.
        let mut next = self.clone();
        let record = next.decide(rules, observation, now_ms)?;
        *self = next;
        Ok(record)
    }

    fn decide(&mut self, rules: &GateRules, observation: &Observation, now_ms: i64) -> Result<GateRecord> {
        let before = self.stage;
        let decision = match (before, observation) {
            (stage, _) if stage.is_final() => return Err(self.misplaced(observation)),
            (_, Observation::Fault { what }) => self.stop(format!("the candidate failed: {what}"), Vec::new()),
            (Stage::Sanity, Observation::Sanity(report)) => {
                let evidence = evidence::sanity(&rules.sanity, report);
                let refused = report.refused.as_ref().map(|why| format!("the adapter does not load: {why}"));
                all_must_pass(evidence, refused, "the candidate works on the fixed prompts")
            }
            (Stage::Offline, Observation::Offline(report)) => {
                match evidence::offline(&rules.offline, report, rules.alpha_of(self.attempt), rules.alpha)? {
                    Some(evidence) => all_must_pass(evidence, None, "better on held-out questions, no guardrail fell"),
                    None => self.too_few_items(rules, report),
                }
            }
            (Stage::Shadow, Observation::Pairs { pairing, pairs }) => {
                self.comparison.take(*pairing, pairs)?;
                self.decide_shadow(rules, now_ms)
            }
            (Stage::Shadow, Observation::Tick) => self.decide_shadow(rules, now_ms),
            (Stage::Sanity | Stage::Offline, Observation::Tick) => Decision::new(
                Verdict::Hold,
                format!("waits for the result of the {} stage", before.label()),
                Vec::new(),
            ),
            (Stage::Canary { .. } | Stage::Watched, observation) => self.decide_serving(rules, observation, now_ms)?,
            _ => return Err(self.misplaced(observation)),
        };
        self.enter(rules, decision.verdict, now_ms)?;
        Ok(GateRecord {
            scope: self.scope.clone(),
            policy: self.policy.clone(),
            attempt: self.attempt,
            observation: observation.label().to_owned(),
            before,
            verdict: decision.verdict,
            after: self.stage,
            share: self.share,
            reason: decision.reason,
            evidence: decision.evidence,
        })
    }

    fn misplaced(&self, observation: &Observation) -> PolicyError {
        let (stage, observation) = (self.stage.label(), observation.label());
        PolicyError::Stage { policy: self.policy.clone(), stage, observation }
    }

    /// Ends the candidate: by a roll-back where users are served by it.
    fn stop(&self, reason: impl Into<String>, evidence: Vec<Finding>) -> Decision {
        let verdict = if self.stage.serves() { Verdict::RollBack } else { Verdict::Reject };
        Decision::new(verdict, reason, evidence)
    }

    fn too_few_items(&self, rules: &GateRules, report: &OfflineReport) -> Decision {
        let reason = format!(
            "{} held-out questions are not looked at: {} of {} sessions are needed",
            report.primary.len(),
            rules.offline.min_items,
            rules.offline.min_sessions
        );
        Decision::new(Verdict::Hold, reason, Vec::new())
    }

    fn decide_shadow(&self, rules: &GateRules, now_ms: i64) -> Decision {
        let (n, mean) = (self.comparison.n(), self.comparison.mean());
        let evidence = self.comparison.findings(rules);
        let waited = now_ms.saturating_sub(self.entered_ms) >= rules.shadow.max_ms;
        if self.comparison.shows_harm() {
            self.stop(format!("worse than the incumbent after {n} live questions (mean {mean:.4})"), evidence)
        } else if n >= rules.shadow.min_pairs && self.comparison.shows_gain() {
            let reason = format!("better than the incumbent on {n} live questions (mean {mean:.4})");
            Decision::new(Verdict::Advance, reason, evidence)
        } else if n >= rules.shadow.max_pairs || waited {
            self.stop(format!("no gain shown after {n} live questions (mean {mean:.4})"), evidence)
        } else {
            Decision::new(Verdict::Hold, format!("{n} live questions do not decide yet (mean {mean:.4})"), evidence)
        }
    }

    fn decide_serving(&mut self, rules: &GateRules, observation: &Observation, now_ms: i64) -> Result<Decision> {
        self.checks.miss(&rules.checks, now_ms);
        let mut figures = Vec::new();
        match observation {
            Observation::Pairs { pairing, pairs } => self.comparison.take(*pairing, pairs)?,
            Observation::Check { figures: found } => figures = self.checks.take(&rules.checks, found, now_ms),
            Observation::Tick => {}
            _ => return Err(self.misplaced(observation)),
        }
        let (n, mean) = (self.comparison.n(), self.comparison.mean());
        let failures: Vec<String> = figures.iter().filter(|f| !f.passed).map(Finding::words).collect();
        let mut evidence = self.comparison.findings(rules);
        evidence.append(&mut figures);
        let failed = self.checks.failed(&rules.checks);
        evidence.push(Finding::at_most(
            "failed_checks",
            Some(f64::from(failed)),
            f64::from(rules.checks.failed_max.saturating_sub(1)),
        ));

        if self.comparison.shows_harm() {
            return Ok(self.stop(format!("users are served worse: mean {mean:.4} over {n} questions"), evidence));
        }
        if failed >= rules.checks.failed_max {
            let last = if failures.is_empty() { "no figures came".to_owned() } else { failures.join(", ") };
            let reason = format!("{failed} of the last {} checks failed; {last}", rules.checks.window);
            return Ok(self.stop(reason, evidence));
        }
        let elapsed = now_ms.saturating_sub(self.entered_ms);
        let (needed, longest) = match self.stage {
            Stage::Watched => (rules.watch_ms, i64::MAX),
            _ => (rules.canary.min_ms, rules.canary.max_ms),
        };
        let mut missing = Vec::new();
        if !self.comparison.is_enough(rules) {
            missing.push("more questions");
        }
        if elapsed < needed {
            missing.push("more time");
        }
        if !self.checks.is_good() {
            missing.push("a good check");
        }
        if mean < -rules.margin {
            missing.push("a mean within the margin");
        }
        let percent = self.share * 100.0;
        Ok(if missing.is_empty() {
            let reason = format!("no harm at {percent} % over {n} questions (mean {mean:.4})");
            Decision::new(Verdict::Advance, reason, evidence)
        } else if elapsed >= longest {
            self.stop(format!("still short of {} after the longest time at {percent} %", missing.join(", ")), evidence)
        } else {
            Decision::new(Verdict::Hold, format!("at {percent} %, needs {}", missing.join(", ")), evidence)
        })
    }

    /// Moves to the stage that follows from a verdict.
    fn enter(&mut self, rules: &GateRules, verdict: Verdict, now_ms: i64) -> Result<()> {
        let next = match (verdict, self.stage) {
            (Verdict::Hold, _) => return Ok(()),
            (Verdict::Reject, _) => Stage::Rejected,
            (Verdict::RollBack, _) => Stage::RolledBack,
            (Verdict::Advance, Stage::Sanity) => Stage::Offline,
            (Verdict::Advance, Stage::Offline) => Stage::Shadow,
            (Verdict::Advance, Stage::Shadow) => Stage::Canary { step: 0 },
            (Verdict::Advance, Stage::Canary { step }) if step + 1 < rules.canary.shares.len() => {
                Stage::Canary { step: step + 1 }
            }
            (Verdict::Advance, Stage::Canary { .. }) => Stage::Watched,
            (Verdict::Advance, _) => Stage::Accepted,
        };
        // All shares of the canary are one test of harm; other stages begin a new one.
        if matches!(next, Stage::Canary { step } if step > 0) {
            self.comparison.next_share();
            self.checks.next_share();
        } else {
            self.comparison = Comparison::new(rules, self.attempt)?;
            self.checks = Checks::new(now_ms);
        }
        self.share = match next {
            Stage::Canary { step } => rules.canary.shares.get(step).copied().unwrap_or(1.0),
            _ if next.serves() => 1.0,
            _ => 0.0,
        };
        self.stage = next;
        self.entered_ms = now_ms;
        Ok(())
    }
}

/// Advances where every finding passed; else rejects and names those that did not.
fn all_must_pass(evidence: Vec<Finding>, refused: Option<String>, praise: &str) -> Decision {
    let failures: Vec<String> = evidence.iter().filter(|f| !f.passed).map(Finding::words).collect();
    match (refused, failures.is_empty()) {
        (Some(reason), _) => Decision::new(Verdict::Reject, reason, evidence),
        (None, true) => Decision::new(Verdict::Advance, praise, evidence),
        (None, false) => Decision::new(Verdict::Reject, failures.join(", "), evidence),
    }
}
