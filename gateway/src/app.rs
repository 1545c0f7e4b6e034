//! What all routes share, and the life of a gateway: open, serve, drain, close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::FutureExt;
use http::HeaderMap;
use recast_config::{Settings, TenantProfile};
use recast_domain::TenantId;
use recast_episodes::{EpisodeStore, Place};
use recast_retrieval::Retriever;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::arena::{Arena, guard_loop};
use crate::auth;
use crate::error::GatewayError;
use crate::exports::Exports;
use crate::idempotency::Idempotency;
use crate::keys::{Caller, KeyFile, KeyRing, Scope};
use crate::limits::Limits;
use crate::parts::Parts;
use crate::pipeline::Pipeline;
use crate::policies::{Policies, drive};
use crate::problem::Problem;
use crate::scoring::Scoring;
use crate::serve::{Phase, ServeLimits, accept_loop, bind};
use crate::tenants::Tenants;
use crate::{router, telemetry};

/// How long a connection without a request in flight may linger once shutdown has begun: replies that leave in this
/// time tell their clients to connect elsewhere, so that no request meets a connection that is just being closed.
pub(crate) const FAREWELL: Duration = Duration::from_millis(250);

/// How long shutdown waits until every shadow run has its end in the store.
const SHADOW_END: Duration = Duration::from_secs(5);

/// What all routes share.
pub struct App {
    pub(crate) settings: Settings,
    pub(crate) parts: Parts,
    pub(crate) episodes: Arc<EpisodeStore>,
    pub(crate) exports: Exports,
    pub(crate) arena: Arc<Arena>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) scoring: Scoring,
    pub(crate) limits: Arc<Limits>,
    pub(crate) idempotency: Idempotency,
    pub(crate) tasks: TaskTracker,
    keys: ArcSwap<KeyRing>,
    phase: watch::Sender<Phase>,
}

impl App {
    /// Who is calling, if they may do this.
    pub(crate) fn caller(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, Problem> {
        auth::caller(&self.keys.load(), headers, scope)
    }

    /// The profile of a caller's tenant.
    pub(crate) fn profile(&self, tenant: &TenantId) -> Result<Arc<TenantProfile>, Problem> {
        self.parts.tenants.get(tenant).ok_or_else(|| {
            let detail = "the tenant of this key is not configured here: add its folder to tenants.dir";
            Problem::new(http::StatusCode::FORBIDDEN, "tenant_unknown", detail)
        })
    }

    /// Empties every cache that may hold what a user said. What is asked next costs as much as after a start.
    pub(crate) fn forget(&self) {
        self.parts.pipeline.ladder().forget();
        self.idempotency.forget();
        self.scoring.scorer.forget();
    }

    /// How far shutdown has come, to be watched.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        *self.phase.borrow() > Phase::Open
    }

    /// Readiness turns false, no new connection is accepted.
    pub(crate) fn begin_shutdown(&self) {
        self.phase.send_replace(Phase::Closing);
    }
}

/// An opened gateway that does not listen yet.
pub struct Gateway {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    key_file: KeyFile,
    shadowing: JoinHandle<()>,
}

impl Gateway {
    /// Binds the address and opens every part.
    ///
    /// # Errors
    /// The first thing that cannot be opened, with what to do about it.
    pub async fn open(settings: Settings) -> Result<Self, GatewayError> {
        telemetry::prometheus();
        // The address first: a second gateway by mistake should not load its models to find out.
        let listen = settings.server.listen;
        let listener = bind(listen).map_err(GatewayError::listen(listen))?;
        let address = listener.local_addr().map_err(GatewayError::listen(listen))?;
        let parts = Parts::open(&settings).await?;
        let episodes = Arc::new(EpisodeStore::open(Place::of(&settings)?, &settings.episodes)?);
        episodes.keep_for_days(parts.retention());
        let key_file = KeyFile::new(settings.keys_file());
        let ring = KeyRing::new(key_file.list()?);
        let limits = Arc::new(Limits::new(&settings.admission));
        let scoring = Scoring::open(&settings, &parts, Arc::clone(&episodes), Arc::clone(&limits)).await?;
        let judging = Arc::clone(&scoring.judging);
        let policies = Policies::open(&settings, &parts.pipeline).await?;
        let with = (Arc::clone(&episodes), Arc::clone(&policies));
        let (arena, shadowing) = Arena::open(&settings, &parts, with, Arc::clone(&limits), judging).await?;
        let phase = watch::channel(Phase::Open).0;
        let app = App {
            exports: Exports::new(settings.state.dir.join("exports"), phase.subscribe()),
            arena: Arc::new(arena),
            policies,
            scoring,
            limits,
            idempotency: Idempotency::new(&settings.admission),
            tasks: TaskTracker::new(),
            keys: ArcSwap::from_pointee(ring),
            phase,
            settings,
            parts,
            episodes,
        };
        Ok(Self { app: Arc::new(app), listener, address, key_file, shadowing })
    }

    #[cfg(test)]
    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// Opens and serves.
    ///
    /// # Errors
    /// As [`Gateway::open`].
    pub async fn start(settings: Settings) -> Result<RunningGateway, GatewayError> {
        Ok(Self::open(settings).await?.serve())
    }

