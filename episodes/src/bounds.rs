//! What keeps the store from growing without end: retention by age and a bound in bytes, both in small steps between
//! batches, so that an append never waits for more than one of them. What hangs on an episode goes with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use recast_config::EpisodeSettings;

use crate::db::{self, Connection};
use crate::schema::count;

const DAY_MS: i64 = 86_400_000;
/// Age changes slowly; size is looked at in every step.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// Pages given back in one step: 4 MiB of pages of 4 KiB.
const VACUUM_PAGES: u32 = 1024;

const DELETE_EXPIRED: &str = "DELETE FROM episodes WHERE rowid IN
    (SELECT rowid FROM episodes WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)";
// ids begin with their time, so that the key of the table finds a tenant's oldest
const DELETE_TENANTS: &str = "DELETE FROM episodes WHERE rowid IN
    (SELECT rowid FROM episodes WHERE tenant = ?1 AND id < ?2 ORDER BY id LIMIT ?3)";
const NEXT_TENANT: &str = "SELECT min(tenant) FROM episodes WHERE tenant > ?1";
const DELETE_OLDEST: &str = "DELETE FROM episodes WHERE rowid IN
    (SELECT rowid FROM episodes ORDER BY created_ms LIMIT ?1)";
// feedback that came before its episode and has none to go with; what has one goes with it
const DELETE_WAITING: &str = "DELETE FROM feedback WHERE rowid IN
    (SELECT rowid FROM feedback AS one WHERE deferred = 1 AND created_ms < ?1
        AND NOT EXISTS (SELECT 1 FROM episodes WHERE tenant = one.tenant AND id = one.episode)
        ORDER BY created_ms LIMIT ?2)";

// a judge's replies count by their age as episodes do
const DELETE_REPLIES: &str = "DELETE FROM judge_replies WHERE rowid IN
    (SELECT rowid FROM judge_replies WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2)";
const OLDEST: &str = "SELECT coalesce(min(created_ms), 9223372036854775807) FROM episodes";

/// The bounds of a store and what is left to do to meet them.
#[derive(Debug)]
pub(crate) struct Bounds {
    max_bytes: u64,
    retention_ms: Option<i64>,
    slice: usize,
    retention_due: Instant,
    pending: bool,
}

impl Bounds {
    pub(crate) fn new(settings: &EpisodeSettings) -> Self {
        Self {
            max_bytes: settings.max_bytes,
            retention_ms: (settings.retention_days > 0).then(|| i64::from(settings.retention_days) * DAY_MS),
            // at least as many as a batch brings, else a flood would outrun the bound
            slice: settings.batch_max.max(256),
            retention_due: Instant::now(),
            pending: true,
        }
    }

    /// Whether a further step is known to be needed.
    pub(crate) fn pending(&self) -> bool {
        self.pending
    }

    /// Does one step, if any is due: deletes at most one slice, or gives back at most [`VACUUM_PAGES`]. `own` are the
    /// days that tenants chose themselves.
    ///
    /// # Errors
    /// When the database fails; the next call tries again.
    pub(crate) fn step(&mut self, connection: &Connection, own: &BTreeMap<String, u32>, now_ms: i64) -> db::Result<()> {
        self.pending = false;
        if (self.retention_ms.is_some() || !own.is_empty()) && Instant::now() >= self.retention_due {
            let mut most = if own.is_empty() { 0 } else { self.delete_by_tenant(connection, own, now_ms)? };
            if let Some(retention_ms) = self.retention_ms {
                let cutoff = now_ms.saturating_sub(retention_ms);
                if own.is_empty() {
                    let deleted = connection.execute(DELETE_EXPIRED, &[cutoff.into(), self.slice.into()])?;
                    count_deleted("retention", deleted);
                    most = deleted;
                }
                let waiting = self.delete_waiting(connection, cutoff)?;
                most = most.max(waiting).max(self.delete_replies(connection, cutoff)?);
            }
            if most >= self.slice {
                self.pending = true;
                return Ok(());
            }
            self.retention_due = Instant::now() + RETENTION_EVERY;
        }
        // what is deleted on a server leaves its files as large as they are, so that their size says nothing
        let Some(file) = connection.file() else { return Ok(()) };
        let pages = count(file, "PRAGMA page_count")?;
        let over = pages.saturating_mul(count(file, "PRAGMA page_size")?) > self.max_bytes;
        let free = count(file, "PRAGMA freelist_count")?;
        if free > 0 && (over || free > pages / 4 && free > u64::from(VACUUM_PAGES)) {
            vacuum(file)?;
            self.pending = true;
        } else if over && self.delete_waiting(connection, i64::MAX)? > 0 {
            // it is worth least, and a flood of it must not drive out episodes
            self.pending = true;
        } else if over && self.delete_replies(connection, connection.number(OLDEST, &[])?)? > 0 {
            self.pending = true;
        } else if over {
            let deleted = connection.execute(DELETE_OLDEST, &[self.slice.into()])?;
            count_deleted("bound", deleted);
            self.pending = deleted > 0;
        }
        Ok(())
    }

