//! What a judge says of a rewrite, and the reward that is computed from it.
//!
//! What is missing stays missing. An outage of a judge, or of retrieval, must never look like a tie or a zero, so
//! there is no default score; the learner drops such a sample and counts it.
//!
//! [`open_judge`] makes the judge of the settings: a model at a service ([`OpenAiJudge`]), or rules that need none
//! ([`HeuristicJudge`]). Verdicts and rewards themselves are pure functions.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod books;
mod budget;
mod cache;
mod calibrate;
mod canary;
mod chat;
mod circuit;
mod error;
mod group;
mod heuristic;
mod item;
mod labels;
mod list;
mod open;
mod openai;
mod pairs;
mod prompt;
mod provider;
mod reward;
mod rules;
mod shaping;
#[cfg(test)]
mod testing;
mod transport;
mod units;
mod verdict;

pub use books::JudgeBooks;
pub use cache::{StoredReply, VerdictKey};
pub use calibrate::{Calibration, CalibrationRules, calibrate};
pub use error::JudgeError;
pub use heuristic::HeuristicJudge;
pub use item::{Candidate, Flips, GroupVerdict, Judge, JudgeItem, Judged, LabelRank, RubricVerdict};
pub use labels::{LabelledHits, label_quality, ndcg_at_10, rank_incentive};
pub use open::{is_sampled, open_judge};
pub use openai::OpenAiJudge;
pub use pairs::{LabelledPair, PAIR_COLUMNS, Winner, read_pairs};
pub use prompt::{Entry, PROMPT_VERSION, Prompt, SCHEMA_VERSION, list_prompt, rubric_prompt};
pub use reward::{
    Arm, Missing, REWARD_VERSION, RetrievalSignal, Retrieved, Reward, RewardParts, RewardWeights, Side, explain,
    judged_reward, quality, reward,
};
pub use rules::{InvalidRewrite, RewriteRules, invalid_rewrite};
pub use shaping::{Shaping, ShapingRules};
pub use transport::{RawReply, Transport};
pub use verdict::{DIMENSIONS, Dimension, Scores, Verdict, VerdictFault};
