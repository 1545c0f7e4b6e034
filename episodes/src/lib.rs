//! The episode store (SQLite) and the loaders of labelled data.
//!
//! One thread of one process writes ([`EpisodeStore`]); it commits whatever is queued as one transaction, so that load
//! makes batches grow and an idle store pays for one commit. Any number of processes read ([`EpisodeReader`]) beside
//! it. Every read asks for a tenant: there is no call that could return another tenant's episode.
//!
//! What hangs on an episode lies beside it and goes with it: the shadow runs it was sampled for, feedback, verdicts,
//! rewards and labels. Definitions of experiments lie here too, as texts with versions, and what judges were paid for. All of it
//! goes through the one writer.
//!
//! What a crash may take: in strict mode nothing that was acknowledged, power loss included; in group mode the last
//! 20 ms when the process dies, and what the system had not yet written back when the power goes.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod accounting;
mod backup;
mod bounds;
mod dataset;
pub mod datasets;
mod db;
mod definitions;
mod doctor;
mod erase;
mod error;
pub mod export;
mod feedback;
mod judge_books;
mod labels;
mod labels_file;
mod ledger;
mod link;
mod migrations;
mod owner;
mod pairs;
mod postgres;
mod reader;
mod record;
mod redact;
mod repair;
mod scan;
mod schema;
mod scores;
pub mod stats;
mod store;
mod write;
mod writer;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod migration_tests;
#[cfg(test)]
mod records_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod shadow_crash_tests;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod test_site;
#[cfg(test)]
mod testing;

pub use accounting::{Accounting, ArmCount};
pub use backup::{BackupReport, backup, restore};
pub use dataset::{DatasetError, DatasetProblem, TenantFolder, load_dialogues, load_passages, load_tenant_folder};
pub use db::Place;
pub use definitions::{ExperimentChange, ExperimentRecord};
pub use doctor::{DoctorReport, Finding, doctor};
pub use erase::{TOMBSTONES_MAX, Tombstone};
pub use error::{EpisodeError, NotStored};
pub use feedback::{ArmFeedback, FeedbackStored};
pub use judge_books::JudgeReply;
pub use labels::{LabelRecord, LabelValue};
pub use labels_file::{LabelRow, NumberedLabels, read_labels};
pub use ledger::ShadowEnd;
pub use pairs::RunCursor;
pub use reader::{EpisodeFilter, EpisodeReader, LIST_MAX};
pub use redact::{redact, redact_conversation, redact_rewrite};
pub use repair::{RepairReport, repair};
pub use scan::ScanRange;
pub use scores::{PutCounts, RewardRecord, Side, VerdictRecord};
pub use store::{EpisodeStore, StoreHealth};
