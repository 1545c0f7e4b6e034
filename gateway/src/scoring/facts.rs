//! What a reward is computed from, in the form that is stored, so that it can be computed again under other weights.

use recast_domain::{Degradation, EpisodeHit, Hit, Relevance, Trace};
use recast_judge::{Judged, LabelledHits, Retrieved, Reward, RewardWeights, judged_reward};
use serde::{Deserialize, Serialize};

/// What is known of one rewrite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideFacts {
    /// The rewrite.
    pub text: String,
    /// What the judge said, without its words.
    pub judged: Judged,
    /// What a search with it brought.
    pub retrieved: Retrieved,
}

/// All that one reward is computed from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RewardFacts {
    /// Id of the judge; rewards of two judges are not compared.
    pub judge: String,
    /// What was searched with, as one hash.
    pub retriever_snapshot: String,
    /// The rewrite that the reward is for.
    pub student: SideFacts,
    /// The one that it is compared with.
    pub baseline: SideFacts,
}

impl RewardFacts {
    /// The reward under these weights.
    #[must_use]
    pub fn reward(&self, weights: &RewardWeights) -> Reward {
        let (student, baseline) = (&self.student, &self.baseline);
        judged_reward((&student.judged, &student.retrieved), (&baseline.judged, &baseline.retrieved), weights)
    }
}

/// A reward as it is stored: the outcome beside the facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredReward {
    /// The outcome, with every component.
    pub reward: Reward,
    /// What it was computed from.
    pub facts: RewardFacts,
}

/// The same verdict without the judge's words; those lie with the verdict.
#[must_use]
pub fn wordless(judged: &Judged) -> Judged {
    match judged {
        Judged::Scored { overall, orders, .. } => {
            Judged::Scored { overall: *overall, orders: orders.clone(), reason: String::new() }
        }
        other => other.clone(),
    }
}

/// What the search of a run brought. A run in which a leg or the reranker failed has other scores than a whole one, so
/// it counts as failed; only a search that worked and found nothing counts as empty.
#[must_use]
pub fn retrieved(trace: &Trace, labels: &[Relevance]) -> Retrieved {
    if !whole(&trace.degraded) {
        return Retrieved::default();
    }
    let scores = trace.hits.iter().map(|hit| f64::from(hit.relevance())).collect();
    let found = |hit: &Hit| labels.iter().find(|label| label.id == hit.passage.id).map_or(0, |label| label.grade);
    let labelled = LabelledHits {
        found: trace.hits.iter().map(found).collect(),
        labelled: labels.iter().map(|label| label.grade).collect(),
    };
    Retrieved { scores: Some(scores), labels: (!labels.is_empty()).then_some(labelled) }
}

/// The same of an answer that is stored.
#[must_use]
pub fn retrieved_before(hits: &[EpisodeHit], degraded: &[Degradation]) -> Retrieved {
    let scores = || hits.iter().map(|hit| f64::from(hit.reranker_score.unwrap_or(hit.score))).collect();
    Retrieved { scores: whole(degraded).then(scores), labels: None }
}

/// Whether both legs and the reranker worked: a search that was not whole scores nothing.
#[must_use]
pub fn whole(degraded: &[Degradation]) -> bool {
    !degraded.iter().any(|stage| {
        matches!(
            stage,
            Degradation::DenseUnavailable
                | Degradation::Bm25Unavailable
                | Degradation::RerankTimeout
                | Degradation::RerankFailed
        )
    })
}
