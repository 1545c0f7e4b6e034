//! An export, from the first row to the manifest.
//!
//! Files are cut by what is in them (rows, tenant, date), never by time or chance, so that an export that was broken
//! off and went on holds the same bytes as one that was left in peace.

use std::ops::ControlFlow;
use std::path::PathBuf;

use recast_domain::{EpisodeId, TenantId};
use uuid::Uuid;

use super::columns::COLUMNS;
use super::error::ExportError;
use super::filter::ExportFilter;
use super::manifest::{FileEntry, Manifest, SCHEMA_VERSION, UnreadableRows};
use super::output::{FileWriter, Format};
use super::row::Row;
use super::source::{Drift, Source, Unreadable};
use super::state::{Folder, Plan, State};
use super::time::{DAY_MS, date_text, time_text};
use crate::reader::{EpisodeReader, hex};

/// Rows between two looks at whoever watches.
const STEP: u64 = 256;
/// Unreadable episodes that a manifest names.
const NAMED: usize = 20;

/// What to export, and where to.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Whose episodes; every tenant is named.
    pub tenants: Vec<TenantId>,
    /// Which of them.
    pub filter: ExportFilter,
    /// In which form.
    pub format: Format,
    /// Rows of a file; `None` takes the format's own number.
    pub rows_per_file: Option<u64>,
    /// The folder: an empty one, or with `resume` one that an export was broken off in.
    pub folder: PathBuf,
    /// Whether to go on where an export was broken off.
    pub resume: bool,
}

/// How far an export has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows that are written.
    pub rows: u64,
    /// Episodes of the tenants, the upper bound of rows; a filter leaves fewer.
    pub of: u64,
    /// Files that are finished.
    pub files: u64,
}

