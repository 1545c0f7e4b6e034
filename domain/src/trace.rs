use serde::{Deserialize, Serialize};

use crate::{Hit, Rewrite};

/// A stage that failed or was late, and what stood in for it. The reply names each one in `degraded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// The local rewriter had no free place in its queue.
    RewriteOverloaded,
    /// The local rewriter missed its deadline.
    RewriteTimeout,
    /// The local rewriter failed, or is not loaded.
    RewriteFailed,
    /// A rewrite was empty, junk or over-long and was thrown away.
    RewriteInvalid,
    /// The 32B service was needed and did not answer usefully either.
    RemoteRewriteFailed,
    /// The dense leg was left out: no embedder, or it failed or was late.
    DenseUnavailable,
    /// The lexical leg failed.
    Bm25Unavailable,
    /// The reranker missed its deadline; hits keep their fused order.
    RerankTimeout,
    /// The reranker failed; hits keep their fused order.
    RerankFailed,
}

/// Wall time of each stage in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Rewriting, queueing included.
    pub rewrite_us: u64,
    /// Embedding the query.
    pub embed_us: u64,
    /// Both legs and fusion.
    pub search_us: u64,
    /// Reranking.
    pub rerank_us: u64,
    /// From the parsed request to the finished list.
    pub total_us: u64,
}

/// What one run of the pipeline did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The query that was searched.
    pub rewrite: Rewrite,
    /// What was found, best first, cut to `top_k` and the threshold.
    pub hits: Vec<Hit>,
    /// Wall time by stage.
    pub timings: Timings,
    /// What did not work as meant; empty on a good run.
    pub degraded: Vec<Degradation>,
}
