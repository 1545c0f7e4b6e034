//! Policies: an immutable store of trained adapters, the gate that lets one of them serve, and who gets which.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod base;
mod disk;
mod error;
mod scope;

pub use base::BaseModel;
pub use error::{PolicyError, Result};
pub use scope::Scope;
