//! What the guardrails look at: the newest answers of each arm.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use recast_domain::ShadowAnswer;

use crate::arena::definition::Guardrails;
use crate::arena::table::Running;
use crate::arena::{Arena, BY_GUARDRAIL};
use crate::pipeline::Run;

/// Answers of an arm below which no bound is held against it.
const LEAST: usize = 30;

/// One answer, as a guardrail sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fact {
    /// Time of the rewriter in milliseconds.
    pub rewrite_ms: f64,
    /// Whether nothing was found.
    pub empty: bool,
    /// Whether a stage failed or was late.
    pub degraded: bool,
    /// Characters of the rewrite for each one of the user's query.
    pub length_ratio: f64,
}

/// The newest answers of one arm.
#[derive(Debug)]
pub struct Window {
    facts: Mutex<VecDeque<Fact>>,
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
        self.push(Fact { rewrite_ms: 1000.0 * took.as_secs_f64(), empty: false, degraded: true, length_ratio: 1.0 });
    }

    fn push(&self, fact: Fact) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if facts.len() >= self.most {
            facts.pop_front();
        }
        facts.push_back(fact);
    }

    /// The answers, oldest first.
    #[must_use]
    pub fn facts(&self) -> Vec<Fact> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "times and lengths are far below 2^52")]
fn fact(rewrite_us: u64, empty: bool, degraded: bool, rewrite: &str, query: &str) -> Fact {
    let chars = |text: &str| text.chars().count() as f64;
    Fact {
        rewrite_ms: rewrite_us as f64 / 1000.0,
        empty,
        degraded,
        length_ratio: chars(rewrite) / chars(query).max(1.0),
    }
}

impl Arena {
    /// Kills every experiment with an arm that broke a bound: all its traffic gets the configured rewriter again.
    pub async fn look_at_guardrails(&self) {
        let table = self.table();
        let broken: Vec<_> = table.all_running().filter_map(|running| Some((running, broken(running)?))).collect();
        for (running, (arm, broken)) in broken {
            let id = &running.definition.id;
            let note = format!("arm {arm}: {broken}");
            tracing::warn!(experiment = id, note, "a guardrail stops an experiment");
            // The version that broke it: a definition that was changed meanwhile gets its own chance.
            match self.stop(id, true, Some(running.version), BY_GUARDRAIL, &note).await {
                Ok(_) => {
                    let (id, arm, guardrail) = (id.clone(), arm.to_owned(), broken.guardrail);
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

/// The first arm that broke a bound, and the bound.
fn broken(running: &Running) -> Option<(&str, Broken)> {
    let bounds = &running.definition.guardrails;
    let control = running.arms[running.control].window.facts();
    running.arms.iter().enumerate().find_map(|(index, arm)| {
        let facts = arm.window.facts();
        // Bounds are for what is tried; the control arm is what serves without the experiment.
        let tried = index != running.control && facts.len() >= LEAST;
        tried.then(|| first_broken(bounds, &facts, &control)).flatten().map(|broken| (arm.name.as_str(), broken))
    })
}

/// What broke a bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Broken {
    /// The guardrail's name.
    pub guardrail: &'static str,
    /// What was measured.
    pub value: f64,
    /// What is allowed.
    pub bound: f64,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {:.3}, allowed is {:.3}", self.guardrail, self.value, self.bound)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a window is short")]
fn first_broken(bounds: &Guardrails, facts: &[Fact], control: &[Fact]) -> Option<Broken> {
    let rate = |is: fn(&Fact) -> bool| facts.iter().filter(|fact| is(fact)).count() as f64 / facts.len() as f64;
    let mean = |facts: &[Fact]| facts.iter().map(|fact| fact.length_ratio).sum::<f64>() / facts.len() as f64;
    let length = if control.len() >= LEAST { mean(facts) / mean(control).max(f64::MIN_POSITIVE) } else { 0.0 };
    let measured = [
        ("p99_rewrite_ms", p99(facts), bounds.p99_rewrite_ms),
        ("empty_recall_rate", rate(|fact| fact.empty), bounds.empty_recall_rate),
        ("degraded_rate", rate(|fact| fact.degraded), bounds.degraded_rate),
        ("length_ratio", length, bounds.length_ratio),
    ];
    measured.into_iter().find_map(|(guardrail, value, bound)| {
        let bound = bound?;
        (value > bound).then_some(Broken { guardrail, value, bound })
    })
}

fn p99(facts: &[Fact]) -> f64 {
    let mut times: Vec<f64> = facts.iter().map(|fact| fact.rewrite_ms).collect();
    times.sort_by(f64::total_cmp);
    let rank = (times.len() * 99).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or(0.0)
}
