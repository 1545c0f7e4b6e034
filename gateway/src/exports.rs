//! Exports that run beside serving: at most one for each tenant and a few in all, each on a thread of its own that
//! leaves half of its time to others.
//!
//! An export lives in `state.dir/exports/<tenant>/<id>`. The folder is the truth: one with a manifest is done, also
//! after a restart; one without that nobody works on was broken off.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use recast_domain::TenantId;
use recast_episodes::EpisodeReader;
use recast_episodes::export::{ExportError, ExportFilter, ExportRequest, Format, Manifest, Progress, export};
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use crate::serve::Phase;

/// Exports that run at once, of all tenants together.
const RUNNING: usize = 2;
/// Finished exports that are kept for a tenant; older ones are removed when a new one begins.
const KEPT: usize = 5;

/// Where an export stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// It runs.
    Running {
        /// Rows that are written.
        rows: u64,
        /// Episodes of the tenant, the upper bound of rows.
        of: u64,
    },
    /// It is finished.
    Done {
        /// What it says of itself.
        manifest: Box<Manifest>,
    },
    /// It could not be finished.
    Failed {
        /// Why not.
        reason: String,
    },
    /// Somebody stopped it.
    Stopped,
    /// The gateway ended meanwhile.
    BrokenOff,
}

/// Why an export does not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotBegun {
    /// The tenant has one that runs.
    Busy(Uuid),
    /// Others run already.
    Full,
    /// The gateway shuts down, or the system has no thread to give.
    Unavailable,
}

#[derive(Debug)]
struct Job {
    id: Uuid,
    progress: Mutex<Progress>,
    stop: Arc<AtomicBool>,
}

