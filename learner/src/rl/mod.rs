//! Learning from rewards: advantages, losses and corrections as plain functions, and the loop over them.
//!
//! The formulas are functions of slices in 64 bits that give values and slopes. The loop reads log-probabilities out of
//! the network, asks those functions for the slopes, and sends them back as the gradient.
pub mod advantages;
mod critic;
pub mod entropy;
pub mod importance;
pub mod kl;
mod learner;
pub mod losses;
mod metrics;
mod monitors;
mod prepare;
mod sample;
mod settings;
pub mod shaping;
mod tokens;
mod update;
pub mod value;

pub use critic::Critic;
pub use learner::{Learner, RunReport, StepReport};
pub use metrics::StepMetrics;
pub use monitors::{Action, Alarm, MonitorSettings, Monitors};
pub use sample::{Question, Questions, Sample, roll};
pub use settings::{AdvantageKind, Algorithm, CriticSettings, KlTerm, RlSettings};
pub use tokens::{Aggregation, Layout, weighted};
