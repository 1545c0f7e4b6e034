//! Late interaction with a model folder of this project, in process.
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use recast_model::{Encoder, ModelKind, TokenVectors, max_sim};
use tokio::time::Instant;

use crate::embed::local::open_encoder;
use crate::error::RetrievalError;
use crate::rerank::{RerankPassage, Reranker};
use crate::worker::{Urgency, Worker};

/// Memory for the token vectors of passages.
const PREPARED_BYTES: u64 = 1 << 30;
/// Passages encoded together while a request waits: between two, the deadline is looked at.
const STEP: usize = 4;

type Prepared = moka::sync::Cache<[u8; 16], Arc<TokenVectors>>;

/// The encoder of `models/reranker`: a passage's vectors are computed once, a query costs one short text.
pub struct LocalReranker {
    worker: Worker<Encoder>,
    identity: String,
    prepared: Prepared,
    batch: usize,
}

impl LocalReranker {
    /// Loads the folder; passages are prepared `batch` at a time.
    ///
    /// # Errors
    /// A missing or damaged folder, or one that holds another kind of model.
    pub fn open(dir: &Path, batch: usize) -> Result<Self, RetrievalError> {
        let encoder = open_encoder(dir, ModelKind::Reranker, "reranker.model")?;
        let identity = encoder.identity().to_owned();
        let worker = Worker::start("reranker", move || Ok(encoder))
            .map_err(|message| RetrievalError::Model { what: "reranker.model".to_owned(), message })?;
        let size = |_: &[u8; 16], vectors: &Arc<TokenVectors>| {
            u32::try_from(vectors.numbers.len() * size_of::<f32>()).unwrap_or(u32::MAX)
        };
        let prepared = moka::sync::Cache::builder().weigher(size).max_capacity(PREPARED_BYTES).build();
        Ok(Self { worker, identity, prepared, batch })
    }
}

/// Encodes what is missing; `false` where the deadline passed first.
fn encode(
    encoder: &Encoder,
    prepared: &Prepared,
    passages: &[RerankPassage],
    step: usize,
    deadline: Option<Instant>,
) -> Result<bool, String> {
    let missing: Vec<&RerankPassage> = passages.iter().filter(|passage| !prepared.contains_key(&passage.key)).collect();
    for part in missing.chunks(step.max(1)) {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        let texts: Vec<&str> = part.iter().map(|passage| passage.text.as_str()).collect();
        let vectors = encoder.token_vectors(&texts).map_err(|error| error.to_string())?;
        for (passage, vectors) in part.iter().zip(vectors) {
            prepared.insert(passage.key, Arc::new(vectors));
        }
    }
    Ok(true)
}

#[async_trait]
impl Reranker for LocalReranker {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn score(
        &self,
        query: &str,
        passages: &[RerankPassage],
        deadline: Instant,
    ) -> Result<Vec<Option<f32>>, RetrievalError> {
        let (query, passages, prepared) = (query.to_owned(), passages.to_vec(), self.prepared.clone());
        let work = move |encoder: &mut Encoder| -> Result<Vec<Option<f32>>, String> {
            encode(encoder, &prepared, &passages, STEP, Some(deadline))?;
            let query = encoder.token_vectors(&[query]).map_err(|error| error.to_string())?;
            let Some(query) = query.first() else { return Err("the query gave no vectors".to_owned()) };
            let score = |passage: &RerankPassage| prepared.get(&passage.key).map(|vectors| max_sim(query, &vectors));
            Ok(passages.iter().map(score).collect())
        };
        let scores = self.worker.run(Urgency::Urgent, work).await;
        scores.and_then(|scores| scores).map_err(RetrievalError::Rerank)
    }

    async fn prepare(&self, passages: Vec<RerankPassage>) -> Result<(), RetrievalError> {
        for part in passages.chunks(self.batch.max(1)) {
            let (part, prepared) = (part.to_vec(), self.prepared.clone());
            let step = self.batch;
            let work = move |encoder: &mut Encoder| encode(encoder, &prepared, &part, step, None);
            let done = self.worker.run(Urgency::Patient, work).await;
            done.and_then(|done| done).map_err(RetrievalError::Rerank)?;
        }
        Ok(())
    }
}
