//! Experiments on live traffic: who takes part, what runs in the shadow, and who may change it.
//!
//! Definitions live in the episode store with versions; what is in force is a snapshot that requests look up. The
//! definitions of the configuration are laid over the stored ones at start, where the configuration has changed since.

mod arms;
mod change;
mod guard;
mod heard;
mod known;
mod live;
mod refused;
mod report;
mod runner;
mod shadow;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use recast_config::Settings;
use recast_domain::{EpisodeId, TenantId};
use recast_episodes::EpisodeStore;
use tokio::task::JoinHandle;

use crate::error::GatewayError;
use crate::keys::now_ms;
use crate::limits::Limits;
use crate::parts::Parts;
use crate::policies::Policies;
use crate::scoring::Judging;
use crate::tenants::Tenants;

pub use arms::{Arms, missing_services};
pub use change::{Change, ChangeError};
pub use known::{KnownQuestions, label_facts, query_type};
pub use live::{Answered, Part, seed};
pub use report::report_input;
pub use shadow::Shadow;
pub use table::{Asker, Entry, Table};

/// Who made a change that nobody asked for through the API.
pub const BY_CONFIGURATION: &str = "configuration";
/// The author of a change that a guardrail made.
pub const BY_GUARDRAIL: &str = "guardrail";

/// The experiments of a gateway.
pub struct Arena {
    shadow: Shadow,
    table: ArcSwap<Table>,
    /// Held while a definition is checked and saved, so that two changes cannot pass each other.
    changing: tokio::sync::Mutex<()>,
    arms: Arc<Arms>,
    episodes: Arc<EpisodeStore>,
    tenants: Arc<Tenants>,
    window: usize,
    /// Where the tenants' folders are.
    folder: PathBuf,
}

impl Arena {
    /// Reads the stored definitions, lays those of the configuration over them, and starts the shadow's worker.
    ///
    /// # Errors
    /// When a definition of the configuration is wrong (all problems are named), a service's address is not usable, or
    /// the store cannot be read or written.
    pub async fn open(
        settings: &Settings,
        parts: &Parts,
        (episodes, policies): (Arc<EpisodeStore>, Arc<Policies>),
        limits: Arc<Limits>,
        judging: Arc<Judging>,
    ) -> Result<(Self, JoinHandle<()>), GatewayError> {
        let arms = Arc::new(Arms::open(settings, policies)?);
        let (shadow, worker) =
            Shadow::start(&settings.shadow, &parts.pipeline, Arc::clone(&arms), Arc::clone(&episodes), limits, judging);
        let arena = Self {
            shadow,
            table: ArcSwap::default(),
            changing: tokio::sync::Mutex::default(),
            arms,
            episodes,
            tenants: Arc::clone(&parts.tenants),
            window: settings.experiments.guard_window,
            folder: settings.tenants.dir.clone(),
        };
        arena.load().await?;
        refused::settle_refused(&arena.episodes, arena.table().tenants()).await?;
        arena.configure(&settings.experiments.define).await?;
        Ok((arena, worker))
    }

    /// The part that a request has in an experiment, if it has one.
    #[must_use]
    pub fn part(&self, tenant: &TenantId, id: EpisodeId, asker: Asker<'_>) -> Option<Part> {
        let table = self.table.load();
        if table.is_idle() {
            return None;
        }
        table.part(tenant, id, asker, i64::try_from(now_ms()).unwrap_or(i64::MAX))
    }

    /// All experiments as they stand.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// The shadow's queue.
    #[must_use]
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// The store behind it.
    pub(crate) fn episodes(&self) -> &Arc<EpisodeStore> {
        &self.episodes
    }
}

/// Looks at the guardrails again and again.
pub async fn guard_loop(arena: Arc<Arena>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        arena.look_at_guardrails().await;
    }
}
