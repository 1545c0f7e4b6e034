//! The ledger of shadow runs, read one by one: the pairs to compare.

use recast_domain::{Assignment, Episode, EpisodeId, ShadowKind, ShadowOutcome, ShadowRun, TenantId};
use uuid::Uuid;

use crate::db::{self, Query, Row};
use crate::error::EpisodeError;
use crate::ledger::{ANSWER_VERSION, PENDING, kind_text};
use crate::reader::{EpisodeReader, LIST_MAX, Stored, hex};

pub(crate) const MEMBERS: &str = "SELECT id, record_version, body FROM episodes INDEXED BY episodes_by_experiment
    WHERE tenant = ?1 AND experiment = ?2 AND id > ?3 ORDER BY id LIMIT ?4";

/// Where a page of pairs ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunCursor {
    episode: [u8; 16],
    version: u32,
    kind: &'static str,
    arm: String,
}

impl From<&ShadowRun> for RunCursor {
    fn from(run: &ShadowRun) -> Self {
        Self {
            episode: *run.episode.0.as_bytes(),
            version: run.assignment.version,
            kind: kind_text(run.kind),
            arm: run.assignment.arm.clone(),
        }
    }
}

pub(crate) fn kind(text: &str) -> Option<ShadowKind> {
    [ShadowKind::Treatment, ShadowKind::Control].into_iter().find(|kind| kind_text(*kind) == text)
}

impl EpisodeReader {
    /// Answers of both arms to the same requests: the live episode and the run that completed in the shadow, by episode
    /// id, oldest first. `after` is the last run of the page before. At most `limit`, and never more than [`LIST_MAX`].
    ///
    /// # Errors
    /// When the store, or one of the pairs, cannot be read.
    pub fn pairs(
        &self,
        tenant: &TenantId,
        experiment: &str,
        version: Option<u32>,
        after: Option<&RunCursor>,
        limit: usize,
    ) -> Result<Vec<(Episode, ShadowRun)>, EpisodeError> {
        self.runs_where(" AND s.state = 'completed'", (tenant, experiment), version, after, limit)
    }

    /// The same with the runs that did not complete, or have not ended.
    ///
    /// # Errors
    /// When the store, or one of the runs, cannot be read.
    pub fn shadow_runs(
        &self,
        tenant: &TenantId,
        experiment: &str,
        version: Option<u32>,
        after: Option<&RunCursor>,
        limit: usize,
    ) -> Result<Vec<(Episode, ShadowRun)>, EpisodeError> {
        self.runs_where("", (tenant, experiment), version, after, limit)
    }

    fn runs_where(
        &self,
        state: &str,
        (tenant, experiment): (&TenantId, &str),
        version: Option<u32>,
        after: Option<&RunCursor>,
        limit: usize,
    ) -> Result<Vec<(Episode, ShadowRun)>, EpisodeError> {
        let rows = self.read(|connection| {
            let query = query(state, (tenant, experiment), version, after, limit);
            connection.query(&query.sql, &query.values, stored_run)
        })?;
        let pair = |(episode, run): (Stored, StoredRun)| {
            let run = run.run(tenant, experiment, episode.id)?;
            Ok((episode.episode()?, run))
        };
        rows.into_iter().map(pair).collect()
    }

    /// Episodes that were part of an experiment, whether or not they were sampled, by id, oldest first. `after` is the
    /// last one of the page before. At most `limit`, and never more than [`LIST_MAX`].
    ///
    /// # Errors
    /// When the store, or one of the episodes, cannot be read.
    pub fn experiment_episodes(
        &self,
        tenant: &TenantId,
        experiment: &str,
        after: Option<EpisodeId>,
        limit: usize,
    ) -> Result<Vec<Episode>, EpisodeError> {
        let after = after.map_or([0; 16], |id| *id.0.as_bytes());
        let rows = self.read(|connection| {
            let values = [tenant.as_str().into(), experiment.into(), (&after).into(), limit.min(LIST_MAX).into()];
            connection.query(MEMBERS, &values, crate::reader::stored)
        })?;
        rows.into_iter().map(Stored::episode).collect()
    }

