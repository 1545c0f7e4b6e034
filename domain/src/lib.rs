//! Plain data shared by every room of recast: conversations, rewrites, passages, hits, traces, episodes.
//!
//! Nothing here does I/O, and nothing here depends on another crate of this workspace.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod conversation;
mod dialogue;
mod environment;
mod episode;
mod error;
mod experiment;
mod ids;
mod message;
mod passage;
mod rewrite;
mod trace;

pub use conversation::{Conversation, Role, Turn, parse_history};
pub use dialogue::{Dialogue, PassageRecord, QueryType, Relevance, Split};
pub use environment::{Environment, RolloutItem, Scored};
pub use episode::{Episode, EpisodeHit, RequestFacts};
pub use error::ErrorKind;
pub use experiment::{
    Assignment, Feedback, FeedbackSignal, Preferred, RefusedRun, ShadowAnswer, ShadowKind, ShadowOutcome, ShadowRun,
};
pub use ids::{EpisodeId, IdError, KbName, PolicyId, TenantId};
pub use message::{ChatMessage, PROFILE_LABEL, QUERY_LABEL, REQUEST, SUMMARY_LABEL, THOUGHT_LABEL, chat_messages};
pub use passage::{Hit, LegRank, Legs, Metadata, Passage};
pub use rewrite::{Rewrite, RewriteSource, Sampling};
pub use trace::{Degradation, Timings, Trace};
