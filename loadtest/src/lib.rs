//! Load generator and overhead bench for the gateway. It speaks only HTTP and imports no other crate of this project,
//! so that it measures what a client sees, and can be pointed at other servers.
//!
//! Latency counts from the *intended* start of a request: a server that stalls cannot hide by making the generator
//! wait. How to run it and how to read its figures: `README.md` beside this file.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod arrivals;
pub mod client;
pub mod closed_loop;
pub mod cpu;
pub mod echo;
pub mod error;
pub mod frontier;
pub mod machine;
pub mod open_loop;
pub mod overhead;
pub mod parity;
pub mod record;
pub mod reply;
pub mod report;
pub mod requests;
