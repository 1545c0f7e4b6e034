//! Row parity: as many episodes stored as the server acknowledged.

use std::time::Duration;

use serde::Serialize;

use crate::client::Pool;
use crate::error::Error;
use crate::record::Record;

/// Where the number of stored episodes is read.
#[derive(Debug, Clone)]
pub enum Counter {
    /// The sum of a counter over its labels, from the Prometheus text at a path of the server.
    Metric {
        /// Such as `/metrics`.
        path: String,
        /// Such as `recast_episodes_stored_total`.
        name: String,
    },
    /// The number that a shell command prints, such as a count by `sqlite3` on a copy of the store.
    Command(String),
}

/// What the server acknowledged against what it stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parity {
    /// Acknowledgements as stored.
    pub acknowledged: u64,
    /// Distinct episode ids among them.
    pub distinct: u64,
    /// Rows that the server gained during the run.
    pub stored: u64,
    /// Requests whose fate the client does not know; they may have been stored.
    pub unknown: u64,
    /// Acknowledged but not stored: must be 0.
    pub missing: u64,
    /// Acknowledgements that repeat an id: must be 0.
    pub repeated: u64,
    /// Stored, not acknowledged and not explained by `unknown`: 0 where nobody else uses the server.
    pub unexplained: u64,
}

impl Parity {
    /// Compares the sums of a run with the growth of the counter.
    #[must_use]
    pub fn of(record: &Record, before: u64, after: u64) -> Self {
        let distinct = record.episodes.len() as u64;
        let stored = after.saturating_sub(before);
        Self {
            acknowledged: record.acknowledged,
            distinct,
            stored,
            unknown: record.unknown,
            missing: distinct.saturating_sub(stored),
            repeated: record.acknowledged.saturating_sub(distinct),
            unexplained: stored.saturating_sub(distinct + record.unknown),
        }
    }

    /// Whether anything was acknowledged or stored, so that the comparison says something.
    #[must_use]
    pub fn tested(&self) -> bool {
        self.acknowledged > 0 || self.stored > 0
    }

    /// Whether every acknowledged episode is stored once, and nothing else is.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.repeated == 0 && self.unexplained == 0
    }
}

/// The sum of a counter over its labels in a Prometheus text; `None` where it does not appear.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
pub fn metric_sum(text: &str, name: &str) -> Option<u64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}').map(|(_, value)| value),
            None => rest.strip_prefix(' '),
        };
        // A time stamp may follow the value.
        let value = value.and_then(|value| value.split_whitespace().next()).and_then(|text| text.parse::<f64>().ok());
        if let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) {
            *sum.get_or_insert(0) += value as u64;
        }
    }
    sum
}

/// Reads the number of stored episodes now; a counter that has not counted yet is 0.
///
/// # Errors
/// The server or the command does not give a number.
pub async fn read(counter: &Counter, pool: &Pool) -> Result<u64, Error> {
    match counter {
        Counter::Metric { path, name } => {
            let reply = pool.get(path).await.map_err(|failure| {
                Error::Answer(format!("{path} did not answer ({failure:?}): give --metrics-path, or --no-parity"))
            })?;
            if reply.status != http::StatusCode::OK {
                let status = reply.status;
                return Err(Error::Answer(format!("{path} answered {status}: give --metrics-path, or --no-parity")));
            }
            Ok(metric_sum(&String::from_utf8_lossy(&reply.body), name).unwrap_or(0))
        }
        Counter::Command(command) => {
            let output = tokio::process::Command::new("sh").args(["-c", command]).output().await;
            let output = output.map_err(|error| Error::Answer(format!("count command: {error}")))?;
            let text = String::from_utf8_lossy(&output.stdout);
            let number = text.trim().parse().ok().filter(|_| output.status.success());
            number.ok_or_else(|| {
                let complaint = String::from_utf8_lossy(&output.stderr);
                Error::Answer(format!("count command must print one number, printed {:?} {complaint}", text.trim()))
            })
        }
    }
}

/// Reads the counter until it has caught up with what was acknowledged, for at most `patience` (a server that stores
/// in groups is a little behind its replies), and compares.
///
/// # Errors
/// As [`read`].
pub async fn settle(
    counter: &Counter,
    pool: &Pool,
    record: &Record,
    before: u64,
    patience: Duration,
) -> Result<Parity, Error> {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        tick.tick().await;
        let parity = Parity::of(record, before, read(counter, pool).await?);
        if parity.missing == 0 || tokio::time::Instant::now() >= deadline {
            return Ok(parity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ids: &[&str], acknowledged: u64, unknown: u64) -> Record {
        let episodes = ids.iter().map(|id| (*id).to_owned()).collect();
        Record { episodes, acknowledged, unknown, ..Record::default() }
    }

    #[test]
    fn equal_counts_hold() {
        assert!(Parity::of(&record(&["a", "b"], 2, 0), 10, 12).holds());
    }

    #[test]
    fn a_lost_a_repeated_and_a_foreign_row_each_break_it() {
        let lost = Parity::of(&record(&["a", "b"], 2, 0), 10, 11);
        assert_eq!((lost.missing, lost.holds()), (1, false));
        let repeated = Parity::of(&record(&["a"], 2, 0), 0, 1);
        assert_eq!((repeated.repeated, repeated.holds()), (1, false));
        let foreign = Parity::of(&record(&["a"], 1, 0), 0, 2);
        assert_eq!((foreign.unexplained, foreign.holds()), (1, false));
    }

    #[test]
    fn a_request_of_unknown_fate_may_or_may_not_be_stored() {
        for after in [1, 2] {
            assert!(Parity::of(&record(&["a"], 1, 1), 0, after).holds());
        }
    }

    #[test]
    fn sums_a_counter_over_its_labels() {
        let text = "# TYPE stored_total counter\nstored_total{tenant=\"a} b\"} 3\nstored_total 4 1700000000\n\
                    stored_total_other 9\nstored_total{tenant=\"b\"} 1e1\n";
        assert_eq!(metric_sum(text, "stored_total"), Some(17));
        assert_eq!(metric_sum(text, "missing"), None);
    }
}
