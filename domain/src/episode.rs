use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Assignment, Conversation, Degradation, EpisodeId, Hit, KbName, Legs, RefusedRun, Rewrite, TenantId, Timings,
};

/// What the caller asked for, apart from the conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Knowledge base searched.
    pub kb_name: KbName,
    /// Hits wanted.
    pub top_k: u32,
    /// Relevance below which hits are left out, 0 to 1.
    pub score_threshold: f32,
    /// The asker, where the caller named one; the unit of erasure.
    pub user_id: Option<String>,
    /// The conversation, where the caller named one; the unit of splits.
    pub conversation_id: Option<String>,
    /// The `x-request-id` of the exchange.
    pub request_id: String,
    /// What the caller marked the request with, to find its episodes again: name and value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// A hit as an episode remembers it: the text that was shown and every score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpisodeHit {
    /// Passage id.
    pub id: String,
    /// Document id.
    pub doc_id: String,
    /// The text as it was returned.
    pub content: String,
    /// 1 is the best.
    pub rank: u32,
    /// Calibrated similarity, 0 to 1.
    pub score: f32,
    /// Calibrated score of the reranker, where it ran.
    pub reranker_score: Option<f32>,
    /// Rank and score in each leg.
    pub legs: Legs,
    /// The arm that picked this hit, in an interleaved answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

impl From<&Hit> for EpisodeHit {
    fn from(hit: &Hit) -> Self {
        Self {
            id: hit.passage.id.clone(),
            doc_id: hit.passage.doc_id.clone(),
            content: hit.passage.text.clone(),
            rank: hit.rank,
            score: hit.score,
            reranker_score: hit.reranker_score,
            legs: hit.legs,
            team: None,
        }
    }
}

/// The facts of one answered request. Facts only: rewards are computed from them, again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Fresh for every request, also for a replayed one.
    pub id: EpisodeId,
    /// Whose episode it is.
    pub tenant: TenantId,
    /// Milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
    /// The question and its context, as received.
    pub conversation: Conversation,
    /// What else was asked for.
    pub request: RequestFacts,
    /// The rewrite with its policy, tokens and log-probabilities.
    pub rewrite: Rewrite,
    /// Hash of the rendered prompt's inputs (tenant prompt, template); empty where no prompt was rendered.
    pub prompt_hash: String,
    /// What was found.
    pub hits: Vec<EpisodeHit>,
    /// Wall time by stage.
    pub timings: Timings,
    /// What did not work as meant.
    pub degraded: Vec<Degradation>,
    /// Whether identifiers were taken out before it was stored: its texts are not what the policy saw, so it cannot be
    /// replayed on-policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
    /// The experiment it took part in, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Assignment>,
    /// The shadow run that this request was sampled for and that found no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRun>,
}
