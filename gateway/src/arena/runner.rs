//! One shadow run, from its job to its end in the ledger.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use recast_domain::{EpisodeHit, ErrorKind, ShadowAnswer, ShadowOutcome, ShadowRun};
use recast_episodes::{EpisodeError, EpisodeStore};
use recast_rewriter::RewriteError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::arena::arms::Arms;
use crate::arena::shadow::{Job, count_ended, dropped, failed};
use crate::limits::Limits;
use crate::pipeline::{ArmError, Pipeline, Run};
use crate::recorder::Kept;
use crate::scoring::Judging;

/// How long the store is left alone after it refused an end, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);

/// What runs jobs.
pub struct Runner {
    pub pipeline: Pipeline,
    pub arms: Arc<Arms>,
    pub episodes: Arc<EpisodeStore>,
    pub limits: Arc<Limits>,
    /// Compares what both arms did.
    pub judging: Arc<Judging>,
    /// Bound of one run.
    pub deadline: Duration,
    /// No run starts while more live requests than this are in flight.
    pub busy_above: usize,
    /// Cancelled at shutdown.
    pub closing: CancellationToken,
    /// Runs that have ended.
    pub ended: watch::Sender<u64>,
}

impl Runner {
    /// Runs a job and writes its end. Neither a hung service nor a panic keeps it from ending.
    pub async fn run(&self, job: Job) {
        let started = Instant::now();
        let outcome = tokio::select! {
            biased;
            () = job.stop.cancelled() => dropped("experiment_stopped"),
            () = self.closing.cancelled() => dropped("shutdown"),
            answered = timeout(self.deadline, AssertUnwindSafe(self.answer(&job)).catch_unwind()) => match answered {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => {
                    tracing::error!(episode = %job.run.episode, "a shadow run panicked");
                    failed("panicked")
                }
                Err(_) => ShadowOutcome::TimedOut,
            },
        };
        match &outcome {
            ShadowOutcome::Completed { answer } => job.window.saw_shadow(answer, &job.conversation.query),
            ShadowOutcome::Failed { .. } | ShadowOutcome::TimedOut => job.window.saw_failure(started.elapsed()),
            ShadowOutcome::Dropped { .. } => {}
        }
        let completed = matches!(outcome, ShadowOutcome::Completed { .. });
        let (episode, kind) = (job.run.episode, job.run.kind);
        self.end(job.run, outcome).await;
        if completed {
            self.judging.offer_pair(&job.tenant, episode, kind);
        }
    }

    async fn answer(&self, job: &Job) -> ShadowOutcome {
        let Some(rewriter) = self.arms.shadow(job.rewriter, &job.tenant.id) else { return failed("rewriter_missing") };
        let run = self.pipeline.run_with(&*rewriter, &job.tenant, &job.conversation, job.options.clone()).await;
        match run {
            Ok(run) => ShadowOutcome::Completed { answer: Box::new(answer(run, job)) },
            Err(ArmError::Rewrite(error)) => rewrite_failed(&error),
            Err(ArmError::Search(error)) => {
                tracing::warn!(%error, "a shadow run could not search");
                failed("retrieval_failed")
            }
        }
    }

    /// Writes an end until the store has it. While the store fails, runs wait here, the queue fills, and further
    /// requests are dropped together with their episodes: nothing piles up.
    pub async fn end(&self, run: ShadowRun, outcome: ShadowOutcome) {
        let mut run = ShadowRun { outcome: Some(outcome), ..run };
        let mut pause = PAUSE;
        loop {
            match self.episodes.end_shadow(&run).await {
                Ok(_) => break,
                Err(EpisodeError::Invalid(reason)) => {
                    tracing::error!(reason, episode = %run.episode, "a shadow's answer cannot be stored");
                    run.outcome = Some(failed("not_storable"));
                }
                Err(error) => {
                    metrics::counter!("recast_shadow_end_retries_total").increment(1);
                    tracing::warn!(%error, episode = %run.episode, "the end of a shadow run is not stored yet");
                    // At shutdown the next start ends what is left open.
                    if matches!(error, EpisodeError::Closed) || self.closing.is_cancelled() {
                        break;
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = self.closing.cancelled() => {}
                    }
                    pause = (2 * pause).min(PAUSE_MOST);
                }
            }
        }
        count_ended(&run);
        self.ended.send_modify(|count| *count += 1);
    }
}

fn rewrite_failed(error: &RewriteError) -> ShadowOutcome {
    tracing::debug!(%error, "a shadow rewrite failed");
    match error {
        RewriteError::Invalid(_) => failed("rewrite_invalid"),
        RewriteError::BreakerOpen => failed("breaker_open"),
        error if error.kind() == ErrorKind::Timeout => ShadowOutcome::TimedOut,
        _ => failed("rewriter_failed"),
    }
}

fn answer(run: Run, job: &Job) -> ShadowAnswer {
    // the rewriter was asked what the user asked; what is kept is another thing
    let rewrite = Kept::of(&job.tenant, &job.conversation).rewrite(&run.trace.rewrite);
    ShadowAnswer {
        hits: run.trace.hits.iter().map(EpisodeHit::from).collect(),
        rewrite,
        prompt_hash: run.prompt_hash,
        timings: run.trace.timings,
        degraded: run.trace.degraded,
    }
}
