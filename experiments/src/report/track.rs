//! The primary difference over time.

use super::input::Pair;
use super::measure::{Settings, inside, to_u64};
use super::metric::Metric;
use super::output::TrackPoint;
use crate::betting_interval::BettingInterval;
use crate::bootstrap::Interval;
use crate::confidence::AsymptoticInterval;

/// Points that are kept at most.
const POINTS: usize = 160;
/// Candidates of the band's interval: finer than a chart can show.
const CANDIDATES: u32 = 401;

/// The mean difference after each of up to 160 numbers of pairs, in the order in which they came.
pub(super) fn track(metric: Metric, pairs: &[Pair], settings: Settings) -> Vec<TrackPoint> {
    let differences: Vec<f64> = pairs.iter().filter_map(|pair| metric.of_pair(pair)).map(|(a, b)| b - a).collect();
    bounded(metric, &differences, settings).unwrap_or_else(|| unbounded(&differences, settings))
}

fn bounded(metric: Metric, differences: &[f64], settings: Settings) -> Option<Vec<TrackPoint>> {
    let range = metric.range()?;
    let mut sequence = BettingInterval::new(settings.alpha, -range, range, CANDIDATES).ok()?;
    let mut points = Points::new(differences.len());
    for difference in differences {
        sequence.push(inside(*difference, -range, range)?).ok()?;
        points.push(*difference, || Some(sequence.interval()));
    }
    Some(points.kept)
}

fn unbounded(differences: &[f64], settings: Settings) -> Vec<TrackPoint> {
    let mut points = Points::new(differences.len());
    if let Ok(mut sequence) = AsymptoticInterval::new(settings.alpha, settings.tightest_at.max(50), 50) {
        for difference in differences {
            if sequence.push(*difference).is_err() {
                break;
            }
            points.push(*difference, || sequence.interval());
        }
    }
    points.kept
}

struct Points {
    every: usize,
    total: usize,
    n: usize,
    sum: f64,
    kept: Vec<TrackPoint>,
}

impl Points {
    fn new(total: usize) -> Self {
        Self { every: total.div_ceil(POINTS).max(1), total, n: 0, sum: 0.0, kept: Vec::new() }
    }

    #[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
    fn push(&mut self, difference: f64, interval: impl FnOnce() -> Option<Interval>) {
        self.n += 1;
        self.sum += difference;
        // The last one is what the report says elsewhere.
        if self.n.is_multiple_of(self.every) || self.n == self.total {
            let point = |interval| TrackPoint { n: to_u64(self.n), mean: self.sum / self.n as f64, interval };
            self.kept.extend(interval().map(point));
        }
    }
}
