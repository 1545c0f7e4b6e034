//! Labels as people hand them in: JSON lines or CSV, one row an episode.

use std::path::Path;

use recast_domain::{EpisodeId, TenantId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dataset::DatasetProblem;
use crate::labels::{LabelRecord, LabelValue};
use crate::redact::redact;

/// One author about one episode: at least one of the four kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRow {
    /// The episode.
    pub episode_id: Uuid,
    /// Who says so.
    pub author: String,
    /// The rewrite as it should have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold_rewrite: Option<String>,
    /// Ids of the passages that answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relevant: Option<Vec<String>>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// A word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Rows with the lines they begin in, from 1.
pub type NumberedLabels = Vec<(usize, LabelRow)>;

/// A row of CSV: an empty cell says nothing, passage ids are separated by white space.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvRow {
    episode_id: Uuid,
    author: String,
    #[serde(default)]
    gold_rewrite: Option<String>,
    #[serde(default)]
    relevant: Option<String>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    label: Option<String>,
}

impl LabelRow {
    /// The same without phone numbers, addresses and the like in its texts.
    #[must_use]
    pub fn redacted(self) -> Self {
        let without = |text: Option<String>| text.map(|text| redact(&text).unwrap_or(text));
        Self { gold_rewrite: without(self.gold_rewrite), label: without(self.label), ..self }
    }

    /// The labels of this row.
    ///
    /// # Errors
    /// With what is wrong, naming the field.
    pub fn records(&self, tenant: &TenantId, created_ms: i64) -> Result<Vec<LabelRecord>, String> {
        let values = [
            self.gold_rewrite.clone().map(LabelValue::GoldRewrite),
            self.relevant.clone().map(LabelValue::Relevant),
            self.score.map(LabelValue::Score),
            self.label.clone().map(LabelValue::Label),
        ];
        let record = |value| LabelRecord {
            tenant: tenant.clone(),
            episode: EpisodeId(self.episode_id),
            author: self.author.trim().to_owned(),
            value,
            created_ms,
        };
        let records: Vec<LabelRecord> = values.into_iter().flatten().map(record).collect();
        if records.is_empty() {
            return Err("says nothing: give gold_rewrite, relevant, score or label".to_owned());
        }
        match records.iter().find_map(LabelRecord::fault) {
            Some(fault) => Err(fault),
            None => Ok(records),
        }
    }
}

/// The rows of a file with their lines; what cannot be used is named by line. `*.csv` is CSV with a header, everything
/// else is read as JSON lines.
///
/// # Errors
/// When the file cannot be read at all.
pub fn read_labels(path: &Path) -> Result<(NumberedLabels, Vec<DatasetProblem>), DatasetProblem> {
    let problem = |line, message| DatasetProblem { path: path.to_owned(), line, message };
    let unreadable = |error: std::io::Error| problem(None, format!("cannot be read: {error}"));
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv")) {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(bytes.as_slice());
        let mut headers = reader.headers().map_err(|error| problem(Some(1), error.to_string()))?.clone();
        // spreadsheets begin their files with a byte order mark
        if let Some(first) = headers.get(0).and_then(|first| first.strip_prefix('\u{feff}')) {
            headers = std::iter::once(first).chain(headers.iter().skip(1)).collect();
        }
        let mut record = csv::StringRecord::new();
        loop {
            match reader.read_record(&mut record) {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) => {
                    let line = error.position().map(|place| line_of(place, &bytes));
                    problems.push(problem(line, error.to_string()));
                    continue;
                }
            }
            let line = record.position().map_or(0, |place| line_of(place, &bytes));
            match record.deserialize::<CsvRow>(Some(&headers)) {
                Ok(row) => rows.push((line, row.into())),
                Err(error) => problems.push(problem(Some(line), csv_message(&error, &headers))),
            }
        }
    } else {
        for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if text.trim_ascii().is_empty() {
                continue;
            }
            let mut deserializer = serde_json::Deserializer::from_slice(text);
            match serde_path_to_error::deserialize(&mut deserializer) {
                Ok(row) => rows.push((line, row)),
                Err(error) => {
                    let words = error.inner().to_string();
                    let words = words.split(" at line ").next().unwrap_or_default();
                    let field = error.path().to_string();
                    let message = if field == "." { words.to_owned() } else { format!("{field}: {words}") };
                    problems.push(problem(Some(line), message));
                }
            }
        }
    }
    Ok((rows, problems))
}

impl From<CsvRow> for LabelRow {
    fn from(row: CsvRow) -> Self {
        let said = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        Self {
            episode_id: row.episode_id,
            author: row.author,
            gold_rewrite: said(row.gold_rewrite),
            relevant: said(row.relevant).map(words),
            score: row.score,
            label: said(row.label),
        }
    }
}

/// The line of a row, from 1. Behind a CR the reader has yet to see the LF that ends the line before.
fn line_of(place: &csv::Position, bytes: &[u8]) -> usize {
    let line = place.line() as usize;
    if bytes.get(place.byte() as usize) == Some(&b'\n') { line + 1 } else { line }
}

/// What is wrong with a row of CSV, with the name of its column.
fn csv_message(error: &csv::Error, headers: &csv::StringRecord) -> String {
    if let csv::ErrorKind::Deserialize { err, .. } = error.kind() {
        let field = err.field().and_then(|at| headers.get(at as usize));
        return match field {
            Some(field) => format!("{field}: {}", err.kind()),
            None => err.kind().to_string(),
        };
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_faults_name_line_and_field() {
        let dir = tempfile::tempdir().unwrap();
        let id = "01995f2e-0000-7000-8000-000000000001";
        let lines = dir.path().join("labels.jsonl");
        let text = format!(
            "{{\"episode_id\":\"{id}\",\"author\":\"li\",\"gold_rewrite\":\"胶原蛋白肽\",\"relevant\":[\"p1\"],\"score\":1}}\n\n\
             {{\"episode_id\":\"x\",\"author\":\"li\"}}\n{{\"episode_id\":\"{id}\",\"author\":\"li\",\"mark\":1}}\nnonsense\n"
        );
        std::fs::write(&lines, text).unwrap();
        let (rows, problems) = read_labels(&lines).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].1.records(&"a".parse().unwrap(), 1).unwrap().len(), 3);
        let said: Vec<_> = problems.iter().map(|one| (one.line.unwrap(), one.message.as_str())).collect();
        assert!(said[0].0 == 3 && said[0].1.starts_with("episode_id: "), "{said:?}");
        assert!(said[1].0 == 4 && said[1].1.contains("mark"), "{said:?}");
        assert_eq!(said[2].0, 5);

        let table = dir.path().join("labels.csv");
        let text = format!(
            "\u{feff}episode_id,author,gold_rewrite,relevant,score\r\n{id},li,\"胶原, 蛋白\",p1 p2,0.5\r\n{id},wu,,,\r\n\
             {id},wu,,,viel\r\n"
        );
        std::fs::write(&table, text).unwrap();
        let (rows, problems) = read_labels(&table).unwrap();
        assert_eq!(rows[0].1.relevant.as_deref(), Some(&["p1".to_owned(), "p2".to_owned()][..]));
        assert!(rows[1].1.records(&"a".parse().unwrap(), 1).unwrap_err().starts_with("says nothing"));
        assert_eq!(problems[0].line, Some(4));
        assert!(problems[0].message.starts_with("score: "), "{}", problems[0]);
    }
}
