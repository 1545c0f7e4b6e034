use serde::{Deserialize, Serialize};

use crate::bootstrap::Interval;
use crate::e_process::Direction;
use crate::guardrails::GuardrailReport;

/// What to do with an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is decided yet.
    KeepRunning,
    /// The treatment is better by the primary metric.
    TreatmentBetter,
    /// The control is.
    ControlBetter,
    /// It is over, or any difference is too small to matter.
    NoDifference,
    /// A guardrail is broken.
    StoppedByGuardrail,
    /// Somebody threw the kill switch.
    StoppedByKillSwitch,
    /// The data cannot be trusted.
    Invalid,
}

impl Verdict {
    /// The verdict in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::KeepRunning => "keep running",
            Self::TreatmentBetter => "treatment better",
            Self::ControlBetter => "control better",
            Self::NoDifference => "no difference found",
            Self::StoppedByGuardrail => "stopped by a guardrail",
            Self::StoppedByKillSwitch => "stopped by the kill switch",
            Self::Invalid => "invalid",
        }
    }
}

/// A verdict with its reason in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

/// What the deciding metric found, turned so that above 0 is better for the treatment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// Pairs, or units of the smaller arm.
    pub n: u64,
    /// Mean difference, treatment minus control.
    pub mean: f64,
    /// Where it is likely to lie: valid at every look where the experiment is looked at more than once.
    pub interval: Interval,
    /// The side on which the test found it.
    pub direction: Option<Direction>,
    /// What the control differs from itself by at most, in 95 % of cases.
    pub noise: Option<f64>,
}

/// Everything that a decision rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Grounds<'a> {
    /// Whether the kill switch was thrown.
    pub killed: bool,
    /// Whether no more data will come.
    pub ended: bool,
    /// What is wrong with the data, if anything.
    pub flaw: Option<String>,
    /// The guardrails with what was measured.
    pub guardrails: &'a [GuardrailReport],
    /// The metric that decides, for people.
    pub metric: &'a str,
    /// Pairs needed before anything is decided.
    pub min_pairs: u64,
    /// The smallest difference that matters; 0 where every one does.
    pub margin: f64,
    /// What was found; nothing without a pair.
    pub finding: Option<Finding>,
}

/// Decides. What stops an experiment comes first, what invalidates it second, and only then what it found.
#[must_use]
pub fn decide(grounds: &Grounds) -> Decision {
    let (verdict, reason) = verdict(grounds);
    Decision { verdict, reason }
}

