//! The reward of a rewrite against a baseline's: judge scores, retrieval quality and a bonus
//! (`R = 0.40 g + 0.35 r + 0.25 b`, clipped to [-1, 1]).

use serde::{Deserialize, Serialize};

/// Version of the formulas; stored with every reward, so that rewards of two versions are never mixed.
pub const REWARD_VERSION: u32 = 1;

/// Every number of the formulas. The defaults are the operators' plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardWeights {
    /// Weight of the judge part g.
    pub judge: f64,
    /// Weight of the retrieval part r.
    pub retrieval: f64,
    /// Weight of the bonus b.
    pub bonus: f64,
    /// Slope inside tanh of g.
    pub judge_slope: f64,
    /// The judge's highest score; scores are divided by it.
    pub judge_scale: f64,
    /// Slope inside tanh of r.
    pub retrieval_slope: f64,
    /// Weights of the first hit, the mean of the first three, and the gap, in a retrieval's quality q.
    pub quality: [f64; 3],
    /// The gap between the first two hits counts up to this.
    pub gap_max: f64,
    /// The gap is multiplied by this.
    pub gap_slope: f64,
    /// (m, b): the bonus is the b of the first pair whose m is below the mean of g and r.
    pub bonus_steps: Vec<(f64, f64)>,
    /// The bonus below all steps.
    pub bonus_floor: f64,
    /// The reward of an invalid rewrite.
    pub invalid: f64,
}

impl Default for RewardWeights {
    fn default() -> Self {
        Self {
            judge: 0.40,
            retrieval: 0.35,
            bonus: 0.25,
            judge_slope: 2.0,
            judge_scale: 5.0,
            retrieval_slope: 3.0,
            quality: [0.5, 0.3, 0.2],
            gap_max: 0.2,
            gap_slope: 2.0,
            bonus_steps: vec![(0.3, 0.5), (0.1, 0.2), (-0.1, 0.0)],
            bonus_floor: -0.3,
            invalid: -1.0,
        }
    }
}

/// What is known of one rewrite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arm<'a> {
    /// The judge's overall score; `None` where the verdict is missing.
    pub judge: Option<f64>,
    /// Relevance of the hits, best first (the reranker's score where it ran, else the similarity); `None` where
    /// retrieval failed. Empty means that retrieval worked and found nothing.
    pub hits: Option<&'a [f64]>,
}

/// Which of the two rewrites is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The rewriter that learns.
    Student,
    /// The one it is compared with.
    Baseline,
}

/// What a reward cannot be computed without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The judge's verdict on this side.
    Verdict(Side),
    /// This side's retrieval.
    Retrieval(Side),
}

/// A reward with everything it was made of, so that any part can be checked or weighed anew.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RewardParts {
    /// [`REWARD_VERSION`] of the formulas.
    pub version: u32,
    /// The judge's overall score of the student.
    pub judge_student: f64,
    /// The judge's overall score of the baseline.
    pub judge_baseline: f64,
    /// q of the student's retrieval, 0 to 1.
    pub quality_student: f64,
    /// q of the baseline's retrieval, 0 to 1.
    pub quality_baseline: f64,
    /// g, -1 to 1.
    pub judge: f64,
    /// r, -1 to 1.
    pub retrieval: f64,
    /// b.
    pub bonus: f64,
    /// R, -1 to 1.
    pub total: f64,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Reward {
    /// Everything was there.
    Scored(RewardParts),
    /// Something was not; the sample is dropped and counted.
    Missing {
        /// What was not there.
        what: Missing,
    },
}

/// q of one retrieval: `0.5 top1 + 0.3 mean(first <= 3) + 0.2 gap`; 0 when nothing was found.
/// `gap = 2 clip(top1 - top2, 0, 0.2)`, and 0 with one hit.
#[must_use]
pub fn quality(hits: &[f64], weights: &RewardWeights) -> f64 {
    let Some(top1) = hits.first() else { return 0.0 };
    let first = &hits[..hits.len().min(3)];
    let mean = first.iter().sum::<f64>() / first.len() as f64;
    let gap = hits.get(1).map_or(0.0, |top2| weights.gap_slope * (top1 - top2).max(0.0).min(weights.gap_max));
    let [of_top1, of_mean, of_gap] = weights.quality;
    of_top1 * top1 + of_mean * mean + of_gap * gap
}

