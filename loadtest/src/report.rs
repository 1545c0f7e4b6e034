//! Figures of a run, as JSON and as text for people.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use crate::frontier::{LATE_SHARE_LIMIT, Reach, Step, late_share, median_and_range};
use crate::machine::Machine;
use crate::open_loop::Finished;
use crate::overhead::Overhead;
use crate::parity::Parity;
use crate::record::{Percentiles, Record};

/// Everything that one call of the program found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The mode: `open`, `closed`, `ladder` or `overhead`.
    pub mode: &'static str,
    /// The server and path.
    pub target: String,
    /// Bodies that were sent in turn.
    pub bodies: usize,
    /// Whether the rewrite was given, so that the server skipped its rewriter.
    pub with_gold: bool,
    /// What the server says at `/v1/version`, where it says anything.
    pub server: Option<serde_json::Value>,
    /// What the machine was doing.
    pub machine: Machine,
    /// Each run, in order.
    pub runs: Vec<Summary>,
    /// One frontier for each repeat of the ladder.
    pub frontiers: Vec<Vec<Reach>>,
    /// The comparison with the floor, in mode `overhead`.
    pub overhead: Option<Overhead>,
    /// Stored against acknowledged, unless left out.
    pub parity: Option<Parity>,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Requests per second asked for; `None` in a closed loop.
    pub offered_rate: Option<f64>,
    /// Requests on the wire at once; `None` in an open loop.
    pub connections: Option<usize>,
    /// From the end of the warm-up to the last reply.
    pub seconds: f64,
    /// Requests answered with 200.
    pub answered: u64,
    /// The same by second.
    pub answered_per_second: f64,
    /// Requests not answered with 200, by status or kind of failure.
    pub errors: BTreeMap<String, u64>,
    /// Answers in which a stage was replaced by a weaker one.
    pub degraded: u64,
    /// Latency of the answers.
    pub latency_us: Percentiles,
    /// How late the generator started requests (open loop).
    pub lateness_us: Percentiles,
    /// Share started later than the tolerance.
    pub late_share: f64,
    /// The generator was too late: the latencies say nothing about the server.
    pub voided: bool,
    /// CPU microseconds of the server a request.
    pub cpu_us_per_request: Option<f64>,
    /// Where the time went; `None` where the server does not say.
    pub stages: Option<Stages>,
    /// Every latency, as `[microseconds, count]`.
    pub histogram_us: Vec<(u64, u64)>,
}