    /// Deletes what is too old for its tenant, at most one slice of all.
    fn delete_by_tenant(&self, connection: &Connection, own: &BTreeMap<String, u32>, now_ms: i64) -> db::Result<usize> {
        let (mut tenant, mut deleted) = (String::new(), 0);
        while deleted < self.slice {
            let next = connection.first(NEXT_TENANT, &[(&tenant).into()], |row| row.get::<Option<String>>(0))?;
            let Some(next) = next.flatten() else { break };
            tenant = next;
            let own = own.get(&tenant).map(|days| (*days > 0).then(|| i64::from(*days) * DAY_MS));
            let Some(retention_ms) = own.unwrap_or(self.retention_ms) else { continue };
            let before = first_id(now_ms.saturating_sub(retention_ms));
            let values = [(&tenant).into(), (&before).into(), (self.slice - deleted).into()];
            deleted += connection.execute(DELETE_TENANTS, &values)?;
        }
        count_deleted("retention", deleted);
        Ok(deleted)
    }

    fn delete_replies(&self, connection: &Connection, before_ms: i64) -> db::Result<usize> {
        connection.execute(DELETE_REPLIES, &[before_ms.into(), self.slice.into()])
    }

    fn delete_waiting(&self, connection: &Connection, before_ms: i64) -> db::Result<usize> {
        connection.execute(DELETE_WAITING, &[before_ms.into(), self.slice.into()])
    }
}

fn count_deleted(reason: &'static str, deleted: usize) {
    metrics::counter!("recast_episodes_deleted_total", "reason" => reason).increment(deleted as u64);
}

/// The smallest id of an episode of this time, milliseconds since the Unix epoch: UUIDs of version 7 begin with it.
fn first_id(ms: i64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&ms.max(0).to_be_bytes()[2..]);
    id
}

