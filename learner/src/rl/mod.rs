//! Learning from rewards: advantages, losses and corrections as plain functions, and the loop over them.
//!
//! The formulas are functions of slices in 64 bits that give values and slopes. The loop reads log-probabilities out of
//! the network, asks those functions for the slopes, and sends them back as the gradient.
pub mod advantages;
mod copying;
mod critic;
mod curve;
pub mod entropy;
mod evaluate;
pub mod importance;
pub mod kl;
mod learner;
pub mod losses;
mod metrics;
mod monitors;
mod pool;
mod prepare;
mod remote;
mod sample;
mod settings;
pub mod shaping;
mod tokens;
mod training;
mod update;
pub mod value;

pub use copying::WithFreshNames;
pub use critic::Critic;
pub use entropy::EntropyControl;
pub use evaluate::{Evaluation, divergence, evaluate, greedy};
pub use kl::KlEstimator;
pub use learner::{Learner, RunReport, StepReport};
pub use metrics::StepMetrics;
pub use monitors::{Action, Alarm, MonitorSettings, Monitors};
pub use pool::QuestionPool;
pub use remote::RemoteWorld;
pub use sample::{Question, Questions, Sample, roll};
pub use settings::{AdvantageKind, Algorithm, CriticSettings, KlTerm, RlSettings};
pub use tokens::{Aggregation, Layout, weighted};
pub use training::{ADAPTER, Look, Progress, RlReport, RlRun, train_policy};
