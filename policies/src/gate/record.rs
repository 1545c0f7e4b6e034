use recast_domain::PolicyId;
use serde::{Deserialize, Serialize};

use crate::Scope;

/// Where a candidate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// Does it work at all?
    Sanity,
    /// Is it better on held-out questions?
    Offline,
    /// Is it better on live questions? Nobody is served by it.
    Shadow,
    /// Does it harm the users it serves?
    Canary {
        /// Position in the list of shares, from 0.
        step: usize,
    },
    /// It is promoted, and the incumbent is kept ready.
    Watched,
    /// It stays.
    Accepted,
    /// It never served, and will not.
    Rejected,
    /// It served, and does so no more.
    RolledBack,
}

impl Stage {
    /// The stage in one word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Sanity => "sanity",
            Self::Offline => "offline",
            Self::Shadow => "shadow",
            Self::Canary { .. } => "canary",
            Self::Watched => "watched",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Whether nothing more will be decided.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Accepted | Self::Rejected | Self::RolledBack)
    }

    /// Whether users are served by the candidate.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Canary { .. } | Self::Watched | Self::Accepted)
    }
}

/// What the gate decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// On to the next stage or share.
    Advance,
    /// More is needed.
    Hold,
    /// Users get the incumbent again.
    RollBack,
    /// The candidate is dropped before it served anybody.
    Reject,
}

/// A number that a decision rests on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What was measured.
    pub measure: String,
    /// The number; `None` where it is missing, which counts as failed.
    pub value: Option<f64>,
    /// What it was held against.
    pub bound: Option<f64>,
    /// Whether it is as it should be. Of an e-process: whether its hypothesis still stands.
    pub passed: bool,
    /// Observations behind it.
    pub n: Option<u64>,
    /// Chance of error that was spent on it.
    pub alpha: Option<f64>,
    /// Mean of the observations, where the number is not itself one.
    pub mean: Option<f64>,
    /// Wealth of a betting test, 1 at its start.
    pub e_value: Option<f64>,
    /// Its p-value, valid whenever one looks.
    pub anytime_p: Option<f64>,
}

impl Finding {
    /// A figure that must not exceed its bound.
    pub(crate) fn at_most(measure: &str, value: Option<f64>, bound: f64) -> Self {
        let value = value.filter(|value| value.is_finite());
        let passed = value.is_some_and(|value| value <= bound);
        Self { measure: measure.to_owned(), value, bound: Some(bound), passed, ..Self::default() }
    }

    /// A figure that must not stay below its bound.
    pub(crate) fn at_least(measure: &str, value: Option<f64>, bound: f64) -> Self {
        let value = value.filter(|value| value.is_finite());
        let passed = value.is_some_and(|value| value >= bound);
        Self { measure: measure.to_owned(), value, bound: Some(bound), passed, ..Self::default() }
    }

    /// `error_rate 0.2 above 0.01`, or that it is missing.
    pub(crate) fn words(&self) -> String {
        match (self.value, self.bound) {
            (Some(value), Some(bound)) => {
                let relation = if value > bound { "above" } else { "below" };
                format!("{} is {value:.4}, {relation} {bound:.4}", self.measure)
            }
            _ => format!("{} is missing", self.measure),
        }
    }
}

/// A decision with its evidence, as it is journalled and exported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateRecord {
    /// Whose candidate.
    pub scope: Scope,
    /// The candidate.
    pub policy: PolicyId,
    /// How many candidates have tried to replace the incumbent, this one included.
    pub attempt: u32,
    /// What the gate was told, in one word.
    pub observation: String,
    /// Where the candidate stood.
    pub before: Stage,
    /// What was decided.
    pub verdict: Verdict,
    /// Where it stands now.
    pub after: Stage,
    /// Share of sessions it serves from now on, 0 to 1.
    pub share: f64,
    /// Why, in words.
    pub reason: String,
    /// The numbers.
    pub evidence: Vec<Finding>,
}
