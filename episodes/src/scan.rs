//! Walks over the episodes of a tenant, however many, in the memory of one page.

use std::ops::ControlFlow;

use recast_domain::{Episode, EpisodeId, TenantId};

use crate::error::EpisodeError;
use crate::reader::{EpisodeReader, stored};

/// Episodes read at a time. Between pages the store is let go, so that a long walk does not hold up its log.
const PAGE: usize = 128;

/// Which episodes to walk over, by id; ids are ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanRange {
    /// Start behind this one; `None` starts with the oldest.
    pub after: Option<EpisodeId>,
    /// Stop with this one; `None` ends with the newest.
    pub until: Option<EpisodeId>,
}

impl EpisodeReader {
    /// Shows the episodes of `tenant` to `visit`, oldest id first. An episode that cannot be read is shown as its error,
    /// and the walk goes on; `visit` ends it with [`ControlFlow::Break`]. Returns how many were shown. What is appended
    /// meanwhile may or may not be seen.
    ///
    /// # Errors
    /// When the store itself cannot be read.
    pub fn scan(
        &self,
        tenant: &TenantId,
        range: ScanRange,
        mut visit: impl FnMut(Result<Episode, EpisodeError>) -> ControlFlow<()>,
    ) -> Result<u64, EpisodeError> {
        let mut shown = 0;
        let mut after = range.after.map_or([0; 16], |id| *id.0.as_bytes());
        let until = range.until.map_or([u8::MAX; 16], |id| *id.0.as_bytes());
        loop {
            let page = self.read(|connection| {
                let sql = "SELECT id, record_version, body FROM episodes
                    WHERE tenant = ?1 AND id > ?2 AND id <= ?3 ORDER BY id LIMIT ?4";
                let values = [tenant.as_str().into(), (&after).into(), (&until).into(), PAGE.into()];
                connection.query(sql, &values, stored)
            })?;
            let Some(last) = page.last() else { return Ok(shown) };
            after = last.id;
            for row in page {
                shown += 1;
                if visit(row.episode()).is_break() {
                    return Ok(shown);
                }
            }
        }
    }

    /// Whether `tenant` has such an episode.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has(&self, tenant: &TenantId, id: EpisodeId) -> Result<bool, EpisodeError> {
        self.read(|connection| crate::ledger::has_episode(connection, tenant.as_str(), id.0.as_bytes()))
    }
}
