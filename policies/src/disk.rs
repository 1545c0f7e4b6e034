//! Files that survive a crash: whole or absent, and found again after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::error::{PolicyError, Result};

/// A point at which a crash must leave nothing half visible. Tests stop or kill the writer there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// The temporary folder of a policy exists and is empty.
    FolderMade,
    /// One file of the policy was copied.
    FileCopied,
    /// The manifest was written.
    ManifestWritten,
    /// All of it is on the disk, under the temporary name.
    FolderSynced,
    /// The policy has its name; its parent folder was not synced yet.
    FolderNamed,
    /// The new pointer lies beside the old one.
    PointerWritten,
    /// The new pointer is in force; the journal does not know yet.
    PointerMoved,
    /// The journal has the line; it was not synced yet.
    JournalWritten,
    /// A retired policy lost its name; its files are still there.
    Retired,
}

/// Runs at every step. Nothing in production.
pub(crate) type Hook = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// Writes `bytes` to a new file and waits until they are on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(PolicyError::io(path))
}

/// Puts `bytes` where a file is, or is not yet: readers see the old content or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    write_synced(&beside, bytes)?;
    fs::rename(&beside, path).map_err(PolicyError::io(path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Waits until the names in a folder are on the disk.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(PolicyError::io(path))
}

/// Creates a folder and those above it, and makes their names durable.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(PolicyError::io(path))?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_folder(parent),
        None => Ok(()),
    }
}

/// The bytes of a file; `None` where there is none.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PolicyError::Io { path: path.to_owned(), source }),
    }
}

/// An exclusive lock on a file, across threads and processes. The system lets go of it when the holder dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock. Every call opens the file anew, so that two threads of one process exclude each other too.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            file.lock()?;
            Ok(file)
        };
        open().map(|file| Self { _file: file }).map_err(PolicyError::io(path))
    }
}
