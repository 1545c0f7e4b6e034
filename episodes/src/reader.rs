use std::sync::{Mutex, PoisonError};

use recast_domain::{Episode, EpisodeId, PolicyId, TenantId};

use crate::db::{self, Connection, Place, Query, Row};
use crate::error::EpisodeError;
use crate::record::decode;
use crate::schema::open_reader;

/// The most episodes that one list returns.
pub const LIST_MAX: usize = 1000;
/// Idle connections kept for the next read.
const IDLE_MAX: usize = 4;

/// Which episodes to list. A list is always of one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeFilter {
    /// Whose episodes.
    pub tenant: TenantId,
    /// Go on after this one, towards older ones: the last id of the page before.
    pub after: Option<EpisodeId>,
    /// At most this many, and never more than [`LIST_MAX`].
    pub limit: usize,
    /// Created at this time or later, milliseconds since the Unix epoch.
    pub from_ms: Option<i64>,
    /// Created before this time, milliseconds since the Unix epoch.
    pub to_ms: Option<i64>,
    /// Only those where a stage failed or was late.
    pub degraded_only: bool,
    /// Only those whose rewrite this policy made.
    pub policy: Option<PolicyId>,
}

impl EpisodeFilter {
    /// The newest `limit` episodes of `tenant`.
    #[must_use]
    pub fn newest(tenant: TenantId, limit: usize) -> Self {
        Self { tenant, after: None, limit, from_ms: None, to_ms: None, degraded_only: false, policy: None }
    }
}

/// Reads a store, also one that another process writes to at the same time.
#[derive(Debug)]
pub struct EpisodeReader {
    place: Place,
    idle: Mutex<Vec<Connection>>,
}

impl EpisodeReader {
    /// Opens the store at `place` for reading only.
    ///
    /// # Errors
    /// When there is no store, it is damaged, or it is of another version.
    pub fn open(place: impl Into<Place>) -> Result<Self, EpisodeError> {
        let place = place.into();
        let first = open_reader(&place)?;
        Ok(Self { place, idle: Mutex::new(vec![first]) })
    }

    /// One episode of `tenant`.
    ///
    /// # Errors
    /// When the tenant has no such episode (another tenant's looks the same), or the store cannot be read.
    pub fn get(&self, tenant: &TenantId, id: EpisodeId) -> Result<Episode, EpisodeError> {
        let found = self.read(|connection| {
            let sql = "SELECT id, record_version, body FROM episodes WHERE tenant = ?1 AND id = ?2";
            connection.first(sql, &[tenant.as_str().into(), id.0.as_bytes().into()], stored)
        })?;
        found.ok_or(EpisodeError::NotFound(id))?.episode()
    }

    /// Episodes of one tenant, newest id first.
    ///
    /// # Errors
    /// When the store, or one of the episodes, cannot be read.
    pub fn list(&self, filter: &EpisodeFilter) -> Result<Vec<Episode>, EpisodeError> {
        let rows = self.read(|connection| {
            let query = query(filter);
            connection.query(&query.sql, &query.values, stored)
        })?;
        rows.into_iter().map(Stored::episode).collect()
    }

    /// Reads with a connection of its own, which is kept for the next read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> db::Result<T>) -> Result<T, EpisodeError> {
        let lock = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = std::iter::from_fn(|| lock().pop()).find(|connection| !connection.is_closed());
        let connection = match kept {
            Some(connection) => connection,
            None => open_reader(&self.place)?,
        };
        // a connection that failed is not kept
        let value = read(&connection).map_err(|error| self.place.error(error))?;
        let mut idle = lock();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok(value)
    }

    /// A connection for a long read, and where the store lies.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn fresh(&self) -> Result<(Connection, Place), EpisodeError> {
        Ok((open_reader(&self.place)?, self.place.clone()))
    }
}

/// An episode as it lies in the store.
pub(crate) struct Stored {
    pub id: [u8; 16],
    pub record_version: u32,
    pub body: String,
}

/// The first three columns: id, version of the record, body.
pub(crate) fn stored(row: Row<'_>) -> db::Result<Stored> {
    Ok(Stored { id: row.get(0)?, record_version: row.get(1)?, body: row.get(2)? })
}

impl Stored {
    /// # Errors
    /// When it cannot be understood.
    pub(crate) fn episode(self) -> Result<Episode, EpisodeError> {
        decode(self.record_version, &self.body)
            .map_err(|message| EpisodeError::Unreadable { id: hex(&self.id), message })
    }
}

