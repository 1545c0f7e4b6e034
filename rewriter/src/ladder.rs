//! The order in which rewriting degrades: kept rewrite of the same policy, local model, kept rewrite of any policy,
//! 32B service, the user's own query.
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use recast_config::{DeadlineSettings, RemoteRewriterSettings, RewriterKind, RewriterSettings};
use recast_domain::{Degradation, Rewrite, RewriteSource};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::cache::Question;
use crate::validate::checked_rewrite;
use crate::{LocalRewriter, PassThrough, RemoteRewriter, Result, RewriteCache, RewriteError, RewriteRequest, Rewriter};

/// Rewrites, and never fails.
pub struct Ladder {
    local: RwLock<Option<Arc<dyn Rewriter>>>,
    remote: Option<Arc<dyn Rewriter>>,
    cache: RewriteCache,
    queue: Arc<Semaphore>,
    places: usize,
}

/// How long each rung may take, and whether kept rewrites may be used.
#[derive(Debug, Clone, Copy)]
pub struct RewriteLimits {
    /// When the local model must have answered, queueing included.
    pub local: Instant,
    /// How long the 32B service may take once it is asked.
    pub remote: Duration,
    /// When everything must be over.
    pub request: Instant,
    /// False where every question must be rewritten anew, as in evaluations.
    pub use_cache: bool,
}

/// What the ladder came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    /// The query to search for.
    pub rewrite: Rewrite,
    /// What did not work as meant, in the order it happened.
    pub degraded: Vec<Degradation>,
    /// Hash of the prompt's fixed part; empty where no local model wrote the rewrite.
    pub prompt_hash: String,
}

impl RewriteLimits {
    /// The limits of the settings for a request that starts now.
    #[must_use]
    pub fn starting(now: Instant, settings: &DeadlineSettings) -> Self {
        let local = now + settings.rewrite();
        Self { local, remote: settings.remote_rewrite(), request: now + settings.request(), use_cache: true }
    }

    /// The same limits, none later than `end`.
    #[must_use]
    pub fn within(self, end: Instant) -> Self {
        Self { local: self.local.min(end), request: self.request.min(end), ..self }
    }
}

impl Ladder {
    /// A ladder of the given rungs. `places` requests may run or wait at the local rewriter; more are degraded at once.
    #[must_use]
    pub fn new(
        local: Option<Arc<dyn Rewriter>>,
        remote: Option<Arc<dyn Rewriter>>,
        cache: RewriteCache,
        places: usize,
    ) -> Self {
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self { local: RwLock::new(local), remote, cache, queue: Arc::new(Semaphore::new(places)), places }
    }

    /// The ladder that the settings ask for; loads the local model where they name one.
    ///
    /// # Errors
    /// When the local model cannot be loaded, or the 32B service has no usable address.
    pub async fn from_settings(settings: &RewriterSettings) -> Result<Self> {
        let local: Option<Arc<dyn Rewriter>> = match settings.kind {
            RewriterKind::Local => Some(Arc::new(LocalRewriter::load(settings).await?)),
            RewriterKind::Remote | RewriterKind::PassThrough => None,
        };
        let remote = match settings.kind {
            RewriterKind::PassThrough => None,
            RewriterKind::Remote => Some(remote(&settings.remote)?),
            RewriterKind::Local if settings.remote.url.is_empty() => None,
            RewriterKind::Local => Some(remote(&settings.remote)?),
        };
        let cache = RewriteCache::new(settings.cache_entries, Duration::from_secs(settings.cache_seconds));
        Ok(Self::new(local, remote, cache, settings.queue))
    }

    /// Forgets every rewrite that was kept, also for those beside this one.
    pub fn forget(&self) {
        self.cache.clear();
    }

    /// The same ladder with another local rewriter: one queue, one cache and one service are shared, so that versions
    /// that serve beside each other do not take twice the places.
    #[must_use]
    pub fn beside(&self, local: Arc<dyn Rewriter>) -> Self {
        Self {
            local: RwLock::new(Some(local)),
            remote: self.remote.clone(),
            cache: self.cache.clone(),
            queue: Arc::clone(&self.queue),
            places: self.places,
        }
    }

