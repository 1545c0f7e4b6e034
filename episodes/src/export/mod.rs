//! Exports for analysts: one flat, typed row an episode, with everything that hangs on it.
//!
//! [`COLUMNS`] is the one table of columns; every format, the data dictionary and the pages of the HTTP API are made
//! from it. [`export`] writes files that a kill cannot spoil: each appears under its name once it is whole, and an
//! export that was broken off goes on where it was. [`page`] gives a page of the same rows as JSON lines.

mod body;
mod columns;
mod csv_file;
mod error;
mod filter;
mod job;
mod jsonl;
mod manifest;
mod output;
mod page;
mod parquet_file;
mod row;
mod sheet;
mod sides;
mod source;
mod state;
mod time;
mod value;
mod xlsx;
mod zip;

#[cfg(test)]
mod tests;

pub(crate) use body::RewriteText;
pub use columns::{COLUMNS, dictionary};
pub use error::ExportError;
pub use filter::{ExportFilter, FeedbackWanted, TagWanted};
pub use job::{ExportRequest, Progress, export};
pub use manifest::{FileEntry, Manifest, SCHEMA_VERSION};
pub use output::{FileWriter, Format};
pub(crate) use output::{HashedFile, replace, sync_folder};
pub use page::{ExportPage, page};
pub use row::Row;
pub(crate) use sheet::letters;
#[cfg(test)]
pub(crate) use sheet::push_escaped;
pub use source::{Snapshot, Source};
pub(crate) use time::date_text;
pub use time::{parse_time, time_text};
pub use value::{Column, Kind, Value};
pub(crate) use xlsx::Workbook;
#[cfg(test)]
pub(crate) use zip::ZipWriter;
