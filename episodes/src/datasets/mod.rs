//! Datasets that train: rewrites, pairs and prompts out of the episode store, filtered, split and varied.
//!
//! A build reads the store once, at one moment of it, and keeps no more than a hash of each sample in memory. Every
//! sample that is not kept is counted under the rule that dropped it. Conversations are split by a hash of their ids, so
//! that none is in two splits and a conversation stays in its split from one build to the next. Files appear under their
//! names when they are whole; the same episodes and the same seed give the same bytes.

mod augment;
mod build;
mod collect;
mod filter;
mod forget;
mod latest;
mod load;
mod messages;
mod report;
mod rl;
mod sample;
mod sft;
mod split;
mod spool;
mod trl;
mod verl;
pub mod workbook;

#[cfg(test)]
mod form_tests;
#[cfg(test)]
mod tests;

pub use augment::{augmented, is_chosen};
pub use build::{BuildRequest, Kind};
pub use collect::build;
pub use filter::{Counts, Rule, Seen, Wanted, normalised, quality};
pub use forget::{Forgotten, forget};
pub use load::{TrainingSample, load_rewrites};
pub use report::{DatasetFile, DatasetManifest, Limits, SplitStats, StatsReport};
pub use sample::{Arm, Found, Origin, Pair, Sample};
pub use split::{SPLITS, of_conversation};
