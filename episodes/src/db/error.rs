use tokio_postgres::error::SqlState;

/// What a database said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{}", server_words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The connection broke while a commit was on its way: it may have been done.
    #[error("the connection broke during a commit: {0}")]
    Unsure(Box<Error>),
    /// A column holds something else than what was written there.
    #[error("column {column}: {message}")]
    Cell { column: usize, message: String },
    /// The server answered otherwise than the protocol says, or not at all.
    #[error("{0}")]
    Server(String),
}

impl Error {
    pub(crate) fn cell(column: usize, message: String) -> Self {
        Self::Cell { column, message }
    }

    /// Such a statement is undone alone; the transaction goes on.
    pub(crate) fn is_the_rows_fault(&self) -> bool {
        use rusqlite::ErrorCode::{ConstraintViolation, TooBig, TypeMismatch};
        match self {
            Self::Sqlite(error) => {
                matches!(error.sqlite_error_code(), Some(ConstraintViolation | TooBig | TypeMismatch))
            }
            // data that a column cannot hold, a broken constraint, more than an index takes
            Self::Postgres(error) => {
                error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)))
            }
            Self::Cell { .. } | Self::Server(_) | Self::Unsure(_) => false,
        }
    }

    /// Nowhere to write to.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Postgres(error) => error.code() == Some(&SqlState::DISK_FULL),
            Self::Cell { .. } | Self::Server(_) | Self::Unsure(_) => false,
        }
    }

    /// The server undid the whole transaction because of another one, which is over by now.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code().is_some_and(|code| code.code().starts_with("40")))
    }

    /// The server cannot be reached, hung up, or is about to: another connection is needed.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Postgres(error) => match error.code() {
                // connection exceptions, and what an administrator or a crash ends
                Some(code) => ["08", "57P", "53300"].iter().any(|class| code.code().starts_with(class)),
                // a value that cannot be read has a cause of another kind
                None => std::error::Error::source(error).is_none_or(|cause| cause.is::<std::io::Error>()),
            },
            Self::Server(_) | Self::Unsure(_) => true,
            Self::Sqlite(_) | Self::Cell { .. } => false,
        }
    }

    /// Whether the commit that failed may have been done all the same.
    pub(crate) fn is_unsure(&self) -> bool {
        matches!(self, Self::Unsure(_))
    }

    /// The code of the server's answer.
    pub(crate) fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            _ => None,
        }
    }
}

/// The words of the server where there are some: the client's own say no more than "db error".
fn server_words(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
