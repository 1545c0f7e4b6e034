use std::path::PathBuf;

use recast_domain::{EpisodeId, ErrorKind};

/// Why a batch, or one episode of it, did not reach the disk. Shared by all who waited for the batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// The disk, or a quota on it, is full. Writing resumes by itself once there is room.
    #[error("the disk is full: free some space")]
    DiskFull,
    /// Less disk is free than `episodes.low_water_bytes` asks for.
    #[error("{free} bytes of disk are free, episodes.low_water_bytes asks for {wanted}: free some space")]
    LowWater {
        /// Free bytes now.
        free: u64,
        /// The setting.
        wanted: u64,
    },
    /// The server of the store cannot be reached. Writing resumes by itself once it can.
    #[error("PostgreSQL cannot be reached ({0}): start it, or check episodes.url")]
    Unreachable(String),
    /// The database failed otherwise; its own words.
    #[error("the store cannot be written: {0}")]
    Failed(String),
}

impl NotStored {
    /// The label of this cause in metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::LowWater { .. } => "low_water",
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<&crate::db::Error> for NotStored {
    fn from(error: &crate::db::Error) -> Self {
        match error {
            error if error.is_full() => Self::DiskFull,
            error if error.is_lost() => Self::Unreachable(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Everything that can go wrong with the episode store.
#[derive(Debug, thiserror::Error)]
pub enum EpisodeError {
    /// The episode, or what belongs to one, did not reach the disk.
    #[error("not stored: {0}")]
    NotStored(NotStored),
    /// It holds something that could not be read back, or that contradicts itself.
    #[error("not stored: {0}")]
    Invalid(String),
    /// More wait than the queue holds.
    #[error("not stored: {queued} episodes wait for the disk already")]
    QueueFull {
        /// Length of the queue.
        queued: usize,
    },
    /// The commit did not come in time; it may still be stored later.
    #[error("not acknowledged: its commit took longer than {patience_ms} ms")]
    Slow {
        /// How long was waited.
        patience_ms: u64,
    },
    /// The store was closed.
    #[error("the episode store is closed")]
    Closed,
    /// There is no store.
    #[error("{path}: there is no episode store: start the gateway once, or check state.dir")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Another process writes to the store.
    #[error("{path}: another process writes to this episode store: stop it first")]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The target of a backup or a restore is there already.
    #[error("{path}: exists: name another file, or say that it may be overwritten")]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// The store was written by another version of recast.
    #[error("{path}: schema version {found}, this recast knows {known}: {fix}")]
    Schema {
        /// The store.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version of this build.
        known: u32,
        /// What to do.
        fix: &'static str,
    },
    /// The file is not an episode store, or is damaged.
    #[error("{path}: not an episode store, or damaged ({message}): restore a backup, or move the file away")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// Somebody else changed the experiment meanwhile; 0 stands for "there is none".
    #[error("experiment {id:?} is at version {found}, not {expected}: read it again, then change that version")]
    VersionConflict {
        /// Which experiment.
        id: String,
        /// The version that the change was made for.
        expected: u32,
        /// The version in the store.
        found: u32,
    },
    /// The tenant has no such episode.
    #[error("episode {0} does not exist")]
    NotFound(EpisodeId),
    /// A stored episode cannot be understood.
    #[error("episode {id} cannot be read: {message}")]
    Unreadable {
        /// Which one.
        id: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("{path}: {source}")]
    Sqlite {
        /// The store.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The store on a server cannot be used.
    #[error("{place}: {message}: {fix}")]
    Server {
        /// The server and the database, or the setting that names them; never the password.
        place: String,
        /// What the server said, or what is wrong.
        message: String,
        /// What to do.
        fix: &'static str,
    },
}

impl EpisodeError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotStored(_) | Self::Closed | Self::Io { .. } | Self::Sqlite { .. } | Self::Server { .. } => {
                ErrorKind::Unavailable
            }
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::QueueFull { .. } => ErrorKind::Overloaded,
            Self::Slow { .. } => ErrorKind::Timeout,
            Self::Missing { .. } | Self::NotFound(_) => ErrorKind::NotFound,
            Self::InUse { .. } | Self::Exists { .. } | Self::Schema { .. } | Self::VersionConflict { .. } => {
                ErrorKind::Conflict
            }
            Self::Damaged { .. } | Self::Unreadable { .. } => ErrorKind::Internal,
        }
    }

    /// Names the store in an error of SQLite; says "damaged" where SQLite does.
    pub(crate) fn sqlite(path: &std::path::Path) -> impl Fn(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { path: path.to_owned(), message: source.to_string() }
            }
            _ => Self::Sqlite { path: path.to_owned(), source },
        }
    }

    /// Names the file in an error of the system.
    pub(crate) fn io(path: &std::path::Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
