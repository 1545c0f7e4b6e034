use serde::{Deserialize, Serialize};

/// Largest share of the stake that one observation may lose.
const CAP: f64 = 0.5;

/// One-sided betting e-process for the hypothesis "the mean is at most `null`", observations in [-1, 1].
///
/// Wealth `K = prod(1 + l_t (z_t - m))` with `z`, `m` rescaled to [0, 1] and the stake `l_t` set before `z_t` is seen
/// (Waudby-Smith and Ramdas 2024). `K >= 1 / alpha` rejects, at whatever time one looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Betting {
    alpha: f64,
    /// The hypothesis, rescaled.
    null: f64,
    n: u64,
    sum: f64,
    squares: f64,
    log_wealth: f64,
    best_log_wealth: f64,
}

impl Betting {
    pub fn new(alpha: f64, null: f64) -> Self {
        let null = f64::midpoint(null, 1.0);
        Self { alpha, null, n: 0, sum: 0.0, squares: 0.0, log_wealth: 0.0, best_log_wealth: 0.0 }
    }

    /// Takes an observation; true once the hypothesis is rejected.
    pub fn push(&mut self, observation: f64) -> bool {
        let z = f64::midpoint(observation.clamp(-1.0, 1.0), 1.0);
        let t = self.count() + 1.0;
        let variance = (0.25 + self.squares) / t;
        let stake = (2.0 * (2.0 / self.alpha).ln() / (variance * t * t.ln_1p())).sqrt().min(CAP / self.null);
        self.log_wealth += (stake * (z - self.null)).ln_1p();
        self.best_log_wealth = self.best_log_wealth.max(self.log_wealth);
        self.n += 1;
        self.sum += z;
        let mean = (0.5 + self.sum) / (t + 1.0);
        self.squares += (z - mean).powi(2);
        self.rejected()
    }

    pub fn rejected(&self) -> bool {
        self.best_log_wealth >= -self.alpha.ln()
    }

    pub fn n(&self) -> u64 {
        self.n
    }

    /// Mean of the observations so far; 0 before the first.
    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { 2.0 * self.sum / self.count() - 1.0 }
    }

    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    pub fn e_value(&self) -> f64 {
        self.log_wealth.exp()
    }

    /// Valid whenever one looks: `1 / max K`.
    pub fn anytime_p(&self) -> f64 {
        (-self.best_log_wealth).exp().min(1.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    fn count(&self) -> f64 {
        self.n as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first observations of the reference data, and where an independent implementation stood after them.
    #[test]
    fn wealth_follows_the_reference() {
        let mut test = Betting::new(0.05, 0.0);
        for (observation, log_wealth) in [(0.1867, 0.089_246_377_514_194_63), (-0.284, -0.063_904_801_979_980_15)] {
            test.push(observation);
            assert!((test.log_wealth - log_wealth).abs() < 1e-12, "{}", test.log_wealth);
        }
        for observation in [0.3427, 0.4092, -0.6029, -0.3758, 0.1247, -0.0307, 0.0741, -0.2186] {
            test.push(observation);
        }
        assert!((test.log_wealth + 0.320_833_685_113_236_57).abs() < 1e-12, "{}", test.log_wealth);
    }

    #[test]
    fn ties_neither_win_nor_lose() {
        let mut test = Betting::new(0.05, 0.0);
        assert!((0..100).all(|_| !test.push(0.0)));
        assert_eq!((test.e_value(), test.anytime_p(), test.mean()), (1.0, 1.0, 0.0));
    }
}
