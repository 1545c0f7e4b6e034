//! Judges live answers, after the reply and beside it, never in its way.
//!
//! A sampled answer takes a place in a bounded queue or is dropped and counted. One worker asks the judge, a few at
//! once, and only while the live load is low. An answer that had a shadow is judged together with it, once both are in
//! the store.

use std::sync::Arc;

use recast_config::{Settings, TenantProfile};
use recast_domain::{Conversation, EpisodeId, ShadowKind, ShadowOutcome};
use recast_episodes::{EpisodeStore, RewardRecord, Side};
use recast_judge::{
    Candidate, Flips, GroupVerdict, Judge, JudgeItem, Judged, REWARD_VERSION, RubricVerdict, is_sampled,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;
use crate::scoring::facts::{RewardFacts, SideFacts, StoredReward, retrieved_before, wordless};
use crate::scoring::judging;
use crate::scoring::scorer::Scorer;

/// Answers that may wait.
const QUEUE: usize = 256;

/// What is to be judged.
enum Job {
    /// An answer by itself.
    Answer { tenant: Arc<TenantProfile>, episode: EpisodeId, conversation: Conversation, rewrite: String },
    /// An answer and the run that completed in its shadow.
    Pair { tenant: Arc<TenantProfile>, episode: EpisodeId, kind: ShadowKind },
}

/// The way into the queue.
pub struct Judging {
    sender: Sender<Job>,
    rate: f64,
    scorer: Arc<Scorer>,
    closing: CancellationToken,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Judging {
    /// Starts the worker. It ends after [`Judging::close`], or when the last handle is gone.
    pub fn start(settings: &Settings, scorer: Arc<Scorer>, episodes: Arc<EpisodeStore>, limits: Arc<Limits>) -> Self {
        let (sender, jobs) = channel(QUEUE);
        let closing = CancellationToken::new();
        let work = Work {
            scorer: Arc::clone(&scorer),
            episodes,
            limits,
            busy_above: settings.scoring.busy_above,
            closing: closing.clone(),
        };
        let at_once = settings.judge.in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let worker = tokio::spawn(Arc::new(work).run(jobs, at_once));
        Self { sender, rate: settings.judge.sample_rate, scorer, closing, worker: Mutex::new(Some(worker)) }
    }

    /// Offers an answer that had no shadow. What the judge needs is copied only when there is a place.
    pub fn offer(&self, tenant: &Arc<TenantProfile>, episode: EpisodeId, conversation: &Conversation, rewrite: &str) {
        self.place(episode, || Job::Answer {
            tenant: Arc::clone(tenant),
            episode,
            conversation: conversation.clone(),
            rewrite: rewrite.to_owned(),
        });
    }

    /// Offers an answer with its shadow; both must be in the store.
    pub fn offer_pair(&self, tenant: &Arc<TenantProfile>, episode: EpisodeId, kind: ShadowKind) {
        self.place(episode, || Job::Pair { tenant: Arc::clone(tenant), episode, kind });
    }

    fn place(&self, episode: EpisodeId, job: impl FnOnce() -> Job) {
        if self.scorer.judge().is_none() || !is_sampled(&episode, self.rate) {
            return;
        }
        match self.sender.try_reserve() {
            Ok(place) => place.send(job()),
            Err(_) => metrics::counter!("recast_judge_dropped_total", "reason" => "queue_full").increment(1),
        }
    }

    /// Ends the worker; what waits is dropped and counted, what is being judged is broken off.
    pub async fn close(&self) {
        self.closing.cancel();
        if let Some(worker) = self.worker.lock().await.take() {
            // A worker that panicked has ended too.
            let _ = worker.await;
        }
    }
}

struct Work {
    scorer: Arc<Scorer>,
    episodes: Arc<EpisodeStore>,
    limits: Arc<Limits>,
    busy_above: usize,
    closing: CancellationToken,
}

impl Work {
    async fn run(self: Arc<Self>, mut jobs: Receiver<Job>, at_once: usize) {
        let places = Arc::new(Semaphore::new(at_once));
        let running = TaskTracker::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let job = tokio::select! {
                biased;
                () = self.closing.cancelled() => break,
                job = jobs.recv() => match job {
                    Some(job) => job,
                    None => break,
                },
            };
            tokio::select! {
                () = self.limits.calm(self.busy_above) => {}
                () = self.closing.cancelled() => {}
            }
            let work = Arc::clone(&self);
            running.spawn(async move {
                let _place = place;
                tokio::select! {
                    biased;
                    () = work.closing.cancelled() => dropped(),
                    () = work.judge(job) => {}
                }
            });
        }
        jobs.close();
        while jobs.recv().await.is_some() {
            dropped();
        }
        running.close();
        running.wait().await;
    }

    async fn judge(&self, job: Job) {
        let Some(judge) = self.scorer.judge() else { return };
        match job {
            Job::Answer { tenant, episode, conversation, rewrite } => {
                let item = JudgeItem::new(&tenant, conversation);
                let verdict = judge.judge_rubric(&item, &Candidate::from(rewrite.as_str())).await;
                self.answer(&tenant, episode, &rewrite, judge.id(), verdict).await;
            }
            Job::Pair { tenant, episode, kind } => self.pair(&tenant, episode, kind, judge.as_ref()).await,
        }
    }

    async fn answer(
        &self,
        tenant: &TenantProfile,
        episode: EpisodeId,
        rewrite: &str,
        judge: &str,
        said: RubricVerdict,
    ) {
        let judged = Judged::from(said.verdict);
        judging::count(&judged);
        let said = GroupVerdict {
            judge: judge.to_owned(),
            rewrites: Vec::new(),
            baseline: judged,
            flips: Flips::default(),
            replies: Some(said.reply).filter(|reply| !reply.is_empty()).into_iter().collect(),
        };
        let rows = judging::rows(&tenant.id, episode, &said, &[(Side::Live, rewrite, &said.baseline)]);
        judging::store(&self.episodes, rows, Vec::new()).await;
    }

    async fn pair(&self, tenant: &TenantProfile, id: EpisodeId, kind: ShadowKind, judge: &dyn Judge) {
        let (of, read) = (tenant.id.clone(), &self.episodes);
        let both = read.read(move |reader| Ok((reader.get(&of, id)?, reader.shadow_run(&of, id, kind)?))).await;
        let (episode, run) = match both {
            Ok((episode, Some(run))) => (episode, run),
            Ok((_, None)) => return,
            Err(error) => {
                metrics::counter!("recast_judge_dropped_total", "reason" => "not_readable").increment(1);
                tracing::warn!(%error, episode = %id, "a pair cannot be read to be judged");
                return;
            }
        };
        let Some(ShadowOutcome::Completed { answer }) = run.outcome else { return };
        let (live, other) = (episode.rewrite.text.as_str(), answer.rewrite.text.as_str());
        let item = JudgeItem::new(tenant, episode.conversation.clone());
        let said = judge.judge_group(&item, &[Candidate::from(live)], &Candidate::from(other)).await;
        let Some(of_live) = said.rewrites.first() else { return };
        judging::count(of_live);
        judging::count(&said.baseline);

        let side = if kind == ShadowKind::Control { Side::Control } else { Side::Shadow };
        let rows =
            judging::rows(&tenant.id, id, &said, &[(Side::Live, live, of_live), (side.clone(), other, &said.baseline)]);
        let facts = |text: &str, judged: &Judged, retrieved| SideFacts {
            text: text.to_owned(),
            judged: wordless(judged),
            retrieved,
        };
        let live = facts(live, of_live, retrieved_before(&episode.hits, &episode.degraded));
        let other = facts(other, &said.baseline, retrieved_before(&answer.hits, &answer.degraded));
        let reward = |side: Side, student: &SideFacts, baseline: &SideFacts| {
            let facts = RewardFacts {
                judge: said.judge.clone(),
                retriever_snapshot: self.scorer.snapshot().to_owned(),
                student: student.clone(),
                baseline: baseline.clone(),
            };
            let stored = StoredReward { reward: facts.reward(self.scorer.weights()), facts };
            RewardRecord {
                tenant: tenant.id.clone(),
                episode: id,
                side,
                reward_version: REWARD_VERSION,
                weights_hash: self.scorer.weights_hash().to_owned(),
                parts: serde_json::to_value(stored).unwrap_or_default(),
                created_ms: judging::now(),
            }
        };
        // Two samples of one arm say how much a judge and a search scatter, not which arm is better.
        let rewards = match kind {
            ShadowKind::Control => Vec::new(),
            ShadowKind::Treatment => {
                vec![reward(Side::Live, &live, &other), reward(Side::Shadow, &other, &live)]
            }
        };
        judging::store(&self.episodes, rows, rewards).await;
    }
}

fn dropped() {
    metrics::counter!("recast_judge_dropped_total", "reason" => "shutdown").increment(1);
}
