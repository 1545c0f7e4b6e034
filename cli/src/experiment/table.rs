//! `recast experiment table`: a teacher and its students side by side, over labelled questions.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::bail;
use indicatif::ProgressBar;
use recast_config::{JudgeKind, RewardKind, Settings};
use recast_domain::{Dialogue, Environment, RolloutItem, Split};
use recast_episodes::EpisodeStore;
use recast_experiments::{Bootstrap, Estimate, StatsError, bootstrap_mean, bootstrap_paired_difference, wilson};
use recast_gateway::{Parts, World};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::arm::{Arm, nobody};
use crate::args::TableArgs;
use crate::labelled::{self, LabelledTenant};
use crate::{config, out};

const LEVEL: f64 = 0.95;

/// What one rewriter did with one question.
#[derive(Debug, Clone, Default, Serialize)]
struct Figures {
    rewrite: String,
    /// Why there is none, else empty.
    failed: String,
    rewrite_us: u64,
    /// 1 where the first hit is relevant.
    top1: f64,
    /// The judge's overall score, 1 to 5.
    quality: Option<f64>,
    /// 1 for a win over the teacher, 0 for a loss, absent for a tie.
    win: Option<f64>,
}

/// One question with the figures of every rewriter, the teacher first.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    query: String,
    figures: Vec<Figures>,
}

/// `recast experiment table`
pub fn run(args: &TableArgs) -> anyhow::Result<()> {
    let mut settings = config::effective(&args.settings)?.settings;
    settings.reward.kind = RewardKind::Labels;
    settings.retrieval.score_threshold = 0.0;
    if settings.judge.kind == JudgeKind::Off {
        settings.judge.kind = JudgeKind::Heuristic;
    }
    let tenants = labelled::load(args.data.as_ref().unwrap_or(&settings.tenants.dir), None)?;
    let split = Split::from(args.split);
    if tenants.iter().all(|tenant| tenant.split(split, args.limit).next().is_none()) {
        bail!("no dialogue is in the split {split:?}: choose another with --split, or raise --limit");
    }
    let runtime = Runtime::new()?;
    let (mut rows, mut world, names) = runtime.block_on(asked(args, &settings, &tenants))?;
    judged(&mut world, &tenants, (split, args.limit), &mut rows);
    out::line(&text(&names, &rows, args.core_hour, &world.judge()));
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    Ok(())
}

