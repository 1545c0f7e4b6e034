//! `recast judge`: whether the judge works, and whether it may be trusted.

use std::sync::Arc;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use recast_config::{JudgeKind, Settings, TenantProfile};
use recast_gateway::{QuerySource, RunOptions};
use recast_judge::{
    Calibration, CalibrationRules, HeuristicJudge, Judge, LabelledPair, RewardWeights, calibrate, open_judge, quality,
    read_pairs,
};

use crate::args::{CalibrateArgs, JudgeArgs, JudgeCommand, JudgeName};
use crate::experiment::nobody;
use crate::{config, labelled, out};

/// `recast judge probe|calibrate`
pub fn run(args: &JudgeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &args.command {
        JudgeCommand::Probe(settings) => runtime.block_on(probe(&config::effective(settings)?.settings)),
        JudgeCommand::Calibrate(args) => runtime.block_on(measure(args)),
    }
}

async fn probe(settings: &Settings) -> anyhow::Result<()> {
    let judge = configured(settings)?;
    judge.probe().await?;
    out::line(&format!("{} answers", judge.id()));
    Ok(())
}

/// The judge of that name.
///
/// # Errors
/// When the settings have none, or one that cannot work.
pub fn named(name: JudgeName, settings: &Settings) -> anyhow::Result<Arc<dyn Judge>> {
    match name {
        JudgeName::Heuristic => Ok(Arc::new(HeuristicJudge::default())),
        JudgeName::Configured => configured(settings),
    }
}

fn configured(settings: &Settings) -> anyhow::Result<Arc<dyn Judge>> {
    let judge = open_judge(&settings.judge, None)?;
    judge.context("judge.kind is off: set it to heuristic or openai")
}

async fn measure(args: &CalibrateArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let judge = named(args.judge, &settings)?;
    let pairs = read_pairs(&args.labels)?;
    let tenants = TenantProfile::load_all(&settings.tenants.dir)?;
    let gains = if args.retrieval { Some(gains(&settings, &pairs).await?) } else { None };
    let progress = ProgressBar::new(pairs.len() as u64);
    let rules = CalibrationRules::default();
    let found = calibrate(judge.as_ref(), &pairs, &tenants, gains.as_deref(), &rules, &|| progress.inc(1)).await;
    progress.finish_and_clear();
    let found = found?;
    if args.json {
        out::line(&serde_json::to_string_pretty(&found)?);
    } else {
        out::line(&table(&found));
    }
    if args.judge == JudgeName::Configured && settings.judge.kind == JudgeKind::Openai && found.judged == 0 {
        bail!("the judge gave no verdict at all: `recast judge probe` says why");
    }
    Ok(())
}

/// By how much the search with each pair's first rewrite is better than with its second, in the quality that rewards are
/// made from.
async fn gains(settings: &Settings, pairs: &[LabelledPair]) -> anyhow::Result<Vec<f64>> {
    let tenants = labelled::load(&settings.tenants.dir, None)?;
    // The rewrites are there already: nobody has to write any.
    let shared = Settings { rewriter: nobody(&settings.rewriter), ..settings.clone() };
    let (_, pipeline) = labelled::open(&shared, &tenants).await?;
    let weights = RewardWeights::from(&settings.reward);
    let progress = ProgressBar::new(pairs.len() as u64);
    let mut gains = Vec::with_capacity(pairs.len());
    for pair in pairs {
        let tenant = tenants.iter().find(|tenant| tenant.profile.id == pair.tenant);
        let tenant = tenant.with_context(|| {
            format!("pair {}: {} has no folder with dialogues.jsonl, so nothing can be searched", pair.id, pair.tenant)
        })?;
        let search = async |text: &str| {
            let query = QuerySource::Given(text.to_owned());
            let run = pipeline.run(&tenant.profile, &pair.conversation, RunOptions { query, ..RunOptions::default() });
            let run = run.await.with_context(|| format!("pair {}", pair.id))?;
            let scores: Vec<f64> = run.trace.hits.iter().map(|hit| f64::from(hit.relevance())).collect();
            anyhow::Ok(quality(&scores, &weights))
        };
        gains.push(search(&pair.rewrite_a).await? - search(&pair.rewrite_b).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(gains)
}

fn table(found: &Calibration) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let interval = found.agreement_interval.map_or_else(String::new, |[low, high]| format!(" ({low:.3} to {high:.3})"));
    let because: Vec<String> = found.missing_because.iter().map(|(why, count)| format!("{count} {why}")).collect();
    let because = if because.is_empty() { String::new() } else { format!(" ({})", because.join(", ")) };
    let mut lines = vec![
        format!("judge\t{}", found.judge),
        format!("pairs\t{} judged, {} without a verdict{because}", found.judged, found.missing),
        format!("agreement\t{}{interval}", number(found.agreement)),
        format!("kappa\t{}", number(found.kappa)),
        format!("kappa without ties\t{}", number(found.kappa_decided)),
    ];
    lines.extend(found.by_tenant.iter().map(|(tenant, kappa)| format!("kappa of {tenant}\t{}", number(*kappa))));
    lines.push(format!("flip rate\t{}", number(found.flip_rate)));
    lines.push(format!("sd between askings\t{}", number(found.repeat_sd)));
    lines.push(format!("correlation with retrieval\t{}", number(found.gain_correlation)));
    if found.certified {
        lines.push("certified\tyes: it may be trained on".to_owned());
    } else {
        lines.push("certified\tno".to_owned());
        lines.extend(found.reasons.iter().map(|reason| format!("  because\t{reason}")));
    }
    lines.join("\n")
}
