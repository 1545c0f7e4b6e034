//! What a batch run has answered so far, so that one that was broken off goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use recast_episodes::datasets::workbook::{BatchRow, Question};
use serde::{Deserialize, Serialize};

/// One row with what came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The row of the workbook.
    #[serde(flatten)]
    pub row: BatchRow,
    /// The episode that the gateway wrote.
    pub episode_id: Option<String>,
    /// Why there is no answer; `None` where there is one.
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    number: usize,
    answered: Answered,
}

/// Answered rows, appended one by one to a file that names its test set.
pub struct Journal {
    path: PathBuf,
    file: File,
    answered: BTreeMap<usize, Answered>,
    questions: usize,
}

impl Journal {
    /// Begins a journal, or goes on with one of the same test set. Rows without an answer are asked again.
    ///
    /// # Errors
    /// When there is a journal and nobody said to go on, or it is of another test set.
    pub fn open(path: &Path, questions: &[Question], resume: bool) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let test_set = format!("test set {}", blake3::hash(&serde_json::to_vec(questions)?).to_hex());
        let mut answered = BTreeMap::new();
        if path.exists() {
            if !resume {
                bail!("{name}: a run was broken off here: go on with --resume, or remove the file");
            }
            let text = std::fs::read(path).with_context(|| name.clone())?;
            let mut lines = text.split(|byte| *byte == b'\n');
            if lines.next() != Some(test_set.as_bytes()) {
                bail!("{name}: is of another test set: remove it, or name another --out");
            }
            // the last line may have been broken off
            for line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
                if line.answered.error.is_none() && line.number < questions.len() {
                    answered.insert(line.number, line.answered);
                }
            }
        }
        // written anew beside it, so that what was broken off is gone and nothing else can get lost
        let fresh = path.with_extension("progress.new");
        let mut journal = Self {
            path: path.to_owned(),
            file: File::create(&fresh).with_context(|| fresh.display().to_string())?,
            answered: BTreeMap::new(),
            questions: questions.len(),
        };
        writeln!(journal.file, "{test_set}").with_context(|| name.clone())?;
        for (number, row) in &answered {
            journal.push(*number, row)?;
        }
        std::fs::rename(&fresh, path).with_context(|| name)?;
        Ok(journal)
    }

    /// Whether a row is answered.
    pub fn has(&self, number: usize) -> bool {
        self.answered.contains_key(&number)
    }

    /// Enters a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, number: usize, answered: &Answered) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(&Line { number, answered: answered.clone() })?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).with_context(|| self.path.display().to_string())?;
        self.answered.insert(number, answered.clone());
        Ok(())
    }

    /// All rows, in the order of the test set.
    ///
    /// # Errors
    /// When some are not answered yet.
    pub fn rows(&self) -> anyhow::Result<Vec<Answered>> {
        if self.answered.len() < self.questions {
            bail!("{} of {} rows are answered: go on with --resume", self.answered.len(), self.questions);
        }
        Ok(self.answered.values().cloned().collect())
    }

    /// Removes the file once everything is written.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(query: &str) -> Question {
        Question { query: query.to_owned(), ..Question::default() }
    }

    fn answered(query: &str, error: Option<&str>) -> Answered {
        let row = BatchRow { original_query: query.to_owned(), ..BatchRow::default() };
        Answered { row, episode_id: Some("e".to_owned()), error: error.map(str::to_owned) }
    }

    #[test]
    fn a_run_goes_on_where_it_was_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test_sft.progress");
        let set = [question("a"), question("b"), question("c")];
        let mut first = Journal::open(&path, &set, false).unwrap();
        first.push(1, &answered("b", None)).unwrap();
        first.push(0, &answered("a", Some("no answer"))).unwrap();
        assert!(first.rows().is_err());
        drop(first);
        let mut text = std::fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"number\":2,\"answ");
        std::fs::write(&path, text).unwrap();
        assert!(Journal::open(&path, &set, false).is_err());
        assert!(Journal::open(&path, &set[..2], true).is_err());
        let mut second = Journal::open(&path, &set, true).unwrap();
        assert_eq!([0, 1, 2].map(|number| second.has(number)), [false, true, false]);
        second.push(2, &answered("c", None)).unwrap();
        second.push(0, &answered("a", None)).unwrap();
        let rows: Vec<_> = second.rows().unwrap().into_iter().map(|one| one.row.original_query).collect();
        assert_eq!(rows, ["a", "b", "c"]);
        second.remove().unwrap();
        assert!(!path.exists());
    }
}
