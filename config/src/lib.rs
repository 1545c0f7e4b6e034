//! Typed settings: shipped profiles, layers, environment overrides, and checks that report every problem at once.
//!
//! This crate is the only reader of settings files and of the process environment. Reading happens in three steps:
//! layers are merged into one table ([`load`]), the table is held against the shipped defaults (unknown keys, wrong
//! types), and the typed [`Settings`] are checked for sense. A caller sees the problems of all three steps together.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod checks;
mod choices;
mod layers;
mod settings;
mod tenant;

pub use choices::{
    Device, Durability, EmbedderKind, JudgeKind, JudgeLanguage, JudgeMode, JudgeProvider, LogFormat, Quantization,
    RerankerKind, RewardKind, RewriterKind, StoreKind,
};
pub use layers::{ConfigError, Effective, PROFILES, Problem, Source, load};
pub use settings::{
    AdmissionSettings, DatasetSettings, DeadlineSettings, EmbedderSettings, EpisodeSettings, ExperimentSettings,
    JudgeSettings, LearnerSettings, LimitSettings, OnnxSettings, PolicySettings, QdrantSettings,
    RemoteRewriterSettings, RerankerSettings, RetrievalSettings, RewardSettings, RewriterSettings, ScoringSettings,
    ServerSettings, Settings, ShadowSettings, StateSettings, TelemetrySettings, TenantSettings,
};
pub use tenant::{TenantError, TenantProfile};
