//! Experiments over HTTP. Needs a key with the scope admin; a tenant's key sees and changes only experiments on this
//! tenant alone, and any other one does not exist here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use recast_domain::{ErrorKind, TenantId};
use recast_episodes::EpisodeError;
use recast_experiments::Definition;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::arena::{Change, ChangeError, Entry};
use crate::auth;
use crate::body::{BodyLimits, json_bytes};
use crate::keys::{Scope, now_ms};
use crate::problem::{FieldError, Problem};

const BODY: BodyLimits = BodyLimits { bytes: 64 << 10, time: Duration::from_secs(10) };
const NOTE_CHARS: usize = 500;

/// What a change may say in its query.
#[derive(Debug, Default, Deserialize)]
pub struct Said {
    /// Why.
    #[serde(default, alias = "reason")]
    note: String,
    /// The version that the change was made for, where `If-Match` does not say it.
    expected_version: Option<u32>,
}

/// How a report is wanted.
#[derive(Debug, Default, Deserialize)]
pub struct Wanted {
    format: Option<String>,
    version: Option<u32>,
}

/// Lists the tenant's experiments.
#[utoipa::path(
    get, path = "/v1/experiments", tag = "experiments", security(("key" = [])),
    responses((status = 200, description = "the latest version of each, with its state"))
)]
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let tenant = app.caller(&headers, Scope::Admin)?.tenant;
    let table = app.arena.table();
    let own: Vec<Value> = table.all.values().filter(|entry| is_own(entry, &tenant)).map(shown).collect();
    Ok(Json(json!({"experiments": own})).into_response())
}

/// Makes an experiment.
#[utoipa::path(
    post, path = "/v1/experiments", tag = "experiments", security(("key" = [])), request_body = Object,
    params(("note" = Option<String>, Query, description = "why")),
    responses(
        (status = 201, description = "version 1 is in force"), (status = 403, description = "it names other tenants"),
        (status = 409, description = "the id is taken"), (status = 422, description = "every problem is named"),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    said: Result<Query<Said>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let tenant = app.caller(&head.headers, Scope::Admin)?.tenant;
    let said = said_in(said)?;
    let definition = definition(&json_bytes(&head.headers, body, BODY).await?, &tenant)?;
    let change = Change { definition, expected: Some(0), author: author(&head.headers), note: said.note };
    let entry = app.arena.change(change).await.map_err(|error| refused(error, &tenant, &app))?;
    let location = format!("/v1/experiments/{}", entry.definition.id);
    let mut response = (StatusCode::CREATED, reply(&entry)).into_response();
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Shows an experiment with its history.
#[utoipa::path(
    get, path = "/v1/experiments/{id}", tag = "experiments", security(("key" = [])), params(("id" = String, Path)),
    responses((status = 200, description = "the latest version; `etag` is for If-Match"), (status = 404, description = "no such experiment"))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = app.caller(&headers, Scope::Admin)?.tenant;
    let entry = own(&app, &tenant, path)?;
    let id = entry.definition.id.clone();
    let versions = app.episodes.read(move |reader| reader.experiment_versions(&id)).await;
    let versions = versions.map_err(|error| unreadable(&error))?.into_iter().map(|record| {
        json!({"version": record.version, "created_ms": record.created_ms, "author": record.author, "note": record.note})
    });
    let mut body = shown(&entry);
    body["versions"] = versions.collect();
    Ok((etag(&entry), Json(body)).into_response())
}

