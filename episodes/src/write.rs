//! What can be written, and how a batch of it becomes one transaction.

use crate::db::{self, Connection, Value};
use crate::definitions::{self, ExperimentChange};
use crate::erase::{self, Erasure};
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
    Erase(Box<Erasure>),
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
            Self::Erase(_) => "erasure",
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
    /// So many episodes are gone.
    Erased(u64),
}

/// What became of one write: refused for what it is, or done.
pub(crate) type Applied = Result<Written, NotStored>;

/// How often a batch is written that the server undid.
const TRIES: usize = 5;

/// Writes everything in one transaction. `sweep` ends the shadow runs of an earlier process in it, too, before anything
/// else.
///
/// # Errors
/// When the transaction as a whole fails; then nothing of it is stored.
pub(crate) fn commit<'a>(
    connection: &Connection,
    writes: impl Iterator<Item = &'a Write> + Clone,
    sweep: bool,
) -> db::Result<Vec<Applied>> {
    // after a refused statement a server does nothing more until it is undone, and undoing one alone takes two more
    // calls for each: that is done only for a batch where one was refused
    let mut each_alone = connection.file().is_some();
    for _ in 1..TRIES {
        match attempt(connection, writes.clone(), sweep, each_alone) {
            Err(error) if error.is_the_rows_fault() && !each_alone => each_alone = true,
            Err(error) if error.is_worth_another_try() => {}
            outcome => return outcome,
        }
    }
    attempt(connection, writes, sweep, each_alone)
}

fn attempt<'a>(
    connection: &Connection,
    writes: impl Iterator<Item = &'a Write>,
    sweep: bool,
    each_alone: bool,
) -> db::Result<Vec<Applied>> {
    let transaction = connection.begin()?;
    let mut applied = Vec::with_capacity(writes.size_hint().0);
    if sweep {
        ledger::sweep(connection)?;
    }
    let mut writes = writes.peekable();
    while let Some(write) = writes.next() {
        if let (Write::Episode(row), false) = (write, each_alone) {
            let mut rows = vec![row];
            while let Some(Write::Episode(row)) = writes.peek().copied() {
                rows.push(row);
                writes.next();
            }
            let inserted = connection.execute_each(INSERT, rows.into_iter().map(values))?;
            applied.extend(inserted.into_iter().map(|inserted| Ok(stored_or_known(inserted))));
            continue;
        }
        let outcome = match write {
            // SQLite undoes one statement by itself
            Write::Episode(row) if connection.file().is_some() => insert_episode(connection, row),
            write if each_alone => together(connection, || apply(connection, write)),
            write => apply(connection, write),
        };
        applied.push(match outcome {
            Ok(written) => Ok(written),
            Err(error) if each_alone && error.is_the_rows_fault() => Err(NotStored::Failed(error.to_string())),
            Err(error) => return Err(error),
        });
    }
    transaction.commit()?;
    Ok(applied)
}

fn apply(connection: &Connection, write: &Write) -> db::Result<Written> {
    match write {
        Write::Episode(row) => insert_episode(connection, row),
        Write::Sampled(row, run) => {
            let written = insert_episode(connection, row)?;
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
        Write::Erase(erasure) => erase::apply(connection, erasure),
    }
}

fn insert_episode(connection: &Connection, row: &Row) -> db::Result<Written> {
    connection.execute(INSERT, &values(row)).map(stored_or_known)
}

fn stored_or_known(inserted: usize) -> Written {
    if inserted > 0 { Written::Stored } else { Written::Known }
}

/// What [`INSERT`] binds.
fn values(row: &Row) -> [Value<'_>; 12] {
    let experiment = row.experiment.as_ref();
    [
        (&row.tenant).into(),
        (&row.id).into(),
        row.created_ms.into(),
        RECORD_VERSION.into(),
        (&row.policy).into(),
        row.degraded.into(),
        row.user_id.as_ref().into(),
        row.conversation_id.as_ref().into(),
        (&row.body).into(),
        experiment.map(|assignment| &assignment.experiment).into(),
        experiment.map(|assignment| assignment.version).into(),
        experiment.map(|assignment| &assignment.arm).into(),
    ]
}

/// Several statements that are undone together where one of them is refused.
fn together<T>(connection: &Connection, write: impl FnOnce() -> db::Result<T>) -> db::Result<T> {
    let run = |sql: &str| connection.execute(sql, &[]).map(drop);
    run("SAVEPOINT together")?;
    let outcome = write();
    match &outcome {
        Err(error) if error.is_the_rows_fault() => run("ROLLBACK TO together")?,
        // the database may have ended the transaction by itself
        Err(_) => return outcome,
        Ok(_) => {}
    }
    run("RELEASE together")?;
    outcome
}
