//! What is the matter with a store, and what to do about it. Reads only; safe beside a running gateway.

use std::path::Path;

use recast_config::EpisodeSettings;
use rusqlite::Connection;

use crate::backup::findings;
use crate::db::{self, Place};
use crate::error::EpisodeError;
use crate::repair::count_orphans;
use crate::schema::{SCHEMA_VERSION, WriterLock, beside, count, open_file_reader, version};
use crate::writer::free_bytes;

/// A WAL is folded in at about 4 MiB; far above that, some reader holds it open.
const WAL_LARGE: u64 = 256 << 20;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

/// The state of a store. Counts are over all tenants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DoctorReport {
    /// The store.
    pub place: String,
    /// The version of its tables; `None` where the store cannot be opened.
    pub schema_version: Option<u32>,
    /// Stored episodes.
    pub episodes: u64,
    /// When the oldest was created, milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// When the newest was created.
    pub newest_ms: Option<i64>,
    /// Shadow runs, however they ended.
    pub shadow_runs: u64,
    /// Those of them that have not ended.
    pub shadow_pending: u64,
    /// Feedback events.
    pub feedback: u64,
    /// Verdicts, missing ones included.
    pub verdicts: u64,
    /// Rewards.
    pub rewards: u64,
    /// Labels of people.
    pub labels: u64,
    /// Size of the store, on a server of its tables with their indexes.
    pub bytes: u64,
    /// Size of its write-ahead log; 0 on a server.
    pub wal_bytes: u64,
    /// Free bytes of the disk; `None` where the system does not say.
    pub free_bytes: Option<u64>,
    /// Whether a process writes to the store now. On a server: one that was seen within the last half minute.
    pub writer_running: bool,
    /// What is wrong; empty when all is well.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    fn find(&mut self, problem: impl Into<String>, fix: &str) {
        self.findings.push(Finding { problem: problem.into(), fix: fix.to_owned() });
    }
}

/// Examines the store at `place`. Never fails: what cannot be examined is a finding.
#[must_use]
pub fn doctor(place: impl Into<Place>, settings: &EpisodeSettings) -> DoctorReport {
    match place.into() {
        Place::File(path) => doctor_file(&path, settings),
        place @ Place::Server(_) => doctor_server(&place, settings),
    }
}

/// What is examined on a server: whether it can be read, its version and figures. Damage is the server's business.
fn doctor_server(place: &Place, settings: &EpisodeSettings) -> DoctorReport {
    let mut report = DoctorReport { place: place.to_string(), ..DoctorReport::default() };
    let examined = crate::schema::open_reader(place).and_then(|connection| {
        report.schema_version = Some(SCHEMA_VERSION);
        figures(&connection, &mut report).map_err(|error| place.error(error))
    });
    if let Err(error) = examined {
        report.find(error.to_string(), "do as the message says, then run doctor again");
    }
    if report.shadow_pending > 0 && !report.writer_running {
        let problem = format!("{} shadow runs were left behind by gateways that ended", report.shadow_pending);
        report.find(problem, "start a gateway, it counts them as dropped");
    }
    if report.bytes > settings.max_bytes {
        let problem =
            format!("the tables have {} bytes, above episodes.max_bytes, which binds a file only", report.bytes);
        report.find(problem, "lower episodes.retention_days, or raise the bound");
    }
    report
}

fn figures(connection: &db::Connection, report: &mut DoctorReport) -> db::Result<()> {
    let number = |sql: &str| connection.number(sql, &[]).map(|number| u64::try_from(number).unwrap_or(0));
    report.episodes = number("SELECT count(*) FROM episodes")?;
    let one = |sql: &str| connection.first(sql, &[], |row| row.get::<Option<i64>>(0)).map(Option::flatten);
    report.oldest_ms = one("SELECT min(created_ms) FROM episodes")?;
    report.newest_ms = one("SELECT max(created_ms) FROM episodes")?;
    report.shadow_runs = number("SELECT count(*) FROM shadow_runs")?;
    report.shadow_pending = number("SELECT count(*) FROM shadow_runs WHERE state = 'pending'")?;
    report.feedback = number("SELECT count(*) FROM feedback")?;
    report.verdicts = number("SELECT count(*) FROM verdicts")?;
    report.rewards = number("SELECT count(*) FROM rewards")?;
    report.writer_running = crate::owner::any(connection)?;
    report.bytes = number(
        "SELECT CAST(coalesce(sum(pg_total_relation_size(oid)), 0) AS BIGINT) FROM pg_class
            WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace",
    )?;
    Ok(())
}

