//! Files that appear whole or not at all, and know their hash.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::ExportError;
use super::row::Row;
use super::{csv_file, jsonl, parquet_file, xlsx};

/// In which form an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet, typed, zstd; in folders by tenant and date.
    Parquet,
    /// A JSON object a line.
    Jsonl,
    /// Comma-separated, UTF-8 with a byte order mark, safe to open in a spreadsheet.
    Csv,
    /// Office Open XML workbooks.
    Xlsx,
}

impl Format {
    /// The ending of its files, without the dot; also its name.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
        }
    }

    /// Rows of a file, unless somebody asks for another number.
    #[must_use]
    pub fn rows_per_file(self) -> u64 {
        match self {
            Self::Parquet | Self::Jsonl | Self::Csv => 250_000,
            // a workbook of these rows is what a desktop still opens
            Self::Xlsx => 50_000,
        }
    }

    /// The most rows that a file of this format holds.
    #[must_use]
    pub fn rows_max(self) -> u64 {
        match self {
            Self::Parquet | Self::Jsonl | Self::Csv => 100_000_000,
            Self::Xlsx => xlsx::ROWS_MAX,
        }
    }

    /// Whether files lie in folders by date, too.
    pub(crate) fn by_date(self) -> bool {
        self == Self::Parquet
    }
}

/// Writes rows into one file.
pub(crate) trait Encoder {
    /// # Errors
    /// When the file cannot be written.
    fn row(&mut self, row: &Row<'_>) -> Result<(), ExportError>;

    /// Writes what is left. Returns the file and how many cells had to be cut.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn finish(self: Box<Self>) -> Result<(HashedFile, u64), ExportError>;
}

/// Bytes that are collected before they are hashed and written.
const BUFFER: usize = 256 << 10;

/// A new file that hashes what it is given.
#[derive(Debug)]
pub(crate) struct HashedFile {
    file: BufWriter<Hashing>,
}

#[derive(Debug)]
struct Hashing {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl HashedFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = Hashing { file: File::create(path)?, hash: Sha256::new(), bytes: 0 };
        Ok(Self { file: BufWriter::with_capacity(BUFFER, file) })
    }

    /// Brings everything to the disk. Returns the length in bytes and the SHA-256 in hex.
    pub(crate) fn finish(self) -> io::Result<(u64, String)> {
        let Hashing { file, hash, bytes } = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok((bytes, hex(&hash.finalize())))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file on its way: written under a temporary name, renamed once it is whole.
pub struct FileWriter {
    encoder: Box<dyn Encoder>,
    path: PathBuf,
    temporary: PathBuf,
}

/// The ending of files that are not whole yet.
pub(crate) const TEMPORARY: &str = "part";

impl FileWriter {
    /// Begins the file at `path`; its folder is made where it is missing.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: PathBuf, format: Format) -> Result<Self, ExportError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ExportError::io(folder))?;
        }
        let temporary = path.with_extension(format!("{}.{TEMPORARY}", format.ending()));
        let file = HashedFile::create(&temporary).map_err(ExportError::io(&temporary))?;
        let encoder: Box<dyn Encoder> = match format {
            Format::Parquet => Box::new(parquet_file::ParquetFile::new(file)?),
            Format::Jsonl => Box::new(jsonl::JsonLines::new(file)),
            Format::Csv => Box::new(csv_file::CsvFile::new(file)?),
            Format::Xlsx => Box::new(xlsx::Workbook::new(file)?),
        };
        Ok(Self { encoder, path, temporary })
    }

    fn name(&self, error: ExportError) -> ExportError {
        match error {
            ExportError::Io { source, .. } => ExportError::Io { path: self.temporary.clone(), source },
            other => other,
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn row(&mut self, row: &Row<'_>) -> Result<(), ExportError> {
        self.encoder.row(row).map_err(|error| self.name(error))
    }

    /// Writes what is left and gives the file its name. Returns its length in bytes, its SHA-256 in hex, and how many
    /// cells had to be cut.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<(u64, String, u64), ExportError> {
        let Self { encoder, path, temporary } = self;
        let named = |error| match error {
            ExportError::Io { source, .. } => ExportError::Io { path: temporary.clone(), source },
            other => other,
        };
        let (file, cut) = encoder.finish().map_err(named)?;
        let (bytes, hash) = file.finish().map_err(ExportError::io(&temporary))?;
        fs::rename(&temporary, &path).map_err(ExportError::io(&path))?;
        sync_folder(&path)?;
        Ok((bytes, hash, cut))
    }
}

/// Makes the name of a file in its folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), ExportError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ExportError::io(folder))
}

/// Replaces a small file at once.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<(), ExportError> {
    let fresh = path.with_extension("new");
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    written.map_err(ExportError::io(&fresh))?;
    fs::rename(&fresh, path).map_err(ExportError::io(path))?;
    sync_folder(path)
}
