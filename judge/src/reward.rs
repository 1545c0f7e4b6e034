//! The reward of a rewrite against a baseline's: judge scores, retrieval quality and a bonus
//! (`R = 0.40 g + 0.35 r + 0.25 b`, clipped to [-1, 1]).

use recast_config::{RewardKind, RewardSettings};
use serde::{Deserialize, Serialize};

use crate::labels::{LabelledHits, label_quality};
use crate::{InvalidRewrite, Judged};

/// Version of the formulas; stored with every reward, so that rewards of two versions are never mixed.
pub const REWARD_VERSION: u32 = 1;

/// What the retrieval part of a reward is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetrievalSignal {
    /// The scores of the hits ([`quality`]).
    #[default]
    Scores,
    /// The labels of the hits ([`label_quality`]); a question without labels has no reward then.
    Labels,
}

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
    /// What r is made from.
    pub signal: RetrievalSignal,
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
            signal: RetrievalSignal::Scores,
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

impl From<&RewardSettings> for RewardWeights {
    fn from(settings: &RewardSettings) -> Self {
        Self {
            judge: settings.judge,
            retrieval: settings.retrieval,
            bonus: settings.bonus,
            signal: match settings.kind {
                RewardKind::Scores => RetrievalSignal::Scores,
                RewardKind::Labels => RetrievalSignal::Labels,
            },
            judge_slope: settings.judge_slope,
            retrieval_slope: settings.retrieval_slope,
            quality: settings.quality,
            gap_max: settings.gap_max,
            gap_slope: settings.gap_slope,
            bonus_steps: settings.bonus_steps.clone(),
            bonus_floor: settings.bonus_floor,
            invalid: settings.invalid,
            ..Self::default()
        }
    }
}

impl RewardWeights {
    /// A hash of every number and of [`REWARD_VERSION`]: rewards under two hashes are never mixed.
    #[must_use]
    pub fn hash(&self) -> String {
        // the keys are written in the order of the fields, so equal weights have equal texts
        let text = serde_json::to_string(&(REWARD_VERSION, self)).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex().as_str()[..16].to_owned()
    }
}

/// What a search with one rewrite brought; `None` where retrieval failed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Retrieved {
    /// Relevance of the hits, best first.
    pub scores: Option<Vec<f64>>,
    /// Their labels; `None` also where the question has none.
    pub labels: Option<LabelledHits>,
}

