//! Orders the first hits anew with a model that reads query and passage together.
pub mod fastembed;
pub mod http;
pub mod local;
pub mod remembered;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::error::RetrievalError;

/// A passage to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RerankPassage {
    /// Hash of the text: what scores and vectors are remembered by.
    pub key: [u8; 16],
    /// The text.
    pub text: String,
}

impl RerankPassage {
    /// A passage with its key.
    #[must_use]
    pub fn new(text: String) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        Self { key, text }
    }
}

/// A model that scores passages for a query.
#[async_trait]
pub trait Reranker: Send + Sync {
    /// Names the weights.
    fn identity(&self) -> &str;

    /// The model's own scores, one a passage in their order; higher is better, the scale is the model's.
    ///
    /// Returns at the deadline at the latest, with `None` for every passage that was not scored by then.
    async fn score(
        &self,
        query: &str,
        passages: &[RerankPassage],
        deadline: Instant,
    ) -> Result<Vec<Option<f32>>, RetrievalError>;

    /// Computes ahead what does not depend on a query. Optional; scores are the same without it.
    async fn prepare(&self, _passages: Vec<RerankPassage>) -> Result<(), RetrievalError> {
        Ok(())
    }
}
