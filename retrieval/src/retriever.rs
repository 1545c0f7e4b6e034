//! The one search path: legs, fusion, scores, reranking, threshold.
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use recast_config::{RetrievalSettings, TenantProfile};
use recast_domain::{Degradation, Hit, KbName, LegRank, Legs, TenantId};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::bm25::{Expansion, LexicalQuery, query_vector};
use crate::chunk::ChunkLimits;
use crate::embed::{Embedder, QueryCache};
use crate::error::RetrievalError;
use crate::fuse::fuse;
use crate::ingest::search_text;
use crate::knowledge::Knowledge;
use crate::rerank::{RerankPassage, Reranker};
use crate::score::cosine;
use crate::store::{Filter, LegQuery, Point, Scope, Scored, StoreHealth, VectorStore};
use crate::tuning::{TenantTuning, Tuning};

/// Which legs search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LegChoice {
    /// Lexical and dense.
    #[default]
    Both,
    /// Lexical only.
    Bm25,
    /// Dense only.
    Dense,
}

/// What is searched for, and how.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// Whose passages.
    pub tenant: TenantId,
    /// Which knowledge base.
    pub kb: KbName,
    /// The text.
    pub query: String,
    /// Hits wanted.
    pub top_k: usize,
    /// Relevance below which hits are left out, 0 to 1.
    pub score_threshold: f32,
    /// Conditions that all hits meet.
    pub filters: Vec<Filter>,
    /// Which legs search.
    pub legs: LegChoice,
    /// Whether the reranker runs, where one is configured.
    pub rerank: bool,
    /// When embedding and both legs must be done.
    pub retrieval_deadline: Instant,
    /// When reranking must be done.
    pub rerank_deadline: Instant,
}

/// What was found, and how long it took.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchOutcome {
    /// Best first.
    pub hits: Vec<Hit>,
    /// Microseconds until the query's vector was there; 0 without a dense leg.
    pub embed_us: u64,
    /// Microseconds of both legs, fusion and scores, apart from waiting for the vector.
    pub search_us: u64,
    /// Microseconds of reranking.
    pub rerank_us: u64,
    /// What did not work as meant.
    pub degraded: Vec<Degradation>,
}

/// A fused candidate before threshold and cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The stored passage.
    pub point: Arc<Point>,
    /// Rank and score in each leg.
    pub legs: Legs,
    /// Cosine with the query, where it has a vector.
    pub cosine: Option<f32>,
    /// Share of the reachable BM25 score, 0 to 1.
    pub lexical: f32,
    /// The reranker's own score, where it ran.
    pub raw_rerank: Option<f32>,
}

/// Everything the legs and the reranker said of a query: what tuning learns from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CandidateSet {
    /// Passage ids of the lexical leg, best first.
    pub bm25: Vec<Uuid>,
    /// Passage ids of the dense leg, best first.
    pub dense: Vec<Uuid>,
    /// In fused order.
    pub candidates: Vec<Candidate>,
    /// Timings and degradations; no hits.
    pub outcome: SearchOutcome,
}

struct TenantSearch {
    expansion: Expansion,
    tuning: TenantTuning,
}

