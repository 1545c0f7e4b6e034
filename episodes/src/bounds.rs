//! What keeps the store from growing without end: retention by age and a bound in bytes, both in small steps between
//! batches, so that an append never waits for more than one of them. What hangs on an episode goes with it.

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

    /// Does one step, if any is due: deletes at most one slice, or gives back at most [`VACUUM_PAGES`].
    ///
    /// # Errors
    /// When the database fails; the next call tries again.
    pub(crate) fn step(&mut self, connection: &Connection, now_ms: i64) -> db::Result<()> {
        self.pending = false;
        if let Some(retention_ms) = self.retention_ms.filter(|_| Instant::now() >= self.retention_due) {
            let cutoff = now_ms.saturating_sub(retention_ms);
            let deleted = connection.execute(DELETE_EXPIRED, &[cutoff.into(), self.slice.into()])?;
            metrics::counter!("recast_episodes_deleted_total", "reason" => "retention").increment(deleted as u64);
            let waiting = self.delete_waiting(connection, cutoff)?;
            let replies = self.delete_replies(connection, cutoff)?;
            if deleted.max(waiting).max(replies) == self.slice {
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
            metrics::counter!("recast_episodes_deleted_total", "reason" => "bound").increment(deleted as u64);
            self.pending = deleted > 0;
        }
        Ok(())
    }

    fn delete_replies(&self, connection: &Connection, before_ms: i64) -> db::Result<usize> {
        connection.execute(DELETE_REPLIES, &[before_ms.into(), self.slice.into()])
    }

    fn delete_waiting(&self, connection: &Connection, before_ms: i64) -> db::Result<usize> {
        connection.execute(DELETE_WAITING, &[before_ms.into(), self.slice.into()])
    }
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
        replies_go_by_age_as_episodes_do
    );

    fn filled(site: &Site, days: i64) -> Connection {
        let connection = site.connection();
        let episodes: Vec<_> = (0..days).map(|day| episode("a", day * DAY_MS)).collect();
        insert(&connection, &episodes);
        connection
    }

    fn settle(bounds: &mut Bounds, connection: &Connection, now_ms: i64) -> usize {
        (1..)
            .find(|_| {
                bounds.step(connection, now_ms).unwrap();
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
