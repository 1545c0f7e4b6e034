//! From a conversation to a retrieval query.
//!
//! [`Ladder`] is what serving asks, and it always answers: the local model ([`LocalRewriter`]), an earlier rewrite of
//! the same conversation, the 32B service ([`RemoteRewriter`]), and at last the user's own query. The engine that runs
//! local models does several things wrong on a processor; `engine.rs` and `sampler.rs` say which, and go around them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

use std::sync::Arc;

use async_trait::async_trait;
use recast_config::TenantProfile;
use recast_domain::{Conversation, PolicyId, Rewrite};
use tokio::time::Instant;

mod breaker;
mod cache;
mod engine;
mod error;
mod files;
mod ladder;
mod load;
mod local;
mod memory;
mod parity;
mod pass_through;
mod prompt_hash;
mod remote;
mod sampler;
mod self_test;
mod validate;

pub use breaker::{Breaker, RetryBudget};
pub use cache::{RewriteCache, rewrite_key};
pub use engine::{Completion, Engine, Job};
pub use error::{Result, RewriteError};
pub use files::{ModelFiles, ModelSource};
pub use ladder::{Ladder, RewriteLimits, Rewritten};
pub use load::EngineSettings;
pub use local::LocalRewriter;
pub use memory::{MemoryNeed, available_bytes};
pub use parity::PARITY_NATS;
pub use pass_through::PassThrough;
pub use prompt_hash::prompt_hash;
pub use remote::RemoteRewriter;
pub use self_test::{SelfTest, self_test};
pub use validate::{InvalidRewrite, checked_rewrite};

/// A question to rewrite.
#[derive(Debug, Clone)]
pub struct RewriteRequest {
    /// Whose question it is; its instructions are part of the prompt.
    pub tenant: Arc<TenantProfile>,
    /// The question with its context.
    pub conversation: Conversation,
    /// Seed of this request's sampling; the same seed gives the same rewrite.
    pub seed: u64,
}

/// Turns a conversation into a retrieval query.
///
/// Laws: a rewrite that comes back passed [`checked_rewrite`]; an answer or an error comes at the deadline or before
/// it; dropping the future stops the work soon and harms no other request.
#[async_trait]
pub trait Rewriter: Send + Sync {
    /// Who rewrites. Two rewriters with the same policy rewrite alike.
    fn policy(&self) -> PolicyId;

    /// What tells its rewrites from those of any other weights, whatever it is called: the key under which they are kept.
    fn version(&self) -> PolicyId {
        self.policy()
    }

    /// Hash of what the prompt holds beside the conversation; empty where no prompt is rendered.
    fn prompt_hash(&self, tenant: &TenantProfile) -> String {
        let _ = tenant;
        String::new()
    }

    /// Rewrites one question.
    ///
    /// # Errors
    /// When there is no capacity, the deadline passes, the model or service fails, or what it wrote is no query.
    async fn rewrite(&self, request: &RewriteRequest, deadline: Instant) -> Result<Rewrite>;
}
