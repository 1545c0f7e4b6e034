//! Samples out of the episode store.

use std::ops::ControlFlow;

use super::build::{BuildRequest, Builder};
use super::filter::{Rule, Wanted};
use super::report::DatasetManifest;
use super::sample::Sample;
use crate::export::{ExportError, ExportFilter, Source};
use crate::reader::EpisodeReader;

const DAY_MS: i64 = 86_400_000;
/// Episodes between two looks at whoever watches.
const STEP: u64 = 256;

/// Builds a dataset of the tenant's episodes of the last `days_back` days. `watch` is told now and then how many were
/// read.
///
/// # Errors
/// When the folder cannot be taken, the store cannot be read, a file cannot be written, or `watch` ended it. Nothing
/// is left under a final name then that is not whole.
pub fn build(
    reader: &EpisodeReader,
    request: &BuildRequest<'_>,
    days_back: u32,
    mut watch: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<DatasetManifest, ExportError> {
    let from_ms = request.now_ms - i64::from(days_back) * DAY_MS;
    let filter = ExportFilter { from_ms: Some(from_ms), ..ExportFilter::default() };
    let (source, snapshot) = Source::open(reader)?;
    let mut builder = Builder::new(request)?;
    let wants_pair = request.kind.wanted() == Wanted::Pairs;
    let mut seen = 0;
    source.walk(&request.tenant.id, &filter, None, &snapshot, |_, row| {
        match row.map_err(|unreadable| unreadable.message).and_then(|row| Sample::new(&row, wants_pair)) {
            Ok(sample) => builder.push(&sample)?,
            Err(_) => builder.dropped(Rule::Unreadable),
        }
        seen += 1;
        if seen % STEP == 0 && watch(seen).is_break() {
            return Err(ExportError::Stopped);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    builder.finish("the episode store".to_owned(), Some(from_ms))
}
