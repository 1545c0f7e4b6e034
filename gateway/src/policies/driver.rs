//! The gate's hands: runs the other policy, tells the gate what was seen, and does what it decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use recast_judge::{RewardWeights, quality};
use recast_policies::{Gate, Observation, Pair, Pairing, PolicyStore, Scope, Stage, Verdict};
use recast_rewriter::PassThrough;
use tokio::time::Instant;

use super::Policies;
use super::trial::{Answered, Served};
use crate::keys::now_ms;
use crate::limits::Limits;
use crate::pipeline::Pipeline;

/// Comparisons are told to the gate when so many are there, or after this time.
const PAIRS: usize = 20;
const WAIT: Duration = Duration::from_secs(2);

/// Runs comparisons and checks until it is dropped.
pub async fn drive(policies: Arc<Policies>, pipeline: Pipeline, limits: Arc<Limits>, busy_above: usize) {
    let Some(store) = policies.store().cloned() else { return };
    let Some(mut answers) = policies.trials().receiver() else { return };
    let driver = Driver { policies, pipeline, store };
    let mut pairs: HashMap<Scope, Vec<Pair>> = HashMap::new();
    let mut checked: HashMap<Scope, Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(WAIT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            answered = answers.recv() => {
                let Some(answered) = answered else { return };
                limits.calm(busy_above).await;
                let scope = answered.scope.clone();
                let kept = pairs.entry(scope.clone()).or_default();
                kept.extend(driver.compare(answered).await);
                if kept.len() >= PAIRS {
                    let kept = std::mem::take(kept);
                    driver.tell(&scope, Observation::Pairs { pairing: Pairing::SameQuestion, pairs: kept }).await;
                }
            }
            _ = ticks.tick() => {
                for (scope, kept) in &mut pairs {
                    if !kept.is_empty() {
                        let kept = std::mem::take(kept);
                        driver.tell(scope, Observation::Pairs { pairing: Pairing::SameQuestion, pairs: kept }).await;
                    }
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
}

impl Driver {
    /// Candidate minus incumbent in the quality of what was found. A comparison whose incumbent failed says nothing; a
    /// candidate that failed has the worst there is.
    async fn compare(&self, answered: Answered) -> Option<Pair> {
        let Answered { candidate, by_candidate, tenant, conversation, options, session, scores, .. } = answered;
        let weights = RewardWeights::default();
        let session = format!("{}/{session}", tenant.id);
        let live = match scores {
            Some(scores) => quality(&scores, &weights),
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
        let found = run.map(|run| {
            let scores: Vec<f64> = run.trace.hits.iter().map(|hit| f64::from(hit.relevance())).collect();
            quality(&scores, &weights)
        });
        match (by_candidate, found) {
            (false, found) => Some(Pair { session, difference: found.ok().map(|found| found - live) }),
            (true, Ok(found)) => Some(Pair { session, difference: Some(live - found) }),
            (true, Err(_)) => None,
        }
    }

    /// Tells the gate of a scope, keeps what it decided, and does it.
    async fn tell(&self, scope: &Scope, seen: Observation) {
        let (store, rules, of) = (self.store.clone(), self.policies.rules().clone(), scope.clone());
        let told =
            tokio::task::spawn_blocking(move || -> Result<Option<(Gate, Verdict)>, recast_policies::PolicyError> {
                let Some(mut gate) = store.gate(&of)?.filter(|gate| !gate.stage().is_final()) else { return Ok(None) };
                let at_ms = at_ms();
                let record = gate.observe(&rules, &seen, at_ms)?;
                if record.verdict != Verdict::Hold {
                    tracing::info!(scope = %of, policy = %record.policy, reason = record.reason, "the gate decided");
                }
                store.keep_gate(&of, &gate, &record, at_ms)?;
                // all users have it already: the pointer follows, so that it stays when the gate is gone
                if record.verdict == Verdict::Advance && gate.stage() == Stage::Watched {
                    let version = store.active(&of)?.version;
                    store.promote(&of, gate.policy(), version, &record.reason, at_ms)?;
                }
                if record.verdict == Verdict::RollBack && record.before == Stage::Watched {
                    let active = store.active(&of)?;
                    // somebody may have put another policy in its place meanwhile
                    if active.current.is_some_and(|current| &current.policy == gate.policy()) {
                        store.roll_back(&of, active.version, &record.reason, at_ms)?;
                    }
                }
                Ok(Some((gate, record.verdict)))
            });
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
            self.tell(&scope, seen).await;
        }
    }
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
