use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bm25::{AVERAGE_WORDS, B, K1};
use crate::error::RetrievalError;
use crate::tokenize::TOKENIZER_VERSION;

/// What the vectors of a collection were made with. Stored beside them; a collection of another make is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionSpec {
    /// Identity of the embedder; empty for a lexical collection.
    pub embedder: String,
    /// Size of a dense vector; 0 for a lexical collection.
    pub dimension: usize,
    /// [`TOKENIZER_VERSION`].
    pub tokenizer: u32,
    /// k1, b and the neutral length of the BM25 weights.
    pub bm25: [f32; 3],
}

impl CollectionSpec {
    /// The spec of a collection made by this build with the given embedder.
    #[must_use]
    pub fn new(embedder: impl Into<String>, dimension: usize) -> Self {
        Self { embedder: embedder.into(), dimension, tokenizer: TOKENIZER_VERSION, bm25: [K1, B, AVERAGE_WORDS] }
    }

    /// Whether a dense leg exists.
    #[must_use]
    pub fn has_dense(&self) -> bool {
        self.dimension > 0
    }

    pub(crate) fn require_same(&self, stored: &Self) -> Result<(), RetrievalError> {
        if stored == self {
            return Ok(());
        }
        Err(RetrievalError::Mismatch { stored: stored.to_string(), wanted: self.to_string() })
    }

    /// Holds `path` against this spec, or writes it there if nothing is.
    pub(crate) fn check_or_write(&self, path: &Path) -> Result<(), RetrievalError> {
        let fault = |message: String| RetrievalError::Store(format!("{}: {message}", path.display()));
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
            let stored: Self = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
            return self.require_same(&stored);
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| fault(error.to_string()))?;
        let temporary = path.with_extension("json.new");
        std::fs::write(&temporary, text).map_err(|error| fault(error.to_string()))?;
        std::fs::rename(temporary, path).map_err(|error| fault(error.to_string()))
    }
}

impl std::fmt::Display for CollectionSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let embedder = if self.embedder.is_empty() { "no embedder" } else { &self.embedder };
        write!(f, "{embedder} (dimension {}, tokenizer {}, bm25 {:?})", self.dimension, self.tokenizer, self.bm25)
    }
}
