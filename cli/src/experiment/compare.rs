//! `recast experiment compare`: two rewriters over the same labelled questions, through the one pipeline.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use recast_config::{Settings, TenantProfile};
use recast_domain::{Dialogue, Split};
use recast_experiments::report::{Metric, compute};
use recast_gateway::Run;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::arm::{Arm, nobody};
use super::labels::{self, Labelled};
use super::offline;
use super::report::show;
use crate::args::CompareArgs;
use crate::labelled::{self, LabelledTenant};
use crate::{config, out};

/// `recast experiment compare`
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let tenants = tenants(args, &settings)?;
    let split = Split::from(args.split);
    if tenants.iter().all(|tenant| tenant.split(split, args.limit).next().is_none()) {
        bail!("no dialogue is in the split {split:?}: choose another with --split, or raise --limit");
    }
    let primary = args.primary.as_deref().map(metric).transpose()?;
    let runtime = Runtime::new()?;
    let (names, compared, input) = runtime.block_on(async {
        let judge = args.judge.map(|name| crate::judge::named(name, &settings)).transpose()?;
        let arms = open(args, &settings, &tenants).await?;
        let names = [arms[0].name.clone(), arms[1].name.clone()];
        let compared = measure(&arms, &tenants, split, args.limit).await;
        let mut input = offline::input(&names, &compared, primary);
        if let Some(judge) = judge {
            offline::judge(&mut input, &compared, &*judge).await;
        }
        anyhow::Ok((names, compared, input))
    })?;
    if let Some(file) = &args.questions {
        let record = serde_json::to_string_pretty(&record(&names, &compared))?;
        std::fs::write(file, record + "\n").with_context(|| format!("--questions {}", file.display()))?;
    }
    if !args.json {
        out::line(&text(&names, &compared));
    }
    show(&compute(&input), args.json, args.html.as_deref())
}

/// A metric by its name in a definition.
fn metric(name: &str) -> anyhow::Result<Metric> {
    serde_json::from_value(json!(name)).map_err(|_| {
        let known = Metric::ALL.map(|one| json!(one).as_str().unwrap_or_default().to_owned());
        anyhow::anyhow!("--primary {name}: no such metric; one of {}", known.join(", "))
    })
}

/// Label metrics over the questions that both arms answered, and below them the others.
fn text(names: &[String; 2], compared: &[Compared]) -> String {
    let both: Vec<&Compared> = compared.iter().filter(|one| one.runs.iter().all(Result::is_ok)).collect();
    let labelled = |arm: usize| both.iter().filter_map(|one| one.labels(arm)).collect::<Vec<_>>();
    let mut shown = labels::table(&[(names[0].as_str(), labelled(0)), (names[1].as_str(), labelled(1))]);
    for (arm, name) in names.iter().enumerate() {
        let mut times: Vec<u64> = both.iter().filter_map(|one| one.rewrite_us(arm)).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).map_or(0, |us| us / 1000);
        let failed: Vec<String> = failures(arm, compared).iter().map(|(why, n)| format!("{n} by {why}")).collect();
        let failed = if failed.is_empty() { "none".to_owned() } else { failed.join(", ") };
        let _ = writeln!(shown, "{name}: median rewrite {median} ms, failed: {failed}");
    }
    shown
}

/// Questions that an arm did not answer, by reason.
fn failures<'a>(arm: usize, compared: &'a [Compared]) -> BTreeMap<&'a str, usize> {
    let mut failures = BTreeMap::new();
    for reason in compared.iter().filter_map(|one| one.runs.get(arm)?.as_ref().err()) {
        *failures.entry(reason.as_str()).or_default() += 1;
    }
    failures
}

