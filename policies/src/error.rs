use std::path::{Path, PathBuf};

use recast_domain::{ErrorKind, PolicyId};
use recast_experiments::StatsError;

use crate::Scope;

/// Everything that can go wrong with policies and their promotion.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The name is kept for something else.
    #[error("policy {0} cannot be published under this name: it is reserved, choose another one")]
    Reserved(PolicyId),
    /// The scope has no such policy.
    #[error("{scope} has no policy {policy}: list the policies, or publish it first")]
    NotFound {
        /// Whose folder was searched.
        scope: Scope,
        /// The policy that was named.
        policy: PolicyId,
    },
    /// Policies never change: a name is used once.
    #[error("{scope} has a policy {policy} already: publish under another name")]
    Exists {
        /// Whose folder.
        scope: Scope,
        /// The name that is taken.
        policy: PolicyId,
    },
    /// A file is not what it must be.
    #[error("{path}: {reason}: {fix}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        fix: &'static str,
    },
    /// A file of a published policy is not the one that was published.
    #[error("{path}: {reason}: the folder was changed or damaged, restore it or roll back")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The adapter was trained on another base model.
    #[error("{path}: made for base {expected}, this model is {found}: train it again on this base, or load its own")]
    ForeignBase {
        /// The manifest.
        path: PathBuf,
        /// BLAKE3 of the base the adapter belongs to.
        expected: String,
        /// BLAKE3 of the base at hand.
        found: String,
    },
    /// Somebody else moved the pointer in between.
    #[error("{scope} is at version {found}, not {expected}: read the active policy again and decide anew")]
    Version {
        /// Whose pointer.
        scope: Scope,
        /// The version the caller had seen.
        expected: u64,
        /// The version now.
        found: u64,
    },
    /// The policy serves already.
    #[error("policy {policy} is active for {scope} already")]
    AlreadyActive {
        /// Whose pointer.
        scope: Scope,
        /// The active policy.
        policy: PolicyId,
    },
    /// There is no policy to roll back from.
    #[error("{0} has no active policy: there is nothing to roll back")]
    NothingActive(Scope),
    /// The gate does not expect this observation now.
    #[error("the gate of policy {policy} is at {stage} and cannot use {observation} there")]
    Stage {
        /// The candidate.
        policy: PolicyId,
        /// Where it stands.
        stage: &'static str,
        /// What came.
        observation: &'static str,
    },
    /// The rules of the gate cannot work.
    #[error("gate rules: {field} {reason}")]
    Rules {
        /// The rule.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: &'static str,
    },
    /// A statistic could not be computed.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, PolicyError>;

impl PolicyError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Reserved(_) | Self::Refused { .. } | Self::Rules { .. } | Self::Stats(_) => ErrorKind::Invalid,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Exists { .. }
            | Self::ForeignBase { .. }
            | Self::Version { .. }
            | Self::AlreadyActive { .. }
            | Self::NothingActive(_)
            | Self::Stage { .. } => ErrorKind::Conflict,
            Self::Damaged { .. } => ErrorKind::Internal,
            Self::Io { .. } => ErrorKind::Unavailable,
        }
    }

    /// Names the file in an error of the system.
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn refused(path: &Path, reason: impl Into<String>, fix: &'static str) -> Self {
        Self::Refused { path: path.to_owned(), reason: reason.into(), fix }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), reason: reason.into() }
    }
}
