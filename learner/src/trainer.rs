//! The loop that all trainings share: schedule, optimizer, validation, checkpoints, curve.
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use candle_core::Var;
use indicatif::{ProgressBar, ProgressStyle};
use recast_model::{AdamW, AdamWConfig, Gradients, Schedule};

use crate::checkpoint::{Checkpoints, RunState, copy_of, put};
use crate::curve::{Curve, CurvePoint};
use crate::error::{LearnError, Result};

/// What one step computes.
#[derive(Debug)]
pub struct StepLoss {
    /// Gradients of the loss.
    pub gradients: Gradients,
    /// The loss, nats.
    pub loss: f64,
    /// Tokens read, filling not counted.
    pub tokens: u64,
}

/// Something to be trained. A step must be a pure function of the weights, the step and the run's length.
pub trait Objective {
    /// What is trained.
    fn vars(&self) -> &BTreeMap<String, Var>;

    /// Loss and gradients of a step (the first is 0) of a run of `steps`.
    ///
    /// # Errors
    /// Where a batch cannot be made or computed.
    fn step(&self, step: u32, steps: u32) -> Result<StepLoss>;

    /// Figures of the validation data; the one called `score` (0 to 1) decides which weights are kept.
    ///
    /// # Errors
    /// Where the network fails.
    fn validate(&self) -> Result<BTreeMap<String, f64>>;
}

/// How a run goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Name for the progress bar and the chart.
    pub name: String,
    /// Steps of the run.
    pub steps: u32,
    /// Steps of the linear rise of the learning rate.
    pub warmup: u32,
    /// Highest learning rate; a cosine takes it to a fiftieth.
    pub learning_rate: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Steps between two validations, each with a checkpoint.
    pub validate_every: u32,
    /// Validations without a better score after which the run ends.
    pub patience: u32,
    /// Tokens before which it does not end: copying comes late and at once.
    pub least_tokens: u64,
    /// Hash of everything else that must not change between two parts of a run.
    pub fingerprint: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps made in all.
    pub step: u32,
    /// Tokens read in all.
    pub tokens: u64,
    /// Seconds trained in all.
    pub seconds: f64,
    /// Step of the weights that were kept, and their score.
    pub best: Option<(u32, f64)>,
    /// Figures of every validation, by step.
    pub validations: Vec<(u32, BTreeMap<String, f64>)>,
    /// False where the observer ended the run; a resumed run goes on from the last checkpoint.
    pub finished: bool,
}

/// Rows of the curve.
const CURVE_ROWS: u32 = 300;

