//! The integration tests: the real binary, the real server, the real stores, as a user would run them.
#![expect(clippy::print_stdout, reason = "a test prints what it measured, and why it skips")]

mod crash;
mod crate_graph;
mod faults;
mod hostile;
mod isolation;
mod rag;
mod support;
