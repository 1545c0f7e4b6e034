//! What can be put right in a store by itself: runs that nobody will end, and what hangs on no episode.

use std::path::Path;

use recast_config::EpisodeSettings;
use rusqlite::Connection;

use crate::error::EpisodeError;
use crate::ledger;
use crate::schema::{WriterLock, count, open_file};

/// The tables whose rows hang on episodes, and which of their rows must have one: feedback may come first.
const HANGING: [(&str, &str); 5] = [
    ("shadow_runs", "true"),
    ("feedback", "deferred = 0"),
    ("verdicts", "true"),
    ("rewards", "true"),
    ("labels", "true"),
];

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairReport {
    /// Shadow runs of an earlier process, now counted as dropped.
    pub runs_dropped: usize,
    /// Rows that hung on no episode, now deleted.
    pub orphans_deleted: usize,
}

/// Brings the store at `path` up to date, ends the shadow runs that an earlier process left behind, and deletes what
/// hangs on no episode. Damage of the file is not repaired: restore a backup.
///
/// # Errors
/// When there is no store, a process writes to it, or it cannot be written.
pub fn repair(path: &Path, settings: &EpisodeSettings) -> Result<RepairReport, EpisodeError> {
    if !path.is_file() {
        return Err(EpisodeError::Missing { path: path.to_owned() });
    }
    let lock = WriterLock::take(path)?;
    let mut connection = open_file(path, settings.durability)?;
    let report = put_right(&mut connection).map_err(EpisodeError::sqlite(path))?;
    // the last connection folds the log in as it closes; only then may another process write
    drop(connection);
    drop(lock);
    Ok(report)
}

fn put_right(connection: &mut Connection) -> rusqlite::Result<RepairReport> {
    let transaction = connection.transaction()?;
    let mut report = RepairReport { runs_dropped: transaction.execute(ledger::SWEEP, [])?, orphans_deleted: 0 };
    for (table, which) in HANGING {
        report.orphans_deleted += transaction.execute(&["DELETE ", &orphans(table, which)].concat(), [])?;
    }
    transaction.commit()?;
    Ok(report)
}

/// Tables with rows that hang on no episode, with their number.
///
/// # Errors
/// When SQLite fails.
pub(crate) fn count_orphans(connection: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
    let mut found = Vec::new();
    for (table, which) in HANGING {
        let orphans = count(connection, &["SELECT count(*) ", &orphans(table, which)].concat())?;
        if orphans > 0 {
            found.push((table, orphans));
        }
    }
    Ok(found)
}

fn orphans(table: &str, which: &str) -> String {
    format!(
        "FROM {table} AS one WHERE {which}
            AND NOT EXISTS (SELECT 1 FROM episodes WHERE tenant = one.tenant AND id = one.episode)"
    )
}
