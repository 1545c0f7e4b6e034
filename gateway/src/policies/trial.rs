//! Live questions that a candidate is tried on: one of the two policies answered, the other one runs once the reply has
//! gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use recast_config::TenantProfile;
use recast_domain::{Conversation, Degradation, EpisodeId, RewriteSource, Trace};
use recast_policies::Scope;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Candidate;
use crate::pipeline::RunOptions;

/// An answer that the other policy is to be compared with.
pub struct Answered {
    /// Whose gate.
    pub scope: Scope,
    /// The candidate.
    pub candidate: Arc<Candidate>,
    /// Whether the candidate gave the answer.
    pub by_candidate: bool,
    /// Whose question.
    pub tenant: Arc<TenantProfile>,
    /// The question.
    pub conversation: Conversation,
    /// As in the live run.
    pub options: RunOptions,
    /// The asker's session.
    pub session: String,
    /// Relevance of the live hits, best first; `None` where another rung of the ladder had to answer.
    pub scores: Option<Vec<f64>>,
}

/// Figures of a candidate's own answers since the last check.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Answers.
    pub answers: u64,
    /// Requests that got no answer.
    pub errors: u64,
    /// Answers without a hit.
    pub empty: u64,
    /// Answers that another rung of the ladder wrote.
    pub fallbacks: u64,
    /// Rewrites that were thrown away.
    pub invalid: u64,
    /// Time of rewriting, milliseconds each.
    pub rewrite_ms: Vec<f64>,
}

/// Whether the policy itself wrote the rewrite.
#[must_use]
pub fn is_own(trace: &Trace) -> bool {
    matches!(trace.rewrite.source, RewriteSource::Local | RewriteSource::Cached)
}

/// The queue of comparisons, and the figures of answers.
pub struct Trials {
    sender: Sender<Answered>,
    receiver: Mutex<Option<Receiver<Answered>>>,
    rate: f64,
    served: Mutex<HashMap<Scope, Served>>,
}

impl Trials {
    /// A queue of so many places, for this share of the answers.
    #[must_use]
    pub fn new(queue: usize, rate: f64) -> Self {
        let (sender, receiver) = channel(queue.max(1));
        Self { sender, receiver: Mutex::new(Some(receiver)), rate, served: Mutex::default() }
    }

    /// Whether this answer belongs to the share; the same every time.
    #[must_use]
    pub fn sampled(&self, episode: EpisodeId) -> bool {
        let hash = blake3::hash(episode.0.as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        f64::from(u32::from_le_bytes([a, b, c, d])) < self.rate * 4_294_967_296.0
    }

    /// Offers an answer; without a place it is dropped, and counted.
    pub fn offer(&self, answered: impl FnOnce() -> Answered) {
        match self.sender.try_reserve() {
            Ok(place) => place.send(answered()),
            Err(_) => metrics::counter!("recast_policy_trials_dropped_total").increment(1),
        }
    }

    /// The other end of the queue, once.
    pub fn receiver(&self) -> Option<Receiver<Answered>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes an answer that the candidate gave, or that nobody got in its name.
    pub fn note(&self, scope: &Scope, trace: Option<&Trace>) {
        let mut all = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let served = all.entry(scope.clone()).or_default();
        served.answers += 1;
        let Some(trace) = trace else {
            served.errors += 1;
            return;
        };
        served.empty += u64::from(trace.hits.is_empty());
        served.fallbacks += u64::from(!is_own(trace));
        served.invalid += u64::from(trace.degraded.contains(&Degradation::RewriteInvalid));
        served.rewrite_ms.push(trace.timings.rewrite_us as f64 / 1000.0);
    }

    /// The figures of a scope since the last time they were taken.
    #[must_use]
    pub fn take(&self, scope: &Scope) -> Served {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).remove(scope).unwrap_or_default()
    }
}
