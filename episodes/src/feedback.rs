//! What people thought of answers. It comes late, twice, and now and then before the episode.

use recast_domain::{EpisodeId, Feedback, FeedbackSignal, TenantId};
use uuid::Uuid;

use crate::db::{self, Connection};
use crate::error::EpisodeError;
use crate::reader::{EpisodeReader, hex};
use crate::write::Written;

// deferred: its episode was not there when it came; of an erased one nothing is kept
const INSERT: &str = "INSERT INTO feedback (tenant, id, episode, created_ms, signal, deferred)
    SELECT ?1, ?2, ?3, ?4, ?5, CASE WHEN EXISTS (SELECT 1 FROM episodes WHERE tenant = ?1 AND id = ?3) THEN 0 ELSE 1 END
    WHERE NOT EXISTS (SELECT 1 FROM erasures WHERE tenant = ?1 AND episode = ?3)
    ON CONFLICT (tenant, id) DO NOTHING";
// from the experiment's episodes to their feedback: the cross join keeps that order, and without statistics SQLite would
// rather walk all episodes of the tenant
pub(crate) const BY_EXPERIMENT: &str = "SELECT e.id, e.experiment_version, e.arm, f.created_ms, f.signal
    FROM episodes AS e INDEXED BY episodes_by_experiment CROSS JOIN feedback AS f
        ON f.tenant = e.tenant AND f.episode = e.id
    WHERE e.tenant = ?1 AND e.experiment = ?2 ORDER BY e.id, f.created_ms";

/// What became of a feedback event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackStored {
    /// It is new, and stored.
    Stored,
    /// An event of this id is there already; it stands as it is.
    Duplicate,
}

/// A feedback event about an answer that was part of an experiment.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ArmFeedback {
    /// The answer it is about.
    pub episode: EpisodeId,
    /// Version of the experiment's definition.
    pub version: u32,
    /// The arm that answered; of an interleaved answer, the two joined by `+`.
    pub arm: String,
    /// When it was received, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
    /// What was said.
    pub signal: FeedbackSignal,
}

/// A feedback event as a row.
#[derive(Debug)]
pub(crate) struct FeedbackRow {
    tenant: String,
    id: [u8; 16],
    episode: [u8; 16],
    created_ms: i64,
    signal: String,
}

/// # Errors
/// When a score is not from 0 to 1.
pub(crate) fn encode(feedback: &Feedback) -> Result<FeedbackRow, EpisodeError> {
    if let FeedbackSignal::Score { value } = feedback.signal
        && !(0.0..=1.0).contains(&value)
    {
        return Err(EpisodeError::Invalid(format!("score {value} is not from 0 to 1")));
    }
    Ok(FeedbackRow {
        tenant: feedback.tenant.as_str().to_owned(),
        id: *feedback.id.as_bytes(),
        episode: *feedback.episode.0.as_bytes(),
        created_ms: feedback.created_ms,
        signal: serde_json::to_string(&feedback.signal).map_err(|error| EpisodeError::Invalid(error.to_string()))?,
    })
}

/// # Errors
/// When the database fails.
pub(crate) fn insert(connection: &Connection, row: &FeedbackRow) -> db::Result<Written> {
    let values =
        [(&row.tenant).into(), (&row.id).into(), (&row.episode).into(), row.created_ms.into(), (&row.signal).into()];
    let written = connection.execute(INSERT, &values)?;
    Ok(if written > 0 { Written::Stored } else { Written::Known })
}

fn signal(episode: [u8; 16], text: &str) -> Result<FeedbackSignal, EpisodeError> {
    serde_json::from_str(text)
        .map_err(|error| EpisodeError::Unreadable { id: hex(&episode), message: format!("its feedback: {error}") })
}

impl EpisodeReader {
    /// All feedback about one episode, the first one first; also what came before the episode did.
    ///
    /// # Errors
    /// When the store, or one of the events, cannot be read.
    pub fn feedback(&self, tenant: &TenantId, episode: EpisodeId) -> Result<Vec<Feedback>, EpisodeError> {
        let rows = self.read(|connection| {
            let sql = "SELECT id, created_ms, signal FROM feedback
                WHERE tenant = ?1 AND episode = ?2 ORDER BY created_ms, id";
            let values = [tenant.as_str().into(), episode.0.as_bytes().into()];
            connection.query(sql, &values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        })?;
        let event = |(id, created_ms, text): ([u8; 16], i64, String)| {
            let signal = signal(*episode.0.as_bytes(), &text)?;
            Ok(Feedback { id: Uuid::from_bytes(id), tenant: tenant.clone(), episode, created_ms, signal })
        };
        rows.into_iter().map(event).collect()
    }

    /// All feedback about answers of one tenant that were part of an experiment, by episode.
    ///
    /// # Errors
    /// When the store, or one of the events, cannot be read.
    pub fn feedback_by_experiment(
        &self,
        tenant: &TenantId,
        experiment: &str,
    ) -> Result<Vec<ArmFeedback>, EpisodeError> {
        let rows = self.read(|connection| {
            connection.query(BY_EXPERIMENT, &[tenant.as_str().into(), experiment.into()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })
        })?;
        let event = |(id, version, arm, created_ms, text): ([u8; 16], u32, String, i64, String)| {
            let signal = signal(id, &text)?;
            Ok(ArmFeedback { episode: EpisodeId(Uuid::from_bytes(id)), version, arm, created_ms, signal })
        };
        rows.into_iter().map(event).collect()
    }
}
