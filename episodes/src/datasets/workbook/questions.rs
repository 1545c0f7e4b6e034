//! The test set of a batch run.

use std::path::Path;

use recast_domain::{Turn, parse_history};
use serde::{Deserialize, Serialize};

use super::cells::{Header, RowCells};
use super::sheet::{Cell, rows};
use crate::dataset::{DatasetError, DatasetProblem};

/// Characters of a cell at most.
const CELL_CHARS: usize = 32_767;
/// Columns of a workbook that a question may have beside the query.
const OPTIONAL: [&str; 4] = ["user_profile", "history_summary", "history", "thought"];

/// One question of a test set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Question {
    /// The question.
    #[serde(alias = "original_query")]
    pub query: String,
    /// Earlier turns, oldest first.
    #[serde(default, deserialize_with = "turns")]
    pub history: Vec<Turn>,
    /// What is known of the asker; may be empty.
    #[serde(default)]
    pub user_profile: String,
    /// A summary of earlier turns; may be empty.
    #[serde(default)]
    pub history_summary: String,
    /// A note on the intent; may be empty.
    #[serde(default)]
    pub thought: String,
    /// The conversation, where the caller names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
}

/// Turns as a list, or as one text (`用户: ..\n助手: ..`).
fn turns<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Turn>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        List(Vec<Turn>),
        Text(String),
    }
    Ok(match Option::<Given>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Given::List(turns)) => turns,
        Some(Given::Text(text)) => parse_history(&text),
    })
}

/// Reads a test set: `*.xlsx` by its header, everything else as JSON lines. Columns and fields that are not of a
/// question are passed over.
///
/// # Errors
/// With every row that is no question.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, DatasetError> {
    let (mut questions, mut problems) = (Vec::new(), Vec::new());
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("xlsx")) {
        let problem = |line, message| DatasetProblem { path: path.to_owned(), line, message };
        if let Err(message) =
            of_workbook(path, &mut questions, &mut |line, message| problems.push(problem(line, message)))
        {
            problems.push(problem(None, message));
        }
    } else {
        of_lines(path, &mut questions, &mut problems);
    }
    if questions.is_empty() && problems.is_empty() {
        problems.push(DatasetProblem { path: path.to_owned(), line: None, message: "holds no question".to_owned() });
    }
    if problems.is_empty() { Ok(questions) } else { Err(DatasetError { problems }) }
}

fn of_lines(path: &Path, questions: &mut Vec<Question>, problems: &mut Vec<DatasetProblem>) {
    let mut problem = |line, message| problems.push(DatasetProblem { path: path.to_owned(), line, message });
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return problem(None, format!("cannot be read: {error}")),
    };
    for (line, row) in (1..).zip(text.lines()).filter(|(_, row)| !row.trim().is_empty()) {
        let mut deserializer = serde_json::Deserializer::from_str(row);
        let question: Result<Question, _> = serde_path_to_error::deserialize(&mut deserializer);
        match question {
            Ok(question) if question.query.trim().is_empty() => problem(Some(line), "query: is empty".to_owned()),
            Ok(question) => questions.push(question),
            Err(error) => problem(Some(line), format!("{}: {}", error.path(), error.inner())),
        }
    }
}

fn of_workbook(
    path: &Path,
    questions: &mut Vec<Question>,
    problem: &mut dyn FnMut(Option<usize>, String),
) -> Result<(), String> {
    let mut header: Option<(Header, &'static str)> = None;
    rows(path, |number, cells| {
        let Some((known, query)) = &header else {
            let names = |name: &str| cells.iter().any(|cell| matches!(cell, Cell::Text(text) if text.trim() == name));
            let query = if names("original_query") { "original_query" } else { "query" };
            let wanted: Vec<&'static str> =
                std::iter::once(query).chain(OPTIONAL.into_iter().filter(|name| names(name))).collect();
            let read = Header::read(number, cells, &wanted)
                .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
            header = Some((read, query));
            return Ok(());
        };
        let mut row = RowCells::new(number, known, cells);
        if row.is_blank() {
            return Ok(());
        }
        let question = Question {
            query: row.text(query, CELL_CHARS).to_owned(),
            history: parse_history(row.text("history", CELL_CHARS)),
            user_profile: row.text("user_profile", CELL_CHARS).to_owned(),
            history_summary: row.text("history_summary", CELL_CHARS).to_owned(),
            thought: row.text("thought", CELL_CHARS).to_owned(),
            conversation_id: None,
        };
        if question.query.trim().is_empty() && row.faults.is_empty() {
            row.fault(query, "is empty");
        }
        row.faults.iter().for_each(|fault| problem(Some(number as usize), fault.to_string()));
        if row.faults.is_empty() {
            questions.push(question);
        }
        Ok(())
    })
}
