//! A service with OpenAI's embeddings route.
use std::time::Duration;

use async_trait::async_trait;
use recast_config::EmbedderSettings;
use serde::Deserialize;
use serde_json::json;

use crate::embed::local::{identity_with, prefixed};
use crate::embed::{Embedder, TextKind, checked};
use crate::error::RetrievalError;
use crate::http::Service;

/// Bytes of an answer for each number of a vector, and for everything around them.
const NUMBER_BYTES: usize = 32;
const FRAME_BYTES: usize = 64 * 1024;

/// Embeds by `POST {url}/v1/embeddings`.
pub struct HttpEmbedder {
    service: Service,
    model: String,
    identity: String,
    dimension: usize,
    batch: usize,
    prefixes: [String; 2],
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

impl HttpEmbedder {
    /// Talks to the service of `settings`.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(settings: &EmbedderSettings) -> Result<Self, RetrievalError> {
        let url = format!("{}/v1/embeddings", settings.url.trim_end_matches('/'));
        let timeout = Duration::from_millis(settings.timeout_ms);
        let service = Service::new(url, settings.api_key.clone(), timeout)
            .map_err(|message| RetrievalError::Model { what: "embedder.url".to_owned(), message })?;
        let prefixes = [settings.query_prefix.clone(), settings.passage_prefix.clone()];
        Ok(Self {
            service,
            model: settings.model.clone(),
            identity: identity_with(&format!("openai:{}:{}", settings.model, settings.dimension), &prefixes),
            dimension: settings.dimension,
            batch: settings.batch,
            prefixes,
        })
    }
}

#[async_trait]
impl Embedder for HttpEmbedder {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    async fn embed(&self, kind: TextKind, texts: &[String]) -> Result<Vec<Vec<f32>>, RetrievalError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in prefixed(kind, texts, &self.prefixes).chunks(self.batch.max(1)) {
            let limit = FRAME_BYTES + batch.len() * self.dimension * NUMBER_BYTES;
            let body = json!({"model": self.model, "input": batch, "encoding_format": "float"});
            let value = self.service.post(&body, limit).await.map_err(RetrievalError::Embed)?;
            let mut answer: Answer =
                serde_json::from_value(value).map_err(|error| RetrievalError::Embed(error.to_string()))?;
            answer.data.sort_by_key(|row| row.index);
            if answer.data.iter().enumerate().any(|(place, row)| row.index != place) {
                return Err(RetrievalError::Embed("the service's answer misses or repeats an index".to_owned()));
            }
            let rows = answer.data.into_iter().map(|row| row.embedding).collect();
            vectors.extend(checked(rows, batch.len(), self.dimension)?);
        }
        Ok(vectors)
    }
}
