//! The experiments in force, ready for look-up by tenant; a snapshot that never changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use recast_domain::{Assignment, EpisodeId, ShadowKind, TenantId};
use recast_experiments::{Definition, Kind, Unit, assign, control_run, sampled};
use tokio_util::sync::CancellationToken;

use crate::arena::arms::{ArmRewriter, Arms};
use crate::arena::guard::Window;
use crate::arena::live::{Act, Part, Sample, seed};
use recast_rewriter::Ladder;

/// One stored experiment, as it stands.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The latest version.
    pub version: u32,
    /// What it says.
    pub definition: Definition,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Who made it.
    pub author: String,
    /// Why.
    pub note: String,
}

impl Entry {
    /// Whether it may run, apart from its times.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.definition.enabled && !self.definition.killed
    }
}

/// An arm, ready to run.
pub struct RunningArm {
    /// Its name.
    pub name: String,
    /// Who rewrites for it.
    pub rewriter: ArmRewriter,
    /// The same with stand-ins, for live answers.
    pub ladder: Option<Arc<Ladder>>,
    /// Its newest answers.
    pub window: Arc<Window>,
}

/// An experiment, ready to run.
pub struct Running {
    /// What it says.
    pub definition: Definition,
    /// Its version.
    pub version: u32,
    /// Cancelled when it is stopped.
    pub stop: CancellationToken,
    /// Its arms, in the order of the definition.
    pub arms: Vec<RunningArm>,
    /// The position of the control arm.
    pub control: usize,
}

impl Running {
    /// `None` where the definition has something that this gateway cannot run: it was checked when it was saved, but the
    /// settings may have changed since, and an arm that another one answers for would spoil the comparison.
    fn new(entry: &Entry, arms: &Arms, window: usize, stop: CancellationToken) -> Option<Self> {
        let definition = entry.definition.clone();
        let ready = definition.arms.iter().map(|arm| {
            let live = definition.kind != Kind::Shadow || arm.name == definition.control;
            if arms.problem(&arm.rewriter, live).is_some() {
                return None;
            }
            let rewriter = ArmRewriter::parse(&arm.rewriter)?;
            let (name, ladder) = (arm.name.clone(), arms.live(rewriter));
            Some(RunningArm { name, rewriter, ladder, window: Arc::new(Window::new(window)) })
        });
        let ready: Vec<_> = ready.collect::<Option<_>>()?;
        let control = ready.iter().position(|arm| arm.name == definition.control)?;
        let least = if definition.kind == Kind::Shadow { 1 } else { 2 };
        (ready.len() >= least).then_some(Self { definition, version: entry.version, stop, arms: ready, control })
    }

    /// What an episode says of this experiment.
    #[must_use]
    pub fn assignment(&self, arm: &str) -> Assignment {
        Assignment { experiment: self.definition.id.clone(), version: self.version, arm: arm.to_owned() }
    }

    /// The control arm and the first other one.
    #[must_use]
    pub fn pair(&self) -> [&RunningArm; 2] {
        [&self.arms[self.control], &self.arms[self.treatment()]]
    }

    /// The first arm that is not the control.
    fn treatment(&self) -> usize {
        (0..self.arms.len()).find(|index| *index != self.control).unwrap_or(self.control)
    }

    fn act(&self, tenant: &TenantId, id: EpisodeId, unit: &str) -> Act {
        match self.definition.kind {
            Kind::Split => Act::One { arm: self.position(assign(&self.definition, unit)), sample: None },
            Kind::Interleave => Act::Interleave { seed: seed(id) },
            Kind::Shadow => {
                let key = id.to_string();
                let sample = sampled(&self.definition, tenant.as_str(), &key).then(|| {
                    if control_run(&self.definition, &key) {
                        Sample { arm: self.control, kind: ShadowKind::Control }
                    } else {
                        Sample { arm: self.treatment(), kind: ShadowKind::Treatment }
                    }
                });
                Act::One { arm: self.control, sample }
            }
        }
    }

    fn position(&self, name: &str) -> usize {
        self.arms.iter().position(|arm| arm.name == name).unwrap_or(self.control)
    }
}

/// Who asks, as far as assignment goes.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The asker.
    pub user: Option<&'a str>,
    /// The conversation.
    pub conversation: Option<&'a str>,
}

/// All experiments, and those that may run by tenant.
#[derive(Default)]
pub struct Table {
    /// By id.
    pub all: BTreeMap<String, Entry>,
    by_tenant: HashMap<TenantId, Vec<Arc<Running>>>,
}

impl Table {
    /// A table of these. What runs on unchanged is taken over from `before`; what ends is told to stop.
    #[must_use]
    pub fn new(all: BTreeMap<String, Entry>, arms: &Arms, window: usize, before: &Self) -> Self {
        let mut by_tenant: HashMap<TenantId, Vec<Arc<Running>>> = HashMap::new();
        let mut going_on = Vec::new();
        for (id, entry) in all.iter().filter(|(_, entry)| entry.is_on()) {
            let old = before.running(id);
            let running = match old {
                Some(old) if old.version == entry.version => Some(Arc::clone(old)),
                // Runs that wait belong to the older version and still end well, unless it is stopped.
                old => {
                    let stop = old.map(|old| old.stop.clone()).unwrap_or_default();
                    Running::new(entry, arms, window, stop).map(Arc::new)
                }
            };
            let Some(running) = running else {
                tracing::error!(experiment = %id, "a stored experiment cannot run here; it is left alone");
                continue;
            };
            going_on.push(id.clone());
            for tenant in running.definition.tenants.iter().filter_map(|tenant| tenant.parse().ok()) {
                by_tenant.entry(tenant).or_default().push(Arc::clone(&running));
            }
        }
        for old in before.by_tenant.values().flatten() {
            if !going_on.contains(&old.definition.id) {
                old.stop.cancel();
            }
        }
        Self { all, by_tenant }
    }

    /// Everything that may run, each once.
    pub fn all_running(&self) -> impl Iterator<Item = &Arc<Running>> {
        let mut seen = BTreeSet::new();
        self.by_tenant.values().flatten().filter(move |running| seen.insert(running.definition.id.as_str()))
    }

    fn running(&self, id: &str) -> Option<&Arc<Running>> {
        self.by_tenant.values().flatten().find(|running| running.definition.id == id)
    }

    /// Whose traffic any experiment is or was about.
    #[must_use]
    pub fn tenants(&self) -> BTreeSet<TenantId> {
        let named = self.all.values().flat_map(|entry| &entry.definition.tenants);
        named.filter_map(|tenant| tenant.parse().ok()).collect()
    }

    /// Whether nothing may run.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.by_tenant.is_empty()
    }

    /// The part that a request has in an experiment of its tenant, if it has one. Costs a look-up where there is none.
    #[must_use]
    pub fn part(&self, tenant: &TenantId, id: EpisodeId, asker: Asker<'_>, now_ms: i64) -> Option<Part> {
        let running = self.by_tenant.get(tenant)?.iter().find(|running| running.definition.is_active(now_ms))?;
        let unit = match running.definition.unit {
            Unit::User => asker.user.map(|user| format!("user/{tenant}/{user}")),
            Unit::Conversation => asker.conversation.map(|one| format!("conversation/{tenant}/{one}")),
            Unit::Request => None,
        };
        let act = running.act(tenant, id, &unit.unwrap_or_else(|| format!("request/{id}")));
        Some(Part { running: Arc::clone(running), act })
    }
}
