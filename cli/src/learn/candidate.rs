//! What a round learned, published and brought to the gate: sanity and held-out questions are looked at here, the rest
//! of the way is the gateway's.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Context;
use recast_config::LearnerSettings;
use recast_domain::{Environment, PolicyId, RolloutItem, Scored};
use recast_learner::rl::{ADAPTER, QuestionPool, RlReport, divergence, greedy};
use recast_model::{Lora, ModelFolder, Qwen3};
use recast_policies::{
    DataRange, Draft, Gate, GateRecord, GateRules, Observation, OfflineReport, Pair, PolicyStore, SanityReport, Scope,
};

use super::questions::Asked;
use super::round::now_ms;

/// Exact rewrites with unseen names may fall by this share.
pub const MOST_COPYING_LOSS: f64 = 0.05;
/// Held-out questions whose rewrites the sanity check reads.
const SANITY: usize = 64;

/// Everything a candidate is made from and compared with.
pub struct Offer<'a> {
    /// Where it is published.
    pub store: &'a PolicyStore,
    /// Whose policy it would be.
    pub scope: &'a Scope,
    /// The base model.
    pub folder: &'a ModelFolder,
    /// The policy that the round began with, and its folder.
    pub start: (Option<&'a PolicyId>, Option<&'a Path>),
    /// Questions that nobody learned from.
    pub held: (&'a [Asked], &'a QuestionPool),
    /// Questions that were learned from.
    pub learned: &'a [Asked],
    /// Who scores.
    pub environment: &'a dyn Environment,
    /// The settings of the round.
    pub settings: &'a LearnerSettings,
}

