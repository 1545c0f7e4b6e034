use std::collections::BTreeMap;

/// A rewrite that a policy in training drew, to be scored.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutItem {
    /// The question, by the id under which the environment knows it with its conversation.
    pub question: String,
    /// The text that would be searched for.
    pub text: String,
    /// Whether the policy ended it by itself, not by the length limit.
    pub finished: bool,
}

/// What a rewrite earned.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scored {
    /// The reward that is learned from.
    pub reward: f64,
    /// Its parts by name, such as `judge`, `retrieval` and `format`.
    pub parts: BTreeMap<String, f64>,
    /// Whether the rewrite is one that could be searched for at all.
    pub valid: bool,
    /// Whether it is the user's own query again.
    pub copied: bool,
}

/// The world as a learner sees it: a rewrite goes in, what it earned comes out. Calls may block.
pub trait Environment: Send + Sync {
    /// Scores, in the order of the items. `None` is a rewrite that nobody could score now: it teaches nothing, and no
    /// number may stand in for it.
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>>;

    /// The reward of one fixed rewrite of each question, such as that of a larger model; `None` where there is none.
    fn baselines(&self, questions: &[String]) -> Vec<Option<f64>> {
        vec![None; questions.len()]
    }
}
