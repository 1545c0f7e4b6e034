use serde::{Deserialize, Serialize};

use crate::bets::{Bet, Bets, TRUNCATION};
use crate::error::{StatsError, check_inside};

/// What a sequential test has seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Values seen.
    pub n: u64,
    /// Their mean, in their own units; 0 before the first.
    pub mean: f64,
    /// The capital of someone who bets against the null hypothesis, from 1: large values speak against it. Held at
    /// the largest finite number.
    pub e_value: f64,
    /// A p-value that holds at every look: one over the largest capital so far.
    pub anytime_p: f64,
    /// Whether the capital has reached 1 / alpha at any time.
    pub rejected: bool,
}

/// One-sided betting test of a bounded mean, valid at every look (Waudby-Smith and Ramdas 2024).
///
/// The capital is multiplied by `1 + lambda (z - m)` at each value, where z is the value and m the null mean, both
/// moved to [0, 1], and `lambda` is chosen from earlier values alone. A tie multiplies by 1 where the null is 0 and
/// the range symmetric. The probability that the capital ever reaches 1 / alpha under the null is at most alpha
/// (Ville's inequality), however often it is looked at; no variance has to be guessed. Constant memory.
///
/// ```
/// use recast_experiments::BettingTest;
///
/// let mut test = BettingTest::new(0.05, -1.0, 1.0, 0.0)?;
/// for _ in 0..100 {
///     test.push(0.3)?;
/// }
/// assert!(test.evidence().rejected);
/// # Ok::<(), recast_experiments::StatsError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BettingTest {
    bets: Bets,
    capital: Capital,
    null: f64,
    alpha: f64,
}

impl BettingTest {
    /// Tests that the mean is at most `margin`; rejecting says that it is above.
    ///
    /// Values lie in `[lower, upper]`. A challenger that may be worse by 0.02 at most is tested with margin -0.02.
    ///
    /// # Errors
    /// `alpha` is not between 0 and 1, the bounds are no range, or `margin` is not strictly inside them.
    pub fn new(alpha: f64, lower: f64, upper: f64, margin: f64) -> Result<Self, StatsError> {
        check_inside(margin, lower, upper)?;
        let bets = Bets::new(alpha, lower, upper)?;
        Ok(Self { bets, capital: Capital::default(), null: bets.unit_of(margin), alpha })
    }

    /// Adds one value, such as the difference of a pair.
    ///
    /// # Errors
    /// The value is not finite or out of bounds; the test is then as before.
    pub fn push(&mut self, value: f64) -> Result<(), StatsError> {
        let bet = self.bets.place(value)?;
        self.capital.multiply(factor_above(&bet, self.null));
        Ok(())
    }

    /// What the values so far say.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.capital.evidence(&self.bets, self.alpha)
    }
}

/// The side on which a two-sided test found a mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Above the null mean.
    Above,
    /// Below it.
    Below,
}

/// Two-sided betting test: half the capital bets on a mean above the null, half on one below.
///
/// For reports, where either arm may be the better one. Each side spends alpha / 2 on its claim.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoSidedBettingTest {
    bets: Bets,
    above: Capital,
    below: Capital,
    both: Capital,
    null: f64,
    alpha: f64,
}

impl TwoSidedBettingTest {
    /// Tests that the mean is `null`, from values in `[lower, upper]`.
    ///
    /// # Errors
    /// As [`BettingTest::new`].
    pub fn new(alpha: f64, lower: f64, upper: f64, null: f64) -> Result<Self, StatsError> {
        check_inside(null, lower, upper)?;
        let bets = Bets::new(alpha, lower, upper)?;
        let (above, below, both) = (Capital::default(), Capital::default(), Capital::default());
        Ok(Self { bets, above, below, both, null: bets.unit_of(null), alpha })
    }

    /// Adds one value.
    ///
    /// # Errors
    /// As [`BettingTest::push`].
    pub fn push(&mut self, value: f64) -> Result<(), StatsError> {
        let bet = self.bets.place(value)?;
        self.above.multiply(factor_above(&bet, self.null));
        let mirrored = Bet { value: 1.0 - bet.value, ..bet };
        self.below.multiply(factor_above(&mirrored, 1.0 - self.null));
        // ln((e^a + e^b) / 2), from the larger of the two so that nothing overflows.
        let (larger, smaller) = (self.above.log.max(self.below.log), self.above.log.min(self.below.log));
        self.both.set(larger + (0.5 * (1.0 + (smaller - larger).exp())).ln());
        Ok(())
    }

