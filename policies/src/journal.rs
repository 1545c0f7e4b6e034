//! The journal of a scope: one JSON object a line, appended and never changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use recast_domain::PolicyId;
use serde::{Deserialize, Serialize};

use crate::disk::read_if_there;
use crate::error::{PolicyError, Result};
use crate::gate::GateRecord;

/// How far back the end of the last whole line is looked for at a time.
const BLOCK: u64 = 4096;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, milliseconds since the Unix epoch, UTC.
    pub at_ms: i64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Something that happened to the policies of a scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A policy was added.
    Published {
        /// Its name.
        policy: PolicyId,
        /// BLAKE3 of its manifest.
        identity: String,
    },
    /// The active policy changed.
    Activated {
        /// The pointer's version from here on.
        version: u64,
        /// What served before; `None` for what the settings name.
        from: Option<PolicyId>,
        /// What serves now.
        to: Option<PolicyId>,
        /// Whether forward or back.
        cause: Cause,
        /// Why, in words.
        reason: String,
    },
    /// The gate decided something about a candidate.
    Gate(Box<GateRecord>),
    /// A policy is kept until it is unpinned, or no more.
    Pinned {
        /// Its name.
        policy: PolicyId,
        /// Whether it is pinned now.
        pinned: bool,
    },
    /// A policy was deleted to make room.
    Retired {
        /// Its name.
        policy: PolicyId,
    },
}

/// Which way the pointer moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// To a new policy.
    Promotion,
    /// Back to an earlier one.
    RollBack,
}

/// A journal opened for appending. The caller holds the scope's lock.
pub(crate) struct Journal<'a> {
    path: &'a Path,
    file: File,
    /// Length in bytes; whole lines only.
    pub length: u64,
}

impl<'a> Journal<'a> {
    /// Opens the journal and cuts off half a line at its end, which a crash left and nobody was told of.
    pub fn open(path: &'a Path) -> Result<Self> {
        let open = || {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let length = whole_lines(&mut file)?;
            if length < file.metadata()?.len() {
                file.set_len(length)?;
            }
            io::Result::Ok((file, length))
        };
        let (file, length) = open().map_err(PolicyError::io(path))?;
        Ok(Self { path, file, length })
    }

    /// Makes sure that `line` is what stands at `offset`: a crash may have come between pointer and journal.
    pub fn ensure_at(&mut self, offset: u64, line: &[u8]) -> Result<()> {
        let mut check = || {
            let mut found = Vec::new();
            self.file.seek(SeekFrom::Start(offset))?;
            (&mut self.file).take(line.len() as u64).read_to_end(&mut found)?;
            io::Result::Ok(found == line)
        };
        if check().map_err(PolicyError::io(self.path))? {
            return Ok(());
        }
        if self.length != offset {
            let reason = format!("its length is {}, the pointer's last move belongs at {offset}", self.length);
            return Err(PolicyError::damaged(self.path, reason));
        }
        self.append(line)
    }

    /// Adds a line and waits until it is on the disk.
    pub fn append(&mut self, line: &[u8]) -> Result<()> {
        let length = self.length;
        let mut write = || {
            self.file.seek(SeekFrom::Start(length))?;
            self.file.write_all(line)?;
            self.file.sync_all()
        };
        write().map_err(PolicyError::io(self.path))?;
        self.length += line.len() as u64;
        Ok(())
    }
}

/// Length of the file up to its last line end.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        (&mut *file).take(end - start).read_to_end(&mut block)?;
        if let Some(last) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The line of a record, with its end.
pub(crate) fn line(path: &Path, record: &Record) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)
        .map_err(|error| PolicyError::refused(path, error.to_string(), "record only values that JSON has"))?;
    line.push(b'\n');
    Ok(line)
}

/// All records, oldest first; none where there is no journal.
pub(crate) fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = read_if_there(path)?.unwrap_or_default();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let parse = |(index, line)| {
        serde_json::from_slice(line)
            .map_err(|error| PolicyError::damaged(path, format!("line {}: {error}", index + 1_usize)))
    };
    lines.enumerate().map(parse).collect()
}
