//! A service with the rerank route of Cohere and Jina; answers in TEI's shape are read too.
use std::time::Duration;

use async_trait::async_trait;
use recast_config::RerankerSettings;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error::RetrievalError;
use crate::http::Service;
use crate::rerank::{RerankPassage, Reranker};

const ANSWER_BYTES: usize = 1 << 20;
/// The caller's deadline is shorter; this one frees the connection of a service that hangs.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Scores by `POST {url}`.
pub struct HttpReranker {
    service: Service,
    model: String,
    identity: String,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    #[serde(alias = "score")]
    relevance_score: f32,
}

impl HttpReranker {
    /// Talks to the service of `settings`.
    ///
    /// # Errors
    /// When no HTTP client can be built.
    pub fn new(settings: &RerankerSettings) -> Result<Self, RetrievalError> {
        let service = Service::new(settings.url.clone(), settings.api_key.clone(), TIMEOUT)
            .map_err(|message| RetrievalError::Model { what: "reranker.url".to_owned(), message })?;
        Ok(Self { service, model: settings.model.clone(), identity: format!("http:{}", settings.model) })
    }
}

fn rows(mut answer: Value) -> Result<Vec<Row>, String> {
    let list = match answer.get_mut("results") {
        Some(results) => results.take(),
        None => answer,
    };
    serde_json::from_value(list).map_err(|error| format!("the service's answer is not the JSON expected: {error}"))
}

#[async_trait]
impl Reranker for HttpReranker {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn score(
        &self,
        query: &str,
        passages: &[RerankPassage],
        _deadline: Instant,
    ) -> Result<Vec<Option<f32>>, RetrievalError> {
        let documents: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        let body = json!({
            "model": self.model, "query": query, "documents": documents, "top_n": documents.len(), "return_documents": false,
        });
        let answer = self.service.post(&body, ANSWER_BYTES).await.map_err(RetrievalError::Rerank)?;
        let mut scores = vec![None; passages.len()];
        for row in rows(answer).map_err(RetrievalError::Rerank)? {
            let Some(score) = scores.get_mut(row.index) else {
                return Err(RetrievalError::Rerank(format!(
                    "the service scored passage {}, which was not sent",
                    row.index
                )));
            };
            *score = Some(row.relevance_score);
        }
        if scores.contains(&None) {
            return Err(RetrievalError::Rerank("the service left passages without a score".to_owned()));
        }
        Ok(scores)
    }
}
