//! Policies in service: which version answers whom, and how another takes its place.
//!
//! A version is an engine with its adapter merged. The pointer in the policy store says which one serves a tenant (its
//! own, else everyone's, else the model of the settings); a candidate at the gate serves the share of sessions that the
//! gate allows. All of it is one snapshot behind one pointer: a request takes it once and stays with it, so a swap
//! between two of its steps cannot be seen, and an engine ends with its last request.

mod driver;
mod trial;
mod version;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use recast_config::{RewriterKind, RewriterSettings, Settings};
use recast_domain::{PolicyId, TenantId};
use recast_policies::{BaseModel, Canary, GateRules, PolicyStore, Scope, Stage, VerifiedPolicy, serves};
use recast_rewriter::{Ladder, Rewriter};
use tokio::sync::Mutex;

pub use driver::drive;
pub use trial::{Answered, Trials, is_own};
pub use version::Version;

use crate::error::GatewayError;
use crate::pipeline::Pipeline;

/// How long a version that failed to load is left alone.
const RETRY: Duration = Duration::from_secs(60);
const REASON_CHARS: usize = 300;

/// What was loaded or failed to, beside what serves.
#[derive(Default)]
struct Loading {
    /// Identities of versions that failed to load, when, and why.
    failed: HashMap<String, (Instant, String)>,
    /// A version that is about to be made the active one.
    ready: Option<(Scope, Arc<Version>)>,
}

/// What serves, as one snapshot.
#[derive(Default)]
struct Served {
    active: HashMap<Scope, Arc<Version>>,
    candidates: HashMap<Scope, Arc<Candidate>>,
    /// What could not be served, and why.
    problems: Vec<(Scope, String)>,
    /// Gates whose candidate does not load, or does not rewrite the trial, with the reason.
    faults: Vec<(Scope, String)>,
}

/// A version at the gate.
pub struct Candidate {
    /// The version.
    pub version: Arc<Version>,
    /// What it is compared with; the model of the settings where there is none.
    pub incumbent: Option<Arc<Version>>,
    /// Where it stands: in the shadow, serving a share, or promoted and watched.
    stage: Stage,
    /// Whom it serves, while it serves a share.
    canary: Option<Canary>,
}

impl Candidate {
    fn answers(&self, tenant: &TenantId, session: &str) -> bool {
        let shared = self.canary.as_ref().is_some_and(|canary| serves(canary, tenant, session));
        shared || self.stage == Stage::Watched
    }
}

/// The policies of this gateway.
pub struct Policies {
    store: Option<PolicyStore>,
    rules: GateRules,
    rewriter: RewriterSettings,
    base: Arc<Ladder>,
    served: ArcSwap<Served>,
    loading: Mutex<Loading>,
    every: Duration,
    trials: Trials,
}

/// The version that a request stays with.
pub struct Chosen {
    /// Its ladder.
    pub ladder: Arc<Ladder>,
    /// The candidate that is tried on this request's tenant, and whether it is the one that answers.
    pub trial: Option<(Scope, Arc<Candidate>, bool)>,
}

impl Policies {
    /// Opens the store and loads what it says is active. Without a local model there is nothing to adapt.
    ///
    /// # Errors
    /// When the store cannot be opened, or the rules of the gate cannot work. A policy that does not load is no error:
    /// what served before it does, and it is said.
    pub async fn open(settings: &Settings, pipeline: &Pipeline) -> Result<Arc<Self>, GatewayError> {
        let wanted = &settings.policies;
        let rules: GateRules = toml::from_str(&wanted.rules)
            .map_err(|error| GatewayError::Policies(format!("policies.rules: {error}")))?;
        rules.check().map_err(|error| GatewayError::Policies(format!("policies.rules: {error}")))?;
        let local = settings.rewriter.kind == RewriterKind::Local && settings.rewriter.model.is_dir();
        let store = if wanted.enabled && local {
            let (model, root) = (settings.rewriter.model.clone(), settings.policies_dir());
            // every byte of the weights is hashed
            let opened = tokio::task::spawn_blocking(move || PolicyStore::open(&root, BaseModel::read(&model)?)).await;
            let opened = opened.map_err(|error| GatewayError::Policies(error.to_string()))?;
            Some(opened.map_err(|error| GatewayError::Policies(error.to_string()))?)
        } else {
            None
        };
        let policies = Arc::new(Self {
            store,
            rules,
            rewriter: settings.rewriter.clone(),
            base: Arc::clone(pipeline.ladder()),
            served: ArcSwap::default(),
            loading: Mutex::default(),
            every: Duration::from_millis(wanted.poll_ms),
            trials: Trials::new(wanted.queue, wanted.sample_rate),
        });
        policies.refresh().await;
        Ok(policies)
    }

