//! What a judge says of a rewrite, and the reward that is computed from it. Pure: nothing here asks a judge.
//!
//! What is missing stays missing. An outage of a judge, or of retrieval, must never look like a tie or a zero, so
//! there is no default score; the learner drops such a sample and counts it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod reward;
mod rules;
mod shaping;
mod verdict;

pub use reward::{Arm, Missing, REWARD_VERSION, Reward, RewardParts, RewardWeights, Side, quality, reward};
pub use rules::{InvalidRewrite, RewriteRules, invalid_rewrite};
pub use shaping::{Shaping, ShapingRules};
pub use verdict::{DIMENSIONS, Dimension, Scores, Verdict, VerdictFault};
