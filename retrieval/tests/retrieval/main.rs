//! Knowledge bases over real stores: one test binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod conformance;
mod double;
mod isolation;
mod models;
mod search;
mod speed;
mod support;
