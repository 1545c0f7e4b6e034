//! `POST /v1/labels`: what people wrote down about answers, for exports and datasets.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use recast_domain::EpisodeId;
use recast_episodes::{EpisodeError, LabelRow};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::finishing::Finishing;
use crate::keys::{Caller, Scope, now_ms};
use crate::problem::Problem;

const BODY: BodyLimits = BodyLimits { bytes: 2 << 20, time: Duration::from_secs(10) };
/// Rows of one call.
const ROWS_MAX: usize = 1000;

/// Rows of labels.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsBody {
    /// Each of `episode_id`, `author` and any of `gold_rewrite`, `relevant` (passage ids), `score` (0 to 1), `label`.
    #[schema(value_type = Vec<Object>)]
    labels: Vec<Value>,
}

/// Takes labels of the key's tenant. A row that is refused stops no other one; sending a row again changes nothing.
#[utoipa::path(
    post, path = "/v1/labels", tag = "labels", request_body = LabelsBody, security(("key" = [])),
    responses(
        (status = 200, description = "`stored`, `known`, and `refused` by place: a row with wrong fields, or an episode that is not there"),
        (status = 422, description = "the body is no list of rows, or holds too many"),
    )
)]
pub async fn post(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = app.caller(&head.headers, Scope::Admin)?;
    app.limits.rate(&caller.tenant).map_err(|(problem, _)| problem)?;
    let bytes = json_bytes(&head.headers, body, BODY).await?;
    let body: LabelsBody = serde_json::from_slice(&bytes).map_err(|error| {
        if error.is_data() {
            Problem::field("body", error.to_string())
        } else {
            Problem::malformed(format!("the body is not valid JSON: {error}"))
        }
    })?;
    if body.labels.len() > ROWS_MAX {
        return Err(Problem::field("labels", format!("has {} rows, at most {ROWS_MAX} a call", body.labels.len())));
    }
    // A client that hangs up does not lose its labels.
    let tasks = app.tasks.clone();
    Finishing::new(async move { keep(&app, &caller, body.labels).await }, &tasks).await
}

async fn keep(app: &App, caller: &Caller, rows: Vec<Value>) -> Result<Response, Problem> {
    let created_ms = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    let redacts = app.profile(&caller.tenant)?.redact;
    let (mut read, mut refused) = (Vec::new(), Vec::new());
    for (index, row) in rows.into_iter().enumerate() {
        let row = serde_json::from_value::<LabelRow>(row).map_err(|error| error.to_string()).and_then(|row| {
            let id = EpisodeId(row.episode_id);
            let row = if redacts { row.redacted() } else { row };
            Ok((id, row.records(&caller.tenant, created_ms)?))
        });
        match row {
            Ok((id, records)) => read.push((index, id, records)),
            Err(message) => refused.push(json!({"index": index, "message": message})),
        }
    }
    let tenant = caller.tenant.clone();
    let found = app.episodes.read(move |reader| {
        read.into_iter()
            .map(|(index, id, records)| Ok((index, id, records, reader.has(&tenant, id)?)))
            .collect::<Result<Vec<_>, EpisodeError>>()
    });
    let mut labels = Vec::new();
    for (index, id, records, is_there) in found.await.map_err(|error| problem(&error))? {
        if is_there {
            labels.extend(records);
        } else {
            let message = format!("episode_id: {id} is no episode of this tenant");
            refused.push(json!({"index": index, "message": message}));
        }
    }
    let counts = app.episodes.put_labels(labels).await.map_err(|error| problem(&error))?;
    metrics::counter!("recast_labels_total", "tenant" => caller.tenant.as_str().to_owned())
        .increment(counts.stored as u64);
    refused.sort_by_key(|one| one["index"].as_u64());
    Ok(Json(json!({"stored": counts.stored, "known": counts.known, "refused": refused})).into_response())
}

fn problem(error: &EpisodeError) -> Problem {
    tracing::warn!(%error, "labels were not kept");
    Problem::from_kind(error.kind(), "labels cannot be kept now: send them again").retry_after(Duration::from_secs(1))
}
