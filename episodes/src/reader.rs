use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use recast_domain::{Episode, EpisodeId, PolicyId, TenantId};
use rusqlite::{Connection, OptionalExtension, ToSql};

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
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl EpisodeReader {
    /// Opens the store at `path` for reading only.
    ///
    /// # Errors
    /// When there is no store, it is damaged, or it is of another version.
    pub fn open(path: &Path) -> Result<Self, EpisodeError> {
        let first = open_reader(path)?;
        Ok(Self { path: path.to_owned(), idle: Mutex::new(vec![first]) })
    }

    /// One episode of `tenant`.
    ///
    /// # Errors
    /// When the tenant has no such episode (another tenant's looks the same), or the store cannot be read.
    pub fn get(&self, tenant: &TenantId, id: EpisodeId) -> Result<Episode, EpisodeError> {
        let found = self.read(|connection| {
            let sql = "SELECT id, record_version, body FROM episodes WHERE tenant = ?1 AND id = ?2";
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_row((tenant.as_str(), id.0.as_bytes()), stored).optional()
        })?;
        found.ok_or(EpisodeError::NotFound(id))?.episode()
    }

    /// Episodes of one tenant, newest id first.
    ///
    /// # Errors
    /// When the store, or one of the episodes, cannot be read.
    pub fn list(&self, filter: &EpisodeFilter) -> Result<Vec<Episode>, EpisodeError> {
        let rows = self.read(|connection| {
            let (sql, values) = query(filter);
            let mut statement = connection.prepare_cached(&sql)?;
            let values: Vec<(&str, &dyn ToSql)> = values.iter().map(|(name, value)| (*name, value.as_ref())).collect();
            statement.query_map(values.as_slice(), stored)?.collect::<rusqlite::Result<Vec<Stored>>>()
        })?;
        rows.into_iter().map(Stored::episode).collect()
    }

    /// Reads with a connection of its own, which is kept for the next read.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, EpisodeError> {
        let lock = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        // a connection that failed is not kept
        let value = read(&connection).map_err(EpisodeError::sqlite(&self.path))?;
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
    pub(crate) fn fresh(&self) -> Result<(Connection, PathBuf), EpisodeError> {
        Ok((open_reader(&self.path)?, self.path.clone()))
    }
}

/// An episode as it lies in the store.
pub(crate) struct Stored {
    pub id: [u8; 16],
    pub record_version: u32,
    pub body: String,
}

/// The first three columns: id, version of the record, body.
pub(crate) fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
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

