use serde::{Deserialize, Serialize};
use statrs::function::beta::beta_reg;

use crate::bootstrap::Interval;
use crate::error::{StatsError, check_sample};
use crate::wilson::wilson;

/// Pairs by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinTieLoss {
    /// Pairs that the treatment won.
    pub wins: u64,
    /// Pairs without a winner.
    pub ties: u64,
    /// Pairs that the control won.
    pub losses: u64,
}

/// A rate of wins among the pairs with a winner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WinRate {
    /// Pairs with a winner; ties are dropped.
    pub decided: u64,
    /// Wins among them, 0 to 1.
    pub rate: f64,
    /// Wilson interval of the rate.
    pub interval: Interval,
    /// Exact binomial p-value of "either arm wins as often".
    pub p_two_sided: f64,
}

impl WinTieLoss {
    /// Counts differences (treatment minus control); those within `slack` of 0 are ties.
    ///
    /// # Errors
    /// There are no differences or one is not finite.
    pub fn count(differences: &[f64], slack: f64) -> Result<Self, StatsError> {
        check_sample(differences)?;
        let mut counts = Self::default();
        differences.iter().for_each(|difference| counts.push(*difference, slack));
        Ok(counts)
    }

    fn push(&mut self, difference: f64, slack: f64) {
        if difference > slack {
            self.wins += 1;
        } else if difference < -slack {
            self.losses += 1;
        } else {
            self.ties += 1;
        }
    }

    /// Share of ties among all pairs; 0 without pairs. Shown beside every rate, because ties are not in it.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn tie_share(&self) -> f64 {
        let all = self.wins + self.ties + self.losses;
        if all == 0 { 0.0 } else { self.ties as f64 / all as f64 }
    }

    /// The win rate at a confidence `level`, or nothing where every pair tied.
    ///
    /// # Errors
    /// `level` is not between 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn win_rate(&self, level: f64) -> Result<Option<WinRate>, StatsError> {
        let decided = self.wins + self.losses;
        if decided == 0 {
            return Ok(None);
        }
        Ok(Some(WinRate {
            decided,
            rate: self.wins as f64 / decided as f64,
            interval: wilson(self.wins, decided, level)?,
            p_two_sided: sign_test(self.wins, self.losses),
        }))
    }
}

/// Two-sided exact binomial p-value of "a win is as likely as a loss"; 1 without either.
#[must_use]
pub fn sign_test(wins: u64, losses: u64) -> f64 {
    if wins == losses {
        return 1.0;
    }
    // The fair coin is symmetric, so both tails are as heavy.
    (2.0 * upper_tail(wins.max(losses), wins + losses, 0.5)).min(1.0)
}

/// P(X >= k) for X of a binomial distribution, through the regularised incomplete beta function.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub(crate) fn upper_tail(k: u64, n: u64, p: f64) -> f64 {
    if k == 0 {
        1.0
    } else if k > n {
        0.0
    } else {
        beta_reg(k as f64, (n - k + 1) as f64, p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_decides_what_is_a_tie() {
        let differences = [0.3, 0.04, -0.04, 0.0, -0.5];
        assert_eq!(WinTieLoss::count(&differences, 0.0).unwrap(), WinTieLoss { wins: 2, ties: 1, losses: 2 });
        assert_eq!(WinTieLoss::count(&differences, 0.05).unwrap(), WinTieLoss { wins: 1, ties: 3, losses: 1 });
        assert_eq!(WinTieLoss::count(&[f64::NAN], 0.0), Err(StatsError::NotFinite { index: 0 }));
    }

    #[test]
    fn ties_are_shown_and_not_counted() {
        let counts = WinTieLoss { wins: 6, ties: 30, losses: 4 };
        let rate = counts.win_rate(0.95).unwrap().unwrap();
        assert_eq!((rate.decided, rate.rate, counts.tie_share()), (10, 0.6, 0.75));
        assert_eq!(WinTieLoss { ties: 9, ..WinTieLoss::default() }.win_rate(0.95).unwrap(), None);
        assert_eq!(counts.win_rate(95.0), Err(StatsError::Level(95.0)));
    }

    #[test]
    fn tails_by_hand() {
        // 5 or more of 6 fair coins: (6 + 1) / 64, on either side.
        assert!((sign_test(5, 1) - 14.0 / 64.0).abs() < 1e-14);
        assert!((upper_tail(2, 2, 0.3) - 0.09).abs() < 1e-14);
        assert_eq!((upper_tail(0, 3, 0.3), upper_tail(4, 3, 0.3), sign_test(0, 0)), (1.0, 0.0, 1.0));
    }
}
