//! Remembers scores: a reranker is a pure function of query and passage.
use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::error::RetrievalError;
use crate::rerank::{RerankPassage, Reranker};

/// A reranker with a memory of (query, passage) -> score.
pub struct Remembered {
    inner: Arc<dyn Reranker>,
    scores: moka::sync::Cache<([u8; 16], [u8; 16]), f32>,
}

impl Remembered {
    /// Remembers at most `entries` scores. One instance belongs to one model, so the model is no part of the key.
    #[must_use]
    pub fn new(inner: Arc<dyn Reranker>, entries: u64) -> Self {
        Self { inner, scores: moka::sync::Cache::new(entries) }
    }
}

#[async_trait]
impl Reranker for Remembered {
    fn identity(&self) -> &str {
        self.inner.identity()
    }

    async fn score(
        &self,
        query: &str,
        passages: &[RerankPassage],
        deadline: Instant,
    ) -> Result<Vec<Option<f32>>, RetrievalError> {
        let query_key = RerankPassage::new(query.to_owned()).key;
        let known: Vec<Option<f32>> =
            passages.iter().map(|passage| self.scores.get(&(query_key, passage.key))).collect();
        if known.iter().all(Option::is_some) {
            return Ok(known);
        }
        let unknown = passages.iter().zip(&known).filter(|(_, score)| score.is_none());
        let unknown: Vec<RerankPassage> = unknown.map(|(passage, _)| passage.clone()).collect();
        let fresh = self.inner.score(query, &unknown, deadline).await?;
        for (passage, score) in unknown.iter().zip(&fresh) {
            if let Some(score) = score {
                self.scores.insert((query_key, passage.key), *score);
            }
        }
        let mut fresh = fresh.into_iter();
        Ok(known.into_iter().map(|score| score.or_else(|| fresh.next().flatten())).collect())
    }

    async fn prepare(&self, passages: Vec<RerankPassage>) -> Result<(), RetrievalError> {
        self.inner.prepare(passages).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    struct Length(AtomicUsize);

    #[async_trait]
    impl Reranker for Length {
        fn identity(&self) -> &str {
            "length"
        }

        async fn score(
            &self,
            query: &str,
            passages: &[RerankPassage],
            _: Instant,
        ) -> Result<Vec<Option<f32>>, RetrievalError> {
            self.0.fetch_add(passages.len(), Ordering::Relaxed);
            Ok(passages.iter().map(|passage| Some((passage.text.len() * query.len()) as f32)).collect())
        }
    }

    #[tokio::test]
    async fn only_new_pairs_are_scored_and_each_keeps_its_place() {
        let inner = Arc::new(Length(AtomicUsize::new(0)));
        let remembered = Remembered::new(inner.clone(), 100);
        let deadline = Instant::now() + Duration::from_secs(9);
        let passages =
            |texts: &[&str]| texts.iter().map(|text| RerankPassage::new((*text).to_owned())).collect::<Vec<_>>();
        let score = |query, texts: Vec<RerankPassage>| {
            let remembered = &remembered;
            async move { remembered.score(query, &texts, deadline).await.unwrap() }
        };
        assert_eq!(score("q", passages(&["aa", "b"])).await, [Some(2.0), Some(1.0)]);
        assert_eq!(score("q", passages(&["ccc", "aa", "dddd"])).await, [Some(3.0), Some(2.0), Some(4.0)]);
        assert_eq!(score("qq", passages(&["aa"])).await, [Some(4.0)]);
        assert_eq!(inner.0.load(Ordering::Relaxed), 5);
    }
}