    /// The store, where there are policies at all.
    #[must_use]
    pub fn store(&self) -> Option<&PolicyStore> {
        self.store.as_ref()
    }

    /// What the gate goes by.
    #[must_use]
    pub fn rules(&self) -> &GateRules {
        &self.rules
    }

    /// The answers that candidates are tried on.
    #[must_use]
    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    /// How many things could not be served.
    #[must_use]
    pub fn problems(&self) -> usize {
        self.served.load().problems.len()
    }

    /// What of a scope, or of everyone's, could not be served, and why; empty where all is well.
    #[must_use]
    pub fn problems_of(&self, scope: &Scope) -> Vec<String> {
        let served = self.served.load();
        let own = served.problems.iter().filter(|(of, _)| of == scope || *of == Scope::Everyone);
        own.map(|(_, problem)| problem.clone()).collect()
    }

    /// Gates whose candidate cannot be tried, with the reason: a fault that ends it.
    #[must_use]
    pub fn faults(&self) -> Vec<(Scope, String)> {
        self.served.load().faults.clone()
    }

    /// The version that answers this session. The snapshot is taken once.
    #[must_use]
    pub fn choose(&self, tenant: &TenantId, session: &str) -> Chosen {
        let served = self.served.load();
        let own = Scope::from(tenant.clone());
        let scope = [own, Scope::Everyone]
            .into_iter()
            .find(|scope| served.active.contains_key(scope) || served.candidates.contains_key(scope));
        let active = scope.as_ref().and_then(|scope| served.active.get(scope));
        let active = active.or_else(|| served.active.get(&Scope::Everyone));
        let incumbent = active.map_or(&self.base, |version| &version.ladder);
        let candidate = scope.and_then(|scope| served.candidates.get(&scope).map(|one| (scope, Arc::clone(one))));
        let Some((scope, candidate)) = candidate else { return Chosen { ladder: Arc::clone(incumbent), trial: None } };
        let answers = candidate.answers(tenant, session);
        let ladder = if answers { &candidate.version.ladder } else { incumbent };
        Chosen { ladder: Arc::clone(ladder), trial: Some((scope, Arc::clone(&candidate), answers)) }
    }

    /// The ladder that serves a tenant when no candidate is tried, for runs beside the live ones.
    #[must_use]
    pub fn incumbent(&self, tenant: &TenantId) -> Arc<Ladder> {
        let served = self.served.load();
        let active = served.active.get(&Scope::from(tenant.clone())).or_else(|| served.active.get(&Scope::Everyone));
        active.map_or_else(|| Arc::clone(&self.base), |version| Arc::clone(&version.ladder))
    }

    /// The engine that a candidate is compared with.
    #[must_use]
    pub fn compared(&self, candidate: &Candidate) -> Option<Arc<dyn Rewriter>> {
        candidate.incumbent.as_ref().map_or_else(|| self.base.local(), |version| Some(Arc::clone(&version.rewriter)))
    }

    /// What serves each scope, by name.
    #[must_use]
    pub fn serving(&self) -> Vec<(Scope, PolicyId)> {
        let served = self.served.load();
        let mut all: Vec<(Scope, PolicyId)> =
            served.active.iter().map(|(scope, version)| (scope.clone(), version.policy.clone())).collect();
        all.sort();
        all
    }