/// An id as an error names it, where it may not even be one.
pub(crate) fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The statement is put together from fixed parts; whatever a caller gives is bound.
fn query(filter: &EpisodeFilter) -> Query<'_> {
    let sql = "SELECT id, record_version, body FROM episodes WHERE tenant = ?1";
    let mut query = Query::new(sql, vec![filter.tenant.as_str().into()]);
    if let Some(after) = &filter.after {
        query.push(" AND id < ?", [after.0.as_bytes().into()]);
    }
    if let Some(from_ms) = filter.from_ms {
        query.push(" AND created_ms >= ?", [from_ms.into()]);
    }
    if let Some(to_ms) = filter.to_ms {
        query.push(" AND created_ms < ?", [to_ms.into()]);
    }
    if filter.degraded_only {
        query.push(" AND degraded = 1", []);
    }
    if let Some(policy) = &filter.policy {
        query.push(" AND policy = ?", [policy.as_str().into()]);
    }
    query.push(" ORDER BY id DESC LIMIT ?", [filter.limit.min(LIST_MAX).into()]);
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_site::{Site, on_both};
    use crate::testing::{degraded, episode, insert};

    on_both!(
        pages_go_from_the_newest_to_the_oldest_without_gap_or_repeat,
        filters_apply_together,
        a_tenant_sees_its_own_even_where_ids_are_shared,
        an_unreadable_row_is_named
    );

    /// A store that holds `episodes`, and a reader of it.
    fn store(site: &Site, episodes: &[Episode]) -> (Connection, EpisodeReader) {
        let connection = site.connection();
        insert(&connection, episodes);
        (connection, site.reader())
    }

    fn times(reader: &EpisodeReader, filter: &EpisodeFilter) -> Vec<i64> {
        reader.list(filter).unwrap().iter().map(|episode| episode.created_ms).collect()
    }

    fn pages_go_from_the_newest_to_the_oldest_without_gap_or_repeat(site: &Site) {
        let episodes: Vec<_> = (0..25).map(|ms| episode("a", ms)).collect();
        let (_writer, reader) = store(site, &episodes);
        let mut filter = EpisodeFilter::newest("a".parse().unwrap(), 10);
        let mut seen = Vec::new();
        loop {
            let page = reader.list(&filter).unwrap();
            let Some(last) = page.last() else { break };
            filter.after = Some(last.id);
            seen.extend(page.into_iter().map(|episode| episode.created_ms));
        }
        assert_eq!(seen, (0..25).rev().collect::<Vec<_>>());
    }

    fn filters_apply_together(site: &Site) {
        let mut episodes: Vec<_> = (0..10).map(|ms| episode("a", ms)).collect();
        episodes.extend((10..20).map(|ms| degraded("a", ms)));
        episodes[15].rewrite.policy = PolicyId::remote();
        let (_writer, reader) = store(site, &episodes);
        let all = EpisodeFilter::newest("a".parse().unwrap(), 100);
        let some = EpisodeFilter { from_ms: Some(8), to_ms: Some(13), ..all.clone() };
        assert_eq!(times(&reader, &some), [12, 11, 10, 9, 8]);
        assert_eq!(times(&reader, &EpisodeFilter { degraded_only: true, ..some }), [12, 11, 10]);
        let policy = EpisodeFilter { policy: Some(PolicyId::remote()), ..all.clone() };
        assert_eq!(times(&reader, &policy), [15]);
        assert!(times(&reader, &EpisodeFilter { limit: 0, ..all }).is_empty());
    }

    fn a_tenant_sees_its_own_even_where_ids_are_shared(site: &Site) {
        let mine = episode("a", 1);
        let theirs = Episode { id: mine.id, ..episode("b", 2) };
        let hidden = episode("b", 3);
        let (_writer, reader) = store(site, &[mine.clone(), theirs, hidden.clone()]);
        let a: TenantId = "a".parse().unwrap();
        assert_eq!(reader.get(&a, mine.id).unwrap(), mine);
        assert!(matches!(reader.get(&a, hidden.id), Err(EpisodeError::NotFound(_))));
        assert_eq!(times(&reader, &EpisodeFilter::newest(a, 100)), [1]);
    }

    /// The plan of every list must start from an index that begins with the tenant.
    #[test]
    fn no_list_walks_the_table() {
        let site = Site::file();
        let (writer, _reader) = store(&site, &[]);
        let all = EpisodeFilter::newest("a".parse().unwrap(), 5);
        let cases = [
            all.clone(),
            EpisodeFilter { after: Some(EpisodeId::now()), ..all.clone() },
            EpisodeFilter { degraded_only: true, ..all.clone() },
            EpisodeFilter { policy: Some(PolicyId::remote()), ..all },
        ];
        for filter in cases {
            let query = query(&filter);
            let plan = ["EXPLAIN QUERY PLAN ", &query.sql].concat();
            let plan: Vec<String> = writer.query(&plan, &query.values, |row| row.get(3)).unwrap();
            assert!(plan.iter().all(|step| step.contains("tenant=?")), "{filter:?}: {plan:?}");
        }
    }

    fn an_unreadable_row_is_named(site: &Site) {
        let good = episode("a", 1);
        let (writer, reader) = store(site, std::slice::from_ref(&good));
        writer.execute("UPDATE episodes SET record_version = 2", &[]).unwrap();
        let error = reader.get(&good.tenant, good.id).unwrap_err().to_string();
        assert!(error.contains(&good.id.0.simple().to_string()) && error.contains("newer"), "{error}");
    }
}
