use std::path::{Path, PathBuf};

use recast_domain::ErrorKind;
use recast_model::ModelError;

/// What can go wrong with a training.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A model, its tokenizer or its files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A record of the training data; names file and line, or the record.
    #[error("training data: {0}")]
    Data(String),
    /// A setting that cannot be; names it and what would be right.
    #[error("setting {0}")]
    Setting(String),
    /// The operating system refused a file operation.
    #[error("file {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A checkpoint that cannot be continued.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The chart of the loss could not be drawn.
    #[error("loss curve: {0}")]
    Chart(String),
    /// The loss is no number: the learning rate is too high, or the weights are damaged.
    #[error("the loss is not finite at step {step}, lower the learning rate")]
    Diverged {
        /// The step.
        step: u32,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, LearnError>;

impl LearnError {
    /// The cause in the closed set that all rooms share.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Model(error) => error.kind(),
            Self::Data(_) | Self::Setting(_) => ErrorKind::Invalid,
            Self::Io { .. } => ErrorKind::Unavailable,
            Self::Checkpoint { .. } => ErrorKind::Conflict,
            Self::Chart(_) | Self::Diverged { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

impl From<candle_core::Error> for LearnError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}
