//! Documents of a knowledge base: put, list, look up, delete. Needs a key with the scope admin.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use recast_domain::{ErrorKind, KbName, Metadata, TenantId};
use recast_retrieval::document::{Body, CutPassage, Document, markdown};
use recast_retrieval::{DocumentInfo, RetrievalError};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::finishing::Finishing;
use crate::keys::Scope;
use crate::problem::Problem;

/// Documents are larger than questions.
const BODY: BodyLimits = BodyLimits { bytes: 8 << 20, time: Duration::from_secs(60) };
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// How a document's text is to be read.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// As it is.
    #[default]
    Text,
    /// Headings become the title and the context of passages.
    Markdown,
}

/// A passage that was cut by the caller.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PassageBody {
    /// Unique within the knowledge base; made from the document's id if absent.
    #[serde(default)]
    id: Option<String>,
    /// The text.
    text: String,
    /// Facts of this passage, beside those of the document.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Metadata,
}

/// A document: `text`, which is cut into passages, or `passages`, which are taken as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentBody {
    /// For people and for the search.
    #[serde(default)]
    title: String,
    /// The text.
    text: Option<String>,
    /// Ready-cut passages.
    passages: Option<Vec<PassageBody>>,
    /// Where it came from.
    #[serde(default)]
    source: String,
    /// Facts for filters and display.
    #[serde(default)]
    #[schema(value_type = Object)]
    metadata: Metadata,
    /// How `text` is to be read.
    #[serde(default)]
    format: Format,
}

impl DocumentBody {
    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(bytes).map_err(|error| {
            if error.is_data() {
                Problem::field("body", error.to_string())
            } else {
                Problem::malformed(format!("the body is not valid JSON: {error}"))
            }
        })
    }

    fn document(self, doc_id: String) -> Result<Document, Problem> {
        let (body, title) = match (self.text, self.passages) {
            (Some(text), None) => match self.format {
                Format::Text => (Document::text("", "", text).body, self.title),
                Format::Markdown => {
                    let read = markdown(&doc_id, &self.source, &text);
                    (read.body, if self.title.is_empty() { read.title } else { self.title })
                }
            },
            (None, Some(passages)) => {
                let cut = passages.into_iter().enumerate().map(|(index, passage)| CutPassage {
                    id: passage.id.unwrap_or_else(|| format!("{doc_id}#{index}")),
                    text: passage.text,
                    metadata: passage.metadata,
                });
                (Body::Passages(cut.collect()), self.title)
            }
            _ => return Err(Problem::field("text", "give either text or passages")),
        };
        Ok(Document { doc_id, title, source: self.source, metadata: self.metadata, body })
    }
}

/// Stores a document; the same content again costs nothing.
#[utoipa::path(
    put, path = "/v1/kbs/{kb}/documents/{doc_id}", tag = "documents", request_body = DocumentBody, security(("key" = [])),
    params(("kb" = String, Path), ("doc_id" = String, Path)),
    responses((status = 200, description = "stored and findable"), (status = 422, description = "fields are wrong"))
)]
pub async fn put(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let tenant = admin(&app, &head.headers)?;
    let (kb, doc_id) = named(path)?;
    let bytes = json_bytes(&head.headers, body, BODY).await?;
    let document = DocumentBody::read(&bytes)?.document(doc_id)?;
    let permit = app.limits.admit()?;
    let (retriever, scorer) = (Arc::clone(app.parts.pipeline.retriever()), Arc::clone(&app.scoring.scorer));
    // A client that hangs up does not leave half a document.
    let putting = async move {
        let _permit = permit;
        let report = retriever.put_document(&tenant, &kb, document).await;
        scorer.documents_changed(&tenant);
        report
    };
    let report = Finishing::new(putting, &app.tasks).await.map_err(|error| problem(&error))?;
    Ok(Json(report).into_response())
}

