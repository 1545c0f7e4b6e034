use serde::{Deserialize, Serialize};

use super::input::{ArmFacts, Pair};

/// A figure of one answer on which arms are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// `0.5 * top1 + 0.3 * mean3 + 0.2 * gap` of the scores, 0 where nothing was found.
    #[default]
    Quality,
    /// Score of the first hit.
    Top1Score,
    /// Mean score of the first three hits, or of fewer.
    Mean3Score,
    /// `2 * clip(first - second, 0, 0.2)` of the scores, 0 with a single hit.
    Gap,
    /// The judge's overall score, 1 to 5.
    Judge,
    /// Whether the first hit is labelled relevant.
    LabelTop1,
    /// Share of the relevant passages among the first five.
    LabelRecallAt5,
    /// Discounted gain of the first ten over that of the best order.
    LabelNdcgAt10,
    /// Time of the rewriter, milliseconds.
    RewriteMs,
    /// Time of the whole answer, milliseconds.
    TotalMs,
    /// Characters of the rewrite.
    RewriteChars,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
    /// Neither.
    Neither,
}

impl Metric {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 11] = [
        Self::Quality,
        Self::Top1Score,
        Self::Mean3Score,
        Self::Gap,
        Self::Judge,
        Self::LabelTop1,
        Self::LabelRecallAt5,
        Self::LabelNdcgAt10,
        Self::RewriteMs,
        Self::TotalMs,
        Self::RewriteChars,
    ];

    /// Its name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Top1Score => "top-1 score",
            Self::Mean3Score => "mean score of the first 3",
            Self::Gap => "gap",
            Self::Judge => "judge",
            Self::LabelTop1 => "top-1 (labels)",
            Self::LabelRecallAt5 => "recall@5 (labels)",
            Self::LabelNdcgAt10 => "nDCG@10 (labels)",
            Self::RewriteMs => "rewrite latency",
            Self::TotalMs => "total latency",
            Self::RewriteChars => "rewrite length",
        }
    }

    /// Its unit, empty for a score.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::RewriteMs | Self::TotalMs => "ms",
            Self::RewriteChars => "characters",
            _ => "",
        }
    }

    /// Which way is better.
    #[must_use]
    pub fn better(self) -> Better {
        match self {
            Self::RewriteMs | Self::TotalMs => Better::Lower,
            Self::RewriteChars => Better::Neither,
            _ => Better::Higher,
        }
    }

    /// The values it can have, where that is known; scores are from 0 to 1.
    #[must_use]
    pub fn bounds(self) -> Option<(f64, f64)> {
        match self {
            Self::Judge => Some((1.0, 5.0)),
            // 0.5 + 0.3 + 0.2 * 0.4
            Self::Quality => Some((0.0, 0.88)),
            Self::Gap => Some((0.0, 0.4)),
            Self::RewriteMs | Self::TotalMs | Self::RewriteChars => None,
            _ => Some((0.0, 1.0)),
        }
    }

    /// How far apart two values can be at most, where that is known.
    #[must_use]
    pub fn range(self) -> Option<f64> {
        self.bounds().map(|(lower, upper)| upper - lower)
    }

    /// Differences this small are ties: scores are stored in single precision, clocks are no finer than a millisecond.
    #[must_use]
    pub fn slack(self) -> f64 {
        match self.better() {
            Better::Higher => 1e-6,
            Better::Lower | Better::Neither => 0.5,
        }
    }

    /// The figure of one answer; nothing where it is missing. The judge's is with the pair: see [`Metric::of_pair`].
    #[must_use]
    pub fn of(self, facts: &ArmFacts) -> Option<f64> {
        let value = match self {
            Self::Quality => quality(&facts.scores),
            Self::Top1Score => facts.scores.first().copied().unwrap_or(0.0),
            Self::Mean3Score => mean3(&facts.scores),
            Self::Gap => gap(&facts.scores),
            Self::Judge => return None,
            Self::LabelTop1 => facts.labels.as_ref()?.top1,
            Self::LabelRecallAt5 => facts.labels.as_ref()?.recall_at_5,
            Self::LabelNdcgAt10 => facts.labels.as_ref()?.ndcg_at_10,
            Self::RewriteMs => facts.rewrite_ms,
            Self::TotalMs => facts.total_ms,
            Self::RewriteChars => chars(&facts.rewrite),
        };
        // A search that failed is missing; only one that worked and found nothing scores 0.
        let from_scores = matches!(self, Self::Quality | Self::Top1Score | Self::Mean3Score | Self::Gap);
        let failed = from_scores && facts.scores.is_empty() && facts.degraded;
        (value.is_finite() && !failed).then_some(value)
    }

    /// The figures of both answers of a pair, the live one first; nothing where either is missing.
    #[must_use]
    pub fn of_pair(self, pair: &Pair) -> Option<(f64, f64)> {
        match self {
            Self::Judge => pair.judge.filter(|(live, other)| live.is_finite() && other.is_finite()),
            _ => Some((self.of(&pair.live)?, self.of(&pair.other)?)),
        }
    }
}

