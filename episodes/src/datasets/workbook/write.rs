//! The workbook of a batch run, written.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::datasets::sample::Found;
use crate::export::{ExportError, HashedFile, Value, Workbook, sync_folder};

/// The columns, in order.
pub const COLUMNS: [&str; 9] = [
    "original_query",
    "user_profile",
    "history_summary",
    "rewritten_query",
    "recall_results",
    "recall_count",
    "top1_score",
    "avg_top3_score",
    "success",
];

/// One row: a question and what came back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct BatchRow {
    /// The question.
    pub original_query: String,
    /// What is known of the asker; may be empty.
    pub user_profile: String,
    /// A summary of earlier turns; may be empty.
    pub history_summary: String,
    /// The rewrite; empty where there was no answer.
    pub rewritten_query: String,
    /// What was found, best first.
    pub recall_results: Vec<Found>,
    /// How much of it.
    pub recall_count: u64,
    /// Score of the first hit, the reranker's where it ran, 0 to 1; `None` where nothing was found.
    pub top1_score: Option<f64>,
    /// Mean of the first three scores, 0 to 1; `None` where nothing was found.
    pub avg_top3_score: Option<f64>,
    /// Whether the service answered and found something.
    pub success: bool,
}

impl BatchRow {
    /// Enters what was found, and the figures that follow from it.
    pub fn found(&mut self, found: Vec<Found>) {
        let top: Vec<f64> = found.iter().take(3).map(Found::best).collect();
        self.recall_count = found.len() as u64;
        self.top1_score = top.first().copied();
        self.avg_top3_score = (!top.is_empty()).then(|| top.iter().sum::<f64>() / top.len() as f64);
        self.success = !found.is_empty();
        self.recall_results = found;
    }
}

/// Writes `test_sft.xlsx`, whole or not at all.
pub struct WorkbookWriter {
    book: Workbook,
    path: PathBuf,
    temporary: PathBuf,
}

impl WorkbookWriter {
    /// Begins the workbook at `path`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, ExportError> {
        let temporary = path.with_extension("xlsx.part");
        let file = HashedFile::create(&temporary).map_err(ExportError::io(&temporary))?;
        Ok(Self { book: Workbook::with_columns(file, "test_sft", &COLUMNS)?, path: path.to_owned(), temporary })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn row(&mut self, row: &BatchRow) -> Result<(), ExportError> {
        let results = serde_json::to_string(&row.recall_results)?;
        let cells = [
            Value::Text(&row.original_query),
            Value::Text(&row.user_profile),
            Value::Text(&row.history_summary),
            Value::Text(&row.rewritten_query),
            Value::Text(&results),
            row.recall_count.into(),
            row.top1_score.into(),
            row.avg_top3_score.into(),
            Value::Bool(row.success),
        ];
        self.book.cells(cells.into_iter())
    }

    /// Gives the workbook its name. Returns how many cells were longer than a workbook holds, and were cut.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<u64, ExportError> {
        let (file, cut) = self.book.close()?;
        file.finish().map_err(ExportError::io(&self.temporary))?;
        fs::rename(&self.temporary, &self.path).map_err(ExportError::io(&self.path))?;
        sync_folder(&self.path)?;
        Ok(cut)
    }
}
