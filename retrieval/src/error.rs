use recast_domain::ErrorKind;

/// Why something about knowledge bases did not work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RetrievalError {
    /// The caller asked for something that can never work.
    #[error("{field}: {message}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// A file that was to be read is missing or malformed.
    #[error("{at}: {message}")]
    File {
        /// The file, and the line where it is known.
        at: String,
        /// What is wrong, with the field.
        message: String,
    },
    /// No such document.
    #[error("document {doc_id:?} is not in knowledge base {kb_name:?}")]
    NoDocument {
        /// The document.
        doc_id: String,
        /// The knowledge base.
        kb_name: String,
    },
    /// The tenant has no such knowledge base, or nothing is in it.
    #[error("knowledge base {kb_name:?} is empty or does not exist: ingest documents first")]
    NoKnowledgeBase {
        /// The knowledge base.
        kb_name: String,
    },
    /// Another process owns the embedded store.
    #[error("{path} is in use by another recast process: stop it, or use its HTTP routes")]
    StoreInUse {
        /// The folder.
        path: String,
    },
    /// What is stored was made with other models.
    #[error(
        "the stored passages were made with {stored}, but the settings say {wanted}: \
         ingest again with --rebuild, or set the models back"
    )]
    Mismatch {
        /// What the collection says.
        stored: String,
        /// What the settings say.
        wanted: String,
    },
    /// The vector store failed.
    #[error("vector store: {0}")]
    Store(String),
    /// A model could not be loaded.
    #[error("{what}: {message}")]
    Model {
        /// Which model, by setting.
        what: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// The embedder failed.
    #[error("embedder: {0}")]
    Embed(String),
    /// The reranker failed.
    #[error("reranker: {0}")]
    Rerank(String),
    /// The deadline passed first.
    #[error("{0} missed its deadline")]
    Timeout(&'static str),
}

impl RetrievalError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } | Self::File { .. } => ErrorKind::Invalid,
            Self::NoDocument { .. } | Self::NoKnowledgeBase { .. } => ErrorKind::NotFound,
            Self::StoreInUse { .. } | Self::Mismatch { .. } => ErrorKind::Conflict,
            Self::Store(_) | Self::Model { .. } | Self::Embed(_) | Self::Rerank(_) => ErrorKind::Unavailable,
            Self::Timeout(_) => ErrorKind::Timeout,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}
