//! The public surface: a table of paths.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::StatusCode;

use crate::app::App;
use crate::problem::Problem;
use crate::request_id::envelope;
use crate::routes::{documents, episodes, erasures, experiments, exports, feedback, labels, ops, policies, rag, rl};

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/general_rag", post(rag::general_rag))
        .route("/api/chat/general_rag", post(rag::general_rag))
        .route("/v1/kbs/{kb}/documents", get(documents::list))
        .route("/v1/kbs/{kb}/documents/{doc_id}", put(documents::put).get(documents::get).delete(documents::delete))
        .route("/v1/episodes", get(episodes::list))
        .route("/v1/episodes/{id}", get(episodes::show))
        .route("/v1/exports", post(exports::begin))
        .route("/v1/exports/{id}", get(exports::show).delete(exports::remove))
        .route("/v1/exports/{id}/files/{*path}", get(exports::file))
        .route("/v1/feedback", post(feedback::post))
        .route("/v1/labels", post(labels::post))
        .route("/v1/erasures", get(erasures::list).post(erasures::post))
        .route("/v1/experiments", get(experiments::list).post(experiments::create))
        .route("/v1/experiments/{id}", get(experiments::show).put(experiments::replace).delete(experiments::stop))
        .route("/v1/experiments/{id}/kill", post(experiments::kill))
        .route("/v1/experiments/{id}/report", get(experiments::report))
        .route("/v1/policies", get(policies::list))
        .route("/v1/policies/journal", get(policies::journal))
        .route("/v1/policies/rollback", post(policies::roll_back))
        .route("/v1/policies/{id}", get(policies::show))
        .route("/v1/policies/{id}/promote", post(policies::promote))
        .route("/v1/rl/score", post(rl::score))
        .route("/get_reward", post(rl::get_reward))
        .route("/v1/version", get(ops::version))
        .route("/livez", get(ops::livez))
        .route("/readyz", get(ops::readyz))
        .route("/health", get(ops::readyz))
        .route("/metrics", get(ops::metrics))
        .route("/openapi.json", get(ops::openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(app.phase(), envelope))
        .with_state(app)
}

pub(crate) async fn no_route() -> Response {
    Problem::not_found("there is no such route: /openapi.json lists them").into_response()
}

pub(crate) async fn wrong_method() -> Response {
    let detail = "this route does not take this method: the header allow lists what it takes";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).into_response()
}
