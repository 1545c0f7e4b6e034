//! The version of the tables, and how a connection is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use recast_config::Durability;
use rusqlite::{Connection, OpenFlags};

use crate::db::{self, Place};
use crate::error::EpisodeError;
use crate::migrations::MIGRATIONS;

/// The version that this build reads and writes.
pub(crate) const SCHEMA_VERSION: u32 = 4;
const _: () = assert!(MIGRATIONS.len() == SCHEMA_VERSION as usize);

/// Another connection may hold a lock for a moment (a checkpoint, a reader that recovers); longer means trouble.
const BUSY: Duration = Duration::from_secs(2);

/// The file beside `path` with `suffix` appended to its name (`episodes.db` -> `episodes.db-wal`).
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The version in the file; 0 for an empty one.
///
/// # Errors
/// When SQLite cannot read the file.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The one number that `sql` yields, where it counts something.
///
/// # Errors
/// When SQLite fails.
pub(crate) fn count(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    let count: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Opens an existing store for reading.
///
/// # Errors
/// When there is no store, or it is not of this version.
pub(crate) fn open_reader(place: &Place) -> Result<db::Connection, EpisodeError> {
    match place {
        Place::File(path) => open_file_reader(path).map(db::Connection::from),
        Place::Server(url) => crate::postgres::open_reader(url),
    }
}

/// Opens (or makes) a file for its one writer, and brings it to the current version.
///
/// # Errors
/// When the file is not a store, is of a newer version, or cannot be written.
pub(crate) fn open_file(path: &Path, durability: Durability) -> Result<Connection, EpisodeError> {
    let sqlite = EpisodeError::sqlite(path);
    let mut connection = Connection::open(path).map_err(&sqlite)?;
    prepare(&connection, durability).map_err(&sqlite)?;
    let found = version(&connection).map_err(&sqlite)?;
    if found > SCHEMA_VERSION {
        return Err(newer(path, found));
    }
    for (from, migration) in (0..).zip(MIGRATIONS).skip(found as usize) {
        let step = connection.transaction().map_err(&sqlite)?;
        step.execute_batch(migration).map_err(&sqlite)?;
        step.pragma_update(None, "user_version", from + 1).map_err(&sqlite)?;
        step.commit().map_err(&sqlite)?;
    }
    Ok(connection)
}

fn prepare(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    // must precede the first table; lets a store under its bound give space back in small steps
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Strict => "FULL",
        Durability::Group => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // a reader that stays long lets the WAL grow; give that space back afterwards
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // the statements of the writer, with some to spare
    connection.set_prepared_statement_cache_capacity(48);
    connection.pragma_update(None, "cache_size", -16_384)
}

/// Opens an existing file for reading. Read-only connections never checkpoint, so the writer stays the only one.
///
/// # Errors
/// When there is no store, or it is not of this version.
pub(crate) fn open_file_reader(path: &Path) -> Result<Connection, EpisodeError> {
    let (connection, found) = open_any(path)?;
    if found == SCHEMA_VERSION { Ok(connection) } else { Err(older(path, found)) }
}

/// Opens an existing store of this version or an older one for reading, as a copy of it needs no more. Returns its
/// version, too.
///
/// # Errors
/// When there is no store, or it is of a newer version.
pub(crate) fn open_any(path: &Path) -> Result<(Connection, u32), EpisodeError> {
    if !path.is_file() {
        return Err(EpisodeError::Missing { path: path.to_owned() });
    }
    let sqlite = EpisodeError::sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(&sqlite)?;
    connection.busy_timeout(BUSY).map_err(&sqlite)?;
    connection.set_prepared_statement_cache_capacity(32);
    match version(&connection).map_err(&sqlite)? {
        // an empty file: a database to SQLite, and nothing to copy
        0 => Err(older(path, 0)),
        found if found > SCHEMA_VERSION => Err(newer(path, found)),
        found => Ok((connection, found)),
    }
}

fn older(path: &Path, found: u32) -> EpisodeError {
    let fix = "start the gateway once, it brings the store up to date";
    EpisodeError::Schema { path: path.to_owned(), found, known: SCHEMA_VERSION, fix }
}

fn newer(path: &Path, found: u32) -> EpisodeError {
    EpisodeError::Schema { path: path.to_owned(), found, known: SCHEMA_VERSION, fix: "update recast" }
}

/// The right to write: a lock on a file beside the store. The system gives it back when the process ends, however.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: std::fs::File,
}

/// `doctor` holds the lock for an instant to see whether it is free; a writer that starts just then waits it out.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

impl WriterLock {
    /// # Errors
    /// When another process (or another store in this one) holds it.
    pub(crate) fn take(path: &Path) -> Result<Self, EpisodeError> {
        let lock = beside(path, ".lock");
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(&lock);
        let file = file.map_err(EpisodeError::io(&lock))?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(std::fs::TryLockError::WouldBlock) => std::thread::park_timeout(LOCK_PAUSE),
                Err(std::fs::TryLockError::Error(source)) => return Err(EpisodeError::Io { path: lock, source }),
            }
        }
        Err(EpisodeError::InUse { path: path.to_owned() })
    }
}

impl Drop for WriterLock {
    /// Closing the file is not enough: a child process that was just forked shares the lock until it runs its program.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the episode store's lock is given back when this process ends");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_store_is_of_the_current_version_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        for _ in 0..2 {
            assert_eq!(version(&open_file(&path, Durability::Strict).unwrap()).unwrap(), SCHEMA_VERSION);
        }
        assert!(open_file_reader(&path).is_ok());
    }

    #[test]
    fn strict_commits_reach_the_disk_and_space_can_be_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_file(&dir.path().join("e.db"), Durability::Strict).unwrap();
        let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("PRAGMA synchronous"), 2, "FULL");
        assert_eq!(number("PRAGMA auto_vacuum"), 2, "INCREMENTAL");
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }

    #[test]
    fn a_newer_store_is_refused_by_both_doors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        let connection = open_file(&path, Durability::Strict).unwrap();
        connection.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
        drop(connection);
        assert!(matches!(open_file(&path, Durability::Strict), Err(EpisodeError::Schema { .. })));
        assert!(open_file_reader(&path).unwrap_err().to_string().ends_with("update recast"));
    }

    #[test]
    fn what_is_no_store_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        assert!(matches!(open_file_reader(&path), Err(EpisodeError::Missing { .. })));
        std::fs::write(&path, "this is a text and no database at all".repeat(40)).unwrap();
        assert!(matches!(open_file(&path, Durability::Strict), Err(EpisodeError::Damaged { .. })));
        assert!(matches!(open_file_reader(&path), Err(EpisodeError::Damaged { .. })));
    }

    #[test]
    fn only_one_writer_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        let first = WriterLock::take(&path).unwrap();
        assert!(matches!(WriterLock::take(&path), Err(EpisodeError::InUse { .. })));
        // what a fork does: a second handle on the same lock outlives the first
        let shared = first.file.try_clone().unwrap();
        drop(first);
        assert!(WriterLock::take(&path).is_ok());
        drop(shared);
    }
}
