use std::path::{Path, PathBuf};

use recast_domain::ErrorKind;

/// What can go wrong with a model folder, its parts, or the mathematics on it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A field of a configuration cannot be used; says which and how to mend it.
    #[error("config field {field}: {reason}")]
    Config {
        /// Name of the field in its file.
        field: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A file that the folder needs is not there.
    #[error("file {path} is missing: {fix}")]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
        /// What to put there.
        fix: &'static str,
    },
    /// A file is there but cannot be read as what it should be.
    #[error("file {path} cannot be read: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The operating system refused a file operation.
    #[error("file {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A weight has another shape than the configuration says, or is absent.
    #[error("weight {name}: {reason}")]
    Weight {
        /// Name of the tensor.
        name: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// An adapter asks for something that this project does not do.
    #[error("adapter: {0}")]
    Adapter(String),
    /// The tokenizer cannot be built or cannot do what was asked.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The caller's arguments do not fit together.
    #[error("{0}")]
    Invalid(String),
    /// The tensor library failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;

impl ModelError {
    /// The cause in the closed set that all rooms share.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::Adapter(_) | Self::Invalid(_) => ErrorKind::Invalid,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } | Self::Io { .. } | Self::Weight { .. } => ErrorKind::Unavailable,
            Self::Tokenizer(_) | Self::Tensor(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn config(field: &str, reason: impl Into<String>) -> Self {
        Self::Config { field: field.to_owned(), reason: reason.into() }
    }

    pub(crate) fn weight(name: &str, reason: impl Into<String>) -> Self {
        Self::Weight { name: name.to_owned(), reason: reason.into() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.to_string() }
    }
}
