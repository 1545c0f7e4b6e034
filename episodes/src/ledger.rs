//! The ledger of shadow runs, written: every sampled request has a row from the commit of its episode on, and that row
//! ends once.

use recast_domain::{ShadowKind, ShadowOutcome, ShadowRun};

use crate::db::{Connection, Result};
use crate::error::EpisodeError;
use crate::owner;
use crate::record::answer_not_finite;
use crate::write::Written;

/// Version of the JSON of a shadow's answer; see [`crate::record::RECORD_VERSION`].
pub(crate) const ANSWER_VERSION: u32 = 1;
/// What a run is that has not ended yet.
pub(crate) const PENDING: &str = "pending";

// a repeated run is the same run: the first one stands
const INSERT: &str = "INSERT INTO shadow_runs
    (tenant, episode, experiment, version, kind, arm, sampled_ms, state, reason, record_version, answer)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING";
// the first end stands, and a run whose episode is not stored leaves no row
const END: &str = "INSERT INTO shadow_runs
    (tenant, episode, experiment, version, kind, arm, sampled_ms, state, reason, record_version, answer)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
    WHERE EXISTS (SELECT 1 FROM episodes WHERE tenant = ?1 AND id = ?2)
    ON CONFLICT (tenant, episode, experiment, version, kind, arm) DO UPDATE SET
        state = excluded.state, reason = excluded.reason, record_version = excluded.record_version,
        answer = excluded.answer
    WHERE shadow_runs.state = 'pending'";
pub(crate) const SWEEP: &str = "UPDATE shadow_runs SET state = 'dropped', reason = 'restart' WHERE state = 'pending'";

/// What became of a call that ends a shadow run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowEnd {
    /// This outcome is the run's outcome now.
    Stored,
    /// The run had ended before; that outcome stands.
    AlreadyEnded,
    /// The episode is not in the store, so nothing was written: it was never stored, or is deleted by now.
    NoEpisode,
}

/// A shadow run as a row.
#[derive(Debug)]
pub(crate) struct RunRow {
    tenant: String,
    episode: [u8; 16],
    experiment: String,
    version: u32,
    kind: &'static str,
    arm: String,
    sampled_ms: i64,
    state: &'static str,
    reason: String,
    answer: Option<String>,
}

pub(crate) fn kind_text(kind: ShadowKind) -> &'static str {
    match kind {
        ShadowKind::Treatment => "treatment",
        ShadowKind::Control => "control",
    }
}

/// # Errors
/// When a number of the answer is not finite.
pub(crate) fn encode(run: &ShadowRun) -> std::result::Result<RunRow, EpisodeError> {
    let answer = match &run.outcome {
        Some(ShadowOutcome::Completed { answer }) => {
            if let Some(field) = answer_not_finite(&answer.rewrite, &answer.hits) {
                return Err(EpisodeError::Invalid(format!("the shadow's {field} is not a finite number")));
            }
            Some(serde_json::to_string(answer).map_err(|error| EpisodeError::Invalid(error.to_string()))?)
        }
        _ => None,
    };
    Ok(RunRow {
        tenant: run.tenant.as_str().to_owned(),
        episode: *run.episode.0.as_bytes(),
        experiment: run.assignment.experiment.clone(),
        version: run.assignment.version,
        kind: kind_text(run.kind),
        arm: run.assignment.arm.clone(),
        sampled_ms: run.sampled_ms,
        state: run.outcome.as_ref().map_or(PENDING, ShadowOutcome::label),
        reason: run.outcome.as_ref().map_or("", ShadowOutcome::reason).to_owned(),
        answer,
    })
}

fn execute(connection: &Connection, sql: &str, run: &RunRow) -> Result<usize> {
    let values = [
        (&run.tenant).into(),
        (&run.episode).into(),
        (&run.experiment).into(),
        run.version.into(),
        run.kind.into(),
        (&run.arm).into(),
        run.sampled_ms.into(),
        run.state.into(),
        (&run.reason).into(),
        ANSWER_VERSION.into(),
        run.answer.as_ref().into(),
    ];
    connection.execute(sql, &values)
}

/// Writes the run beside its episode, in the same transaction.
///
/// # Errors
/// When the database fails.
pub(crate) fn insert(connection: &Connection, run: &RunRow) -> Result<()> {
    execute(connection, INSERT, run).map(drop)
}

/// Ends a run that waits, or enters one that ended at once.
///
/// # Errors
/// When the database fails.
pub(crate) fn end(connection: &Connection, run: &RunRow) -> Result<Written> {
    if execute(connection, END, run)? > 0 {
        return Ok(Written::Stored);
    }
    let stored = has_episode(connection, &run.tenant, &run.episode)?;
    Ok(if stored { Written::Known } else { Written::NoEpisode })
}

/// Whether the episode is in the store.
///
/// # Errors
/// When the database fails.
pub(crate) fn has_episode(connection: &Connection, tenant: &str, id: &[u8; 16]) -> Result<bool> {
    let sql = "SELECT 1 FROM episodes WHERE tenant = ?1 AND id = ?2";
    connection.first(sql, &[tenant.into(), id.into()], |_| Ok(())).map(|found| found.is_some())
}

/// Ends the runs that a process left behind which is gone. Returns how many.
///
/// # Errors
/// When the database fails.
pub(crate) fn sweep(connection: &Connection) -> Result<usize> {
    match connection {
        Connection::Sqlite(_) => connection.execute(SWEEP, &[]),
        Connection::Postgres(_) => owner::sweep(connection),
    }
}
