use crate::bets::{Bets, TRUNCATION};
use crate::bootstrap::Interval;
use crate::error::{StatsError, check_level, check_positive, check_value};
use crate::running::Running;

/// Confidence sequence of a bounded mean, valid at every look and for every n (empirical Bernstein, Waudby-Smith and
/// Ramdas 2024, theorem 2).
///
/// Wider than [`AsymptoticInterval`], but it asks for nothing beyond the bounds. Constant memory. The intervals are
/// intersected as they come, so that the width never grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmpiricalBernstein {
    bets: Bets,
    log_term: f64,
    weights: f64,
    weighted: f64,
    variances: f64,
    /// Whether earlier intervals narrow later ones.
    intersect: bool,
    interval: Interval,
}

impl EmpiricalBernstein {
    /// A sequence at confidence `1 - alpha` for values in `[lower, upper]`.
    ///
    /// # Errors
    /// `alpha` is not between 0 and 1, or the bounds are no range.
    pub fn new(alpha: f64, lower: f64, upper: f64) -> Result<Self, StatsError> {
        let bets = Bets::new(alpha, lower, upper)?;
        Ok(Self {
            bets,
            log_term: (2.0 / alpha).ln(),
            weights: 0.0,
            weighted: 0.0,
            variances: 0.0,
            intersect: true,
            interval: Interval { lower, upper },
        })
    }

    /// Reports each interval as it stands, without those before it: the width may grow again.
    #[must_use]
    pub fn without_intersection(self) -> Self {
        Self { intersect: false, ..self }
    }

    /// Adds one value.
    ///
    /// # Errors
    /// The value is not finite or out of bounds; the sequence is then as before.
    pub fn push(&mut self, value: f64) -> Result<(), StatsError> {
        let bet = self.bets.place(value)?;
        let weight = bet.size.min(TRUNCATION);
        self.weights += weight;
        self.weighted += weight * bet.value;
        let psi = 0.25 * (-(1.0 - weight).ln() - weight);
        self.variances += 4.0 * (bet.value - bet.mean).powi(2) * psi;

        let centre = self.weighted / self.weights;
        let radius = (self.log_term + self.variances) / self.weights;
        let held = if self.intersect {
            self.interval
        } else {
            Interval { lower: self.bets.lower(), upper: self.bets.upper() }
        };
        let lower = self.bets.value_of(centre - radius).max(held.lower);
        let upper = self.bets.value_of(centre + radius).min(held.upper);
        // An empty intersection is one of the failures that alpha allows for; the last interval is then kept.
        if lower <= upper {
            self.interval = Interval { lower, upper };
        }
        Ok(())
    }

    /// Values seen.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.bets.n()
    }

    /// Mean of the values so far; the middle of the bounds before the first.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.bets.mean()
    }

    /// Where the mean of the population lies; the bounds before the first value.
    #[must_use]
    pub fn interval(&self) -> Interval {
        self.interval
    }
}

/// Confidence sequence from the central limit theorem, for values without bounds (Waudby-Smith and others 2024).
///
/// Radius `sd sqrt((n + rho) ln((n + rho) / (rho alpha^2))) / n`. It holds at every look from `first` on, in the limit:
/// start at 50 values or more. Constant memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AsymptoticInterval {
    running: Running,
    alpha: f64,
    rho: f64,
    first: u64,
}

impl AsymptoticInterval {
    /// A sequence that is narrowest near `tightest_at` values and says nothing before `first`.
    ///
    /// # Errors
    /// `alpha` is not between 0 and 1, or `tightest_at` is 0.
    pub fn new(alpha: f64, tightest_at: u64, first: u64) -> Result<Self, StatsError> {
        Self::with_rho(alpha, tightest_rho(alpha, tightest_at)?, first)
    }

    /// The form of GrowthBook's documents: `rho' = sqrt((-2 ln alpha + ln(1 - 2 ln alpha)) / n)`, and `rho` is one over
    /// its square. Close to [`AsymptoticInterval::new`], from an approximation of the same minimum.
    ///
    /// # Errors
    /// As [`AsymptoticInterval::new`].
    pub fn growthbook(alpha: f64, tightest_at: u64, first: u64) -> Result<Self, StatsError> {
        check_level(alpha)?;
        let n = positive("tightest_at", tightest_at)?;
        let doubled = -2.0 * alpha.ln();
        Self::with_rho(alpha, n / (doubled + (doubled + 1.0).ln()), first)
    }

