//! Policies over HTTP. Needs a key with the scope admin; it sees and moves the policies of its own tenant. The policy of
//! all tenants is the operator's, by the command line.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use recast_domain::PolicyId;
use recast_policies::{Active, PolicyError, PolicyStore, Scope as Owner};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::keys::{Scope, now_ms};
use crate::problem::Problem;

const BODY: BodyLimits = BodyLimits { bytes: 16 << 10, time: Duration::from_secs(10) };
const REASON_CHARS: usize = 500;

/// What a move of the pointer says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The version of the pointer that the caller has seen.
    expected_version: u64,
    /// Why; kept in the journal.
    #[serde(default)]
    reason: String,
}

/// The tenant's policies, what serves, and the candidate at the gate.
#[utoipa::path(
    get, path = "/v1/policies", tag = "policies", security(("key" = [])),
    responses((status = 200, description = "`active` with the version to expect, `policies`, and `gate` where one is tried"))
)]
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let (store, owner) = owned(&app, &headers)?;
    let of = owner.clone();
    let body = on_disk(move || {
        let active = store.active(&owner)?;
        let everyone = store.active(&Owner::Everyone)?;
        Ok(json!({
            "active": shown(&active),
            "everyone": shown(&everyone),
            "policies": store.list(&owner)?,
            "gate": store.gate(&owner)?,
        }))
    });
    let mut body = body.await?;
    body["problems"] = json!(app.policies.problems_of(&of));
    Ok(Json(body).into_response())
}

/// A policy's manifest.
#[utoipa::path(
    get, path = "/v1/policies/{id}", tag = "policies", security(("key" = [])), params(("id" = String, Path)),
    responses((status = 200, description = "parent, base, data, settings, figures, hashes"), (status = 404, description = "no such policy"))
)]
pub async fn show(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (store, owner) = owned(&app, &headers)?;
    let policy = policy(path)?;
    let manifest = on_disk(move || store.show(&owner, &policy)).await?;
    Ok(Json(manifest).into_response())
}

/// Makes a policy the active one, whatever the gate says of it.
#[utoipa::path(
    post, path = "/v1/policies/{id}/promote", tag = "policies", security(("key" = [])), request_body = Move,
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "it serves from now on"), (status = 404, description = "no such policy"),
        (status = 409, description = "the pointer has moved: `active_version` says where to"),
        (status = 422, description = "the policy is not sound, or fields are wrong"),
    )
)]
pub async fn promote(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let (store, owner) = owned(&app, &head.headers)?;
    let policy = policy(path)?;
    let wanted = read(&json_bytes(&head.headers, body, BODY).await?)?;
    // the damage or the mistake is told before anything else is asked of it
    let (at, of, name) = (store.clone(), owner.clone(), policy.clone());
    on_disk(move || at.load(&of, &name)).await?;
    // what does not load or does not rewrite must not be what the next start finds active
    app.policies.prepare(&owner, &policy).await.map_err(|why| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "policy_unsound", format!("nothing was moved: {why}"))
    })?;
    let (at, of) = (store.clone(), owner.clone());
    let moved = on_disk(move || at.promote(&of, &policy, wanted.expected_version, &wanted.reason, at_ms())).await;
    reply(&app, &store, &owner, moved).await
}

/// Makes the earlier policy the active one again.
#[utoipa::path(
    post, path = "/v1/policies/rollback", tag = "policies", security(("key" = [])), request_body = Move,
    responses(
        (status = 200, description = "the earlier one serves from now on"),
        (status = 409, description = "the pointer has moved, or nothing is active"),
    )
)]
pub async fn roll_back(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let (store, owner) = owned(&app, &head.headers)?;
    let wanted = read(&json_bytes(&head.headers, body, BODY).await?)?;
    let (at, of) = (store.clone(), owner.clone());
    let moved = on_disk(move || at.roll_back(&of, wanted.expected_version, &wanted.reason, at_ms())).await;
    reply(&app, &store, &owner, moved).await
}

/// Everything that was decided, with its evidence, one JSON object a line, oldest first.
#[utoipa::path(
    get, path = "/v1/policies/journal", tag = "policies", security(("key" = [])),
    responses((status = 200, description = "newline-delimited JSON", content_type = "application/x-ndjson"))
)]
pub async fn journal(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let (store, owner) = owned(&app, &headers)?;
    let records = on_disk(move || store.journal(&owner)).await?;
    let mut text = String::new();
    for record in &records {
        text.push_str(&serde_json::to_string(record).map_err(|_| Problem::internal())?);
        text.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], text).into_response())
}

fn owned(app: &App, headers: &HeaderMap) -> Result<(PolicyStore, Owner), Problem> {
    let tenant = app.caller(headers, Scope::Admin)?.tenant;
    let store = app.policies.store().cloned().ok_or_else(|| {
        let detail =
            "there are no policies here: they need rewriter.kind = \"local\", a model folder and policies.enabled";
        Problem::not_found(detail)
    })?;
    Ok((store, Owner::from(tenant)))
}

fn policy(path: Result<Path<String>, PathRejection>) -> Result<PolicyId, Problem> {
    let Path(id) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    id.parse().map_err(|error| Problem::field("id", format!("{error}")))
}

fn read(bytes: &[u8]) -> Result<Move, Problem> {
    let wanted: Move = serde_json::from_slice(bytes).map_err(|error| Problem::malformed(error.to_string()))?;
    if wanted.reason.chars().count() > REASON_CHARS {
        return Err(Problem::field("reason", format!("must have at most {REASON_CHARS} characters")));
    }
    Ok(wanted)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PolicyError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| match error {
            PolicyError::Damaged { .. } | PolicyError::ForeignBase { .. } => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "policy_unsound", error.to_string())
            }
            error => Problem::from_kind(error.kind(), error.to_string()),
        }),
        Err(_) => Err(Problem::internal()),
    }
}

/// The new state once it serves; a conflict says where the pointer is.
async fn reply(
    app: &App,
    store: &PolicyStore,
    owner: &Owner,
    moved: Result<Active, Problem>,
) -> Result<Response, Problem> {
    match moved {
        Ok(active) => {
            app.policies.refresh().await;
            let mut body = shown(&active);
            body["problems"] = json!(app.policies.problems_of(owner));
            Ok(Json(body).into_response())
        }
        Err(problem) if problem.status() == StatusCode::CONFLICT => {
            let version = store.active(owner).ok().map(|active| active.version);
            Err(problem.with("active_version", version))
        }
        Err(problem) => Err(problem),
    }
}

fn shown(active: &Active) -> Value {
    json!({
        "scope": active.scope,
        "version": active.version,
        "policy": active.current.as_ref().map(|current| &current.policy),
        "previous": active.previous.as_ref().map(|previous| &previous.policy),
    })
}

fn at_ms() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}