    /// One shadow run's outcome by its episode and kind, in whatever experiment; the latest version's where there are
    /// several. `None` where the episode was not sampled.
    ///
    /// # Errors
    /// When the store, or the run, cannot be read.
    pub fn shadow_run(
        &self,
        tenant: &TenantId,
        episode: EpisodeId,
        kind: ShadowKind,
    ) -> Result<Option<ShadowRun>, EpisodeError> {
        let found = self.read(|connection| {
            let sql = "SELECT version, kind, arm, sampled_ms, state, reason, record_version, answer, experiment
                FROM shadow_runs WHERE tenant = ?1 AND episode = ?2 AND kind = ?3 ORDER BY version DESC LIMIT 1";
            let key = [tenant.as_str().into(), episode.0.as_bytes().into(), kind_text(kind).into()];
            connection.first(sql, &key, |row| Ok((run_columns(row, 0)?, row.get::<String>(8)?)))
        })?;
        found.map(|(run, experiment)| run.run(tenant, &experiment, *episode.0.as_bytes())).transpose()
    }
}

/// The statement is put together from fixed parts; whatever a caller gives is bound. From the runs to their episodes:
/// that is the order that the cross join keeps.
pub(crate) fn query<'a>(
    state: &str,
    (tenant, experiment): (&'a TenantId, &'a str),
    version: Option<u32>,
    after: Option<&'a RunCursor>,
    limit: usize,
) -> Query<'a> {
    let sql = "SELECT e.id, e.record_version, e.body,
            s.version, s.kind, s.arm, s.sampled_ms, s.state, s.reason, s.record_version, s.answer
        FROM shadow_runs AS s CROSS JOIN episodes AS e ON e.tenant = s.tenant AND e.id = s.episode
        WHERE s.tenant = ?1 AND s.experiment = ?2";
    let mut query = Query::new(sql, vec![tenant.as_str().into(), experiment.into()]);
    query.push(state, []);
    if let Some(version) = version {
        query.push(" AND s.version = ?", [version.into()]);
    }
    if let Some(after) = after {
        let at = [(&after.episode).into(), after.version.into(), after.kind.into(), (&after.arm).into()];
        query.push(" AND (s.episode, s.version, s.kind, s.arm) > (?, ?, ?, ?)", at);
    }
    query.push(" ORDER BY s.episode, s.version, s.kind, s.arm LIMIT ?", [limit.min(LIST_MAX).into()]);
    query
}

/// A run as it lies in the store.
struct StoredRun {
    version: u32,
    kind: String,
    arm: String,
    sampled_ms: i64,
    state: String,
    reason: String,
    record_version: u32,
    answer: Option<String>,
}

fn stored_run(row: Row<'_>) -> db::Result<(Stored, StoredRun)> {
    Ok((crate::reader::stored(row)?, run_columns(row, 3)?))
}

fn run_columns(row: Row<'_>, first: usize) -> db::Result<StoredRun> {
    Ok(StoredRun {
        version: row.get(first)?,
        kind: row.get(first + 1)?,
        arm: row.get(first + 2)?,
        sampled_ms: row.get(first + 3)?,
        state: row.get(first + 4)?,
        reason: row.get(first + 5)?,
        record_version: row.get(first + 6)?,
        answer: row.get(first + 7)?,
    })
}

impl StoredRun {
    fn run(self, tenant: &TenantId, experiment: &str, episode: [u8; 16]) -> Result<ShadowRun, EpisodeError> {
        let unreadable = |message: String| EpisodeError::Unreadable { id: hex(&episode), message };
        let outcome = match (self.state.as_str(), self.answer) {
            (PENDING, _) => None,
            ("timed_out", _) => Some(ShadowOutcome::TimedOut),
            ("failed", _) => Some(ShadowOutcome::Failed { reason: self.reason }),
            ("dropped", _) => Some(ShadowOutcome::Dropped { reason: self.reason }),
            ("completed", Some(_)) if self.record_version > ANSWER_VERSION => {
                return Err(unreadable(format!(
                    "its shadow's version {} is newer: update recast",
                    self.record_version
                )));
            }
            ("completed", Some(text)) => {
                let answer = serde_json::from_str(&text).map_err(|error| unreadable(format!("its shadow: {error}")))?;
                Some(ShadowOutcome::Completed { answer })
            }
            (state, _) => return Err(unreadable(format!("its shadow is {state:?}"))),
        };
        let Some(kind) = kind(&self.kind) else {
            return Err(unreadable(format!("its shadow's kind is {:?}", self.kind)));
        };
        Ok(ShadowRun {
            episode: EpisodeId(Uuid::from_bytes(episode)),
            tenant: tenant.clone(),
            assignment: Assignment { experiment: experiment.to_owned(), version: self.version, arm: self.arm },
            kind,
            sampled_ms: self.sampled_ms,
            outcome,
        })
    }
}
