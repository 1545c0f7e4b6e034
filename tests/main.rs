//! The integration tests: the real binary, the real server, the real stores, as a user would run them.
#![expect(missing_docs, clippy::print_stdout, reason = "a test binary has no public items, and prints why it skips")]

mod crate_graph;
mod support;
