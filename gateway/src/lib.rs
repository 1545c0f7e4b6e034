//! The gateway: HTTP in front of the one pipeline (rewrite, retrieve, rerank), with keys, limits and episodes.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")
)]

mod auth;
mod dto;
mod idempotency;
mod keys;
mod limits;
mod problem;
mod serve;
mod telemetry;
mod tenants;
