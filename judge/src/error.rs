use recast_domain::ErrorKind;

/// Why a judge cannot be set up, or a file for it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// A setting cannot work.
    #[error("setting {field}: {reason}")]
    Setting {
        /// Path of the key.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The service refuses a parameter of the request.
    #[error("the judge's service refuses the request (status {status}: {message}); {fix}")]
    Parameter {
        /// The HTTP status.
        status: u16,
        /// The parameter, where the service names one; else empty.
        parameter: String,
        /// The service's words.
        message: String,
        /// What to change.
        fix: String,
    },
    /// The service does not answer, or not usefully.
    #[error("the judge's service is not usable now: {0}")]
    Unavailable(String),
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Rows of a table are wrong; all of them are named.
    #[error("{}", .0.join("\n"))]
    Rows(Vec<String>),
}

impl JudgeError {
    /// The cause in the closed set that all rooms share.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting { .. } | Self::Parameter { .. } | Self::Rows(_) => ErrorKind::Invalid,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Unreadable { .. } => ErrorKind::NotFound,
        }
    }
}