    /// The local rewriter, where there is one.
    #[must_use]
    pub fn local(&self) -> Option<Arc<dyn Rewriter>> {
        self.local.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another local rewriter in place; requests on their way finish on the older one.
    pub fn set_local(&self, local: Option<Arc<dyn Rewriter>>) {
        *self.local.write().unwrap_or_else(PoisonError::into_inner) = local;
    }

    /// The 32B service, where it is configured.
    #[must_use]
    pub fn remote(&self) -> Option<&Arc<dyn Rewriter>> {
        self.remote.as_ref()
    }

    /// Requests that run or wait at the local rewriter.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.places - self.queue.available_permits()
    }

    /// Rewrites a question by the first rung that can.
    pub async fn rewrite(&self, request: &RewriteRequest, limits: &RewriteLimits) -> Rewritten {
        let rewritten = self.climb(request, limits).await;
        metrics::counter!("recast_rewrites_total", "source" => source_label(rewritten.rewrite.source)).increment(1);
        rewritten
    }

    async fn climb(&self, request: &RewriteRequest, limits: &RewriteLimits) -> Rewritten {
        let mut degraded = Vec::new();
        if let Some(local) = self.local() {
            let prompt_hash = local.prompt_hash(&request.tenant);
            let question =
                Question { tenant: &request.tenant.id, prompt_hash: &prompt_hash, conversation: &request.conversation };
            match self.by_local(&*local, request, question, limits).await {
                Ok(rewrite) => return Rewritten { rewrite, degraded, prompt_hash },
                Err(error) => {
                    metrics::counter!("recast_local_rewrite_failures_total", "outcome" => error.outcome()).increment(1);
                    tracing::warn!(error = %error, "local rewrite failed");
                    degraded.push(degradation(&error));
                }
            }
            if limits.use_cache
                && let Some(rewrite) = self.cache.stand_in(question).await
            {
                return Rewritten { rewrite, degraded, prompt_hash };
            }
        }
        if let Some(remote) = &self.remote {
            match self.by_remote(&**remote, request, limits).await {
                Ok(rewrite) => return Rewritten { rewrite, degraded, prompt_hash: String::new() },
                Err(error) => {
                    tracing::warn!(error = %error, "remote rewrite failed");
                    degraded.push(Degradation::RemoteRewriteFailed);
                }
            }
        }
        Rewritten { rewrite: PassThrough::of(request), degraded, prompt_hash: String::new() }
    }

    async fn by_local(
        &self,
        local: &dyn Rewriter,
        request: &RewriteRequest,
        question: Question<'_>,
        limits: &RewriteLimits,
    ) -> Result<Rewrite, Arc<RewriteError>> {
        let deadline = limits.local.min(limits.request);
        let fresh = async {
            let _place = self.queue.try_acquire().map_err(|_| RewriteError::Overloaded { places: self.places })?;
            checked(request, local.rewrite(request, deadline).await?)
        };
        let timely = async {
            if limits.use_cache {
                self.cache.get_or(question, &local.version(), fresh).await
            } else {
                fresh.await.map_err(Arc::new)
            }
        };
        timeout_at(deadline, timely).await.unwrap_or_else(|_| Err(Arc::new(RewriteError::Timeout)))
    }

    async fn by_remote(
        &self,
        remote: &dyn Rewriter,
        request: &RewriteRequest,
        limits: &RewriteLimits,
    ) -> Result<Rewrite> {
        let deadline = limits.request.min(Instant::now() + limits.remote);
        let rewrite = timeout_at(deadline, remote.rewrite(request, deadline)).await;
        checked(request, rewrite.unwrap_or(Err(RewriteError::Timeout))?)
    }
}

fn remote(settings: &RemoteRewriterSettings) -> Result<Arc<dyn Rewriter>> {
    Ok(Arc::new(RemoteRewriter::new(settings)?))
}

fn checked(request: &RewriteRequest, mut rewrite: Rewrite) -> Result<Rewrite> {
    let text = checked_rewrite(&request.conversation.query, &rewrite.text)?;
    if text.len() != rewrite.text.len() {
        rewrite.text = text.to_owned();
    }
    Ok(rewrite)
}

fn degradation(error: &RewriteError) -> Degradation {
    match error {
        RewriteError::Overloaded { .. } => Degradation::RewriteOverloaded,
        RewriteError::Timeout => Degradation::RewriteTimeout,
        RewriteError::Invalid(_) => Degradation::RewriteInvalid,
        _ => Degradation::RewriteFailed,
    }
}

fn source_label(source: RewriteSource) -> &'static str {
    match source {
        RewriteSource::Local => "local",
        RewriteSource::Cached => "cached",
        RewriteSource::Remote => "remote",
        RewriteSource::PassThrough => "pass_through",
        RewriteSource::Given => "given",
    }
}
