use serde::{Deserialize, Serialize};

pub use crate::decision::{Decision, Verdict};

use super::input::{Accounting, ArmFacts, ArmFeedback, Looks};
use super::metric::{Better, Metric};
use crate::bootstrap::{Estimate, Interval};
use crate::definition::Kind;
use crate::e_process::{Direction, Evidence};
use crate::guardrails::GuardrailReport;
use crate::interleave::Interleaving;
use crate::noise::NoiseFloor;
use crate::srm::SampleRatio;
use crate::win_rate::{WinRate, WinTieLoss};

/// What an experiment found. Every difference is treatment minus control.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The experiment's id.
    pub experiment: String,
    /// Version of its definition.
    pub version: u32,
    /// How the arms are compared.
    pub kind: Kind,
    /// Tenants that take part.
    pub tenants: Vec<String>,
    /// Name of the control arm.
    pub control: String,
    /// Name of the other arm.
    pub treatment: String,
    /// How often the pairs are looked at.
    pub looks: Looks,
    /// Probability of a wrong claim that is put up with.
    pub alpha: f64,
    /// What to do, and why.
    pub decision: Decision,
    /// Questions that both arms answered.
    pub pairs: u64,
    /// Questions that the control answered twice.
    pub controls: u64,
    /// The metric that decides.
    pub primary: Metric,
    /// Who won how many pairs.
    pub wins: Option<Wins>,
    /// Each metric of which there is a value, in the order of [`Metric::ALL`].
    pub metrics: Vec<Measured>,
    /// The primary difference as the pairs came in, with the interval that is valid at every look.
    pub track: Vec<TrackPoint>,
    /// The clicks on merged rankings.
    pub interleaving: Option<Interleaving>,
    /// The clicks as a test that is valid at every look: +1 where the treatment won a query, -1 where it lost.
    pub preference: Option<Evidence>,
    /// Whether the arms were filled as they should be.
    pub unit_ratio: Option<UnitRatio>,
    /// What became of the requests sampled for the treatment.
    pub accounting: Accounting,
    /// What became of the requests sampled for the noise floor.
    pub control_accounting: Accounting,
    /// Whether each sampled request is accounted for, exactly once.
    pub adds_up: bool,
    /// The bounds that are set, with what was measured on the treatment.
    pub guardrails: Vec<GuardrailReport>,
    /// The primary metric by tenant and by sort of question.
    pub slices: Vec<Slice>,
    /// Pairs that the treatment won by most.
    pub largest_wins: Vec<Example>,
    /// Pairs that it lost by most.
    pub largest_losses: Vec<Example>,
    /// What people said, by arm.
    pub feedback: Vec<ArmFeedback>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
}

impl Report {
    /// The figures of a metric, if there are any.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<&Measured> {
        self.metrics.iter().find(|one| one.metric == metric)
    }
}

/// One metric of both arms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The metric.
    pub metric: Metric,
    /// Its name for people.
    pub title: String,
    /// Its unit, empty for a score.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// Pairs with a value on both sides; units of the smaller arm in a split.
    pub n: u64,
    /// Mean of the control.
    pub control_mean: f64,
    /// Mean of the treatment.
    pub treatment_mean: f64,
    /// Mean difference with its 95 % interval at one look: BCa of the pairs, Welch's of a split.
    pub difference: Estimate,
    /// p-value at one look: the sign-flip test of the pairs, Welch's of a split.
    pub p: Option<f64>,
    /// What is valid at every look.
    pub sequential: Option<Sequential>,
    /// Pairs won, tied and lost, where one way is better.
    pub outcomes: Option<Counted>,
    /// What the control differs from itself by.
    pub noise: Option<NoiseFloor>,
    /// What is left of the difference above the noise floor.
    pub beyond_noise: Option<f64>,
}

/// Statistics that may be looked at as often as one likes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sequential {
    /// Where the mean difference lies, with probability `1 - alpha` at all looks together.
    pub interval: Interval,
    /// A p-value that holds at every look; nothing for a metric without bounds and for a split.
    pub anytime_p: Option<f64>,
    /// The side on which the mean difference was found.
    pub direction: Option<Direction>,
    /// Whether the values have bounds, so that the interval asks for nothing else; else it holds in the limit.
    pub bounded: bool,
}

/// Outcomes with the rate of wins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Pairs by outcome.
    pub counts: WinTieLoss,
    /// Share of ties among them, which the rate leaves out.
    pub tie_share: f64,
    /// Rate of wins among the pairs with a winner.
    pub rate: Option<WinRate>,
}

impl Counted {
    pub(super) fn of(counts: WinTieLoss) -> Self {
        Self { counts, tie_share: counts.tie_share(), rate: counts.win_rate(0.95).ok().flatten() }
    }
}

/// Who won how many pairs: by the judge, else by nDCG@10, else by quality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wins {
    /// How many pairs were decided by what.
    pub basis: Vec<WinsBasis>,
    /// The outcome.
    pub counted: Counted,
}

/// Pairs that a metric decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WinsBasis {
    /// The metric.
    pub metric: Metric,
    /// The pairs.
    pub pairs: u64,
}

/// The primary difference after so many pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrackPoint {
    /// Pairs so far.
    pub n: u64,
    /// Mean difference so far.
    pub mean: f64,
    /// Where it lies, by the interval that is valid at every look.
    pub interval: Interval,
}

/// Counts of the arms against what their weights ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitRatio {
    /// What is counted: a name and a count, in the order of `ratio`.
    pub counted: Vec<(String, u64)>,
    /// The comparison.
    pub ratio: SampleRatio,
    /// Whether it is a mismatch at 0.001, by the p-value that holds at every look.
    pub mismatch: bool,
}

/// The primary metric over some of the pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// `tenant` or `query_type`.
    pub by: String,
    /// Which one.
    pub value: String,
    /// Pairs.
    pub n: u64,
    /// Mean of the control.
    pub control_mean: f64,
    /// Mean of the treatment.
    pub treatment_mean: f64,
    /// Mean difference with its 95 % BCa interval.
    pub difference: Estimate,
    /// Pairs by outcome.
    pub outcomes: Counted,
}

/// A pair worth reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The live episode, or the question's id.
    pub episode: String,
    /// Whose question it is.
    pub tenant: String,
    /// What sort of question, where known.
    pub query_type: Option<String>,
    /// The user's query.
    pub query: String,
    /// The primary metric of the control's answer.
    pub control_value: f64,
    /// The primary metric of the treatment's answer.
    pub treatment_value: f64,
    /// The control's answer, its first hits.
    pub control: ArmFacts,
    /// The treatment's answer, its first hits.
    pub treatment: ArmFacts,
}
