use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use recast_domain::TenantId;
use recast_experiments::WinTieLoss;

use super::failing::{FailingQueries, Faults};
use super::{Counts, Day, Named, Pairs, Stage, Stats};
use crate::export::{ExportError, ExportFilter, Row, Source, date_text, time_text};
use crate::reader::EpisodeReader;

/// Confidence of the win rate's interval.
const LEVEL: f64 = 0.95;
/// Scores this close are equal.
const SLACK: f64 = 1e-9;
const DAY_MS: i64 = 86_400_000;

/// Walks over the episodes of `tenants` once, in the memory of its counters.
///
/// # Errors
/// When the store cannot be read.
pub fn gather(reader: &EpisodeReader, tenants: &[TenantId], filter: &ExportFilter) -> Result<Stats, ExportError> {
    let (source, snapshot) = Source::open(reader)?;
    let mut counters = Counters::new()?;
    for tenant in tenants {
        source.rows(tenant, filter, &snapshot, |row| match row {
            Ok(row) => counters.add(tenant, row),
            Err(error) => {
                tracing::warn!(%error, "an episode is not counted");
                counters.unreadable += 1;
            }
        })?;
    }
    Ok(counters.finish(tenants.to_vec(), filter.clone(), time_text(snapshot.taken_ms)))
}

struct Counters {
    total: Counts,
    unreadable: u64,
    days: BTreeMap<i64, Counts>,
    stages: Vec<(&'static str, Histogram<u64>)>,
    sources: BTreeMap<String, u64>,
    degradations: BTreeMap<String, u64>,
    pairs: Pairs,
    failing: FailingQueries,
}

impl Counters {
    fn new() -> Result<Self, ExportError> {
        let mut stages = Vec::new();
        for stage in ["rewrite", "embed", "search", "rerank", "total"] {
            // grows by itself; three digits are one part in a thousand
            let histogram = Histogram::new(3).map_err(|error| ExportError::Encode(error.to_string()))?;
            stages.push((stage, histogram));
        }
        Ok(Self {
            total: Counts::default(),
            unreadable: 0,
            days: BTreeMap::new(),
            stages,
            sources: BTreeMap::new(),
            degradations: BTreeMap::new(),
            pairs: Pairs::default(),
            failing: FailingQueries::default(),
        })
    }

    fn add(&mut self, tenant: &TenantId, row: &Row<'_>) {
        let faults =
            Faults { empty: row.hits.count == 0, degraded: row.meta.degraded, thumbs_down: row.feedback.down > 0 };
        let day = self.days.entry(row.meta.created_ms.div_euclid(DAY_MS)).or_default();
        for counts in [&mut self.total, day] {
            counts.episodes += 1;
            counts.degraded += u64::from(faults.degraded);
            counts.empty += u64::from(faults.empty);
            counts.thumbs_up += u64::from(row.feedback.up > 0);
            counts.thumbs_down += u64::from(faults.thumbs_down);
        }
        let timings = row.body.timings;
        let times = [timings.rewrite_us, timings.embed_us, timings.search_us, timings.rerank_us, timings.total_us];
        for ((_, histogram), micros) in self.stages.iter_mut().zip(times) {
            // 0 is a stage that did not run; the histogram grows, and refuses no time that a stage could take
            if micros > 0 && histogram.record(micros).is_err() {
                tracing::warn!(micros, "a time is too long to be counted");
            }
        }
        count(&mut self.sources, row.body.rewrite.source.as_str());
        if faults.degraded {
            let stages: Vec<String> = serde_json::from_str(row.body.degraded.get()).unwrap_or_default();
            stages.iter().for_each(|stage| count(&mut self.degradations, stage));
        }
        self.pairs.completed += u64::from(row.shadow.as_ref().is_some_and(|run| run.answer.is_some()));
        if let (Some(live), Some(shadow)) = (row.verdicts.live, row.verdicts.shadow) {
            let difference = shadow - live;
            self.pairs.judged += 1;
            match difference {
                _ if difference.abs() <= SLACK => self.pairs.ties += 1,
                _ if difference > 0.0 => self.pairs.wins += 1,
                _ => self.pairs.losses += 1,
            }
        }
        self.failing.add(tenant, row.body.conversation.query.as_str(), faults);
    }

    fn finish(mut self, tenants: Vec<TenantId>, filter: ExportFilter, taken_at: String) -> Stats {
        let Pairs { wins, ties, losses, .. } = self.pairs;
        let rate = WinTieLoss { wins, ties, losses }.win_rate(LEVEL).ok().flatten();
        self.pairs.win_rate = rate.map(|rate| rate.rate);
        self.pairs.interval = rate.map(|rate| (rate.interval.lower, rate.interval.upper));
        let stage = |(stage, histogram): &(&'static str, Histogram<u64>)| {
            let at = |share: f64| histogram.value_at_quantile(share) as f64 / 1000.0;
            Stage { stage, episodes: histogram.len(), p50_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99) }
        };
        Stats {
            tenants,
            filter,
            taken_at,
            total: self.total,
            unreadable: self.unreadable,
            days: self.days.into_iter().map(|(day, counts)| Day { date: date_text(day), counts }).collect(),
            latency: self.stages.iter().map(stage).filter(|stage| stage.episodes > 0).collect(),
            sources: named(self.sources),
            degradations: named(self.degradations),
            pairs: self.pairs,
            failing_others: self.failing.others,
            failing: self.failing.top(),
        }
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

/// The most frequent one first.
fn named(counts: BTreeMap<String, u64>) -> Vec<Named> {
    let mut named: Vec<Named> = counts.into_iter().map(|(name, episodes)| Named { name, episodes }).collect();
    named.sort_by(|a, b| b.episodes.cmp(&a.episodes).then_with(|| a.name.cmp(&b.name)));
    named
}
