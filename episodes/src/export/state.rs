//! Where an export stands: a small file in its folder, replaced after each finished file, gone when all is done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use recast_domain::{EpisodeId, TenantId};
use serde::{Deserialize, Serialize};

use super::error::ExportError;
use super::filter::ExportFilter;
use super::manifest::{FileEntry, MANIFEST, UnreadableRows};
use super::output::{Format, TEMPORARY, replace};
use super::source::{Drift, Snapshot};

const STATE: &str = "export.state.json";
const LOCK: &str = "export.lock";

/// What decides which bytes an export holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub schema_version: u32,
    pub recast: String,
    pub columns: Vec<String>,
    pub format: Format,
    pub tenants: Vec<TenantId>,
    pub filter: ExportFilter,
    pub rows_per_file: u64,
}

/// How far it has come: everything up to `after` of the tenant at `tenant` is in finished files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub plan: Plan,
    pub snapshot: Snapshot,
    pub tenant: usize,
    pub after: Option<EpisodeId>,
    pub part: u64,
    pub rows: u64,
    pub first_ms: Option<i64>,
    pub last_ms: Option<i64>,
    pub cut_cells: u64,
    pub unreadable: UnreadableRows,
    pub resumed: u32,
    pub drift: Drift,
    pub files: Vec<FileEntry>,
}

/// The folder of one export; nobody else writes to it meanwhile.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes a folder for an export: an empty one, or one that an export was broken off in and may go on.
    ///
    /// # Errors
    /// When it holds something else, or another export writes to it.
    pub(crate) fn take(path: &Path, resume: bool) -> Result<(Self, Option<State>), ExportError> {
        let refuse = |reason: &str| ExportError::Folder { path: path.to_owned(), reason: reason.to_owned() };
        fs::create_dir_all(path).map_err(ExportError::io(path))?;
        let lock_path = path.join(LOCK);
        let others = others(path)?;
        let lock = File::create(&lock_path).map_err(ExportError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(refuse("another export writes here: wait for it")),
            Err(fs::TryLockError::Error(source)) => return Err(ExportError::Io { path: lock_path, source }),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        if path.join(MANIFEST).exists() {
            folder.unlock()?;
            return Err(refuse("a finished export lies here: name another folder"));
        }
        let state = path.join(STATE);
        match (state.exists(), resume) {
            (true, false) => Err(refuse("an export was broken off here: resume it, or name another folder")),
            (true, true) => {
                let text = fs::read(&state).map_err(ExportError::io(&state))?;
                let state = serde_json::from_slice(&text)
                    .map_err(|error| refuse(&format!("{STATE} cannot be read ({error}): start in another folder")))?;
                Ok((folder, Some(state)))
            }
            // broken off before it began is no different from not begun
            (false, _) if others => {
                folder.unlock()?;
                Err(refuse("the folder is not empty: name an empty one"))
            }
            (false, _) => Ok((folder, None)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self, state: &State) -> Result<(), ExportError> {
        replace(&self.path.join(STATE), &serde_json::to_vec_pretty(state)?)
    }

    /// Removes what was being written when the export broke off.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn sweep(&self) -> Result<(), ExportError> {
        sweep(&self.path)
    }

    /// Writes the manifest; from then on the export is finished.
    ///
    /// # Errors
    /// When a file cannot be written or removed.
    pub(crate) fn close(self, manifest: &[u8]) -> Result<(), ExportError> {
        replace(&self.path.join(MANIFEST), manifest)?;
        let state = self.path.join(STATE);
        fs::remove_file(&state).map_err(ExportError::io(&state))?;
        self.unlock()
    }

    fn unlock(self) -> Result<(), ExportError> {
        let lock = self.path.join(LOCK);
        fs::remove_file(&lock).map_err(ExportError::io(&lock))
    }
}

/// Whether the folder holds anything of somebody else's.
fn others(path: &Path) -> Result<bool, ExportError> {
    let mine = [LOCK, STATE, "export.state.new", MANIFEST, "manifest.new"];
    for entry in fs::read_dir(path).map_err(ExportError::io(path))? {
        let name = entry.map_err(ExportError::io(path))?.file_name();
        if !mine.iter().any(|known| name == *known) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sweep(folder: &Path) -> Result<(), ExportError> {
    for entry in fs::read_dir(folder).map_err(ExportError::io(folder))? {
        let path = entry.map_err(ExportError::io(folder))?.path();
        if path.is_dir() {
            sweep(&path)?;
        } else if path.extension().is_some_and(|ending| ending == TEMPORARY) {
            fs::remove_file(&path).map_err(ExportError::io(&path))?;
        }
    }
    Ok(())
}
