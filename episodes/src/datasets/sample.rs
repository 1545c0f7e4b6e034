//! One episode as training sees it.

use recast_domain::Conversation;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::export::Row;

/// Where the rewrite of a sample comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The rewrite that was served.
    EpisodeLog,
    /// What a person wrote down in its place.
    HumanLabel,
    /// A row of a workbook of a batch run.
    BatchTest,
}

/// A passage that was found, as the datasets hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Passage id; empty where a workbook does not say.
    #[serde(default)]
    pub id: String,
    /// Its text.
    pub content: String,
    /// Calibrated similarity, 0 to 1.
    pub score: f64,
    /// Calibrated score of the reranker, 0 to 1; `None` where it did not run.
    #[serde(default)]
    pub reranker_score: Option<f64>,
}

impl Found {
    /// The score that counts: the reranker's, else the similarity.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.reranker_score.unwrap_or(self.score)
    }
}

/// One of the two rewrites of a paired run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// The rewrite.
    pub rewrite: String,
    /// Who made it: local, cached, remote.
    pub source: String,
    /// The policy that made it.
    pub policy: String,
    /// What it found, best first.
    pub found: Vec<Found>,
    /// The judge's overall score, 1 to 5; `None` where it is missing.
    pub overall: Option<f64>,
}

/// The small rewriter and the large one on the same question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The local model's.
    pub student: Arm,
    /// The 32B service's.
    pub baseline: Arm,
    /// Whether the student's answer was the one that was served.
    pub student_was_live: bool,
    /// Whose scores these are.
    pub judge: Option<String>,
    /// R of the student against the baseline, -1 to 1; `None` where it is missing.
    pub reward: Option<f64>,
}

/// One episode as training sees it. Texts are as the store holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The episode it was made of, so that an erasure finds it.
    pub episode_id: String,
    /// The conversation; the episode's own id where the caller named none.
    pub conversation_id: String,
    /// When the request was answered, milliseconds since the Unix epoch; 0 where nobody knows.
    pub created_ms: i64,
    /// The question with its context.
    pub conversation: Conversation,
    /// The rewrite: a person's, where there is one.
    pub rewrite: String,
    /// Where that comes from.
    pub origin: Origin,
    /// The policy that made it; the author's word is not kept.
    pub model: String,
    /// The judge's overall score of it, 1 to 5; `None` where it is missing or the rewrite is a person's.
    pub quality_score: Option<f64>,
    /// Score of the first hit, 0 to 1; `None` where nothing was found.
    pub top1_score: Option<f64>,
    /// Hits that were found.
    pub recall_count: u64,
    /// Passages that a person named as answers.
    pub relevant: Option<Vec<String>>,
    /// Whether synonyms were put in.
    pub augmented: bool,
    /// The paired run, where the two rewriters met.
    pub pair: Option<Pair>,
}

impl Sample {
    /// The id of the sample: the episode's, and a mark where synonyms were put in.
    #[must_use]
    pub fn id(&self) -> String {
        if self.augmented { format!("{}-augmented", self.episode_id) } else { self.episode_id.clone() }
    }

    /// # Errors
    /// With what cannot be understood.
    pub(crate) fn new(row: &Row<'_>, wants_pair: bool) -> Result<Self, String> {
        let body = &row.body;
        let said = &body.conversation;
        let history = serde_json::from_str(said.history.get()).map_err(|error| format!("its history: {error}"))?;
        let id = row.id().to_owned();
        let asked_in = body.request.conversation_id.as_ref().map(|id| id.as_str().trim()).filter(|id| !id.is_empty());
        let gold = row.labels.gold.as_ref();
        let top = row.hits.top.as_ref();
        Ok(Self {
            conversation_id: asked_in.map_or_else(|| id.clone(), str::to_owned),
            episode_id: id,
            created_ms: row.meta.created_ms,
            conversation: Conversation {
                query: said.query.as_str().to_owned(),
                history,
                user_profile: said.user_profile.as_str().to_owned(),
                history_summary: said.history_summary.as_str().to_owned(),
                thought: said.thought.as_str().to_owned(),
            },
            rewrite: gold.map_or_else(|| body.rewrite.text.as_str().to_owned(), Clone::clone),
            origin: if gold.is_some() { Origin::HumanLabel } else { Origin::EpisodeLog },
            model: body.rewrite.policy.as_str().to_owned(),
            quality_score: if gold.is_some() { None } else { row.verdicts.live },
            top1_score: top.map(|hit| hit.reranker_score.unwrap_or(hit.score)),
            recall_count: row.hits.count,
            relevant: row.labels.relevant.clone(),
            augmented: false,
            pair: if wants_pair { pair(row)? } else { None },
        })
    }
}

/// The paired run, where one side is the local model's and the other the 32B service's.
fn pair(row: &Row<'_>) -> Result<Option<Pair>, String> {
    let Some((answer, _)) = row.shadow.as_ref().and_then(|run| run.answer.as_ref()) else { return Ok(None) };
    let live = arm(&row.body.rewrite, row.body.hits, row.verdicts.live)?;
    let shadow = arm(&answer.rewrite, answer.hits, row.verdicts.shadow)?;
    let is_student = |arm: &Arm| matches!(arm.source.as_str(), "local" | "cached");
    let is_baseline = |arm: &Arm| arm.source == "remote";
    let live_reward = row.rewards.live.as_ref().and_then(|(_, parts)| parts.total);
    let (student, baseline, student_was_live, reward) = if is_student(&live) && is_baseline(&shadow) {
        (live, shadow, true, live_reward)
    } else if is_baseline(&live) && is_student(&shadow) {
        (shadow, live, false, row.rewards.shadow_total)
    } else {
        return Ok(None);
    };
    Ok(Some(Pair { student, baseline, student_was_live, judge: row.verdicts.judge.map(str::to_owned), reward }))
}

fn arm(rewrite: &crate::export::RewriteText<'_>, hits: &RawValue, overall: Option<f64>) -> Result<Arm, String> {
    Ok(Arm {
        rewrite: rewrite.text.as_str().to_owned(),
        source: rewrite.source.as_str().to_owned(),
        policy: rewrite.policy.as_str().to_owned(),
        found: serde_json::from_str(hits.get()).map_err(|error| format!("its hits: {error}"))?,
        overall,
    })
}
