//! ONNX models by fastembed: a local folder, or the name of a model at the hub.
use std::path::Path;

use async_trait::async_trait;
use fastembed::{InitOptionsUserDefined, Pooling, TextEmbedding, TextInitOptions, UserDefinedEmbeddingModel};
use recast_config::EmbedderSettings;

use crate::embed::local::{identity_with, prefixed};
use crate::embed::{Embedder, TextKind};
use crate::error::RetrievalError;
use crate::onnx_folder::{OnnxFolder, PoolingName, threads};
use crate::worker::{Urgency, Worker};

/// An ONNX embedder on a thread of its own.
pub struct FastEmbedder {
    worker: Worker<TextEmbedding>,
    identity: String,
    dimension: usize,
    batch: usize,
    prefixes: [String; 2],
}

fn fault(message: impl Into<String>) -> RetrievalError {
    RetrievalError::Model { what: "embedder.model".to_owned(), message: message.into() }
}

impl FastEmbedder {
    /// Loads the model; [`crate::onnx::load_runtime`] must have succeeded before.
    ///
    /// # Errors
    /// A damaged folder, or a name that is neither a folder nor a model that fastembed knows or can fetch.
    pub fn open(settings: &EmbedderSettings) -> Result<Self, RetrievalError> {
        let mut prefixes = [settings.query_prefix.clone(), settings.passage_prefix.clone()];
        let dir = Path::new(&settings.model);
        let (worker, weights, dimension) = if dir.is_dir() {
            let folder = OnnxFolder::read(dir, "embedder.model")?;
            let manifest = folder.manifest.clone();
            if manifest.dimension == 0 {
                return Err(fault(format!("{}/model.toml: dimension is missing", dir.display())));
            }
            let own = [manifest.query_prefix, manifest.passage_prefix];
            for (prefix, own) in prefixes.iter_mut().zip(own) {
                if prefix.is_empty() {
                    *prefix = own;
                }
            }
            let identity = folder.identity.clone();
            let worker = Worker::start("embedder", move || load_folder(folder)).map_err(fault)?;
            (worker, identity, manifest.dimension)
        } else {
            let info = hub_model(&settings.model)?;
            let options = TextInitOptions::new(info.model.clone())
                .with_intra_threads(threads())
                .with_show_download_progress(false);
            let load = move || TextEmbedding::try_new(options).map_err(|error| error.to_string());
            let worker = Worker::start("embedder", load).map_err(fault)?;
            (worker, format!("hub:{}:{}", info.model_code, info.model_file), info.dim)
        };
        let identity = identity_with(&weights, &prefixes);
        Ok(Self { worker, identity, dimension, batch: settings.batch, prefixes })
    }
}

fn hub_model(name: &str) -> Result<fastembed::ModelInfo<fastembed::EmbeddingModel>, RetrievalError> {
    let mut known = TextEmbedding::list_supported_models();
    known.retain(|info| info.model_code.eq_ignore_ascii_case(name));
    // A code may name a full and a quantised file; the full one is what the code says.
    known.sort_by_key(|info| info.model_file.contains("quant"));
    let unknown = || fault(format!("{name:?} is neither a folder nor a model that fastembed knows"));
    known.into_iter().next().ok_or_else(unknown)
}

fn load_folder(folder: OnnxFolder) -> Result<TextEmbedding, String> {
    let pooling = match folder.manifest.pooling {
        PoolingName::Mean => Pooling::Mean,
        PoolingName::Cls => Pooling::Cls,
    };
    let model = UserDefinedEmbeddingModel::new(folder.model, folder.tokenizer).with_pooling(pooling);
    let options =
        InitOptionsUserDefined::new().with_max_length(folder.manifest.max_length).with_intra_threads(threads());
    TextEmbedding::try_new_from_user_defined(model, options).map_err(|error| error.to_string())
}

#[async_trait]
impl Embedder for FastEmbedder {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    async fn embed(&self, kind: TextKind, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError> {
        let urgency = if kind == TextKind::Query { Urgency::Urgent } else { Urgency::Patient };
        let mut vectors = Vec::with_capacity(texts.len());
        // Large batches are slower, and the runtime never gives their memory back.
        for batch in prefixed(kind, texts, &self.prefixes).chunks(self.batch.max(1)) {
            let batch = batch.to_vec();
            let size = batch.len();
            let embed =
                move |model: &mut TextEmbedding| model.embed(batch, Some(size)).map_err(|error| error.to_string());
            let embedded = self.worker.run(urgency, embed).await;
            vectors.extend(embedded.and_then(|embedded| embedded).map_err(RetrievalError::Embed)?);
        }
        Ok(vectors)
    }
}
