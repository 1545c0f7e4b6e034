use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::confidence::{AsymptoticInterval, EmpiricalBernstein};
use crate::e_process::BettingTest;
use crate::error::{StatsError, check_level};
use crate::msprt::{Msprt, Spread};
use crate::normal::normal_quantile;
use crate::pair_model::PairModel;
use crate::running::Running;

/// A way to find, while pairs come in, that their mean lies above a margin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Procedure {
    /// [`BettingTest`].
    Betting,
    /// The lower end of [`EmpiricalBernstein`].
    EmpiricalBernstein,
    /// The lower end of [`AsymptoticInterval`].
    Asymptotic {
        /// Pairs at which the interval is narrowest.
        tightest_at: u64,
    },
    /// [`Msprt`] with the variance estimated, and a mean above the margin.
    Mixture {
        /// Expected size of an effect.
        tau: f64,
    },
    /// A z-test as if each look were the only one. Wrong at more than one look: it is here to show by how much.
    Peeking,
}

/// Experiments to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    /// What the pairs are like.
    pub model: PairModel,
    /// The mean that must be exceeded.
    pub margin: f64,
    /// Probability allowed for a claim that is wrong, on this one side. A two-sided interval at 95 % has 0.025.
    pub alpha: f64,
    /// Pairs in an experiment.
    pub pairs: u64,
    /// Pairs before the first look.
    pub first_look: u64,
    /// Pairs between looks.
    pub look_every: u64,
    /// Experiments.
    pub runs: u64,
    /// Seed of all of them: the same seed gives the same pairs, whatever the procedure.
    pub seed: u64,
}

impl Simulation {
    /// For each experiment, the look at which `procedure` first claimed a mean above the margin.
    ///
    /// # Errors
    /// A setting is out of range, or no pairs can be as the model says.
    pub fn claims(&self, procedure: Procedure) -> Result<Vec<Option<u64>>, StatsError> {
        for (name, count) in [("runs", self.runs), ("first_look", self.first_look), ("look_every", self.look_every)] {
            if count == 0 {
                return Err(StatsError::Zero(name));
            }
        }
        // Each side of a two-sided procedure has half its alpha, so this one must be below 1/2.
        check_level(2.0 * self.alpha)?;
        let sampler = self.model.sampler()?;
        let watch = Watch::new(procedure, self)?;
        (0..self.runs)
            .map(|run| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(run);
                let mut watch = watch;
                for n in 1..=self.pairs {
                    watch.push(sampler.draw(&mut rng))?;
                    if self.is_look(n) && watch.claims() {
                        return Ok(Some(n));
                    }
                }
                Ok(None)
            })
            .collect()
    }

    /// The share of experiments in which `procedure` claims a mean above the margin.
    ///
    /// # Errors
    /// As [`Simulation::claims`].
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    pub fn claim_rate(&self, procedure: Procedure) -> Result<f64, StatsError> {
        let claims = self.claims(procedure)?;
        Ok(claims.iter().flatten().count() as f64 / claims.len() as f64)
    }

    fn is_look(&self, n: u64) -> bool {
        n >= self.first_look && (n - self.first_look).is_multiple_of(self.look_every)
    }
}

/// The state of a procedure in one experiment.
#[derive(Clone, Copy)]
enum Watch {
    Betting(BettingTest),
    Bernstein(EmpiricalBernstein, f64),
    Asymptotic(AsymptoticInterval, f64),
    Mixture { test: Msprt, margin: f64, needed: f64 },
    Peeking { running: Running, margin: f64, z: f64 },
}

impl Watch {
    fn new(procedure: Procedure, simulation: &Simulation) -> Result<Self, StatsError> {
        let Simulation { alpha, margin, first_look, model: PairModel { lower, upper, .. }, .. } = *simulation;
        let both = 2.0 * alpha;
        Ok(match procedure {
            Procedure::Betting => Self::Betting(BettingTest::new(alpha, lower, upper, margin)?),
            Procedure::EmpiricalBernstein => Self::Bernstein(EmpiricalBernstein::new(both, lower, upper)?, margin),
            Procedure::Asymptotic { tightest_at } => {
                Self::Asymptotic(AsymptoticInterval::new(both, tightest_at, first_look)?, margin)
            }
            Procedure::Mixture { tau } => {
                let test = Msprt::new(both, tau, Spread::Estimated { first: first_look })?;
                Self::Mixture { test, margin, needed: 1.0 / both }
            }
            Procedure::Peeking => {
                Self::Peeking { running: Running::default(), margin, z: normal_quantile(1.0 - alpha) }
            }
        })
    }

    fn push(&mut self, difference: f64) -> Result<(), StatsError> {
        match self {
            Self::Betting(test) => test.push(difference),
            Self::Bernstein(sequence, _) => sequence.push(difference),
            Self::Asymptotic(sequence, _) => sequence.push(difference),
            Self::Mixture { test, margin, .. } => test.push(difference - *margin),
            Self::Peeking { running, .. } => {
                running.push(difference);
                Ok(())
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    fn claims(&self) -> bool {
        match self {
            Self::Betting(test) => test.evidence().rejected,
            Self::Bernstein(sequence, margin) => sequence.interval().lower > *margin,
            Self::Asymptotic(sequence, margin) => sequence.interval().is_some_and(|interval| interval.lower > *margin),
            Self::Mixture { test, needed, .. } => {
                let evidence = test.evidence();
                evidence.e_value >= *needed && evidence.mean > 0.0
            }
            Self::Peeking { running, margin, z } => {
                running.mean - margin > z * (running.variance() / running.n as f64).sqrt()
            }
        }
    }
}