/// b from the mean of g and r.
fn bonus(mean: f64, weights: &RewardWeights) -> f64 {
    let step = weights.bonus_steps.iter().find(|(above, _)| mean > *above);
    step.map_or(weights.bonus_floor, |(_, bonus)| *bonus)
}

/// R of the student's rewrite against the baseline's. A number that is not finite counts as missing.
#[must_use]
pub fn reward(student: Arm<'_>, baseline: Arm<'_>, weights: &RewardWeights) -> Reward {
    match parts(student, baseline, weights) {
        Ok(parts) => Reward::Scored(parts),
        Err(what) => Reward::Missing { what },
    }
}

fn parts(student: Arm<'_>, baseline: Arm<'_>, weights: &RewardWeights) -> Result<RewardParts, Missing> {
    let judged = |arm: Arm<'_>, side| arm.judge.filter(|score| score.is_finite()).ok_or(Missing::Verdict(side));
    let retrieved = |arm: Arm<'_>, side| {
        let hits = arm.hits.filter(|hits| hits.iter().all(|hit| hit.is_finite()));
        hits.map(|hits| quality(hits, weights)).ok_or(Missing::Retrieval(side))
    };
    let (judge_student, judge_baseline) = (judged(student, Side::Student)?, judged(baseline, Side::Baseline)?);
    let (quality_student, quality_baseline) =
        (retrieved(student, Side::Student)?, retrieved(baseline, Side::Baseline)?);
    let scale = weights.judge_scale;
    let judge = (weights.judge_slope * (judge_student / scale - judge_baseline / scale)).tanh();
    let retrieval = (weights.retrieval_slope * (quality_student - quality_baseline)).tanh();
    let bonus = bonus(f64::midpoint(judge, retrieval), weights);
    let total = weights.judge * judge + weights.retrieval * retrieval + weights.bonus * bonus;
    Ok(RewardParts {
        version: REWARD_VERSION,
        judge_student,
        judge_baseline,
        quality_student,
        quality_baseline,
        judge,
        retrieval,
        bonus,
        total: total.clamp(-1.0, 1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arm(judge: f64, hits: &[f64]) -> Arm<'_> {
        Arm { judge: Some(judge), hits: Some(hits) }
    }

    #[test]
    fn the_worked_check_of_the_specification() {
        let Reward::Scored(parts) = reward(arm(4.25, &[0.92]), arm(4.75, &[0.95]), &RewardWeights::default()) else {
            panic!()
        };
        assert!((parts.total - -0.18).abs() < 0.005, "{parts:?}");
    }

    #[test]
    fn an_outage_is_missing_and_an_empty_result_is_not() {
        let weights = RewardWeights::default();
        let good = arm(4.0, &[0.8]);
        let missing = |student, baseline| match reward(student, baseline, &weights) {
            Reward::Missing { what } => what,
            scored => panic!("{scored:?}"),
        };
        assert_eq!(missing(Arm { judge: None, ..good }, good), Missing::Verdict(Side::Student));
        assert_eq!(missing(good, Arm { judge: Some(f64::NAN), ..good }), Missing::Verdict(Side::Baseline));
        assert_eq!(missing(good, Arm { hits: None, ..good }), Missing::Retrieval(Side::Baseline));
        assert_eq!(missing(Arm { hits: Some(&[f64::INFINITY]), ..good }, good), Missing::Retrieval(Side::Student));
        assert!(matches!(reward(arm(4.0, &[]), good, &weights), Reward::Scored(parts) if parts.quality_student == 0.0));
    }

    #[test]
    fn weights_read_back_and_refuse_unknown_keys() {
        let text = serde_json::to_string(&RewardWeights::default()).unwrap();
        assert_eq!(serde_json::from_str::<RewardWeights>(&text).unwrap(), RewardWeights::default());
        assert_eq!(serde_json::from_str::<RewardWeights>("{\"judge\":0.4}").unwrap(), RewardWeights::default());
        assert!(serde_json::from_str::<RewardWeights>("{\"judges\":0.4}").is_err());
    }
}
