//! A model of ours behind the contract of the 32B rewrite service: a server of its own, beside the gateway or without one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use recast_config::{LimitSettings, RetrievalSettings, ServerSettings, Settings};
use recast_rewriter::{LocalRewriter, Rewriter};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::app::FAREWELL;
use crate::error::GatewayError;
use crate::request_id::envelope;
use crate::routes::rewrite;
use crate::serve::{Phase, ServeLimits, accept_loop, bind};
use crate::telemetry;
use crate::tenants::Tenants;

/// What the routes of the service share.
pub struct Service {
    pub(crate) rewriter: Arc<dyn Rewriter>,
    pub(crate) tenants: Arc<Tenants>,
    pub(crate) limits: LimitSettings,
    pub(crate) retrieval: RetrievalSettings,
    pub(crate) server: ServerSettings,
    /// Callers must know it; `None` lets everybody in.
    pub(crate) api_key: Option<SecretString>,
    /// Questions that may wait or run.
    pub(crate) places: Semaphore,
    pub(crate) n_places: usize,
    /// Bound of one question, waiting included.
    pub(crate) timeout: Duration,
    phase: watch::Sender<Phase>,
}

impl Service {
    pub(crate) fn is_shutting_down(&self) -> bool {
        *self.phase.borrow() > Phase::Open
    }

    /// Questions that wait or run.
    pub(crate) fn waiting(&self) -> usize {
        self.n_places.saturating_sub(self.places.available_permits())
    }
}

/// A running service: `POST /api/rewrite_query`, `/livez`, `/readyz`, `/metrics`.
pub struct RewriteService {
    service: Arc<Service>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
    reloading: JoinHandle<()>,
    connections: TaskTracker,
}

impl RewriteService {
    /// Loads the model of `settings.rewriter` and serves it on `server.listen`. A question may take
    /// `rewriter.remote.timeout_ms`, the patience of those who ask such a service; `rewriter.queue` of them may wait.
    ///
    /// # Errors
    /// When the address, the tenants or the model cannot be used; the message says what to do.
    pub async fn start(settings: &Settings, api_key: Option<SecretString>) -> Result<Self, GatewayError> {
        // The address first: it is cheap, and a model is not.
        let listener = listen(settings)?;
        let rewriter = Arc::new(LocalRewriter::load(&settings.rewriter).await?);
        Self::over(settings, api_key, rewriter, listener)
    }

    /// Serves a rewriter that is loaded already.
    ///
    /// # Errors
    /// When the address or the tenants cannot be used.
    pub fn with(
        settings: &Settings,
        api_key: Option<SecretString>,
        rewriter: Arc<dyn Rewriter>,
    ) -> Result<Self, GatewayError> {
        Self::over(settings, api_key, rewriter, listen(settings)?)
    }

    fn over(
        settings: &Settings,
        api_key: Option<SecretString>,
        rewriter: Arc<dyn Rewriter>,
        listener: TcpListener,
    ) -> Result<Self, GatewayError> {
        telemetry::prometheus();
        let address = listener.local_addr().map_err(GatewayError::listen(settings.server.listen))?;
        let n_places = settings.rewriter.queue.clamp(1, Semaphore::MAX_PERMITS);
        let service = Arc::new(Service {
            rewriter,
            tenants: Arc::new(Tenants::open(&settings.tenants.dir)?),
            limits: settings.limits.clone(),
            retrieval: settings.retrieval.clone(),
            server: settings.server.clone(),
            api_key,
            places: Semaphore::new(n_places),
            n_places,
            timeout: Duration::from_millis(settings.rewriter.remote.timeout_ms),
            phase: watch::channel(Phase::Open).0,
        });
        let limits = ServeLimits {
            max_connections: settings.server.max_connections,
            header_timeout: Duration::from_millis(settings.server.header_timeout_ms),
        };
        let connections = TaskTracker::new();
        let (phase, router) = (service.phase.subscribe(), router(Arc::clone(&service)));
        let accepting = tokio::spawn(accept_loop(listener, router, limits, phase, connections.clone()));
        let every = Duration::from_secs(settings.tenants.reload_seconds);
        let reloading = tokio::spawn(reload_loop(Arc::clone(&service), every));
        Ok(Self { service, address, accepting, reloading, connections })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops without breaking off a question: no new connections, then `server.drain_seconds` for those in flight.
    /// Returns whether all were answered.
    pub async fn shutdown(self) -> bool {
        let drain = Duration::from_secs(self.service.server.drain_seconds);
        let end = tokio::time::Instant::now() + drain;
        self.service.phase.send_replace(Phase::Closing);
        self.reloading.abort();
        // A loop that panicked accepts nothing either.
        let _ = self.accepting.await;
        self.connections.close();
        let _ = tokio::time::timeout(FAREWELL.min(drain), self.connections.wait()).await;
        self.service.phase.send_replace(Phase::Draining);
        tokio::time::timeout_at(end, self.connections.wait()).await.is_ok()
    }
}

fn listen(settings: &Settings) -> Result<TcpListener, GatewayError> {
    bind(settings.server.listen).map_err(GatewayError::listen(settings.server.listen))
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/api/rewrite_query", post(rewrite::rewrite_query))
        .route("/livez", get(rewrite::livez))
        .route("/readyz", get(rewrite::readyz))
        .route("/health", get(rewrite::readyz))
        .route("/metrics", get(rewrite::metrics))
        .fallback(crate::router::no_route)
        .method_not_allowed_fallback(crate::router::wrong_method)
        .layer(from_fn_with_state(service.phase.subscribe(), envelope))
        .with_state(service)
}

/// Picks up changed tenants.
async fn reload_loop(service: Arc<Service>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let tenants = Arc::clone(&service.tenants);
        // Looking at files may block; one look that panicked does not end the others.
        let _ = tokio::task::spawn_blocking(move || {
            tenants.reload();
            telemetry::prometheus().run_upkeep();
        })
        .await;
    }
}
