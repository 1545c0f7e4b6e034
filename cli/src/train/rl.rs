//! `recast train grpo|ppo`: an adapter for a rewriter, learned from what its rewrites find.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use recast_config::{JudgeKind, RewardKind, Settings};
use recast_domain::{Dialogue, Environment, Split};
use recast_episodes::EpisodeStore;
use recast_gateway::World;
use recast_learner::rl::{
    Algorithm, EntropyControl, KlEstimator, KlTerm, MonitorSettings, Progress, Question, QuestionPool, Questions,
    RlReport, RlRun, RlSettings, WithFreshNames, greedy, train_policy,
};
use recast_learner::{RewriteValidation, TrainSettings, copying_practice};
use recast_model::{ModelFolder, PromptInput, PromptRenderer};
use tokio::runtime::Runtime;

use crate::args::{TrainArgs, TrainWhat};
use crate::experiment::arm::nobody;
use crate::labelled::{self, LabelledTenant};
use crate::{config, out};

/// Highest learning rate where none is given: small adapters bear a higher one than those of large models.
const LEARNING_RATE: f64 = 3e-4;

/// Change of the entropy's weight a step.
const ENTROPY_STEP: f64 = 0.002;

/// Exact rewrites with unseen names may fall by this share.
const MOST_COPYING_LOSS: f64 = 0.05;

/// A question that is learned from or looked at, with the id under which the world knows it.
struct Asked<'a> {
    id: String,
    tenant: &'a LabelledTenant,
    dialogue: &'a Dialogue,
}

pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let base = args.base.clone().unwrap_or_else(|| "models/rewriter".into());
    let folder = ModelFolder::open(&base)?;
    let settings = settings(args)?;
    let rl = rl_settings(args, &folder)?;
    let tenants = labelled::load(&args.data, None)?;
    let (train, held_out) = (asked(&tenants, Split::Train, usize::MAX), asked(&tenants, Split::Val, args.rl.held_out));
    let renderer = folder.renderer()?;
    let pool = pool(&train, &renderer, args.seed)?;
    let held_pool = self::pool(&held_out, &renderer, args.seed)?;
    let baselines = match &args.rl.teacher {
        Some(dir) => Some(teacher(dir, [&train, &held_out])?),
        None => None,
    };

    let runtime = Runtime::new()?;
    let mut world = runtime.block_on(world(&settings, &tenants))?;
    out::error(&format!("judge {}, searched with {}", world.judge(), world.snapshot()));
    for (place, one) in train.iter().chain(&held_out).enumerate() {
        let baseline = baselines.as_ref().and_then(|texts| texts.get(place)).unwrap_or(&one.dialogue.query);
        world.add_dialogue(&one.id, &one.tenant.profile, one.dialogue, baseline);
    }
    let run = RlRun {
        out: args.out.clone(),
        lora: (args.rl.rank, 2.0 * args.rl.rank as f64),
        from: None,
        steps: args.rl.steps,
        every: args.rl.every.max(1),
        resume: args.resume,
        most_copying_loss: MOST_COPYING_LOSS,
        settings: rl,
        limits: MonitorSettings::default(),
    };
    let data = TrainSettings::new(&args.data, &args.out, args.seed);
    let (curriculum, copying) = copying_practice(&data, &base)?;
    let questions = WithFreshNames::new(pool, curriculum, args.rl.fresh);
    let environment = questions.environment(&world);
    let report = watched(&folder, &run, (&questions, &held_pool, Some(&copying)), &environment)?;
    out::line(&serde_json::to_string_pretty(&report)?);
    match report.best {
        Some(step) => out::error(&format!("the adapter of step {step} is in {}/adapter", run.out.display())),
        None => out::error("no look beat the model as it came: no adapter was kept"),
    }
    Ok(())
}

/// Labelled questions are scored by their labels, and judged by the rules where no judge is set.
fn settings(args: &TrainArgs) -> anyhow::Result<Settings> {
    let mut settings = config::effective(&args.rl.settings)?.settings;
    settings.reward.kind = RewardKind::Labels;
    // labels say what is relevant; a threshold on scores would hide from the reward what nearly was found
    settings.retrieval.score_threshold = 0.0;
    if settings.judge.kind == JudgeKind::Off {
        settings.judge.kind = JudgeKind::Heuristic;
    }
    settings.rewriter = nobody(&settings.rewriter);
    Ok(settings)
}