/// `0.5 * top1 + 0.3 * mean3 + 0.2 * gap`, 0 without a hit.
fn quality(scores: &[f64]) -> f64 {
    0.5 * scores.first().copied().unwrap_or(0.0) + 0.3 * mean3(scores) + 0.2 * gap(scores)
}

#[expect(clippy::cast_precision_loss, reason = "three at most")]
fn mean3(scores: &[f64]) -> f64 {
    let first = &scores[..scores.len().min(3)];
    if first.is_empty() { 0.0 } else { first.iter().sum::<f64>() / first.len() as f64 }
}

fn gap(scores: &[f64]) -> f64 {
    match scores {
        [first, second, ..] => 2.0 * (first - second).clamp(0.0, 0.2),
        _ => 0.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "texts are far shorter than 2^53")]
fn chars(text: &str) -> f64 {
    text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(scores: &[f64]) -> ArmFacts {
        ArmFacts { scores: scores.to_vec(), rewrite: "胶原蛋白肽".to_owned(), ..ArmFacts::default() }
    }

    #[test]
    fn quality_follows_its_formula() {
        for (scores, expected) in [
            (&[][..], 0.0),
            (&[0.95], 0.5 * 0.95 + 0.3 * 0.95),
            (&[0.9, 0.6, 0.3, 0.1], 0.5 * 0.9 + 0.3 * 0.6 + 0.2 * 0.4),
            (&[0.9, 0.85], 0.5 * 0.9 + 0.3 * 0.875 + 0.2 * 0.1),
            // Not in order: the gap is clipped, never negative.
            (&[0.5, 0.9], 0.5 * 0.5 + 0.3 * 0.7),
        ] {
            let value = Metric::Quality.of(&facts(scores)).unwrap();
            assert!((value - expected).abs() < 1e-12, "{scores:?}: {value}");
        }
    }

    #[test]
    fn a_failed_search_is_missing_and_an_empty_one_is_nought() {
        let mut failed = facts(&[]);
        assert_eq!(Metric::Top1Score.of(&failed), Some(0.0));
        failed.degraded = true;
        for metric in [Metric::Quality, Metric::Top1Score, Metric::Mean3Score, Metric::Gap] {
            assert_eq!(metric.of(&failed), None);
        }
        assert_eq!(Metric::RewriteChars.of(&failed), Some(5.0));
    }

    #[test]
    fn values_that_are_not_finite_are_missing() {
        assert_eq!(Metric::Quality.of(&facts(&[f64::NAN])), None);
        let pair = Pair { judge: Some((4.0, f64::INFINITY)), ..Pair::default() };
        assert_eq!(Metric::Judge.of_pair(&pair), None);
        assert_eq!(Metric::LabelTop1.of_pair(&pair), None);
    }
}
