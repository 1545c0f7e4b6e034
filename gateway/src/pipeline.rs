//! The one pipeline: rewrite, retrieve, rerank. Serving, batch tests and offline evaluation all run this.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use recast_config::{DeadlineSettings, TenantProfile};
use recast_domain::{Conversation, ErrorKind, KbName, PolicyId, Rewrite, RewriteSource, Timings, Trace};
use recast_retrieval::store::Filter;
use recast_retrieval::{LegChoice, RetrievalError, Retriever, SearchRequest};
use recast_rewriter::{Ladder, RewriteError, RewriteLimits, RewriteRequest, Rewriter, Rewritten, checked_rewrite};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

/// Where the query comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuerySource {
    /// The ladder: the configured rewriter and what stands in for it.
    Rewriter {
        /// Whether an earlier rewrite of the same conversation may be reused.
        cache: bool,
    },
    /// The user's own query.
    PassThrough,
    /// This text, as it is.
    Given(String),
}

/// What one run is to do, apart from the conversation.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The knowledge base to search.
    pub kb_name: KbName,
    /// Where the query comes from.
    pub query: QuerySource,
    /// Hits wanted.
    pub top_k: usize,
    /// Relevance below which hits are left out, 0 to 1.
    pub score_threshold: f32,
    /// Metadata that a hit must have.
    pub filters: Vec<Filter>,
    /// Which legs search.
    pub legs: LegChoice,
    /// Whether the first hits are reranked.
    pub rerank: bool,
    /// Bound of the whole run, below the one of the settings; `None` leaves that one.
    pub budget: Option<Duration>,
    /// Seed of the rewriter's sampling.
    pub seed: u64,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            kb_name: KbName::default(),
            query: QuerySource::Rewriter { cache: true },
            top_k: 5,
            score_threshold: 0.0,
            filters: Vec::new(),
            legs: LegChoice::Both,
            rerank: true,
            budget: None,
            seed: 0,
        }
    }
}

/// A run, with the facts that an episode keeps and a trace does not.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was done and found.
    pub trace: Trace,
    /// Hash of the prompt's inputs; empty where no prompt was rendered.
    pub prompt_hash: String,
}

/// Why nothing was found out. The rewrite is kept: a caller may search elsewhere with it.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct PipelineError {
    /// What went wrong.
    pub source: RetrievalError,
    /// The query that was to be searched.
    pub rewrite: Rewrite,
}

impl PipelineError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.source.kind()
    }
}

/// Why an arm has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// Its rewriter has none.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// Nothing could be searched.
    #[error(transparent)]
    Search(#[from] PipelineError),
}

/// When a run started: for its deadlines, and for what it took.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    start: Instant,
    wall: Clock,
}

impl Clocks {
    fn start() -> Self {
        Self { start: Instant::now(), wall: Clock::now() }
    }
}

/// Rewriter and retriever, with their deadlines.
#[derive(Clone)]
pub struct Pipeline {
    ladder: Arc<Ladder>,
    retriever: Arc<Retriever>,
    deadlines: DeadlineSettings,
}

impl Pipeline {
    /// A pipeline over these parts.
    #[must_use]
    pub fn new(ladder: Arc<Ladder>, retriever: Arc<Retriever>, deadlines: DeadlineSettings) -> Self {
        Self { ladder, retriever, deadlines }
    }

    /// The same parts with other deadlines; offline runs have more time than users.
    #[must_use]
    pub fn with_deadlines(&self, deadlines: DeadlineSettings) -> Self {
        Self { deadlines, ..self.clone() }
    }

    /// The same parts with another ladder; arms of experiments have their own.
    #[must_use]
    pub fn with_ladder(&self, ladder: Arc<Ladder>) -> Self {
        Self { ladder, ..self.clone() }
    }

    /// The deadlines of a run.
    #[must_use]
    pub fn deadlines(&self) -> &DeadlineSettings {
        &self.deadlines
    }

    /// The retriever.
    #[must_use]
    pub fn retriever(&self) -> &Arc<Retriever> {
        &self.retriever
    }

    /// The rewriter's ladder.
    #[must_use]
    pub fn ladder(&self) -> &Arc<Ladder> {
        &self.ladder
    }

    /// Runs once.
    ///
    /// # Errors
    /// When nothing could be searched. A rewriter that fails or is late degrades the run instead.
    pub async fn run(
        &self,
        tenant: &Arc<TenantProfile>,
        conversation: &Conversation,
        options: RunOptions,
    ) -> Result<Run, PipelineError> {
        let clock = Clocks::start();
        let (end, reserve) = self.bounds(clock, &options);
        // However late the rewriter is, enough of a short budget is left to search the user's own query.
        let query = self.query(tenant, conversation, &options, end - reserve).await;
        self.search(tenant, options, query, clock, end).await
    }

