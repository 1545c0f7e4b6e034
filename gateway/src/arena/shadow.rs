//! The shadow: a second arm runs for sampled requests, after the reply and beside it, never in its way.
//!
//! A request that is sampled takes its place in a bounded queue before its episode is stored, so that "sampled" is
//! committed together with the episode, and a full queue is known by then. From there on exactly one end is written for
//! it, whatever happens; what a killed process leaves open, the next one ends as dropped.

use std::sync::Arc;
use std::time::Duration;

use recast_config::{DeadlineSettings, ShadowSettings, TenantProfile};
use recast_domain::{Conversation, ShadowKind, ShadowOutcome, ShadowRun};
use recast_episodes::EpisodeStore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::arena::arms::{ArmRewriter, Arms};
use crate::arena::guard::Window;
use crate::arena::refused::{REFUSED_MOST, RefusedPlace, write_refused};
use crate::arena::runner::Runner;
use crate::limits::Limits;
use crate::pipeline::{Pipeline, RunOptions};
use crate::scoring::Judging;

/// A sampled request, with all that its other arm needs.
pub struct Job {
    /// The run, without an outcome.
    pub run: ShadowRun,
    /// Whose request it was.
    pub tenant: Arc<TenantProfile>,
    /// The question with its context.
    pub conversation: Conversation,
    /// As in the live run.
    pub options: RunOptions,
    /// Who rewrites in the shadow.
    pub rewriter: ArmRewriter,
    /// Cancelled when the experiment is stopped.
    pub stop: CancellationToken,
    /// What the guardrails of this arm look at.
    pub window: Arc<Window>,
}

/// A place in the queue; given back when dropped.
pub type Place = mpsc::OwnedPermit<Job>;

/// The queue, and the worker behind it.
pub struct Shadow {
    sender: Sender<Job>,
    refused: Sender<ShadowRun>,
    closing: CancellationToken,
    ended: watch::Receiver<u64>,
}

impl Shadow {
    /// Starts the worker. It ends after [`Shadow::close`], when every job has its end.
    pub fn start(
        settings: &ShadowSettings,
        pipeline: &Pipeline,
        arms: Arc<Arms>,
        episodes: Arc<EpisodeStore>,
        limits: Arc<Limits>,
        judging: Arc<Judging>,
    ) -> (Self, JoinHandle<()>) {
        let (sender, jobs) = channel(settings.queue);
        let (refused, refusals) = channel(REFUSED_MOST);
        let closing = CancellationToken::new();
        let (count, ended) = watch::channel(0);
        let deadline = settings.deadline_ms;
        let deadlines = DeadlineSettings {
            request_ms: deadline,
            rewrite_ms: deadline,
            remote_rewrite_ms: deadline,
            // The same search as the live one: only the rewriter may take longer here.
            ..pipeline.deadlines().clone()
        };
        let runner = Arc::new(Runner {
            pipeline: pipeline.with_deadlines(deadlines),
            arms,
            episodes,
            limits,
            judging,
            deadline: Duration::from_millis(deadline),
            busy_above: settings.busy_above,
            closing: closing.clone(),
            ended: count,
        });
        let concurrency = settings.concurrency;
        let worker = tokio::spawn(async move {
            tokio::join!(work(Arc::clone(&runner), jobs, concurrency), write_refused(runner, refusals));
        });
        (Self { sender, refused, closing, ended }, worker)
    }

    /// A place for one job, or `None` when the queue is full or closed.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.sender.clone().try_reserve_owned().ok()
    }

    /// A place for a run that was refused, or `None` when so many wait that it had better be written at once.
    #[must_use]
    pub fn refused_place(&self) -> Option<RefusedPlace> {
        self.refused.clone().try_reserve_owned().ok()
    }

    /// Jobs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sender.max_capacity() - self.sender.capacity()
    }

    /// How many runs have ended since the start, to be read or watched.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.clone()
    }

    /// Ends everything that waits or runs as dropped.
    pub fn close(&self) {
        self.closing.cancel();
    }
}

async fn work(runner: Arc<Runner>, mut jobs: Receiver<Job>, concurrency: usize) {
    let places = Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS)));
    let running = TaskTracker::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let job = tokio::select! {
            biased;
            () = runner.closing.cancelled() => break,
            job = jobs.recv() => match job {
                Some(job) => job,
                None => break,
            },
        };
        // Live requests come first; a run that is not to be any more needs no calm.
        tokio::select! {
            () = runner.limits.calm(runner.busy_above) => {}
            () = job.stop.cancelled() => {}
            () = runner.closing.cancelled() => {}
        }
        let runner = Arc::clone(&runner);
        running.spawn(async move {
            runner.run(job).await;
            drop(place);
        });
    }
    // Whoever holds a place still sends its job: those are ended too.
    jobs.close();
    let ends = Arc::new(Semaphore::new(64));
    while let Some(job) = jobs.recv().await {
        let Ok(place) = Arc::clone(&ends).acquire_owned().await else { break };
        let runner = Arc::clone(&runner);
        running.spawn(async move {
            runner.end(job.run, dropped("shutdown")).await;
            drop(place);
        });
    }
    running.close();
    running.wait().await;
}

/// The outcome of what was never run to its end.
#[must_use]
pub fn dropped(reason: &str) -> ShadowOutcome {
    ShadowOutcome::Dropped { reason: reason.to_owned() }
}

/// The outcome of what went wrong.
#[must_use]
pub fn failed(reason: &str) -> ShadowOutcome {
    ShadowOutcome::Failed { reason: reason.to_owned() }
}

/// Counts a request that was sampled.
pub fn count_sampled(run: &ShadowRun) {
    count("recast_shadow_sampled_total", run, None);
}

/// Counts how a sampled request ended; a run without an outcome is not counted.
pub fn count_ended(run: &ShadowRun) {
    let Some(outcome) = &run.outcome else { return };
    let name = match outcome {
        ShadowOutcome::Completed { .. } => "recast_shadow_completed_total",
        ShadowOutcome::Failed { .. } => "recast_shadow_failed_total",
        ShadowOutcome::TimedOut => "recast_shadow_timed_out_total",
        ShadowOutcome::Dropped { .. } => "recast_shadow_dropped_total",
    };
    count(name, run, Some(outcome.reason()).filter(|reason| !reason.is_empty()));
}

fn count(name: &'static str, run: &ShadowRun, reason: Option<&str>) {
    let kind = match run.kind {
        ShadowKind::Treatment => "treatment",
        ShadowKind::Control => "control",
    };
    let mut labels = vec![
        metrics::Label::new("tenant", run.tenant.as_str().to_owned()),
        metrics::Label::new("experiment", run.assignment.experiment.clone()),
        metrics::Label::new("arm", run.assignment.arm.clone()),
        metrics::Label::from_static_parts("kind", kind),
    ];
    labels.extend(reason.map(|reason| metrics::Label::new("reason", reason.to_owned())));
    metrics::counter!(name, labels).increment(1);
}
