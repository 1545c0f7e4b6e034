use serde::{Deserialize, Serialize};

use crate::bootstrap::quantile;

/// Answers that an arm must have given before a guardrail speaks: the first slow one must not stop it.
pub const MIN_ANSWERS: u64 = 50;

/// Bounds on the arms that are not the control. One that is not set bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guardrails {
    /// 99 % quantile of the rewriter's time, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_rewrite_ms: Option<f64>,
    /// Share of answers for which nothing was found, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty_recall_rate: Option<f64>,
    /// Share of answers where a stage failed or was late, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded_rate: Option<f64>,
    /// Mean of the rewrite's characters over those of the user's query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_ratio: Option<f64>,
}

/// One answer, as a guardrail sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerFacts {
    /// Time of the rewriter, milliseconds.
    pub rewrite_ms: f64,
    /// Whether nothing was found.
    pub empty: bool,
    /// Whether a stage failed or was late.
    pub degraded: bool,
    /// Characters of the rewrite for each one of the user's query.
    pub length_ratio: f64,
}

impl AnswerFacts {
    /// Characters of a rewrite for each one of the query.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "texts are far shorter than 2^53")]
    pub fn length_ratio(rewrite: &str, query: &str) -> f64 {
        rewrite.chars().count() as f64 / query.chars().count().max(1) as f64
    }
}

/// A guardrail with what was measured against it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardrailReport {
    /// The setting: `p99_rewrite_ms`, `empty_recall_rate`, `degraded_rate` or `length_ratio`.
    pub name: String,
    /// Answers measured.
    pub n: u64,
    /// What was measured; nothing without an answer.
    pub value: Option<f64>,
    /// What is allowed.
    pub bound: f64,
    /// Whether it holds; nothing while there are fewer than [`MIN_ANSWERS`].
    pub ok: Option<bool>,
}

impl Guardrails {
    /// The bounds that are set, by name.
    pub fn bounds(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("p99_rewrite_ms", self.p99_rewrite_ms),
            ("empty_recall_rate", self.empty_recall_rate),
            ("degraded_rate", self.degraded_rate),
            ("length_ratio", self.length_ratio),
        ];
        all.into_iter().filter_map(|(name, bound)| Some((name, bound?)))
    }

    /// Holds an arm's answers against each bound that is set.
    #[must_use]
    pub fn judge(&self, answers: &[AnswerFacts]) -> Vec<GuardrailReport> {
        let n = u64::try_from(answers.len()).unwrap_or(u64::MAX);
        self.bounds()
            .map(|(name, bound)| {
                let value = measured(name, answers);
                let ok = value.filter(|_| n >= MIN_ANSWERS).map(|value| value <= bound);
                GuardrailReport { name: name.to_owned(), n, value, bound, ok }
            })
            .collect()
    }
}

fn measured(name: &str, answers: &[AnswerFacts]) -> Option<f64> {
    if answers.is_empty() {
        return None;
    }
    let flag = |flag: fn(&AnswerFacts) -> bool| mean(answers.iter().map(|one| f64::from(u8::from(flag(one)))));
    let value = match name {
        "p99_rewrite_ms" => {
            let mut times: Vec<f64> = answers.iter().map(|one| one.rewrite_ms).collect();
            times.sort_by(f64::total_cmp);
            quantile(&times, 0.99)
        }
        "empty_recall_rate" => flag(|one| one.empty),
        "degraded_rate" => flag(|one| one.degraded),
        _ => mean(answers.iter().map(|one| one.length_ratio)),
    };
    Some(value)
}

#[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(rewrite_ms: f64) -> AnswerFacts {
        AnswerFacts { rewrite_ms, empty: false, degraded: false, length_ratio: 2.0 }
    }

    #[test]
    fn each_bound_is_held_against_its_own_figure() {
        let bounds = Guardrails {
            p99_rewrite_ms: Some(150.0),
            empty_recall_rate: Some(0.1),
            degraded_rate: Some(0.04),
            length_ratio: Some(1.5),
        };
        let mut answers: Vec<AnswerFacts> = (0..100).map(|index| answer(f64::from(index))).collect();
        (0..5).for_each(|index| (answers[index].empty, answers[index].degraded) = (true, true));
        let report = bounds.judge(&answers);
        let verdicts: Vec<_> = report.iter().map(|one| (one.name.as_str(), one.ok)).collect();
        let expected = [
            ("p99_rewrite_ms", Some(true)),
            ("empty_recall_rate", Some(true)),
            ("degraded_rate", Some(false)),
            ("length_ratio", Some(false)),
        ];
        assert_eq!(verdicts, expected);
        assert!((report[0].value.unwrap() - 98.01).abs() < 1e-9);
    }

    #[test]
    fn few_answers_do_not_speak_and_bounds_not_set_do_not_show() {
        let bounds = Guardrails { p99_rewrite_ms: Some(1.0), ..Guardrails::default() };
        let report = bounds.judge(&[answer(900.0)]);
        assert_eq!(report.len(), 1);
        assert_eq!((report[0].value, report[0].ok), (Some(900.0), None));
        assert_eq!(bounds.judge(&[])[0].value, None);
    }

    #[test]
    fn lengths_are_counted_in_characters() {
        assert_eq!(AnswerFacts::length_ratio("胶原蛋白肽 服用方法", "胶原蛋白"), 2.5);
        assert_eq!(AnswerFacts::length_ratio("abc", ""), 3.0);
    }
}
