//! What a caller learns of one completion.

use recast_judge::{Judged, LabelledHits, Missing, Reward, Side};
use serde::Serialize;
use utoipa::ToSchema;

use crate::scoring::facts::StoredReward;

/// Whether there is a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// There is.
    Scored,
    /// Something was missing, and nothing was made up: drop the sample.
    Unscored,
}

impl Status {
    /// For metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::Unscored => "unscored",
        }
    }
}

/// The reward's components, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct Parts {
    /// g, -1 to 1.
    pub judge: Option<f64>,
    /// r, -1 to 1.
    pub retrieval: Option<f64>,
    /// b.
    pub bonus: Option<f64>,
    /// 0, or the reward of a completion that is no rewrite.
    pub format: f64,
    /// The judge's overall score of the completion, 1 to 5.
    pub judge_student: Option<f64>,
    /// The judge's overall score of the baseline, 1 to 5.
    pub judge_baseline: Option<f64>,
    /// q of the completion's search, 0 to 1.
    pub quality_student: Option<f64>,
    /// q of the baseline's search, 0 to 1.
    pub quality_baseline: Option<f64>,
    /// 1 where the first hit is labelled relevant, 0 where it is not; absent without labels.
    pub top1: Option<f64>,
}

impl Parts {
    /// 1 where the completion beats the baseline, 0 where it loses: by the judge, and where the judge sees no
    /// difference, by what the search found. Absent for a tie, and where something is missing.
    #[must_use]
    pub fn win(&self) -> Option<f64> {
        let judged = self.judge_student?.partial_cmp(&self.judge_baseline?)?;
        let order = judged.then(self.quality_student?.partial_cmp(&self.quality_baseline?)?);
        (!order.is_eq()).then(|| f64::from(u8::from(order.is_gt())))
    }
}

/// A completion with all that came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// R, -1 to 1; `None` where something was missing.
    pub reward: Option<f64>,
    /// What R is made of.
    pub parts: Parts,
    /// The judge's reason, or why there is no reward.
    pub reason: String,
}

impl Outcome {
    /// No reward, for this reason.
    pub fn unscored(reason: impl Into<String>) -> Self {
        Self { reward: None, parts: Parts::default(), reason: reason.into() }
    }

    /// What a computed reward says; `words` are the judge's.
    #[must_use]
    pub fn of(stored: &StoredReward, words: &str) -> Self {
        let facts = &stored.facts;
        let judged = Parts {
            judge_student: facts.student.judged.overall(),
            judge_baseline: facts.baseline.judged.overall(),
            top1: facts.student.retrieved.labels.as_ref().map(first_relevant),
            ..Parts::default()
        };
        match &stored.reward {
            Reward::Scored(parts) => Self {
                reward: Some(parts.total),
                parts: Parts {
                    judge: Some(parts.judge),
                    retrieval: Some(parts.retrieval),
                    bonus: Some(parts.bonus),
                    quality_student: Some(parts.quality_student),
                    quality_baseline: Some(parts.quality_baseline),
                    ..judged
                },
                reason: words.to_owned(),
            },
            Reward::Invalid { reason, total } => Self::invalid(*total, *reason),
            Reward::Missing { what } => {
                let side = |side: &Side| match side {
                    Side::Student => (&facts.student.judged, "the completion"),
                    Side::Baseline => (&facts.baseline.judged, "the baseline"),
                };
                let reason = match what {
                    Missing::Retrieval(of) => format!("retrieval_failed: {}", side(of).1),
                    Missing::Verdict(of) => match side(of) {
                        (Judged::Missing { fault }, name) => format!("judge_{}: {name}: {fault}", fault.label()),
                        (_, name) => format!("judge_missing: {name}"),
                    },
                };
                Self { reward: None, parts: judged, reason }
            }
        }
    }

    /// A completion that is no rewrite.
    #[must_use]
    pub fn invalid(total: f64, reason: recast_judge::InvalidRewrite) -> Self {
        let parts = Parts { format: total, ..Parts::default() };
        let name = serde_json::to_value(reason).ok().and_then(|name| name.as_str().map(str::to_owned));
        Self { reward: Some(total), parts, reason: format!("invalid_rewrite: {}", name.unwrap_or_default()) }
    }

    /// Whether there is a reward.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.reward.is_some() { Status::Scored } else { Status::Unscored }
    }
}

fn first_relevant(hits: &LabelledHits) -> f64 {
    f64::from(u8::from(hits.found.first().is_some_and(|grade| *grade > 0)))
}
