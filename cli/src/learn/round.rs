//! A round: collect, learn, and offer what was learned as a candidate. Its folder holds all it needs to go on after a
//! kill.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use recast_config::{LearnerSettings, Settings};
use recast_domain::TenantId;
use recast_learner::rl::{
    Algorithm, EntropyControl, KlEstimator, KlTerm, MonitorSettings, Progress, Question, QuestionPool, RemoteWorld,
    RlRun, RlSettings, train_policy,
};
use recast_model::{ModelFolder, PromptInput, PromptRenderer};
use recast_policies::{BaseModel, PolicyStore, Scope};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::candidate;
use super::questions::{self, Asked};
use super::status::{self, Status, Switch};
use crate::out;

const QUESTIONS: &str = "questions.jsonl";
const START: &str = "start.json";
const ENDED: &str = "ended.json";
/// Rounds whose folders are kept.
const KEEP: usize = 10;
const DAY_MS: i64 = 86_400_000;

/// Who scores.
pub struct World {
    /// A key of the scope train for each tenant.
    pub keys: BTreeMap<TenantId, SecretString>,
    /// The gateway.
    pub url: String,
}

/// How a round ended.
pub enum Ended {
    /// There is not enough to learn from yet.
    TooFew {
        /// Questions found.
        found: usize,
    },
    /// The learner was switched off.
    Off,
    /// It went to its end, or a monitor ended it; in words.
    Done(String),
    /// Broken off because too little could be scored, with the reason; it goes on later.
    Paused(String),
}

/// What a round began with; it goes on with the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Start {
    parent: Option<recast_domain::PolicyId>,
    from: Option<PathBuf>,
}

/// Milliseconds since the Unix epoch, UTC.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Begins a round, or goes on with one that was broken off.
///
/// # Errors
/// When the model, the stores or the disk are at fault; a reward that cannot be had is none, and pauses the round.
pub fn run(settings: &Settings, world: &World, switch: &Switch) -> anyhow::Result<Ended> {
    let learner = &settings.learner;
    let scope = if learner.tenant.is_empty() { Scope::Everyone } else { learner.tenant.parse()? };
    let folder = ModelFolder::open(&settings.rewriter.model)?;
    let store = PolicyStore::open(&settings.policies_dir(), BaseModel::read(&settings.rewriter.model)?)?;
    let rounds = settings.learner_dir().join("rounds").join(scope.as_str());
    std::fs::create_dir_all(&rounds).with_context(|| rounds.display().to_string())?;
    let dir = match unfinished(&rounds)? {
        Some(dir) => dir,
        None => match begin(settings, world, &store, &scope, &rounds)? {
            Ok(dir) => dir,
            Err(found) => return Ok(Ended::TooFew { found }),
        },
    };
    let start: Start = serde_json::from_slice(&std::fs::read(dir.join(START))?)
        .with_context(|| dir.join(START).display().to_string())?;
    let asked = questions::read(&dir.join(QUESTIONS))?;
    let (held, learned): (Vec<Asked>, Vec<Asked>) = asked.into_iter().partition(|one| one.held_out);
    let renderer = folder.renderer()?;
    let pools = (pool(settings, &learned, &renderer, learner.seed)?, pool(settings, &held, &renderer, learner.seed)?);
    let environment = RemoteWorld::new(&world.url, world.keys.clone(), Duration::from_secs(learner.patience_seconds))?;
    let run = RlRun {
        out: dir.clone(),
        lora: (learner.rank, 2.0 * learner.rank as f64),
        from: start.from.clone(),
        steps: learner.steps,
        every: learner.every,
        resume: true,
        most_copying_loss: candidate::MOST_COPYING_LOSS,
        settings: rl(learner, &renderer)?,
        limits: MonitorSettings::default(),
    };
    let mut watch = Watch::new(settings, switch, &dir, learned.len());
    let report = train_policy(&folder, &run, (&pools.0, &pools.1, None), &environment, &mut |event| watch.see(&event))?;
    watch.stop_reason()?;
    if watch.off {
        return Ok(Ended::Off);
    }
    // a pause is no end: the same step is made again once the judge answers
    if !report.finished && report.alarms.last().is_some_and(|alarm| alarm.contains(": unscored: ")) {
        let reason = report.alarms.last().cloned().unwrap_or_default();
        status::write(&settings.learner_dir(), &Status::waiting(&reason))?;
        return Ok(Ended::Paused(format!("{}: paused: {reason}", dir.display())));
    }
    let candidate = candidate::Offer {
        store: &store,
        scope: &scope,
        folder: &folder,
        start: (start.parent.as_ref(), start.from.as_deref()),
        held: (&held, &pools.1),
        learned: &learned,
        environment: &environment,
        settings: learner,
    };
    let said = candidate.make(&dir, &report)?;
    std::fs::write(dir.join(ENDED), &said)?;
    status::write(
        &settings.learner_dir(),
        &Status { state: "ended".to_owned(), reason: said.clone(), ..Status::default() },
    )?;
    prune(&rounds)?;
    Ok(Ended::Done(said))
}

/// The newest round without an end.
fn unfinished(rounds: &Path) -> anyhow::Result<Option<PathBuf>> {
    Ok(list(rounds)?.pop().filter(|dir| dir.join(START).exists() && !dir.join(ENDED).exists()))
}

