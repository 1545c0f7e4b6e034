//! The gateway: HTTP in front of the one pipeline (rewrite, retrieve, rerank), with keys, limits and episodes.
//!
//! [`Gateway::open`] opens all parts, [`Gateway::serve`] accepts requests, [`RunningGateway::shutdown`] drains. Offline
//! evaluation opens [`Parts`] alone and runs the same [`Pipeline`]. A request goes, from the outside in, through the
//! accept loop (timers, connection cap), the envelope (request id, panics, problems), and its handler: key, rate, body,
//! fields, idempotency, admission, pipeline, episode, reply. What runs beside it, in the shadow, never holds it up: `arena`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod after_reply;
mod app;
mod arena;
mod auth;
mod body;
mod dto;
mod error;
mod exports;
mod finishing;
mod idempotency;
mod keys;
mod leftover;
mod limits;
mod parts;
mod pipeline;
mod policies;
mod problem;
mod recorder;
mod request_id;
mod rewrite_service;
mod router;
mod routes;
mod scoring;
mod serve;
mod telemetry;
mod tenants;

pub use app::{Gateway, RunningGateway, ShutdownReport};
pub use arena::{KnownQuestions, label_facts, missing_services, query_type, report_input};
pub use error::GatewayError;
pub use keys::{KeyError, KeyFile, KeyRecord, MintedKey, Scope};
pub use parts::Parts;
pub use pipeline::{ArmError, Pipeline, PipelineError, QuerySource, Run, RunOptions};
pub use rewrite_service::RewriteService;
pub use scoring::{Rescored, RewardFacts, SideFacts, StoredReward, World, rescore};
pub use telemetry::{Telemetry, TelemetryError, init as init_telemetry};
pub use tenants::{TenantMap, Tenants};

#[cfg(test)]
mod tests;
