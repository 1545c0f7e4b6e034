use std::path::{Path, PathBuf};

use recast_domain::ErrorKind;

use crate::error::EpisodeError;

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] EpisodeError),
    /// Something that was asked for makes no sense.
    #[error("{0}")]
    Request(String),
    /// The folder holds something else.
    #[error("{path}: {reason}")]
    Folder {
        /// The folder of the export.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file cannot be written or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be encoded.
    #[error("a file could not be encoded: {0}")]
    Encode(String),
    /// Somebody asked the export to stop. What is finished stays, and the export can go on.
    #[error("the export was stopped: what is finished stays, and it can be resumed")]
    Stopped,
}

impl ExportError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Request(_) => ErrorKind::Invalid,
            Self::Folder { .. } => ErrorKind::Conflict,
            Self::Io { .. } => ErrorKind::Unavailable,
            Self::Encode(_) => ErrorKind::Internal,
            Self::Stopped => ErrorKind::Unavailable,
        }
    }

    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Encoders write into a file of their own; what they say without its name is named by who opened it.
impl From<std::io::Error> for ExportError {
    fn from(source: std::io::Error) -> Self {
        Self::Io { path: PathBuf::from("the file that is written"), source }
    }
}

impl From<parquet::errors::ParquetError> for ExportError {
    fn from(error: parquet::errors::ParquetError) -> Self {
        Self::Encode(error.to_string())
    }
}

impl From<csv::Error> for ExportError {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(source) => source.into(),
            other => Self::Encode(format!("{other:?}")),
        }
    }
}

impl From<serde_json::Error> for ExportError {
    fn from(error: serde_json::Error) -> Self {
        Self::Encode(error.to_string())
    }
}