    /// Runs once with this rewriter and no stand-in for it, whatever `options.query` says: shadow runs measure one
    /// rewriter, not the ladder.
    ///
    /// # Errors
    /// When the rewriter fails, is late or writes no query, and when nothing could be searched.
    pub async fn run_with(
        &self,
        rewriter: &dyn Rewriter,
        tenant: &Arc<TenantProfile>,
        conversation: &Conversation,
        options: RunOptions,
    ) -> Result<Run, ArmError> {
        let clock = Clocks::start();
        let (end, reserve) = self.bounds(clock, &options);
        let request =
            RewriteRequest { tenant: Arc::clone(tenant), conversation: conversation.clone(), seed: options.seed };
        let deadline = (end - reserve).min(clock.start + self.deadlines.rewrite());
        let span = tracing::debug_span!("rewrite", gen_ai.operation.name = "text_completion");
        let written = timeout_at(deadline, rewriter.rewrite(&request, deadline)).instrument(span).await;
        let mut rewrite = written.unwrap_or(Err(RewriteError::Timeout))?;
        rewrite.text = checked_rewrite(&conversation.query, &rewrite.text).map_err(RewriteError::from)?.to_owned();
        let query = Rewritten { rewrite, prompt_hash: rewriter.prompt_hash(tenant), degraded: Vec::new() };
        Ok(self.search(tenant, options, query, clock, end).await?)
    }

    /// When a run must be over, and how much of it is kept for the search.
    fn bounds(&self, clock: Clocks, options: &RunOptions) -> (Instant, Duration) {
        let bound = options.budget.map_or(self.deadlines.request(), |budget| budget.min(self.deadlines.request()));
        (clock.start + bound, self.deadlines.retrieval().min(bound / 2))
    }

    /// Everything behind the rewriter.
    async fn search(
        &self,
        tenant: &TenantProfile,
        options: RunOptions,
        query: Rewritten,
        clock: Clocks,
        end: Instant,
    ) -> Result<Run, PipelineError> {
        let Rewritten { rewrite, prompt_hash, mut degraded } = query;
        let rewritten = clock.wall.elapsed();

        // Each stage has its own time, and no stage outlives the request.
        let retrieval_deadline = end.min(Instant::now() + self.deadlines.retrieval());
        let rerank_deadline = end.min(retrieval_deadline + self.deadlines.rerank());
        let span = tracing::debug_span!(
            "retrieval",
            otel.name = format_args!("retrieval {}", options.kb_name),
            gen_ai.operation.name = "retrieval",
            gen_ai.data_source.id = %options.kb_name,
            gen_ai.request.top_k = options.top_k,
        );
        let request = SearchRequest {
            tenant: tenant.id.clone(),
            kb: options.kb_name,
            query: rewrite.text.clone(),
            top_k: options.top_k,
            score_threshold: options.score_threshold,
            filters: options.filters,
            legs: options.legs,
            rerank: options.rerank,
            retrieval_deadline,
            rerank_deadline,
        };
        let outcome = match self.retriever.search(&request).instrument(span).await {
            Ok(outcome) => outcome,
            Err(source) => return Err(PipelineError { source, rewrite }),
        };
        degraded.extend(outcome.degraded);
        let timings = Timings {
            rewrite_us: micros(rewritten),
            embed_us: outcome.embed_us,
            search_us: outcome.search_us,
            rerank_us: outcome.rerank_us,
            total_us: micros(clock.wall.elapsed()),
        };
        Ok(Run { trace: Trace { rewrite, hits: outcome.hits, timings, degraded }, prompt_hash })
    }

    async fn query(
        &self,
        tenant: &Arc<TenantProfile>,
        conversation: &Conversation,
        options: &RunOptions,
        end: Instant,
    ) -> Rewritten {
        let plain = |text: &str, source, policy| Rewritten {
            rewrite: Rewrite::plain(text, source, policy),
            prompt_hash: String::new(),
            degraded: Vec::new(),
        };
        match &options.query {
            QuerySource::Given(text) => plain(text, RewriteSource::Given, PolicyId::given()),
            QuerySource::PassThrough => {
                plain(&conversation.query, RewriteSource::PassThrough, PolicyId::pass_through())
            }
            QuerySource::Rewriter { cache } => {
                let request = RewriteRequest {
                    tenant: Arc::clone(tenant),
                    conversation: conversation.clone(),
                    seed: options.seed,
                };
                let span = tracing::debug_span!("rewrite", gen_ai.operation.name = "text_completion");
                let limits = RewriteLimits::starting(Instant::now(), &self.deadlines).within(end);
                let limits = RewriteLimits { use_cache: *cache, ..limits };
                self.ladder.rewrite(&request, &limits).instrument(span).await
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
