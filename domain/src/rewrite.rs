use serde::{Deserialize, Serialize};

use crate::PolicyId;

/// Which rung of the ladder produced a rewrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewriteSource {
    /// The local model ran.
    Local,
    /// An earlier rewrite of the same conversation by the same policy was reused.
    Cached,
    /// The 32B service answered.
    Remote,
    /// The user's own query.
    PassThrough,
    /// The caller sent `rewritten_query`.
    Given,
}

/// How a completion was sampled; needed to learn from it later.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 means greedy.
    pub temperature: f64,
    /// Nucleus mass, 0 to 1.
    pub top_p: f64,
    /// Seed of this request's own generator.
    pub seed: u64,
    /// Upper bound of new tokens.
    pub max_new_tokens: usize,
}

/// A retrieval query made from a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The text that is searched for.
    pub text: String,
    /// Who made it.
    pub source: RewriteSource,
    /// Which policy made it.
    pub policy: PolicyId,
    /// Exact sampled token ids, end-of-sequence included; empty unless a local model sampled them.
    pub token_ids: Vec<u32>,
    /// Natural log-probability of each token under the distribution that was sampled.
    pub log_probs: Vec<f32>,
    /// Tokens of the prompt; 0 unless a local model ran.
    pub prompt_tokens: usize,
    /// How it was sampled; `None` unless a local model ran.
    pub sampling: Option<Sampling>,
}

impl Rewrite {
    /// A rewrite that no local model sampled.
    #[must_use]
    pub fn plain(text: impl Into<String>, source: RewriteSource, policy: PolicyId) -> Self {
        Self {
            text: text.into(),
            source,
            policy,
            token_ids: Vec::new(),
            log_probs: Vec::new(),
            prompt_tokens: 0,
            sampling: None,
        }
    }
}
