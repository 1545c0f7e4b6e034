//! A model folder of this project, in process.
use std::path::Path;

use async_trait::async_trait;
use candle_core::Device;
use recast_model::{Encoder, ModelFolder, ModelKind};

use crate::embed::{Embedder, TextKind};
use crate::error::RetrievalError;
use crate::worker::{Urgency, Worker};

/// The encoder of `models/embedder`, or one trained like it.
pub struct LocalEmbedder {
    worker: Worker<Encoder>,
    identity: String,
    dimension: usize,
    batch: usize,
    prefixes: [String; 2],
}

/// Opens an encoder of the given kind.
pub(crate) fn open_encoder(dir: &Path, kind: ModelKind, setting: &str) -> Result<Encoder, RetrievalError> {
    let fault = |message: String| RetrievalError::Model { what: setting.to_owned(), message };
    let folder = ModelFolder::open(dir).map_err(|error| fault(format!("{}: {error}", dir.display())))?;
    if folder.manifest().kind != kind {
        let found = folder.manifest().kind;
        return Err(fault(format!("{} holds a model of kind {found:?}, expected {kind:?}", dir.display())));
    }
    Encoder::open(&folder, &Device::Cpu).map_err(|error| fault(format!("{}: {error}", dir.display())))
}

impl LocalEmbedder {
    /// Loads the folder; `prefixes` go before queries and passages; passages are embedded `batch` at a time.
    ///
    /// # Errors
    /// A missing or damaged folder, or one that holds another kind of model.
    pub fn open(dir: &Path, batch: usize, prefixes: [String; 2]) -> Result<Self, RetrievalError> {
        let encoder = open_encoder(dir, ModelKind::Embedder, "embedder.model")?;
        let identity = identity_with(encoder.identity(), &prefixes);
        let dimension = encoder.dimension();
        let worker = Worker::start("embedder", move || Ok(encoder))
            .map_err(|message| RetrievalError::Model { what: "embedder.model".to_owned(), message })?;
        Ok(Self { worker, identity, dimension, batch, prefixes })
    }
}

/// The identity of weights together with the prefixes that every vector depends on.
pub(crate) fn identity_with(weights: &str, prefixes: &[String; 2]) -> String {
    if prefixes.iter().all(String::is_empty) {
        return weights.to_owned();
    }
    let hash = blake3::hash(prefixes.join("\0").as_bytes()).to_hex();
    format!("{weights}+{}", &hash[..8])
}

/// Puts the prefix of `kind` before each text.
pub(crate) fn prefixed(kind: TextKind, texts: &[String], prefixes: &[String; 2]) -> Vec<String> {
    let prefix = match kind {
        TextKind::Query => &prefixes[0],
        TextKind::Passage => &prefixes[1],
    };
    texts.iter().map(|text| format!("{prefix}{text}")).collect()
}

#[async_trait]
impl Embedder for LocalEmbedder {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    async fn embed(&self, kind: TextKind, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError> {
        let urgency = if kind == TextKind::Query { Urgency::Urgent } else { Urgency::Patient };
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in prefixed(kind, texts, &self.prefixes).chunks(self.batch.max(1)) {
            let batch = batch.to_vec();
            let embedded = self.worker.run(urgency, move |encoder| encoder.embed(&batch)).await;
            vectors.extend(
                embedded.map_err(RetrievalError::Embed)?.map_err(|error| RetrievalError::Embed(error.to_string()))?,
            );
        }
        Ok(vectors)
    }
}
