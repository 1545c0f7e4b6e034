//! The folder of a tenant's datasets: files appear whole, and `{split}_latest` points at the newest.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::export::{ExportError, replace, sync_folder, time_text};

const LOCK: &str = ".datasets.lock";
const WORK: &str = ".build";

/// A folder that one build writes to. What it makes lies below a folder of its own until it is whole.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder and removes what a build that was killed left behind.
    ///
    /// # Errors
    /// When another build writes there, or the folder cannot be written.
    pub(crate) fn take(path: PathBuf) -> Result<Self, ExportError> {
        fs::create_dir_all(&path).map_err(ExportError::io(&path))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(ExportError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let reason = "another build of a dataset writes here: wait for it, or name another folder".to_owned();
                return Err(ExportError::Folder { path, reason });
            }
            Err(fs::TryLockError::Error(source)) => return Err(ExportError::Io { path: lock_path, source }),
        }
        let folder = Self { path, _lock: lock };
        folder.sweep()?;
        let work = folder.work();
        fs::create_dir(&work).map_err(ExportError::io(&work))?;
        Ok(folder)
    }

    /// Where files lie that are not whole yet.
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join(WORK)
    }

    /// Removes everything that is not whole.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn sweep(&self) -> Result<(), ExportError> {
        let work = self.work();
        match fs::remove_dir_all(&work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ExportError::io(&work)(error)),
            _ => Ok(()),
        }
    }

    /// Gives a finished file its name.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(crate) fn publish(&self, name: &str) -> Result<(), ExportError> {
        let target = self.path.join(name);
        fs::rename(self.work().join(name), &target).map_err(ExportError::io(&target))?;
        sync_folder(&target)
    }

    /// Points `link` at `name`, a file of the same folder, at once: who opens it gets the old file or the new one.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub(crate) fn point(&self, link: &str, name: &str) -> Result<(), ExportError> {
        let (fresh, target) = (self.work().join(link), self.path.join(link));
        std::os::unix::fs::symlink(name, &fresh).map_err(ExportError::io(&fresh))?;
        fs::rename(&fresh, &target).map_err(ExportError::io(&target))?;
        sync_folder(&target)
    }

    /// Writes a small file at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, name: &str, value: &impl serde::Serialize) -> Result<(), ExportError> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        replace(&self.path.join(name), &text)
    }

    /// The first second from `now_ms` on that no file here is named after, as `20261121_090000`, UTC.
    pub(crate) fn free_stamp(&self, now_ms: i64, name: impl Fn(&str) -> String) -> String {
        let mut ms = now_ms;
        loop {
            let stamp = stamp(ms);
            if !self.path.join(name(&stamp)).exists() {
                return stamp;
            }
            ms += 1000;
        }
    }
}

/// A time as the names of files have it: `20261121_090000`, UTC.
pub(crate) fn stamp(ms: i64) -> String {
    let digits: String = time_text(ms).chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at_checked(8).unwrap_or((&digits, ""));
    format!("{day}_{}", time.get(..6).unwrap_or(time))
}
