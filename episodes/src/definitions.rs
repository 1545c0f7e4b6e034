//! Definitions of experiments. To this crate they are texts with versions; they belong to no tenant.

use crate::db::{self, Connection, Row};
use crate::error::EpisodeError;
use crate::reader::EpisodeReader;
use crate::write::Written;

const LATEST: &str = "SELECT version FROM experiments WHERE id = ?1 ORDER BY version DESC LIMIT 1";
const INSERT: &str = "INSERT INTO experiments (id, version, definition, created_ms, author, note)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id, version) DO NOTHING";

/// A new definition of an experiment, as it is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExperimentChange {
    /// The experiment's id.
    pub id: String,
    /// The definition as JSON text; not looked into.
    pub definition: String,
    /// The version that this change was made for: another one in the store is a conflict. 0 says that there must be
    /// none yet; `None` saves whatever is there.
    pub expected_version: Option<u32>,
    /// When it was made, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
    /// Id of the key that made it, or what else did (`configuration`, `guardrail`).
    pub author: String,
    /// Why, in the author's words; may be empty.
    pub note: String,
}

/// One stored version of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ExperimentRecord {
    /// The experiment's id.
    pub id: String,
    /// 1 for the first; every change makes the next.
    pub version: u32,
    /// The definition as JSON text.
    pub definition: String,
    /// When it was made, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
    /// Id of the key that made it, or what else did.
    pub author: String,
    /// Why.
    pub note: String,
}

/// # Errors
/// When the database fails.
pub(crate) fn save(connection: &Connection, change: &ExperimentChange) -> db::Result<Written> {
    loop {
        let latest: Option<u32> = connection.first(LATEST, &[(&change.id).into()], |row| row.get(0))?;
        let found = latest.unwrap_or(0);
        if change.expected_version.is_some_and(|expected| expected != found) {
            return Ok(Written::Stale { found });
        }
        let version = found + 1;
        let values = [
            (&change.id).into(),
            version.into(),
            (&change.definition).into(),
            change.created_ms.into(),
            (&change.author).into(),
            (&change.note).into(),
        ];
        // another gateway may have saved this version since it was looked for: then look again
        if connection.execute(INSERT, &values)? > 0 {
            return Ok(Written::Version(version));
        }
    }
}

fn record(row: Row<'_>) -> db::Result<ExperimentRecord> {
    Ok(ExperimentRecord {
        id: row.get(0)?,
        version: row.get(1)?,
        definition: row.get(2)?,
        created_ms: row.get(3)?,
        author: row.get(4)?,
        note: row.get(5)?,
    })
}

impl EpisodeReader {
    /// The latest version of every experiment, by id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn experiments(&self) -> Result<Vec<ExperimentRecord>, EpisodeError> {
        self.read(|connection| {
            let sql = "SELECT id, version, definition, created_ms, author, note FROM experiments AS one
                WHERE version = (SELECT max(version) FROM experiments WHERE id = one.id) ORDER BY id";
            connection.query(sql, &[], record)
        })
    }

    /// All versions of one experiment, the first one first; empty where there is no such experiment.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn experiment_versions(&self, id: &str) -> Result<Vec<ExperimentRecord>, EpisodeError> {
        self.read(|connection| {
            let sql = "SELECT id, version, definition, created_ms, author, note FROM experiments
                WHERE id = ?1 ORDER BY version";
            connection.query(sql, &[id.into()], record)
        })
    }
}
