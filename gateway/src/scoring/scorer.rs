//! Rewards of completions: retrieval by the one pipeline, the judge, and the formulas.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use moka::future::Cache;
use recast_config::Settings;
use recast_domain::TenantId;
use recast_episodes::{EpisodeStore, RewardRecord, Side};
use recast_judge::{
    Candidate, InvalidRewrite, Judge, JudgeItem, Judged, LabelRank, LabelledHits, REWARD_VERSION, RetrievalSignal,
    Retrieved, Reward, RewardWeights, RewriteRules, invalid_rewrite,
};
use recast_retrieval::LegChoice;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::limits::Limits;
use crate::parts::Parts;
use crate::pipeline::{Pipeline, QuerySource, RunOptions};
use crate::scoring::facts::{RewardFacts, SideFacts, StoredReward, retrieved, wordless};
use crate::scoring::item::Item;
use crate::scoring::judging;
use crate::scoring::outcome::Outcome;
use crate::scoring::snapshot::snapshot;

/// Hits of a search that is scored: as many as nDCG@10 looks at.
const DEPTH: usize = 10;
/// Completions of equal keys wait for each other in one of these; few enough to be small, many enough to be free.
const LANES: usize = 1024;
/// Name of the judge in replies where there is none.
const NO_JUDGE: &str = "off";

/// The baseline's search of an item; one that failed is tried again.
type Baseline = Arc<OnceCell<Retrieved>>;

/// Scores completions.
pub struct Scorer {
    pipeline: Pipeline,
    judge: ArcSwap<Option<Arc<dyn Judge>>>,
    weights: RewardWeights,
    weights_hash: String,
    rules: RewriteRules,
    snapshot: String,
    score_threshold: f32,
    episodes: Arc<EpisodeStore>,
    limits: Arc<Limits>,
    busy_above: usize,
    queue: usize,
    timeout: Duration,
    places: Arc<Semaphore>,
    running: Semaphore,
    baselines: Cache<blake3::Hash, Baseline>,
    results: Cache<blake3::Hash, Arc<Outcome>>,
    lanes: Vec<tokio::sync::Mutex<()>>,
    /// How often a tenant's knowledge has changed; searches before and after are not compared.
    revisions: Mutex<HashMap<TenantId, Arc<AtomicU64>>>,
}

