//! `/v1/erasures`: what is stored of one user goes, and whoever holds copies can ask what has gone.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use recast_domain::EpisodeId;
use recast_episodes::{EpisodeError, TOMBSTONES_MAX, Tombstone};
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::finishing::Finishing;
use crate::keys::{Scope, now_ms};
use crate::problem::Problem;

const BODY: BodyLimits = BodyLimits { bytes: 4 << 10, time: Duration::from_secs(10) };

/// Whose episodes are to be erased.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ErasureBody {
    /// As the requests named the user in `user_id`.
    user_id: String,
}

/// Erases all episodes of a user of the key's tenant, and all that hangs on them; empties the caches of this gateway.
#[utoipa::path(
    post, path = "/v1/erasures", tag = "erasures", request_body = ErasureBody, security(("key" = [])),
    responses(
        (status = 200, description = "`episodes`: how many are gone; `erased_ms`: the time on their tombstones"),
        (status = 422, description = "no user is named"),
        (status = 503, description = "the store cannot be written now: ask again, what is gone stays gone"),
    )
)]
pub async fn post(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = app.caller(&head.headers, Scope::Admin)?;
    app.limits.rate(&caller.tenant).map_err(|(problem, _)| problem)?;
    let bytes = json_bytes(&head.headers, body, BODY).await?;
    let body: ErasureBody = serde_json::from_slice(&bytes).map_err(|error| {
        if error.is_data() {
            Problem::field("body", error.to_string())
        } else {
            Problem::malformed(format!("the body is not valid JSON: {error}"))
        }
    })?;
    if body.user_id.is_empty() {
        return Err(Problem::field("user_id", "is empty: name the user as the requests did"));
    }
    // A client that hangs up does not stop it half way.
    let tasks = app.tasks.clone();
    let erasing = async move {
        let erased_ms = i64::try_from(now_ms()).unwrap_or(i64::MAX);
        let erased = app.episodes.erase_user(&caller.tenant, &body.user_id, erased_ms).await;
        app.forget();
        let episodes = erased.map_err(|error| problem(&error))?;
        metrics::counter!("recast_episodes_deleted_total", "reason" => "erasure").increment(episodes);
        tracing::info!(tenant = %caller.tenant, episodes, "a user was erased");
        Ok(Json(json!({"episodes": episodes, "erased_ms": erased_ms})).into_response())
    };
    Finishing::new(erasing, &tasks).await
}

/// Which tombstones are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TombstoneQuery {
    /// Erased at this time or later, milliseconds since the Unix epoch.
    #[serde(default)]
    since_ms: i64,
    /// Behind this episode, erased at `since_ms`: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<EpisodeId>,
}

/// Episodes of the key's tenant that are erased, oldest erasure first: remove them from what was exported.
#[utoipa::path(
    get, path = "/v1/erasures", tag = "erasures", params(TombstoneQuery), security(("key" = [])),
    responses((status = 200, description = "`erasures`: `episode_id` and `erased_ms`; `next`: the query of the next page, or null"))
)]
pub async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    query: Result<Query<TombstoneQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let caller = app.caller(&headers, Scope::Admin)?;
    app.limits.rate(&caller.tenant).map_err(|(problem, _)| problem)?;
    let Query(query) = query.map_err(|error| Problem::field("query", error.body_text()))?;
    let after = query.after.map(|episode_id| Tombstone { episode_id, erased_ms: query.since_ms });
    let tenant = caller.tenant.clone();
    let read = app.episodes.read(move |reader| reader.tombstones(&tenant, query.since_ms, after)).await;
    let erasures = read.map_err(|error| problem(&error))?;
    let last = erasures.last().filter(|_| erasures.len() == TOMBSTONES_MAX);
    let next = last.map(|last| format!("since_ms={}&after={}", last.erased_ms, last.episode_id));
    Ok(Json(json!({"erasures": erasures, "next": next})).into_response())
}

fn problem(error: &EpisodeError) -> Problem {
    tracing::warn!(%error, "an erasure did not come to its end");
    Problem::from_kind(error.kind(), "the store does not work now: ask again").retry_after(Duration::from_secs(1))
}
