//! When requests are due: a Poisson process from a seed.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Endless gaps between arrivals, exponentially distributed; the same seed gives the same gaps.
#[derive(Debug, Clone)]
pub struct PoissonGaps {
    rng: ChaCha8Rng,
    mean_seconds: f64,
}

impl PoissonGaps {
    /// `rate` is in requests per second; a rate that is not positive and finite counts as one an hour.
    #[must_use]
    pub fn new(rate: f64, seed: u64) -> Self {
        let rate = if rate.is_finite() && rate > 0.0 { rate } else { 1.0 / 3600.0 };
        Self { rng: ChaCha8Rng::seed_from_u64(seed), mean_seconds: rate.recip() }
    }
}

impl Iterator for PoissonGaps {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // 1 - u lies in (0, 1], so the logarithm is finite: inverse of the exponential distribution.
        let uniform: f64 = self.rng.random();
        Some(Duration::from_secs_f64(-(1.0 - uniform).ln() * self.mean_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_variance_are_those_of_an_exponential() {
        let n = 200_000_u32;
        let gaps: Vec<f64> = PoissonGaps::new(50.0, 3).take(n as usize).map(|gap| gap.as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / f64::from(n);
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / f64::from(n);
        // Standard errors: mean/sqrt(n) = 0.22 %, variance * sqrt(8/n) = 0.63 %; five of each are allowed.
        assert!((mean / 0.02 - 1.0).abs() < 0.011, "mean {mean}");
        assert!((variance / 0.0004 - 1.0).abs() < 0.032, "variance {variance}");
    }

    #[test]
    fn counts_a_second_vary_as_a_poisson_process_does() {
        let mut counts = vec![0_u32; 2_000];
        let mut at = 0.0;
        for gap in PoissonGaps::new(30.0, 11) {
            at += gap.as_secs_f64();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of seconds")]
            match counts.get_mut(at as usize) {
                Some(count) => *count += 1,
                None => break,
            }
        }
        let n = 2_000.0;
        let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / n;
        let variance = counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum::<f64>() / n;
        assert!((variance / mean - 1.0).abs() < 0.16, "variance/mean {}", variance / mean);
    }

    #[test]
    fn the_seed_decides() {
        let first: Vec<_> = PoissonGaps::new(10.0, 5).take(20).collect();
        assert_eq!(first, PoissonGaps::new(10.0, 5).take(20).collect::<Vec<_>>());
        assert_ne!(first, PoissonGaps::new(10.0, 6).take(20).collect::<Vec<_>>());
    }
}
