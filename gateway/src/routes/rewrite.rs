//! `POST /api/rewrite_query`: a conversation in, a retrieval query out. The routes of a rewrite service.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use recast_domain::{EpisodeId, ErrorKind, TenantId};
use recast_rewriter::{RewriteError, RewriteRequest, checked_rewrite};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use tokio::time::{Instant, timeout_at};

use crate::auth;
use crate::body::{BodyLimits, json_bytes};
use crate::dto::RawRequest;
use crate::problem::Problem;
use crate::rewrite_service::Service;
use crate::telemetry;

/// Rewrites one question: `{query, history, thought, tenant_id, user_profile, history_summary}` gives
/// `{"rewritten_query", "policy"}`.
pub async fn rewrite_query(State(service): State<Arc<Service>>, request: Request) -> Response {
    let start = Instant::now();
    let (outcome, response) = match answer(&service, request).await {
        Ok(reply) => ("ok", Json(reply).into_response()),
        Err(problem) => (problem.code(), problem.into_response()),
    };
    metrics::counter!("recast_rewrite_service_requests_total", "outcome" => outcome).increment(1);
    metrics::histogram!("recast_rewrite_service_seconds").record(start.elapsed());
    response
}

async fn answer(service: &Service, request: Request) -> Result<Value, Problem> {
    let (head, body) = request.into_parts();
    if let Some(expected) = &service.api_key {
        let given = auth::bearer(&head.headers).unwrap_or_default();
        let equal: bool = given.as_bytes().ct_eq(expected.expose_secret().as_bytes()).into();
        if !equal {
            let detail = "this service wants its key: authorization: Bearer ...";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail));
        }
    }
    let server = &service.server;
    let limits = BodyLimits { bytes: server.body_limit_bytes, time: Duration::from_millis(server.body_timeout_ms) };
    let raw = RawRequest::read(&json_bytes(&head.headers, body, limits).await?)?;
    let named = raw.tenant().map(str::to_owned);
    let wanted = raw.check(&service.limits, &service.retrieval)?;
    let id = named.as_deref().and_then(|name| name.parse::<TenantId>().ok());
    let tenant = id.and_then(|id| service.tenants.get(&id)).ok_or_else(|| {
        Problem::field("tenant_id", "must name a tenant that this service has (a folder of tenants.dir)")
    })?;
    let Ok(_place) = service.places.try_acquire() else {
        let detail = "too many questions wait: ask again as late as retry-after says";
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail);
        return Err(problem.retry_after(Duration::from_secs(1)));
    };
    let seed = EpisodeId::now().0.as_u64_pair().1;
    let question = RewriteRequest { tenant, conversation: wanted.conversation, seed };
    let deadline = Instant::now() + service.timeout;
    let rewrite = timeout_at(deadline, service.rewriter.rewrite(&question, deadline)).await;
    let rewrite = rewrite.unwrap_or(Err(RewriteError::Timeout)).map_err(|error| problem(&error))?;
    let text = checked_rewrite(&question.conversation.query, &rewrite.text).map_err(|error| problem(&error.into()))?;
    Ok(json!({"rewritten_query": text, "policy": rewrite.policy}))
}

fn problem(error: &RewriteError) -> Problem {
    tracing::warn!(%error, "a question was not rewritten");
    match error {
        // Asking again would not help, and nothing is out of order: neither a 5xx nor a reason to stay away.
        RewriteError::Invalid(_) => {
            let detail = "the model found no usable query: search the user's own";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rewrite_invalid", detail)
        }
        error => match error.kind() {
            ErrorKind::Timeout => Problem::from_kind(ErrorKind::Timeout, "the model did not answer in time"),
            ErrorKind::Internal => Problem::internal(),
            kind => Problem::from_kind(kind, "the model cannot rewrite now").retry_after(Duration::from_secs(1)),
        },
    }
}

/// The process runs.
pub async fn livez() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// Whether questions should be sent here.
pub async fn readyz(State(service): State<Arc<Service>>) -> Response {
    let ready = !service.is_shutting_down();
    let body = json!({
        "status": if ready { "ready" } else { "not_ready" },
        "policy": service.rewriter.policy(),
        "waiting": service.waiting(),
    });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

/// Metrics in the text format of Prometheus.
pub async fn metrics(State(service): State<Arc<Service>>) -> Response {
    metrics::gauge!("recast_rewrite_service_waiting").set(service.waiting() as f64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::prometheus().render()).into_response()
}
