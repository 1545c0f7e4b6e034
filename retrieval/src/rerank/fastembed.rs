//! ONNX cross-encoders by fastembed: a local folder, or the name of a model at the hub.
use std::path::Path;

use async_trait::async_trait;
use fastembed::{
    RerankInitOptions, RerankInitOptionsUserDefined, RerankerModel, TextRerank, UserDefinedRerankingModel,
};
use recast_config::RerankerSettings;
use tokio::time::Instant;

use crate::error::RetrievalError;
use crate::onnx_folder::{OnnxFolder, threads};
use crate::rerank::{RerankPassage, Reranker};
use crate::worker::{Urgency, Worker};

/// An ONNX cross-encoder on a thread of its own.
pub struct FastReranker {
    worker: Worker<TextRerank>,
    identity: String,
    batch: usize,
}

fn fault(message: impl Into<String>) -> RetrievalError {
    RetrievalError::Model { what: "reranker.model".to_owned(), message: message.into() }
}

impl FastReranker {
    /// Loads the model; [`crate::onnx::load_runtime`] must have succeeded before.
    ///
    /// # Errors
    /// A damaged folder, or a name that is neither a folder nor a model that fastembed knows or can fetch.
    pub fn open(settings: &RerankerSettings) -> Result<Self, RetrievalError> {
        let dir = Path::new(&settings.model);
        let (worker, identity) = if dir.is_dir() {
            let folder = OnnxFolder::read(dir, "reranker.model")?;
            let identity = folder.identity.clone();
            let load = move || {
                let options = RerankInitOptionsUserDefined::new()
                    .with_max_length(folder.manifest.max_length)
                    .with_intra_threads(threads());
                let model = UserDefinedRerankingModel::new(folder.model, folder.tokenizer);
                TextRerank::try_new_from_user_defined(model, options).map_err(|error| error.to_string())
            };
            (Worker::start("reranker", load).map_err(fault)?, identity)
        } else {
            let unknown =
                |_| fault(format!("{:?} is neither a folder nor a model that fastembed knows", settings.model));
            let model: RerankerModel = settings.model.parse().map_err(unknown)?;
            let options =
                RerankInitOptions::new(model).with_intra_threads(threads()).with_show_download_progress(false);
            let load = move || TextRerank::try_new(options).map_err(|error| error.to_string());
            (Worker::start("reranker", load).map_err(fault)?, format!("hub:{}", settings.model))
        };
        Ok(Self { worker, identity, batch: settings.batch })
    }
}

#[async_trait]
impl Reranker for FastReranker {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn score(
        &self,
        query: &str,
        passages: &[RerankPassage],
        deadline: Instant,
    ) -> Result<Vec<Option<f32>>, RetrievalError> {
        let mut scores = Vec::with_capacity(passages.len());
        for part in passages.chunks(self.batch.max(1)) {
            if Instant::now() >= deadline {
                scores.resize(passages.len(), None);
                break;
            }
            let texts: Vec<String> = part.iter().map(|passage| passage.text.clone()).collect();
            let (query, size) = (query.to_owned(), texts.len());
            let score = move |model: &mut TextRerank| {
                model.rerank(query, texts, false, Some(size)).map_err(|error| error.to_string())
            };
            let ranked = self.worker.run(Urgency::Urgent, score).await.and_then(|ranked| ranked);
            let mut by_place = vec![None; part.len()];
            for result in ranked.map_err(RetrievalError::Rerank)? {
                if let Some(place) = by_place.get_mut(result.index) {
                    *place = Some(result.score);
                }
            }
            scores.extend(by_place);
        }
        Ok(scores)
    }
}
