//! A whole run over an adapter: learn, look at held-out questions now and then, keep the best.
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Device;
use recast_domain::Environment;
use recast_model::{Lora, LoraConfig, ModelFolder};
use serde::{Deserialize, Serialize};

use super::curve::RlCurve;
use super::evaluate::{Evaluation, evaluate};
use super::learner::{Learner, StepReport};
use super::monitors::MonitorSettings;
use super::pool::QuestionPool;
use super::sample::Questions;
use super::settings::RlSettings;
use crate::checkpoint::{Checkpoints, write_flushed};
use crate::error::{LearnError, Result};
use crate::validate::RewriteValidation;

/// Name of the folder with the best adapter, below the run's folder.
pub const ADAPTER: &str = "adapter";
const REPORT: &str = "report.json";
const CHECKPOINTS: &str = "checkpoints";

/// What a run does, beside the algorithm's own settings.
#[derive(Debug, Clone, PartialEq)]
pub struct RlRun {
    /// The run's folder: checkpoints, curve, report, and the adapter.
    pub out: PathBuf,
    /// Rank and alpha of the adapter on all linear layers.
    pub lora: (usize, f64),
    /// Folder of an adapter to begin with, of any rank; a fresh one without it.
    pub from: Option<PathBuf>,
    /// Steps in all.
    pub steps: u64,
    /// Steps from one checkpoint, and one look at held-out questions, to the next.
    pub every: u64,
    /// Whether to go on from the last checkpoint.
    pub resume: bool,
    /// By how much the share of exact rewrites with unseen names may fall below that of the model as it came, before the
    /// run ends.
    pub most_copying_loss: f64,
    /// The algorithm.
    pub settings: RlSettings,
    /// What stops it.
    pub limits: MonitorSettings,
}

/// A look at held-out questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Steps made before it.
    pub step: u64,
    /// What was seen.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// Share of exact rewrites of questions with names that nobody wrote before, where there are such questions.
    pub exact_unseen_names: Option<f64>,
}

/// What became of a run; also written to `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RlReport {
    /// Steps made.
    pub steps: u64,
    /// Whether all of them were.
    pub finished: bool,
    /// Seconds of this part of the run.
    pub seconds: f64,
    /// Step of the adapter that was kept; `None` where no look beat the start.
    pub best: Option<u64>,
    /// Looks at held-out questions, the first one before any step.
    pub looks: Vec<Look>,
    /// What went wrong, in words.
    pub alarms: Vec<String>,
    /// Identity of the base model.
    pub base: String,
}

