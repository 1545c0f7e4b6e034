//! Statistics of comparisons: bootstrap intervals, a paired permutation test, an interval of a rate.
//!
//! Pure functions over slices of `f64`: no I/O, no clock, and every random draw comes from a seed in the arguments,
//! so that a report can be computed again to the last bit.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod bootstrap;
mod error;
mod normal;
mod sign_flip;
mod wilson;

pub use bootstrap::{Bootstrap, Estimate, Interval, Method, bootstrap_mean, bootstrap_paired_difference};
pub use error::StatsError;
pub use sign_flip::{SignFlip, sign_flip};
pub use wilson::wilson;
