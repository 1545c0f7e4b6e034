//! From settings to a retriever.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use recast_config::{EmbedderKind, EmbedderSettings, RerankerKind, RerankerSettings, Settings, StoreKind};

use crate::embed::Embedder;
use crate::embed::fastembed::FastEmbedder;
use crate::embed::http::HttpEmbedder;
use crate::embed::local::LocalEmbedder;
use crate::error::RetrievalError;
use crate::onnx::load_runtime;
use crate::rerank::Reranker;
use crate::rerank::fastembed::FastReranker;
use crate::rerank::http::HttpReranker;
use crate::rerank::local::LocalReranker;
use crate::rerank::remembered::Remembered;
use crate::retriever::Retriever;
use crate::store::{CollectionSpec, EdgeStore, QdrantStore, VectorStore};
use crate::tuning::Tuning;

/// The embedder of the settings; `None` for the kind `none`.
///
/// # Errors
/// When the model or its runtime cannot be loaded, with what to do.
pub fn open_embedder(settings: &Settings) -> Result<Option<Arc<dyn Embedder>>, RetrievalError> {
    let EmbedderSettings { kind, model, batch, query_prefix, passage_prefix, .. } = &settings.embedder;
    Ok(match kind {
        EmbedderKind::None => None,
        EmbedderKind::Local => {
            let prefixes = [query_prefix.clone(), passage_prefix.clone()];
            Some(Arc::new(LocalEmbedder::open(Path::new(model), *batch, prefixes)?))
        }
        EmbedderKind::Fastembed => {
            load_runtime(&settings.onnxruntime.library, &settings.state.dir)?;
            Some(Arc::new(FastEmbedder::open(&settings.embedder)?))
        }
        EmbedderKind::Openai => Some(Arc::new(HttpEmbedder::new(&settings.embedder)?)),
    })
}

/// The reranker of the settings; `None` for the kind `none`.
///
/// # Errors
/// When the model or its runtime cannot be loaded, with what to do.
pub fn open_reranker(settings: &Settings) -> Result<Option<Arc<dyn Reranker>>, RetrievalError> {
    let RerankerSettings { kind, model, batch, cache_entries, .. } = &settings.reranker;
    let reranker: Arc<dyn Reranker> = match kind {
        RerankerKind::None => return Ok(None),
        RerankerKind::Local => Arc::new(LocalReranker::open(Path::new(model), *batch)?),
        RerankerKind::Fastembed => {
            load_runtime(&settings.onnxruntime.library, &settings.state.dir)?;
            Arc::new(FastReranker::open(&settings.reranker)?)
        }
        RerankerKind::Http => Arc::new(HttpReranker::new(&settings.reranker)?),
    };
    Ok(Some(Arc::new(Remembered::new(reranker, *cache_entries))))
}

fn spec(embedder: Option<&Arc<dyn Embedder>>) -> CollectionSpec {
    embedder.map_or_else(
        || CollectionSpec::new("", 0),
        |embedder| CollectionSpec::new(embedder.identity(), embedder.dimension()),
    )
}

impl Retriever {
    /// Loads models and store, and reads all knowledge bases. Blocks for as long as that takes, some seconds at most.
    ///
    /// # Errors
    /// Models or a store that cannot be used, with what to do.
    pub async fn open(settings: &Settings) -> Result<Self, RetrievalError> {
        let embedder = open_embedder(settings)?;
        let reranker = open_reranker(settings)?;
        Self::open_with(settings, embedder, reranker).await
    }

    /// As [`Self::open`] with models that are loaded already.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(
        settings: &Settings,
        embedder: Option<Arc<dyn Embedder>>,
        reranker: Option<Arc<dyn Reranker>>,
    ) -> Result<Self, RetrievalError> {
        crate::tokenize::warm_up();
        let spec = spec(embedder.as_ref());
        let store: Arc<dyn VectorStore> = match settings.retrieval.store {
            StoreKind::Embedded => {
                let every = Duration::from_secs(settings.retrieval.flush_seconds);
                Arc::new(EdgeStore::open(&settings.store_dir(), &spec, every)?)
            }
            StoreKind::Qdrant => {
                let retrieval = &settings.retrieval;
                Arc::new(QdrantStore::open(&retrieval.qdrant, &retrieval.collection, &spec).await?)
            }
        };
        let reranker_identity = reranker.as_ref().map_or("", |reranker| reranker.identity());
        let tuning = Tuning::load(&settings.retrieval.tuning, &spec.embedder, reranker_identity);
        let cache = settings.embedder.cache_entries;
        Self::new(store, embedder, cache, reranker, tuning, settings.retrieval.clone()).await
    }
}

/// Removes all stored passages, so that they can be ingested again with other models.
///
/// # Errors
/// When the store is in use or cannot be removed.
pub async fn remove_store(settings: &Settings) -> Result<(), RetrievalError> {
    match settings.retrieval.store {
        StoreKind::Embedded => EdgeStore::remove(&settings.store_dir()),
        StoreKind::Qdrant => QdrantStore::remove(&settings.retrieval.qdrant, &settings.retrieval.collection).await,
    }
}
