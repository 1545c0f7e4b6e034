//! Reading episodes back. Needs a key with the scope admin; another tenant's episode does not exist here.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Uri};
use recast_domain::{ErrorKind, PolicyId};
use recast_episodes::{EpisodeError, EpisodeFilter, LIST_MAX};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::keys::Scope;
use crate::problem::Problem;

const PAGE: usize = 50;

/// Which episodes a list shows.
#[derive(Debug, Default, Deserialize)]
pub struct Wanted {
    after: Option<String>,
    limit: Option<usize>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    degraded: Option<bool>,
    policy: Option<PolicyId>,
    format: Option<String>,
}

/// Shows one episode.
#[utoipa::path(
    get, path = "/v1/episodes/{id}", tag = "episodes", security(("key" = [])), params(("id" = String, Path)),
    responses((status = 200, description = "the facts of one answered request"), (status = 404, description = "no such episode"))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = app.caller(&headers, Scope::Admin)?.tenant;
    let Path(id) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    // An id that cannot be one names no episode either.
    let id = id.parse().map_err(|_| Problem::not_found("there is no such episode"))?;
    let episode = app.episodes.get(&tenant, id).await.map_err(|error| problem(&error))?;
    Ok(Json(episode).into_response())
}

/// Lists episodes, newest first.
#[utoipa::path(
    get, path = "/v1/episodes", tag = "episodes", security(("key" = [])),
    params(
        ("after" = Option<String>, Query, description = "the `next` of the page before"),
        ("limit" = Option<usize>, Query, description = "episodes a page, at most 1000"),
        ("from_ms" = Option<i64>, Query, description = "created at this time or later, Unix milliseconds"),
        ("to_ms" = Option<i64>, Query, description = "created before this time, Unix milliseconds"),
        ("degraded" = Option<bool>, Query, description = "only those where a stage failed or was late"),
        ("policy" = Option<String>, Query, description = "only those whose query this policy wrote"),
        ("format" = Option<String>, Query, description = "jsonl: flat rows as JSON lines, oldest first, as docs/EPISODES.md describes them; takes the filters of an export, and `cursor` instead of `after`"),
        ("cursor" = Option<String>, Query, description = "with format=jsonl: the x-next-cursor of the page before"),
    ),
    responses((status = 200, description = "a page of episodes, and `next` where there are more; with format=jsonl lines, and x-next-cursor where there are more"))
)]
pub async fn list(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let tenant = app.caller(&headers, Scope::Admin)?.tenant;
    let query: Result<Query<Wanted>, QueryRejection> = Query::try_from_uri(&uri);
    let Query(wanted) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    if wanted.format.as_deref().is_some_and(|format| format != "json") {
        return super::exports::rows(&app, tenant, Query::try_from_uri(&uri)).await;
    }
    let after = wanted.after.filter(|after| !after.is_empty()).map(|after| after.parse()).transpose();
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, LIST_MAX);
    let filter = EpisodeFilter {
        after: after.map_err(|_| Problem::field("after", "must be the `next` of the page before"))?,
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        degraded_only: wanted.degraded.unwrap_or(false),
        policy: wanted.policy,
        ..EpisodeFilter::newest(tenant, limit)
    };
    let episodes = app.episodes.list(&filter).await.map_err(|error| problem(&error))?;
    let next = episodes.last().filter(|_| episodes.len() == limit).map(|last| last.id);
    Ok(Json(json!({"episodes": episodes, "next": next})).into_response())
}

fn problem(error: &EpisodeError) -> Problem {
    match error.kind() {
        ErrorKind::NotFound => Problem::not_found("there is no such episode"),
        kind => {
            tracing::warn!(%error, "episodes could not be read");
            Problem::from_kind(kind, "episodes cannot be read now")
        }
    }
}
