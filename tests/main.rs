//! The integration tests: the real binary, the real server, the real stores, as a user would run them.
#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and prints what it measured and why it skips"
)]

mod arena;
mod compare;
mod crash;
mod crate_graph;
mod datasets;
mod erasure;
mod faults;
mod hostile;
mod isolation;
mod judge;
mod learn;
mod policies;
mod rag;
mod support;
