//! The loop: draw, score, compare, update, look.
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use recast_domain::Environment;
use recast_model::{AdamW, AdamWConfig, Qwen3, read_safetensors, write_safetensors};
use serde::{Deserialize, Serialize};

use super::critic::Critic;
use super::entropy::EntropyControl;
use super::metrics::StepMetrics;
use super::monitors::{Action, Alarm, MonitorSettings, Monitors};
use super::prepare::{of_teaching_groups, prepare};
use super::sample::{Questions, Sample, roll};
use super::settings::RlSettings;
use super::update::{Dials, passes};
use crate::checkpoint::{Checkpoints, put, weights_of, write_flushed};
use crate::error::{LearnError, Result};

const STATE: &str = "state.json";
const WEIGHTS: &str = "weights.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const CRITIC: &str = "critic.safetensors";
const CRITIC_OPTIMIZER: &str = "critic-optimizer.safetensors";

/// A policy that learns from rewards.
///
/// What a step draws follows from the seed and the number of the step, so that a run that goes on from a checkpoint
/// makes the very steps it would have made.
pub struct Learner {
    model: Qwen3,
    reference: Option<Qwen3>,
    critic: Option<Critic>,
    optimizer: AdamW,
    settings: RlSettings,
    limits: MonitorSettings,
    state: State,
}

/// What a checkpoint says beside weights and moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    fingerprint: String,
    step: u64,
    entropy: EntropyControl,
    last_entropy: Option<f64>,
    monitors: Monitors,
    stale_total: u64,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Its figures.
    pub metrics: StepMetrics,
    /// What went wrong, if anything did.
    pub alarm: Option<Alarm>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// Figures of the steps of this part of the run.
    pub steps: Vec<StepMetrics>,
    /// Everything that went wrong, with the number of the step.
    pub alarms: Vec<(u64, Alarm)>,
    /// Whether all steps were made.
    pub finished: bool,
}

impl Learner {
    /// A learner over a network's variables (all weights, or those of its adapter). The reference is what the policy is
    /// held near: for an adapter the network without it, which shares its weights.
    ///
    /// # Errors
    /// Where the network has nothing to train, a setting cannot be, or a pull to a reference has none.
    pub fn new(model: Qwen3, reference: Option<Qwen3>, settings: RlSettings, limits: MonitorSettings) -> Result<Self> {
        if let Some(fault) = settings.fault() {
            return Err(LearnError::Setting(fault));
        }
        if model.vars().is_empty() {
            return Err(LearnError::Setting("model has no weights to train, attach an adapter".into()));
        }
        if settings.kl.is_some() && reference.is_none() {
            return Err(LearnError::Setting("kl needs a reference to stay near to".into()));
        }
        let config = AdamWConfig { max_grad_norm: settings.max_grad_norm, ..AdamWConfig::default() };
        let optimizer = AdamW::new(model.vars(), config)?;
        let hidden = model.config().hidden_size;
        let critic = settings.critic.map(|critic| Critic::new(critic, hidden, model.device())).transpose()?;
        let state = State {
            fingerprint: fingerprint(&model, &settings),
            step: 0,
            entropy: settings.entropy,
            last_entropy: None,
            monitors: Monitors::default(),
            stale_total: 0,
        };
        Ok(Self { model, reference, critic, optimizer, settings, limits, state })
    }

    /// The policy in training.
    #[must_use]
    pub fn model(&self) -> &Qwen3 {
        &self.model
    }

    /// Steps made; also the version of the policy that draws next.
    #[must_use]
    pub fn step_number(&self) -> u64 {
        self.state.step
    }

    /// Samples thrown away so far because their policy was too old.
    #[must_use]
    pub fn stale_total(&self) -> u64 {
        self.state.stale_total
    }