/// Replaces a definition by its next version.
#[utoipa::path(
    put, path = "/v1/experiments/{id}", tag = "experiments", security(("key" = [])), request_body = Object,
    params(
        ("id" = String, Path), ("if-match" = Option<String>, Header, description = "the etag of the version to change"),
        ("expected_version" = Option<u32>, Query, description = "the same as a number"),
        ("note" = Option<String>, Query, description = "why"),
    ),
    responses(
        (status = 200, description = "the new version is in force"), (status = 404, description = "no such experiment"),
        (status = 409, description = "somebody else changed it meanwhile"),
        (status = 422, description = "every problem is named"), (status = 428, description = "If-Match is missing"),
    )
)]
pub async fn replace(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    said: Result<Query<Said>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let tenant = app.caller(&head.headers, Scope::Admin)?.tenant;
    let said = said_in(said)?;
    let old = own(&app, &tenant, path)?;
    let Some(expected) = expected(&head.headers, &said)? else {
        let detail = "say which version this changes: If-Match with the etag of a GET, or expected_version";
        return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, "version_required", detail));
    };
    let definition = definition(&json_bytes(&head.headers, body, BODY).await?, &tenant)?;
    if definition.id != old.definition.id {
        return Err(Problem::field("id", "must be the id of the path: an experiment keeps its id"));
    }
    let change = Change { definition, expected: Some(expected), author: author(&head.headers), note: said.note };
    let entry = app.arena.change(change).await.map_err(|error| refused(error, &tenant, &app))?;
    Ok(reply(&entry).into_response())
}

/// Stops an experiment; its data stay.
#[utoipa::path(
    delete, path = "/v1/experiments/{id}", tag = "experiments", security(("key" = [])),
    params(("id" = String, Path), ("note" = Option<String>, Query, description = "why")),
    responses((status = 200, description = "switched off"), (status = 404, description = "no such experiment"))
)]
pub async fn stop(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    said: Result<Query<Said>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    end(&app, path, said, &headers, false).await
}

/// Kills an experiment: everybody gets the configured rewriter at once, and shadow runs are given up.
#[utoipa::path(
    post, path = "/v1/experiments/{id}/kill", tag = "experiments", security(("key" = [])),
    params(("id" = String, Path), ("reason" = Option<String>, Query, description = "why")),
    responses((status = 200, description = "killed"), (status = 404, description = "no such experiment"))
)]
pub async fn kill(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    said: Result<Query<Said>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    end(&app, path, said, &headers, true).await
}

async fn end(
    app: &App,
    path: Result<Path<String>, PathRejection>,
    said: Result<Query<Said>, QueryRejection>,
    headers: &HeaderMap,
    killed: bool,
) -> Result<Response, Problem> {
    let tenant = app.caller(headers, Scope::Admin)?.tenant;
    let said = said_in(said)?;
    let id = own(app, &tenant, path)?.definition.id;
    let expected = expected(headers, &said)?;
    let ended = app.arena.stop(&id, killed, expected, &author(headers), &said.note).await;
    match ended.map_err(|error| refused(ChangeError::Store(error), &tenant, app))? {
        Some(entry) => Ok(reply(&entry).into_response()),
        None => Err(none()),
    }
}

/// Reports on an experiment: JSON, or a page, or a text.
#[utoipa::path(
    get, path = "/v1/experiments/{id}/report", tag = "experiments", security(("key" = [])),
    params(
        ("id" = String, Path),
        ("format" = Option<String>, Query, description = "json, html or text; else the accept header decides"),
        ("version" = Option<u32>, Query, description = "this version alone; else all since its arms last changed"),
    ),
    responses((status = 200, description = "what was found so far"), (status = 404, description = "no such experiment"))
)]
pub async fn report(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = app.caller(&headers, Scope::Admin)?.tenant;
    let Query(wanted) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let id = own(&app, &tenant, path)?.definition.id;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = match wanted.format.as_deref() {
        Some(format @ ("json" | "html" | "text")) => format,
        Some(_) => return Err(Problem::field("format", "must be json, html or text")),
        None if accept.contains("text/html") => "html",
        None if accept.contains("text/plain") => "text",
        None => "json",
    };
    let report = app.arena.report(&id, wanted.version).await.map_err(|error| unreadable(&error))?;
    let Some(report) = report else { return Err(Problem::not_found("it has no such version")) };
    Ok(match format {
        "html" => Html(recast_experiments::report::html(&report)).into_response(),
        "text" => recast_experiments::report::text(&report).into_response(),
        _ => Json(report).into_response(),
    })
}

