use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One comparison of candidate and incumbent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The user's session. Questions of a session resemble each other and count as one.
    pub session: String,
    /// Score of the candidate minus score of the incumbent, in [-1, 1].
    ///
    /// `None` where the candidate gave nothing to score. It counts as -1, the worst there is: else a candidate that
    /// fails on hard questions would be compared on the easy ones only.
    pub difference: Option<f64>,
}

impl Pair {
    /// The difference, with what is missing or out of range as the worst.
    pub(crate) fn value(&self) -> f64 {
        self.difference.filter(|value| (-1.0..=1.0).contains(value)).unwrap_or(-1.0)
    }
}

/// What two scores of a pair have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// The question: one policy answered it live, the other in the shadow.
    SameQuestion,
    /// Only the order in which they came.
    SameTime,
}

/// What the candidate did on fixed prompts. A figure that is missing has failed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SanityReport {
    /// Why the store or the engine refused the adapter; `None` where it loaded.
    pub refused: Option<String>,
    /// Prompts tried.
    pub prompts: u64,
    /// Outputs that were empty.
    pub empty: Option<u64>,
    /// Different outputs among those of the prompts.
    pub distinct: Option<u64>,
    /// Share of outputs that are no rewrite plan.
    pub invalid_format_rate: Option<f64>,
    /// Mean KL divergence from the base model, nats for each token.
    pub kl: Option<f64>,
}

/// Candidate and incumbent on the held-out questions: same retriever, same judge, greedy decoding.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OfflineReport {
    /// Differences of the reward.
    pub primary: Vec<Pair>,
    /// Differences of other measures by name, such that more is better.
    pub guardrails: BTreeMap<String, Vec<Pair>>,
}

/// Something the gate is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Observation {
    /// The result of the sanity checks.
    Sanity(SanityReport),
    /// The result on held-out questions.
    Offline(OfflineReport),
    /// Comparisons on live traffic, in the order in which they came.
    Pairs {
        /// What the scores of a pair have in common.
        pairing: Pairing,
        /// The comparisons since the last call.
        pairs: Vec<Pair>,
    },
    /// The service's figures of the last interval, for requests that the candidate answered.
    Check {
        /// Figures by name.
        figures: BTreeMap<String, Option<f64>>,
    },
    /// Time went by.
    Tick,
    /// The candidate did something that must never happen: crashed, or computed numbers that are not finite.
    Fault {
        /// What, in words.
        what: String,
    },
}

impl Observation {
    /// The observation in one word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Sanity(_) => "sanity",
            Self::Offline(_) => "offline",
            Self::Pairs { .. } => "pairs",
            Self::Check { .. } => "check",
            Self::Tick => "tick",
            Self::Fault { .. } => "fault",
        }
    }
}
