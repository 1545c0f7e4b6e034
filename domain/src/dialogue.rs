use serde::{Deserialize, Serialize};

use crate::{Conversation, Metadata, Turn};

/// Which part of a data set a record belongs to. All records of a conversation share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// For choosing settings.
    Val,
    /// For the figures that are reported; never trained on.
    Test,
}

/// The kind of question, as the evaluation reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueryType {
    /// Everyday questions.
    General,
    /// Numbers, codes, specifications.
    Technical,
    /// Rules, safety, law.
    Compliance,
}

/// A passage that answers a question, and how well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relevance {
    /// Passage id.
    pub id: String,
    /// 1 helps, 2 answers.
    pub grade: u32,
}

/// One labelled question: a line of `dialogues.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialogue {
    /// Unique within the file.
    pub id: String,
    /// The conversation the question is from.
    pub conversation_id: String,
    /// Which split it belongs to.
    pub split: Split,
    /// Earlier turns, oldest first.
    pub history: Vec<Turn>,
    /// The question as typed.
    pub query: String,
    /// What is known of the asker; may be empty.
    pub user_profile: String,
    /// A summary of turns that were cut; may be empty.
    pub history_summary: String,
    /// A note on the intent; may be empty.
    pub thought: String,
    /// Rewrites by several careful writers.
    pub gold_rewrites: Vec<String>,
    /// The passages that answer it.
    pub relevant: Vec<Relevance>,
    /// The kind of question.
    pub query_type: QueryType,
}

impl Dialogue {
    /// The question with its context, as the pipeline takes it.
    #[must_use]
    pub fn conversation(&self) -> Conversation {
        Conversation {
            query: self.query.clone(),
            history: self.history.clone(),
            user_profile: self.user_profile.clone(),
            history_summary: self.history_summary.clone(),
            thought: self.thought.clone(),
        }
    }

    /// The first thing wrong with this record, naming the field, or `None`.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let blank = |text: &str| text.trim().is_empty();
        if blank(&self.id) {
            return Some("id is empty".to_owned());
        }
        if blank(&self.conversation_id) {
            return Some("conversation_id is empty".to_owned());
        }
        if blank(&self.query) {
            return Some("query is empty".to_owned());
        }
        if let Some(index) = self.history.iter().position(|turn| blank(&turn.content)) {
            return Some(format!("history[{index}].content is empty"));
        }
        if self.gold_rewrites.is_empty() {
            return Some("gold_rewrites is empty: give at least one".to_owned());
        }
        if let Some(index) = self.gold_rewrites.iter().position(|text| blank(text)) {
            return Some(format!("gold_rewrites[{index}] is empty"));
        }
        if self.relevant.is_empty() {
            return Some("relevant is empty: name at least one passage".to_owned());
        }
        self.relevant
            .iter()
            .position(|relevance| blank(&relevance.id) || relevance.grade == 0)
            .map(|index| format!("relevant[{index}] needs an id and a grade of 1 or more"))
    }
}

/// A ready-cut passage: a line of `passages.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassageRecord {
    /// Unique within the file.
    pub id: String,
    /// The document it belongs to.
    pub doc_id: String,
    /// The document's title; may be empty.
    #[serde(default)]
    pub title: String,
    /// The text that is searched and returned.
    pub text: String,
    /// Where it came from; may be empty.
    #[serde(default)]
    pub source: String,
    /// Facts for filters, display and training (`entity`, `aliases`, `aspect`).
    #[serde(default)]
    pub metadata: Metadata,
}
