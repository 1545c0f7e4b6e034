//! For those who run it: liveness, readiness, metrics, version, and the description of all routes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use recast_config::RewriterKind;
use serde_json::{Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::app::App;
use crate::routes::{documents, episodes, erasures, experiments, exports, feedback, labels, policies, rag, rl};
use crate::telemetry;

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "ops", responses((status = 200, description = "the process runs")))]
pub async fn livez() -> Json<Value> {
    Json(json!({"status": "alive"}))
}

/// Whether requests should be sent here, check by check.
#[utoipa::path(
    get, path = "/readyz", tag = "ops",
    responses((status = 200, description = "ready; `degraded` where it works with less"), (status = 503, description = "not ready, or draining"))
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let store = app.parts.pipeline.retriever().health().await;
    let episodes = app.episodes.health();
    let ladder = app.parts.pipeline.ladder();
    let rewriter = match app.settings.rewriter.kind {
        RewriterKind::Local => ladder.local().is_some(),
        RewriterKind::Remote => ladder.remote().is_some(),
        RewriterKind::PassThrough => true,
    };
    let serving = !app.is_shutting_down();
    let ready = serving && store.ready && rewriter;
    let policies = app.policies.problems();
    let status = match (ready, episodes.problem.is_some() || policies > 0) {
        (false, _) => "not_ready",
        (true, true) => "degraded",
        (true, false) => "ready",
    };
    let body = json!({
        "status": status,
        "checks": {
            "serving": {"ok": serving},
            "store": {"ok": store.ready, "unflushed": store.unflushed},
            "rewriter": {"ok": rewriter, "waiting": ladder.waiting()},
            "episodes": {
                "ok": episodes.problem.is_none(),
                "problem": episodes.problem.as_ref().map(ToString::to_string),
                "queued": episodes.queued,
                "stored": episodes.stored,
                "failed": episodes.failed,
            },
            "policies": {"ok": policies == 0, "problems": policies},
            "shadow": {"ok": true, "waiting": app.arena.shadow().waiting(), "ended": *app.arena.shadow().ended().borrow()},
            "tenants": {"ok": true, "count": app.parts.tenants.snapshot().len()},
        },
    });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "ops", responses((status = 200, description = "Prometheus text", body = String)))]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    metrics::gauge!("recast_in_flight").set(app.limits.in_flight() as f64);
    metrics::gauge!("recast_rewriter_waiting").set(app.parts.pipeline.ladder().waiting() as f64);
    metrics::gauge!("recast_shadow_waiting").set(app.arena.shadow().waiting() as f64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::prometheus().render()).into_response()
}

/// What runs here.
#[utoipa::path(get, path = "/v1/version", tag = "ops", responses((status = 200, description = "version and policy")))]
pub async fn version(State(app): State<Arc<App>>) -> Json<Value> {
    let pipeline = &app.parts.pipeline;
    Json(json!({
        "name": "recast",
        "version": env!("CARGO_PKG_VERSION"),
        "policy": pipeline.ladder().local().map(|local| local.policy()),
        "policies": app.policies.serving().into_iter().map(|(scope, policy)| (scope.to_string(), json!(policy))).collect::<serde_json::Map<_, _>>(),
        "embedder": pipeline.retriever().embedder_identity(),
        "reranker": pipeline.retriever().reranker_identity(),
    }))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "recast", description = "A query-rewrite RAG gateway. Errors are RFC 9457 problem details with a stable `code`."),
    paths(
        rag::general_rag, documents::put, documents::list, documents::get, documents::delete, episodes::show,
        episodes::list, exports::begin, exports::show, exports::remove, exports::file, feedback::post, labels::post, erasures::post, erasures::list,
        experiments::list, experiments::create, experiments::show, experiments::replace, experiments::stop,
        experiments::kill, experiments::report, rl::score, rl::get_reward, policies::list, policies::show,
        policies::promote, policies::roll_back, policies::journal, livez, readyz, metrics, version
    ),
    modifiers(&Bearer)
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("rk_<id>_<secret>").build();
        let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
        components.add_security_scheme("basic", SecurityScheme::Http(basic));
    }
}

/// The description of all routes.
pub async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}
