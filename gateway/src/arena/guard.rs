//! What the guardrails look at: the newest answers of each arm.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recast_domain::ShadowAnswer;
use recast_experiments::{AnswerFacts, GuardrailReport};

use crate::arena::table::Running;
use crate::arena::{Arena, BY_GUARDRAIL};
use crate::pipeline::Run;

/// The newest answers of one arm.
#[derive(Debug)]
pub struct Window {
    facts: Mutex<VecDeque<AnswerFacts>>,
    most: usize,
}

impl Window {
    /// An empty window of at most this many answers.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { facts: Mutex::default(), most: most.max(1) }
    }

    /// Takes note of a live answer.
    pub fn saw_live(&self, run: &Run, query: &str) {
        let trace = &run.trace;
        self.push(fact(
            trace.timings.rewrite_us,
            trace.hits.is_empty(),
            !trace.degraded.is_empty(),
            &trace.rewrite.text,
            query,
        ));
    }

    /// Takes note of an answer in the shadow.
    pub fn saw_shadow(&self, answer: &ShadowAnswer, query: &str) {
        let (empty, degraded) = (answer.hits.is_empty(), !answer.degraded.is_empty());
        self.push(fact(answer.timings.rewrite_us, empty, degraded, &answer.rewrite.text, query));
    }

    /// Takes note of a run in the shadow without an answer; live, it would have been degraded.
    pub fn saw_failure(&self, took: Duration) {
        self.push(AnswerFacts {
            rewrite_ms: 1000.0 * took.as_secs_f64(),
            empty: false,
            degraded: true,
            length_ratio: 1.0,
        });
    }

    fn push(&self, fact: AnswerFacts) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.len() >= self.most {
            facts.pop_front();
        }
        facts.push_back(fact);
    }

    /// The answers, oldest first.
    #[must_use]
    pub fn facts(&self) -> Vec<AnswerFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl Arena {
    /// Kills every experiment with an arm that broke a bound: all its traffic gets the configured rewriter again.
    pub async fn look_at_guardrails(&self) {
        let table = self.table();
        let broken: Vec<_> = table.all_running().filter_map(|running| Some((running, broken(running)?))).collect();
        for (running, (arm, broken)) in broken {
            let id = &running.definition.id;
            let value = broken.value.unwrap_or_default();
            let note = format!("arm {arm}: {} is {value:.3}, allowed is {:.3}", broken.name, broken.bound);
            tracing::warn!(experiment = id, note, "a guardrail stops an experiment");
            // The version that broke it: a definition that was changed meanwhile gets its own chance.
            match self.stop(id, true, Some(running.version), BY_GUARDRAIL, &note).await {
                Ok(_) => {
                    let (id, arm, guardrail) = (id.clone(), arm.to_owned(), broken.name);
                    metrics::counter!(
                        "recast_experiment_aborts_total", "experiment" => id, "arm" => arm, "guardrail" => guardrail
                    )
                    .increment(1);
                }
                Err(error) => tracing::error!(experiment = id, %error, "a broken guardrail could not stop it"),
            }
        }
    }
}

/// The first arm that broke a bound, and the bound. The control arm is what serves without the experiment: it is not
/// bounded.
fn broken(running: &Running) -> Option<(&str, GuardrailReport)> {
    let tried = running.arms.iter().enumerate().filter(|(index, _)| *index != running.control);
    tried.map(|(_, arm)| arm).find_map(|arm| {
        let judged = running.definition.guardrails.judge(&arm.window.facts());
        Some((arm.name.as_str(), judged.into_iter().find(|one| one.ok == Some(false))?))
    })
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^52 microseconds")]
fn fact(rewrite_us: u64, empty: bool, degraded: bool, rewrite: &str, query: &str) -> AnswerFacts {
    let length_ratio = AnswerFacts::length_ratio(rewrite, query);
    AnswerFacts { rewrite_ms: rewrite_us as f64 / 1000.0, empty, degraded, length_ratio }
}
