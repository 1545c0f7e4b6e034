//! Statistics of comparisons: bootstrap intervals, a paired permutation test, an interval of a rate.
//!
//! Pure functions over slices of `f64`: no I/O, no clock, and every random draw comes from a seed in the arguments,
//! so that a report can be computed again to the last bit.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod bets;
mod betting_interval;
mod bootstrap;
mod confidence;
mod e_process;
mod error;
mod msprt;
mod noise;
mod normal;
mod off_policy;
mod paired;
mod running;
mod sign_flip;
mod spending;
mod srm;
mod wilson;
mod win_rate;

pub use betting_interval::BettingInterval;
pub use bootstrap::{Bootstrap, Estimate, Interval, Method, bootstrap_mean, bootstrap_paired_difference};
pub use confidence::{AsymptoticInterval, EmpiricalBernstein};
pub use e_process::{BettingTest, Direction, Evidence, TwoSidedBettingTest};
pub use error::StatsError;
pub use msprt::{Msprt, Spread};
pub use noise::{NoiseFloor, noise_floor};
pub use off_policy::{LoggedAction, OffPolicy, off_policy};
pub use paired::{PairedT, paired_t};
pub use sign_flip::{SignFlip, sign_flip};
pub use spending::attempt_alpha;
pub use srm::{SampleRatio, sample_ratio};
pub use wilson::wilson;
pub use win_rate::{WinRate, WinTieLoss, sign_test};