impl Scorer {
    /// Over the parts that serve.
    pub fn new(
        settings: &Settings,
        parts: &Parts,
        judge: Option<Arc<dyn Judge>>,
        episodes: Arc<EpisodeStore>,
        limits: Arc<Limits>,
    ) -> Self {
        let scoring = &settings.scoring;
        let weights = RewardWeights::from(&settings.reward);
        // Nobody waits for a rewrite here, and no search is cut short because people are being served.
        let deadlines = recast_config::DeadlineSettings {
            request_ms: scoring.timeout_ms,
            retrieval_ms: scoring.timeout_ms,
            rerank_ms: scoring.timeout_ms,
            ..settings.deadlines.clone()
        };
        Self {
            pipeline: parts.pipeline.with_deadlines(deadlines),
            judge: ArcSwap::from_pointee(judge),
            weights_hash: weights.hash(),
            weights,
            rules: RewriteRules::default(),
            snapshot: snapshot(parts.pipeline.retriever()),
            score_threshold: settings.retrieval.score_threshold,
            episodes,
            limits,
            busy_above: scoring.busy_above,
            queue: scoring.queue,
            timeout: Duration::from_millis(scoring.timeout_ms),
            places: Arc::new(Semaphore::new(scoring.queue)),
            running: Semaphore::new(scoring.concurrency),
            baselines: Cache::new(scoring.items),
            results: Cache::new(scoring.results),
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::default()).collect(),
            revisions: Mutex::default(),
        }
    }

    /// Completions that one request may have at most.
    #[must_use]
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// Places for so many completions; `None` while too many wait.
    #[must_use]
    pub fn admit(&self, completions: usize) -> Option<OwnedSemaphorePermit> {
        let many = u32::try_from(completions).ok()?;
        Arc::clone(&self.places).try_acquire_many_owned(many).ok()
    }

    /// The judge's id.
    #[must_use]
    pub fn judge_version(&self) -> String {
        self.judge().map_or_else(|| NO_JUDGE.to_owned(), |judge| judge.id().to_owned())
    }

    /// The judge, where there is one.
    #[must_use]
    pub fn judge(&self) -> Option<Arc<dyn Judge>> {
        (**self.judge.load()).clone()
    }

    /// Names everything about a search but the documents.
    #[must_use]
    pub fn snapshot(&self) -> &str {
        &self.snapshot
    }

    /// The weights in force.
    #[must_use]
    pub fn weights(&self) -> &RewardWeights {
        &self.weights
    }

    /// Their hash.
    #[must_use]
    pub fn weights_hash(&self) -> &str {
        &self.weights_hash
    }

    /// Puts a double in the place of the judge.
    #[cfg(test)]
    pub(crate) fn set_judge(&self, judge: Option<Arc<dyn Judge>>) {
        self.judge.store(Arc::new(judge));
    }

    /// Forgets what was scored, and what the judge said.
    pub fn forget(&self) {
        self.baselines.invalidate_all();
        self.results.invalidate_all();
        if let Some(judge) = self.judge() {
            judge.forget();
        }
    }

    /// To be called when documents of a tenant have changed: nothing that was found before is used again.
    pub fn documents_changed(&self, tenant: &TenantId) {
        self.revision(tenant).fetch_add(1, Ordering::Relaxed);
    }

    fn revision(&self, tenant: &TenantId) -> Arc<AtomicU64> {
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(revisions.entry(tenant.clone()).or_default())
    }

    /// Scores completions of several items; the outcomes are in their order. Those of one item are judged together.
    /// What is not scored in time is unscored.
    pub async fn score(&self, samples: &[(Arc<Item>, String)]) -> Vec<Outcome> {
        let deadline = Instant::now() + self.timeout;
        let mut groups: Vec<(blake3::Hash, &Item, Vec<usize>)> = Vec::new();
        for (place, (item, _)) in samples.iter().enumerate() {
            let key = item.key();
            match groups.iter_mut().find(|(known, ..)| *known == key) {
                Some((_, _, places)) => places.push(place),
                None => groups.push((key, item, vec![place])),
            }
        }
        let scored = join_all(groups.iter().map(|(key, item, places)| async move {
            let texts: Vec<&str> = places.iter().map(|place| samples[*place].1.as_str()).collect();
            let outcomes = timeout_at(deadline, self.group(*key, item, &texts)).await;
            outcomes.unwrap_or_else(|_| vec![Outcome::unscored("timeout"); texts.len()])
        }))
        .await;
        let mut outcomes = vec![Outcome::unscored("lost"); samples.len()];
        for ((_, _, places), group) in groups.iter().zip(scored) {
            for (place, outcome) in places.iter().zip(group) {
                let status = outcome.status().label();
                metrics::counter!("recast_rl_score_total", "status" => status).increment(1);
                outcomes[*place] = outcome;
            }
        }
        outcomes
    }

    /// Completions of one item. A text that was scored before keeps its score.
    async fn group(&self, item_key: blake3::Hash, item: &Item, texts: &[&str]) -> Vec<Outcome> {
        let query = &item.conversation.query;
        let judge = self.judge();
        let revision = self.revision(&item.tenant.id).load(Ordering::Relaxed);
        let searched = search_key(item_key, revision, &self.snapshot);
        let id = judge.as_ref().map_or(NO_JUDGE, |judge| judge.id());
        let mut distinct: Vec<(&str, blake3::Hash)> = Vec::new();
        for text in texts {
            if !distinct.iter().any(|(known, _)| known == text) {
                distinct.push((text, result_key(&searched, text, id, &self.weights_hash)));
            }
        }
        let _lanes = self.lanes(distinct.iter().map(|(_, key)| key)).await;

        let mut outcomes: HashMap<&str, Arc<Outcome>> = HashMap::new();
        let mut open = Vec::new();
        for (text, key) in &distinct {
            if let Some(known) = self.results.get(key).await {
                outcomes.insert(text, known);
            } else if let Some(reason) = invalid_rewrite(query, text, &self.rules) {
                outcomes.insert(text, Arc::new(Outcome::invalid(self.weights.invalid, reason)));
                self.store_invalid(item, text, id, reason).await;
            } else {
                open.push((*text, *key));
            }
        }
        if !open.is_empty() {
            let scored = match &judge {
                None => vec![Outcome::unscored("judge_off: set judge.kind"); open.len()],
                Some(judge) => self.fresh(item, searched, &open, judge.as_ref()).await,
            };
            for ((text, key), outcome) in open.into_iter().zip(scored) {
                let outcome = Arc::new(outcome);
                if outcome.reward.is_some() {
                    self.results.insert(key, Arc::clone(&outcome)).await;
                }
                outcomes.insert(text, outcome);
            }
        }
        let of = |text: &&str| outcomes.get(text).map_or_else(|| Outcome::unscored("lost"), |one| (**one).clone());
        texts.iter().map(of).collect()
    }

    /// Valid texts that are not known yet.
    async fn fresh(
        &self,
        item: &Item,
        searched: blake3::Hash,
        texts: &[(&str, blake3::Hash)],
        judge: &dyn Judge,
    ) -> Vec<Outcome> {
        if self.weights.signal == RetrievalSignal::Labels && item.labels.is_empty() {
            return vec![Outcome::unscored("no_labels: reward.kind is labels, and this item has none"); texts.len()];
        }
        // Closed only with the process.
        let _running = self.running.acquire().await;
        self.limits.calm(self.busy_above).await;
        let Some(baseline) = self.baseline(item, searched).await else {
            return vec![Outcome::unscored("retrieval_failed: the baseline"); texts.len()];
        };
        let mut found = Vec::with_capacity(texts.len());
        for (text, _) in texts {
            found.push(self.search(item, text).await);
        }
        // Nobody is paid to judge what can have no reward.
        let judged: Vec<usize> = (0..texts.len()).filter(|place| found[*place].scores.is_some()).collect();
        let candidates: Vec<Candidate> = judged.iter().map(|at| candidate(texts[*at].0, &found[*at])).collect();
        let mut outcomes = vec![Outcome::unscored("retrieval_failed: the completion"); texts.len()];
        if candidates.is_empty() {
            return outcomes;
        }
        let asked = JudgeItem::new(&item.tenant, item.conversation.clone());
        let verdict = judge.judge_group(&asked, &candidates, &candidate(&item.baseline, &baseline)).await;
        verdict.rewrites.iter().chain([&verdict.baseline]).for_each(judging::count);

        let side = |text: &str, judged: &Judged, retrieved: &Retrieved| SideFacts {
            text: text.to_owned(),
            judged: wordless(judged),
            retrieved: retrieved.clone(),
        };
        let mut kept = Vec::new();
        for (at, said) in judged.into_iter().zip(&verdict.rewrites) {
            let text = texts[at].0;
            let facts = RewardFacts {
                judge: verdict.judge.clone(),
                retriever_snapshot: self.snapshot.clone(),
                student: side(text, said, &found[at]),
                baseline: side(&item.baseline, &verdict.baseline, &baseline),
            };
            let stored = StoredReward { reward: facts.reward(&self.weights), facts };
            let words = if let Judged::Scored { reason, .. } = said { reason } else { "" };
            outcomes[at] = Outcome::of(&stored, words);
            kept.push((text, said, stored));
        }
        if let Some(episode) = item.episode {
            let sides: Vec<_> = kept.iter().map(|(text, said, _)| (completion(text), *text, *said)).collect();
            let rows = judging::rows(&item.tenant.id, episode, &verdict, &sides);
            let rewards = kept.iter().map(|(text, _, stored)| self.row(item, text, stored)).collect();
            judging::store(&self.episodes, rows, rewards).await;
        }
        outcomes
    }

    /// An invalid completion of an episode is a fact of it too.
    async fn store_invalid(&self, item: &Item, text: &str, judge: &str, reason: InvalidRewrite) {
        if item.episode.is_none() {
            return;
        }
        let nothing = Retrieved::default();
        let side = |text: &str, judged| SideFacts { text: text.to_owned(), judged, retrieved: nothing.clone() };
        let unasked = Judged::Missing { fault: recast_judge::VerdictFault::Blank };
        let facts = RewardFacts {
            judge: judge.to_owned(),
            retriever_snapshot: self.snapshot.clone(),
            student: side(text, Judged::Invalid { reason }),
            baseline: side(&item.baseline, unasked),
        };
        let stored = StoredReward { reward: Reward::Invalid { reason, total: self.weights.invalid }, facts };
        judging::store(&self.episodes, Vec::new(), vec![self.row(item, text, &stored)]).await;
    }

    fn row(&self, item: &Item, text: &str, stored: &StoredReward) -> RewardRecord {
        RewardRecord {
            tenant: item.tenant.id.clone(),
            episode: item.episode.unwrap_or(recast_domain::EpisodeId(uuid::Uuid::nil())),
            side: completion(text),
            reward_version: REWARD_VERSION,
            weights_hash: self.weights_hash.clone(),
            parts: serde_json::to_value(stored).unwrap_or_default(),
            created_ms: judging::now(),
        }
    }

    /// What the baseline finds; looked up once an item. `None` where the search failed.
    async fn baseline(&self, item: &Item, searched: blake3::Hash) -> Option<Retrieved> {
        let cell = self.baselines.get_with(searched, async { Baseline::default() }).await;
        let found = cell.get_or_try_init(|| async {
            let found = self.search(item, &item.baseline).await;
            if found.scores.is_some() { Ok(found) } else { Err(()) }
        });
        found.await.ok().cloned()
    }

    async fn search(&self, item: &Item, text: &str) -> Retrieved {
        let options = RunOptions {
            kb_name: item.kb_name.clone(),
            query: QuerySource::Given(text.to_owned()),
            top_k: DEPTH,
            score_threshold: self.score_threshold,
            filters: Vec::new(),
            legs: LegChoice::Both,
            rerank: true,
            budget: None,
            seed: 0,
        };
        match self.pipeline.run(&item.tenant, &item.conversation, options).await {
            Ok(run) => retrieved(&run.trace, &item.labels),
            Err(error) => {
                tracing::warn!(%error, "a completion cannot be searched with");
                Retrieved::default()
            }
        }
    }

    /// Holds back whoever scores the same completion at the same time. Lanes are taken in their order, so that two
    /// requests never wait for each other.
    async fn lanes(&self, keys: impl Iterator<Item = &blake3::Hash>) -> Vec<tokio::sync::MutexGuard<'_, ()>> {
        let lane = |key: &blake3::Hash| usize::from(u16::from_le_bytes([key.as_bytes()[0], key.as_bytes()[1]])) % LANES;
        let mut wanted: Vec<usize> = keys.map(lane).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut guards = Vec::with_capacity(wanted.len());
        for lane in wanted {
            guards.push(self.lanes[lane].lock().await);
        }
        guards
    }
}

fn search_key(item: blake3::Hash, revision: u64, snapshot: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(item.as_bytes()).update(&revision.to_le_bytes()).update(snapshot.as_bytes());
    hasher.finalize()
}

fn result_key(searched: &blake3::Hash, text: &str, judge: &str, weights: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(searched.as_bytes()).update(blake3::hash(text.as_bytes()).as_bytes());
    hasher.update(blake3::hash(judge.as_bytes()).as_bytes()).update(weights.as_bytes());
    hasher.finalize()
}

fn completion(text: &str) -> Side {
    Side::Completion(blake3::hash(text.as_bytes()).to_hex()[..32].to_owned())
}

fn candidate(text: &str, retrieved: &Retrieved) -> Candidate {
    let rank = |hits: &LabelledHits| match (1..).zip(&hits.found).find(|(_, grade)| **grade > 0) {
        Some((place, _)) => LabelRank::At(place),
        None => LabelRank::NotFound,
    };
    Candidate { text: text.to_owned(), rank: retrieved.labels.as_ref().map_or(LabelRank::Unknown, rank) }
}
