//! Rankings held against labels: three metrics a question, and a table of arms with intervals.

use std::fmt::Write;

use recast_experiments::{Bootstrap, Estimate, StatsError, bootstrap_mean, bootstrap_paired_difference};
use recast_retrieval::eval::metrics::{self, Grades};
use serde::Serialize;

/// How good one ranking is, each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Labelled {
    /// 1 where the first hit is relevant.
    pub top1: f64,
    /// Share of the relevant passages among the first five.
    pub recall_at_5: f64,
    /// Discounted gain of the first ten over that of the best order.
    pub ndcg_at_10: f64,
}

impl Labelled {
    /// The metrics of a ranking of passage ids, best first.
    pub fn of<S: AsRef<str>>(ranking: &[S], grades: &Grades) -> Self {
        Self {
            top1: metrics::success(ranking, grades, 1),
            recall_at_5: metrics::recall(ranking, grades, 5),
            // The gain of an empty ranking is a sum of nothing, -0.0, which would be printed so.
            ndcg_at_10: metrics::ndcg(ranking, grades, 10) + 0.0,
        }
    }
}

/// An arm's name, and its metrics question by question.
pub type ArmLabels<'a> = (&'a str, Vec<Labelled>);

type Metric = (&'static str, fn(&Labelled) -> f64);

const METRICS: [Metric; 3] =
    [("top-1", |one| one.top1), ("recall@5", |one| one.recall_at_5), ("nDCG@10", |one| one.ndcg_at_10)];

/// Arms in the given order, means with 95 % bootstrap intervals; below them what each arm gains over the one before, over
/// the same questions. Every arm must have the same questions in the same order.
pub fn table(arms: &[ArmLabels]) -> String {
    let mut out = String::new();
    let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
    let _ = writeln!(out, "| arm | n | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for (name, questions) in arms {
        let cells = METRICS.map(|(_, metric)| shown(bootstrap_mean(&values(questions, metric), Bootstrap::default())));
        let _ = writeln!(out, "| {name} | {} | {} |", questions.len(), cells.join(" | "));
    }
    let _ = writeln!(out);
    for pair in arms.windows(2) {
        if let [(worse, before), (better, after)] = pair {
            let cells = METRICS.map(|(name, metric)| {
                let (after, before) = (values(after, metric), values(before, metric));
                let gain = bootstrap_paired_difference(&after, &before, Bootstrap::default());
                format!("{name} {}", difference(gain))
            });
            let _ = writeln!(out, "{better} - {worse}: {}", cells.join(", "));
        }
    }
    out
}

fn values(questions: &[Labelled], metric: fn(&Labelled) -> f64) -> Vec<f64> {
    questions.iter().map(metric).collect()
}

fn shown(estimate: Result<Estimate, StatsError>) -> String {
    estimate.map_or_else(
        |_| "-".to_owned(),
        |it| format!("{:.3} [{:.3}, {:.3}]", it.mean, it.interval.lower, it.interval.upper),
    )
}

fn difference(estimate: Result<Estimate, StatsError>) -> String {
    estimate.map_or_else(
        |_| "-".to_owned(),
        |it| format!("{:+.3} [{:+.3}, {:+.3}]", it.mean, it.interval.lower, it.interval.upper),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_is_held_against_its_labels() {
        let grades = Grades::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let best = Labelled::of(&["a", "b"], &grades);
        assert_eq!((best.top1, best.recall_at_5, best.ndcg_at_10), (1.0, 1.0, 1.0));
        let late = Labelled::of(&["x", "a"], &grades);
        assert_eq!((late.top1, late.recall_at_5), (0.0, 0.5));
        assert!(late.ndcg_at_10 > 0.0 && late.ndcg_at_10 < 1.0);
    }

    #[test]
    fn the_table_shows_each_arm_and_each_step() {
        let arm = |top1| vec![Labelled { top1, recall_at_5: top1, ndcg_at_10: top1 }; 4];
        let text = table(&[("raw", arm(0.25)), ("local", arm(0.5)), ("teacher", arm(1.0))]);
        assert!(text.contains("| raw | 4 | 0.250 [0.250, 0.250]"), "{text}");
        assert!(text.contains("local - raw: top-1 +0.250"), "{text}");
        assert!(text.contains("teacher - local: top-1 +0.500"), "{text}");
    }
}
