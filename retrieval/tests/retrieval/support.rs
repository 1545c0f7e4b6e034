//! Stand-ins for models, and stores in temporary folders.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use recast_config::{RetrievalSettings, Source};
use recast_domain::{KbName, TenantId};
use recast_retrieval::bm25::word_id;
use recast_retrieval::embed::{Embedder, TextKind};
use recast_retrieval::rerank::{RerankPassage, Reranker};
use recast_retrieval::store::{CollectionSpec, EdgeStore, Scope, VectorStore};
use recast_retrieval::tokenize::words;
use recast_retrieval::tuning::Tuning;
use recast_retrieval::{LegChoice, RetrievalError, Retriever, SearchRequest};
use tokio::time::Instant;

pub const DIMENSION: usize = 32;

/// Hashes words into a few dimensions: deterministic, and texts that share words are near.
#[derive(Default)]
pub struct HashEmbedder {
    pub texts: AtomicUsize,
    pub fails: std::sync::atomic::AtomicBool,
    pub hangs: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Embedder for HashEmbedder {
    fn identity(&self) -> &str {
        "test-hash"
    }

    fn dimension(&self) -> usize {
        DIMENSION
    }

    async fn embed(&self, _kind: TextKind, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(RetrievalError::Embed("told to fail".to_owned()));
        }
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.texts.fetch_add(texts.len(), Ordering::Relaxed);
        let embed = |text: &String| {
            let mut vector = vec![0.01; DIMENSION];
            for word in words(text) {
                vector[word_id(&word) as usize % DIMENSION] += 1.0;
            }
            vector
        };
        Ok(texts.iter().map(embed).collect())
    }
}

/// Scores a passage by the place of a marker in its text: `score=0.7`.
#[derive(Default)]
pub struct MarkerReranker {
    pub hangs: std::sync::atomic::AtomicBool,
    pub partial: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Reranker for MarkerReranker {
    fn identity(&self) -> &str {
        "test-marker"
    }

    async fn score(
        &self,
        _query: &str,
        passages: &[RerankPassage],
        _deadline: Instant,
    ) -> Result<Vec<Option<f32>>, RetrievalError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let partial = self.partial.load(Ordering::Relaxed);
        let score = |(index, passage): (usize, &RerankPassage)| {
            let marked = passage.text.split("score=").nth(1).and_then(|tail| tail.split(' ').next());
            Some(marked.and_then(|text| text.parse().ok()).unwrap_or(0.0)).filter(|_| !partial || index == 0)
        };
        Ok(passages.iter().enumerate().map(score).collect())
    }
}

pub fn settings() -> RetrievalSettings {
    recast_config::load(&Source::parse("demo"), []).unwrap().settings.retrieval
}

pub fn spec() -> CollectionSpec {
    CollectionSpec::new("test-hash", DIMENSION)
}

pub fn edge(dir: &std::path::Path) -> Arc<dyn VectorStore> {
    Arc::new(EdgeStore::open(dir, &spec(), Duration::from_secs(5)).unwrap())
}

pub async fn retriever(store: Arc<dyn VectorStore>, reranker: Option<Arc<dyn Reranker>>) -> Retriever {
    retriever_with(store, Arc::new(HashEmbedder::default()), reranker).await
}

pub async fn retriever_with(
    store: Arc<dyn VectorStore>,
    embedder: Arc<HashEmbedder>,
    reranker: Option<Arc<dyn Reranker>>,
) -> Retriever {
    Retriever::new(store, Some(embedder), 1000, reranker, Tuning::default(), settings()).await.unwrap()
}

pub fn scope(tenant: &str, kb: &str) -> Scope {
    Scope { tenant: self::tenant(tenant), kb: kb.parse::<KbName>().unwrap() }
}

pub fn tenant(id: &str) -> TenantId {
    id.parse().unwrap()
}

pub fn request(scope: &Scope, query: &str) -> SearchRequest {
    let deadline = Instant::now() + Duration::from_secs(30);
    SearchRequest {
        tenant: scope.tenant.clone(),
        kb: scope.kb.clone(),
        query: query.to_owned(),
        top_k: 5,
        score_threshold: 0.0,
        filters: Vec::new(),
        legs: LegChoice::Both,
        rerank: true,
        retrieval_deadline: deadline,
        rerank_deadline: deadline,
    }
}
