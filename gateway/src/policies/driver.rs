//! The gate's hands: runs the other policy, tells the gate what was seen, and does what it decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use recast_domain::PolicyId;
use recast_judge::{RewardWeights, quality};
use recast_policies::{Gate, GateRules, Observation, Pair, Pairing, PolicyError, PolicyStore, Scope, Stage, Verdict};
use recast_rewriter::PassThrough;
use tokio::time::Instant;

use super::Policies;
use super::trial::{Answered, Served};
use crate::keys::now_ms;
use crate::limits::Limits;
use crate::pipeline::Pipeline;
use crate::scoring::whole;

/// Comparisons are told to the gate when so many are there, or after this time.
const PAIRS: usize = 20;
const WAIT: Duration = Duration::from_secs(2);

/// Runs comparisons and checks until it is dropped.
pub async fn drive(
    policies: Arc<Policies>,
    pipeline: Pipeline,
    weights: RewardWeights,
    limits: Arc<Limits>,
    busy_above: usize,
) {
    let Some(store) = policies.store().cloned() else { return };
    let Some(mut answers) = policies.trials().receiver() else { return };
    let driver = Driver { policies, pipeline, store, weights };
    let mut pairs: HashMap<(Scope, PolicyId), Vec<Pair>> = HashMap::new();
    let mut checked: HashMap<Scope, Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(WAIT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            answered = answers.recv() => {
                let Some(answered) = answered else { return };
                limits.calm(busy_above).await;
                let of = (answered.scope.clone(), answered.candidate.version.policy.clone());
                let kept = pairs.entry(of.clone()).or_default();
                kept.extend(driver.compare(answered).await);
                if kept.len() >= PAIRS {
                    let kept = std::mem::take(kept);
                    driver.tell(&of.0, Some(of.1), Observation::Pairs { pairing: Pairing::SameQuestion, pairs: kept }).await;
                }
            }
            _ = ticks.tick() => {
                for ((scope, policy), kept) in std::mem::take(&mut pairs) {
                    if !kept.is_empty() {
                        let seen = Observation::Pairs { pairing: Pairing::SameQuestion, pairs: kept };
                        driver.tell(&scope, Some(policy), seen).await;
                    }
                }
                for (scope, what) in driver.policies.faults() {
                    driver.tell(&scope, None, Observation::Fault { what }).await;
                }
                driver.check(&mut checked).await;
            }
        }
    }
}

struct Driver {
    policies: Arc<Policies>,
    pipeline: Pipeline,
    store: PolicyStore,
    weights: RewardWeights,
}

impl Driver {
    /// Candidate minus incumbent in the quality of what was found. A comparison whose incumbent failed says nothing; a
    /// candidate that failed has the worst there is.
    async fn compare(&self, answered: Answered) -> Option<Pair> {
        let Answered { candidate, by_candidate, tenant, conversation, options, session, scores, .. } = answered;
        let session = format!("{}/{session}", tenant.id);
        let live = match scores {
            Some(scores) => quality(&scores, &self.weights),
            None if by_candidate => return Some(Pair { session, difference: None }),
            None => return None,
        };
        let other = match by_candidate {
            true => self.policies.compared(&candidate),
            false => Some(Arc::clone(&candidate.version.rewriter)),
        };
        let run = match other {
            Some(rewriter) => self.pipeline.run_with(&*rewriter, &tenant, &conversation, options).await,
            None => self.pipeline.run_with(&PassThrough, &tenant, &conversation, options).await,
        };
        // a search that was not whole says nothing about a rewrite
        if run.as_ref().is_ok_and(|run| !whole(&run.trace.degraded)) {
            return None;
        }
        let found = run.map(|run| {
            let scores: Vec<f64> = run.trace.hits.iter().map(|hit| f64::from(hit.relevance())).collect();
            quality(&scores, &self.weights)
        });
        match (by_candidate, found) {
            (false, found) => Some(Pair { session, difference: found.ok().map(|found| found - live) }),
            (true, Ok(found)) => Some(Pair { session, difference: Some(live - found) }),
            (true, Err(_)) => None,
        }
    }

    /// Tells the gate of a scope, does what it decided, and keeps it.
    async fn tell(&self, scope: &Scope, about: Option<PolicyId>, seen: Observation) {
        let (store, rules, of) = (self.store.clone(), self.policies.rules().clone(), scope.clone());
        let told = tokio::task::spawn_blocking(move || decide(&store, &rules, &of, about.as_ref(), &seen));
        match told.await {
            Ok(Ok(Some((gate, verdict)))) if verdict != Verdict::Hold => {
                let label = match verdict {
                    Verdict::Advance => "advance",
                    Verdict::RollBack => "roll_back",
                    Verdict::Reject => "reject",
                    Verdict::Hold => "hold",
                };
                metrics::counter!("recast_policy_decisions_total", "verdict" => label, "stage" => gate.stage().label())
                    .increment(1);
                self.policies.refresh().await;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%scope, %error, "the gate could not be told"),
            Err(error) => tracing::error!(%scope, %error, "the gate failed"),
        }
    }