/// What a run tells while it goes.
pub enum Progress<'a> {
    /// A step was made.
    Step(&'a StepReport),
    /// Held-out questions were looked at.
    Looked(&'a Look),
}

/// Learns an adapter for the model of a folder. The adapter of the best look lies in `out/adapter`, and nothing lies
/// there where no look beat the model as it came.
///
/// # Errors
/// Where the model, the disk or a checkpoint are at fault, or a step fails.
pub fn train_policy(
    base: &ModelFolder,
    run: &RlRun,
    (questions, held_out, copying): (&dyn Questions, &QuestionPool, Option<&RewriteValidation>),
    environment: &dyn Environment,
    observe: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<RlReport> {
    let start = Instant::now();
    let device = Device::Cpu;
    let network = base.network(&device)?;
    let lora = match &run.from {
        Some(dir) => Lora::read(dir, base.config(), &device)?,
        None => {
            let config = LoraConfig::all_linears(run.lora.0, run.lora.1);
            Lora::init(&config, base.config(), run.settings.seed, &device)?
        }
    };
    let model = network.with_adapter(&lora)?;
    let mut learner = Learner::new(model.clone(), Some(network), run.settings.clone(), run.limits)?;
    std::fs::create_dir_all(&run.out).map_err(LearnError::io(&run.out))?;
    let checkpoints = Checkpoints::open(&run.out.join(CHECKPOINTS))?;
    let report = run.out.join(REPORT);
    let resumed = run.resume && learner.resume(&checkpoints)?;
    let mut looks = if resumed { read_looks(&report)? } else { Vec::new() };
    looks.retain(|look| look.step <= learner.step_number());
    if !resumed {
        checkpoints.clear()?;
    }
    let mut curve = RlCurve::open(&run.out, learner.step_number())?;
    let copies = |looks: &[Look], look: &Look| {
        looks.first().is_none_or(|first| still_copies(first, look, run.most_copying_loss))
    };
    let look = |looks: &mut Vec<Look>, step: u64, observe: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>| {
        let look = Look {
            step,
            evaluation: evaluate(&model, held_out, environment)?,
            exact_unseen_names: match copying {
                Some(copying) => Some(copying.quick(&model, held_out.renderer())?.exact_unseen_names),
                None => None,
            },
        };
        let best = looks.iter().map(|look| look.evaluation.reward).fold(f64::NEG_INFINITY, f64::max);
        if step > 0 && look.evaluation.reward > best && copies(looks, &look) {
            replace_adapter(&lora, &run.out.join(ADAPTER))?;
        }
        let flow = observe(Progress::Looked(&look));
        looks.push(look);
        Ok::<_, LearnError>(flow)
    };
    if looks.is_empty() {
        let _ = look(&mut looks, learner.step_number(), observe)?;
    }
    let mut alarms = Vec::new();
    let mut finished = false;
    let mut stopped = false;
    while !stopped && !finished {
        let until = (learner.step_number() / run.every + 1) * run.every;
        let part = {
            let mut each = |step: &StepReport| {
                curve.push(&step.metrics);
                let flow = observe(Progress::Step(step));
                stopped |= flow.is_break();
                flow
            };
            learner.run(questions, environment, until.min(run.steps), Some((&checkpoints, run.every)), &mut each)?
        };
        alarms.extend(part.alarms.iter().map(|(step, alarm)| format!("step {step}: {}: {}", alarm.name, alarm.reason)));
        // a pause or a halt ends the run; a skipped batch does not
        stopped |= !part.finished;
        if !stopped {
            stopped |= look(&mut looks, learner.step_number(), observe)?.is_break();
            if let Some((first, last)) = looks.first().zip(looks.last()).filter(|(_, last)| !copies(&looks, last)) {
                alarms.push(format!(
                    "step {}: copying: {:.1} % of the rewrites with unseen names are exact, {:.1} % were at the start",
                    last.step,
                    last.exact_unseen_names.unwrap_or_default() * 100.0,
                    first.exact_unseen_names.unwrap_or_default() * 100.0
                ));
                stopped = true;
            }
        }
        finished = learner.step_number() >= run.steps;
        curve.write(&looks)?;
        let so_far = summary((base, run.most_copying_loss), &looks, &alarms, (learner.step_number(), finished), start);
        write_flushed(&report, &serde_json::to_string_pretty(&so_far).unwrap_or_default())?;
    }
    Ok(summary((base, run.most_copying_loss), &looks, &alarms, (learner.step_number(), finished), start))
}

fn summary(
    (base, most_copying_loss): (&ModelFolder, f64),
    looks: &[Look],
    alarms: &[String],
    (steps, finished): (u64, bool),
    start: Instant,
) -> RlReport {
    let mut best = looks.first();
    for look in looks {
        let copies = still_copies(&looks[0], look, most_copying_loss);
        if copies && best.is_some_and(|best| look.evaluation.reward > best.evaluation.reward) {
            best = Some(look);
        }
    }
    RlReport {
        steps,
        finished,
        seconds: start.elapsed().as_secs_f64(),
        best: best.map(|look| look.step).filter(|step| *step > 0),
        looks: looks.to_vec(),
        alarms: alarms.to_vec(),
        base: base.identity().to_owned(),
    }
}

/// Whether a look found no more copying lost than allowed since the first.
fn still_copies(first: &Look, look: &Look, most_loss: f64) -> bool {
    first.exact_unseen_names.zip(look.exact_unseen_names).is_none_or(|(was, is)| is >= was - most_loss)
}

fn read_looks(report: &Path) -> Result<Vec<Look>> {
    let Ok(text) = std::fs::read_to_string(report) else { return Ok(Vec::new()) };
    let report: RlReport =
        serde_json::from_str(&text).map_err(|e| LearnError::Data(format!("{}: {e}", report.display())))?;
    Ok(report.looks)
}

/// The adapter's files change one by one, so they are written beside and the folder is swapped.
fn replace_adapter(lora: &Lora, dir: &Path) -> Result<()> {
    let fresh = dir.with_extension("new");
    lora.write(&fresh)?;
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(LearnError::io(dir))?;
    }
    std::fs::rename(&fresh, dir).map_err(LearnError::io(dir))
}
