//! Rewrites out of the workbook of a batch run.

use std::path::Path;

use recast_config::DatasetSettings;
use recast_domain::Conversation;

use super::cells::{Fault, Header, RowCells};
use super::sheet::{Cell, rows};
use super::write::COLUMNS;
use crate::datasets::build::{BuildRequest, Builder};
use crate::datasets::filter::Rule;
use crate::datasets::report::DatasetManifest;
use crate::datasets::sample::{Found, Origin, Sample};
use crate::export::ExportError;

/// Characters of a profile or a summary at most: what a cell holds.
const CELL_CHARS: usize = 32_767;
/// The most hits a row may count.
const HITS_MAX: f64 = 1_000_000.0;

/// What an import came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The dataset.
    pub manifest: DatasetManifest,
    /// Rows with at least one fault; none of them was kept.
    pub faulty_rows: u64,
    /// Faults of all rows.
    pub faults: u64,
}

/// Builds a dataset of the rows that succeeded, with a first hit of at least the set score and a rewrite that is not the
/// query. A row with a fault is not kept and stops nothing; `complain` hears of every fault.
///
/// # Errors
/// When the file is no workbook, its header is not the expected one (`complain` has heard why), or the dataset cannot be
/// written.
pub fn import(
    path: &Path,
    request: &BuildRequest<'_>,
    mut complain: impl FnMut(&Fault),
) -> Result<Imported, ExportError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut builder = Builder::new(request)?;
    let mut header: Option<Header> = None;
    let (mut faulty_rows, mut faults) = (0, 0);
    let mut broken = None;
    let mut visit = |number: u32, cells: &[Cell]| -> Result<(), ExportError> {
        let Some(known) = &header else {
            match Header::read(number, cells, &COLUMNS) {
                Ok(read) => header = Some(read),
                Err(wrong) => {
                    wrong.iter().for_each(&mut complain);
                    let said: Vec<String> = wrong.iter().map(ToString::to_string).collect();
                    return Err(ExportError::Request(format!("{}: {}", path.display(), said.join("; "))));
                }
            }
            return Ok(());
        };
        let mut row = RowCells::new(number, known, cells);
        if row.is_blank() {
            return Ok(());
        }
        let outcome = sample(&mut row, request.settings, &format!("workbook:{name}:{number}"));
        if row.faults.is_empty() {
            return match outcome {
                Ok(sample) => builder.push(&sample),
                Err(rule) => {
                    builder.dropped(rule);
                    Ok(())
                }
            };
        }
        row.faults.iter().for_each(&mut complain);
        faulty_rows += 1;
        faults += row.faults.len() as u64;
        builder.dropped(Rule::Faulty);
        Ok(())
    };
    let read = rows(path, |number, cells| {
        visit(number, cells).map_err(|error| {
            broken = Some(error);
            String::new()
        })
    });
    if let Some(error) = broken {
        return Err(error);
    }
    read.map_err(|message| ExportError::Request(format!("{}: {message}", path.display())))?;
    if header.is_none() {
        let columns = COLUMNS.join(", ");
        return Err(ExportError::Request(format!("{}: the sheet is empty: it needs {columns}", path.display())));
    }
    Ok(Imported { manifest: builder.finish(name, None)?, faulty_rows, faults })
}

/// A row as a sample, or the rule that drops it; what is wrong with its cells is noted in `row`.
fn sample(row: &mut RowCells<'_>, settings: &DatasetSettings, id: &str) -> Result<Sample, Rule> {
    let query = row.text("original_query", settings.query_max_chars);
    let user_profile = row.text("user_profile", CELL_CHARS);
    let history_summary = row.text("history_summary", CELL_CHARS);
    let rewrite = row.text("rewritten_query", settings.rewrite_max_chars);
    let found = found(row);
    let count = row.number("recall_count", (0.0, HITS_MAX));
    let top1 = row.number("top1_score", (0.0, 1.0));
    row.number("avg_top3_score", (0.0, 1.0));
    let success = row.truth("success");
    let empty = |row: &RowCells<'_>, column| *row.cell(column) == Cell::Empty;
    for column in ["original_query", "success"] {
        if empty(row, column) {
            row.fault(column, "is empty");
        }
    }
    if success == Some(true) {
        for column in ["recall_results", "recall_count", "top1_score", "avg_top3_score"] {
            if empty(row, column) {
                row.fault(column, "is empty, though success is TRUE");
            }
        }
    }
    match (count, &found) {
        (Some(count), _) if count.fract() != 0.0 => row.fault("recall_count", format!("{count} is no whole number")),
        (Some(count), Some(found)) if count != found.len() as f64 => {
            row.fault("recall_count", format!("says {count}, recall_results holds {}", found.len()));
        }
        _ => {}
    }
    if success != Some(true) {
        return Err(Rule::NotSuccessful);
    }
    if top1.is_none_or(|score| score < settings.import_min_top1) {
        return Err(Rule::ScoreTooLow);
    }
    Ok(Sample {
        episode_id: id.to_owned(),
        conversation_id: id.to_owned(),
        created_ms: 0,
        conversation: Conversation {
            query: query.to_owned(),
            user_profile: user_profile.to_owned(),
            history_summary: history_summary.to_owned(),
            ..Conversation::default()
        },
        rewrite: rewrite.to_owned(),
        origin: Origin::BatchTest,
        model: String::new(),
        quality_score: None,
        top1_score: top1,
        recall_count: found.map_or(0, |found| found.len() as u64),
        relevant: None,
        augmented: false,
        pair: None,
    })
}

/// What was found; `None` where the cell is empty or faulty.
fn found(row: &mut RowCells<'_>) -> Option<Vec<Found>> {
    let text = row.text("recall_results", usize::MAX);
    if text.is_empty() {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read: Result<Vec<Found>, _> = serde_path_to_error::deserialize(&mut deserializer);
    match read {
        Err(error) => {
            let (place, words) = (error.path().to_string(), error.inner().to_string());
            let place = if place == "." { String::new() } else { format!("{place}: ") };
            row.fault("recall_results", format!("is no list of hits ({place}{words})"));
            None
        }
        Ok(found) => {
            let range = 0.0..=1.0;
            for (place, hit) in found.iter().enumerate() {
                if !range.contains(&hit.score) {
                    row.fault("recall_results", format!("[{place}].score {} is not from 0 to 1", hit.score));
                }
                if let Some(score) = hit.reranker_score.filter(|score| !range.contains(score)) {
                    row.fault("recall_results", format!("[{place}].reranker_score {score} is not from 0 to 1"));
                }
            }
            Some(found)
        }
    }
}
