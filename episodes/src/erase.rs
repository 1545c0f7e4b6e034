//! Erasure: everything that is stored of one user, gone, with a tombstone for whoever holds copies.
//!
//! A tombstone is an episode's id and a time, and nothing of what was said. Exports and datasets name their episodes, so
//! that they can be cleaned by it.

use recast_domain::{EpisodeId, TenantId};
use serde::Serialize;

use crate::db::{self, Connection};
use crate::error::EpisodeError;
use crate::reader::EpisodeReader;
use crate::store::EpisodeStore;
use crate::write::{Write, Written};

/// Episodes of one transaction: an append never waits for more of them.
const SLICE: usize = 64;
/// Tombstones of one page at most.
pub const TOMBSTONES_MAX: usize = 10_000;

const OF_USER: &str = "SELECT id FROM episodes WHERE tenant = ?1 AND id > ?2 AND user_id = ?3 ORDER BY id LIMIT ?4";
// what a judge said of the same question is asked for again where another user had it
const REPLIES: &str = "DELETE FROM judge_replies WHERE tenant = ?1
    AND key IN (SELECT key FROM verdicts WHERE tenant = ?1 AND episode = ?2)";
const WAITING: &str = "DELETE FROM feedback WHERE tenant = ?1 AND episode = ?2";
const EPISODE: &str = "DELETE FROM episodes WHERE tenant = ?1 AND id = ?2";
const TOMBSTONE: &str = "INSERT INTO erasures (tenant, episode, erased_ms) VALUES (?1, ?2, ?3)
    ON CONFLICT (tenant, episode) DO NOTHING";

/// Episodes of a tenant that are to be erased.
#[derive(Debug)]
pub(crate) struct Erasure {
    tenant: TenantId,
    episodes: Vec<[u8; 16]>,
    erased_ms: i64,
}

/// What stays of an erased episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tombstone {
    /// The episode.
    pub episode_id: EpisodeId,
    /// When it was erased, milliseconds since the Unix epoch, UTC.
    pub erased_ms: i64,
}

impl EpisodeStore {
    /// Erases every episode of `user` and all that hangs on it: shadow runs, feedback, verdicts with the judge's replies,
    /// rewards, labels. Returns how many episodes that were. Calling it again finds what came meanwhile.
    ///
    /// In a SQLite file, what is deleted is overwritten; the write-ahead log holds it until it is next folded in.
    ///
    /// # Errors
    /// When the store cannot be read or written; what was erased until then stays erased.
    pub async fn erase_user(&self, tenant: &TenantId, user: &str, erased_ms: i64) -> Result<u64, EpisodeError> {
        let mut erased = 0;
        let mut after = [0; 16];
        loop {
            let (whose, who) = (tenant.clone(), user.to_owned());
            let episodes = self.read(move |reader| reader.of_user(&whose, &who, &after)).await?;
            let Some(last) = episodes.last() else { return Ok(erased) };
            after = *last;
            let erasure = Erasure { tenant: tenant.clone(), episodes, erased_ms };
            if let Written::Erased(count) = self.write(Write::Erase(Box::new(erasure))).await? {
                erased += count;
            }
        }
    }
}

impl EpisodeReader {
    fn of_user(&self, tenant: &TenantId, user: &str, after: &[u8; 16]) -> Result<Vec<[u8; 16]>, EpisodeError> {
        self.read(|connection| {
            let values = [tenant.as_str().into(), after.into(), user.into(), SLICE.into()];
            connection.query(OF_USER, &values, |row| row.get(0))
        })
    }

    /// Tombstones of a tenant from `since_ms` on, oldest first, behind `after`; at most [`TOMBSTONES_MAX`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tombstones(
        &self,
        tenant: &TenantId,
        since_ms: i64,
        after: Option<Tombstone>,
    ) -> Result<Vec<Tombstone>, EpisodeError> {
        let from = after.map_or((since_ms, [0; 16]), |last| (last.erased_ms, *last.episode_id.0.as_bytes()));
        let rows = self.read(|connection| {
            let sql = "SELECT episode, erased_ms FROM erasures
                WHERE tenant = ?1 AND (erased_ms > ?2 OR (erased_ms = ?2 AND episode > ?3))
                ORDER BY erased_ms, episode LIMIT ?4";
            let values = [tenant.as_str().into(), from.0.into(), (&from.1).into(), TOMBSTONES_MAX.into()];
            connection.query(sql, &values, |row| Ok((row.get::<[u8; 16]>(0)?, row.get(1)?)))
        })?;
        let tombstone = |(id, erased_ms)| Tombstone { episode_id: EpisodeId(uuid::Uuid::from_bytes(id)), erased_ms };
        Ok(rows.into_iter().map(tombstone).collect())
    }
}

/// # Errors
/// When the database fails.
pub(crate) fn apply(connection: &Connection, erasure: &Erasure) -> db::Result<Written> {
    // pages that are free again would keep what was said until something else is written there
    overwrite(connection, true)?;
    let erased = erase(connection, erasure);
    overwrite(connection, false)?;
    erased.map(Written::Erased)
}

fn overwrite(connection: &Connection, on: bool) -> db::Result<()> {
    match connection.file() {
        Some(file) => Ok(file.pragma_update(None, "secure_delete", on)?),
        None => Ok(()),
    }
}

