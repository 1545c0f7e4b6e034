use serde::{Deserialize, Serialize};

use crate::{Degradation, EpisodeHit, EpisodeId, Rewrite, TenantId, Timings};

/// The part of an experiment that a request takes in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The experiment's id.
    pub experiment: String,
    /// Version of its definition; every change makes a new one.
    pub version: u32,
    /// The arm that answered; of an interleaved answer, the two joined by `+`.
    pub arm: String,
}

/// Why a shadow run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShadowKind {
    /// The other arm, for the comparison.
    Treatment,
    /// The same arm once more: what two samples of one arm differ by is the noise floor.
    Control,
}

/// A sampled request whose run found no place and is dropped; the run's own record may follow a moment later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRun {
    /// The arm that would have run.
    pub arm: String,
    /// Why it would have.
    pub kind: ShadowKind,
}

/// What the other arm did with a request that had already been answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowAnswer {
    /// The query that was searched.
    pub rewrite: Rewrite,
    /// Hash of the rendered prompt's inputs; empty where no prompt was rendered.
    pub prompt_hash: String,
    /// What was found.
    pub hits: Vec<EpisodeHit>,
    /// Wall time by stage.
    pub timings: Timings,
    /// What did not work as meant.
    pub degraded: Vec<Degradation>,
}

/// How a sampled request ended in the shadow. A request that was sampled ends as exactly one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ShadowOutcome {
    /// The arm answered.
    Completed {
        /// What it did.
        answer: Box<ShadowAnswer>,
    },
    /// The arm's rewriter or its retrieval failed.
    Failed {
        /// In a word or two: `rewriter_failed`, `rewrite_invalid`, `breaker_open`, `retrieval_failed`.
        reason: String,
    },
    /// The deadline of shadow runs passed.
    TimedOut,
    /// It was never run.
    Dropped {
        /// In a word or two: `queue_full`, `shutdown`, `restart`, `experiment_stopped`.
        reason: String,
    },
}

impl ShadowOutcome {
    /// The outcome in one word, for counters and columns.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::TimedOut => "timed_out",
            Self::Dropped { .. } => "dropped",
        }
    }

    /// Why it is not complete; empty where there is nothing to say.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Failed { reason } | Self::Dropped { reason } => reason,
            Self::Completed { .. } | Self::TimedOut => "",
        }
    }
}

/// A live request that was sampled, and what became of it in the shadow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowRun {
    /// The live episode it belongs to.
    pub episode: EpisodeId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The experiment that sampled it, with its version and the arm that runs in the shadow.
    pub assignment: Assignment,
    /// Why it exists.
    pub kind: ShadowKind,
    /// When it was sampled, milliseconds since the Unix epoch, UTC.
    pub sampled_ms: i64,
    /// How it ended; `None` while it runs or waits.
    pub outcome: Option<ShadowOutcome>,
}

/// What somebody thought of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FeedbackSignal {
    /// Thumbs up or down.
    Thumbs {
        /// Whether up.
        up: bool,
    },
    /// A score.
    Score {
        /// 0 to 1.
        value: f64,
    },
    /// Words.
    Comment {
        /// The words.
        text: String,
    },
    /// A passage of the answer was opened.
    Click {
        /// The passage's id.
        passage: String,
    },
    /// This answer beside another one.
    Preference {
        /// Whether this one, the other one, or neither is better.
        preferred: Preferred,
        /// The other answer.
        other: Option<EpisodeId>,
    },
}

/// Which of two answers is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preferred {
    /// The one the feedback is about.
    This,
    /// The other one.
    Other,
    /// Neither.
    Neither,
}

/// One feedback event about one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feedback {
    /// The event's own id: posting it again changes nothing.
    pub id: uuid::Uuid,
    /// Whose it is.
    pub tenant: TenantId,
    /// The answer it is about.
    pub episode: EpisodeId,
    /// When it was received, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
    /// What was said.
    pub signal: FeedbackSignal,
}