impl Retrieved {
    fn quality(&self, weights: &RewardWeights) -> Option<f64> {
        match weights.signal {
            RetrievalSignal::Scores => self.scores.as_deref().and_then(|hits| finite_quality(hits, weights)),
            RetrievalSignal::Labels => self.labels.as_ref().and_then(label_quality),
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
    /// The student wrote no rewrite; nobody was asked.
    Invalid {
        /// Why it is none.
        reason: InvalidRewrite,
        /// R, [`RewardWeights::invalid`].
        total: f64,
    },
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

/// R from a group's verdicts. An invalid rewrite of the student's is worth [`RewardWeights::invalid`] whatever else is
/// missing; an invalid one of the baseline's leaves nothing to compare with.
#[must_use]
pub fn judged_reward(
    student: (&Judged, &Retrieved),
    baseline: (&Judged, &Retrieved),
    weights: &RewardWeights,
) -> Reward {
    if let Judged::Invalid { reason } = student.0 {
        return Reward::Invalid { reason: *reason, total: weights.invalid };
    }
    let known = |(judged, retrieved): (&Judged, &Retrieved)| (judged.overall(), retrieved.quality(weights));
    match combine(known(student), known(baseline), weights) {
        Ok(parts) => Reward::Scored(parts),
        Err(what) => Reward::Missing { what },
    }
}

fn finite_quality(hits: &[f64], weights: &RewardWeights) -> Option<f64> {
    hits.iter().all(|hit| hit.is_finite()).then(|| quality(hits, weights))
}

fn parts(student: Arm<'_>, baseline: Arm<'_>, weights: &RewardWeights) -> Result<RewardParts, Missing> {
    let known = |arm: Arm<'_>| (arm.judge, arm.hits.and_then(|hits| finite_quality(hits, weights)));
    combine(known(student), known(baseline), weights)
}

/// A judge's score and q, of each side.
type Known = (Option<f64>, Option<f64>);

fn combine(student: Known, baseline: Known, weights: &RewardWeights) -> Result<RewardParts, Missing> {
    let judged = |known: Known, side| known.0.filter(|score| score.is_finite()).ok_or(Missing::Verdict(side));
    let retrieved = |known: Known, side| known.1.ok_or(Missing::Retrieval(side));
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

/// The arithmetic of a reward, line by line, for a person to check.
#[must_use]
pub fn explain(parts: &RewardParts, weights: &RewardWeights) -> String {
    let RewardParts { judge, retrieval, bonus, total, .. } = parts;
    let mean = f64::midpoint(*judge, *retrieval);
    let sum = weights.judge * judge + weights.retrieval * retrieval + weights.bonus * bonus;
    let signal = match weights.signal {
        RetrievalSignal::Scores => "scores of the hits",
        RetrievalSignal::Labels => "labels of the hits",
    };
    [
        format!(
            "g = tanh({} * ({:.4}/{} - {:.4}/{})) = {judge:.4}",
            weights.judge_slope, parts.judge_student, weights.judge_scale, parts.judge_baseline, weights.judge_scale
        ),
        format!(
            "r = tanh({} * ({:.4} - {:.4})) = {retrieval:.4}    from the {signal}",
            weights.retrieval_slope, parts.quality_student, parts.quality_baseline
        ),
        format!("m = (g + r) / 2 = {mean:.4}"),
        match weights.bonus_steps.iter().find(|(above, _)| mean > *above) {
            Some((above, _)) => format!("b = {bonus:.4}    as m > {above}"),
            None => format!("b = {bonus:.4}    as m is above no step"),
        },
        format!(
            "R = {} * {judge:.4} + {} * {retrieval:.4} + {} * {bonus:.4} = {sum:.4}",
            weights.judge, weights.retrieval, weights.bonus
        ),
        format!("clipped to [-1, 1]: {total:.4}    formulas {}, weights {}", parts.version, weights.hash()),
    ]
    .join("\n")
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

    fn judged(overall: f64) -> Judged {
        Judged::Scored { overall, orders: Vec::new(), reason: String::new() }
    }

    #[test]
    fn an_invalid_rewrite_costs_one_and_a_missing_verdict_makes_no_reward() {
        let weights = RewardWeights::default();
        let found = Retrieved { scores: Some(vec![0.9]), labels: None };
        let nothing = Retrieved::default();
        let invalid = Judged::Invalid { reason: InvalidRewrite::Junk };
        let missing = Judged::Missing { fault: crate::VerdictFault::Blank };
        let reward = |student, baseline| judged_reward(student, baseline, &weights);
        let worst = Reward::Invalid { reason: InvalidRewrite::Junk, total: -1.0 };
        assert_eq!(reward((&invalid, &nothing), (&missing, &nothing)), worst);
        let four = judged(4.0);
        let good = (&four, &found);
        let absent = |what| Reward::Missing { what };
        assert_eq!(reward((&missing, &found), good), absent(Missing::Verdict(Side::Student)));
        assert_eq!(reward(good, (&invalid, &found)), absent(Missing::Verdict(Side::Baseline)));
        assert_eq!(reward((&four, &nothing), good), absent(Missing::Retrieval(Side::Student)));
        assert!(matches!(reward(good, good), Reward::Scored(parts) if parts.total == 0.0));
    }

    #[test]
    fn labels_replace_scores_where_they_are_chosen() {
        let weights = RewardWeights { signal: RetrievalSignal::Labels, ..RewardWeights::default() };
        let side = |score: f64, found: &[u32]| Retrieved {
            scores: Some(vec![score]),
            labels: Some(LabelledHits { found: found.into(), labelled: vec![2] }),
        };
        let (sure, right) = (side(0.99, &[0, 0]), side(0.2, &[2]));
        let same = judged(4.0);
        let Reward::Scored(parts) = judged_reward((&same, &right), (&same, &sure), &weights) else { panic!() };
        assert_eq!((parts.quality_student, parts.quality_baseline), (1.0, 0.0));
        let unlabelled = Retrieved { labels: None, ..sure };
        let missing = judged_reward((&same, &unlabelled), (&same, &right), &weights);
        assert_eq!(missing, Reward::Missing { what: Missing::Retrieval(Side::Student) });
    }

    #[test]
    fn the_arithmetic_is_shown_line_by_line() {
        let weights = RewardWeights::default();
        let Reward::Scored(parts) = reward(arm(4.25, &[0.92]), arm(4.75, &[0.95]), &weights) else { panic!() };
        let text = explain(&parts, &weights);
        assert_eq!(text.lines().count(), 6, "{text}");
        assert!(text.starts_with("g = tanh(2 * (4.2500/5 - 4.7500/5)) = -0.1974\n"), "{text}");
        assert!(text.contains("R = 0.4 * -0.1974 + 0.35 *") && text.contains(&format!("{:.4}", parts.total)));
        assert!(text.ends_with(&weights.hash()));
    }

    #[test]
    fn the_settings_that_are_shipped_are_the_plan() {
        let shipped = recast_config::load(&recast_config::Source::parse("demo"), Vec::new()).unwrap().settings.reward;
        assert_eq!(RewardWeights::from(&shipped), RewardWeights::default());
    }

    #[test]
    fn every_weight_is_in_the_hash() {
        let hash = RewardWeights::default().hash();
        assert_eq!((hash.len(), hash == RewardWeights::default().hash()), (16, true));
        for other in [
            RewardWeights { judge: 0.41, ..RewardWeights::default() },
            RewardWeights { signal: RetrievalSignal::Labels, ..RewardWeights::default() },
            RewardWeights { bonus_steps: vec![(0.3, 0.5)], ..RewardWeights::default() },
        ] {
            assert_ne!(other.hash(), hash);
        }
    }
}
