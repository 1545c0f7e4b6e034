use std::path::{Path, PathBuf};

use recast_domain::ErrorKind;

use crate::memory::MemoryNeed;
use crate::validate::InvalidRewrite;

/// Why there is no rewrite, or no rewriter.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The queue in front of the local model is full.
    #[error("all {places} places of the rewriter's queue are taken (rewriter.queue)")]
    Overloaded {
        /// Length of the queue.
        places: usize,
    },
    /// The deadline passed first.
    #[error("the rewrite missed its deadline")]
    Timeout,
    /// What was written is no query.
    #[error("the rewrite is not usable: {0}")]
    Invalid(#[from] InvalidRewrite),
    /// The 32B service failed so often that it is left alone for some seconds.
    #[error("the rewrite service failed too often and is left alone for a while")]
    BreakerOpen,
    /// The 32B service cannot be reached, or the connection broke.
    #[error("the rewrite service cannot be reached: {0}")]
    Unreachable(String),
    /// The 32B service answered with an error.
    #[error("the rewrite service answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Seconds that the service asked to wait.
        retry_after: Option<u64>,
    },
    /// The 32B service answered with something else than its contract says.
    #[error("the rewrite service broke its contract: {0}")]
    Malformed(String),
    /// A setting cannot work.
    #[error("setting {field}: {reason}")]
    Setting {
        /// Path of the key.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The model's files cannot be loaded.
    #[error("model {path} cannot be loaded: {reason}")]
    Load {
        /// The model's folder or file.
        path: PathBuf,
        /// What was found, and what to do.
        reason: String,
    },
    /// The model does not fit into memory.
    #[error(
        "model {path} needs about {} MiB ({need}), and {} MiB are available: use a smaller or quantised model \
         (rewriter.quantization, or a .gguf file), free memory, or set rewriter.memory_limit_mib if you know better",
        .need.total() >> 20, .available >> 20
    )]
    Memory {
        /// The model's folder or file.
        path: PathBuf,
        /// What the model takes.
        need: MemoryNeed,
        /// What there is, in bytes.
        available: u64,
    },
    /// A file of the model, its prompt or its tokenizer is wrong.
    #[error(transparent)]
    Model(#[from] recast_model::ModelError),
    /// The engine failed on a request.
    #[error("the rewriting engine failed: {0}")]
    Engine(String),
}

/// Result of this crate.
pub type Result<T, E = RewriteError> = std::result::Result<T, E>;

impl RewriteError {
    /// The cause in the closed set that all rooms share.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::Timeout => ErrorKind::Timeout,
            Self::Invalid(_)
            | Self::BreakerOpen
            | Self::Unreachable(_)
            | Self::Status { .. }
            | Self::Malformed(_)
            | Self::Load { .. }
            | Self::Memory { .. } => ErrorKind::Unavailable,
            Self::Setting { .. } => ErrorKind::Invalid,
            Self::Model(error) => error.kind(),
            Self::Engine(_) => ErrorKind::Internal,
        }
    }

    /// The stable, low-cardinality name of what happened, for metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::Timeout => "timeout",
            Self::Invalid(_) => "invalid",
            Self::BreakerOpen => "breaker_open",
            Self::Unreachable(_) => "unreachable",
            Self::Status { .. } => "status",
            Self::Malformed(_) => "malformed",
            Self::Setting { .. } | Self::Load { .. } | Self::Memory { .. } | Self::Model(_) => "model",
            Self::Engine(_) => "engine",
        }
    }

    pub(crate) fn load(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Load { path: path.to_owned(), reason: reason.to_string() }
    }
}