fn rl_settings(args: &TrainArgs, folder: &ModelFolder) -> anyhow::Result<RlSettings> {
    let name = args.rl.algorithm.as_deref().unwrap_or(match args.what {
        TrainWhat::Ppo => "ppo",
        _ => "grpo",
    });
    let Some(algorithm) = Algorithm::of(name) else {
        let known: Vec<&str> = Algorithm::ALL.iter().map(|(name, _)| *name).collect();
        bail!("--algorithm {name} is not known: choose one of {}", known.join(", "));
    };
    let renderer = folder.renderer()?;
    let mut rl = RlSettings::of(algorithm, renderer.settings().max_new_tokens, renderer.end());
    rl.questions = args.rl.questions;
    rl.group = args.rl.group;
    rl.seed = args.seed;
    rl.learning_rate = args.learning_rate.unwrap_or(LEARNING_RATE);
    let in_reward = rl.critic.is_some();
    let estimator = if in_reward { KlEstimator::K1 } else { KlEstimator::K3 };
    if args.rl.entropy > 0.0 {
        rl.entropy = EntropyControl::Adaptive { weight: 0.0, target: args.rl.entropy, step: ENTROPY_STEP };
    }
    rl.kl = (args.rl.kl > 0.0).then_some(KlTerm { estimator, weight: args.rl.kl, in_reward });
    Ok(rl)
}

/// The questions of a split, at most `most`, spread evenly over it.
fn asked(tenants: &[LabelledTenant], split: Split, most: usize) -> Vec<Asked<'_>> {
    let all: Vec<Asked<'_>> = tenants
        .iter()
        .flat_map(|tenant| {
            tenant.split(split, None).map(move |dialogue| Asked {
                id: format!("{}/{}", tenant.profile.id, dialogue.id),
                tenant,
                dialogue,
            })
        })
        .collect();
    let every = all.len().div_ceil(most.max(1)).max(1);
    all.into_iter().step_by(every).collect()
}

fn pool(asked: &[Asked<'_>], renderer: &PromptRenderer, seed: u64) -> anyhow::Result<QuestionPool> {
    let question = |one: &Asked<'_>| {
        let conversation = one.dialogue.conversation();
        let profile = &one.tenant.profile;
        let input = PromptInput {
            tenant: profile.id.as_str(),
            system_prompt: &profile.system_prompt,
            conversation: &conversation,
        };
        Ok(Question { id: one.id.clone(), ids: renderer.render(&input)?.ids })
    };
    let questions = asked.iter().map(question).collect::<anyhow::Result<Vec<_>>>()?;
    QuestionPool::new(questions, renderer.clone(), seed).context("--data holds no question of a needed split")
}

/// The larger model's greedy rewrite of every question, in order: what it writes does not change, so it is asked once.
fn teacher(dir: &Path, asked: [&[Asked<'_>]; 2]) -> anyhow::Result<Vec<String>> {
    let folder = ModelFolder::open(dir).context("--teacher")?;
    let (network, renderer) = (folder.cpu_network()?, folder.renderer()?);
    let mut texts = Vec::new();
    for asked in asked {
        let written = greedy(&network, &pool(asked, &renderer, 0)?)?;
        texts.extend(written.into_iter().map(|item| item.text));
    }
    Ok(texts)
}

async fn world(settings: &Settings, tenants: &[LabelledTenant]) -> anyhow::Result<World> {
    let (parts, _) = labelled::open(settings, tenants).await?;
    let dir = settings.state.dir.join("offline");
    let episodes = Arc::new(EpisodeStore::open(dir.join("learner.sqlite"), &settings.episodes)?);
    Ok(World::open(settings, &parts, episodes).await?)
}

fn watched(
    folder: &ModelFolder,
    run: &RlRun,
    questions: (&dyn Questions, &QuestionPool, Option<&RewriteValidation>),
    environment: &dyn Environment,
) -> anyhow::Result<RlReport> {
    let progress = ProgressBar::new(run.steps);
    let progress = match ProgressStyle::with_template("{bar:20} step {pos}/{len} {msg} {elapsed} eta {eta}") {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    };
    let mut observe = |event: Progress<'_>| {
        match event {
            Progress::Step(step) => {
                let metrics = &step.metrics;
                progress.set_position(metrics.step + 1);
                progress.set_message(format!(
                    "reward {:.3} entropy {:.2} mute {:.0} %",
                    metrics.reward_mean,
                    metrics.entropy,
                    metrics.zero_variance_share * 100.0
                ));
                if let Some(alarm) = &step.alarm {
                    progress
                        .suspend(|| out::error(&format!("step {}: {}: {}", metrics.step, alarm.name, alarm.reason)));
                }
            }
            Progress::Looked(look) => progress.suspend(|| {
                let parts = look.evaluation.parts.iter().map(|(name, value)| format!("{name} {value:.3}"));
                let parts: Vec<String> = parts.collect();
                let reward = look.evaluation.reward;
                let (step, unseen) = (look.step, look.exact_unseen_names.unwrap_or_default());
                out::error(&format!(
                    "step {step}: held out: reward {reward:.3}, {}, exact with unseen names {unseen:.3}",
                    parts.join(", ")
                ));
            }),
        }
        ControlFlow::Continue(())
    };
    let report = train_policy(folder, run, questions, environment, &mut observe);
    progress.finish_and_clear();
    Ok(report?)
}
