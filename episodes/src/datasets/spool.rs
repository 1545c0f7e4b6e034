//! Samples on their way: kept on the disk until it is known how many there are.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use super::sample::Sample;
use crate::export::ExportError;

/// Samples of one split in the order in which they came.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: BufWriter<File>,
    /// How many there are.
    pub rows: u64,
}

impl Spool {
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn create(path: PathBuf) -> Result<Self, ExportError> {
        let file = BufWriter::new(File::create(&path).map_err(ExportError::io(&path))?);
        Ok(Self { path, file, rows: 0 })
    }

    /// # Errors
    /// When the disk refuses.
    pub(crate) fn push(&mut self, sample: &Sample) -> Result<(), ExportError> {
        serde_json::to_writer(&mut self.file, sample)?;
        self.file.write_all(b"\n").map_err(ExportError::io(&self.path))?;
        self.rows += 1;
        Ok(())
    }

    /// Shows all samples to `visit`, in order.
    ///
    /// # Errors
    /// When the file cannot be read, and those of `visit`.
    pub(crate) fn each(&mut self, mut visit: impl FnMut(Sample) -> Result<(), ExportError>) -> Result<(), ExportError> {
        self.file.flush().map_err(ExportError::io(&self.path))?;
        let file = File::open(&self.path).map_err(ExportError::io(&self.path))?;
        for line in BufReader::new(file).lines() {
            visit(serde_json::from_str(&line.map_err(ExportError::io(&self.path))?)?)?;
        }
        Ok(())
    }
}
