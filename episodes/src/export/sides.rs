//! What hangs on an episode, read beside it: each table in the order of the episodes, one step behind the other, so
//! that a walk over all of them reads every row once.

use std::cmp::Ordering;

use super::source::Snapshot;
use crate::db::{Connection, Cursor, Result, Row, Statement};

/// A shadow run as it lies in the store.
#[derive(Debug, Default)]
pub(crate) struct RawRun {
    pub kind: String,
    pub experiment: String,
    pub version: u32,
    pub arm: String,
    pub sampled_ms: i64,
    pub state: String,
    pub reason: String,
    pub record_version: u32,
    pub answer: Option<String>,
}

/// A feedback event.
#[derive(Debug)]
pub(crate) struct RawFeedback {
    pub id: [u8; 16],
    pub created_ms: i64,
    pub signal: String,
}

/// A verdict.
#[derive(Debug)]
pub(crate) struct RawVerdict {
    pub side: String,
    pub judge: String,
    pub prompt_version: String,
    pub key: [u8; 32],
    pub state: String,
    pub scores: Option<String>,
    pub reason: String,
    pub created_ms: i64,
}

/// A reward.
#[derive(Debug)]
pub(crate) struct RawReward {
    pub side: String,
    pub reward_version: u32,
    pub weights_hash: String,
    pub parts: String,
    pub created_ms: i64,
}

/// A label.
#[derive(Debug)]
pub(crate) struct RawLabel {
    pub author: String,
    pub kind: String,
    pub value: String,
    pub created_ms: i64,
}

/// All that hangs on one episode.
#[derive(Debug, Default)]
pub(crate) struct SideRows {
    pub runs: Vec<RawRun>,
    pub feedback: Vec<RawFeedback>,
    pub verdicts: Vec<RawVerdict>,
    pub rewards: Vec<RawReward>,
    pub labels: Vec<RawLabel>,
}

const RUNS: &str = "SELECT episode, kind, experiment, version, arm, sampled_ms, state, reason, record_version, answer
    FROM shadow_runs WHERE tenant = ?1 AND episode > ?2 AND rowid <= ?3 ORDER BY episode";
const FEEDBACK: &str = "SELECT episode, id, created_ms, signal FROM feedback
    WHERE tenant = ?1 AND episode > ?2 AND rowid <= ?3 ORDER BY episode";
const VERDICTS: &str = "SELECT episode, side, judge, prompt_version, key, state, scores, reason, created_ms
    FROM verdicts WHERE tenant = ?1 AND episode > ?2 AND rowid <= ?3 ORDER BY episode";
const REWARDS: &str = "SELECT episode, side, reward_version, weights_hash, parts, created_ms FROM rewards
    WHERE tenant = ?1 AND episode > ?2 AND rowid <= ?3 ORDER BY episode";

const LABELS: &str = "SELECT episode, author, kind, value, created_ms FROM labels
    WHERE tenant = ?1 AND episode > ?2 AND rowid <= ?3 ORDER BY episode";

/// The statements, which the walks borrow.
pub(crate) struct SideStatements<'c> {
    tables: [(Statement<'c>, i64); 5],
}

impl<'c> SideStatements<'c> {
    /// # Errors
    /// When the database fails.
    pub(crate) fn new(connection: &'c Connection, snapshot: &Snapshot) -> Result<Self> {
        let table = |sql: &str, bound: i64| -> Result<_> { Ok((connection.prepare(sql)?, bound)) };
        let tables = [
            table(RUNS, snapshot.shadow_runs)?,
            table(FEEDBACK, snapshot.feedback)?,
            table(VERDICTS, snapshot.verdicts)?,
            table(REWARDS, snapshot.rewards)?,
            table(LABELS, snapshot.labels)?,
        ];
        Ok(Self { tables })
    }

    /// Begins behind the episode `after` of `tenant`.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn walk(&mut self, tenant: &str, after: &[u8; 16]) -> Result<Sides<'_>> {
        let [runs, feedback, verdicts, rewards, labels] = &mut self.tables;
        let values = |bound: i64| [tenant.into(), after.into(), bound.into()];
        Ok(Sides {
            runs: Walk::new(runs.0.open(&values(runs.1))?)?,
            feedback: Walk::new(feedback.0.open(&values(feedback.1))?)?,
            verdicts: Walk::new(verdicts.0.open(&values(verdicts.1))?)?,
            rewards: Walk::new(rewards.0.open(&values(rewards.1))?)?,
            labels: Walk::new(labels.0.open(&values(labels.1))?)?,
        })
    }
}

