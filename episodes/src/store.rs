use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use recast_config::{Durability, EpisodeSettings};
use recast_domain::{Episode, EpisodeId, Feedback, ShadowRun, TenantId};
use tokio::sync::oneshot;

use crate::bounds::Bounds;
use crate::db::{Connection, Place};
use crate::definitions::ExperimentChange;
use crate::error::{EpisodeError, NotStored};
use crate::feedback::{self, FeedbackStored};
use crate::labels::LabelRecord;
use crate::ledger::{self, ShadowEnd};
use crate::link::Link;
use crate::reader::{EpisodeFilter, EpisodeReader};
use crate::record::{self, Row};
use crate::scores::{PutCounts, RewardRecord, VerdictRecord};
use crate::write::{Applied, Write, Written};
use crate::writer::{Job, Probes, Shared, Writer};

/// How long an append waits for its commit before the reply leaves without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Episodes that may wait for the disk, as a multiple of the batch; more are refused rather than kept in memory.
const QUEUE_BATCHES: usize = 8;
/// Verdicts or rewards in one transaction: an append never waits for more of them.
const PUT_MAX: usize = 256;

/// How the store is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// Why episodes are not being stored at the moment; `None` when they are.
    pub problem: Option<NotStored>,
    /// Episodes that wait for their commit.
    pub queued: usize,
    /// Episodes stored since the store was opened.
    pub stored: u64,
    /// Episodes given up since the store was opened.
    pub failed: u64,
}

/// The store of one process that writes: appends go to its writer thread, reads to connections of their own.
pub struct EpisodeStore {
    jobs: RwLock<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
    reader: Arc<EpisodeReader>,
    durability: Durability,
}

impl fmt::Debug for EpisodeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpisodeStore").field("reader", &self.reader).field("durability", &self.durability).finish()
    }
}

impl EpisodeStore {
    /// Opens the store at `place` for writing: a file, which is made with its folder where it is missing, or a server,
    /// where the tables are made. A file has one writer; a server any number.
    ///
    /// # Errors
    /// When another process writes to the file, or the store is damaged, of a newer version, or cannot be reached or
    /// written.
    pub fn open(place: impl Into<Place>, settings: &EpisodeSettings) -> Result<Self, EpisodeError> {
        let place = place.into();
        let probes = match &place {
            Place::File(path) => {
                let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                std::fs::create_dir_all(dir).map_err(EpisodeError::io(dir))?;
                Probes::system(dir.to_owned())
            }
            Place::Server(_) => Probes::remote(),
        };
        Self::open_with(&place, settings, probes)
    }

