use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use recast_config::{Durability, EpisodeSettings};
use recast_domain::{Episode, EpisodeId, TenantId};
use tokio::sync::oneshot;

use crate::bounds::Bounds;
use crate::error::{EpisodeError, NotStored};
use crate::reader::{EpisodeFilter, EpisodeReader};
use crate::record;
use crate::schema::{WriterLock, open_writer};
use crate::writer::{Job, Probes, Shared, Writer};

/// How long an append waits for its commit before the reply leaves without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Episodes that may wait for the disk, as a multiple of the batch; more are refused rather than kept in memory.
const QUEUE_BATCHES: usize = 8;

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
    /// Opens the store at `path` for writing, making it and its folder where they are missing.
    ///
    /// # Errors
    /// When another process writes to it, or it is damaged, of a newer version, or cannot be written.
    pub fn open(path: &Path, settings: &EpisodeSettings) -> Result<Self, EpisodeError> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(EpisodeError::io(dir))?;
        Self::open_with(path, settings, Probes::system(dir.to_owned()))
    }

    pub(crate) fn open_with(path: &Path, settings: &EpisodeSettings, probes: Probes) -> Result<Self, EpisodeError> {
        let lock = WriterLock::take(path)?;
        let connection = open_writer(path, settings.durability)?;
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
            lock,
        };
        let thread = std::thread::Builder::new().name("episode-writer".to_owned()).spawn(move || writer.run());
        Ok(Self {
            jobs: RwLock::new(Some(sender)),
            thread: Mutex::new(Some(thread.map_err(EpisodeError::io(path))?)),
            shared,
            reader: Arc::new(EpisodeReader::open(path)?),
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
        let row = record::encode(&episode).inspect_err(|_| self.shared.count_failed(1, "invalid"))?;
        if self.durability == Durability::Group && !self.shared.failing.load(Ordering::Acquire) {
            return self.enqueue(Job::Store(row, None));
        }
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job::Store(row, Some(reply)))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome.map_err(EpisodeError::NotStored),
            Ok(Err(_)) => Err(EpisodeError::Closed),
            Err(_) => {
                metrics::counter!("recast_episodes_unacknowledged_total").increment(1);
                Err(EpisodeError::Slow { patience_ms: PATIENCE.as_millis() as u64 })
            }
        }
    }

    fn enqueue(&self, job: Job) -> Result<(), EpisodeError> {
        let jobs = self.jobs.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*jobs else {
            self.shared.count_failed(1, "closed");
            return Err(EpisodeError::Closed);
        };
        let queued = self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let (error, reason) = match sender.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(_)) => (EpisodeError::QueueFull { queued }, "queue_full"),
            Err(TrySendError::Disconnected(_)) => (EpisodeError::Closed, "closed"),
        };
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        self.shared.count_failed(1, reason);
        Err(error)
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
    pub(crate) fn with_writer(&self, action: impl FnOnce(&rusqlite::Connection) + Send + 'static) {
        let jobs = self.jobs.read().unwrap();
        jobs.as_ref().unwrap().send(Job::With(Box::new(action))).unwrap();
    }
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