/// Searches and changes knowledge bases.
pub struct Retriever {
    store: Arc<dyn VectorStore>,
    queries: Option<QueryCache>,
    reranker: Option<Arc<dyn Reranker>>,
    tuning: Tuning,
    settings: RetrievalSettings,
    tenants: ArcSwap<HashMap<TenantId, TenantSearch>>,
    knowledge: RwLock<HashMap<Scope, Arc<Knowledge>>>,
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn legs_of(id: Uuid, bm25: &HashMap<Uuid, LegRank>, dense: &HashMap<Uuid, LegRank>) -> Legs {
    Legs { bm25: bm25.get(&id).copied(), dense: dense.get(&id).copied() }
}

fn ranks(list: &[Scored]) -> HashMap<Uuid, LegRank> {
    (1..).zip(list).map(|(rank, scored)| (scored.id, LegRank { rank, score: scored.score })).collect()
}

impl Retriever {
    /// Puts a retriever together and reads all knowledge bases of the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn new(
        store: Arc<dyn VectorStore>,
        embedder: Option<Arc<dyn Embedder>>,
        embed_cache_entries: u64,
        reranker: Option<Arc<dyn Reranker>>,
        tuning: Tuning,
        settings: RetrievalSettings,
    ) -> Result<Self, RetrievalError> {
        let mut knowledge = HashMap::new();
        for generation in store.generations().await? {
            let loaded = Knowledge::load(store.as_ref(), &generation).await?;
            knowledge.insert(generation.scope, Arc::new(loaded));
        }
        Ok(Self {
            store,
            queries: embedder.map(|embedder| QueryCache::new(embedder, embed_cache_entries)),
            reranker,
            tuning,
            settings,
            tenants: ArcSwap::default(),
            knowledge: RwLock::new(knowledge),
        })
    }

    /// Takes over the tenants' term expansion and tuning; searches in flight keep what they started with.
    pub fn set_tenants(&self, tenants: &HashMap<TenantId, Arc<TenantProfile>>) {
        let searches = tenants.iter().map(|(id, profile)| {
            let expansion = Expansion::new(&profile.term_expansion);
            (id.clone(), TenantSearch { expansion, tuning: self.tuning.tenant(id) })
        });
        self.tenants.store(Arc::new(searches.collect()));
    }

    pub(crate) fn store(&self) -> &Arc<dyn VectorStore> {
        &self.store
    }

    pub(crate) fn embedder(&self) -> Option<&Arc<dyn Embedder>> {
        self.queries.as_ref().map(QueryCache::embedder)
    }

    /// Identity of the embedder; empty for none.
    #[must_use]
    pub fn embedder_identity(&self) -> &str {
        self.embedder().map_or("", |embedder| embedder.identity())
    }

    /// Identity of the reranker; empty for none.
    #[must_use]
    pub fn reranker_identity(&self) -> &str {
        self.reranker.as_ref().map_or("", |reranker| reranker.identity())
    }

    pub(crate) fn chunk_limits(&self) -> ChunkLimits {
        ChunkLimits { tokens: self.settings.chunk_tokens, overlap: self.settings.chunk_overlap }
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &RetrievalSettings {
        &self.settings
    }

    /// Whether the store works.
    pub async fn health(&self) -> StoreHealth {
        self.store.health().await
    }

    /// Makes all changes durable against power loss.
    ///
    /// # Errors
    /// When the store cannot.
    pub async fn flush(&self) -> Result<(), RetrievalError> {
        self.store.flush().await
    }

    /// Copies the store into the empty folder `to`.
    ///
    /// # Errors
    /// When the store cannot.
    pub async fn backup(&self, to: &std::path::Path) -> Result<(), RetrievalError> {
        self.store.backup(to).await
    }

    pub(crate) async fn knowledge(&self, scope: &Scope) -> Result<Option<Arc<Knowledge>>, RetrievalError> {
        if let Some(knowledge) = self.knowledge.read().unwrap_or_else(PoisonError::into_inner).get(scope) {
            return Ok(Some(knowledge.clone()));
        }
        // Another replica may have made it since; the embedded store has one owner and answers from memory.
        let known = self.store.generations().await?;
        let Some(generation) = known.into_iter().find(|generation| generation.scope == *scope) else { return Ok(None) };
        let loaded = Arc::new(Knowledge::load(self.store.as_ref(), &generation).await?);
        let mut all = self.knowledge.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(all.entry(scope.clone()).or_insert(loaded).clone()))
    }

    pub(crate) async fn knowledge_or_new(&self, scope: &Scope) -> Result<Arc<Knowledge>, RetrievalError> {
        if let Some(knowledge) = self.knowledge(scope).await? {
            return Ok(knowledge);
        }
        let mut all = self.knowledge.write().unwrap_or_else(PoisonError::into_inner);
        Ok(all.entry(scope.clone()).or_insert_with(|| Arc::new(Knowledge::empty())).clone())
    }