/// Exports. `watch` is told every few hundred rows how far it is, and ends the export with [`ControlFlow::Break`]; what
/// is finished stays then, and the export can be resumed.
///
/// # Errors
/// When the folder is not free, the request makes no sense, the store cannot be read, a file cannot be written, or
/// `watch` ended it.
pub fn export(
    reader: &EpisodeReader,
    request: &ExportRequest,
    mut watch: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Manifest, ExportError> {
    let plan = plan(request)?;
    let (folder, found) = Folder::take(&request.folder, request.resume)?;
    let (source, now) = Source::open(reader)?;
    let state = match found {
        Some(state) if state.plan != plan => {
            let path = request.folder.clone();
            let reason = "the export that was broken off here asked for something else, or was another recast's: repeat \
                          its options, or name another folder";
            return Err(ExportError::Folder { path, reason: reason.to_owned() });
        }
        Some(state) => State { resumed: state.resumed + 1, drift: source.drift(&state.snapshot)?, ..state },
        None => State {
            plan,
            snapshot: now,
            tenant: 0,
            after: None,
            part: 0,
            rows: 0,
            first_ms: None,
            last_ms: None,
            cut_cells: 0,
            unreadable: UnreadableRows::default(),
            resumed: 0,
            drift: Drift::default(),
            files: Vec::new(),
        },
    };
    folder.sweep()?;
    folder.save(&state)?;
    let mut of = 0;
    for tenant in &state.plan.tenants {
        of += source.count(tenant, &state.snapshot)?;
    }
    let mut run = Run { folder, state, open: None, of };
    run.all(&source, &mut watch)?;
    let _ = watch(run.progress());
    run.close()
}

fn plan(request: &ExportRequest) -> Result<Plan, ExportError> {
    let rows_per_file = request.rows_per_file.unwrap_or(request.format.rows_per_file());
    let max = request.format.rows_max();
    if !(1..=max).contains(&rows_per_file) {
        let name = request.format.ending();
        return Err(ExportError::Request(format!(
            "rows per file: {rows_per_file} is not from 1 to {max}, what {name} holds"
        )));
    }
    let mut tenants = request.tenants.clone();
    tenants.sort();
    tenants.dedup();
    if let (Some(from), Some(to)) = (request.filter.from_ms, request.filter.to_ms)
        && from >= to
    {
        return Err(ExportError::Request(format!("from ({}) is not before to ({})", time_text(from), time_text(to))));
    }
    Ok(Plan {
        schema_version: SCHEMA_VERSION,
        recast: env!("CARGO_PKG_VERSION").to_owned(),
        columns: COLUMNS.iter().map(|column| column.name.to_owned()).collect(),
        format: request.format,
        tenants,
        filter: request.filter.clone(),
        rows_per_file,
    })
}

/// The file that is being written.
struct Open {
    file: FileWriter,
    path: String,
    day: i64,
    rows: u64,
    first_ms: i64,
    last_ms: i64,
}

struct Run {
    folder: Folder,
    state: State,
    open: Option<Open>,
    of: u64,
}

impl Run {
    fn progress(&self) -> Progress {
        let writing = self.open.as_ref().map_or(0, |open| open.rows);
        Progress { rows: self.state.rows + writing, of: self.of, files: self.state.files.len() as u64 }
    }

    fn all(&mut self, source: &Source, watch: &mut impl FnMut(Progress) -> ControlFlow<()>) -> Result<(), ExportError> {
        while let Some(tenant) = self.state.plan.tenants.get(self.state.tenant).cloned() {
            let (filter, snapshot) = (self.state.plan.filter.clone(), self.state.snapshot);
            // what was walked over since the last finished file; counted once that file's successor is finished
            let mut walked = self.state.after;
            let mut unreadable = self.state.unreadable.clone();
            let mut seen = 0;
            source.walk(&tenant, &filter, self.state.after, &snapshot, |id, row| {
                match row {
                    Ok(row) => {
                        if self.ends_before(&row) {
                            self.finish_file(&tenant, walked, &unreadable)?;
                        }
                        self.write(&tenant, &row)?;
                        walked = Some(EpisodeId(Uuid::from_bytes(id)));
                        if self.is_full() {
                            self.finish_file(&tenant, walked, &unreadable)?;
                        }
                    }
                    Err(Unreadable { id, message }) => {
                        unreadable.count += 1;
                        if unreadable.first.len() < NAMED {
                            unreadable.first.push(format!("{tenant} {}: {message}", hex(&id)));
                        }
                        walked = Some(EpisodeId(Uuid::from_bytes(id)));
                    }
                }
                seen += 1;
                if seen % STEP == 0 && watch(self.progress()).is_break() {
                    return Err(ExportError::Stopped);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            self.finish_file(&tenant, walked, &unreadable)?;
            self.state.unreadable = unreadable;
            (self.state.tenant, self.state.after, self.state.part) = (self.state.tenant + 1, None, 0);
            self.folder.save(&self.state)?;
        }
        Ok(())
    }

    /// Whether this row belongs to the next file.
    fn ends_before(&self, row: &Row<'_>) -> bool {
        let by_date = self.state.plan.format.by_date();
        by_date && self.open.as_ref().is_some_and(|open| open.day != day(row))
    }

    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.rows >= self.state.plan.rows_per_file)
    }

    fn write(&mut self, tenant: &TenantId, row: &Row<'_>) -> Result<(), ExportError> {
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(begin(&self.folder, &self.state, tenant, row)?),
        };
        open.file.row(row)?;
        open.rows += 1;
        open.first_ms = open.first_ms.min(row.meta.created_ms);
        open.last_ms = open.last_ms.max(row.meta.created_ms);
        Ok(())
    }

    /// Finishes the file that is open, if one is, and writes down how far the export is.
    fn finish_file(
        &mut self,
        tenant: &TenantId,
        walked: Option<EpisodeId>,
        unreadable: &UnreadableRows,
    ) -> Result<(), ExportError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let (bytes, sha256, cut) = open.file.finish()?;
        let state = &mut self.state;
        state.files.push(FileEntry { path: open.path, tenant: tenant.clone(), rows: open.rows, bytes, sha256 });
        state.rows += open.rows;
        state.cut_cells += cut;
        state.first_ms = Some(state.first_ms.map_or(open.first_ms, |first| first.min(open.first_ms)));
        state.last_ms = Some(state.last_ms.map_or(open.last_ms, |last| last.max(open.last_ms)));
        (state.after, state.part) = (walked, state.part + 1);
        state.unreadable.clone_from(unreadable);
        self.folder.save(state)
    }

    fn close(self) -> Result<Manifest, ExportError> {
        let Self { folder, state, .. } = self;
        let manifest = Manifest {
            schema_version: state.plan.schema_version,
            recast: state.plan.recast,
            format: state.plan.format,
            tenants: state.plan.tenants,
            filter: state.plan.filter,
            snapshot: state.snapshot,
            taken_at: time_text(state.snapshot.taken_ms),
            rows: state.rows,
            first_created_at: state.first_ms.map(time_text),
            last_created_at: state.last_ms.map(time_text),
            unreadable: state.unreadable,
            cut_cells: state.cut_cells,
            redaction: "none by the export: texts are as the store holds them".to_owned(),
            resumed: state.resumed,
            drift: state.drift,
            files: state.files,
        };
        folder.close(&serde_json::to_vec_pretty(&manifest)?)?;
        Ok(manifest)
    }
}

fn day(row: &Row<'_>) -> i64 {
    row.meta.created_ms.div_euclid(DAY_MS)
}

/// Opens the next file for `row` and those behind it. Tenants are words of letters, digits, `_` and `-`.
fn begin(folder: &Folder, state: &State, tenant: &TenantId, row: &Row<'_>) -> Result<Open, ExportError> {
    let (format, part, ms) = (state.plan.format, state.part, row.meta.created_ms);
    let date = if format.by_date() { format!("date={}/", date_text(day(row))) } else { String::new() };
    let path = format!("tenant={tenant}/{date}episodes-{part:05}.{}", format.ending());
    let file = FileWriter::create(folder.path().join(&path), format)?;
    Ok(Open { file, path, day: day(row), rows: 0, first_ms: ms, last_ms: ms })
}