fn verdict(grounds: &Grounds) -> (Verdict, String) {
    if grounds.killed {
        return (Verdict::StoppedByKillSwitch, "the kill switch was thrown".to_owned());
    }
    if let Some(broken) = grounds.guardrails.iter().find(|guardrail| guardrail.ok == Some(false)) {
        let value = broken.value.map_or_else(String::new, |value| format!("{value:.3}"));
        let reason =
            format!("{} is {value} over {} answers, above its bound of {}", broken.name, broken.n, broken.bound);
        return (Verdict::StoppedByGuardrail, reason);
    }
    if let Some(flaw) = &grounds.flaw {
        return (Verdict::Invalid, flaw.clone());
    }
    let metric = grounds.metric;
    let Some(finding) = grounds.finding.filter(|finding| finding.n > 0) else {
        return match grounds.ended {
            true => (Verdict::NoDifference, format!("nothing was measured: no pair has a value of {metric}")),
            false => (Verdict::KeepRunning, format!("no pair has a value of {metric} yet")),
        };
    };
    let Finding { n, mean, interval: Interval { lower, upper }, direction, noise } = finding;
    if n < grounds.min_pairs && !grounds.ended {
        return (Verdict::KeepRunning, format!("{n} of the {} pairs that are needed at least", grounds.min_pairs));
    }
    let ahead = if mean < 0.0 { "trails" } else { "leads" };
    let lead = match lower.is_finite() && upper.is_finite() {
        true => format!("its lead between {lower:+.4} and {upper:+.4}"),
        false => "too early for an interval".to_owned(),
    };
    let found = format!("by {metric} the treatment {ahead} by {:.4}, {lead}", mean.abs());
    if grounds.margin > 0.0 && lower > -grounds.margin && upper < grounds.margin {
        return (Verdict::NoDifference, format!("{found}: less than the {} that matters", grounds.margin));
    }
    if let Some(direction) = direction {
        return match noise.filter(|floor| mean.abs() <= *floor) {
            Some(floor) => {
                let reason = format!("{found}, within what the control differs from itself by ({floor:.4})");
                (if grounds.ended { Verdict::NoDifference } else { Verdict::KeepRunning }, reason)
            }
            None => {
                let against = if noise.is_some() { ", beyond the noise floor" } else { "" };
                let better = match direction {
                    Direction::Above => Verdict::TreatmentBetter,
                    Direction::Below => Verdict::ControlBetter,
                };
                (better, format!("{found}, over {n} pairs{against}"))
            }
        };
    }
    let reason = format!("{found}, over {n} pairs: either arm may be the better one");
    (if grounds.ended { Verdict::NoDifference } else { Verdict::KeepRunning }, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grounds(finding: Finding) -> Grounds<'static> {
        Grounds {
            killed: false,
            ended: false,
            flaw: None,
            guardrails: &[],
            metric: "quality",
            min_pairs: 100,
            margin: 0.0,
            finding: Some(finding),
        }
    }

    fn found(mean: f64, radius: f64) -> Finding {
        let direction = match (mean - radius > 0.0, mean + radius < 0.0) {
            (true, _) => Some(Direction::Above),
            (_, true) => Some(Direction::Below),
            _ => None,
        };
        let interval = Interval { lower: mean - radius, upper: mean + radius };
        Finding { n: 200, mean, interval, direction, noise: None }
    }

    #[test]
    fn what_was_found_decides() {
        for (finding, expected) in [
            (found(0.1, 0.05), Verdict::TreatmentBetter),
            (found(-0.1, 0.05), Verdict::ControlBetter),
            (found(0.1, 0.2), Verdict::KeepRunning),
            (Finding { n: 99, ..found(0.1, 0.05) }, Verdict::KeepRunning),
            (Finding { noise: Some(0.02), ..found(0.1, 0.05) }, Verdict::TreatmentBetter),
            (Finding { noise: Some(0.2), ..found(0.1, 0.05) }, Verdict::KeepRunning),
        ] {
            assert_eq!(decide(&grounds(finding)).verdict, expected, "{finding:?}");
        }
    }

    #[test]
    fn an_end_and_a_margin_settle_what_stays_open() {
        let mut open = grounds(found(0.01, 0.03));
        open.margin = 0.05;
        assert_eq!(decide(&open).verdict, Verdict::NoDifference);
        (open.margin, open.ended) = (0.0, true);
        assert_eq!(decide(&open).verdict, Verdict::NoDifference);
        open.finding = None;
        assert_eq!(decide(&open).verdict, Verdict::NoDifference);
        open.ended = false;
        assert_eq!(decide(&open).verdict, Verdict::KeepRunning);
    }

    #[test]
    fn what_stops_comes_before_what_was_found() {
        let broken =
            GuardrailReport { name: "degraded_rate".to_owned(), n: 80, value: Some(0.5), bound: 0.1, ok: Some(false) };
        let guardrails = [broken];
        let mut all = Grounds { guardrails: &guardrails, ..grounds(found(0.1, 0.05)) };
        (all.killed, all.flaw) = (true, Some("the arms are not filled as they should be".to_owned()));
        assert_eq!(decide(&all).verdict, Verdict::StoppedByKillSwitch);
        all.killed = false;
        let decision = decide(&all);
        assert_eq!(decision.verdict, Verdict::StoppedByGuardrail);
        assert!(decision.reason.contains("degraded_rate is 0.500 over 80 answers"), "{decision:?}");
        all.guardrails = &[];
        assert_eq!(decide(&all).verdict, Verdict::Invalid);
        all.flaw = None;
        assert_eq!(decide(&all).verdict, Verdict::TreatmentBetter);
    }
}
