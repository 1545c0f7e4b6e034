use crate::bets::{Bets, TRUNCATION};
use crate::bootstrap::Interval;
use crate::error::{StatsError, check_level};

/// Confidence sequence of a bounded mean from betting: the narrowest here that holds at every look and for every n
/// (hedged capital, Waudby-Smith and Ramdas 2024, theorem 3).
///
/// Every candidate mean on a grid is bet against from both sides, with half the capital each; those whose capital
/// reaches 1 / alpha are out for good. Memory and time of a value are those of the candidates left, which the stream
/// makes fewer: for a lighter one see [`crate::EmpiricalBernstein`].
#[derive(Debug, Clone, PartialEq)]
pub struct BettingInterval {
    bets: Bets,
    alpha: f64,
    step: f64,
    candidates: Vec<Candidate>,
}

/// A mean that has not been ruled out, in [0, 1], and the logarithms of what betting against it has earned.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    mean: f64,
    above: f64,
    below: f64,
}

impl BettingInterval {
    /// A sequence at confidence `1 - alpha` for values in `[lower, upper]`, over `points` candidates that are evenly
    /// spaced from bound to bound. The interval is too wide by one spacing at most on either side: 401 points over
    /// [-1, 1] lie 0.005 apart.
    ///
    /// # Errors
    /// `alpha` is not between 0 and 1, the bounds are no range, or there are fewer than 2 points.
    pub fn new(alpha: f64, lower: f64, upper: f64, points: u32) -> Result<Self, StatsError> {
        check_level(alpha)?;
        if points < 2 {
            return Err(StatsError::TooFew { needed: 2, given: usize::try_from(points).unwrap_or(usize::MAX) });
        }
        let bets = Bets::new(alpha, lower, upper)?;
        let step = 1.0 / f64::from(points - 1);
        let candidates =
            (0..points).map(|point| Candidate { mean: f64::from(point) * step, above: 0.0, below: 0.0 }).collect();
        Ok(Self { bets, alpha, step, candidates })
    }

    /// Adds one value.
    ///
    /// # Errors
    /// The value is not finite or out of bounds; the sequence is then as before.
    pub fn push(&mut self, value: f64) -> Result<(), StatsError> {
        let bet = self.bets.place(value)?;
        // Half the capital on each side, so a side must earn 2 / alpha.
        let ruled_out = (2.0 / self.alpha).ln();
        let kept = |candidate: &mut Candidate| {
            let distance = bet.value - candidate.mean;
            candidate.above += (1.0 + bet.size.min(TRUNCATION / candidate.mean) * distance).ln();
            candidate.below += (1.0 - bet.size.min(TRUNCATION / (1.0 - candidate.mean)) * distance).ln();
            candidate.above < ruled_out && candidate.below < ruled_out
        };
        let before = (self.candidates.first().copied(), self.candidates.last().copied());
        self.candidates.retain_mut(kept);
        // All means ruled out is one of the failures that alpha allows for; the last interval is then kept.
        if self.candidates.is_empty() {
            self.candidates.extend([before.0, before.1].into_iter().flatten());
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

    /// Where the mean of the population lies: between the nearest candidates that are ruled out, because a mean
    /// between two candidates may still stand where one of them does.
    #[must_use]
    pub fn interval(&self) -> Interval {
        let lower = self.candidates.first().map_or(0.0, |candidate| (candidate.mean - self.step).max(0.0));
        let upper = self.candidates.last().map_or(1.0, |candidate| (candidate.mean + self.step).min(1.0));
        Interval { lower: self.bets.value_of(lower), upper: self.bets.value_of(upper) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrows_around_the_mean_and_never_empties() {
        let mut sequence = BettingInterval::new(0.05, -1.0, 1.0, 201).unwrap();
        assert_eq!(sequence.interval(), Interval { lower: -1.0, upper: 1.0 });
        for n in 0..300 {
            sequence.push([0.3, 0.1][n % 2]).unwrap();
        }
        let Interval { lower, upper } = sequence.interval();
        assert!(lower < 0.2 && 0.2 < upper && upper - lower < 0.2, "{lower} {upper}");
        // A stream that breaks its promise of one mean rules every candidate out.
        (0..3_000).for_each(|_| sequence.push(-0.9).unwrap());
        assert!(sequence.interval().lower <= sequence.interval().upper);
        assert_eq!(sequence.n(), 3_300);
    }

    #[test]
    fn refuses_what_it_cannot_bet_on() {
        assert_eq!(BettingInterval::new(0.05, -1.0, 1.0, 1), Err(StatsError::TooFew { needed: 2, given: 1 }));
        let mut sequence = BettingInterval::new(0.05, -1.0, 1.0, 11).unwrap();
        assert_eq!(sequence.push(f64::NAN), Err(StatsError::NotFinite { index: 0 }));
    }
}