fn doctor_file(path: &Path, settings: &EpisodeSettings) -> DoctorReport {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut report = DoctorReport {
        place: path.display().to_string(),
        bytes: size(path),
        wal_bytes: size(&beside(path, "-wal")),
        free_bytes: free_bytes(dir),
        // where no store is, none is made a lock for
        writer_running: path.exists() && matches!(WriterLock::take(path), Err(EpisodeError::InUse { .. })),
        ..DoctorReport::default()
    };
    match open_file_reader(path) {
        Ok(connection) => {
            if let Err(error) = examine(&connection, &mut report) {
                report.find(error.to_string(), "restore a backup with `recast restore`");
            }
        }
        Err(error) => report.find(error.to_string(), "do as the message says, then run doctor again"),
    }
    if let Some(free) = report.free_bytes.filter(|free| *free < settings.low_water_bytes) {
        let problem = format!("{free} bytes of disk are free, below episodes.low_water_bytes: episodes are not stored");
        report.find(problem, "free some space; storing resumes by itself");
    }
    if report.bytes > settings.max_bytes {
        let problem = format!("the store has {} bytes, above episodes.max_bytes", report.bytes);
        report.find(problem, "let the gateway run, it deletes the oldest episodes; or raise the bound");
    }
    if report.wal_bytes > WAL_LARGE {
        let problem = format!("the write-ahead log has {} bytes", report.wal_bytes);
        report.find(problem, "end long reads of the store, or restart the gateway");
    }
    report
}

fn examine(connection: &Connection, report: &mut DoctorReport) -> rusqlite::Result<()> {
    // one snapshot: a gateway may write meanwhile
    let connection = &*connection.unchecked_transaction()?;
    report.schema_version = Some(version(connection)?);
    for damage in findings(connection, "PRAGMA quick_check(10)")? {
        report.find(format!("damaged: {damage}"), "restore a backup with `recast restore`");
    }
    report.episodes = count(connection, "SELECT count(*) FROM episodes")?;
    // two statements: each reads one end of the index
    report.oldest_ms = connection.query_row("SELECT min(created_ms) FROM episodes", [], |row| row.get(0))?;
    report.newest_ms = connection.query_row("SELECT max(created_ms) FROM episodes", [], |row| row.get(0))?;
    report.shadow_runs = count(connection, "SELECT count(*) FROM shadow_runs")?;
    report.shadow_pending = count(connection, "SELECT count(*) FROM shadow_runs WHERE state = 'pending'")?;
    report.feedback = count(connection, "SELECT count(*) FROM feedback")?;
    report.verdicts = count(connection, "SELECT count(*) FROM verdicts")?;
    report.rewards = count(connection, "SELECT count(*) FROM rewards")?;
    report.labels = count(connection, "SELECT count(*) FROM labels")?;
    if report.shadow_pending > 0 && !report.writer_running {
        let problem = format!("{} shadow runs were left behind by a process that ended", report.shadow_pending);
        report.find(problem, "start the gateway, it counts them as dropped; or repair the store");
    }
    for (table, orphans) in count_orphans(connection)? {
        report.find(format!("{orphans} rows of {table} hang on no episode"), "stop the gateway and repair the store");
    }
    // reports count in the index, pairs come from the table
    if outcomes(connection, "")? != outcomes(connection, "NOT INDEXED")? {
        report.find("the outcomes of shadow runs do not add up", "restore a backup with `recast restore`");
    }
    Ok(())
}