    pub(crate) fn open_with(
        place: impl Into<Place>,
        settings: &EpisodeSettings,
        probes: Probes,
    ) -> Result<Self, EpisodeError> {
        let place = place.into();
        let (link, connection) = Link::open(&place, settings.durability)?;
        let sweep = !end_left_runs(&connection, &place)?;
        let batch_max = settings.batch_max.max(1);
        let (sender, jobs) = sync_channel((batch_max * QUEUE_BATCHES).max(1024));
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            connection,
            jobs,
            shared: Arc::clone(&shared),
            probes,
            bounds: Bounds::new(settings),
            durability: settings.durability,
            batch_max,
            low_water_bytes: settings.low_water_bytes,
            link,
            sweep,
        };
        let thread = std::thread::Builder::new().name("episode-writer".to_owned()).spawn(move || writer.run());
        Ok(Self {
            jobs: RwLock::new(Some(sender)),
            thread: Mutex::new(Some(thread.map_err(EpisodeError::io(Path::new("episode-writer")))?)),
            shared,
            reader: Arc::new(EpisodeReader::open(place)?),
            durability: settings.durability,
        })
    }

    /// Stores an episode. In strict mode this resolves after the commit of its batch; in group mode once it is queued,
    /// except while the store fails: then group mode waits too, so that a lost episode is never called stored.
    ///
    /// Once polled, the episode is stored even if the future is dropped. Appending an id again changes nothing.
    ///
    /// # Errors
    /// When the episode is not stored, or not acknowledged within two seconds. The caller answers all the same, and
    /// says `episode_stored: false`.
    pub async fn append(&self, episode: Episode) -> Result<(), EpisodeError> {
        let row = self.row(&episode)?;
        self.append_write(Write::Episode(row)).await
    }

    /// Stores an episode together with the shadow run that it was sampled for, both or neither. The run is pending, or
    /// has ended at once. Otherwise like [`EpisodeStore::append`].
    ///
    /// # Errors
    /// When the two do not belong together, or nothing is stored; see [`EpisodeStore::append`].
    pub async fn append_sampled(&self, episode: Episode, run: ShadowRun) -> Result<(), EpisodeError> {
        let row = self.row(&episode)?;
        if (run.episode, &run.tenant) != (episode.id, &episode.tenant) {
            self.shared.count_failed(1, "invalid");
            return Err(EpisodeError::Invalid("the shadow run is of another episode".to_owned()));
        }
        let run = ledger::encode(&run).inspect_err(|_| self.shared.count_failed(1, "invalid"))?;
        self.append_write(Write::Sampled(row, Box::new(run))).await
    }

    /// Ends a shadow run, or enters one that ended at once. The first outcome stands, so that a run may be ended twice.
    /// Waits for the commit in both modes: nobody waits for a shadow. When the power goes, the last ends may be lost; the
    /// next start ends such runs as dropped.
    ///
    /// # Errors
    /// When the run has no outcome, or is not stored, or not acknowledged within two seconds: then end it again.
    pub async fn end_shadow(&self, run: &ShadowRun) -> Result<ShadowEnd, EpisodeError> {
        if run.outcome.is_none() {
            return Err(EpisodeError::Invalid("the shadow run has no outcome".to_owned()));
        }
        Ok(match self.write(Write::EndShadow(Box::new(ledger::encode(run)?))).await? {
            Written::Stored => ShadowEnd::Stored,
            Written::NoEpisode => ShadowEnd::NoEpisode,
            _ => ShadowEnd::AlreadyEnded,
        })
    }

    /// Saves a definition of an experiment as its next version and returns that version; 1 is the first.
    ///
    /// # Errors
    /// [`EpisodeError::VersionConflict`] when the experiment is not at the expected version; otherwise when it is not
    /// stored.
    pub async fn save_experiment(&self, change: ExperimentChange) -> Result<u32, EpisodeError> {
        let (id, expected) = (change.id.clone(), change.expected_version.unwrap_or(0));
        match self.write(Write::Experiment(Box::new(change))).await? {
            Written::Version(version) => Ok(version),
            Written::Stale { found } => Err(EpisodeError::VersionConflict { id, expected, found }),
            other => Err(unexpected(other)),
        }
    }

    /// Stores a feedback event; an id that is there already changes nothing. Whether its episode exists is not asked:
    /// it may come later, and [`EpisodeReader::has`] tells.
    ///
    /// # Errors
    /// When a score is not from 0 to 1, or it is not stored.
    pub async fn put_feedback(&self, feedback: &Feedback) -> Result<FeedbackStored, EpisodeError> {
        Ok(match self.write(Write::Feedback(Box::new(feedback::encode(feedback)?))).await? {
            Written::Known => FeedbackStored::Duplicate,
            _ => FeedbackStored::Stored,
        })
    }

    /// Stores verdicts, a transaction for each few hundred. One that is there stands, unless it was missing.
    ///
    /// # Errors
    /// When some are not stored; those before them are.
    pub async fn put_verdicts(&self, verdicts: Vec<VerdictRecord>) -> Result<PutCounts, EpisodeError> {
        self.put_all(verdicts, Write::Verdicts).await
    }

    /// Stores rewards, a transaction for each few hundred. One that is there is replaced.
    ///
    /// # Errors
    /// When some are not stored; those before them are.
    pub async fn put_rewards(&self, rewards: Vec<RewardRecord>) -> Result<PutCounts, EpisodeError> {
        self.put_all(rewards, Write::Rewards).await
    }

    /// Says how many days tenants keep their episodes, in place of what was said before; 0 is without end. Whoever is
    /// not named keeps them as the settings say.
    pub fn keep_for_days(&self, by_tenant: impl IntoIterator<Item = (TenantId, u32)>) {
        let days = by_tenant.into_iter().map(|(tenant, days)| (tenant.as_str().to_owned(), days)).collect();
        *self.shared.retention.lock().unwrap_or_else(PoisonError::into_inner) = days;
    }

    /// Stores labels, a transaction for each few hundred. What an author says again changes nothing; what an author
    /// says otherwise replaces what was said.
    ///
    /// # Errors
    /// When one of them is faulty, before any is stored; when some are not stored, those before them are.
    pub async fn put_labels(&self, labels: Vec<LabelRecord>) -> Result<PutCounts, EpisodeError> {
        if let Some(fault) = labels.iter().find_map(LabelRecord::fault) {
            return Err(EpisodeError::Invalid(fault));
        }
        self.put_all(labels, Write::Labels).await
    }

    async fn put_all<T>(&self, records: Vec<T>, write: impl Fn(Vec<T>) -> Write) -> Result<PutCounts, EpisodeError> {
        let mut counts = PutCounts::default();
        let mut records = records.into_iter().peekable();
        while records.peek().is_some() {
            let some = records.by_ref().take(PUT_MAX).collect();
            match self.write(write(some)).await? {
                Written::Counted(some) => counts.add(some),
                other => return Err(unexpected(other)),
            }
        }
        Ok(counts)
    }

    fn row(&self, episode: &Episode) -> Result<Row, EpisodeError> {
        record::encode(episode).inspect_err(|_| self.shared.count_failed(1, "invalid"))
    }

    async fn append_write(&self, write: Write) -> Result<(), EpisodeError> {
        if self.durability == Durability::Group && !self.shared.failing.load(Ordering::Acquire) {
            return self.enqueue(write, None);
        }
        self.write(write).await.map(drop)
    }

    /// Writes and waits for the commit.
    pub(crate) async fn write(&self, write: Write) -> Result<Written, EpisodeError> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(write, Some(reply))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome.map_err(EpisodeError::NotStored),
            Ok(Err(_)) => Err(EpisodeError::Closed),
            Err(_) => {
                metrics::counter!("recast_episodes_unacknowledged_total").increment(1);
                Err(EpisodeError::Slow { patience_ms: PATIENCE.as_millis() as u64 })
            }
        }
    }

    fn enqueue(&self, write: Write, reply: Option<oneshot::Sender<Applied>>) -> Result<(), EpisodeError> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*jobs else {
            self.shared.count_lost(&write, "closed");
            return Err(EpisodeError::Closed);
        };
        let queued = self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let (error, reason, job) = match sender.try_send(Job::Write(write, reply)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job)) => (EpisodeError::QueueFull { queued }, "queue_full", job),
            Err(TrySendError::Disconnected(job)) => (EpisodeError::Closed, "closed", job),
        };
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        match &job {
            Job::Write(write, _) => self.shared.count_lost(write, reason),
            #[cfg(test)]
            Job::With(_) => {}
        }
        Err(error)
    }

    /// Reads on a thread that may block; this is how a server reads.
    ///
    /// # Errors
    /// Those of `read`, and when the runtime shuts down.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&EpisodeReader) -> Result<T, EpisodeError> + Send + 'static,
    ) -> Result<T, EpisodeError> {
        let reader = Arc::clone(&self.reader);
        blocking(move || read(&reader)).await
    }

    /// The reader of this store, for those who may block.
    #[must_use]
    pub fn reader(&self) -> Arc<EpisodeReader> {
        Arc::clone(&self.reader)
    }

    /// One episode of `tenant`.
    ///
    /// # Errors
    /// When the tenant has no such episode, or the store cannot be read.
    pub async fn get(&self, tenant: &TenantId, id: EpisodeId) -> Result<Episode, EpisodeError> {
        let (reader, tenant) = (Arc::clone(&self.reader), tenant.clone());
        blocking(move || reader.get(&tenant, id)).await
    }

    /// Episodes of one tenant, newest first; see [`EpisodeFilter`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, filter: &EpisodeFilter) -> Result<Vec<Episode>, EpisodeError> {
        let (reader, filter) = (Arc::clone(&self.reader), filter.clone());
        blocking(move || reader.list(&filter)).await
    }

    /// How the store is doing; costs nothing.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        StoreHealth {
            problem: self.shared.problem(),
            queued: self.shared.queued.load(Ordering::Relaxed),
            stored: self.shared.stored.load(Ordering::Relaxed),
            failed: self.shared.failed.load(Ordering::Relaxed),
        }
    }

    /// Commits what is queued, folds the write-ahead log into the store and gives the store free. Appends that come
    /// later are refused; closing twice does nothing.
    pub async fn close(&self) {
        self.jobs.write().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
            if !joined.unwrap_or(false) {
                tracing::error!("the episode writer ended by a panic: the last episodes may be missing");
            }
        }
    }

    /// Runs `action` on the writer's own connection, in its turn.
    #[cfg(test)]
    pub(crate) fn with_writer(&self, action: impl FnOnce(&Connection) + Send + 'static) {
        let jobs = self.jobs.read().unwrap();
        jobs.as_ref().unwrap().send(Job::With(Box::new(action))).unwrap();
    }
}

/// Ends the shadow runs that an earlier process left behind. `false` where the disk is too full for it: a store that
/// cannot write does not stop answers, so that the first transaction does it later.
fn end_left_runs(connection: &Connection, place: &Place) -> Result<bool, EpisodeError> {
    match ledger::sweep(connection) {
        Ok(0) => Ok(true),
        Ok(ended) => {
            tracing::info!(ended, "shadow runs of an earlier process are counted as dropped");
            Ok(true)
        }
        Err(error) if NotStored::from(&error) == NotStored::DiskFull => Ok(false),
        Err(error) => Err(place.error(error)),
    }
}

/// Each write has its own kinds of answer; another one is a mistake in this crate.
fn unexpected(written: Written) -> EpisodeError {
    EpisodeError::Invalid(format!("the writer answered {written:?}"))
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, EpisodeError> + Send + 'static,
) -> Result<T, EpisodeError> {
    // the runtime refuses blocking work only while it shuts down
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(EpisodeError::Closed))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