    /// Where it will listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The one pipeline.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.app.parts.pipeline
    }

    /// The knowledge bases.
    #[must_use]
    pub fn retriever(&self) -> &Arc<Retriever> {
        self.app.parts.pipeline.retriever()
    }

    /// The tenants in force.
    #[must_use]
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.app.parts.tenants
    }

    /// The key file.
    #[must_use]
    pub fn keys(&self) -> &KeyFile {
        &self.key_file
    }

    /// Accepts requests from now on.
    #[must_use]
    pub fn serve(self) -> RunningGateway {
        let Self { app, listener, address, key_file, shadowing } = self;
        // Keys that were made since the gateway was opened work from the first request on.
        load_keys(&app, &key_file);
        if app.keys.load().is_empty() {
            tracing::warn!("there are no API keys: every request is refused until one is created");
        }
        let limits = ServeLimits {
            max_connections: app.settings.server.max_connections,
            header_timeout: Duration::from_millis(app.settings.server.header_timeout_ms),
        };
        let connections = TaskTracker::new();
        let router = router::router(Arc::clone(&app));
        let accepting = tokio::spawn(accept_loop(listener, router, limits, app.phase.subscribe(), connections.clone()));
        let reloading = tokio::spawn(reload_loop(Arc::clone(&app), key_file));
        let every = Duration::from_secs(app.settings.experiments.guard_seconds);
        let guarding = tokio::spawn(guard_loop(Arc::clone(&app.arena), every));
        let watched = Arc::clone(&app.policies);
        let trials = drive(
            Arc::clone(&app.policies),
            app.parts.pipeline.with_deadlines(patient(&app.settings)),
            app.scoring.scorer.weights().clone(),
            Arc::clone(&app.limits),
            app.settings.shadow.busy_above,
        );
        let promoting = tokio::spawn(async move { tokio::join!(watched.watch(), trials) }.map(drop));
        RunningGateway { app, address, accepting, reloading, guarding, promoting, shadowing, connections }
    }
}

/// Deadlines of comparisons behind the reply: those of a shadow's rewriter.
fn patient(settings: &Settings) -> recast_config::DeadlineSettings {
    let deadline = settings.shadow.deadline_ms;
    recast_config::DeadlineSettings { request_ms: deadline, rewrite_ms: deadline, ..settings.deadlines.clone() }
}

fn load_keys(app: &App, file: &KeyFile) {
    match file.list() {
        Ok(records) => app.keys.store(Arc::new(KeyRing::new(records))),
        Err(error) => {
            metrics::counter!("recast_key_reload_failures_total").increment(1);
            tracing::error!(%error, "the key file cannot be read; the last good keys stay in force");
        }
    }
}

/// Picks up changed tenants and keys, and does the small chores.
async fn reload_loop(app: Arc<App>, file: KeyFile) {
    let mut ticks = tokio::time::interval(Duration::from_secs(app.settings.tenants.reload_seconds));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        ticks.tick().await;
        let (shared, keys, before) = (Arc::clone(&app), file.clone(), seen);
        // Looking at files may block.
        let looked = tokio::task::spawn_blocking(move || {
            let now = keys.stamp();
            if now != before {
                load_keys(&shared, &keys);
            }
            if shared.parts.reload_tenants() {
                shared.episodes.keep_for_days(shared.parts.retention());
            }
            telemetry::prometheus().run_upkeep();
            now
        });
        if let Ok(now) = looked.await {
            seen = now;
        }
        app.limits.forget_idle();
    }
}

/// A gateway that serves.
pub struct RunningGateway {
    app: Arc<App>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
    reloading: JoinHandle<()>,
    guarding: JoinHandle<()>,
    promoting: JoinHandle<()>,
    shadowing: JoinHandle<()>,
    connections: TaskTracker,
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Whether every request in flight was answered in time.
    pub drained: bool,
}

impl RunningGateway {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The one pipeline.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.app.parts.pipeline
    }

    /// The tenants in force.
    #[must_use]
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.app.parts.tenants
    }

    /// Stops without breaking off a request:
    /// 1. readiness turns false and no new connection is accepted;
    /// 2. replies tell their clients to close; connections without a request in flight are closed;
    /// 3. requests in flight get `server.drain_seconds`;
    /// 4. shadow runs that wait or run are ended as dropped;
    /// 5. episodes are flushed;
    /// 6. the vector store is flushed.
    ///
    /// # Errors
    /// When the vector store could not be flushed.
    pub async fn shutdown(self) -> Result<ShutdownReport, GatewayError> {
        let Self { app, accepting, reloading, guarding, promoting, shadowing, connections, .. } = self;
        let drain = Duration::from_secs(app.settings.server.drain_seconds);
        let end = tokio::time::Instant::now() + drain;
        tracing::info!("shutdown 1/6: no new connections");
        app.begin_shutdown();
        reloading.abort();
        guarding.abort();
        promoting.abort();
        // A loop that panicked accepts nothing either.
        let _ = accepting.await;
        connections.close();

        tracing::info!(connections = connections.len(), "shutdown 2/6: saying farewell");
        let _ = tokio::time::timeout(FAREWELL.min(drain), connections.wait()).await;
        app.phase.send_replace(Phase::Draining);

        tracing::info!(connections = connections.len(), "shutdown 3/6: draining");
        app.tasks.close();
        let drained = tokio::time::timeout_at(end, async {
            connections.wait().await;
            app.tasks.wait().await;
        });
        let drained = drained.await.is_ok();
        if !drained {
            tracing::warn!(connections = connections.len(), "the drain time is over; what is left is broken off");
        }

        tracing::info!(waiting = app.arena.shadow().waiting(), "shutdown 4/6: ending shadow runs");
        app.arena.shadow().close();
        if tokio::time::timeout(SHADOW_END, shadowing).await.is_err() {
            tracing::warn!("some shadow runs are left open; the next start ends them");
        }
        if tokio::time::timeout(SHADOW_END, app.scoring.judging.close()).await.is_err() {
            tracing::warn!("a verdict could not be stored in time");
        }
        tracing::info!("shutdown 5/6: flushing episodes");
        app.episodes.close().await;
        tracing::info!("shutdown 6/6: flushing the vector store");
        app.parts.pipeline.retriever().flush().await?;
        Ok(ShutdownReport { drained })
    }
}
