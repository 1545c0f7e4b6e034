//! The part of an experiment in one live request: which arm answers, and what follows in the shadow.

use std::sync::Arc;

use recast_config::TenantProfile;
use recast_domain::{Assignment, Conversation, Episode, EpisodeId, Hit, RefusedRun, ShadowKind, ShadowRun};
use recast_episodes::{EpisodeError, EpisodeStore};

use crate::arena::refused::queue_full;
use crate::arena::shadow::{Job, Place, Shadow, count_ended, count_sampled};
use crate::arena::table::{Running, RunningArm};
use crate::pipeline::{Pipeline, PipelineError, Run, RunOptions};

/// What an experiment has to do with one request.
pub struct Part {
    pub running: Arc<Running>,
    pub act: Act,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// One arm answers.
    One {
        /// Which, as a position among the arms.
        arm: usize,
        /// What runs in the shadow afterwards.
        sample: Option<Sample>,
    },
    /// Two arms answer, and their lists are merged.
    Interleave {
        /// Seed of the coin that is tossed for each pick.
        seed: u64,
    },
}

/// A request that was sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The arm that runs in the shadow.
    pub arm: usize,
    /// Why.
    pub kind: ShadowKind,
}

/// An answer with what its episode says of the experiment.
pub struct Answered {
    /// The run that the reply shows.
    pub run: Run,
    /// `None` where the experiment had no say after all.
    pub assignment: Option<Assignment>,
    /// The arm that picked each hit, `None` where both lists began alike; empty where nothing was interleaved.
    pub teams: Vec<Option<String>>,
}

impl Answered {
    /// An answer outside of experiments.
    #[must_use]
    pub fn plain(run: Run) -> Self {
        Self { run, assignment: None, teams: Vec::new() }
    }

    /// Writes into the episode what the experiment did.
    pub fn mark(&mut self, episode: &mut Episode) {
        episode.experiment = self.assignment.take();
        for (hit, team) in episode.hits.iter_mut().zip(self.teams.drain(..)) {
            hit.team = team;
        }
    }
}

impl Part {
    /// Whether a job will follow.
    #[must_use]
    pub fn sample(&self) -> Option<Sample> {
        match self.act {
            Act::One { sample, .. } => sample,
            Act::Interleave { .. } => None,
        }
    }

    /// Runs the arm, or both.
    ///
    /// # Errors
    /// When nothing could be searched.
    pub async fn run(
        &self,
        pipeline: &Pipeline,
        tenant: &Arc<TenantProfile>,
        conversation: &Conversation,
        options: RunOptions,
    ) -> Result<Answered, PipelineError> {
        let by = async |arm: &RunningArm, options| {
            // what is configured is what serves this request: the pipeline's own ladder
            let own = arm.ladder.as_ref().map(|ladder| pipeline.with_ladder(Arc::clone(ladder)));
            let run = own.as_ref().unwrap_or(pipeline).run(tenant, conversation, options).await?;
            arm.window.saw_live(&run, &conversation.query);
            Ok::<_, PipelineError>(run)
        };
        match self.act {
            Act::One { arm, .. } => {
                let arm = &self.running.arms[arm];
                let run = by(arm, options).await?;
                Ok(Answered { run, assignment: Some(self.running.assignment(&arm.name)), teams: Vec::new() })
            }
            Act::Interleave { seed } => {
                let [first, second] = self.running.pair();
                let top_k = options.top_k;
                let (one, other) = futures::join!(by(first, options.clone()), by(second, options));
                match (one, other) {
                    (Ok(one), Ok(other)) => {
                        let arms = format!("{}+{}", first.name, second.name);
                        let merged = merge([&first.name, &second.name], [one, other], top_k, seed);
                        Ok(Answered { assignment: Some(self.running.assignment(&arms)), ..merged })
                    }
                    // One list alone compares nothing: it is an answer, and no part of the experiment.
                    (Ok(run), Err(error)) | (Err(error), Ok(run)) => {
                        tracing::warn!(%error, "an interleaved arm could not search");
                        Ok(Answered::plain(run))
                    }
                    (Err(error), Err(_)) => Err(error),
                }
            }
        }
    }