/// Lists documents in the order of their ids.
#[utoipa::path(
    get, path = "/v1/kbs/{kb}/documents", tag = "documents", security(("key" = [])),
    params(
        ("kb" = String, Path),
        ("after" = Option<String>, Query, description = "the `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "documents a page, at most 1000"),
    ),
    responses((status = 200, description = "a page of documents, and `next` where there are more"))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Page>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = admin(&app, &headers)?;
    let Path(kb) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    let kb = knowledge_base(&kb)?;
    let Query(page) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let limit = page.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let after = page.after.as_deref().filter(|after| !after.is_empty());
    let retriever = app.parts.pipeline.retriever();
    let documents = retriever.list_documents(&tenant, &kb, after, limit).await.map_err(|error| problem(&error))?;
    let next = documents.last().filter(|_| documents.len() == limit).map(|last| last.doc_id.clone());
    Ok(Json(json!({"documents": documents, "next": next})).into_response())
}

/// Looks up one document.
#[utoipa::path(
    get, path = "/v1/kbs/{kb}/documents/{doc_id}", tag = "documents", security(("key" = [])),
    params(("kb" = String, Path), ("doc_id" = String, Path)),
    responses((status = 200, description = "title, source and number of passages"), (status = 404, description = "no such document"))
)]
pub async fn get(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = admin(&app, &headers)?;
    let (kb, doc_id) = named(path)?;
    let retriever = app.parts.pipeline.retriever();
    let mut after: Option<String> = None;
    loop {
        let page: Vec<DocumentInfo> = retriever
            .list_documents(&tenant, &kb, after.as_deref(), PAGE_MAX)
            .await
            .map_err(|error| problem(&error))?;
        if let Some(found) = page.iter().find(|document| document.doc_id == doc_id) {
            return Ok(Json(found).into_response());
        }
        match page.into_iter().last() {
            Some(last) => after = Some(last.doc_id),
            None => return Err(Problem::not_found("there is no such document in this knowledge base")),
        }
    }
}

/// Deletes a document with all its passages.
#[utoipa::path(
    delete, path = "/v1/kbs/{kb}/documents/{doc_id}", tag = "documents", security(("key" = [])),
    params(("kb" = String, Path), ("doc_id" = String, Path)),
    responses((status = 200, description = "gone"), (status = 404, description = "no such document"))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = admin(&app, &headers)?;
    let (kb, doc_id) = named(path)?;
    let permit = app.limits.admit()?;
    let (retriever, scorer) = (Arc::clone(app.parts.pipeline.retriever()), Arc::clone(&app.scoring.scorer));
    let reply = json!({"doc_id": doc_id, "deleted": true});
    let deleting = async move {
        let _permit = permit;
        let deleted = retriever.delete_document(&tenant, &kb, &doc_id).await;
        scorer.documents_changed(&tenant);
        deleted
    };
    Finishing::new(deleting, &app.tasks).await.map_err(|error| problem(&error))?;
    Ok(Json(reply).into_response())
}

/// A page of a list.
#[derive(Debug, Default, Deserialize)]
pub struct Page {
    after: Option<String>,
    limit: Option<usize>,
}

fn admin(app: &App, headers: &HeaderMap) -> Result<TenantId, Problem> {
    let caller = app.caller(headers, Scope::Admin)?;
    app.profile(&caller.tenant)?;
    Ok(caller.tenant)
}

fn named(path: Result<Path<(String, String)>, PathRejection>) -> Result<(KbName, String), Problem> {
    let Path((kb, doc_id)) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    Ok((knowledge_base(&kb)?, doc_id))
}

fn knowledge_base(name: &str) -> Result<KbName, Problem> {
    name.parse().map_err(|error: recast_domain::IdError| Problem::field("kb", error.to_string()))
}

fn problem(error: &RetrievalError) -> Problem {
    match error.kind() {
        kind @ (ErrorKind::Invalid | ErrorKind::NotFound) => Problem::from_kind(kind, error.to_string()),
        kind => {
            tracing::warn!(%error, "a knowledge base could not be changed or read");
            Problem::from_kind(kind, "the knowledge base is not available now")
        }
    }
}
