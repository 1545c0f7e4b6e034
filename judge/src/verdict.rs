use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::InvalidRewrite;

/// What a rewrite is judged by; each is scored with an integer from 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Clearer and more professional than the query.
    RewriteQuality,
    /// Uses the terms of the domain.
    DomainFit,
    /// Means what the asker meant.
    IntentPreservation,
    /// Makes the right documents easier to find.
    Retrievability,
}

/// All dimensions, in the order of the rubric.
pub const DIMENSIONS: [Dimension; 4] =
    [Dimension::RewriteQuality, Dimension::DomainFit, Dimension::IntentPreservation, Dimension::Retrievability];

impl Dimension {
    /// The key that a judge's JSON uses.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::RewriteQuality => "改写质量",
            Self::DomainFit => "领域适配",
            Self::IntentPreservation => "意图保持",
            Self::Retrievability => "可检索性",
        }
    }
}

/// The scores of one rewrite, one a dimension, each from 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[u8; 4]", into = "[u8; 4]")]
pub struct Scores([u8; 4]);

impl TryFrom<[u8; 4]> for Scores {
    type Error = String;
    fn try_from(scores: [u8; 4]) -> Result<Self, String> {
        match scores.iter().find(|score| !(1..=5).contains(*score)) {
            Some(score) => Err(format!("score {score} is not from 1 to 5")),
            None => Ok(Self(scores)),
        }
    }
}

impl From<Scores> for [u8; 4] {
    fn from(scores: Scores) -> Self {
        scores.0
    }
}

impl Scores {
    /// All ones.
    pub const LOWEST: Self = Self([1; 4]);

    /// The score of one dimension.
    #[must_use]
    pub fn of(self, dimension: Dimension) -> u8 {
        self.0[dimension as usize]
    }

    /// The mean of the four to two decimals. Always computed here, whatever the judge says it is.
    #[must_use]
    pub fn overall(self) -> f64 {
        let sum: u32 = self.0.iter().map(|score| u32::from(*score)).sum();
        (f64::from(sum) * 25.0).round() / 100.0
    }
}

/// Why there is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictFault {
    /// The judge was not reached, or answered with an error.
    Unavailable(String),
    /// The deadline of the question passed first.
    Late,
    /// The day's money for this tenant is spent.
    BudgetSpent,
    /// The judge declined to answer.
    Refused(String),
    /// The answer was cut at its token limit.
    Truncated,
    /// The answer is empty.
    Blank,
    /// The answer on a list does not have each id exactly once; says what is wrong.
    Entries(String),
    /// The text is no rewrite, so the judge was not asked.
    NoRewrite(InvalidRewrite),
    /// A rewrite that must score low did not, so nothing this judge said in the same batch counts.
    CanaryScored,
    /// The answer is no JSON object.
    NotJson,
    /// The answer lacks a dimension.
    Absent(Dimension),
    /// A dimension's value is no integer.
    NotInteger(Dimension),
}

impl fmt::Display for VerdictFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(cause) => write!(f, "the judge did not answer: {cause}"),
            Self::Late => write!(f, "the judge missed the deadline"),
            Self::BudgetSpent => write!(f, "the tenant's money for judging is spent for today"),
            Self::Refused(words) => write!(f, "the judge declined: {words}"),
            Self::Truncated => write!(f, "the judge's answer was cut at its token limit"),
            Self::Blank => write!(f, "the judge's answer is empty"),
            Self::Entries(wrong) => write!(f, "the judge's list is wrong: {wrong}"),
            Self::NoRewrite(reason) => write!(f, "the text is no rewrite: {reason:?}"),
            Self::CanaryScored => write!(f, "the judge scored a canary high"),
            Self::NotJson => write!(f, "the judge's answer is no json object"),
            Self::Absent(dimension) => write!(f, "the judge's answer has no {}", dimension.key()),
            Self::NotInteger(dimension) => write!(f, "{} in the judge's answer is no integer", dimension.key()),
        }
    }
}

impl VerdictFault {
    /// The stable, low-cardinality name of this fault, for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Late => "late",
            Self::BudgetSpent => "budget_spent",
            Self::Refused(_) => "refused",
            Self::Truncated => "truncated",
            Self::Blank => "blank",
            Self::Entries(_) => "entries",
            Self::NoRewrite(_) => "no_rewrite",
            Self::CanaryScored => "canary_scored",
            Self::NotJson => "not_json",
            Self::Absent(_) => "absent",
            Self::NotInteger(_) => "not_integer",
        }
    }
}

