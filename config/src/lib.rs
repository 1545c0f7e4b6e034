//! Typed settings: shipped profiles, layers, environment overrides, and checks that report every problem at once.
//!
//! This crate is the only reader of settings files and of the process environment. Reading happens in three steps:
//! layers are merged into one table ([`load`]), the table is held against the shipped defaults (unknown keys, wrong
//! types), and the typed [`Settings`] are checked for sense. A caller sees the problems of all three steps together.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod checks;
mod layers;
mod settings;
mod tenant;

pub use layers::{ConfigError, Effective, PROFILES, Problem, Source, load};
pub use settings::{
    AdmissionSettings, DeadlineSettings, Device, Durability, EmbedderKind, EmbedderSettings, EpisodeSettings,
    ExperimentSettings, JudgeKind, JudgeLanguage, JudgeMode, JudgeProvider, JudgeSettings, LimitSettings, LogFormat,
    OnnxSettings, QdrantSettings, Quantization, RemoteRewriterSettings, RerankerKind, RerankerSettings,
    RetrievalSettings, RewardKind, RewardSettings, RewriterKind, RewriterSettings, ScoringSettings, ServerSettings,
    Settings, ShadowSettings, StateSettings, StoreKind, TelemetrySettings, TenantSettings,
};
pub use tenant::{TenantError, TenantProfile};
