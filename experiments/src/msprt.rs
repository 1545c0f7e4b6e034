use crate::confidence::tightest_rho;
use crate::e_process::Evidence;
use crate::error::{StatsError, check_level, check_positive, check_value};
use crate::running::Running;

/// Where the mixture test takes the variance of one value from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spread {
    /// The standard deviation is known.
    Known(f64),
    /// The sample variance so far stands in for it: right in the limit only, so looks start at `first` values.
    Estimated {
        /// Values before the first look, 50 or more.
        first: u64,
    },
}

/// Mixture sequential probability ratio test of "the mean is 0" (Robbins 1970; Johari and others 2017).
///
/// `Lambda = sqrt(v / (v + n tau^2)) exp(n^2 tau^2 mean^2 / (2 v (v + n tau^2)))` for values of variance v and effects
/// drawn from N(0, tau^2). Two-sided; the null is rejected where Lambda reaches 1 / alpha. Constant memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Msprt {
    running: Running,
    alpha: f64,
    tau: f64,
    spread: Spread,
    log: f64,
    highest: f64,
}

impl Msprt {
    /// A test that expects effects of the size `tau`, in the units of the values.
    ///
    /// # Errors
    /// `alpha` is not between 0 and 1; `tau` or a known standard deviation is not above 0.
    pub fn new(alpha: f64, tau: f64, spread: Spread) -> Result<Self, StatsError> {
        check_level(alpha)?;
        check_positive("tau", tau)?;
        if let Spread::Known(sd) = spread {
            check_positive("sd", sd)?;
        }
        Ok(Self { running: Running::default(), alpha, tau, spread, log: 0.0, highest: 0.0 })
    }

    /// A test with the `tau` that decides soonest near `tightest_at` values of standard deviation `sd`.
    ///
    /// # Errors
    /// As [`Msprt::new`]; also where `tightest_at` is 0.
    pub fn tuned(alpha: f64, sd: f64, tightest_at: u64) -> Result<Self, StatsError> {
        let rho = tightest_rho(alpha, tightest_at)?;
        Self::new(alpha, sd / rho.sqrt(), Spread::Known(sd))
    }

    /// Adds one value.
    ///
    /// # Errors
    /// The value is not finite; the test is then as before.
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn push(&mut self, value: f64) -> Result<(), StatsError> {
        check_value(value, self.running.n)?;
        self.running.push(value);
        let v = match self.spread {
            Spread::Known(sd) => sd * sd,
            Spread::Estimated { first } if self.running.n >= first.max(2) => self.running.variance(),
            Spread::Estimated { .. } => return Ok(()),
        };
        // Equal values have no spread to judge a mean by.
        if v > 0.0 {
            let n = self.running.n as f64;
            let effect = self.tau * self.tau;
            let total = v + n * effect;
            let lift = n * n * effect * self.running.mean * self.running.mean / (2.0 * v * total);
            self.log = 0.5 * (v / total).ln() + lift;
            self.highest = self.highest.max(self.log);
        }
        Ok(())
    }

    /// What the values so far say; the e-value is Lambda.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence {
            n: self.running.n,
            mean: self.running.mean,
            e_value: self.log.exp().min(f64::MAX),
            anytime_p: (-self.highest).exp(),
            rejected: self.highest >= -self.alpha.ln(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimated_spread_waits_for_its_first_look() {
        let mut test = Msprt::new(0.05, 0.1, Spread::Estimated { first: 50 }).unwrap();
        for n in 0..49 {
            test.push([0.9, 1.1][n % 2]).unwrap();
            assert_eq!(test.evidence().e_value, 1.0);
        }
        test.push(1.0).unwrap();
        assert!(test.evidence().rejected);
    }

    #[test]
    fn equal_values_are_no_evidence_where_the_spread_is_estimated() {
        let mut test = Msprt::new(0.05, 0.1, Spread::Estimated { first: 2 }).unwrap();
        (0..100).for_each(|_| test.push(0.0).unwrap());
        assert_eq!(test.evidence().anytime_p, 1.0);
    }

    #[test]
    fn refuses_what_cannot_be_tested() {
        assert_eq!(Msprt::new(0.05, 0.0, Spread::Known(1.0)), Err(StatsError::NotPositive { name: "tau", value: 0.0 }));
        assert_eq!(
            Msprt::new(0.05, 0.1, Spread::Known(-1.0)),
            Err(StatsError::NotPositive { name: "sd", value: -1.0 })
        );
        let mut test = Msprt::new(0.05, 0.1, Spread::Known(1.0)).unwrap();
        assert_eq!(test.push(f64::NEG_INFINITY), Err(StatsError::NotFinite { index: 0 }));
    }
}
