//! What an export says of itself: `manifest.json`.

use recast_domain::TenantId;
use serde::{Deserialize, Serialize};

use super::filter::ExportFilter;
use super::output::Format;
use super::source::{Drift, Snapshot};

/// Version of the columns. Raised when one changes its meaning, its type or its name; a new column leaves it.
pub const SCHEMA_VERSION: u32 = 1;
/// The manifest's name in the folder of an export.
pub(crate) const MANIFEST: &str = "manifest.json";

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it lies, from the folder of the export, with `/`.
    pub path: String,
    /// Whose episodes are in it.
    pub tenant: TenantId,
    /// How many.
    pub rows: u64,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// Episodes that an export could not read. They are in no file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnreadableRows {
    /// How many.
    pub count: u64,
    /// The first of them: tenant, id and what is wrong.
    pub first: Vec<String>,
}

/// What an export says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`] of the columns.
    pub schema_version: u32,
    /// The version of recast that wrote it.
    pub recast: String,
    /// The form of the files.
    pub format: Format,
    /// Whose episodes were asked for.
    pub tenants: Vec<TenantId>,
    /// Which of them.
    pub filter: ExportFilter,
    /// The moment of the store that it shows.
    pub snapshot: Snapshot,
    /// That moment, UTC.
    pub taken_at: String,
    /// Rows of all files.
    pub rows: u64,
    /// Creation of the oldest episode in it, UTC; `None` without rows.
    pub first_created_at: Option<String>,
    /// Creation of the newest episode in it, UTC; `None` without rows.
    pub last_created_at: Option<String>,
    /// What was left out.
    pub unreadable: UnreadableRows,
    /// Cells that were too long for the format and were cut; only workbooks have such a bound.
    pub cut_cells: u64,
    /// What was done to texts on their way out.
    pub redaction: String,
    /// How often the export was broken off and went on.
    pub resumed: u32,
    /// What changed within the snapshot between its parts; zero in an export that was not broken off.
    pub drift: Drift,
    /// The files, by tenant and in the order of their rows.
    pub files: Vec<FileEntry>,
}
