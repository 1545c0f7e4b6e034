//! A page of rows as JSON lines, for those who read over HTTP.

use std::ops::ControlFlow;

use recast_domain::{EpisodeId, TenantId};
use uuid::Uuid;

use super::error::ExportError;
use super::filter::ExportFilter;
use super::jsonl::push_line;
use super::source::Source;
use crate::reader::EpisodeReader;

/// Rows of one tenant, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportPage {
    /// JSON lines, oldest id first.
    pub lines: Vec<u8>,
    /// How many.
    pub rows: usize,
    /// Go on after this episode; `None` where there is no more for now.
    pub next: Option<EpisodeId>,
}

/// Bytes after which a page ends, however few its rows are.
const BYTES: usize = 16 << 20;

/// Rows of `tenant` behind `after`, at most `limit`. An episode that cannot be read is left out and logged.
///
/// # Errors
/// When the store cannot be read.
pub fn page(
    reader: &EpisodeReader,
    tenant: &TenantId,
    filter: &ExportFilter,
    after: Option<EpisodeId>,
    limit: usize,
) -> Result<ExportPage, ExportError> {
    let (source, snapshot) = Source::open(reader)?;
    let mut page = ExportPage::default();
    let mut last = None;
    source.walk(tenant, filter, after, &snapshot, |id, row| {
        if page.rows >= limit || page.lines.len() >= BYTES {
            page.next = last;
            return Ok(ControlFlow::Break(()));
        }
        match row {
            Ok(row) => {
                push_line(&mut page.lines, &row)?;
                page.rows += 1;
            }
            Err(unreadable) => {
                tracing::warn!(
                    id = crate::reader::hex(&unreadable.id),
                    message = unreadable.message,
                    "an episode is left out"
                );
            }
        }
        last = Some(EpisodeId(Uuid::from_bytes(id)));
        Ok::<_, ExportError>(ControlFlow::Continue(()))
    })?;
    Ok(page)
}
