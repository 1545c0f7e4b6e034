//! Text to vectors. One model embeds queries and passages; its identity is stored with the collection.
pub mod fastembed;
pub mod http;
pub mod local;

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::RetrievalError;

/// What a text is; some models treat the two differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// Something that is asked.
    Query,
    /// Something that may answer.
    Passage,
}

/// A model that turns texts into unit-length vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// Names the weights and everything else that changes a vector (prefixes, pooling).
    fn identity(&self) -> &str;

    /// Size of a vector.
    fn dimension(&self) -> usize;

    /// One vector a text, in their order, each of length 1.
    async fn embed(&self, kind: TextKind, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError>;
}

/// Remembers the vectors of queries: the same question is asked again and again.
pub struct QueryCache {
    embedder: Arc<dyn Embedder>,
    vectors: moka::sync::Cache<String, Arc<[f32]>>,
}

impl QueryCache {
    /// A cache of at most `entries` queries.
    #[must_use]
    pub fn new(embedder: Arc<dyn Embedder>, entries: u64) -> Self {
        // Keyed by text alone: the cache lives and dies with one embedder, whose identity never changes.
        Self { embedder, vectors: moka::sync::Cache::new(entries) }
    }

    /// The model behind it.
    #[must_use]
    pub fn embedder(&self) -> &Arc<dyn Embedder> {
        &self.embedder
    }

    /// The vector of a query.
    ///
    /// # Errors
    /// What the embedder says. Errors are not remembered.
    pub async fn embed(&self, query: &str) -> Result<Arc<[f32]>, RetrievalError> {
        if let Some(vector) = self.vectors.get(query) {
            metrics::counter!("recast_embed_cache_total", "result" => "hit").increment(1);
            return Ok(vector);
        }
        metrics::counter!("recast_embed_cache_total", "result" => "miss").increment(1);
        let vectors = self.embedder.embed(TextKind::Query, &[query.to_owned()]).await?;
        let vector: Arc<[f32]> = checked(vectors, 1, self.embedder.dimension())?.remove(0).into();
        self.vectors.insert(query.to_owned(), vector.clone());
        Ok(vector)
    }
}

/// Refuses an answer of the wrong shape or with values that are not finite, and scales the rest to length 1.
pub(crate) fn checked(
    mut vectors: Vec<Vec<f32>>,
    count: usize,
    dimension: usize,
) -> Result<Vec<Vec<f32>>, RetrievalError> {
    if vectors.len() != count {
        return Err(RetrievalError::Embed(format!("{count} texts gave {} vectors", vectors.len())));
    }
    for vector in &mut vectors {
        if vector.len() != dimension {
            return Err(RetrievalError::Embed(format!("a vector has {} values, not {dimension}", vector.len())));
        }
        let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        if !norm.is_finite() {
            return Err(RetrievalError::Embed("a vector holds values that are not finite".to_owned()));
        }
        if norm > 0.0 {
            vector.iter_mut().for_each(|value| *value /= norm);
        }
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_wrong_shape_are_refused() {
        assert_eq!(checked(vec![vec![3.0, 4.0]], 1, 2).unwrap(), [vec![0.6, 0.8]]);
        assert!(checked(vec![], 1, 2).is_err());
        assert!(checked(vec![vec![1.0]], 1, 2).is_err());
        assert!(checked(vec![vec![f32::NAN, 0.0]], 1, 2).is_err());
        assert_eq!(checked(vec![vec![0.0, 0.0]], 1, 2).unwrap(), [vec![0.0, 0.0]]);
    }
}