fn list(rounds: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(rounds)? {
        let path = entry?.path();
        if path.is_dir() {
            dirs.push(path);
        }
    }
    dirs.sort();
    Ok(dirs)
}

fn prune(rounds: &Path) -> anyhow::Result<()> {
    let dirs = list(rounds)?;
    for old in &dirs[..dirs.len().saturating_sub(KEEP)] {
        std::fs::remove_dir_all(old).with_context(|| old.display().to_string())?;
    }
    Ok(())
}

/// A new round's folder, or how few questions there are.
fn begin(
    settings: &Settings,
    world: &World,
    store: &PolicyStore,
    scope: &Scope,
    rounds: &Path,
) -> anyhow::Result<Result<PathBuf, usize>> {
    let tenants: Vec<TenantId> = match scope {
        Scope::Tenant(tenant) => vec![tenant.clone()],
        Scope::Everyone => world.keys.keys().cloned().collect(),
    };
    let from_ms = now_ms() - i64::from(settings.learner.days_back) * DAY_MS;
    let asked = questions::collect(settings, &tenants, from_ms)?;
    let both = asked.iter().any(|one| one.held_out) && asked.iter().any(|one| !one.held_out);
    if asked.len() < settings.learner.min_questions || !both {
        return Ok(Err(asked.len()));
    }
    let active = store.load_active(scope)?;
    let dir = rounds.join(format!("{:015}", now_ms()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    questions::keep(&dir.join(QUESTIONS), &asked)?;
    let start = Start {
        parent: active.as_ref().map(|active| active.manifest.policy.clone()),
        from: active.map(|active| active.dir),
    };
    // last: a round without it has not begun
    std::fs::write(dir.join(START), serde_json::to_vec_pretty(&start)?)?;
    Ok(Ok(dir))
}

fn pool(settings: &Settings, asked: &[Asked], renderer: &PromptRenderer, seed: u64) -> anyhow::Result<QuestionPool> {
    let profiles = questions::profiles(settings)?;
    let mut questions = Vec::with_capacity(asked.len());
    for one in asked {
        let system_prompt = profiles.get(&one.tenant).map_or("", |profile| profile.system_prompt.as_str());
        let input = PromptInput { tenant: one.tenant.as_str(), system_prompt, conversation: &one.conversation };
        questions.push(Question { id: one.id.clone(), ids: renderer.render(&input)?.ids });
    }
    Ok(QuestionPool::new(questions, renderer.clone(), seed)?)
}

fn rl(learner: &LearnerSettings, renderer: &PromptRenderer) -> anyhow::Result<RlSettings> {
    let Some(algorithm) = Algorithm::of(&learner.algorithm) else {
        let known: Vec<&str> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
        bail!("learner.algorithm {:?} is not known: choose one of {}", learner.algorithm, known.join(", "));
    };
    let mut rl = RlSettings::of(algorithm, renderer.settings().max_new_tokens, renderer.end());
    (rl.questions, rl.group, rl.seed) = (learner.questions, learner.group, learner.seed);
    rl.learning_rate = learner.learning_rate;
    let in_reward = rl.critic.is_some();
    let estimator = if in_reward { KlEstimator::K1 } else { KlEstimator::K3 };
    rl.kl = (learner.kl > 0.0).then_some(KlTerm { estimator, weight: learner.kl, in_reward });
    if learner.entropy > 0.0 {
        rl.entropy = EntropyControl::Adaptive { weight: 0.0, target: learner.entropy, step: 0.002 };
    }
    Ok(rl)
}

/// Looks at each step: tells where the round is, and ends it where it must end.
struct Watch<'a> {
    settings: &'a Settings,
    switch: &'a Switch,
    status: Status,
    off: bool,
    too_large: Option<u64>,
    failed: Option<anyhow::Error>,
}

impl<'a> Watch<'a> {
    fn new(settings: &'a Settings, switch: &'a Switch, dir: &Path, questions: usize) -> Self {
        let status = Status {
            state: "learning".to_owned(),
            round: dir.display().to_string(),
            steps: settings.learner.steps,
            questions,
            ..Status::default()
        };
        Self { settings, switch, status, off: false, too_large: None, failed: None }
    }

    fn see(&mut self, event: &Progress<'_>) -> ControlFlow<()> {
        if let Progress::Step(step) = event {
            self.status.step = step.metrics.step + 1;
            self.status.reason = step.alarm.as_ref().map(|alarm| alarm.reason.clone()).unwrap_or_default();
            self.status.metrics = Some(step.metrics.clone());
        }
        if let Progress::Looked(look) = event {
            let reward = look.evaluation.reward;
            out::error(&format!("step {}: reward on held-out questions {reward:.4}", look.step));
        }
        if let Err(error) = status::write(&self.settings.learner_dir(), &self.status) {
            self.failed = Some(error);
            return ControlFlow::Break(());
        }
        let used = resident_mb();
        if used > self.settings.learner.memory_mb {
            self.too_large = Some(used);
            return ControlFlow::Break(());
        }
        self.off = self.switch.why_off().is_some();
        if self.off { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn stop_reason(&mut self) -> anyhow::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match self.too_large {
            Some(used) => {
                bail!("the learner uses {used} MiB, learner.memory_mb allows {}", self.settings.learner.memory_mb)
            }
            None => Ok(()),
        }
    }
}

/// Resident memory of this process in MiB; 0 where the system does not say.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
