//! Copies of a store: taken while it is written to, verified before they count, put back only when told.

use std::path::Path;

use recast_config::Durability;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use crate::error::EpisodeError;
use crate::schema::{WriterLock, beside, count, open_any, open_file};

/// What a backup or a restore copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// Size of the copy.
    pub bytes: u64,
    /// Episodes of all tenants in it.
    pub episodes: u64,
}

/// Copies the store at `store` to the new file `to`, as it is at one instant, with everything that hangs on episodes. A
/// gateway may go on writing: its WAL grows meanwhile, nobody waits. A store of an older version is copied as it is.
///
/// # Errors
/// When `to` exists, the store cannot be read, or the copy fails its integrity check (then no file is left).
pub fn backup(store: &Path, to: &Path) -> Result<BackupReport, EpisodeError> {
    if to.exists() {
        return Err(EpisodeError::Exists { path: to.to_owned() });
    }
    copy(&open_any(store)?.0, store, to, || Ok(()))
}

/// Puts the backup `from` in the place of the store at `store`. A backup of an older version comes back as it is; the
/// gateway brings it up to date when it starts.
///
/// # Errors
/// When `from` is no sound store, a process writes to `store`, or `store` exists and `overwrite` is false. Whatever
/// was there stays until the verified copy takes its place.
pub fn restore(from: &Path, store: &Path, overwrite: bool) -> Result<BackupReport, EpisodeError> {
    let (source, _) = open_any(from)?;
    verify(&source, from)?;
    if let Some(dir) = store.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(EpisodeError::io(dir))?;
    }
    let lock = WriterLock::take(store)?;
    if store.exists() && !overwrite {
        return Err(EpisodeError::Exists { path: store.to_owned() });
    }
    let report = copy(&source, from, store, || settle(store))?;
    drop(lock);
    Ok(report)
}

/// Folds the WAL of the store that is about to be replaced into it, and removes it: a WAL left beside another store
/// would be replayed into that one.
fn settle(store: &Path) -> Result<(), EpisodeError> {
    if store.exists() {
        // closing the last connection folds the WAL in; one too damaged to open is going to be replaced anyway
        match open_file(store, Durability::Strict) {
            Ok(connection) => drop(connection),
            Err(error) => tracing::warn!(%error, "the store that is being replaced cannot be opened"),
        }
    }
    for suffix in ["-wal", "-shm"] {
        remove(&beside(store, suffix))?;
    }
    Ok(())
}

/// Copies to a file beside `to`, verifies and syncs that one, calls `ready`, and gives it its name.
fn copy(
    source: &Connection,
    from: &Path,
    to: &Path,
    ready: impl FnOnce() -> Result<(), EpisodeError>,
) -> Result<BackupReport, EpisodeError> {
    let part = beside(to, ".part");
    remove(&part)?;
    let copied = copy_pages(source, from, &part).and_then(|episodes| {
        ready()?;
        sync(&part)?;
        std::fs::rename(&part, to).map_err(EpisodeError::io(to))?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync(dir)?;
        let bytes = std::fs::metadata(to).map_err(EpisodeError::io(to))?.len();
        Ok(BackupReport { bytes, episodes })
    });
    if copied.is_err() {
        remove(&part)?;
    }
    copied
}

fn copy_pages(source: &Connection, from: &Path, part: &Path) -> Result<u64, EpisodeError> {
    let sqlite = EpisodeError::sqlite(part);
    let mut copy = Connection::open(part).map_err(&sqlite)?;
    {
        let backup = Backup::new(source, &mut copy).map_err(&sqlite)?;
        // all pages in one step: a writer between two steps would make the copy start again
        match backup.step(-1).map_err(&sqlite)? {
            StepResult::Done => {}
            _ => return Err(EpisodeError::InUse { path: from.to_owned() }),
        }
    }
    // one file that needs no WAL beside it
    copy.pragma_update(None, "journal_mode", "DELETE").map_err(&sqlite)?;
    verify(&copy, part)?;
    count(&copy, "SELECT count(*) FROM episodes").map_err(&sqlite)
}

/// # Errors
/// When SQLite finds damage; the first few findings are in the message.
fn verify(connection: &Connection, path: &Path) -> Result<(), EpisodeError> {
    let sqlite = EpisodeError::sqlite(path);
    let found = findings(connection, "PRAGMA integrity_check(5)").map_err(&sqlite)?;
    if found.is_empty() {
        Ok(())
    } else {
        Err(EpisodeError::Damaged { path: path.to_owned(), message: found.join("; ") })
    }
}