/// Whether an experiment is on this tenant alone.
fn is_own(entry: &Entry, tenant: &TenantId) -> bool {
    matches!(entry.definition.tenants.as_slice(), [one] if one == tenant.as_str())
}

fn own(app: &App, tenant: &TenantId, path: Result<Path<String>, PathRejection>) -> Result<Entry, Problem> {
    let Path(id) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    app.arena.table().all.get(&id).filter(|entry| is_own(entry, tenant)).cloned().ok_or_else(none)
}

fn none() -> Problem {
    Problem::not_found("there is no such experiment")
}

fn shown(entry: &Entry) -> Value {
    json!({
        "id": entry.definition.id,
        "version": entry.version,
        "state": entry.definition.state(i64::try_from(now_ms()).unwrap_or(i64::MAX)),
        "definition": entry.definition,
        "created_ms": entry.created_ms,
        "author": entry.author,
        "note": entry.note,
    })
}

fn reply(entry: &Entry) -> impl IntoResponse + use<> {
    (etag(entry), Json(shown(entry)))
}

fn etag(entry: &Entry) -> [(http::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", entry.version))]
}

fn said_in(said: Result<Query<Said>, QueryRejection>) -> Result<Said, Problem> {
    let Query(said) = said.map_err(|error| Problem::malformed(error.body_text()))?;
    if said.note.chars().count() > NOTE_CHARS {
        return Err(Problem::field("note", format!("has more than {NOTE_CHARS} characters")));
    }
    Ok(said)
}

/// The version that the caller saw.
fn expected(headers: &HeaderMap, said: &Said) -> Result<Option<u32>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(said.expected_version) };
    let text = value.to_str().unwrap_or_default().trim().trim_matches('"');
    text.parse().map(Some).map_err(|_| Problem::malformed("If-Match must be the etag of one version, such as \"3\""))
}

fn definition(bytes: &[u8], tenant: &TenantId) -> Result<Definition, Problem> {
    let definition: Definition = serde_json::from_slice(bytes).map_err(|error| {
        if error.is_data() {
            Problem::field("body", error.to_string())
        } else {
            Problem::malformed(format!("the body is not valid JSON: {error}"))
        }
    })?;
    if definition.tenants.iter().any(|one| one != tenant.as_str()) {
        let detail = "an experiment of this key is on its own tenant alone: name it in tenants, and no other";
        return Err(Problem::new(StatusCode::FORBIDDEN, "tenant", detail));
    }
    Ok(definition)
}

/// Who changes it: the public part of the key.
fn author(headers: &HeaderMap) -> String {
    let id = auth::bearer(headers).and_then(|key| key.strip_prefix("rk_")?.split_once('_'));
    id.map_or_else(String::new, |(id, _)| id.to_owned())
}

fn refused(error: ChangeError, tenant: &TenantId, app: &App) -> Problem {
    match error {
        ChangeError::Problems(problems) => {
            let errors = problems.into_iter().map(|one| FieldError { field: one.field, message: one.message });
            Problem::fields(errors.collect())
        }
        ChangeError::Store(EpisodeError::VersionConflict { id, found, .. }) => {
            // The version of another tenant's experiment is not told.
            let own = app.arena.table().all.get(&id).is_some_and(|entry| is_own(entry, tenant));
            let problem = Problem::new(
                StatusCode::CONFLICT,
                "version_conflict",
                if own { "it has another version by now: read it again" } else { "this id is taken: choose another" },
            );
            if own { problem.with("version", found) } else { problem }
        }
        ChangeError::Store(error) => {
            tracing::warn!(%error, "an experiment was not changed");
            match error.kind() {
                ErrorKind::Internal => Problem::internal(),
                kind => {
                    Problem::from_kind(kind, "experiments cannot be changed now").retry_after(Duration::from_secs(1))
                }
            }
        }
    }
}

fn unreadable(error: &EpisodeError) -> Problem {
    tracing::warn!(%error, "an experiment cannot be read");
    Problem::from_kind(error.kind(), "experiments cannot be read now")
}
