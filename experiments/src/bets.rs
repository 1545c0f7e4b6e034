use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check_bounds, check_level, check_value};

/// How far a bet or a weight may go: at half of what would ruin the capital, one value costs at most half of it.
pub(crate) const TRUNCATION: f64 = 0.5;

/// The sizes of the bets, each chosen before the value it is placed on (Waudby-Smith and Ramdas 2024, equation 26).
///
/// Values in `[lower, upper]` are moved to [0, 1] first. The mean starts as if one value of 1/2 with variance 1/4 had
/// been seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bets {
    lower: f64,
    upper: f64,
    log_term: f64,
    n: u64,
    sum: f64,
    squares: f64,
}

/// What is known just before a value is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bet {
    /// The value, moved to [0, 1].
    pub(crate) value: f64,
    /// The bet before truncation: sqrt(2 ln(2 / alpha) / (s2 t ln(1 + t))).
    pub(crate) size: f64,
    /// The regularised mean of the values before this one.
    pub(crate) mean: f64,
}

impl Bets {
    pub(crate) fn new(alpha: f64, lower: f64, upper: f64) -> Result<Self, StatsError> {
        check_level(alpha)?;
        check_bounds(lower, upper)?;
        Ok(Self { lower, upper, log_term: (2.0 / alpha).ln(), n: 0, sum: 0.0, squares: 0.25 })
    }

    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    pub(crate) fn lower(&self) -> f64 {
        self.lower
    }

    pub(crate) fn upper(&self) -> f64 {
        self.upper
    }

    /// Mean of the values so far, in their own units; the middle of the range before the first.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn mean(&self) -> f64 {
        let unit = if self.n == 0 { 0.5 } else { self.sum / self.n as f64 };
        self.value_of(unit)
    }

    pub(crate) fn unit_of(self, value: f64) -> f64 {
        (value - self.lower) / (self.upper - self.lower)
    }

    pub(crate) fn value_of(self, unit: f64) -> f64 {
        self.lower + unit * (self.upper - self.lower)
    }

    /// The bet on `value`, which then joins what the next bet knows.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub(crate) fn place(&mut self, value: f64) -> Result<Bet, StatsError> {
        check_value(value, self.n)?;
        if value < self.lower || value > self.upper {
            return Err(StatsError::OutOfBounds { value, lower: self.lower, upper: self.upper });
        }
        let before = self.n as f64;
        let t = before + 1.0;
        let variance = self.squares / t;
        let size = (2.0 * self.log_term / (variance * t * (1.0 + t).ln())).sqrt();
        let bet = Bet { value: self.unit_of(value), size, mean: (0.5 + self.sum) / t };
        self.n += 1;
        self.sum += bet.value;
        self.squares += (bet.value - (0.5 + self.sum) / (t + 1.0)).powi(2);
        Ok(bet)
    }
}