impl Offer<'_> {
    /// Publishes the round's adapter and tells the gate what it did; without an adapter there is nothing to offer.
    ///
    /// # Errors
    /// When a network or a store fails.
    pub fn make(&self, round: &Path, report: &RlReport) -> anyhow::Result<String> {
        let alarms = if report.alarms.is_empty() { String::new() } else { format!(" ({})", report.alarms.join("; ")) };
        let Some(step) = report.best else {
            return Ok(format!("{}: nothing better was learned in {} steps{alarms}", round.display(), report.steps));
        };
        let adapter = round.join(ADAPTER);
        let policy = self.publish(&adapter, round, report, step)?;
        let base = self.folder.cpu_network()?;
        let network = |dir: &Path| -> anyhow::Result<Qwen3> {
            Ok(base.merged(&Lora::read(dir, self.folder.config(), base.device())?)?)
        };
        let candidate = network(&adapter)?;
        let incumbent = self.start.1.map(network).transpose()?.unwrap_or_else(|| base.clone());

        let rules = GateRules { offline: offline_rules(), ..GateRules::default() };
        let attempt = self.store.next_attempt(self.scope)?;
        let mut gate = Gate::new(self.scope.clone(), policy.clone(), attempt, &rules, now_ms())?;
        let written = greedy(&candidate, self.held.1)?;
        let scores = self.environment.score(&written);
        let sanity = Observation::Sanity(self.sanity(&candidate, &base, &written, &scores)?);
        let mut last = self.tell(&mut gate, &rules, &sanity)?;
        if !gate.stage().is_final() {
            let before = greedy(&incumbent, self.held.1)?;
            let offline = self.offline((&written, &scores), (&before, &self.environment.score(&before)));
            last = self.tell(&mut gate, &rules, &Observation::Offline(offline))?;
        }
        let stage = gate.stage().label();
        Ok(format!("{}: {policy} of step {step} is at {stage}: {}{alarms}", round.display(), last.reason))
    }

    fn tell(&self, gate: &mut Gate, rules: &GateRules, seen: &Observation) -> anyhow::Result<GateRecord> {
        let at_ms = now_ms();
        let record = gate.observe(rules, seen, at_ms)?;
        self.store.keep_gate(self.scope, gate, &record, at_ms)?;
        Ok(record)
    }

    fn publish(&self, adapter: &Path, round: &Path, report: &RlReport, step: u64) -> anyhow::Result<PolicyId> {
        let times = || self.learned.iter().map(|one| one.asked_ms);
        let name = round.file_name().unwrap_or_default().to_string_lossy();
        let policy: PolicyId = format!("learned-{name}").parse().context("naming the policy")?;
        // a round that was killed here goes on here
        if self.store.show(self.scope, &policy).is_ok() {
            return Ok(policy);
        }
        let look = report.looks.iter().find(|look| look.step == step);
        let mut metrics: BTreeMap<String, f64> = look.map(|look| look.evaluation.parts.clone()).unwrap_or_default();
        metrics.extend(look.map(|look| ("reward".to_owned(), look.evaluation.reward)));
        metrics.retain(|_, value| value.is_finite());
        let settings = self.settings;
        let draft = Draft {
            scope: self.scope.clone(),
            policy: policy.clone(),
            parent: self.start.0.cloned(),
            adapter,
            data: DataRange {
                examples: self.learned.len() as u64,
                from_ms: times().min(),
                to_ms: times().max(),
                sources: vec!["episodes".to_owned()],
            },
            config: serde_json::json!({
                "algorithm": settings.algorithm, "steps": step, "questions": settings.questions,
                "group": settings.group, "rank": settings.rank, "learning_rate": settings.learning_rate,
                "kl": settings.kl, "entropy": settings.entropy, "seed": settings.seed,
            }),
            metrics,
            created_ms: now_ms(),
        };
        self.store.publish(&draft)?;
        Ok(policy)
    }

    fn sanity(
        &self,
        candidate: &Qwen3,
        base: &Qwen3,
        written: &[RolloutItem],
        scores: &[Option<Scored>],
    ) -> anyhow::Result<SanityReport> {
        let scored: Vec<&Scored> = scores.iter().flatten().collect();
        let invalid = scored.iter().filter(|one| !one.valid).count();
        let texts: HashSet<&str> = written.iter().map(|item| item.text.as_str()).collect();
        Ok(SanityReport {
            refused: None,
            prompts: written.len() as u64,
            empty: Some(written.iter().filter(|item| item.text.trim().is_empty()).count() as u64),
            distinct: Some(texts.len() as u64),
            invalid_format_rate: (!scored.is_empty()).then(|| invalid as f64 / scored.len() as f64),
            kl: Some(divergence(candidate, base, self.held.1, SANITY)?),
        })
    }

    /// Differences by question; those where the incumbent has no score say nothing about the candidate.
    fn offline(
        &self,
        (written, scores): (&[RolloutItem], &[Option<Scored>]),
        (before, old): (&[RolloutItem], &[Option<Scored>]),
    ) -> OfflineReport {
        let mut report = OfflineReport::default();
        for (place, one) in self.held.0.iter().enumerate() {
            let Some(was) = &old[place] else { continue };
            let mut pair = |list: Option<&str>, difference: Option<f64>| {
                let pair = Pair { session: format!("{}/{}", one.tenant, one.session), difference };
                match list {
                    None => report.primary.push(pair),
                    Some(name) => report.guardrails.entry(name.to_owned()).or_default().push(pair),
                }
            };
            let now = scores[place].as_ref();
            // rewards lie in [-1, 1]
            pair(None, now.map(|now| (now.reward - was.reward) / 2.0));
            let part = |scored: &Scored| scored.parts.get("quality").copied();
            if let Some(quality) = part(was) {
                pair(Some(QUALITY), now.and_then(part).map(|now| now - quality));
            }
            let (new, old) = (written[place].text.chars().count(), before[place].text.chars().count());
            pair(Some(LENGTH), Some((old as f64 - new as f64) / old.max(new).max(1) as f64));
        }
        report
    }
}

const QUALITY: &str = "quality";
const LENGTH: &str = "length";

/// The guardrails that questions without labels allow.
fn offline_rules() -> recast_policies::OfflineRules {
    recast_policies::OfflineRules {
        guardrails: [(QUALITY, 0.02), (LENGTH, 0.3)].map(|(name, margin)| (name.to_owned(), margin)).into(),
        ..recast_policies::OfflineRules::default()
    }
}
