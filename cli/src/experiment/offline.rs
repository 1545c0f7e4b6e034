//! An offline comparison as a report sees it: the same figures as of live pairs.

use std::collections::BTreeMap;

use recast_experiments::report::{Accounting, ArmFacts, HitFacts, LabelFacts, Looks, Metric, Pair, ReportInput};
use recast_experiments::{Definition, Kind};
use recast_gateway::Run;
use recast_judge::{Candidate, Judge, JudgeItem, LabelRank};

use super::compare::Compared;
use crate::labelled;

/// Characters of a passage that a report shows.
const SHOWN_CHARS: usize = 80;

/// What a report of these questions is computed from. All of them are looked at once, so that the interval and the test
/// for one look decide. `primary` is the metric that decides; without it, nDCG by the labels where every question has
/// some, and else the quality by scores.
pub fn input(names: &[String; 2], compared: &[Compared], primary: Option<Metric>) -> ReportInput {
    let [a, mut b] = names.clone();
    if a == b {
        b.push_str(" (again)");
    }
    let mut definition = Definition::between("compare", Kind::Shadow, &a, &b);
    definition.tenants = compared.iter().map(|one| one.tenant.id.to_string()).collect();
    definition.tenants.dedup();
    // the questions are all there are: no more of them will come
    definition.min_pairs = 1;
    let labelled = compared.iter().all(|one| one.dialogue.relevant.iter().any(|label| label.grade > 0));
    definition.primary = primary.unwrap_or(if labelled { Metric::LabelNdcgAt10 } else { Metric::Quality });

    let mut input = ReportInput::new(definition, 1);
    (input.looks, input.ended) = (Looks::Once, true);
    input.pairs = (0_i64..).zip(compared).filter_map(|(place, one)| pair(place, one)).collect();
    input.accounting = Accounting {
        sampled: compared.len() as u64,
        completed: input.pairs.len() as u64,
        failed: failed(&[&a, &b], compared),
        ..Accounting::default()
    };
    input
}

/// Asks a judge about both rewrites of each pair and writes down what it said. Pairs about which it says nothing stay
/// without a score.
pub async fn judge(input: &mut ReportInput, compared: &[Compared<'_>], judge: &dyn Judge) {
    let both = compared.iter().filter_map(|one| Some((one, one.runs[0].as_ref().ok()?, one.runs[1].as_ref().ok()?)));
    for (pair, (one, a, b)) in input.pairs.iter_mut().zip(both) {
        let item = JudgeItem::new(one.tenant, one.dialogue.conversation());
        let [a, b] = [a, b].map(|run| candidate(one, run));
        let said = judge.judge_group(&item, &[a], &b).await;
        let first = said.rewrites.first().and_then(recast_judge::Judged::overall);
        pair.judge = first.zip(said.baseline.overall());
    }
    input.judge = Some(judge.id().to_owned());
}

fn pair(place: i64, one: &Compared) -> Option<Pair> {
    let facts = |arm: usize| {
        let run = one.runs[arm].as_ref().ok()?;
        let labels = one.labels(arm)?;
        let labels = LabelFacts { top1: labels.top1, recall_at_5: labels.recall_at_5, ndcg_at_10: labels.ndcg_at_10 };
        Some(arm_facts(run, labels))
    };
    Some(Pair {
        episode: one.dialogue.id.clone(),
        tenant: one.tenant.id.to_string(),
        query_type: Some(labelled::query_type(one.dialogue).to_owned()),
        query: one.dialogue.query.clone(),
        live: facts(0)?,
        other: facts(1)?,
        judge: None,
        at_ms: place,
    })
}

fn arm_facts(run: &Run, labels: LabelFacts) -> ArmFacts {
    #[expect(clippy::cast_precision_loss, reason = "a time in microseconds is far below 2^52")]
    let ms = |micros: u64| micros as f64 / 1000.0;
    let trace = &run.trace;
    let shown = |text: &str| text.chars().take(SHOWN_CHARS).collect();
    ArmFacts {
        rewrite: trace.rewrite.text.clone(),
        scores: trace.hits.iter().map(|hit| f64::from(hit.relevance())).collect(),
        hits: trace
            .hits
            .iter()
            .map(|hit| HitFacts { id: hit.passage.id.clone(), text: shown(&hit.passage.text) })
            .collect(),
        degraded: !trace.degraded.is_empty(),
        rewrite_ms: ms(trace.timings.rewrite_us),
        total_ms: ms(trace.timings.total_us),
        labels: Some(labels),
    }
}

/// Each question that is no pair once, by the first arm that failed.
fn failed(names: &[&str; 2], compared: &[Compared]) -> BTreeMap<String, u64> {
    let mut failed = BTreeMap::new();
    for one in compared {
        let first = names.iter().zip(&one.runs).find_map(|(name, run)| Some((name, run.as_ref().err()?)));
        if let Some((name, reason)) = first {
            *failed.entry(format!("{name}: {reason}")).or_default() += 1;
        }
    }
    failed
}

fn candidate(one: &Compared, run: &Run) -> Candidate {
    let relevant = |id: &str| one.dialogue.relevant.iter().any(|label| label.id == id && label.grade > 0);
    let found = (1..).zip(&run.trace.hits).find(|(_, hit)| relevant(&hit.passage.id));
    let rank = found.map_or(LabelRank::NotFound, |(place, _)| LabelRank::At(place));
    let rank = if one.dialogue.relevant.is_empty() { LabelRank::Unknown } else { rank };
    Candidate { text: run.trace.rewrite.text.clone(), rank }
}
