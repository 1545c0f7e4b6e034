//! Verdicts of judges and the rewards computed from them. What a verdict or a reward means is not known here: scores
//! and parts are JSON values of whoever writes them.

use recast_domain::{EpisodeId, TenantId};
use serde_json::Value;

use crate::db::{Connection, Result, Row};
use crate::error::EpisodeError;
use crate::ledger::has_episode;
use crate::reader::{EpisodeReader, hex};
use crate::write::Written;

// a verdict stands; only a missing one may still be filled in
const PUT_VERDICT: &str = "INSERT INTO verdicts
    (tenant, episode, side, judge, prompt_version, schema_version, key, state, scores, reason, raw, created_ms)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
    WHERE EXISTS (SELECT 1 FROM episodes WHERE tenant = ?1 AND id = ?2)
    ON CONFLICT (tenant, key, episode, side) DO UPDATE SET
        state = excluded.state, scores = excluded.scores, reason = excluded.reason, raw = excluded.raw,
        created_ms = excluded.created_ms
    WHERE verdicts.state = 'missing'";
// a reward is a computation: the latest one counts
const PUT_REWARD: &str = "INSERT INTO rewards (tenant, episode, side, reward_version, weights_hash, parts, created_ms)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
    WHERE EXISTS (SELECT 1 FROM episodes WHERE tenant = ?1 AND id = ?2)
    ON CONFLICT (tenant, episode, side, weights_hash) DO UPDATE SET
        reward_version = excluded.reward_version, parts = excluded.parts, created_ms = excluded.created_ms";

/// Which rewrite of an episode was judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The one that the asker got.
    Live,
    /// The one of the other arm.
    Shadow,
    /// The second sample of the same arm.
    Control,
    /// One that was sampled for training; the hash of its text.
    Completion(String),
}

impl Side {
    fn text(&self) -> String {
        match self {
            Self::Live => "live".to_owned(),
            Self::Shadow => "shadow".to_owned(),
            Self::Control => "control".to_owned(),
            Self::Completion(hash) => format!("completion:{hash}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "live" => Some(Self::Live),
            "shadow" => Some(Self::Shadow),
            "control" => Some(Self::Control),
            _ => text.strip_prefix("completion:").map(|hash| Self::Completion(hash.to_owned())),
        }
    }
}

/// What a judge said about one side of one episode, or why it said nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct VerdictRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// The episode.
    pub episode: EpisodeId,
    /// Which rewrite of it.
    pub side: Side,
    /// The judge's id.
    pub judge: String,
    /// Version of its prompt.
    pub prompt_version: String,
    /// Version of the scores' form.
    pub schema_version: u32,
    /// Hash of everything that the judge saw. The same question asked twice has the same key.
    pub key: [u8; 32],
    /// The scores; `None` where the verdict is missing.
    pub scores: Option<Value>,
    /// The judge's reason, or why there is no verdict.
    pub reason: String,
    /// The reply as it came; may be empty.
    pub raw: String,
    /// When it was given, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
}

/// The reward of one side of one episode under one set of weights.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// The episode.
    pub episode: EpisodeId,
    /// Which rewrite of it.
    pub side: Side,
    /// Version of the formula.
    pub reward_version: u32,
    /// Hash of the weights.
    pub weights_hash: String,
    /// The total and its parts.
    pub parts: Value,
    /// When it was computed, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
}

/// What became of a number of verdicts or rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PutCounts {
    /// Written.
    pub stored: usize,
    /// Not written, because a verdict stands there already.
    pub known: usize,
    /// Not written, because the episode is not in the store.
    pub no_episode: usize,
}

impl PutCounts {
    pub(crate) fn add(&mut self, other: Self) {
        self.stored += other.stored;
        self.known += other.known;
        self.no_episode += other.no_episode;
    }

    pub(crate) fn count(&mut self, connection: &Connection, changed: usize, key: (&str, &[u8; 16])) -> Result<()> {
        if changed > 0 {
            self.stored += 1;
        } else if has_episode(connection, key.0, key.1)? {
            self.known += 1;
        } else {
            self.no_episode += 1;
        }
        Ok(())
    }
}

/// # Errors
/// When the database fails.
pub(crate) fn put_verdicts(connection: &Connection, verdicts: &[VerdictRecord]) -> Result<Written> {
    let mut counts = PutCounts::default();
    for one in verdicts {
        let (tenant, episode) = (one.tenant.as_str(), one.episode.0.as_bytes());
        let (side, scores) = (one.side.text(), one.scores.as_ref().map(Value::to_string));
        let values = [
            tenant.into(),
            episode.into(),
            (&side).into(),
            (&one.judge).into(),
            (&one.prompt_version).into(),
            one.schema_version.into(),
            (&one.key).into(),
            if one.scores.is_some() { "scored" } else { "missing" }.into(),
            scores.as_ref().into(),
            (&one.reason).into(),
            (&one.raw).into(),
            one.created_ms.into(),
        ];
        let changed = connection.execute(PUT_VERDICT, &values)?;
        counts.count(connection, changed, (tenant, episode))?;
    }
    Ok(Written::Counted(counts))
}