    /// What the values so far say about "the mean is the null", from the mean of both capitals.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        self.both.evidence(&self.bets, self.alpha)
    }

    /// The side whose own capital has reached 2 / alpha; a claim of the wrong side has probability alpha / 2 at most.
    #[must_use]
    pub fn direction(&self) -> Option<Direction> {
        let needed = (2.0 / self.alpha).ln();
        match (self.above.highest >= needed, self.below.highest >= needed) {
            (false, false) => None,
            // A stream that changed sides can reach both: the side that holds more now speaks.
            (true, true) if self.below.log > self.above.log => Some(Direction::Below),
            (true, _) => Some(Direction::Above),
            (false, true) => Some(Direction::Below),
        }
    }
}

/// `1 + lambda (z - m)` for a bet that the mean lies above m.
fn factor_above(bet: &Bet, null: f64) -> f64 {
    1.0 + bet.size.min(TRUNCATION / null) * (bet.value - null)
}

/// Capital as a logarithm, with the highest it has been; it starts at 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Capital {
    log: f64,
    highest: f64,
}

impl Capital {
    fn multiply(&mut self, factor: f64) {
        self.set(self.log + factor.ln());
    }

    fn set(&mut self, log: f64) {
        self.log = log;
        self.highest = self.highest.max(log);
    }

    fn evidence(&self, bets: &Bets, alpha: f64) -> Evidence {
        Evidence {
            n: bets.n(),
            mean: if bets.n() == 0 { 0.0 } else { bets.mean() },
            e_value: self.log.exp().min(f64::MAX),
            anytime_p: (-self.highest).exp(),
            rejected: self.highest >= -alpha.ln(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[f64], margin: f64) -> Evidence {
        let mut test = BettingTest::new(0.05, -1.0, 1.0, margin).unwrap();
        values.iter().for_each(|value| test.push(*value).unwrap());
        test.evidence()
    }

    #[test]
    fn ties_cost_nothing_and_prove_nothing() {
        let evidence = after(&[0.0; 500], 0.0);
        assert_eq!((evidence.e_value, evidence.anytime_p, evidence.rejected), (1.0, 1.0, false));
    }

    #[test]
    fn a_margin_asks_for_more_or_for_less() {
        let values = [0.1, 0.2, 0.0, 0.15, 0.05].repeat(20);
        let strict = after(&values, 0.08).anytime_p;
        let plain = after(&values, 0.0).anytime_p;
        let lenient = after(&values, -0.08).anytime_p;
        assert!(lenient < plain && plain < strict, "{lenient} {plain} {strict}");
        // A mean at the margin itself is the null: it must not be rejected.
        assert!(!after(&[0.1; 500], 0.1).rejected);
    }

    #[test]
    fn rejection_is_kept_after_the_capital_is_lost() {
        let mut values = vec![0.5; 30];
        values.extend([-0.5; 200]);
        let evidence = after(&values, 0.0);
        assert!(evidence.rejected && evidence.e_value < 1.0, "{evidence:?}");
    }

    #[test]
    fn extreme_values_never_ruin_the_capital() {
        let evidence = after(&[-1.0; 40], 0.0);
        assert!(evidence.e_value > 0.0 && evidence.e_value < 0.1, "{evidence:?}");
        assert!(after(&[1.0; 4000], 0.0).e_value.is_finite());
    }

    #[test]
    fn two_sides_mirror_each_other() {
        let up: Vec<f64> = (0..300).map(|n| [0.3, 0.0, -0.1][n % 3]).collect();
        let mut tests = [TwoSidedBettingTest::new(0.05, -1.0, 1.0, 0.0).unwrap(); 2];
        for value in &up {
            tests[0].push(*value).unwrap();
            tests[1].push(-value).unwrap();
        }
        let [above, below] = tests.map(|test| test.evidence().anytime_p);
        assert!((above - below).abs() < 1e-12, "{above} {below}");
        assert_eq!(tests.map(|test| test.direction()), [Some(Direction::Above), Some(Direction::Below)]);
    }

    #[test]
    fn a_refused_value_leaves_the_test_as_it_was() {
        let mut test = BettingTest::new(0.05, -1.0, 1.0, 0.0).unwrap();
        test.push(0.2).unwrap();
        let before = test;
        assert!(matches!(test.push(f64::NAN), Err(StatsError::NotFinite { index: 1 })));
        assert_eq!(test.push(1.5), Err(StatsError::OutOfBounds { value: 1.5, lower: -1.0, upper: 1.0 }));
        assert_eq!(test, before);
    }

    #[test]
    fn refuses_settings_that_test_nothing() {
        assert_eq!(BettingTest::new(0.0, -1.0, 1.0, 0.0), Err(StatsError::Level(0.0)));
        assert_eq!(BettingTest::new(0.05, 1.0, 1.0, 0.0), Err(StatsError::Bounds { lower: 1.0, upper: 1.0 }));
        let outside = StatsError::OutOfBounds { value: 1.0, lower: -1.0, upper: 1.0 };
        assert_eq!(BettingTest::new(0.05, -1.0, 1.0, 1.0), Err(outside));
    }
}
