//! What a dataset says of itself: `stats_report.json` and a manifest.

use std::collections::BTreeMap;

use recast_domain::TenantId;
use serde::{Deserialize, Serialize};

use super::filter::Counts;
use super::sample::Sample;

/// One split of `stats_report.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SplitStats {
    /// Rows, copies with synonyms counted.
    pub total_samples: u64,
    /// Mean length of the queries in characters; 0 without rows.
    pub avg_original_length: f64,
    /// Mean length of the rewrites in characters; 0 without rows.
    pub avg_rewritten_length: f64,
    /// Rows with a user profile.
    pub has_user_profile: u64,
    /// Rows with earlier turns or a summary of them.
    pub has_history: u64,
    #[serde(skip)]
    chars: (u64, u64),
}

impl SplitStats {
    /// Counts a row.
    pub fn add(&mut self, sample: &Sample) {
        let said = &sample.conversation;
        self.total_samples += 1;
        self.chars.0 += said.query.chars().count() as u64;
        self.chars.1 += sample.rewrite.chars().count() as u64;
        self.avg_original_length = self.chars.0 as f64 / self.total_samples as f64;
        self.avg_rewritten_length = self.chars.1 as f64 / self.total_samples as f64;
        self.has_user_profile += u64::from(!said.user_profile.trim().is_empty());
        self.has_history += u64::from(!said.history.is_empty() || !said.history_summary.trim().is_empty());
    }
}

/// `stats_report.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatsReport {
    /// Whose dataset it is.
    pub tenant_id: TenantId,
    /// When it was built, as the names of its files have it.
    pub timestamp: String,
    /// By split.
    pub splits: BTreeMap<&'static str, SplitStats>,
}

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetFile {
    /// Its name, in the folder of the manifest.
    pub path: String,
    /// Which split it holds.
    pub split: &'static str,
    /// Rows, copies with synonyms counted.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// The limits that a dataset was filtered, split and varied by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Characters of a query, least and most.
    pub query_chars: (usize, usize),
    /// Characters of a rewrite, least and most.
    pub rewrite_chars: (usize, usize),
    /// Characters of a rewrite for each of its query at most.
    pub rewrite_max_growth: usize,
    /// Shares of the conversations in val and test.
    pub held_out: (f64, f64),
    /// One of so many train rows gets a copy; 0: none.
    pub augment_one_in: u32,
    /// How likely a synonym is replaced in a copy.
    pub synonym_share: f64,
}

/// What a dataset says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatasetManifest {
    /// sft, messages, rl, verl or trl.
    pub kind: &'static str,
    /// Whose episodes are in it.
    pub tenant_id: TenantId,
    /// The version of recast that built it.
    pub recast: String,
    /// What it was made of: the episode store, or the name of a workbook.
    pub source: String,
    /// When it was built, as the names of its files have it.
    pub timestamp: String,
    /// Seed of splits and synonyms.
    pub seed: u64,
    /// Episodes from this time on were asked for, UTC; `None` where there is no such bound.
    pub from: Option<String>,
    /// Creation of the oldest episode that was kept, UTC.
    pub first_created_at: Option<String>,
    /// Creation of the newest episode that was kept, UTC.
    pub last_created_at: Option<String>,
    /// Read, kept and dropped, by rule.
    pub counts: Counts,
    /// Train rows with synonyms beside those kept.
    pub augmented: u64,
    /// Samples that are wanted; fewer are a warning.
    pub wanted: u64,
    /// What decided.
    pub limits: Limits,
    /// What was done to texts on their way out.
    pub redaction: String,
    /// The files.
    pub files: Vec<DatasetFile>,
}