/// One table, in the order of the episodes.
struct Walk<'s>(Cursor<'s>);

impl<'s> Walk<'s> {
    fn new(mut rows: Cursor<'s>) -> Result<Self> {
        rows.advance()?;
        Ok(Self(rows))
    }

    /// Shows the rows of `episode`; what lies before them is passed over.
    fn take(&mut self, episode: &[u8; 16], mut show: impl FnMut(Row<'_>) -> Result<()>) -> Result<()> {
        while let Some(row) = self.0.get() {
            let of: [u8; 16] = row.get(0)?;
            match of.cmp(episode) {
                Ordering::Less => {}
                Ordering::Equal => show(row)?,
                Ordering::Greater => break,
            }
            self.0.advance()?;
        }
        Ok(())
    }
}

/// The five tables beside the episodes of one tenant.
pub(crate) struct Sides<'s> {
    runs: Walk<'s>,
    feedback: Walk<'s>,
    verdicts: Walk<'s>,
    rewards: Walk<'s>,
    labels: Walk<'s>,
}

impl Sides<'_> {
    /// Fills `rows` with what hangs on `episode`. Episodes are asked for in the order of their ids.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) fn read(&mut self, episode: &[u8; 16], rows: &mut SideRows) -> Result<()> {
        let SideRows { runs, feedback, verdicts, rewards, labels } = rows;
        runs.clear();
        feedback.clear();
        verdicts.clear();
        rewards.clear();
        labels.clear();
        self.runs.take(episode, |row| {
            runs.push(RawRun {
                kind: row.get(1)?,
                experiment: row.get(2)?,
                version: row.get(3)?,
                arm: row.get(4)?,
                sampled_ms: row.get(5)?,
                state: row.get(6)?,
                reason: row.get(7)?,
                record_version: row.get(8)?,
                answer: row.get(9)?,
            });
            Ok(())
        })?;
        self.feedback.take(episode, |row| {
            feedback.push(RawFeedback { id: row.get(1)?, created_ms: row.get(2)?, signal: row.get(3)? });
            Ok(())
        })?;
        self.verdicts.take(episode, |row| {
            verdicts.push(RawVerdict {
                side: row.get(1)?,
                judge: row.get(2)?,
                prompt_version: row.get(3)?,
                key: row.get(4)?,
                state: row.get(5)?,
                scores: row.get(6)?,
                reason: row.get(7)?,
                created_ms: row.get(8)?,
            });
            Ok(())
        })?;
        self.rewards.take(episode, |row| {
            rewards.push(RawReward {
                side: row.get(1)?,
                reward_version: row.get(2)?,
                weights_hash: row.get(3)?,
                parts: row.get(4)?,
                created_ms: row.get(5)?,
            });
            Ok(())
        })?;
        self.labels.take(episode, |row| {
            labels.push(RawLabel {
                author: row.get(1)?,
                kind: row.get(2)?,
                value: row.get(3)?,
                created_ms: row.get(4)?,
            });
            Ok(())
        })?;
        // the order of the file must not depend on how the store lays its rows out
        feedback.sort_unstable_by_key(|event| (event.created_ms, event.id));
        verdicts.sort_unstable_by(|a, b| (a.created_ms, &a.side, &a.key).cmp(&(b.created_ms, &b.side, &b.key)));
        rewards.sort_unstable_by(|a, b| {
            (a.created_ms, &a.side, &a.weights_hash).cmp(&(b.created_ms, &b.side, &b.weights_hash))
        });
        labels.sort_unstable_by(|a, b| (a.created_ms, &a.author, &a.kind).cmp(&(b.created_ms, &b.author, &b.kind)));
        runs.sort_unstable_by(|a, b| {
            (a.version, &a.experiment, &a.kind, &a.arm).cmp(&(b.version, &b.experiment, &b.kind, &b.arm))
        });
        Ok(())
    }
}