    /// Tells every gate with users what the service's figures are, when a check is due.
    async fn check(&self, checked: &mut HashMap<Scope, Instant>) {
        let every = Duration::from_millis(u64::try_from(self.policies.rules().checks.interval_ms).unwrap_or(60_000));
        let scopes = self.store.scopes().unwrap_or_default();
        for scope in scopes {
            let gate = self.store.gate(&scope).ok().flatten();
            let Some(stage) = gate.map(|gate| gate.stage()).filter(|stage| !stage.is_final()) else {
                checked.remove(&scope);
                continue;
            };
            if matches!(stage, Stage::Sanity | Stage::Offline) {
                continue;
            }
            let last = *checked.entry(scope.clone()).or_insert_with(Instant::now);
            if last.elapsed() < every {
                continue;
            }
            checked.insert(scope.clone(), Instant::now());
            let seen = match stage {
                Stage::Shadow => Observation::Tick,
                _ => Observation::Check { figures: figures(&self.policies.trials().take(&scope)) },
            };
            self.tell(&scope, None, seen).await;
        }
    }
}

/// One step of a gate. What was seen of a candidate that is no longer there is dropped. The pointer moves before the gate
/// is kept: a crash between the two leaves a gate that decides again.
fn decide(
    store: &PolicyStore,
    rules: &GateRules,
    scope: &Scope,
    about: Option<&PolicyId>,
    seen: &Observation,
) -> Result<Option<(Gate, Verdict)>, PolicyError> {
    let Some(before) = store.gate(scope)?.filter(|gate| !gate.stage().is_final()) else { return Ok(None) };
    if about.is_some_and(|policy| policy != before.policy()) {
        return Ok(None);
    }
    let at_ms = at_ms();
    let mut gate = before.clone();
    let mut record = gate.observe(rules, seen, at_ms)?;
    let active = store.active(scope)?;
    let incumbent = active.current.as_ref().map(|current| &current.policy);
    let is_active = incumbent == Some(gate.policy());
    if record.verdict == Verdict::Advance && gate.stage() == Stage::Watched && !is_active {
        if store.show(scope, gate.policy())?.parent.as_ref() == incumbent {
            store.promote(scope, gate.policy(), active.version, &record.reason, at_ms)?;
        } else {
            // it was better than another policy than the one that it would replace
            gate = before;
            let what = "the incumbent was replaced while this candidate was compared with it".to_owned();
            record = gate.observe(rules, &Observation::Fault { what }, at_ms)?;
        }
    }
    // somebody may have put another policy in its place meanwhile
    if record.verdict == Verdict::RollBack && record.before == Stage::Watched && is_active {
        store.roll_back(scope, active.version, &record.reason, at_ms)?;
    }
    if record.verdict != Verdict::Hold {
        tracing::info!(%scope, policy = %record.policy, reason = record.reason, "the gate decided");
    }
    store.keep_gate(scope, &gate, &record, at_ms)?;
    Ok(Some((gate, record.verdict)))
}

fn at_ms() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

/// The figures that the rules of the checks know. Without an answer there is none, and what is missing has failed.
fn figures(served: &Served) -> BTreeMap<String, Option<f64>> {
    let share = |count: u64| (served.answers > 0).then(|| count as f64 / served.answers as f64);
    let mut times = served.rewrite_ms.clone();
    times.sort_by(f64::total_cmp);
    let p99 = times.get((times.len() * 99 / 100).min(times.len().saturating_sub(1))).copied();
    [
        ("error_rate", share(served.errors)),
        ("rewrite_p99_ms", p99),
        ("empty_retrieval_rate", share(served.empty)),
        ("fallback_rate", share(served.fallbacks)),
        ("invalid_format_rate", share(served.invalid)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answers_have_no_figures() {
        assert!(figures(&Served::default()).values().all(Option::is_none));
        let served = Served { answers: 4, empty: 1, rewrite_ms: vec![3.0, 1.0, 2.0, 9.0], ..Served::default() };
        let found = figures(&served);
        assert_eq!((found["empty_retrieval_rate"], found["error_rate"]), (Some(0.25), Some(0.0)));
        assert_eq!(found["rewrite_p99_ms"], Some(9.0));
    }
}