fn erase(connection: &Connection, erasure: &Erasure) -> db::Result<u64> {
    let tenant = erasure.tenant.as_str();
    let mut erased = 0;
    for episode in &erasure.episodes {
        let key = [tenant.into(), episode.into()];
        connection.execute(REPLIES, &key)?;
        erased += connection.execute(EPISODE, &key)? as u64;
        connection.execute(WAITING, &key)?;
        connection.execute(TOMBSTONE, &[tenant.into(), episode.into(), erasure.erased_ms.into()])?;
    }
    Ok(erased)
}

/// The erasure of one episode.
#[cfg(test)]
pub(crate) fn one(tenant: &TenantId, episode: EpisodeId, erased_ms: i64) -> Write {
    let episodes = vec![*episode.0.as_bytes()];
    Write::Erase(Box::new(Erasure { tenant: tenant.clone(), episodes, erased_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EpisodeFilter;
    use crate::schema::beside;
    use crate::test_site::{Site, on_both};
    use crate::testing::{episode, everything, feedback};
    use crate::write::commit;

    on_both!(async: an_erased_user_leaves_ids_and_nothing_else, feedback_that_comes_later_finds_no_place);

    fn count(connection: &Connection, table: &str) -> i64 {
        connection.number(&format!("SELECT count(*) FROM {table}"), &[]).unwrap()
    }

    async fn an_erased_user_leaves_ids_and_nothing_else(site: &Site) {
        let connection = site.connection();
        let (mut gone, mut writes) = (Vec::new(), Vec::new());
        for number in 0..150 {
            let mut mine = episode("a", number);
            mine.request.user_id = Some("wang".to_owned());
            gone.push(mine.id);
            writes.extend(everything(&mut mine));
        }
        let mut others = Vec::new();
        for (tenant, user) in [("a", "li"), ("b", "wang")] {
            let mut other = episode(tenant, 7);
            other.request.user_id = Some(user.to_owned());
            others.push((other.tenant.clone(), other.id));
            writes.extend(everything(&mut other));
        }
        commit(&connection, writes.iter(), false).unwrap();
        let reply = "INSERT INTO judge_replies (tenant, key, judge, reply, created_ms)
            SELECT DISTINCT tenant, key, 'j', '{}', 1 FROM verdicts WHERE true
            ON CONFLICT DO NOTHING";
        connection.execute(reply, &[]).unwrap();
        drop(connection);
        let store = site.store();
        let tenant: TenantId = "a".parse().unwrap();
        assert_eq!(store.erase_user(&tenant, "wang", 99).await.unwrap(), 150);
        assert_eq!(store.erase_user(&tenant, "wang", 100).await.unwrap(), 0);
        store.close().await;
        let connection = site.connection();
        for table in ["episodes", "shadow_runs", "verdicts", "rewards", "labels"] {
            assert_eq!(count(&connection, table), 2, "{table}");
        }
        let theirs = "SELECT count(*) FROM judge_replies WHERE tenant = 'b'";
        assert_eq!(connection.number(theirs, &[]).unwrap(), 1, "another tenant's stay");
        let reader = site.reader();
        for (tenant, id) in &others {
            assert_eq!(reader.list(&EpisodeFilter::newest(tenant.clone(), 10)).unwrap()[0].id, *id);
        }
        let mut left = reader.tombstones(&tenant, 0, None).unwrap();
        assert!(left.iter().all(|one| one.erased_ms == 99));
        let behind = reader.tombstones(&tenant, 0, Some(left[99])).unwrap();
        assert_eq!(behind, left[100..], "a page goes on behind the last one");
        left.sort_by_key(|one| one.episode_id);
        gone.sort();
        assert_eq!(left.iter().map(|one| one.episode_id).collect::<Vec<_>>(), gone);
        assert!(reader.tombstones(&tenant, 100, None).unwrap().is_empty());
        assert!(reader.tombstones(&"b".parse().unwrap(), 0, None).unwrap().is_empty());
    }

    async fn feedback_that_comes_later_finds_no_place(site: &Site) {
        let store = site.store();
        let one = episode("a", 1);
        let (tenant, late) = (one.tenant.clone(), feedback(&one, 5));
        store.append(one).await.unwrap();
        assert_eq!(store.erase_user(&tenant, "u-1", 9).await.unwrap(), 1);
        store.put_feedback(&late).await.unwrap();
        store.close().await;
        assert_eq!(count(&site.connection(), "feedback"), 0);
    }

    #[tokio::test]
    async fn what_was_said_is_not_in_the_file_any_more() {
        let site = &Site::file();
        let store = site.store();
        let mut one = episode("a", 1);
        one.conversation.query = "SECRETPHRASE".repeat(50);
        let tenant = one.tenant.clone();
        store.append(one).await.unwrap();
        let path = site.folder().join("e.db");
        let holds = |path: &std::path::Path| {
            std::fs::read(path).unwrap_or_default().windows(12).any(|bytes| bytes == b"SECRETPHRASE")
        };
        assert!(holds(&path) || holds(&beside(&path, "-wal")), "it was there");
        store.erase_user(&tenant, "u-1", 9).await.unwrap();
        store.close().await;
        assert!(!holds(&path) && !holds(&beside(&path, "-wal")));
    }
}