/// How many shadow runs ended in each way, counted with or without the help of an index.
fn outcomes(connection: &Connection, indexed: &str) -> rusqlite::Result<Vec<(String, i64)>> {
    let sql = format!("SELECT state, count(*) FROM shadow_runs {indexed} GROUP BY state ORDER BY state");
    let mut statement = connection.prepare(&sql)?;
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

#[cfg(test)]
mod tests {
    use recast_config::Durability;

    use super::*;
    use crate::testing::{episode, feedback, sampled, settings};
    use crate::{EpisodeReader, EpisodeStore, RepairReport, repair};

    #[tokio::test]
    async fn a_sound_store_has_no_findings_and_its_figures() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        let settings = settings(Durability::Strict);
        let store = EpisodeStore::open(&path, &settings).unwrap();
        for ms in [5, 9, 7] {
            store.append(episode("a", ms)).await.unwrap();
        }
        let report = doctor(&path, &settings);
        assert_eq!((report.episodes, report.oldest_ms, report.newest_ms), (3, Some(5), Some(9)));
        assert_eq!((report.schema_version, report.writer_running), (Some(SCHEMA_VERSION), true));
        assert!(report.wal_bytes > 0 && report.free_bytes.is_some());
        assert_eq!(report.findings, []);
        store.close().await;
        let report = doctor(&path, &settings);
        assert_eq!((report.writer_running, report.wal_bytes, report.episodes), (false, 0, 3));
    }

    #[tokio::test]
    async fn each_trouble_is_a_finding_with_its_fix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        let none = doctor(&path, &settings(Durability::Strict));
        assert!(none.findings[0].problem.contains("there is no episode store"));
        assert!(!beside(&path, ".lock").exists(), "looking leaves nothing behind");
        let store = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap();
        store.append(episode("a", 1)).await.unwrap();
        store.close().await;
        let tight = EpisodeSettings { low_water_bytes: u64::MAX, max_bytes: 1, ..settings(Durability::Strict) };
        let problems: Vec<_> = doctor(&path, &tight).findings.into_iter().map(|finding| finding.problem).collect();
        assert!(problems[0].contains("low_water_bytes") && problems[1].contains("max_bytes"), "{problems:?}");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        assert!(doctor(&path, &settings(Durability::Strict)).findings[0].problem.contains("damaged"));
    }

    #[tokio::test]
    async fn what_hangs_on_nothing_is_found_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.db");
        let settings = settings(Durability::Strict);
        assert!(matches!(repair(&path, &settings), Err(EpisodeError::Missing { .. })));
        let store = EpisodeStore::open(&path, &settings).unwrap();
        let (kept, run) = sampled("a", 1);
        store.append_sampled(kept.clone(), run).await.unwrap();
        let (lost, run) = sampled("a", 2);
        store.append_sampled(lost.clone(), run.clone()).await.unwrap();
        store.put_feedback(&feedback(&lost, 3)).await.unwrap();
        let deferred = feedback(&episode("a", 9), 3);
        store.put_feedback(&deferred).await.unwrap();
        assert_eq!(doctor(&path, &settings).findings, [], "runs of a living gateway are no finding");
        assert!(matches!(repair(&path, &settings), Err(EpisodeError::InUse { .. })));
        store.close().await;
        let connection = crate::schema::open_file(&path, Durability::Strict).unwrap();
        connection.execute("DROP TRIGGER episode_deleted", []).unwrap();
        connection.execute("DELETE FROM episodes WHERE id = ?1", [lost.id.0.as_bytes()]).unwrap();
        drop(connection);
        let report = doctor(&path, &settings);
        assert_eq!((report.shadow_runs, report.shadow_pending, report.feedback), (2, 2, 2));
        let problems: Vec<_> = report.findings.iter().map(|finding| finding.problem.as_str()).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].starts_with("2 shadow runs were left behind"), "{problems:?}");
        assert!(problems[1].contains("1 rows of shadow_runs") && problems[2].contains("1 rows of feedback"));
        assert_eq!(repair(&path, &settings).unwrap(), RepairReport { runs_dropped: 2, orphans_deleted: 2 });
        assert_eq!(repair(&path, &settings).unwrap(), RepairReport::default());
        let report = doctor(&path, &settings);
        assert_eq!((report.findings.as_slice(), report.shadow_runs, report.feedback), (&[][..], 1, 1));
        let accounts = EpisodeReader::open(&path).unwrap().shadow_accounting(&kept.tenant, None).unwrap();
        assert_eq!(accounts[0].dropped.get("restart"), Some(&1));
    }
}