/// # Errors
/// When the database fails.
pub(crate) fn put_rewards(connection: &Connection, rewards: &[RewardRecord]) -> Result<Written> {
    let mut counts = PutCounts::default();
    for one in rewards {
        let (tenant, episode) = (one.tenant.as_str(), one.episode.0.as_bytes());
        let (side, parts) = (one.side.text(), one.parts.to_string());
        let values = [
            tenant.into(),
            episode.into(),
            (&side).into(),
            one.reward_version.into(),
            (&one.weights_hash).into(),
            (&parts).into(),
            one.created_ms.into(),
        ];
        let changed = connection.execute(PUT_REWARD, &values)?;
        counts.count(connection, changed, (tenant, episode))?;
    }
    Ok(Written::Counted(counts))
}

/// A verdict as it lies in the store: all but the tenant, with the JSON unread.
type StoredVerdict = ([u8; 16], String, String, String, u32, [u8; 32], Option<String>, String, String, i64);

const VERDICT: &str =
    "SELECT episode, side, judge, prompt_version, schema_version, key, scores, reason, raw, created_ms FROM verdicts";

fn stored_verdict(row: Row<'_>) -> Result<StoredVerdict> {
    Ok((
        row.get(0)?,
        row.get(1)?,
        row.get(2)?,
        row.get(3)?,
        row.get(4)?,
        row.get(5)?,
        row.get(6)?,
        row.get(7)?,
        row.get(8)?,
        row.get(9)?,
    ))
}

fn verdict(tenant: &TenantId, stored: StoredVerdict) -> std::result::Result<VerdictRecord, EpisodeError> {
    let (id, side, judge, prompt_version, schema_version, key, scores, reason, raw, created_ms) = stored;
    Ok(VerdictRecord {
        tenant: tenant.clone(),
        episode: EpisodeId(uuid::Uuid::from_bytes(id)),
        side: read_side(&id, &side)?,
        judge,
        prompt_version,
        schema_version,
        key,
        scores: scores.map(|text| read_json(&id, &text)).transpose()?,
        reason,
        raw,
        created_ms,
    })
}

fn read_side(id: &[u8; 16], text: &str) -> std::result::Result<Side, EpisodeError> {
    Side::parse(text)
        .ok_or_else(|| EpisodeError::Unreadable { id: hex(id), message: format!("{text:?} is no side of an episode") })
}

fn read_json(id: &[u8; 16], text: &str) -> std::result::Result<Value, EpisodeError> {
    serde_json::from_str(text)
        .map_err(|error| EpisodeError::Unreadable { id: hex(id), message: format!("its scores: {error}") })
}

impl EpisodeReader {
    /// All verdicts about one episode, by side.
    ///
    /// # Errors
    /// When the store, or one of the verdicts, cannot be read.
    pub fn verdicts(
        &self,
        tenant: &TenantId,
        episode: EpisodeId,
    ) -> std::result::Result<Vec<VerdictRecord>, EpisodeError> {
        let rows = self.read(|connection| {
            let sql = format!("{VERDICT} WHERE tenant = ?1 AND episode = ?2 ORDER BY side, created_ms, key");
            connection.query(&sql, &[tenant.as_str().into(), episode.0.as_bytes().into()], stored_verdict)
        })?;
        rows.into_iter().map(|row| verdict(tenant, row)).collect()
    }

    /// What a judge said when it was asked this very question before; one with scores where there is one.
    ///
    /// # Errors
    /// When the store, or the verdict, cannot be read.
    pub fn verdict_by_key(
        &self,
        tenant: &TenantId,
        key: &[u8; 32],
    ) -> std::result::Result<Option<VerdictRecord>, EpisodeError> {
        let row = self.read(|connection| {
            let sql = format!("{VERDICT} WHERE tenant = ?1 AND key = ?2 ORDER BY state DESC, created_ms LIMIT 1");
            connection.first(&sql, &[tenant.as_str().into(), key.into()], stored_verdict)
        })?;
        row.map(|row| verdict(tenant, row)).transpose()
    }

    /// All rewards of one episode, by side and weights.
    ///
    /// # Errors
    /// When the store, or one of the rewards, cannot be read.
    pub fn rewards(
        &self,
        tenant: &TenantId,
        episode: EpisodeId,
    ) -> std::result::Result<Vec<RewardRecord>, EpisodeError> {
        let rows = self.read(|connection| {
            let sql = "SELECT side, reward_version, weights_hash, parts, created_ms FROM rewards
                WHERE tenant = ?1 AND episode = ?2 ORDER BY side, weights_hash";
            connection.query(sql, &[tenant.as_str().into(), episode.0.as_bytes().into()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })
        })?;
        let id = episode.0.as_bytes();
        let reward = |(side, reward_version, weights_hash, parts, created_ms): (String, u32, String, String, i64)| {
            let (side, parts) = (read_side(id, &side)?, read_json(id, &parts)?);
            let tenant = tenant.clone();
            Ok(RewardRecord { tenant, episode, side, reward_version, weights_hash, parts, created_ms })
        };
        rows.into_iter().map(reward).collect()
    }
}
