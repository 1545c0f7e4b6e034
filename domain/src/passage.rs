use serde::{Deserialize, Serialize};

use crate::KbName;

/// Free key-value facts of a passage, as its document gave them.
pub type Metadata = serde_json::Map<String, serde_json::Value>;

/// A piece of a document that can be found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passage {
    /// Unique within tenant and knowledge base.
    pub id: String,
    /// The document it was cut from.
    pub doc_id: String,
    /// The document's title; may be empty.
    pub title: String,
    /// The text that is searched and returned.
    pub text: String,
    /// Where the document came from (a path, a URL, a name); may be empty.
    pub source: String,
    /// The knowledge base it belongs to.
    pub kb_name: KbName,
    /// Facts for filters and display.
    pub metadata: Metadata,
}

/// The place of a hit in one leg's list.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LegRank {
    /// 1 is the best.
    pub rank: u32,
    /// The leg's own score: BM25 (unbounded) or cosine similarity (-1 to 1).
    pub score: f32,
}

/// Which legs found a hit, and where each put it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Legs {
    /// The lexical leg; `None` where it did not return the passage.
    pub bm25: Option<LegRank>,
    /// The dense leg; `None` where it did not return the passage.
    pub dense: Option<LegRank>,
}

/// A passage that was found for a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// What was found.
    pub passage: Passage,
    /// 1 is the best, after fusion and reranking.
    pub rank: u32,
    /// Calibrated similarity, 0 to 1: reads as a probability of relevance. Never a rank-fusion number.
    pub score: f32,
    /// Calibrated score of the reranker, 0 to 1; `None` where it did not run on this passage.
    pub reranker_score: Option<f32>,
    /// Which legs found it.
    pub legs: Legs,
}

impl Hit {
    /// The score that thresholds and rewards read: the reranker's where it ran, else the similarity.
    #[must_use]
    pub fn relevance(&self) -> f32 {
        self.reranker_score.unwrap_or(self.score)
    }
}