/// Values to bind, by name.
pub(crate) type Values = Vec<(&'static str, Box<dyn ToSql>)>;

/// The statement is put together from fixed parts; whatever a caller gives is bound.
fn query(filter: &EpisodeFilter) -> (String, Values) {
    let mut sql = "SELECT id, record_version, body FROM episodes WHERE tenant = :tenant".to_owned();
    let mut values: Values = vec![
        (":tenant", Box::new(filter.tenant.as_str().to_owned())),
        (":limit", Box::new(filter.limit.min(LIST_MAX) as i64)),
    ];
    if let Some(after) = filter.after {
        sql.push_str(" AND id < :after");
        values.push((":after", Box::new(*after.0.as_bytes())));
    }
    if let Some(from_ms) = filter.from_ms {
        sql.push_str(" AND created_ms >= :from_ms");
        values.push((":from_ms", Box::new(from_ms)));
    }
    if let Some(to_ms) = filter.to_ms {
        sql.push_str(" AND created_ms < :to_ms");
        values.push((":to_ms", Box::new(to_ms)));
    }
    if filter.degraded_only {
        sql.push_str(" AND degraded = 1");
    }
    if let Some(policy) = &filter.policy {
        sql.push_str(" AND policy = :policy");
        values.push((":policy", Box::new(policy.as_str().to_owned())));
    }
    sql.push_str(" ORDER BY id DESC LIMIT :limit");
    (sql, values)
}

#[cfg(test)]
mod tests {
    use recast_config::Durability;

    use super::*;
    use crate::testing::{degraded, episode, insert};

    /// A store that holds `episodes`, and a reader of it.
    fn store(dir: &tempfile::TempDir, episodes: &[Episode]) -> (Connection, EpisodeReader) {
        let path = dir.path().join("e.db");
        let mut connection = crate::schema::open_writer(&path, Durability::Strict).unwrap();
        insert(&mut connection, episodes);
        let reader = EpisodeReader::open(&path).unwrap();
        (connection, reader)
    }

    fn times(reader: &EpisodeReader, filter: &EpisodeFilter) -> Vec<i64> {
        reader.list(filter).unwrap().iter().map(|episode| episode.created_ms).collect()
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_without_gap_or_repeat() {
        let dir = tempfile::tempdir().unwrap();
        let episodes: Vec<_> = (0..25).map(|ms| episode("a", ms)).collect();
        let (_writer, reader) = store(&dir, &episodes);
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

    #[test]
    fn filters_apply_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut episodes: Vec<_> = (0..10).map(|ms| episode("a", ms)).collect();
        episodes.extend((10..20).map(|ms| degraded("a", ms)));
        episodes[15].rewrite.policy = PolicyId::remote();
        let (_writer, reader) = store(&dir, &episodes);
        let all = EpisodeFilter::newest("a".parse().unwrap(), 100);
        let some = EpisodeFilter { from_ms: Some(8), to_ms: Some(13), ..all.clone() };
        assert_eq!(times(&reader, &some), [12, 11, 10, 9, 8]);
        assert_eq!(times(&reader, &EpisodeFilter { degraded_only: true, ..some }), [12, 11, 10]);
        let policy = EpisodeFilter { policy: Some(PolicyId::remote()), ..all.clone() };
        assert_eq!(times(&reader, &policy), [15]);
        assert!(times(&reader, &EpisodeFilter { limit: 0, ..all }).is_empty());
    }

    #[test]
    fn a_tenant_sees_its_own_even_where_ids_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let mine = episode("a", 1);
        let theirs = Episode { id: mine.id, ..episode("b", 2) };
        let hidden = episode("b", 3);
        let (_writer, reader) = store(&dir, &[mine.clone(), theirs, hidden.clone()]);
        let a: TenantId = "a".parse().unwrap();
        assert_eq!(reader.get(&a, mine.id).unwrap(), mine);
        assert!(matches!(reader.get(&a, hidden.id), Err(EpisodeError::NotFound(_))));
        assert_eq!(times(&reader, &EpisodeFilter::newest(a, 100)), [1]);
    }

    /// The plan of every list must start from an index that begins with the tenant.
    #[test]
    fn no_list_walks_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, _reader) = store(&dir, &[]);
        let all = EpisodeFilter::newest("a".parse().unwrap(), 5);
        let cases = [
            all.clone(),
            EpisodeFilter { after: Some(EpisodeId::now()), ..all.clone() },
            EpisodeFilter { degraded_only: true, ..all.clone() },
            EpisodeFilter { policy: Some(PolicyId::remote()), ..all },
        ];
        for filter in cases {
            let (sql, values) = query(&filter);
            let mut statement = writer.prepare(&["EXPLAIN QUERY PLAN ", &sql].concat()).unwrap();
            let values: Vec<(&str, &dyn ToSql)> = values.iter().map(|(name, value)| (*name, value.as_ref())).collect();
            let plan: Vec<String> =
                statement.query_map(values.as_slice(), |row| row.get(3)).unwrap().map(Result::unwrap).collect();
            assert!(plan.iter().all(|step| step.contains("tenant=?")), "{filter:?}: {plan:?}");
        }
    }

    #[test]
    fn an_unreadable_row_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = episode("a", 1);
        let (writer, reader) = store(&dir, std::slice::from_ref(&good));
        writer.execute("UPDATE episodes SET record_version = 2", []).unwrap();
        let error = reader.get(&good.tenant, good.id).unwrap_err().to_string();
        assert!(error.contains(&good.id.0.simple().to_string()) && error.contains("newer"), "{error}");
    }
}
