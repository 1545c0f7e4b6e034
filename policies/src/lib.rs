//! Policies: an immutable store of trained adapters, the gate that lets one of them serve, and who gets which.
//!
//! On disk, below the store's folder:
//!
//! ```text
//! <tenant or default>/
//!   <policy>/            adapter_config.json, adapter_model.safetensors, manifest.json; never changed
//!   CURRENT              the active policy, those before it, and a version; replaced as a whole
//!   JOURNAL.jsonl        what happened and what was decided, one object a line
//!   GATE.json            the candidate at the gate
//!   PINS.json            policies that are kept whatever happens
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod adapter;
mod assign;
mod base;
mod candidate;
#[cfg(test)]
mod crash_tests;
mod diff;
mod disk;
mod error;
mod gate;
mod journal;
mod manifest;
mod pointer;
#[cfg(test)]
mod pointer_tests;
mod retention;
mod scope;
mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod testing;

pub use adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterFacts, check_adapter};
pub use assign::{Canary, position, serves};
pub use base::BaseModel;
pub use diff::{Diff, FieldChange, TensorChange};
pub use error::{PolicyError, Result};
pub use gate::{
    CanaryRules, CheckRules, Finding, Gate, GateRecord, GateRules, Observation, OfflineReport, OfflineRules, Pair,
    Pairing, SanityReport, SanityRules, ShadowRules, Stage, Verdict,
};
pub use journal::{Cause, Event, Record};
pub use manifest::{DataRange, FileEntry, MANIFEST, Manifest};
pub use pointer::{Active, ActivePolicy};
pub use scope::Scope;
pub use store::{Draft, PolicyStore, VerifiedPolicy};