    /// Lets the reranker compute ahead, beside everything else.
    pub(crate) fn prepare_reranker(&self, passages: Vec<RerankPassage>) {
        if let Some(reranker) = self.reranker.clone() {
            tokio::spawn(async move {
                if let Err(error) = reranker.prepare(passages).await {
                    tracing::warn!(%error, "passages could not be prepared for the reranker");
                }
            });
        }
    }

    /// Lets the reranker compute ahead for all stored passages. Returns when all are done.
    ///
    /// # Errors
    /// When the store or the reranker fails.
    pub async fn warm_up(&self) -> Result<(), RetrievalError> {
        crate::tokenize::warm_up();
        let Some(reranker) = &self.reranker else { return Ok(()) };
        let scopes: Vec<Scope> =
            self.knowledge.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for scope in scopes {
            let mut from = None;
            loop {
                let (points, next) = self.store.scroll(&scope, from, 256).await?;
                let passages = points.iter().map(|point| RerankPassage::new(search_text(&point.passage)));
                reranker.prepare(passages.collect()).await?;
                from = next;
                if from.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Searches.
    ///
    /// # Errors
    /// When no leg could search, or the request can never work. A search that worked and found nothing is no error.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchOutcome, RetrievalError> {
        let tuning = self.tuning_of(&request.tenant);
        let CandidateSet { candidates, mut outcome, .. } = self.candidates(request).await?;
        let scored = candidates.into_iter().map(|candidate| {
            let score = tuning.calibration.score(candidate.cosine, candidate.lexical);
            let reranker_score = candidate.raw_rerank.map(|raw| tuning.calibration.reranker_score(raw, score));
            (candidate, score, reranker_score)
        });
        let mut scored: Vec<_> = scored.collect();
        // Reranked ones are the head of the fused order; the sort is stable, so the tail stays as it is.
        let head = scored.iter().take_while(|(_, _, reranked)| reranked.is_some()).count();
        scored[..head].sort_by(|a, b| b.2.unwrap_or_default().total_cmp(&a.2.unwrap_or_default()));
        scored.retain(|(_, score, reranked)| reranked.unwrap_or(*score) >= request.score_threshold);
        scored.truncate(request.top_k);
        let hits = (1..).zip(scored).map(|(rank, (candidate, score, reranker_score))| Hit {
            passage: candidate.point.passage.clone(),
            rank,
            score,
            reranker_score,
            legs: candidate.legs,
        });
        outcome.hits = hits.collect();
        Ok(outcome)
    }

    fn tuning_of(&self, tenant: &TenantId) -> TenantTuning {
        self.tenants.load().get(tenant).map_or_else(|| self.tuning.tenant(tenant), |search| search.tuning)
    }

    /// Runs legs, fusion and reranker, and tells all they said.
    ///
    /// # Errors
    /// As [`Self::search`].
    pub async fn candidates(&self, request: &SearchRequest) -> Result<CandidateSet, RetrievalError> {
        if request.query.trim().is_empty() {
            return Err(RetrievalError::invalid("query", "is empty"));
        }
        if request.legs == LegChoice::Dense && self.queries.is_none() {
            return Err(RetrievalError::invalid("legs", "no embedder is configured, so there is no dense leg"));
        }
        let scope = Scope { tenant: request.tenant.clone(), kb: request.kb.clone() };
        let knowledge = self.knowledge(&scope).await?.filter(|knowledge| !knowledge.is_empty());
        let Some(knowledge) = knowledge else {
            return Err(RetrievalError::NoKnowledgeBase { kb_name: request.kb.to_string() });
        };
        let started = Instant::now();
        let lexical = {
            let tenants = self.tenants.load();
            let none = Expansion::default();
            let expansion = tenants.get(&request.tenant).map_or(&none, |tenant| &tenant.expansion);
            let weight = self.settings.expansion_weight;
            knowledge.with_statistics(|statistics| query_vector(&request.query, statistics, expansion, weight))
        };
        let mut set = self.search_legs(request, &scope, &lexical, started).await?;
        if request.rerank {
            self.rerank(request, &mut set).await;
        }
        for degradation in &set.outcome.degraded {
            metrics::counter!("recast_retrieval_degraded_total", "cause" => format!("{degradation:?}")).increment(1);
        }
        Ok(set)
    }

    async fn search_legs(
        &self,
        request: &SearchRequest,
        scope: &Scope,
        lexical: &LexicalQuery,
        started: Instant,
    ) -> Result<CandidateSet, RetrievalError> {
        let deadline = request.retrieval_deadline;
        // A vector that is late must leave time to finish what the lexical leg found.
        let embed_deadline = started + deadline.saturating_duration_since(started) * 4 / 5;
        let limit = self.settings.candidates_per_leg;
        let mut outcome = SearchOutcome::default();

        let embed = async {
            let queries = self.queries.as_ref().filter(|_| request.legs != LegChoice::Bm25)?;
            let vector = timeout_at(embed_deadline, queries.embed(&request.query)).await;
            Some((vector.unwrap_or(Err(RetrievalError::Timeout("the embedder"))), micros(started)))
        };
        let bm25 = async {
            if request.legs == LegChoice::Dense || lexical.vector.is_empty() {
                return (Ok(Vec::new()), 0);
            }
            let at = Instant::now();
            let leg = self.store.search(scope, &request.filters, LegQuery::Bm25(&lexical.vector), limit);
            let list = timeout_at(deadline, leg).await.unwrap_or(Err(RetrievalError::Timeout("the lexical leg")));
            (list, micros(at))
        };
        // The embedder gets its work first: it has its own threads, while the lexical leg runs right here.
        let (embedded, (bm25, bm25_us)) = tokio::join!(embed, bm25);

        let waited = Instant::now();
        let mut vector = None;
        let dense = match embedded {
            None => None,
            Some((Err(error), embed_us)) => {
                outcome.embed_us = embed_us;
                Some(Err(error))
            }
            Some((Ok(query), embed_us)) => {
                outcome.embed_us = embed_us;
                let leg = self.store.search(scope, &request.filters, LegQuery::Dense(&query), limit);
                let list = timeout_at(deadline, leg).await.unwrap_or(Err(RetrievalError::Timeout("the dense leg")));
                vector = Some(query);
                Some(list)
            }
        };
        let (bm25, dense) = self.usable(request, bm25, dense, &mut outcome)?;

        let weights = self.tuning_of(&request.tenant).fusion;
        let ids = |list: &[Scored]| list.iter().map(|scored| scored.id).collect::<Vec<Uuid>>();
        let (bm25_ids, dense_ids) = (ids(&bm25), ids(&dense));
        // One leg alone keeps its order whatever its weight, also a weight of 0.
        let lists = match (bm25_ids.is_empty(), dense_ids.is_empty()) {
            (false, false) => vec![(weights.bm25, bm25_ids.clone()), (weights.dense, dense_ids.clone())],
            _ => vec![(1.0, bm25_ids.clone()), (1.0, dense_ids.clone())],
        };
        let fused = fuse(&lists, self.settings.rrf_k, limit);
        let fetch = timeout_at(deadline, self.store.fetch(scope, &fused));
        let points = fetch.await.unwrap_or(Err(RetrievalError::Timeout("the vector store")))?;
        let (bm25_ranks, dense_ranks) = (ranks(&bm25), ranks(&dense));
        let candidates = points.into_iter().map(|point| {
            let legs = legs_of(point.id, &bm25_ranks, &dense_ranks);
            let cosine = vector.as_ref().map(|query| match legs.dense {
                Some(leg) => leg.score,
                None => cosine(query, &point.dense),
            });
            let score = legs.bm25.map_or_else(|| lexical.vector.dot(&point.sparse), |leg| leg.score);
            Candidate { legs, cosine, lexical: lexical.similarity(score), raw_rerank: None, point }
        });
        let candidates = candidates.collect();
        outcome.search_us = bm25_us + micros(waited);
        metrics::histogram!("recast_retrieval_seconds", "stage" => "embed").record(outcome.embed_us as f64 / 1e6);
        metrics::histogram!("recast_retrieval_seconds", "stage" => "search").record(outcome.search_us as f64 / 1e6);
        Ok(CandidateSet { bm25: bm25_ids, dense: dense_ids, candidates, outcome })
    }

    /// The lists to go on with. One leg may fail; a search on which no leg worked is an error, never an empty success.
    fn usable(
        &self,
        request: &SearchRequest,
        bm25: Result<Vec<Scored>, RetrievalError>,
        dense: Option<Result<Vec<Scored>, RetrievalError>>,
        outcome: &mut SearchOutcome,
    ) -> Result<(Vec<Scored>, Vec<Scored>), RetrievalError> {
        // A condition that the engine refuses is the caller's mistake, on whichever leg it shows.
        if let Err(error @ RetrievalError::Invalid { .. }) = &bm25 {
            return Err(error.clone());
        }
        match (bm25, dense) {
            (Ok(bm25), Some(Ok(dense))) => Ok((bm25, dense)),
            (Ok(bm25), None) => Ok((bm25, Vec::new())),
            (Ok(bm25), Some(Err(error))) if request.legs == LegChoice::Both => {
                tracing::warn!(%error, "the dense leg is left out");
                outcome.degraded.push(Degradation::DenseUnavailable);
                Ok((bm25, Vec::new()))
            }
            (Err(error), Some(Ok(dense))) => {
                tracing::warn!(%error, "the lexical leg is left out");
                outcome.degraded.push(Degradation::Bm25Unavailable);
                Ok((Vec::new(), dense))
            }
            (_, Some(Err(error))) | (Err(error), None) => Err(error),
        }
    }

    async fn rerank(&self, request: &SearchRequest, set: &mut CandidateSet) {
        let Some(reranker) = self.reranker.as_ref().filter(|_| !set.candidates.is_empty()) else { return };
        let started = Instant::now();
        let head = self.settings.reranked.min(set.candidates.len());
        let passages: Vec<RerankPassage> = set.candidates[..head]
            .iter()
            .map(|candidate| RerankPassage::new(search_text(&candidate.point.passage)))
            .collect();
        let deadline = request.rerank_deadline;
        let scores = timeout_at(deadline, reranker.score(&request.query, &passages, deadline)).await;
        match scores {
            Ok(Ok(scores)) if scores.len() == head && scores.iter().all(|score| score.is_some_and(f32::is_finite)) => {
                for (candidate, score) in set.candidates.iter_mut().zip(scores) {
                    candidate.raw_rerank = score;
                }
            }
            // Some passages without a score: the order of all stays the fused one, as their scores do not compare.
            Ok(Ok(scores)) if scores.len() == head && scores.contains(&None) => {
                set.outcome.degraded.push(Degradation::RerankTimeout);
            }
            Err(_) => set.outcome.degraded.push(Degradation::RerankTimeout),
            Ok(Ok(_)) => {
                tracing::warn!("the reranker gave scores that are not numbers, or too few");
                set.outcome.degraded.push(Degradation::RerankFailed);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the reranker failed");
                let timeout = matches!(error, RetrievalError::Timeout(_));
                set.outcome.degraded.push(if timeout { Degradation::RerankTimeout } else { Degradation::RerankFailed });
            }
        }
        set.outcome.rerank_us = micros(started);
        metrics::histogram!("recast_retrieval_seconds", "stage" => "rerank").record(set.outcome.rerank_us as f64 / 1e6);
    }
}