    /// Stores the episode, and the sampled run with it where there is one. Says whether it is stored, and returns the
    /// run's ticket: let go of it when the reply has gone.
    pub async fn record(
        &self,
        shadow: &Shadow,
        store: &EpisodeStore,
        mut episode: Episode,
        sample: Sample,
        request: (Arc<TenantProfile>, Conversation, RunOptions),
    ) -> (Result<(), EpisodeError>, Option<Ticket>) {
        let arm = &self.running.arms[sample.arm];
        let place = shadow.place();
        let refused = if place.is_none() { shadow.refused_place() } else { None };
        let run = ShadowRun {
            episode: episode.id,
            tenant: episode.tenant.clone(),
            assignment: self.running.assignment(&arm.name),
            kind: sample.kind,
            sampled_ms: episode.created_ms,
            outcome: place.is_none().then(queue_full),
        };
        let stored = match &refused {
            Some(_) => {
                episode.refused = Some(RefusedRun { arm: arm.name.clone(), kind: sample.kind });
                store.append(episode).await
            }
            None => store.append_sampled(episode, run.clone()).await,
        };
        // One that was not acknowledged may be stored all the same: its run must end.
        if !matches!(stored, Ok(()) | Err(EpisodeError::Slow { .. })) {
            return (stored, None);
        }
        count_sampled(&run);
        if let Some(refused) = refused {
            refused.send(run);
            return (stored, None);
        }
        let Some(place) = place else {
            count_ended(&run);
            return (stored, None);
        };
        let (tenant, conversation, options) = request;
        let job = Job {
            run,
            tenant,
            conversation,
            options,
            rewriter: arm.rewriter,
            stop: self.running.stop.clone(),
            window: Arc::clone(&arm.window),
        };
        (stored, Some(Ticket(Some((place, job)))))
    }
}

/// A sampled request that is on its way: dropped, it is queued. So it cannot be lost.
pub struct Ticket(Option<(Place, Job)>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((place, job)) = self.0.take() {
            place.send(job);
        }
    }
}

/// The seed of a request's sampling and coin: the random half of its id.
#[must_use]
pub fn seed(id: EpisodeId) -> u64 {
    id.0.as_u64_pair().1
}

/// One list of two, by team draft. The reply shows the first arm's query, and the slower arm's times.
fn merge(names: [&str; 2], runs: [Run; 2], top_k: usize, seed: u64) -> Answered {
    let [first, second] = runs;
    let ids = |run: &Run| run.trace.hits.iter().map(|hit| hit.passage.id.clone()).collect::<Vec<_>>();
    let picks = recast_experiments::team_draft(&ids(&first), &ids(&second), top_k, seed);
    let mut run = first;
    let mut pool: Vec<Option<Hit>> = std::mem::take(&mut run.trace.hits).into_iter().map(Some).collect();
    let mut others: Vec<Option<Hit>> = second.trace.hits.into_iter().map(Some).collect();
    let (mut hits, mut teams) = (Vec::with_capacity(picks.len()), Vec::with_capacity(picks.len()));
    for pick in picks {
        let (own, team) = if pick.first { (&mut pool, names[0]) } else { (&mut others, names[1]) };
        let found = own.iter_mut().find(|hit| hit.as_ref().is_some_and(|hit| hit.passage.id == pick.id));
        if let Some(mut hit) = found.and_then(Option::take) {
            hit.rank = u32::try_from(hits.len() + 1).unwrap_or(u32::MAX);
            hits.push(hit);
            // Either arm alone would have shown this one here: a click on it says nothing.
            teams.push(pick.competitive.then(|| team.to_owned()));
        }
    }
    run.trace.hits = hits;
    for degradation in second.trace.degraded {
        if !run.trace.degraded.contains(&degradation) {
            run.trace.degraded.push(degradation);
        }
    }
    if second.trace.timings.total_us > run.trace.timings.total_us {
        run.trace.timings = second.trace.timings;
    }
    Answered { run, assignment: None, teams }
}
