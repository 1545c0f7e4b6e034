//! Reads test collections: BEIR folders (`corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`) and TREC files.
use std::collections::BTreeMap;
use std::path::Path;

use recast_domain::{Metadata, PassageRecord};
use serde::Deserialize;

use crate::error::RetrievalError;
use crate::eval::metrics::Grades;

/// A test collection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Collection {
    /// What is searched.
    pub passages: Vec<PassageRecord>,
    /// Queries by id.
    pub queries: BTreeMap<String, String>,
    /// Grades by query id.
    pub qrels: BTreeMap<String, Grades>,
}

#[derive(Deserialize)]
struct BeirRow {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: String,
    text: String,
    #[serde(default)]
    metadata: Metadata,
}

fn read(path: &Path) -> Result<String, RetrievalError> {
    std::fs::read_to_string(path).map_err(|error| RetrievalError::File {
        at: path.display().to_string(),
        message: format!("cannot be read: {error}"),
    })
}

fn fault(path: &Path, line: usize, message: impl Into<String>) -> RetrievalError {
    RetrievalError::File { at: format!("{}:{line}", path.display()), message: message.into() }
}

fn beir_rows(path: &Path) -> Result<Vec<BeirRow>, RetrievalError> {
    let text = read(path)?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| serde_json::from_str(line).map_err(|error| fault(path, number, error.to_string())))
        .collect()
}

/// Reads a BEIR folder; `split` names the file in `qrels/` (usually `test`).
///
/// # Errors
/// A file that is missing or malformed, with its line.
pub fn read_beir(folder: &Path, split: &str) -> Result<Collection, RetrievalError> {
    let passage = |row: BeirRow| PassageRecord {
        doc_id: row.id.clone(),
        id: row.id,
        title: row.title,
        text: row.text,
        source: String::new(),
        metadata: row.metadata,
    };
    Ok(Collection {
        passages: beir_rows(&folder.join("corpus.jsonl"))?.into_iter().map(passage).collect(),
        queries: beir_rows(&folder.join("queries.jsonl"))?.into_iter().map(|row| (row.id, row.text)).collect(),
        qrels: read_qrels(&folder.join("qrels").join(format!("{split}.tsv")))?,
    })
}

/// Reads labels: TREC (`query 0 document grade`) or BEIR (`query document grade`, with a header), white space apart.
/// Negative grades count as 0.
///
/// # Errors
/// A file that is missing or malformed, with its line.
pub fn read_qrels(path: &Path) -> Result<BTreeMap<String, Grades>, RetrievalError> {
    let text = read(path)?;
    let mut qrels: BTreeMap<String, Grades> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (query, document, grade) = match columns[..] {
            [] => continue,
            ["query-id", ..] if number == 1 => continue,
            [query, document, grade] | [query, _, document, grade] => (query, document, grade),
            _ => return Err(fault(path, number, format!("expected 3 or 4 columns, found {}", columns.len()))),
        };
        let grade: i64 =
            grade.parse().map_err(|_| fault(path, number, format!("grade {grade:?} is not a whole number")))?;
        let grade = u32::try_from(grade.max(0)).unwrap_or(u32::MAX);
        qrels.entry(query.to_owned()).or_default().insert(document.to_owned(), grade);
    }
    Ok(qrels)
}

/// Reads a TREC run (`query Q0 document rank score tag`): scored documents by query.
///
/// # Errors
/// A file that is missing or malformed, with its line.
pub fn read_run(path: &Path) -> Result<BTreeMap<String, Vec<(String, f64)>>, RetrievalError> {
    let text = read(path)?;
    let mut run: BTreeMap<String, Vec<(String, f64)>> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (query, document, score) = match columns[..] {
            [] => continue,
            [query, _, document, _, score, _] => (query, document, score),
            _ => return Err(fault(path, number, format!("expected 6 columns, found {}", columns.len()))),
        };
        let score = score.parse().map_err(|_| fault(path, number, format!("score {score:?} is not a number")))?;
        run.entry(query.to_owned()).or_default().push((document.to_owned(), score));
    }
    Ok(run)
}

/// Reads a TREC collection: `queries.tsv` (`id<TAB>text`), `qrels.txt`, and `passages.jsonl` or `collection.tsv`
/// (`id<TAB>text`).
///
/// # Errors
/// A file that is missing or malformed, with its line.
pub fn read_trec(folder: &Path) -> Result<Collection, RetrievalError> {
    let tsv = |path: &Path| -> Result<Vec<(String, String)>, RetrievalError> {
        let text = read(path)?;
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(number, line)| {
                let pair =
                    line.split_once('\t').ok_or_else(|| fault(path, number, "expected an id, a tab and a text"))?;
                Ok((pair.0.trim().to_owned(), pair.1.trim().to_owned()))
            })
            .collect()
    };
    let passage = |(id, text): (String, String)| PassageRecord {
        doc_id: id.clone(),
        id,
        title: String::new(),
        text,
        source: String::new(),
        metadata: Metadata::new(),
    };
    Ok(Collection {
        passages: tsv(&folder.join("collection.tsv"))?.into_iter().map(passage).collect(),
        queries: tsv(&folder.join("queries.tsv"))?.into_iter().collect(),
        qrels: read_qrels(&folder.join("qrels.txt"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beir_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("qrels")).unwrap();
        write("corpus.jsonl", "{\"_id\":\"d1\",\"title\":\"T\",\"text\":\"x\"}\n\n");
        write("queries.jsonl", "{\"_id\":\"q1\",\"text\":\"what\"}\n");
        write("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\n");
        let collection = read_beir(folder.path(), "test").unwrap();
        assert_eq!(collection.passages[0].title, "T");
        assert_eq!(collection.qrels["q1"]["d1"], 2);
        write("corpus.jsonl", "{\"_id\":\"d1\"}\n");
        let error = read_beir(folder.path(), "test").unwrap_err().to_string();
        assert!(error.contains("corpus.jsonl:1") && error.contains("text"), "{error}");
    }

    #[test]
    fn trec_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("collection.tsv", "d1\tsome text\n");
        write("queries.tsv", "q1\twhat\n");
        write("qrels.txt", "q1 0 d1 -1\nq1 0 d2 3\n");
        write("run.txt", "q1 Q0 d2 1 0.5 mine\n");
        let collection = read_trec(folder.path()).unwrap();
        assert_eq!((collection.qrels["q1"]["d1"], collection.qrels["q1"]["d2"]), (0, 3));
        let run = read_run(&folder.path().join("run.txt")).unwrap();
        assert_eq!(run["q1"], [("d2".to_owned(), 0.5)]);
        write("qrels.txt", "q1 d1\n");
        assert!(read_trec(folder.path()).unwrap_err().to_string().contains("qrels.txt:1"));
    }
}
