use std::collections::BTreeSet;
use std::fmt::Write;

use recast_experiments::{Bootstrap, bootstrap_mean, bootstrap_paired_difference};
use serde::Serialize;

/// All figures of an evaluation.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// One entry a question.
    pub questions: Vec<Question>,
}

/// One question, searched in several ways.
#[derive(Debug, Serialize)]
pub struct Question {
    pub id: String,
    pub tenant: String,
    pub query_type: String,
    pub rewriting: Option<Rewriting>,
    pub runs: Vec<Run>,
}

/// What the rewriter did.
#[derive(Debug, Serialize)]
pub struct Rewriting {
    pub text: String,
    pub by_local_model: bool,
    /// Equal to one of the gold rewrites, white space and case aside.
    pub exact: bool,
    /// About a document that no train dialogue is about.
    pub unseen_name: bool,
    pub rewrite_us: u64,
}

/// The metrics of one ranking.
#[derive(Debug, Serialize)]
pub struct Run {
    /// raw, rewrite or gold.
    pub query: String,
    /// bm25, dense, hybrid or hybrid+rerank.
    pub search: String,
    pub top1: f64,
    pub recall_5: f64,
    pub recall_10: f64,
    pub mrr: f64,
    pub ndcg_10: f64,
    pub precision_5: f64,
}

type Metric = (&'static str, fn(&Run) -> f64);

const METRICS: [Metric; 6] = [
    ("top-1", |run| run.top1),
    ("recall@5", |run| run.recall_5),
    ("recall@10", |run| run.recall_10),
    ("MRR", |run| run.mrr),
    ("nDCG@10", |run| run.ndcg_10),
    ("P@5", |run| run.precision_5),
];
const QUERIES: [&str; 3] = ["raw", "rewrite", "gold"];

type Chosen<'a> = &'a dyn Fn(&Question) -> bool;

impl Report {
    fn values(&self, chosen: Chosen, query: &str, search: &str, metric: fn(&Run) -> f64) -> Vec<f64> {
        let questions = self.questions.iter().filter(|question| chosen(question));
        let run = |question: &Question| {
            let found = question.runs.iter().find(|run| run.query == query && run.search == search);
            found.map(metric)
        };
        questions.filter_map(run).collect()
    }

    fn searches(&self) -> Vec<&str> {
        let first = self.questions.first().map(|question| question.runs.as_slice()).unwrap_or_default();
        let mut names: Vec<&str> = Vec::new();
        for run in first {
            if !names.contains(&run.search.as_str()) {
                names.push(&run.search);
            }
        }
        names
    }
}

/// A table for people: mean with 95 % bootstrap interval.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let tenants: BTreeSet<&str> = report.questions.iter().map(|question| question.tenant.as_str()).collect();
    let types: BTreeSet<&str> = report.questions.iter().map(|question| question.query_type.as_str()).collect();
    section(&mut out, report, "all tenants", &|_| true);
    if tenants.len() > 1 {
        for tenant in &tenants {
            section(&mut out, report, tenant, &|question| question.tenant == *tenant);
        }
    }
    if types.len() > 1 {
        let full = report.searches().last().copied().unwrap_or_default().to_owned();
        let _ = writeln!(out, "\n## by query type, {full}\n");
        header(&mut out, "type, query");
        for kind in &types {
            for query in QUERIES {
                row(
                    &mut out,
                    report,
                    &format!("{kind}, {query}"),
                    &|question| question.query_type == *kind,
                    query,
                    &full,
                );
            }
        }
    }
    comparisons(&mut out, report, &tenants);
    rewriting(&mut out, report);
    out
}

fn header(out: &mut String, first: &str) {
    let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(out, "| {first} | n | {} |", names.join(" | "));
    let _ = writeln!(out, "|---|---|{}", "---|".repeat(names.len()));
}

fn section(out: &mut String, report: &Report, name: &str, chosen: Chosen) {
    let _ = writeln!(out, "\n## {name}\n");
    header(out, "query, search");
    for query in QUERIES {
        for search in report.searches() {
            row(out, report, &format!("{query}, {search}"), chosen, query, search);
        }
    }
}