/// The pragma gives one page back per step of the statement, so it has to be stepped to its end.
fn vacuum(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("PRAGMA incremental_vacuum(1024)")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use recast_config::Durability;

    use super::*;
    use crate::feedback::encode;
    use crate::test_site::{Site, on_both};
    use crate::testing::{episode, everything, feedback, insert, settings};
    use crate::write::{Write, commit};

    on_both!(
        what_is_older_than_the_retention_goes_and_nothing_else,
        what_hangs_on_an_episode_goes_with_it_and_feedback_that_waits_goes_by_age,
        a_tenant_may_keep_its_episodes_for_longer_or_shorter,
        replies_go_by_age_as_episodes_do
    );

    fn filled(site: &Site, days: i64) -> Connection {
        let connection = site.connection();
        let episodes: Vec<_> = (0..days).map(|day| episode("a", day * DAY_MS)).collect();
        insert(&connection, &episodes);
        connection
    }

    fn settle(bounds: &mut Bounds, connection: &Connection, now_ms: i64) -> usize {
        settle_with(bounds, connection, &BTreeMap::new(), now_ms)
    }

    fn settle_with(bounds: &mut Bounds, connection: &Connection, own: &BTreeMap<String, u32>, now_ms: i64) -> usize {
        (1..)
            .find(|_| {
                bounds.step(connection, own, now_ms).unwrap();
                !bounds.pending()
            })
            .unwrap()
    }

    fn days(connection: &Connection) -> Vec<i64> {
        let sql = "SELECT created_ms FROM episodes ORDER BY created_ms";
        connection.query(sql, &[], |row| Ok(row.get::<i64>(0)? / DAY_MS)).unwrap()
    }

    fn pages(connection: &Connection) -> u64 {
        count(connection.file().unwrap(), "PRAGMA page_count").unwrap()
    }

    fn what_is_older_than_the_retention_goes_and_nothing_else(site: &Site) {
        let connection = filled(site, 700);
        let mut bounds = Bounds::new(&EpisodeSettings { retention_days: 90, ..settings(Durability::Group) });
        let steps = settle(&mut bounds, &connection, 699 * DAY_MS);
        assert!(steps >= 3, "609 rows go in slices of 256, not at once: {steps}");
        assert_eq!(days(&connection), (609..700).collect::<Vec<_>>());
    }

    #[test]
    fn above_the_bound_the_oldest_go_and_the_file_shrinks() {
        let site = &Site::file();
        let connection = filled(site, 3000);
        let size = || pages(&connection) * 4096;
        let before = size();
        let max_bytes = before / 2;
        let mut bounds = Bounds::new(&EpisodeSettings { max_bytes, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 0);
        assert!(size() <= max_bytes, "{} bytes left of {before}", size());
        let kept = days(&connection);
        assert!(kept.len() > 1000, "not more than needed goes: {}", kept.len());
        assert_eq!(kept, (3000 - kept.len() as i64..3000).collect::<Vec<_>>(), "the newest stay");
    }

    #[test]
    fn a_bound_below_an_empty_store_ends() {
        let site = &Site::file();
        let connection = filled(site, 10);
        let mut bounds = Bounds::new(&EpisodeSettings { max_bytes: 1, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 0);
        assert!(days(&connection).is_empty());
    }

    fn what_hangs_on_an_episode_goes_with_it_and_feedback_that_waits_goes_by_age(site: &Site) {
        let connection = filled(site, 0);
        let (mut old, mut new) = (episode("a", 0), episode("a", 10 * DAY_MS));
        let nowhere = episode("a", 0);
        let mut writes = Vec::new();
        for one in [&mut old, &mut new] {
            writes.extend(everything(one));
        }
        for ms in [1, 9 * DAY_MS] {
            writes.push(Write::Feedback(Box::new(encode(&feedback(&nowhere, ms)).unwrap())));
        }
        commit(&connection, writes.iter(), false).unwrap();
        let rows = |connection: &Connection| {
            ["episodes", "shadow_runs", "feedback", "verdicts", "rewards", "labels"]
                .map(|table| connection.number(&format!("SELECT count(*) FROM {table}"), &[]).unwrap())
        };
        assert_eq!(rows(&connection), [2, 2, 4, 2, 2, 2]);
        let mut bounds = Bounds::new(&EpisodeSettings { retention_days: 5, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 10 * DAY_MS);
        assert_eq!(
            rows(&connection),
            [1, 1, 2, 1, 1, 1],
            "one of everything, and the feedback that still may be joined"
        );
        if connection.file().is_none() {
            return; // no bound in bytes on a server
        }
        let mut bounds = Bounds::new(&EpisodeSettings { max_bytes: 1, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 0);
        assert_eq!(rows(&connection), [0; 6]);
    }

    #[test]
    fn a_flood_of_feedback_about_nothing_drives_out_no_episode() {
        let site = &Site::file();
        let connection = filled(site, 100);
        let max_bytes = pages(&connection) * 4096 + (256 << 10);
        let nowhere = episode("a", 0);
        let flood: Vec<_> =
            (0..5000).map(|ms| Write::Feedback(Box::new(encode(&feedback(&nowhere, ms)).unwrap()))).collect();
        commit(&connection, flood.iter(), false).unwrap();
        assert!(pages(&connection) * 4096 > max_bytes, "the flood is large enough");
        let mut bounds = Bounds::new(&EpisodeSettings { max_bytes, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 0);
        assert!(pages(&connection) * 4096 <= max_bytes);
        assert_eq!(days(&connection).len(), 100);
    }

    fn a_tenant_may_keep_its_episodes_for_longer_or_shorter(site: &Site) {
        let connection = site.connection();
        let day = |tenant: &str, day: i64| {
            let mut bytes = first_id(day * DAY_MS);
            bytes[6..].copy_from_slice(&episode(tenant, 0).id.0.as_bytes()[6..]);
            recast_domain::Episode {
                id: recast_domain::EpisodeId(uuid::Uuid::from_bytes(bytes)),
                ..episode(tenant, day * DAY_MS)
            }
        };
        let all: Vec<_> =
            (0..400).flat_map(|at| ["ever", "long", "plain", "short"].map(|name| day(name, at))).collect();
        insert(&connection, &all);
        let own = [("ever", 0), ("long", 300), ("short", 5)].map(|(name, days)| (name.to_owned(), days)).into();
        let left =
            |name: &str| connection.number("SELECT count(*) FROM episodes WHERE tenant = ?1", &[name.into()]).unwrap();
        let mut bounds = Bounds::new(&EpisodeSettings { retention_days: 30, ..settings(Durability::Group) });
        let steps = settle_with(&mut bounds, &connection, &own, 399 * DAY_MS);
        assert!(steps >= 3, "863 rows go in slices of 256: {steps}");
        assert_eq!(["ever", "long", "plain", "short"].map(left), [400, 301, 31, 6]);
        let mut bounds = Bounds::new(&settings(Durability::Group));
        settle_with(&mut bounds, &connection, &own, 400 * DAY_MS);
        assert_eq!(["ever", "long", "plain", "short"].map(left), [400, 300, 31, 5], "without a bound for the others");
    }

    fn replies_go_by_age_as_episodes_do(site: &Site) {
        let connection = filled(site, 4);
        let sql = "INSERT INTO judge_replies VALUES ('a', ?1, 'j', '{}', ?2)";
        for day in 0..4_u8 {
            connection.execute(sql, &[(&[day; 32]).into(), (i64::from(day) * DAY_MS).into()]).unwrap();
        }
        let replies = || connection.number("SELECT count(*) FROM judge_replies", &[]).unwrap();
        let mut bounds = Bounds::new(&EpisodeSettings { retention_days: 2, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 3 * DAY_MS);
        assert_eq!((replies(), days(&connection)), (3, vec![1, 2, 3]));
        if connection.file().is_none() {
            return; // no bound in bytes on a server
        }
        let mut bounds = Bounds::new(&EpisodeSettings { max_bytes: 1, ..settings(Durability::Group) });
        settle(&mut bounds, &connection, 0);
        assert_eq!((replies(), days(&connection).len()), (0, 0), "replies alone do not fill a store either");
    }
}
