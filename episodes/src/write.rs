//! What can be written, and how a batch of it becomes one transaction.

use rusqlite::{Connection, ErrorCode, Statement, TransactionBehavior, params};

use crate::definitions::{self, ExperimentChange};
use crate::error::NotStored;
use crate::feedback::{self, FeedbackRow};
use crate::judge_books::{self, Cost, KeptReply};
use crate::labels::{self, LabelRecord};
use crate::ledger::{self, RunRow};
use crate::record::{RECORD_VERSION, Row};
use crate::scores::{self, PutCounts, RewardRecord, VerdictRecord};

// a repeated id is the same episode: the first one stands
const INSERT: &str = "INSERT INTO episodes
    (tenant, id, created_ms, record_version, policy, degraded, user_id, conversation_id, body,
        experiment, experiment_version, arm)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT (tenant, id) DO NOTHING";

/// One thing to write.
#[derive(Debug)]
pub(crate) enum Write {
    Episode(Row),
    Sampled(Row, Box<RunRow>),
    EndShadow(Box<RunRow>),
    Experiment(Box<ExperimentChange>),
    Feedback(Box<FeedbackRow>),
    Verdicts(Vec<VerdictRecord>),
    Rewards(Vec<RewardRecord>),
    Labels(Vec<LabelRecord>),
    JudgeReply(Box<KeptReply>),
    JudgeCost(Cost),
}

impl Write {
    /// Whether an episode is lost when this is not written.
    pub(crate) fn is_episode(&self) -> bool {
        matches!(self, Self::Episode(_) | Self::Sampled(..))
    }

    /// The label of what is lost in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Episode(_) | Self::Sampled(..) => "episode",
            Self::EndShadow(_) => "shadow_run",
            Self::Experiment(_) => "experiment",
            Self::Feedback(_) => "feedback",
            Self::Verdicts(_) => "verdict",
            Self::Rewards(_) => "reward",
            Self::Labels(_) => "label",
            Self::JudgeReply(_) => "judge_reply",
            Self::JudgeCost(_) => "judge_cost",
        }
    }
}

/// What writing came to, where the disk did not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is there.
    Stored,
    /// It, or something that stands in its place, was there before.
    Known,
    /// The episode that it belongs to is not there.
    NoEpisode,
    /// It is there as this version.
    Version(u32),
    /// It was made for another version than the one found.
    Stale { found: u32 },
    /// So many of it are there.
    Counted(PutCounts),
}

/// What became of one write: refused for what it is, or done.
pub(crate) type Applied = Result<Written, NotStored>;

/// Writes everything in one transaction. `sweep` ends the shadow runs of an earlier process in it, too, before anything
/// else.
///
/// # Errors
/// When the transaction as a whole fails; then nothing of it is stored.
pub(crate) fn commit<'a>(
    connection: &mut Connection,
    writes: impl Iterator<Item = &'a Write>,
    sweep: bool,
) -> rusqlite::Result<Vec<Applied>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut applied = Vec::with_capacity(writes.size_hint().0);
    {
        if sweep {
            ledger::sweep(&transaction)?;
        }
        let mut insert = transaction.prepare_cached(INSERT)?;
        for write in writes {
            let outcome = match write {
                Write::Episode(row) => insert_episode(&mut insert, row),
                several => together(&transaction, || apply(&transaction, &mut insert, several)),
            };
            applied.push(match outcome {
                Ok(written) => Ok(written),
                Err(error) if is_the_rows_fault(&error) => Err(NotStored::Failed(error.to_string())),
                Err(error) => return Err(error),
            });
        }
    }
    transaction.commit()?;
    Ok(applied)
}

fn apply(connection: &Connection, insert: &mut Statement<'_>, write: &Write) -> rusqlite::Result<Written> {
    match write {
        Write::Episode(row) => insert_episode(insert, row),
        Write::Sampled(row, run) => {
            let written = insert_episode(insert, row)?;
            ledger::insert(connection, run)?;
            Ok(written)
        }
        Write::EndShadow(run) => ledger::end(connection, run),
        Write::Experiment(change) => definitions::save(connection, change),
        Write::Feedback(row) => feedback::insert(connection, row),
        Write::Verdicts(verdicts) => scores::put_verdicts(connection, verdicts),
        Write::Rewards(rewards) => scores::put_rewards(connection, rewards),
        Write::Labels(labels) => labels::put(connection, labels),
        Write::JudgeReply(reply) => judge_books::put_reply(connection, reply),
        Write::JudgeCost(cost) => judge_books::add_cost(connection, cost),
    }
}

fn insert_episode(insert: &mut Statement<'_>, row: &Row) -> rusqlite::Result<Written> {
    let experiment = row.experiment.as_ref();
    let inserted = insert.execute(params![
        row.tenant,
        row.id,
        row.created_ms,
        RECORD_VERSION,
        row.policy,
        row.degraded,
        row.user_id,
        row.conversation_id,
        row.body,
        experiment.map(|assignment| &assignment.experiment),
        experiment.map(|assignment| assignment.version),
        experiment.map(|assignment| &assignment.arm)
    ])?;
    Ok(if inserted > 0 { Written::Stored } else { Written::Known })
}

/// Several statements that SQLite undoes together where it refuses one of them.
fn together<T>(connection: &Connection, write: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let run = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("SAVEPOINT together")?;
    let outcome = write();
    match &outcome {
        Err(error) if is_the_rows_fault(error) => run("ROLLBACK TO together")?,
        // SQLite may have ended the transaction by itself
        Err(_) => return outcome,
        Ok(_) => {}
    }
    run("RELEASE together")?;
    outcome
}

/// Such a statement is undone alone; the transaction goes on.
fn is_the_rows_fault(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch)
    )
}