fn row(out: &mut String, report: &Report, label: &str, chosen: Chosen, query: &str, search: &str) {
    let count = report.values(chosen, query, search, METRICS[0].1).len();
    if count == 0 {
        return;
    }
    let cells: Vec<String> =
        METRICS.iter().map(|(_, metric)| mean(&report.values(chosen, query, search, *metric))).collect();
    let _ = writeln!(out, "| {label} | {count} | {} |", cells.join(" | "));
}

fn mean(values: &[f64]) -> String {
    bootstrap_mean(values, Bootstrap::default()).map_or_else(
        |_| "-".to_owned(),
        |estimate| format!("{:.3} [{:.3}, {:.3}]", estimate.mean, estimate.interval.lower, estimate.interval.upper),
    )
}

fn difference(left: &[f64], right: &[f64]) -> String {
    bootstrap_paired_difference(left, right, Bootstrap::default()).map_or_else(
        |_| "-".to_owned(),
        |estimate| format!("{:+.3} [{:+.3}, {:+.3}]", estimate.mean, estimate.interval.lower, estimate.interval.upper),
    )
}

/// Paired differences: what the rewriter closes, and whether both legs together beat each alone.
fn comparisons(out: &mut String, report: &Report, tenants: &BTreeSet<&str>) {
    let searches = report.searches();
    let Some(full) = searches.last() else { return };
    let everyone: Chosen = &|_| true;
    let recall_5: fn(&Run) -> f64 = |run| run.recall_5;
    let of = |query| report.values(everyone, query, full, recall_5);
    let (raw, rewrite, gold) = (of("raw"), of("rewrite"), of("gold"));
    let average = |values: &[f64]| values.iter().sum::<f64>() / (values.len().max(1)) as f64;
    if !rewrite.is_empty() {
        let distance = average(&gold) - average(&raw);
        let closed = if distance > 0.0 { (average(&rewrite) - average(&raw)) / distance } else { f64::NAN };
        let _ = writeln!(out, "\n## paired differences (95 % interval)\n");
        let _ = writeln!(out, "- recall@5, {full}: rewrite - raw {}", difference(&rewrite, &raw));
        let _ = writeln!(out, "- recall@5, {full}: gold - rewrite {}", difference(&gold, &rewrite));
        let _ = writeln!(
            out,
            "- share of the recall@5 distance raw -> gold that the rewrite closes: {:.1} %",
            100.0 * closed
        );
    }
    if searches.contains(&"hybrid") {
        let mrr: fn(&Run) -> f64 = |run| run.mrr;
        let query = if rewrite.is_empty() { "raw" } else { "rewrite" };
        let mut scopes: Vec<Option<&str>> = vec![None];
        scopes.extend(tenants.iter().copied().map(Some));
        for scope in scopes {
            let chosen = |question: &Question| scope.is_none_or(|tenant| question.tenant == tenant);
            let of = |search| report.values(&chosen, query, search, mrr);
            let hybrid = of("hybrid");
            for leg in ["bm25", "dense"] {
                let name = scope.unwrap_or("all tenants");
                let _ = writeln!(out, "- MRR, {name}, {query}: hybrid - {leg} {}", difference(&hybrid, &of(leg)));
            }
        }
    }
}

fn rewriting(out: &mut String, report: &Report) {
    let all: Vec<&Rewriting> = report.questions.iter().filter_map(|question| question.rewriting.as_ref()).collect();
    if all.is_empty() {
        return;
    }
    let local = all.iter().filter(|rewriting| rewriting.by_local_model).count();
    let _ = writeln!(out, "\n## rewriting\n\n- by the local model: {local} of {}", all.len());
    for (name, unseen) in [("seen in training", false), ("never seen in training", true)] {
        let of: Vec<f64> = all
            .iter()
            .filter(|rewriting| rewriting.unseen_name == unseen)
            .map(|rewriting| f64::from(u8::from(rewriting.exact)))
            .collect();
        let _ = writeln!(out, "- equal to a gold rewrite, names {name}: {} (n = {})", mean(&of), of.len());
    }
}