/// Where the time went.
#[derive(Debug, Serialize)]
pub struct Stages {
    /// Stage, mean microseconds, share of the mean latency.
    pub rows: Vec<(&'static str, f64, f64)>,
    /// Latency less the four stages, request by request.
    pub outside_us: Percentiles,
}

impl Summary {
    /// Sums up a run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn of(finished: &Finished, offered_rate: Option<f64>, connections: Option<usize>) -> Self {
        let record = &finished.record;
        let seconds = finished.elapsed.as_secs_f64();
        let late_share = late_share(finished);
        Self {
            offered_rate,
            connections,
            seconds,
            answered: record.answered,
            answered_per_second: if seconds > 0.0 { record.answered as f64 / seconds } else { 0.0 },
            errors: record.errors.clone(),
            degraded: record.degraded,
            latency_us: record.latency.percentiles(),
            lateness_us: record.lateness.percentiles(),
            late_share,
            voided: late_share > LATE_SHARE_LIMIT,
            cpu_us_per_request: finished.cpu_us_per_request,
            stages: stages(record),
            histogram_us: record.latency.buckets(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run stay far below 2^53")]
fn stages(record: &Record) -> Option<Stages> {
    if record.staged == 0 {
        return None;
    }
    let latency = record.latency.percentiles().mean;
    let sums = record.stages;
    let named = [
        ("rewrite", sums.rewrite_us),
        ("embed", sums.embed_us),
        ("search", sums.search_us),
        ("rerank", sums.rerank_us),
    ];
    let mut rows: Vec<(&'static str, f64, f64)> = named
        .iter()
        .map(|(name, sum)| {
            let mean = *sum as f64 / record.staged as f64;
            (*name, mean, mean / latency)
        })
        .collect();
    let outside = record.outside_stages.percentiles();
    rows.push(("outside", outside.mean, outside.mean / latency));
    Some(Stages { rows, outside_us: outside })
}

/// The report as text.
///
/// # Errors
/// The text cannot be written, which does not happen for a `String`.
pub fn to_text(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let machine = &report.machine;
    let idle = machine.idle_share.map_or_else(|| "?".to_owned(), |share| format!("{:.0} %", 100.0 * share));
    let rewrite = if report.with_gold { "given" } else { "made by the server" };
    writeln!(out, "{} against {}, {} bodies, rewrite {rewrite}", report.mode, report.target, report.bodies)?;
    writeln!(
        out,
        "machine: {} cores, Linux {}, load average before {}, idle during {idle}",
        machine.cores, machine.kernel, machine.load_average
    )?;
    writeln!(out)?;
    runs_table(&mut out, &report.runs)?;
    if let Some(stages) = report.runs.iter().rev().find_map(|run| run.stages.as_ref()) {
        writeln!(out, "\nstages of the last run (mean us, share of latency)")?;
        for (name, mean, share) in &stages.rows {
            writeln!(out, "  {name:<8} {mean:>10.0} {:>6.1} %", 100.0 * share)?;
        }
        writeln!(out, "  outside the stages: p50 {} us, p99 {} us", stages.outside_us.p50, stages.outside_us.p99)?;
    }
    if !report.frontiers.is_empty() {
        frontier_table(&mut out, &report.frontiers)?;
    }
    if let Some(overhead) = &report.overhead {
        overhead.write(&mut out)?;
    }
    if let Some(parity) = &report.parity {
        let verdict = match (parity.tested(), parity.holds()) {
            (false, _) => "NOT TESTED",
            (true, true) => "holds",
            (true, false) => "BROKEN",
        };
        writeln!(
            out,
            "\nrow parity {verdict}: {} acknowledged ({} distinct), {} stored, {} of unknown fate; missing {}, repeated {}, unexplained {}",
            parity.acknowledged,
            parity.distinct,
            parity.stored,
            parity.unknown,
            parity.missing,
            parity.repeated,
            parity.unexplained
        )?;
    }
    Ok(out)
}

fn runs_table(out: &mut String, runs: &[Summary]) -> fmt::Result {
    writeln!(
        out,
        "{:>10} {:>9} {:>8} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9} {:>8} {:>7}",
        "asked", "req/s", "answered", "errors", "degraded", "p50 us", "p99 us", "p99.9 us", "max us", "CPU us", "late"
    )?;
    for run in runs {
        let asked = match (run.offered_rate, run.connections) {
            (Some(rate), _) => format!("{rate:.1}/s"),
            (None, Some(connections)) => format!("c={connections}"),
            (None, None) => "-".to_owned(),
        };
        let cpu = run.cpu_us_per_request.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.0}"));
        let errors: u64 = run.errors.values().sum();
        let latency = &run.latency_us;
        write!(out, "{asked:>10} {:>9.1} {:>8} {errors:>7}", run.answered_per_second, run.answered)?;
        write!(out, " {:>8} {:>9} {:>9}", run.degraded, latency.p50, latency.p99)?;
        write!(out, " {:>9} {:>9} {cpu:>8} {:>6.2}%", latency.p999, latency.max, 100.0 * run.late_share)?;
        writeln!(out, "{}", if run.voided { " VOID: the generator was late" } else { "" })?;
        for (kind, count) in &run.errors {
            writeln!(out, "{:>10} {count} x {kind}", "")?;
        }
    }
    Ok(())
}

fn frontier_table(out: &mut String, frontiers: &[Vec<Reach>]) -> fmt::Result {
    writeln!(out, "\nfrontier: highest rate with errors = 0, median [range] of {} climbs", frontiers.len())?;
    let Some(first) = frontiers.first() else { return Ok(()) };
    for (index, reach) in first.iter().enumerate() {
        let column: Vec<&Reach> = frontiers.iter().filter_map(|frontier| frontier.get(index)).collect();
        // A climb that never held the bound counts as 0, or the median would flatter.
        let rates: Vec<f64> = column.iter().map(|reach| reach.rate.unwrap_or(0.0)).collect();
        let (median, low, high) = median_and_range(&rates).unwrap_or_default();
        let noisy = if column.iter().any(|reach| reach.noisy) { "  (a lower rate failed: noisy)" } else { "" };
        writeln!(out, "  p99 <= {:>3} ms  {median:>8.1}/s [{low:.1} - {high:.1}]{noisy}", reach.bound_ms)?;
    }
    Ok(())
}

/// One line while a ladder climbs.
#[must_use]
pub fn step_line(step: &Step) -> String {
    let mut line =
        format!("{:>8.1}/s  p50 {} us  p99 {} us  errors {}", step.rate, step.p50_us, step.p99_us, step.errors);
    if step.voided() {
        let _ = write!(line, "  void: {:.1} % of the starts were late", 100.0 * step.late_share);
    }
    line
}
