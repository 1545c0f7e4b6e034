mod rl;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use recast_learner::{
    Observer, TrainReport, TrainSettings, average, dataset_fit, train_embedder, train_reranker, train_rewriter,
    train_teacher, train_tokenizer,
};

use crate::args::{TrainArgs, TrainWhat};
use crate::out;

/// How often a run that is not watched at a terminal says where it is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

type Training = fn(&TrainSettings, Observer<'_>) -> recast_learner::Result<TrainReport>;

/// `recast train tokenizer|sft|embedder|reranker|teacher|grpo|ppo|average|all`
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    if matches!(args.what, TrainWhat::Grpo | TrainWhat::Ppo) {
        return rl::run(args);
    }
    let mut settings = TrainSettings::new(&args.data, &args.out, args.seed);
    if !args.dataset.is_empty() {
        if args.what != TrainWhat::Sft {
            bail!("--dataset goes with `train sft`: the other trainings learn from the tenants' folders alone");
        }
        settings.datasets.clone_from(&args.dataset);
        let fit = dataset_fit(&settings)?;
        out::error(&format!(
            "datasets: {} samples to learn from, {} left out because validation or test ask or name the same",
            fit.added, fit.held_out
        ));
    }
    if args.distil.is_some() && args.what != TrainWhat::Sft {
        bail!("--distil goes with `train sft`: it is the rewriter that learns from a larger one");
    }
    settings.rewriter.taught_by.clone_from(&args.distil);
    if !(args.distil_temperature.is_finite() && args.distil_temperature > 0.0) {
        bail!("--distil-temperature is {}: it must be a number above 0", args.distil_temperature);
    }
    settings.rewriter.taught_at = args.distil_temperature;
    settings.minutes = args.minutes;
    settings.resume = args.resume;
    settings.rewriter.base.clone_from(&args.base);
    settings.teacher.base.clone_from(&args.base);
    if let Some(rate) = args.learning_rate {
        settings.rewriter.learning_rate = rate;
        settings.teacher.learning_rate = rate;
    }
    if args.what == TrainWhat::Average {
        let folders: Vec<&Path> = args.from.iter().map(PathBuf::as_path).collect();
        let folder = average(&folders, &args.out)?;
        out::line(&format!("written to {}", folder.dir().display()));
        return Ok(());
    }
    let all = args.what == TrainWhat::All;
    // A new vocabulary makes the checkpoints of an interrupted run worthless, so `--resume` keeps the one that is there.
    let vocabulary = args.out.join("tokenizer/tokenizer.json");
    if args.what == TrainWhat::Tokenizer || (all && !(args.resume && vocabulary.is_file())) {
        let tokenizer = train_tokenizer(&settings)?;
        out::error(&format!("tokenizer: {} entries", tokenizer.vocab_size()));
    }
    let trainings: [(TrainWhat, &str, Training); 4] = [
        (TrainWhat::Sft, "rewriter", train_rewriter),
        (TrainWhat::Embedder, "embedder", train_embedder),
        (TrainWhat::Reranker, "reranker", train_reranker),
        (TrainWhat::Teacher, "teacher", train_teacher),
    ];
    for (what, name, train) in trainings {
        // the teacher takes as long as the others together, and nothing needs it but the arena
        if args.what == what || (all && what != TrainWhat::Teacher) {
            let report = watched(name, &settings, train)?;
            out::line(&serde_json::to_string_pretty(&report)?);
        }
    }
    Ok(())
}

fn watched(name: &str, settings: &TrainSettings, train: Training) -> anyhow::Result<TrainReport> {
    let progress = ProgressBar::new_spinner().with_prefix(name.to_owned());
    let progress = match ProgressStyle::with_template("{spinner} {prefix} step {pos} {msg} {elapsed} {per_sec}") {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    };
    let mut smooth = None;
    let mut said = Instant::now();
    let mut observe = |step: u32, loss: f64| {
        let mean = smooth.map_or(loss, |mean: f64| 0.98 * mean + 0.02 * loss);
        smooth = Some(mean);
        progress.set_position(u64::from(step) + 1);
        progress.set_message(format!("loss {mean:.3}"));
        if progress.is_hidden() && said.elapsed() > REPORT_EVERY {
            said = Instant::now();
            out::error(&format!("{name}: step {}, loss {mean:.3}", step + 1));
        }
        ControlFlow::Continue(())
    };
    let report = train(settings, &mut observe);
    progress.finish_and_clear();
    Ok(report?)
}
