//! What the gateway adds to a bare server on the same stack: interleaved pairs at one connection.
//!
//! Pairs (A B A B) let a slow spell of the machine hit both arms; differences are taken inside a pair.

use std::fmt::{self, Write};
use std::process::Stdio;
use std::sync::Arc;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::closed_loop::{self, Amount, Plan};
use crate::error::Error;
use crate::frontier::median_and_range;
use crate::open_loop::{Finished, Load};

/// One arm of one pair, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Arm {
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile of the latency.
    pub p99_us: f64,
    /// CPU time of the server a request.
    pub cpu_us: Option<f64>,
    /// Median of the latency less the stages that the server reports.
    pub outside_p50_us: Option<f64>,
    /// 99th percentile of the same.
    pub outside_p99_us: Option<f64>,
    /// Requests not answered with 200.
    pub errors: u64,
}

impl Arm {
    /// Sums up a run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a request stay far below 2^53")]
    pub fn of(finished: &Finished) -> Self {
        let record = &finished.record;
        let latency = record.latency.percentiles();
        let outside = record.outside_stages.percentiles();
        let staged = record.staged > 0;
        Self {
            p50_us: latency.p50 as f64,
            p99_us: latency.p99 as f64,
            cpu_us: finished.cpu_us_per_request,
            outside_p50_us: staged.then_some(outside.p50 as f64),
            outside_p99_us: staged.then_some(outside.p99 as f64),
            errors: record.error_count(),
        }
    }
}

/// Median with lowest and highest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (median, low, high) = median_and_range(&values.collect::<Vec<_>>())?;
        Some(Self { median, low, high })
    }
}

/// One figure over all pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The figure.
    pub name: &'static str,
    /// The bare server; `None` where it has no such figure.
    pub echo: Option<Spread>,
    /// The gateway.
    pub gateway: Spread,
    /// Gateway less echo, pair by pair.
    pub difference: Option<Spread>,
    /// Gateway over echo, pair by pair.
    pub ratio: Option<Spread>,
}

/// The comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overhead {
    /// Echo and gateway of each pair, in order.
    pub pairs: Vec<(Arm, Arm)>,
    /// The figures over all pairs.
    pub rows: Vec<Row>,
}

impl Overhead {
    /// Compares the arms figure by figure.
    #[must_use]
    pub fn of(pairs: Vec<(Arm, Arm)>) -> Self {
        type Figure = fn(&Arm) -> Option<f64>;
        let figures: [(&'static str, Figure); 5] = [
            ("p50 us", |arm| Some(arm.p50_us)),
            ("p99 us", |arm| Some(arm.p99_us)),
            ("CPU us", |arm| arm.cpu_us),
            ("outside stages p50 us", |arm| arm.outside_p50_us),
            ("outside stages p99 us", |arm| arm.outside_p99_us),
        ];
        let rows = figures
            .iter()
            .filter_map(|(name, figure)| {
                let both = || pairs.iter().filter_map(|(echo, gateway)| Some((figure(echo)?, figure(gateway)?)));
                Some(Row {
                    name,
                    echo: Spread::of(pairs.iter().filter_map(|(echo, _)| figure(echo))),
                    gateway: Spread::of(pairs.iter().filter_map(|(_, gateway)| figure(gateway)))?,
                    difference: Spread::of(both().map(|(echo, gateway)| gateway - echo)),
                    ratio: Spread::of(both().filter(|(echo, _)| *echo > 0.0).map(|(echo, gateway)| gateway / echo)),
                })
            })
            .collect();
        Self { pairs, rows }
    }

    /// Writes the comparison as text.
    ///
    /// # Errors
    /// The text cannot be written.
    pub fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\noverhead at one connection, median [range] of {} interleaved pairs", self.pairs.len())?;
        let cell = |spread: &Option<Spread>, digits: usize| {
            spread.map_or_else(
                || "-".to_owned(),
                |Spread { median, low, high }| format!("{median:.digits$} [{low:.digits$} - {high:.digits$}]"),
            )
        };
        writeln!(out, "  {:<22} {:<24} {:<24} {:<24} ratio", "", "echo", "gateway", "difference")?;
        for row in &self.rows {
            let (echo, gateway) = (cell(&row.echo, 0), cell(&Some(row.gateway), 0));
            let (difference, ratio) = (cell(&row.difference, 0), cell(&row.ratio, 1));
            writeln!(out, "  {:<22} {echo:<24} {gateway:<24} {difference:<24} {ratio}", row.name)?;
        }
        Ok(())
    }
}

/// Runs `pairs` pairs of `requests` requests an arm, each after a tenth of that as warm-up.
///
/// Returns the comparison and the gateway's runs, for parity and stages.
///
/// # Errors
/// A server's process cannot be read.
pub async fn run(
    pairs: usize,
    requests: u64,
    echo: &Arc<Load>,
    gateway: &Arc<Load>,
) -> Result<(Overhead, Vec<Finished>), Error> {
    let plan =
        Plan { connections: 1, warm_up: Amount::Requests(requests.div_ceil(10)), measured: Amount::Requests(requests) };
    let mut arms = Vec::new();
    let mut runs = Vec::new();
    for _ in 0..pairs {
        let floor = closed_loop::run(plan, echo).await?;
        let finished = closed_loop::run(plan, gateway).await?;
        arms.push((Arm::of(&floor), Arm::of(&finished)));
        runs.push(finished);
    }
    Ok((Overhead::of(arms), runs))
}

/// The echo server as a process of its own, so that its CPU time can be told from the generator's. Ends with the value.
#[derive(Debug)]
pub struct EchoProcess {
    child: Child,
    /// Where it listens.
    pub url: String,
    // Held open, or the child's next print would fail.
    _stdout: BufReader<ChildStdout>,
}

impl EchoProcess {
    /// Starts `program echo` on a free port.
    ///
    /// # Errors
    /// The program does not start or does not say where it listens.
    pub async fn start(program: &std::path::Path) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .args(["echo", "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::file(program, source))?;
        let silent = || Error::Answer("the echo server ended before it listened".to_owned());
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(silent)?);
        let mut line = String::new();
        stdout.read_line(&mut line).await.map_err(|source| Error::file(program, source))?;
        let url = line.trim().strip_prefix("listening on ").ok_or_else(silent)?.to_owned();
        Ok(Self { child, url, _stdout: stdout })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(p50_us: f64, cpu_us: Option<f64>, outside: Option<f64>) -> Arm {
        Arm { p50_us, p99_us: 2.0 * p50_us, cpu_us, outside_p50_us: outside, outside_p99_us: outside, errors: 0 }
    }

    #[test]
    fn differences_are_taken_inside_a_pair() {
        // The second pair ran in a slow spell: the gateway's medians differ, what it adds does not.
        let pairs = vec![
            (arm(50.0, Some(6.0), None), arm(150.0, None, Some(80.0))),
            (arm(500.0, Some(7.0), None), arm(600.0, None, Some(90.0))),
        ];
        let overhead = Overhead::of(pairs);
        let p50 = &overhead.rows[0];
        assert_eq!(p50.difference, Some(Spread { median: 100.0, low: 100.0, high: 100.0 }));
        assert_eq!(p50.ratio.unwrap().high, 3.0);
        let names: Vec<_> = overhead.rows.iter().map(|row| row.name).collect();
        assert_eq!(names, ["p50 us", "p99 us", "outside stages p50 us", "outside stages p99 us"]);
        assert_eq!(overhead.rows[2].echo, None);
        let mut text = String::new();
        overhead.write(&mut text).unwrap();
        assert!(text.contains("100 [100 - 100]"), "{text}");
    }
}