/// The exports of a gateway.
pub struct Exports {
    folder: PathBuf,
    running: Arc<Mutex<HashMap<TenantId, Arc<Job>>>>,
    /// How those ended that left nothing to see in their folder.
    ended: Arc<Mutex<HashMap<(TenantId, Uuid), Standing>>>,
    phase: watch::Receiver<Phase>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exports {
    /// Exports into `folder`; they end when the gateway closes.
    pub fn new(folder: PathBuf, phase: watch::Receiver<Phase>) -> Self {
        Self { folder, running: Arc::default(), ended: Arc::default(), phase }
    }

    fn folder(&self, tenant: &TenantId, id: Uuid) -> PathBuf {
        self.folder.join(tenant.as_str()).join(id.to_string())
    }

    /// Begins an export of a tenant's episodes.
    ///
    /// # Errors
    /// When the tenant has one that runs, or too many run.
    pub fn begin(
        &self,
        reader: Arc<EpisodeReader>,
        tenant: &TenantId,
        format: Format,
        filter: ExportFilter,
    ) -> Result<Uuid, NotBegun> {
        let mut running = locked(&self.running);
        if let Some(job) = running.get(tenant) {
            return Err(NotBegun::Busy(job.id));
        }
        if running.len() >= RUNNING {
            return Err(NotBegun::Full);
        }
        if *self.phase.borrow() > Phase::Open {
            return Err(NotBegun::Unavailable);
        }
        self.forget_old(tenant);
        let job = Arc::new(Job { id: Uuid::now_v7(), progress: Mutex::default(), stop: Arc::default() });
        let request = ExportRequest {
            tenants: vec![tenant.clone()],
            filter,
            format,
            rows_per_file: None,
            folder: self.folder(tenant, job.id),
            resume: false,
        };
        let (all, ended, phase) = (Arc::clone(&self.running), Arc::clone(&self.ended), self.phase.clone());
        let (mine, tenant_of_thread) = (Arc::clone(&job), tenant.clone());
        let work = move || {
            let made = run(&reader, &request, &mine, &phase);
            metrics::counter!("recast_exports_total", "outcome" => outcome(&made)).increment(1);
            if let Err(error) = made {
                // what is left of it serves nobody: there is no way to resume it over HTTP
                let _ = std::fs::remove_dir_all(&request.folder);
                let standing = match error {
                    ExportError::Stopped => Standing::Stopped,
                    error => {
                        tracing::warn!(%error, tenant = %tenant_of_thread, "an export failed");
                        Standing::Failed { reason: public(&error) }
                    }
                };
                locked(&ended).insert((tenant_of_thread.clone(), mine.id), standing);
            }
            locked(&all).remove(&tenant_of_thread);
        };
        if std::thread::Builder::new().name("export".to_owned()).spawn(work).is_err() {
            return Err(NotBegun::Unavailable);
        }
        let id = job.id;
        running.insert(tenant.clone(), job);
        Ok(id)
    }

    /// Where an export of this tenant stands; `None` where it has none of this id.
    pub fn standing(&self, tenant: &TenantId, id: Uuid) -> Option<Standing> {
        if let Some(job) = locked(&self.running).get(tenant).filter(|job| job.id == id) {
            let Progress { rows, of, .. } = *locked(&job.progress);
            return Some(Standing::Running { rows, of });
        }
        if let Some(standing) = locked(&self.ended).get(&(tenant.clone(), id)) {
            return Some(standing.clone());
        }
        let folder = self.folder(tenant, id);
        let manifest = std::fs::read(folder.join("manifest.json")).ok();
        match manifest.and_then(|text| serde_json::from_slice(&text).ok()) {
            Some(manifest) => Some(Standing::Done { manifest }),
            None => folder.is_dir().then_some(Standing::BrokenOff),
        }
    }

    /// Stops an export that runs, or removes one that ended. `false` where the tenant has none of this id.
    pub fn remove(&self, tenant: &TenantId, id: Uuid) -> bool {
        if let Some(job) = locked(&self.running).get(tenant).filter(|job| job.id == id) {
            job.stop.store(true, Ordering::Relaxed);
            return true;
        }
        let known = locked(&self.ended).remove(&(tenant.clone(), id)).is_some();
        std::fs::remove_dir_all(self.folder(tenant, id)).is_ok() || known
    }

    /// One file of a finished export, by the name that its manifest gives it.
    pub fn file(&self, tenant: &TenantId, id: Uuid, path: &str) -> Option<(PathBuf, u64)> {
        let Some(Standing::Done { manifest }) = self.standing(tenant, id) else { return None };
        // only what the manifest lists, so that no path leads elsewhere
        let file = manifest.files.iter().find(|file| file.path == path)?;
        Some((self.folder(tenant, id).join(&file.path), file.bytes))
    }

    /// Ids begin with their time: the last ones are the newest.
    fn forget_old(&self, tenant: &TenantId) {
        let Ok(entries) = std::fs::read_dir(self.folder.join(tenant.as_str())) else { return };
        let named = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<Uuid>().ok();
        let mut ids: Vec<Uuid> = entries.filter_map(|entry| named(entry.ok()?)).collect();
        ids.sort_unstable();
        let old = ids.len().saturating_sub(KEPT - 1);
        for id in ids.drain(..old) {
            if let Err(error) = std::fs::remove_dir_all(self.folder(tenant, id)) {
                tracing::warn!(%error, %id, "an old export could not be removed");
            }
        }
        locked(&self.ended).retain(|(of, _), _| of != tenant);
    }
}

/// Works, and pauses as long as it worked: serving never loses more than half a core to an export.
fn run(
    reader: &EpisodeReader,
    request: &ExportRequest,
    job: &Job,
    phase: &watch::Receiver<Phase>,
) -> Result<Manifest, ExportError> {
    let mut since = Instant::now();
    export(reader, request, |progress| {
        *locked(&job.progress) = progress;
        if job.stop.load(Ordering::Relaxed) || *phase.borrow() > Phase::Open {
            return ControlFlow::Break(());
        }
        std::thread::park_timeout(since.elapsed());
        since = Instant::now();
        ControlFlow::Continue(())
    })
}

fn outcome(made: &Result<Manifest, ExportError>) -> &'static str {
    match made {
        Ok(_) => "done",
        Err(ExportError::Stopped) => "stopped",
        Err(_) => "failed",
    }
}

/// What a caller is told: paths of this machine are in the log only.
fn public(error: &ExportError) -> String {
    match error {
        ExportError::Request(reason) => reason.clone(),
        ExportError::Io { source, .. } => format!("a file could not be written: {source}"),
        ExportError::Store(_) => "the episodes cannot be read now".to_owned(),
        _ => "the export could not be written; the log says why".to_owned(),
    }
}