/// Runs a plan, from the newest checkpoint where `resume` is set and there is one. At the end the variables hold the
/// weights of the best validation. `observe` sees each step's number and loss and may end the run.
///
/// # Errors
/// Where a step fails, the loss is not finite, a checkpoint is of another run, or the disk refuses.
pub fn train(
    objective: &dyn Objective,
    plan: &Plan,
    dir: &Path,
    resume: bool,
    observe: &mut dyn FnMut(u32, f64) -> ControlFlow<()>,
) -> Result<Outcome> {
    let checkpoints = Checkpoints::open(dir)?;
    let config = AdamWConfig { beta2: 0.98, weight_decay: plan.weight_decay, ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(objective.vars(), config)?;
    let (mut state, mut best) = begin(objective, plan, &checkpoints, resume, &mut optimizer)?;
    let curve_path = dir.join("curve.csv");
    let mut curve = Curve::read(&curve_path, state.step)?;
    let schedule = Schedule::Cosine { warmup: plan.warmup, total: plan.steps, floor: 0.02 };
    let row = (plan.steps / CURVE_ROWS).max(1);
    let bar = progress_bar(plan, state.step);
    let before = state.seconds;
    let start = Instant::now();
    let mut sums = Sums::default();
    let mut finished = true;
    while state.step < plan.steps && !(state.stale >= plan.patience && state.tokens >= plan.least_tokens) {
        let step = state.step;
        let StepLoss { gradients, loss, tokens } = objective.step(step, plan.steps)?;
        if !loss.is_finite() {
            return Err(LearnError::Diverged { step });
        }
        let learning_rate = plan.learning_rate * schedule.factor(step);
        let update = optimizer.step(&gradients, learning_rate)?;
        state.step += 1;
        state.tokens += tokens;
        state.seconds = before + start.elapsed().as_secs_f64();
        sums.add(loss, update.grad_norm);
        bar.set_position(u64::from(state.step));
        let stopped = observe(step, loss).is_break();
        let validates = state.step.is_multiple_of(plan.validate_every.max(1)) || state.step == plan.steps;
        if state.step.is_multiple_of(row) || validates {
            let mut point = sums.point(&state, learning_rate);
            if validates {
                let figures = objective.validate()?;
                let score = figures.get("score").copied().unwrap_or_default();
                point.score = Some(score);
                tracing::info!(step = state.step, loss = point.loss, score, "validated");
                state.validations.push((state.step, figures));
                // of equal scores the later one has seen more
                if state.best.is_none_or(|(_, most)| score >= most) {
                    state.best = Some((state.step, score));
                    state.stale = 0;
                    best = copy_of(objective.vars())?;
                } else {
                    state.stale += 1;
                }
            }
            let speed = state.tokens as f64 / state.seconds.max(1e-9);
            bar.set_message(format!("loss {:.3}, score {:.3}, {speed:.0} tokens/s", point.loss, last_score(&state)));
            curve.points.push(point);
            sums = Sums::default();
        }
        if validates {
            curve.write_csv(&curve_path)?;
            checkpoints.save(&state, objective.vars(), &best, &optimizer)?;
        }
        if stopped {
            finished = false;
            break;
        }
    }
    bar.finish_and_clear();
    if finished {
        put(objective.vars(), &best)?;
        curve.write_png(&dir.join("curve.png"), &plan.name)?;
    }
    let RunState { step, tokens, seconds, best, validations, .. } = state;
    Ok(Outcome { step, tokens, seconds, best, validations, finished })
}

/// The state to begin with, and the best weights so far.
fn begin(
    objective: &dyn Objective,
    plan: &Plan,
    checkpoints: &Checkpoints,
    resume: bool,
    optimizer: &mut AdamW,
) -> Result<(RunState, recast_model::Weights)> {
    if let Some(found) = checkpoints.latest()?.filter(|_| resume) {
        if found.fingerprint != plan.fingerprint || found.steps != plan.steps {
            let reason = "it is of other settings or other data; start the run anew without resuming".to_owned();
            return Err(LearnError::Checkpoint { path: checkpoints.dir().to_owned(), reason });
        }
        let best = checkpoints.restore(objective.vars(), optimizer)?;
        return Ok((found, best));
    }
    checkpoints.clear()?;
    let state = RunState {
        fingerprint: plan.fingerprint.clone(),
        step: 0,
        steps: plan.steps,
        tokens: 0,
        seconds: 0.0,
        best: None,
        stale: 0,
        validations: Vec::new(),
    };
    Ok((state, copy_of(objective.vars())?))
}

/// Seconds of one step, the mean over some steps of the run that are not applied; the first, cold one is not counted.
///
/// # Errors
/// Where a step fails.
pub(crate) fn seconds_per_step(objective: &dyn Objective) -> Result<f64> {
    const MEASURED: u32 = 6;
    let far = 1000;
    objective.step(0, far)?;
    let start = Instant::now();
    for step in 1..=MEASURED {
        objective.step(step * 7, far)?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(MEASURED))
}

fn last_score(state: &RunState) -> f64 {
    state.validations.last().and_then(|(_, figures)| figures.get("score").copied()).unwrap_or_default()
}

fn progress_bar(plan: &Plan, from: u32) -> ProgressBar {
    let bar = ProgressBar::new(u64::from(plan.steps)).with_position(u64::from(from)).with_prefix(plan.name.clone());
    let template = "{prefix} [{bar:30}] {pos}/{len} {elapsed}/{eta} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[derive(Default)]
struct Sums {
    loss: f64,
    grad_norm: f64,
    count: f64,
}

impl Sums {
    fn add(&mut self, loss: f64, grad_norm: f64) {
        self.loss += loss;
        self.grad_norm += grad_norm;
        self.count += 1.0;
    }

    fn point(&self, state: &RunState, learning_rate: f64) -> CurvePoint {
        let count = self.count.max(1.0);
        CurvePoint {
            step: state.step,
            tokens: state.tokens,
            seconds: (state.seconds * 10.0).round() / 10.0,
            loss: self.loss / count,
            learning_rate,
            grad_norm: self.grad_norm / count,
            score: None,
        }
    }
}
