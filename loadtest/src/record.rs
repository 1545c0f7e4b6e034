//! What is kept of a run: latencies, failures, stages, acknowledged episodes.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;
use serde::Serialize;

use crate::client::{Failure, Reply};
use crate::reply::{Answer, StageTimes};

/// Longest latency told apart, in microseconds: two minutes.
const LONGEST_US: u64 = 120_000_000;

/// Microseconds at three digits, up to two minutes; longer ones count as two minutes.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants inside what the crate documents")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("1 to two minutes at 3 digits"))
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Percentiles {
    /// Values recorded.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest value.
    pub max: u64,
}

impl Latencies {
    /// Adds one value.
    pub fn add(&mut self, microseconds: u64) {
        self.0.saturating_record(microseconds.clamp(1, LONGEST_US));
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        Percentiles {
            count: self.0.len(),
            mean: self.0.mean(),
            p50: self.0.value_at_quantile(0.5),
            p90: self.0.value_at_quantile(0.9),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
        }
    }

    /// Every bucket that holds something, as `[microseconds, count]`: runs can be merged by adding counts.
    #[must_use]
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
    }
}

/// What became of one request.
#[derive(Debug)]
pub struct Sample {
    /// From the intended start (open loop) or the send (closed loop) to the whole reply.
    pub latency: Duration,
    /// The reply, read.
    pub outcome: Outcome,
}

/// The result of one request.
#[derive(Debug)]
pub enum Outcome {
    /// Status 200.
    Answered(Answer),
    /// Another status.
    Refused(StatusCode),
    /// No whole reply.
    Failed(Failure),
}

impl Outcome {
    /// Reads a reply.
    #[must_use]
    pub fn of(reply: Result<Reply, Failure>) -> Self {
        match reply {
            Ok(reply) if reply.status == StatusCode::OK => {
                let timing = reply.headers.get("server-timing").and_then(|value| value.to_str().ok());
                Self::Answered(Answer::read(&reply.body, timing))
            }
            Ok(reply) => Self::Refused(reply.status),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Everything a run adds up. Warm-up requests count for episodes only.
#[derive(Debug, Default)]
pub struct Record {
    /// Latency of answered requests, in microseconds.
    pub latency: Latencies,
    /// Latency less the stages that the server reports: transport, parsing, the episode, the reply.
    pub outside_stages: Latencies,
    /// How long after its intended start a request was really started, in microseconds (open loop).
    pub lateness: Latencies,
    /// Requests started later than the tolerance.
    pub late: u64,
    /// Answered with 200.
    pub answered: u64,
    /// Answered, but a stage was replaced by a weaker one.
    pub degraded: u64,
    /// Not answered with 200, by status or kind of failure.
    pub errors: BTreeMap<String, u64>,
    /// Sum of the reported stage times.
    pub stages: StageTimes,
    /// Answers that reported stage times.
    pub staged: u64,
    /// Episodes acknowledged as stored; warm-up included.
    pub episodes: HashSet<String>,
    /// Acknowledgements as stored; warm-up included. More than `episodes` means that an id came twice.
    pub acknowledged: u64,
    /// Requests whose fate is unknown (timeout, broken connection); warm-up included.
    pub unknown: u64,
    /// Answered with 200; warm-up included.
    pub replies: u64,
}

impl Record {
    /// Adds a request; `measured` is false in the warm-up.
    pub fn add(&mut self, sample: Sample, measured: bool) {
        if let Outcome::Failed(Failure::Timeout | Failure::Broken) = &sample.outcome {
            self.unknown += 1;
        }
        if let Outcome::Answered(answer) = &sample.outcome {
            self.replies += 1;
            if answer.episode_stored {
                self.acknowledged += 1;
                self.episodes.extend(answer.episode_id.clone());
            }
        }
        if !measured {
            return;
        }
        match sample.outcome {
            Outcome::Answered(answer) => {
                let latency_us = whole_us(sample.latency);
                self.answered += 1;
                self.degraded += u64::from(answer.degraded);
                self.latency.add(latency_us);
                if let Some(stages) = answer.stages {
                    self.staged += 1;
                    self.stages.rewrite_us += stages.rewrite_us;
                    self.stages.embed_us += stages.embed_us;
                    self.stages.search_us += stages.search_us;
                    self.stages.rerank_us += stages.rerank_us;
                    self.stages.total_us += stages.total_us;
                    self.outside_stages.add(latency_us.saturating_sub(stages.stages_us()));
                }
            }
            Outcome::Refused(status) => *self.errors.entry(status.as_str().to_owned()).or_default() += 1,
            Outcome::Failed(failure) => {
                *self.errors.entry(format!("{failure:?}").to_lowercase()).or_default() += 1;
            }
        }
    }

    /// Notes how late a measured request was started.
    pub fn started(&mut self, lateness: Duration, tolerance: Duration) {
        self.lateness.add(whole_us(lateness));
        self.late += u64::from(lateness > tolerance);
    }

    /// Requests that were not answered with 200.
    #[must_use]
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Whole microseconds, at most what fits.
#[must_use]
pub fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(id: &str, stored: bool) -> Sample {
        let stages = StageTimes { rewrite_us: 300, search_us: 100, total_us: 450, ..StageTimes::default() };
        let answer =
            Answer { episode_id: Some(id.to_owned()), episode_stored: stored, degraded: false, stages: Some(stages) };
        Sample { latency: Duration::from_micros(1_000), outcome: Outcome::Answered(answer) }
    }

    #[test]
    fn the_warm_up_counts_for_episodes_only() {
        let mut record = Record::default();
        record.add(answered("a", true), false);
        record.add(answered("b", true), true);
        record.add(answered("c", false), true);
        assert_eq!((record.answered, record.acknowledged, record.episodes.len()), (2, 2, 2));
        assert_eq!(record.latency.percentiles().count, 2);
        assert_eq!(record.outside_stages.percentiles().max, 600);
    }

    #[test]
    fn failures_are_told_apart() {
        let mut record = Record::default();
        let failed = |failure| Sample { latency: Duration::ZERO, outcome: Outcome::Failed(failure) };
        record.add(failed(Failure::Timeout), true);
        record.add(failed(Failure::Connect), true);
        let refused = Outcome::Refused(StatusCode::TOO_MANY_REQUESTS);
        record.add(Sample { latency: Duration::ZERO, outcome: refused }, true);
        assert_eq!((record.error_count(), record.unknown), (3, 1));
        assert_eq!(record.errors["429"], 1);
    }

    #[test]
    fn the_dump_holds_every_value() {
        let mut latencies = Latencies::default();
        for value in [5, 5, 900, 40_000, u64::MAX] {
            latencies.add(value);
        }
        let buckets = latencies.buckets();
        assert_eq!(buckets.iter().map(|bucket| bucket.1).sum::<u64>(), 5);
        assert_eq!(buckets[0], (5, 2));
    }
}
