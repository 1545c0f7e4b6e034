//! `recast judge`: whether the judge works, and whether it may be trusted.

use std::sync::Arc;

use anyhow::{Context, bail};
use recast_config::{JudgeKind, Settings, TenantProfile};
use recast_judge::{Calibration, CalibrationRules, HeuristicJudge, Judge, calibrate, open_judge, read_pairs};

use crate::args::{CalibrateArgs, JudgeArgs, JudgeCommand, JudgeName};
use crate::{config, out};

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
    let found = calibrate(judge.as_ref(), &pairs, &tenants, None, &CalibrationRules::default()).await?;
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

fn table(found: &Calibration) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    let interval = found.agreement_interval.map_or_else(String::new, |[low, high]| format!(" ({low:.3} to {high:.3})"));
    let mut lines = vec![
        format!("judge\t{}", found.judge),
        format!("pairs\t{} judged, {} without a verdict", found.judged, found.missing),
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