    /// Draws and scores the samples of the next step. With refills, groups that teach nothing are replaced as long as
    /// attempts are left.
    ///
    /// # Errors
    /// Where drawing fails.
    pub fn roll(&self, questions: &dyn Questions, environment: &dyn Environment) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let wanted = self.settings.questions * self.settings.group;
        for attempt in 0..=self.settings.refills {
            let first_group = attempt as usize * self.settings.questions;
            let at = (self.state.step, attempt);
            let drawn = roll(&self.model, questions, environment, &self.settings, at, first_group)?;
            if self.settings.refills == 0 {
                return Ok(drawn);
            }
            // a batch that teaches nothing at all is handed on, so that the monitors see it
            let spare = drawn.clone();
            samples.extend(of_teaching_groups(drawn, &self.settings));
            if samples.is_empty() && attempt == self.settings.refills {
                return Ok(spare);
            }
            if samples.len() >= wanted {
                break;
            }
        }
        samples.truncate(wanted);
        Ok(samples)
    }

    /// Learns from samples and counts a step, whether or not they changed the weights. Only a pause does not count: the
    /// same step is to be made again.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn learn(&mut self, samples: &[Sample]) -> Result<StepReport> {
        let start = Instant::now();
        let step = self.state.step;
        let fresh: Vec<&Sample> =
            samples.iter().filter(|sample| sample.version + self.settings.max_staleness >= step).collect();
        let stale = samples.len() - fresh.len();
        let mut metrics = StepMetrics::of(step, samples);
        metrics.stale = stale;
        metrics.stale_share = stale as f64 / samples.len().max(1) as f64;
        if let Some(alarm) = self.state.monitors.before(&metrics, &self.limits) {
            if alarm.action != Action::Pause {
                self.state.step += 1;
                self.state.stale_total += stale as u64;
            }
            return Ok(StepReport { metrics, alarm: Some(alarm) });
        }
        self.state.step += 1;
        self.state.stale_total += stale as u64;
        let made = prepare(&self.model, self.reference.as_ref(), self.critic.as_ref(), fresh, &self.settings)?;
        metrics.samples = made.live;
        metrics.kl_reference = made.kl_reference;
        metrics.explained_variance = made.explained_variance;
        metrics.weights = made.weights;
        let entropy_weight = match self.state.last_entropy {
            Some(entropy) => self.state.entropy.weight(entropy),
            None => 0.0,
        };
        let rise = (step as f64 + 1.0) / (f64::from(self.settings.warmup) + 1.0);
        let dials = Dials {
            step,
            learning_rate: self.settings.learning_rate * rise.min(1.0),
            entropy_weight,
            most_on_policy_deviation: self.limits.most_on_policy_deviation,
            most_grad_norm: self.state.monitors.most_grad_norm(&self.limits),
        };
        let critic = self.critic.as_mut();
        let done = passes(&self.model, critic, &mut self.optimizer, &made.batch, &self.settings, &dials)?;
        metrics.clip_fraction = done.clip_fraction;
        metrics.approx_kl = done.approx_kl;
        metrics.on_policy_deviation = done.on_policy_deviation;
        metrics.ratio_deviation = done.ratio_deviation;
        metrics.entropy = done.entropy;
        metrics.loss = done.loss;
        metrics.grad_norm = done.grad_norm;
        metrics.value_loss = done.value_loss;
        metrics.updates = done.updates;
        metrics.learn_seconds = start.elapsed().as_secs_f64();
        self.state.last_entropy = Some(metrics.entropy);
        let alarm = self.state.monitors.after(&metrics, &self.limits);
        Ok(StepReport { metrics, alarm })
    }

    /// One step: draw, score, learn.
    ///
    /// # Errors
    /// As [`Learner::roll`] and [`Learner::learn`].
    pub fn step(&mut self, questions: &dyn Questions, environment: &dyn Environment) -> Result<StepReport> {
        let start = Instant::now();
        let samples = self.roll(questions, environment)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut report = self.learn(&samples)?;
        report.metrics.roll_seconds = seconds;
        Ok(report)
    }

    /// Steps until `steps` are made in all, with a checkpoint every `every` of them where a folder is given. Ends early,
    /// with a checkpoint, at a pause, and where `observe` says so. A halt leaves the checkpoints before it alone: what
    /// halted the run is not worth going on from.
    ///
    /// # Errors
    /// Where a step fails or the disk refuses.
    pub fn run(
        &mut self,
        questions: &dyn Questions,
        environment: &dyn Environment,
        steps: u64,
        checkpoints: Option<(&Checkpoints, u64)>,
        observe: &mut dyn FnMut(&StepReport) -> ControlFlow<()>,
    ) -> Result<RunReport> {
        let mut run = RunReport { steps: Vec::new(), alarms: Vec::new(), finished: false };
        while self.state.step < steps {
            let report = self.step(questions, environment)?;
            let stopped = observe(&report).is_break();
            let StepReport { metrics, alarm } = report;
            let number = metrics.step;
            run.steps.push(metrics);
            let action = alarm.as_ref().map(|alarm| alarm.action);
            if let Some(alarm) = alarm {
                tracing::warn!(step = number, alarm = alarm.name, reason = alarm.reason, "the run is not well");
                run.alarms.push((number, alarm));
            }
            if action == Some(Action::Halt) {
                return Ok(run);
            }
            let ends = stopped || action == Some(Action::Pause);
            if let Some((folder, every)) = checkpoints
                && (ends || self.state.step.is_multiple_of(every.max(1)) || self.state.step >= steps)
            {
                self.save(folder)?;
            }
            if ends {
                return Ok(run);
            }
        }
        run.finished = true;
        Ok(run)
    }

    /// Writes weights, moments and state; the checkpoint appears whole.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn save(&self, folder: &Checkpoints) -> Result<()> {
        folder.write(self.state.step as u32, |part| {
            write_safetensors(&part.join(WEIGHTS), &weights_of(self.model.vars()))?;
            self.optimizer.save(&part.join(OPTIMIZER))?;
            if let Some(critic) = &self.critic {
                write_safetensors(&part.join(CRITIC), &weights_of(critic.vars()))?;
                critic.optimizer.save(&part.join(CRITIC_OPTIMIZER))?;
            }
            let text = serde_json::to_string_pretty(&self.state).map_err(|e| folder.unusable(part, e))?;
            write_flushed(&part.join(STATE), &text)
        })
    }

    /// Goes on from the newest checkpoint; false where there is none.
    ///
    /// # Errors
    /// Where it is damaged, or of other settings or another model.
    pub fn resume(&mut self, folder: &Checkpoints) -> Result<bool> {
        let Some(path) = folder.newest()? else { return Ok(false) };
        let file = path.join(STATE);
        let text = std::fs::read_to_string(&file).map_err(LearnError::io(&file))?;
        let state: State = serde_json::from_str(&text).map_err(|e| folder.unusable(&path, e))?;
        if state.fingerprint != self.state.fingerprint {
            return Err(folder.unusable(&path, "it is of other settings or another model"));
        }
        let read = |name: &str, path: &Path| read_safetensors(&path.join(name), &candle_core::Device::Cpu);
        put(self.model.vars(), &read(WEIGHTS, &path)?)?;
        self.optimizer.restore(&path.join(OPTIMIZER))?;
        if let Some(critic) = &mut self.critic {
            put(critic.vars(), &read(CRITIC, &path)?)?;
            critic.optimizer.restore(&path.join(CRITIC_OPTIMIZER))?;
        }
        self.state = state;
        Ok(true)
    }
}

/// What must not change between two parts of a run.
fn fingerprint(model: &Qwen3, settings: &RlSettings) -> String {
    let shapes: Vec<(&String, &[usize])> = model.vars().iter().map(|(name, var)| (name, var.dims())).collect();
    blake3::hash(format!("{settings:?} {shapes:?}").as_bytes()).to_hex().to_string()
}