/// Every question, answered by one rewriter after the other, so that none computes beside another. Who begins goes round.
async fn asked(
    args: &TableArgs,
    settings: &Settings,
    tenants: &[LabelledTenant],
) -> anyhow::Result<(Vec<Row>, World, Vec<String>)> {
    let shared = Settings { rewriter: nobody(&settings.rewriter), ..settings.clone() };
    let (parts, pipeline) = labelled::open(&shared, tenants).await?;
    let mut arms = Vec::new();
    for name in std::iter::once(&args.teacher).chain(&args.arms) {
        arms.push(Arm::open(name, &settings.rewriter, None, &pipeline).await?);
    }
    let split = Split::from(args.split);
    let total: usize = tenants.iter().map(|tenant| tenant.split(split, args.limit).count()).sum();
    let progress = ProgressBar::new(total as u64);
    let mut rows = Vec::with_capacity(total);
    for tenant in tenants {
        for dialogue in tenant.split(split, args.limit) {
            let mut figures = vec![Figures::default(); arms.len()];
            for turn in 0..arms.len() {
                let place = (turn + rows.len()) % arms.len();
                figures[place] = answer(&arms[place], tenant, dialogue).await;
            }
            rows.push(Row { id: id(tenant, dialogue), query: dialogue.query.clone(), figures });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let names = arms.into_iter().map(|arm| arm.name).collect();
    Ok((rows, world(&shared, &parts).await?, names))
}

async fn world(settings: &Settings, parts: &Parts) -> anyhow::Result<World> {
    let file = settings.state.dir.join("offline").join("table.sqlite");
    let episodes = Arc::new(EpisodeStore::open(file, &settings.episodes)?);
    Ok(World::open(settings, parts, episodes).await?)
}

fn id(tenant: &LabelledTenant, dialogue: &Dialogue) -> String {
    format!("{}/{}", tenant.profile.id, dialogue.id)
}

async fn answer(arm: &Arm, tenant: &LabelledTenant, dialogue: &Dialogue) -> Figures {
    match arm.answer(&tenant.profile, dialogue).await {
        Err(failed) => Figures { failed, ..Figures::default() },
        Ok(run) => {
            let grades = labelled::grades(dialogue);
            let first = run.trace.hits.first().and_then(|hit| grades.get(&hit.passage.id));
            Figures {
                top1: f64::from(u8::from(first.is_some_and(|grade| *grade > 0))),
                rewrite: run.trace.rewrite.text,
                rewrite_us: run.trace.timings.rewrite_us,
                ..Figures::default()
            }
        }
    }
}

/// All rewrites of a question are judged in one list against the teacher's. A question that the teacher has no rewrite of
/// is compared with the question as typed.
fn judged(world: &mut World, tenants: &[LabelledTenant], (split, limit): (Split, Option<usize>), rows: &mut [Row]) {
    let mut all = rows.iter_mut();
    let questions = tenants.iter().flat_map(|tenant| tenant.split(split, limit).map(move |one| (tenant, one)));
    for (tenant, dialogue) in questions {
        let Some(row) = all.next() else { return };
        let teacher = Some(row.figures[0].rewrite.clone()).filter(|text| !text.is_empty());
        world.add_dialogue(&row.id, &tenant.profile, dialogue, &teacher.unwrap_or_else(|| dialogue.query.clone()));
        let item = |one: &Figures| RolloutItem { question: row.id.clone(), text: one.rewrite.clone(), finished: true };
        let items: Vec<RolloutItem> = row.figures.iter().map(item).collect();
        for (one, scored) in row.figures.iter_mut().zip(world.score(&items)) {
            let part = |name: &str| scored.as_ref().and_then(|scored| scored.parts.get(name).copied());
            (one.quality, one.win) = (part("judge_score"), part("win"));
        }
    }
}

fn text(names: &[String], rows: &[Row], core_hour: f64, judge: &str) -> String {
    let mut shown = String::new();
    let _ = writeln!(
        shown,
        "{} questions; quality by the judge {judge}; cost of rewriting at {core_hour} a core-hour, one core busy\n",
        rows.len()
    );
    let _ = writeln!(shown, "| rewriter | quality | top-1 | p50 ms | cost of 1,000 | win rate | ties | failed |");
    let _ = writeln!(shown, "|---|---|---|---|---|---|---|---|");
    let column = |arm: usize, of: fn(&Figures) -> Option<f64>| -> Vec<f64> {
        rows.iter().filter_map(|row| of(&row.figures[arm])).collect()
    };
    for (arm, name) in names.iter().enumerate() {
        let mut times: Vec<u64> = rows.iter().map(|row| row.figures[arm].rewrite_us).collect();
        times.sort_unstable();
        let (p50, mean) = (times[times.len() / 2], times.iter().sum::<u64>() as f64 / times.len() as f64);
        let wins = column(arm, |one| one.win);
        let (won, of) = (wins.iter().filter(|win| **win > 0.5).count() as u64, wins.len() as u64);
        let rate = match wilson(won, of, LEVEL) {
            Ok(interval) => {
                format!("{:.3} [{:.3}, {:.3}]", won as f64 / of as f64, interval.lower, interval.upper)
            }
            Err(_) => "-".to_owned(),
        };
        let failed = rows.iter().filter(|row| !row.figures[arm].failed.is_empty()).count();
        let _ = writeln!(
            shown,
            "| {name} | {} | {} | {:.1} | {:.5} | {rate} | {:.0} % | {failed} |",
            estimate(&bootstrap_mean(&column(arm, |one| one.quality), Bootstrap::default()), 2),
            estimate(&bootstrap_mean(&column(arm, |one| Some(one.top1)), Bootstrap::default()), 3),
            p50 as f64 / 1000.0,
            mean / 1e6 / 3600.0 * core_hour * 1000.0,
            (1.0 - of as f64 / rows.len() as f64) * 100.0,
        );
    }
    let teacher = column(0, |one| Some(one.top1));
    let wrong = teacher.iter().filter(|top1| **top1 < 0.5).count() as f64 / teacher.len() as f64;
    let _ = writeln!(shown);
    for (arm, name) in names.iter().enumerate().skip(1) {
        let gain = bootstrap_paired_difference(&column(arm, |one| Some(one.top1)), &teacher, Bootstrap::default());
        let removed = gain.as_ref().map_or(0.0, |gain| gain.mean / wrong.max(1e-9) * 100.0);
        let _ = writeln!(shown, "{name} - {}: top-1 {}, {removed:.0} % of its errors", names[0], estimate(&gain, 3));
    }
    shown
}

fn estimate(estimate: &Result<Estimate, StatsError>, digits: usize) -> String {
    match estimate {
        Ok(it) => format!("{:.digits$} [{:.digits$}, {:.digits$}]", it.mean, it.interval.lower, it.interval.upper),
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_removed_are_counted_against_the_teachers() {
        let figures = |top1, win| Figures { top1, win, quality: Some(4.0), rewrite_us: 1000, ..Figures::default() };
        let row = |number: usize| Row {
            id: number.to_string(),
            query: String::new(),
            figures: vec![
                figures(f64::from(u8::from(number < 6)), None),
                figures(f64::from(u8::from(number < 8)), (number > 3).then_some(1.0)),
            ],
        };
        let rows: Vec<Row> = (0..10).map(row).collect();
        let text = text(&["large".to_owned(), "small".to_owned()], &rows, 3.6, "test");
        assert!(text.contains("| large | 4.00 [4.00, 4.00] | 0.600"), "{text}");
        assert!(text.contains("1.0 | 0.00100 | 1.000"), "{text}");
        assert!(text.contains("small - large: top-1 0.200") && text.contains("50 % of its errors"), "{text}");
    }
}
