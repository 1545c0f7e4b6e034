//! The numbers for a terminal.

use std::fmt::Write;

use super::{Counts, Named, Stats};

/// Letters of a query that are shown.
const QUERY: usize = 40;

/// A share in per cent; of nothing it is 0.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

pub(super) fn counts(counts: &Counts) -> String {
    format!(
        "{} episodes, {:.1} % degraded, {:.1} % without a hit, {} thumbs up, {} down",
        counts.episodes,
        percent(counts.degraded, counts.episodes),
        percent(counts.empty, counts.episodes),
        counts.thumbs_up,
        counts.thumbs_down
    )
}

pub(super) fn pairs(stats: &Stats) -> String {
    let pairs = stats.pairs;
    let mut text = format!("{} paired runs, {} judged", pairs.completed, pairs.judged);
    if let (Some(rate), Some((lower, upper))) = (pairs.win_rate, pairs.interval) {
        let _ = write!(
            text,
            ": the paired rewrite wins {:.1} % ({:.1} to {:.1} %; {} wins, {} ties, {} losses)",
            100.0 * rate,
            100.0 * lower,
            100.0 * upper,
            pairs.wins,
            pairs.ties,
            pairs.losses
        );
    }
    text
}

fn list(names: &[Named]) -> String {
    names.iter().map(|one| format!("{} {}", one.name, one.episodes)).collect::<Vec<_>>().join(", ")
}

impl Stats {
    /// The numbers for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        // writing to a string cannot fail
        let mut text = counts(&self.total);
        if self.unreadable > 0 {
            let _ = write!(text, "\n{} could not be read: run recast doctor", self.unreadable);
        }
        let _ = write!(text, "\nsources: {}", list(&self.sources));
        if !self.degradations.is_empty() {
            let _ = write!(text, "\ndegraded: {}", list(&self.degradations));
        }
        let _ = write!(text, "\n{}\n", pairs(self));
        let _ = write!(text, "\n{:<10}{:>10}{:>12}{:>12}{:>12}", "stage", "episodes", "p50 ms", "p95 ms", "p99 ms");
        for stage in &self.latency {
            let (name, n) = (stage.stage, stage.episodes);
            let _ =
                write!(text, "\n{name:<10}{n:>10}{:>12.1}{:>12.1}{:>12.1}", stage.p50_ms, stage.p95_ms, stage.p99_ms);
        }
        let _ = write!(
            text,
            "\n\n{:<12}{:>10}{:>12}{:>12}{:>12}",
            "day (UTC)", "episodes", "degraded %", "empty %", "down"
        );
        for day in &self.days {
            let n = day.counts;
            let (degraded, empty) = (percent(n.degraded, n.episodes), percent(n.empty, n.episodes));
            let _ =
                write!(text, "\n{:<12}{:>10}{degraded:>12.1}{empty:>12.1}{:>12}", day.date, n.episodes, n.thumbs_down);
        }
        if !self.failing.is_empty() {
            let _ = write!(text, "\n\nwrong  empty  degraded  down  query");
        }
        for one in &self.failing {
            let query: String =
                one.query.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(QUERY).collect();
            let _ = write!(
                text,
                "\n{:>5}{:>7}{:>10}{:>6}  {query} ({})",
                one.failed, one.empty, one.degraded, one.thumbs_down, one.tenant
            );
        }
        if self.failing_others > 0 {
            let _ = write!(text, "\n{:>5}  of other queries, not counted one by one", self.failing_others);
        }
        text
    }
}
