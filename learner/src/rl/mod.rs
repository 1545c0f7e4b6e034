//! Learning from rewards: advantages, losses and corrections as plain functions, and the loop over them.
//!
//! The formulas are functions of slices in 64 bits that give values and slopes. The loop reads log-probabilities out of
//! the network, asks those functions for the slopes, and sends them back as the gradient.
pub mod advantages;
pub mod entropy;
pub mod importance;
pub mod kl;
pub mod losses;
pub mod shaping;
mod tokens;
pub mod value;

pub use tokens::{Aggregation, Layout, weighted};
