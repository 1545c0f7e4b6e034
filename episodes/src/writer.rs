//! The one thread that writes.
//!
//! Strict: it takes whatever is queued, commits it as one transaction with `synchronous=FULL`, and answers all who
//! wait; no timer is needed, because the next batch gathers while this one is committed. Group: it lets episodes gather
//! for a moment, with `synchronous=NORMAL`, and nobody waits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use recast_config::Durability;
use tokio::sync::oneshot;

use crate::bounds::Bounds;
use crate::db::Connection;
use crate::error::NotStored;
use crate::link::Link;
use crate::schema::SCHEMA_VERSION;
use crate::write::{Applied, Write, commit};

/// How long episodes gather in group mode: with the commit itself, an episode is on its way to disk within 20 ms.
const GATHER: Duration = Duration::from_millis(15);
/// How often an idle writer looks at the disk and the bounds.
const IDLE: Duration = Duration::from_secs(1);
/// Rows after which a busy writer looks at the bounds: once a commit would cost a single writer a twentieth of its time.
const BOUNDS_EVERY: usize = 64;

/// What the writer is asked to do.
#[cfg_attr(test, expect(clippy::large_enum_variant, reason = "only tests have the small one"))]
pub(crate) enum Job {
    /// Write something; the sender, where there is one, hears of the commit.
    Write(Write, Option<oneshot::Sender<Applied>>),
    /// Do something with the writer's own connection, as only tests want.
    #[cfg(test)]
    With(Box<dyn FnOnce(&Connection) + Send>),
}

/// What waits for its commit.
struct Waiting {
    write: Write,
    reply: Option<oneshot::Sender<Applied>>,
}

/// What the writer tells the rest of the process.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub queued: AtomicUsize,
    pub stored: AtomicU64,
    pub failed: AtomicU64,
    pub failing: AtomicBool,
    problem: Mutex<Option<NotStored>>,
    /// Days that tenants keep their episodes, where they say so themselves; 0 is without end.
    pub retention: Mutex<BTreeMap<String, u32>>,
}

impl Shared {
    pub(crate) fn problem(&self) -> Option<NotStored> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count_failed(&self, count: usize, reason: &'static str) {
        self.failed.fetch_add(count as u64, Ordering::Relaxed);
        metrics::counter!("recast_episodes_failed_total", "reason" => reason).increment(count as u64);
    }

    /// Counts what was not written: an episode, or what belongs to one.
    pub(crate) fn count_lost(&self, write: &Write, reason: &'static str) {
        if write.is_episode() {
            self.count_failed(1, reason);
        } else {
            let what = write.label();
            metrics::counter!("recast_episodes_records_failed_total", "what" => what, "reason" => reason).increment(1);
        }
    }

    fn note(&self, now: Option<NotStored>) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*problem, &now) {
            (None, Some(cause)) => tracing::error!(%cause, "episodes are not being stored"),
            (Some(_), None) => tracing::info!("episodes are being stored again"),
            _ => {}
        }
        self.failing.store(now.is_some(), Ordering::Release);
        *problem = now;
    }
}

/// The clock and the disk, which tests replace.
pub(crate) struct Probes {
    /// Milliseconds since the Unix epoch.
    pub now_ms: Box<dyn Fn() -> i64 + Send>,
    /// Free bytes where the store lies; `None` where the system does not say.
    pub free_bytes: Box<dyn Fn() -> Option<u64> + Send>,
}

impl Probes {
    /// The real ones, for the store in the folder `dir`.
    pub(crate) fn system(dir: PathBuf) -> Self {
        Self { now_ms: Box::new(now_ms), free_bytes: Box::new(move || free_bytes(&dir)) }
    }

    /// The real ones, for a store on a server: its disk is its own business.
    pub(crate) fn remote() -> Self {
        Self { now_ms: Box::new(now_ms), free_bytes: Box::new(|| None) }
    }
}

fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Bytes that an ordinary user may still write in the file system of `dir`.
pub(crate) fn free_bytes(dir: &std::path::Path) -> Option<u64> {
    rustix::fs::statvfs(dir).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The writer's own state; [`Writer::run`] is the body of its thread.
pub(crate) struct Writer {
    pub connection: Connection,
    pub jobs: Receiver<Job>,
    pub shared: Arc<Shared>,
    pub probes: Probes,
    pub bounds: Bounds,
    pub durability: Durability,
    pub batch_max: usize,
    pub low_water_bytes: u64,
    pub link: Link,
    /// Whether the first transaction has yet to end the shadow runs of an earlier process.
    pub sweep: bool,
}

impl Writer {
    /// Writes until every sender is gone and the queue is empty; then gives the store free.
    pub(crate) fn run(mut self) {
        let (mut more_queued, mut since_bounds) = (false, 0);
        while let Some(batch) = self.next_batch(more_queued) {
            more_queued = batch.len() >= self.batch_max;
            since_bounds += batch.len();
            let idle = batch.is_empty();
            if idle {
                self.look_around();
            } else {
                self.store(batch);
            }
            if !(idle || self.bounds.pending() || since_bounds >= BOUNDS_EVERY) {
                continue;
            }
            since_bounds = 0;
            if let Err(cause) = self.link.tend(&mut self.connection, false) {
                self.shared.note(Some(cause));
                continue;
            }
            if let Err(error) = self.bounds.step(&self.connection, &self.retention(), (self.probes.now_ms)()) {
                tracing::warn!(%error, "old episodes cannot be deleted now");
            }
        }
        self.link.close(self.connection);
    }

    fn retention(&self) -> BTreeMap<String, u32> {
        self.shared.retention.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What to commit together next; empty when it is time to look around; `None` at the end.
    fn next_batch(&self, more_queued: bool) -> Option<Vec<Waiting>> {
        let patience = if self.bounds.pending() { Duration::ZERO } else { IDLE };
        let mut batch = Vec::new();
        match self.jobs.recv_timeout(patience) {
            Ok(job) => self.take(job, &mut batch),
            Err(RecvTimeoutError::Timeout) => return Some(batch),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
        if self.durability == Durability::Group && !more_queued {
            // nobody waits, so the thread may as well not wake for each episode; waking early does no harm
            std::thread::park_timeout(GATHER);
        }
        while batch.len() < self.batch_max {
            let Ok(job) = self.jobs.try_recv() else { break };
            self.take(job, &mut batch);
        }
        Some(batch)
    }

    fn take(&self, job: Job, batch: &mut Vec<Waiting>) {
        match job {
            Job::Write(write, reply) => {
                let left = self.shared.queued.fetch_sub(1, Ordering::Relaxed) - 1;
                metrics::gauge!("recast_episodes_queue_depth").set(left as f64);
                batch.push(Waiting { write, reply });
            }
            #[cfg(test)]
            Job::With(action) => action(&self.connection),
        }
    }

    fn store(&mut self, batch: Vec<Waiting>) {
        metrics::histogram!("recast_episodes_batch_size").record(batch.len() as f64);
        let unsynced = self.unsynced(&batch);
        let outcome = self.room().and_then(|()| self.commit(&batch));
        if unsynced {
            self.synchronous("FULL");
        }
        let applied = match outcome {
            Ok(applied) => {
                self.sweep = false;
                self.shared.note(None);
                applied
            }
            Err(cause) => {
                batch.iter().for_each(|waiting| self.shared.count_lost(&waiting.write, cause.label()));
                self.shared.note(Some(cause.clone()));
                batch.into_iter().for_each(|waiting| answer(waiting.reply, Err(cause.clone())));
                return;
            }
        };
        // counted before anybody hears of it: who was told may look
        let is_stored = |(waiting, outcome): &(&Waiting, &Applied)| waiting.write.is_episode() && outcome.is_ok();
        let stored = batch.iter().zip(&applied).filter(is_stored).count() as u64;
        self.shared.stored.fetch_add(stored, Ordering::Relaxed);
        metrics::counter!("recast_episodes_stored_total").increment(stored);
        for (waiting, outcome) in batch.into_iter().zip(applied) {
            if outcome.is_err() {
                self.shared.count_lost(&waiting.write, "refused");
            }
            answer(waiting.reply, outcome);
        }
    }

    /// Commits a batch; once more where the connection broke on the way.
    fn commit(&mut self, batch: &[Waiting]) -> Result<Vec<Applied>, NotStored> {
        let writes = batch.iter().map(|waiting| &waiting.write);
        self.link.hold(&mut self.connection)?;
        commit(&self.connection, writes.clone(), self.sweep).or_else(|error| {
            self.link.after(&error, &mut self.connection)?;
            commit(&self.connection, writes, self.sweep).map_err(|error| NotStored::from(&error))
        })
    }

    /// Ends of shadow runs alone are not worth waiting for the disk, in which a live append would wait behind them: they
    /// reach it with the next append. Says whether the connection was told not to wait.
    fn unsynced(&self, batch: &[Waiting]) -> bool {
        let strict = self.durability == Durability::Strict;
        let ends = batch.iter().all(|waiting| matches!(waiting.write, Write::EndShadow(_)));
        strict && ends && self.synchronous("NORMAL")
    }

    fn synchronous(&self, how: &str) -> bool {
        let Some(file) = self.connection.file() else { return false };
        let set = file.pragma_update(None, "synchronous", how);
        set.inspect_err(|error| tracing::error!(%error, how, "the store's durability cannot be set")).is_ok()
    }

    fn room(&self) -> Result<(), NotStored> {
        match (self.probes.free_bytes)() {
            Some(free) if free < self.low_water_bytes => {
                Err(NotStored::LowWater { free, wanted: self.low_water_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Nobody writes: see whether one could, so that a full disk shows before it costs an episode, and shows no longer
    /// than it lasts.
    fn look_around(&mut self) {
        let writable = self.room().and_then(|()| {
            let failing = self.shared.failing.load(Ordering::Acquire);
            match self.connection.file() {
                None => {
                    self.link.hold(&mut self.connection).and_then(|()| self.link.tend(&mut self.connection, failing))
                }
                Some(_) if !failing => Ok(()),
                Some(file) => {
                    let same_version = file.pragma_update(None, "user_version", SCHEMA_VERSION);
                    same_version.map_err(|error| NotStored::from(&error.into()))
                }
            }
        });
        self.shared.note(writable.err());
    }
}

fn answer(reply: Option<oneshot::Sender<Applied>>, outcome: Applied) {
    if let Some(reply) = reply {
        // a caller that stopped waiting is no error
        let _ = reply.send(outcome);
    }
}
