use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::guardrails::AnswerFacts;
use crate::interleave::Credit;

/// Everything that a report is computed from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportInput {
    /// What was to be compared.
    pub definition: Definition,
    /// Version of the definition.
    pub version: u32,
    /// How often the pairs are looked at.
    #[serde(default)]
    pub looks: Looks,
    /// Whether no more pairs will come.
    #[serde(default)]
    pub ended: bool,
    /// Questions that both arms answered: `live` is the control, `other` the treatment.
    #[serde(default)]
    pub pairs: Vec<Pair>,
    /// Questions that the control answered twice.
    #[serde(default)]
    pub controls: Vec<Pair>,
    /// What became of the requests that were sampled for the treatment.
    #[serde(default)]
    pub accounting: Accounting,
    /// What became of the requests that were sampled to run the control once more.
    #[serde(default)]
    pub control_accounting: Accounting,
    /// Units dealt to each arm of a split.
    #[serde(default)]
    pub units: Vec<Units>,
    /// Answers of a split: each has one arm.
    #[serde(default)]
    pub singles: Vec<Single>,
    /// Merged rankings of an interleaved experiment, with their clicks; `first` is the control.
    #[serde(default)]
    pub credits: Vec<Credited>,
    /// What people said, by arm.
    #[serde(default)]
    pub feedback: Vec<ArmFeedback>,
    /// Id of the judge whose scores these are; scores of two judges are never in one report.
    #[serde(default)]
    pub judge: Option<String>,
}

impl ReportInput {
    /// An input without any data.
    #[must_use]
    pub fn new(definition: Definition, version: u32) -> Self {
        Self {
            definition,
            version,
            looks: Looks::default(),
            ended: false,
            pairs: Vec::new(),
            controls: Vec::new(),
            accounting: Accounting::default(),
            control_accounting: Accounting::default(),
            units: Vec::new(),
            singles: Vec::new(),
            credits: Vec::new(),
            feedback: Vec::new(),
            judge: None,
        }
    }
}

/// How often the pairs are looked at, which says what statistics may decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Looks {
    /// While they come in, as often as anybody likes: only what is valid at every look decides.
    #[default]
    Any,
    /// Once, over questions fixed beforehand: the bootstrap interval and the sign-flip test decide.
    Once,
}

/// One question with two answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Pair {
    /// The live episode, or the question's id.
    pub episode: String,
    /// Whose question it is.
    pub tenant: String,
    /// What sort of question, where known.
    pub query_type: Option<String>,
    /// The user's query.
    pub query: String,
    /// The answer of the control.
    pub live: ArmFacts,
    /// The other answer: of the treatment, or once more of the control.
    pub other: ArmFacts,
    /// The judge's overall scores, 1 to 5, of `live` and `other`.
    pub judge: Option<(f64, f64)>,
    /// When it was asked, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ArmFacts {
    /// The query that was searched.
    pub rewrite: String,
    /// Scores of the hits, best first: the reranker's where it ran, else the retrieval's.
    pub scores: Vec<f64>,
    /// The hits, best first.
    pub hits: Vec<HitFacts>,
    /// Whether a stage failed or was late.
    pub degraded: bool,
    /// Time of the rewriter, milliseconds.
    pub rewrite_ms: f64,
    /// Time of the whole answer, milliseconds.
    pub total_ms: f64,
    /// How good the ranking is by labels, where there are any.
    pub labels: Option<LabelFacts>,
}

impl ArmFacts {
    /// What a guardrail sees of this answer to a query.
    #[must_use]
    pub fn guarded(&self, query: &str) -> AnswerFacts {
        AnswerFacts {
            rewrite_ms: self.rewrite_ms,
            empty: self.hits.is_empty() && self.scores.is_empty(),
            degraded: self.degraded,
            length_ratio: AnswerFacts::length_ratio(&self.rewrite, query),
        }
    }
}

/// One passage of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HitFacts {
    /// The passage's id.
    pub id: String,
    /// Its beginning.
    pub text: String,
}

/// A ranking held against labels, each figure from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LabelFacts {
    /// 1 where the first hit is relevant.
    pub top1: f64,
    /// Share of the relevant passages among the first five.
    pub recall_at_5: f64,
    /// Discounted gain of the first ten over that of the best order.
    pub ndcg_at_10: f64,
}

/// What became of sampled requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Accounting {
    /// All of them.
    pub sampled: u64,
    /// The arm answered.
    pub completed: u64,
    /// It failed, by reason.
    pub failed: BTreeMap<String, u64>,
    /// It was too late.
    pub timed_out: u64,
    /// It was never run, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// It waits or runs.
    pub pending: u64,
}

impl Accounting {
    /// Those that ended, and those that wait.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let failed: u64 = self.failed.values().sum();
        let dropped: u64 = self.dropped.values().sum();
        self.completed + failed + self.timed_out + dropped + self.pending
    }

    /// Whether every sampled request is accounted for, exactly once.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        self.sampled == self.sum()
    }

    /// Adds the counts of another one, such as of another tenant.
    pub fn add(&mut self, other: &Self) {
        self.sampled += other.sampled;
        self.completed += other.completed;
        self.timed_out += other.timed_out;
        self.pending += other.pending;
        for (into, from) in [(&mut self.failed, &other.failed), (&mut self.dropped, &other.dropped)] {
            from.iter().for_each(|(reason, count)| *into.entry(reason.clone()).or_default() += count);
        }
    }
}

/// Units that an arm of a split was dealt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Units {
    /// The arm.
    pub arm: String,
    /// Different users, conversations or requests, as the definition says.
    pub units: u64,
    /// Requests.
    pub requests: u64,
}

/// One answer of a split.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Single {
    /// The episode.
    #[serde(default)]
    pub episode: String,
    /// Whose question it is.
    #[serde(default)]
    pub tenant: String,
    /// The arm that answered.
    pub arm: String,
    /// The unit it belongs to; answers of one unit are not independent and are averaged first.
    pub unit: String,
    /// The user's query.
    pub query: String,
    /// The answer.
    pub facts: ArmFacts,
    /// The judge's overall score, 1 to 5.
    pub judge: Option<f64>,
    /// When it was asked, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// A merged ranking with what its clicks say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Credited {
    /// The episode.
    pub episode: String,
    /// The clicks.
    pub credit: Credit,
    /// When it was asked, milliseconds since the Unix epoch.
    pub at_ms: i64,
}

/// What people said about an arm's answers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ArmFeedback {
    /// The arm; of interleaved answers, the two joined by `+`.
    pub arm: String,
    /// Thumbs up.
    pub up: u64,
    /// Thumbs down.
    pub down: u64,
    /// Clicks on passages.
    pub clicks: u64,
    /// Comments.
    pub comments: u64,
    /// Scores given.
    pub scores: u64,
    /// Their mean, 0 to 1; 0 without one.
    pub mean_score: f64,
    /// Times it was preferred to another answer.
    pub preferred: u64,
    /// Times another answer was preferred.
    pub not_preferred: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_add_up_alone_and_together() {
        let mut one = Accounting { sampled: 10, completed: 6, timed_out: 1, pending: 1, ..Accounting::default() };
        assert!(!one.adds_up());
        one.failed.insert("rewriter_failed".to_owned(), 1);
        one.dropped.insert("queue_full".to_owned(), 1);
        assert!(one.adds_up());
        let twice = one.clone();
        one.add(&twice);
        assert_eq!((one.sampled, one.failed["rewriter_failed"], one.adds_up()), (20, 2, true));
    }
}