/// What a check pragma complains about; empty when all is well.
pub(crate) fn findings(connection: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(check)?;
    let lines = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

fn sync(path: &Path) -> Result<(), EpisodeError> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(EpisodeError::io(path))
}

fn remove(path: &Path) -> Result<(), EpisodeError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(EpisodeError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use recast_domain::TenantId;

    use super::*;
    use crate::testing::{episode, settings};
    use crate::{EpisodeFilter, EpisodeReader, EpisodeStore};

    fn tenant() -> TenantId {
        "a".parse().unwrap()
    }

    fn ids(path: &Path) -> Vec<String> {
        let found = EpisodeReader::open(path).unwrap().list(&EpisodeFilter::newest(tenant(), 1000)).unwrap();
        found.iter().map(|episode| episode.id.to_string()).collect()
    }

    #[tokio::test]
    async fn a_backup_of_a_live_store_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (live, copy) = (dir.path().join("e.db"), dir.path().join("copy.db"));
        let store = EpisodeStore::open(&live, &settings(Durability::Strict)).unwrap();
        for ms in 0..20 {
            store.append(episode("a", ms)).await.unwrap();
        }
        let report = backup(&live, &copy).unwrap();
        assert_eq!(report.episodes, 20, "what was acknowledged is in the copy, also from the WAL");
        let before = ids(&live);
        store.append(episode("a", 20)).await.unwrap();
        assert!(matches!(backup(&live, &copy), Err(EpisodeError::Exists { .. })));
        assert!(matches!(restore(&copy, &live, true), Err(EpisodeError::InUse { .. })), "a live store is not replaced");
        store.close().await;
        assert!(matches!(restore(&copy, &live, false), Err(EpisodeError::Exists { .. })));
        assert_eq!(ids(&live).len(), 21);
        assert_eq!(restore(&copy, &live, true).unwrap().episodes, 20);
        assert_eq!(ids(&live), before);
        let store = EpisodeStore::open(&live, &settings(Durability::Strict)).unwrap();
        store.append(episode("a", 21)).await.unwrap();
        store.close().await;
        assert_eq!(ids(&live).len(), 21, "a restored store takes new episodes");
    }

    #[tokio::test]
    async fn the_log_of_a_killed_store_is_not_replayed_into_the_restored_one() {
        let dir = tempfile::tempdir().unwrap();
        let (live, copy, killed) = (dir.path().join("e.db"), dir.path().join("copy.db"), dir.path().join("k.db"));
        let store = EpisodeStore::open(&live, &settings(Durability::Strict)).unwrap();
        store.append(episode("a", 0)).await.unwrap();
        backup(&live, &copy).unwrap();
        store.append(episode("a", 1)).await.unwrap();
        // the files as a kill would leave them
        for suffix in ["", "-wal"] {
            std::fs::copy(beside(&live, suffix), beside(&killed, suffix)).unwrap();
        }
        restore(&copy, &killed, true).unwrap();
        assert_eq!(ids(&killed).len(), 1);
        store.close().await;
    }

    #[tokio::test]
    async fn a_log_whose_store_is_gone_is_not_replayed_either() {
        let dir = tempfile::tempdir().unwrap();
        let (live, copy, gone) = (dir.path().join("e.db"), dir.path().join("copy.db"), dir.path().join("gone.db"));
        let store = EpisodeStore::open(&live, &settings(Durability::Strict)).unwrap();
        store.append(episode("a", 0)).await.unwrap();
        backup(&live, &copy).unwrap();
        store.append(episode("a", 1)).await.unwrap();
        std::fs::copy(beside(&live, "-wal"), beside(&gone, "-wal")).unwrap();
        restore(&copy, &gone, false).unwrap();
        assert_eq!(ids(&gone).len(), 1);
        store.close().await;
    }

    #[tokio::test]
    async fn a_damaged_backup_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (live, copy) = (dir.path().join("e.db"), dir.path().join("copy.db"));
        let store = EpisodeStore::open(&live, &settings(Durability::Strict)).unwrap();
        for ms in 0..50 {
            store.append(episode("a", ms)).await.unwrap();
        }
        backup(&live, &copy).unwrap();
        store.close().await;
        let mut bytes = std::fs::read(&copy).unwrap();
        for page in bytes.chunks_mut(4096).skip(3) {
            page[..64].fill(0xa5);
        }
        std::fs::write(&copy, bytes).unwrap();
        let error = restore(&copy, &live, true).unwrap_err();
        assert!(matches!(error, EpisodeError::Damaged { .. }), "{error}");
        assert_eq!(ids(&live).len(), 50);
    }
}
