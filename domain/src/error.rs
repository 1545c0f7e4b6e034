use serde::{Deserialize, Serialize};

/// The closed set of causes that every error of every crate maps to.
///
/// Rooms say *what kind* of thing went wrong; only the gateway knows which HTTP status that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The caller sent something that can never work; the message names the field and the fix.
    Invalid,
    /// The named thing does not exist (or belongs to another tenant, which must look the same).
    NotFound,
    /// The thing exists in a state that forbids the operation.
    Conflict,
    /// The caller may not do this.
    Forbidden,
    /// No capacity now; the same call may work later.
    Overloaded,
    /// A dependency is absent, failing, or speaks garbage.
    Unavailable,
    /// The deadline passed first.
    Timeout,
    /// A defect of ours.
    Internal,
}

impl ErrorKind {
    /// The stable, low-cardinality label of this kind (for metrics and problem codes).
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}