    /// Looks at the store now and then, until it is dropped.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(self.every).await;
            self.refresh().await;
        }
    }

    /// Loads and tries a version before the pointer is moved to it; the next [`Self::refresh`] takes it over.
    ///
    /// # Errors
    /// In words, when it is not sound, does not load, or fails the trial.
    pub async fn prepare(&self, scope: &Scope, policy: &PolicyId) -> Result<(), String> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut loading = self.loading.lock().await;
        // a person asks: what failed a moment ago may be mended
        loading.failed.clear();
        let before = self.served.load_full();
        let version = self.version(store, scope, policy, (&before, &mut loading)).await?;
        loading.ready = Some((scope.clone(), version));
        Ok(())
    }

    /// Brings what serves in line with the store. Engines are loaded beside the ones that serve; whoever has one keeps
    /// it to the end of the request.
    pub async fn refresh(&self) {
        let Some(store) = &self.store else { return };
        let mut loading = self.loading.lock().await;
        loading.failed.retain(|_, (then, _)| then.elapsed() < RETRY);
        let before = self.served.load_full();
        let mut next = Served::default();
        let mut scopes = on_disk(store, PolicyStore::scopes).await.unwrap_or_default();
        if !scopes.contains(&Scope::Everyone) {
            scopes.push(Scope::Everyone);
        }
        for scope in scopes {
            match self.active(store, &scope, &before, &mut loading).await {
                Ok(Some(version)) => {
                    next.active.insert(scope.clone(), version);
                }
                Ok(None) => {}
                Err((problem, fallback)) => {
                    next.active.extend(fallback.map(|version| (scope.clone(), version)));
                    next.problems.push((scope.clone(), problem));
                }
            }
            let active = next.active.get(&scope).cloned();
            match self.candidate(store, &scope, active, (&before, &mut loading)).await {
                Ok(candidate) => next.candidates.extend(candidate.map(|one| (scope, Arc::new(one)))),
                Err(problem) => {
                    next.faults.push((scope.clone(), problem.clone()));
                    next.problems.push((scope, problem));
                }
            }
        }
        loading.ready = None;
        for (scope, problem) in next.problems.iter().filter(|problem| !before.problems.contains(problem)) {
            metrics::counter!("recast_policy_load_failures_total").increment(1);
            tracing::error!(%scope, problem, "a policy cannot be served; what served before it does");
        }
        for (scope, version) in &next.active {
            if before.active.get(scope).is_none_or(|old| old.identity != version.identity) {
                metrics::counter!("recast_policy_swaps_total").increment(1);
                tracing::info!(%scope, policy = %version.policy, "this policy serves from now on");
            }
        }
        self.served.store(Arc::new(next));
    }

    /// The active version of a scope, loaded anew only where it is another than before. Where it cannot be served, what
    /// serves in its place comes with the reason.
    async fn active(
        &self,
        store: &PolicyStore,
        scope: &Scope,
        before: &Served,
        loading: &mut Loading,
    ) -> Result<Option<Arc<Version>>, (String, Option<Arc<Version>>)> {
        let kept = || before.active.get(scope).cloned();
        let of = scope.clone();
        let active = on_disk(store, move |store| store.active(&of)).await;
        let active = active.map_err(|error| (format!("{scope}: {error}"), kept()))?;
        let Some(current) = active.current else { return Ok(None) };
        let known = before.all(scope).chain(loading.ready(scope)).find(|version| version.identity == current.identity);
        if let Some(version) = known {
            return Ok(Some(Arc::clone(version)));
        }
        let of = scope.clone();
        let failure = match on_disk(store, move |store| store.load_active(&of)).await {
            Ok(Some(policy)) => match self.load(&policy, loading).await {
                Ok(version) => return Ok(Some(version)),
                Err(error) => error,
            },
            Ok(None) => return Ok(None),
            Err(error) => error,
        };
        let problem = format!("{scope}: {} is not served: {failure}", current.policy);
        if let Some(version) = kept() {
            return Err((problem, Some(version)));
        }
        // after a restart nothing is loaded yet: the one before it, if it is sound
        let Some(previous) = active.previous else { return Err((problem, None)) };
        let of = scope.clone();
        let fallback = match on_disk(store, move |store| store.load(&of, &previous.policy)).await {
            Ok(policy) if policy.identity == previous.identity => self.load(&policy, loading).await.ok(),
            _ => None,
        };
        Err((problem, fallback))
    }

    /// The candidate at a scope's gate, while it is in the shadow, serves a share, or is watched.
    async fn candidate(
        &self,
        store: &PolicyStore,
        scope: &Scope,
        active: Option<Arc<Version>>,
        (before, loading): (&Served, &mut Loading),
    ) -> Result<Option<Candidate>, String> {
        let of = scope.clone();
        let gate = on_disk(store, move |store| store.gate(&of)).await.map_err(|error| format!("{scope}: {error}"))?;
        let tried = |stage| matches!(stage, Stage::Shadow | Stage::Canary { .. } | Stage::Watched);
        let Some(gate) = gate.filter(|gate| tried(gate.stage())) else { return Ok(None) };
        let (stage, canary) = (gate.stage(), gate.canary());
        if stage != Stage::Watched {
            let version = self.version(store, scope, gate.policy(), (before, loading)).await?;
            return Ok(Some(Candidate { version, incumbent: active, stage, canary }));
        }
        // promoted: it is the active one, and is held against the one before it, which stays loaded
        let Some(version) = active.filter(|version| &version.policy == gate.policy()) else { return Ok(None) };
        let of = scope.clone();
        let active =
            on_disk(store, move |store| store.active(&of)).await.map_err(|error| format!("{scope}: {error}"))?;
        let incumbent = match active.previous {
            Some(previous) => Some(self.version(store, scope, &previous.policy, (before, loading)).await?),
            None => None,
        };
        Ok(Some(Candidate { version, incumbent, stage, canary }))
    }

    async fn version(
        &self,
        store: &PolicyStore,
        scope: &Scope,
        policy: &PolicyId,
        (before, loading): (&Served, &mut Loading),
    ) -> Result<Arc<Version>, String> {
        // a name is used once and a policy never changes: what is loaded under it need not be read and hashed again
        let mut all = before.all(scope).chain(loading.ready(scope));
        let known = all.find(|version| version.policy == *policy).cloned();
        drop(all);
        if let Some(version) = known {
            return Ok(version);
        }
        let words = |error: String| format!("{scope}: {policy} is not tried: {error}");
        let (of, name) = (scope.clone(), policy.clone());
        let verified = on_disk(store, move |store| store.load(&of, &name)).await.map_err(words)?;
        self.load(&verified, loading).await.map_err(words)
    }

    /// Loads a version; one that failed is left alone for a while.
    async fn load(&self, policy: &VerifiedPolicy, loading: &mut Loading) -> Result<Arc<Version>, String> {
        if let Some((_, why)) = loading.failed.get(&policy.identity) {
            return Err(why.clone());
        }
        let loaded = Version::load(&self.rewriter, &self.base, policy).await;
        loaded.map(Arc::new).map_err(|why| {
            // an engine's error may carry a trace of its own inside
            let why: String = why.lines().next().unwrap_or_default().chars().take(REASON_CHARS).collect();
            loading.failed.insert(policy.identity.clone(), (Instant::now(), why.clone()));
            why
        })
    }
}

impl Served {
    /// Engines of a scope that are loaded already, in whatever role.
    fn all(&self, scope: &Scope) -> impl Iterator<Item = &Arc<Version>> {
        let candidate = self.candidates.get(scope);
        let tried = candidate.into_iter().flat_map(|one| [Some(&one.version), one.incumbent.as_ref()]).flatten();
        self.active.get(scope).into_iter().chain(tried)
    }
}

impl Loading {
    fn ready(&self, scope: &Scope) -> impl Iterator<Item = &Arc<Version>> {
        self.ready.iter().filter(move |(of, _)| of == scope).map(|(_, version)| version)
    }
}

/// Looks at the store where that may block: a large adapter takes a while to hash.
async fn on_disk<T: Send + 'static>(
    store: &PolicyStore,
    look: impl FnOnce(&PolicyStore) -> recast_policies::Result<T> + Send + 'static,
) -> Result<T, String> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || look(&store)).await {
        Ok(looked) => looked.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