    /// A sequence whose `rho`, in values, is given: larger ones are narrower late and wider early.
    ///
    /// # Errors
    /// `alpha` is not between 0 and 1, or `rho` is not above 0.
    pub fn with_rho(alpha: f64, rho: f64, first: u64) -> Result<Self, StatsError> {
        check_level(alpha)?;
        check_positive("rho", rho)?;
        // One value has no spread, so the width before the second would be 0.
        Ok(Self { running: Running::default(), alpha, rho, first: first.max(2) })
    }

    /// Adds one value.
    ///
    /// # Errors
    /// The value is not finite; the sequence is then as before.
    pub fn push(&mut self, value: f64) -> Result<(), StatsError> {
        check_value(value, self.running.n)?;
        self.running.push(value);
        Ok(())
    }

    /// Values seen.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.running.n
    }

    /// Mean of the values so far; 0 before the first.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.running.mean
    }

    /// Where the mean of the population lies, or nothing before the first look.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn interval(&self) -> Option<Interval> {
        if self.running.n < self.first {
            return None;
        }
        let n = self.running.n as f64;
        let log = ((n + self.rho) / (self.rho * self.alpha * self.alpha)).ln();
        let radius = self.running.variance().sqrt() * ((n + self.rho) * log).sqrt() / n;
        Some(Interval { lower: self.running.mean - radius, upper: self.running.mean + radius })
    }
}

/// The `rho` with the smallest radius at `n` values.
///
/// With y = 1 + n / rho the derivative of the radius is 0 where `y - ln y = 1 - 2 ln alpha`; Newton's steps from the
/// right converge, because the left side is convex and rising there.
pub(crate) fn tightest_rho(alpha: f64, n: u64) -> Result<f64, StatsError> {
    check_level(alpha)?;
    let n = positive("tightest_at", n)?;
    let target = 1.0 - 2.0 * alpha.ln();
    let mut y = 2.0 * target + 1.0;
    for _ in 0..60 {
        y -= (y - y.ln() - target) / (1.0 - 1.0 / y);
    }
    Ok(n / (y - 1.0))
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn positive(name: &'static str, count: u64) -> Result<f64, StatsError> {
    if count == 0 { Err(StatsError::Zero(name)) } else { Ok(count as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rho_is_the_minimum() {
        let radius = |rho: f64| (100.0 + rho) * ((100.0 + rho) / (rho * 0.01 * 0.01)).ln();
        let rho = tightest_rho(0.01, 100).unwrap();
        assert!(radius(rho) < radius(rho * 0.99) && radius(rho) < radius(rho * 1.01), "{rho}");
    }

    #[test]
    fn the_width_never_grows() {
        let mut sequence = EmpiricalBernstein::new(0.05, -1.0, 1.0).unwrap();
        assert_eq!(sequence.interval(), Interval { lower: -1.0, upper: 1.0 });
        let mut before = 2.0;
        for n in 0..400 {
            sequence.push(if n < 200 { 0.0 } else { [-0.9, 0.9][n % 2] }).unwrap();
            let Interval { lower, upper } = sequence.interval();
            assert!(upper - lower <= before && lower <= upper, "at {n}: {lower} {upper}");
            before = upper - lower;
        }
    }

    #[test]
    fn nothing_is_said_before_the_first_look() {
        let mut sequence = AsymptoticInterval::new(0.05, 250, 50).unwrap();
        for n in 0..50 {
            assert_eq!(sequence.interval(), None);
            sequence.push(f64::from(n % 3)).unwrap();
        }
        assert!(sequence.interval().is_some());
    }

    #[test]
    fn refuses_what_is_no_number() {
        let mut bounded = EmpiricalBernstein::new(0.05, -1.0, 1.0).unwrap();
        assert!(matches!(bounded.push(f64::INFINITY), Err(StatsError::NotFinite { index: 0 })));
        let mut unbounded = AsymptoticInterval::new(0.05, 250, 50).unwrap();
        assert_eq!(unbounded.push(f64::NAN), Err(StatsError::NotFinite { index: 0 }));
        assert_eq!(unbounded.n(), 0);
        assert_eq!(AsymptoticInterval::new(0.05, 0, 50), Err(StatsError::Zero("tightest_at")));
    }
}
