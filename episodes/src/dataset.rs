//! Reading labelled data: a tenant's folder of `tenant.toml`, `passages.jsonl` and `dialogues.jsonl`.
//!
//! A loader reads to the end and names everything that is wrong, so that a data set is mended in one pass.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use recast_config::TenantProfile;
use recast_domain::{Dialogue, ErrorKind, PassageRecord, Split};
use serde::de::DeserializeOwned;

/// Something wrong in a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetProblem {
    /// The file.
    pub path: PathBuf,
    /// Its line, from 1; `None` where the whole file is meant.
    pub line: Option<usize>,
    /// What is wrong, naming the field.
    pub message: String,
}

impl fmt::Display for DatasetProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// Everything that is wrong with a data set; prints one problem a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetError {
    /// At least one.
    pub problems: Vec<DatasetProblem>,
}

impl DatasetError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for DatasetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for DatasetError {}

/// The labelled data of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantFolder {
    /// `tenant.toml`.
    pub profile: TenantProfile,
    /// `passages.jsonl`, in the order of the file.
    pub passages: Vec<PassageRecord>,
    /// `dialogues.jsonl`, in the order of the file. Every relevant id is one of `passages`.
    pub dialogues: Vec<Dialogue>,
}

/// Reads dialogues, one JSON object a line; empty lines are skipped.
///
/// # Errors
/// With every line that is not a sound dialogue and every id that was used before.
pub fn load_dialogues(path: &Path) -> Result<Vec<Dialogue>, DatasetError> {
    let mut problems = Vec::new();
    let dialogues = read_dialogues(path, &mut problems);
    finish(dialogues.into_iter().map(|(_, dialogue)| dialogue).collect(), problems)
}

/// Reads passages, one JSON object a line; empty lines are skipped.
///
/// # Errors
/// With every line that is not a sound passage and every id that was used before.
pub fn load_passages(path: &Path) -> Result<Vec<PassageRecord>, DatasetError> {
    let mut problems = Vec::new();
    let passages = read_passages(path, &mut problems);
    finish(passages, problems)
}

/// Reads a tenant's folder and holds its files against each other.
///
/// # Errors
/// With every problem of the three files, every relevant id that is no passage, and every conversation whose dialogues
/// are in more than one split.
pub fn load_tenant_folder(dir: &Path) -> Result<TenantFolder, DatasetError> {
    let mut problems = Vec::new();
    let profile = TenantProfile::load(dir);
    if let Err(error) = &profile {
        // the message names the file itself
        problems.push(DatasetProblem { path: dir.to_owned(), line: None, message: error.to_string() });
    }
    let passages = read_passages(&dir.join("passages.jsonl"), &mut problems);
    let dialogues_path = dir.join("dialogues.jsonl");
    let dialogues = read_dialogues(&dialogues_path, &mut problems);
    cross_check(&dialogues_path, &passages, &dialogues, &mut problems);
    let dialogues = dialogues.into_iter().map(|(_, dialogue)| dialogue).collect();
    match profile {
        Ok(profile) => finish(TenantFolder { profile, passages, dialogues }, problems),
        Err(_) => Err(DatasetError { problems }),
    }
}

fn finish<T>(value: T, problems: Vec<DatasetProblem>) -> Result<T, DatasetError> {
    if problems.is_empty() { Ok(value) } else { Err(DatasetError { problems }) }
}

fn read_dialogues(path: &Path, problems: &mut Vec<DatasetProblem>) -> Vec<(usize, Dialogue)> {
    read_lines(path, |dialogue: &Dialogue| (dialogue.id.clone(), dialogue.fault()), problems)
}

fn read_passages(path: &Path, problems: &mut Vec<DatasetProblem>) -> Vec<PassageRecord> {
    let passages = read_lines(path, |passage: &PassageRecord| (passage.id.clone(), passage_fault(passage)), problems);
    passages.into_iter().map(|(_, passage)| passage).collect()
}

fn passage_fault(passage: &PassageRecord) -> Option<String> {
    let fields = [("id", &passage.id), ("doc_id", &passage.doc_id), ("text", &passage.text)];
    fields.iter().find(|(_, text)| text.trim().is_empty()).map(|(name, _)| format!("{name} is empty"))
}

/// Reads the sound lines of a file with their numbers; the others become problems. `inspect` gives a record's id and
/// the first thing wrong with it.
fn read_lines<T: DeserializeOwned>(
    path: &Path,
    inspect: impl Fn(&T) -> (String, Option<String>),
    problems: &mut Vec<DatasetProblem>,
) -> Vec<(usize, T)> {
    let mut problem = |line, message| problems.push(DatasetProblem { path: path.to_owned(), line, message });
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            problem(None, format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let mut records = Vec::new();
    let mut first_use: HashMap<String, usize> = HashMap::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record: T = match parse(line) {
            Ok(record) => record,
            Err(message) => {
                problem(Some(number), message);
                continue;
            }
        };
        let (id, fault) = inspect(&record);
        if let Some(fault) = fault {
            problem(Some(number), fault);
            continue;
        }
        if let Some(before) = first_use.get(&id) {
            problem(Some(number), format!("id {id:?} was used in line {before} before"));
            continue;
        }
        first_use.insert(id, number);
        records.push((number, record));
    }
    if records.is_empty() && first_use.is_empty() && bytes.trim_ascii().is_empty() {
        problem(None, "is empty: give at least one line".to_owned());
    }
    records
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let record = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        // the line is known better here: the parser counts from this line's start
        let message = error.inner().to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        if field == "." { message } else { format!("{field}: {message}") }
    })?;
    deserializer.end().map_err(|_| "more than one value in the line".to_owned())?;
    Ok(record)
}

fn cross_check(
    path: &Path,
    passages: &[PassageRecord],
    dialogues: &[(usize, Dialogue)],
    problems: &mut Vec<DatasetProblem>,
) {
    let known: HashSet<&str> = passages.iter().map(|passage| passage.id.as_str()).collect();
    let mut splits: HashMap<&str, (Split, usize)> = HashMap::new();
    let mut problem = |line: usize, message| {
        problems.push(DatasetProblem { path: path.to_owned(), line: Some(line), message });
    };
    for (line, dialogue) in dialogues {
        for (index, relevance) in dialogue.relevant.iter().enumerate() {
            if !known.contains(relevance.id.as_str()) {
                problem(*line, format!("relevant[{index}].id: {:?} is not in passages.jsonl", relevance.id));
            }
        }
        let (split, first) = *splits.entry(&dialogue.conversation_id).or_insert((dialogue.split, *line));
        if split != dialogue.split {
            let conversation = &dialogue.conversation_id;
            let message = format!(
                "split: conversation {conversation:?} is {} in line {first} and {} here: keep it in one",
                split_word(split),
                split_word(dialogue.split)
            );
            problem(*line, message);
        }
    }
}

fn split_word(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    }
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
mod tests;