/// Everything that was measured, question by question.
fn record(names: &[String; 2], compared: &[Compared]) -> Value {
    let answer = |one: &Compared, arm: usize| match &one.runs[arm] {
        Err(reason) => json!({"failed": reason}),
        Ok(Run { trace, .. }) => json!({
            "rewrite": trace.rewrite.text,
            "policy": trace.rewrite.policy,
            "hits": trace.hits.iter().map(|hit| hit.passage.id.as_str()).collect::<Vec<_>>(),
            "scores": trace.hits.iter().map(|hit| hit.reranker_score.unwrap_or(hit.score)).collect::<Vec<_>>(),
            "labels": one.labels(arm),
            "timings": trace.timings,
            "degraded": trace.degraded,
        }),
    };
    let question = |one: &Compared| {
        json!({
            "id": one.dialogue.id,
            "tenant": one.tenant.id,
            "query_type": labelled::query_type(one.dialogue),
            "query": one.dialogue.query,
            "a": answer(one, 0),
            "b": answer(one, 1),
        })
    };
    json!({
        "a": {"name": names[0], "failed": failures(0, compared)},
        "b": {"name": names[1], "failed": failures(1, compared)},
        "questions": compared.iter().map(question).collect::<Vec<_>>(),
    })
}

async fn open(args: &CompareArgs, settings: &Settings, tenants: &[LabelledTenant]) -> anyhow::Result<[Arm; 2]> {
    let key = args.api_key_env.as_deref().map(config::secret).transpose()?;
    // Each arm brings its own rewriter; the shared rooms need none.
    let shared = Settings { rewriter: nobody(&settings.rewriter), ..settings.clone() };
    let (_, pipeline) = labelled::open(&shared, tenants).await?;
    let arm = async |name| Arm::open(name, &settings.rewriter, key.clone(), &pipeline).await;
    Ok([arm(&args.a).await.context("--a")?, arm(&args.b).await.context("--b")?])
}

/// One question, answered by both arms.
pub struct Compared<'a> {
    /// Whose question it is.
    pub tenant: &'a TenantProfile,
    /// The question with its labels.
    pub dialogue: &'a Dialogue,
    /// What the first and the second arm did, or why one has no answer.
    pub runs: [Result<Run, String>; 2],
}

impl Compared<'_> {
    /// The metrics of one arm's ranking, where it answered.
    pub fn labels(&self, arm: usize) -> Option<Labelled> {
        let run = self.runs.get(arm)?.as_ref().ok()?;
        let ids: Vec<&str> = run.trace.hits.iter().map(|hit| hit.passage.id.as_str()).collect();
        Some(Labelled::of(&ids, &labelled::grades(self.dialogue)))
    }

    /// How long one arm's rewriter took, where it answered.
    fn rewrite_us(&self, arm: usize) -> Option<u64> {
        self.runs.get(arm)?.as_ref().ok().map(|run| run.trace.timings.rewrite_us)
    }
}

/// Asks both arms every question of a split, one after the other: the two never compute at the same time, so that
/// their latencies can be compared.
pub async fn measure<'a>(
    arms: &[Arm; 2],
    tenants: &'a [LabelledTenant],
    split: Split,
    limit: Option<usize>,
) -> Vec<Compared<'a>> {
    let total: usize = tenants.iter().map(|tenant| tenant.split(split, limit).count()).sum();
    let progress = ProgressBar::new(total as u64);
    let mut compared = Vec::with_capacity(total);
    for tenant in tenants {
        for (index, dialogue) in tenant.split(split, limit).enumerate() {
            // Who goes first alternates, so that neither arm always finds the caches warm.
            let first = index % 2;
            let early = arms[first].answer(&tenant.profile, dialogue).await;
            let late = arms[1 - first].answer(&tenant.profile, dialogue).await;
            let runs = if first == 0 { [early, late] } else { [late, early] };
            compared.push(Compared { tenant: &tenant.profile, dialogue, runs });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    compared
}

fn tenants(args: &CompareArgs, settings: &Settings) -> anyhow::Result<Vec<LabelledTenant>> {
    let data = args.file.as_ref().or(args.data.as_ref()).unwrap_or(&settings.tenants.dir);
    if data.is_file() {
        labelled::load_file(data, &settings.tenants.dir, args.tenant.as_deref())
    } else {
        labelled::load(data, args.tenant.as_deref())
    }
}