/// What is known of a judge's opinion on one rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    /// All four dimensions were scored.
    Scored {
        /// The scores.
        scores: Scores,
        /// The judge's reason; may be empty.
        reason: String,
    },
    /// There is no verdict, and none is made up.
    Missing {
        /// Why not.
        fault: VerdictFault,
    },
}

impl Verdict {
    /// Reads a judge's answer, one JSON object with the four keys. Integers outside 1 to 5 are brought to the nearer
    /// end; anything else that is not an integer, or not there, makes the whole verdict missing. Text around the
    /// object is not searched: whoever can get text into an answer could plant scores there.
    #[must_use]
    pub fn parse(answer: &str) -> Self {
        match one_scores(answer) {
            Ok((scores, reason)) => Self::Scored { scores, reason },
            Err(fault) => Self::Missing { fault },
        }
    }

    /// The overall score, 1 to 5; `None` where the verdict is missing.
    #[must_use]
    pub fn overall(&self) -> Option<f64> {
        match self {
            Self::Scored { scores, .. } => Some(scores.overall()),
            Self::Missing { .. } => None,
        }
    }
}

/// The scores and the reason of an answer on one rewrite.
pub(crate) fn one_scores(answer: &str) -> Result<(Scores, String), VerdictFault> {
    match serde_json::from_str(answer) {
        Ok(Value::Object(fields)) => scores(&fields),
        _ => Err(VerdictFault::NotJson),
    }
}

/// The scores and the reason in one object with the four keys.
pub(crate) fn scores(fields: &Map<String, Value>) -> Result<(Scores, String), VerdictFault> {
    let mut scores = [0; 4];
    for dimension in DIMENSIONS {
        let value = fields.get(dimension.key()).filter(|value| !value.is_null());
        let value = value.ok_or(VerdictFault::Absent(dimension))?;
        let number = value.as_f64().filter(|number| number.fract() == 0.0);
        let number = number.ok_or(VerdictFault::NotInteger(dimension))?;
        scores[dimension as usize] = number.clamp(1.0, 5.0) as u8;
    }
    let reason = fields.get("评分理由").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((Scores(scores), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"改写质量":5,"领域适配":4,"意图保持":4,"可检索性":4,"综合得分":1.0,"评分理由":"清楚"}"#;

    fn fault(answer: &str) -> VerdictFault {
        match Verdict::parse(answer) {
            Verdict::Missing { fault } => fault,
            scored => panic!("{answer} must be missing, is {scored:?}"),
        }
    }

    #[test]
    fn the_overall_score_is_ours() {
        let verdict = Verdict::parse(GOOD);
        assert_eq!(verdict.overall(), Some(4.25), "not the 1.0 that the judge wrote");
        let Verdict::Scored { scores, reason } = verdict else { panic!() };
        assert_eq!((scores.of(Dimension::RewriteQuality), reason.as_str()), (5, "清楚"));
    }

    #[test]
    fn scores_outside_the_scale_are_brought_to_its_ends() {
        let verdict = Verdict::parse(&GOOD.replace(":5", ":1e300").replace("领域适配\":4", "领域适配\":-3"));
        assert_eq!(verdict.overall(), Some((5.0 + 1.0 + 4.0 + 4.0) / 4.0));
    }

    #[test]
    fn what_is_missing_is_not_made_up() {
        use Dimension::{DomainFit, RewriteQuality};
        for text in ["", "4", "[5,4,4,4]", "分数：{}", "{\"改写质量\":NaN}"] {
            assert_eq!(fault(text), VerdictFault::NotJson, "{text}");
        }
        assert_eq!(fault(&["好的 ", GOOD].concat()), VerdictFault::NotJson);
        assert_eq!(fault(&GOOD.replace("领域适配", "领域")), VerdictFault::Absent(DomainFit));
        assert_eq!(fault(&GOOD.replace(":5", ":null")), VerdictFault::Absent(RewriteQuality));
        for value in [":4.5", ":\"5\"", ":[5]", ":true"] {
            assert_eq!(fault(&GOOD.replace(":5", value)), VerdictFault::NotInteger(RewriteQuality), "{value}");
        }
        let missing = Verdict::Missing { fault: VerdictFault::Unavailable("429".to_owned()) };
        assert_eq!(missing.overall(), None);
    }

    #[test]
    fn a_verdict_reads_back_and_a_bad_one_does_not() {
        let text = serde_json::to_string(&Verdict::parse(GOOD)).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), Verdict::parse(GOOD));
        assert!(serde_json::from_str::<Verdict>(&text.replace("[5,", "[9,")).is_err());
    }
}
