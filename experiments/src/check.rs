use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::definition::{Definition, Kind};
use crate::report::Better;

/// Longest id or name of an arm, in characters.
const NAME_CHARS: usize = 64;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where, such as `define[0].arms[1].weight`.
    pub field: String,
    /// What, and how to mend it.
    pub message: String,
}

/// Everything that is wrong with these definitions, alone and beside each other; nothing if they can run.
#[must_use]
pub fn check(definitions: &[Definition], known_tenants: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, one) in definitions.iter().enumerate() {
        let mut wrong = |field: &str, message: String| {
            problems.push(Problem { field: format!("define[{index}].{field}"), message });
        };
        let before = &definitions[..index];
        if before.iter().any(|other| other.id == one.id) {
            wrong("id", format!("{:?} is taken by an earlier definition: choose another id", one.id));
        } else if !is_name(&one.id) {
            wrong("id", name_message(&one.id));
        }
        tenants(one, known_tenants, &mut wrong);
        arms(one, &mut wrong);
        numbers(one, &mut wrong);
        if let (Some(start), Some(end)) = (one.start, one.end)
            && end <= start
        {
            wrong("end", "is not after start: give a later end, or none".to_owned());
        }
        for other in before.iter().filter(|other| other.id != one.id && overlap(one, other)) {
            for tenant in one.tenants.iter().filter(|tenant| other.tenants.contains(tenant)) {
                let message = format!(
                    "{tenant:?} takes part in {:?} at the same time: let one end before the other starts, or disable one",
                    other.id
                );
                wrong("tenants", message);
            }
        }
    }
    problems
}

type Wrong<'a> = dyn FnMut(&str, String) + 'a;

fn tenants(one: &Definition, known: &[String], wrong: &mut Wrong) {
    if one.tenants.is_empty() {
        wrong("tenants", "is empty: name at least one tenant".to_owned());
    }
    let mut seen = HashSet::new();
    for (index, tenant) in one.tenants.iter().enumerate() {
        if !seen.insert(tenant) {
            wrong(&format!("tenants[{index}]"), format!("{tenant:?} is named twice: name it once"));
        } else if !known.contains(tenant) {
            let message = format!("{tenant:?} is not a tenant here: use one of {}", listed(known));
            wrong(&format!("tenants[{index}]"), message);
        }
    }
    for tenant in one.sample_rates.keys().filter(|tenant| !one.tenants.contains(tenant)) {
        wrong(
            &format!("sample_rates.{tenant}"),
            "this tenant takes no part: add it to tenants, or drop its rate".to_owned(),
        );
    }
}

fn arms(one: &Definition, wrong: &mut Wrong) {
    match (one.kind, one.arms.len()) {
        (_, 0 | 1) => wrong("arms", "has fewer than two arms: a comparison needs a control and another one".to_owned()),
        (Kind::Shadow | Kind::Interleave, 3..) => {
            wrong(
                "arms",
                "has more than two arms, which only a split can have: keep the control and one more".to_owned(),
            );
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    for (index, arm) in one.arms.iter().enumerate() {
        if !seen.insert(&arm.name) {
            wrong(
                &format!("arms[{index}].name"),
                format!("{:?} is taken by an earlier arm: choose another name", arm.name),
            );
        } else if !is_name(&arm.name) {
            wrong(&format!("arms[{index}].name"), name_message(&arm.name));
        }
        if !(arm.weight.is_finite() && arm.weight >= 0.0) {
            wrong(&format!("arms[{index}].weight"), format!("is {}: give a finite number, 0 or more", arm.weight));
        }
        if !is_rewriter(&arm.rewriter) {
            let message =
                format!("{:?} is not known: use configured, remote, pass_through or policy:NAME", arm.rewriter);
            wrong(&format!("arms[{index}].rewriter"), message);
        }
    }
    if !one.arms.is_empty() && one.arms.iter().all(|arm| arm.weight == 0.0) {
        wrong("arms", "has only weights of 0: give one arm a weight above 0".to_owned());
    }
    if !one.arms.iter().any(|arm| arm.name == one.control) {
        let names: Vec<String> = one.arms.iter().map(|arm| arm.name.clone()).collect();
        wrong("control", format!("{:?} is not the name of an arm: use one of {}", one.control, listed(&names)));
    }
}

fn numbers(one: &Definition, wrong: &mut Wrong) {
    let mut rate = |field: &str, rate: f64| {
        if !(0.0..=1.0).contains(&rate) {
            wrong(field, format!("is {rate}: give a share from 0 to 1"));
        }
    };
    rate("sample_rate", one.sample_rate);
    rate("control_rate", one.control_rate);
    for (tenant, share) in &one.sample_rates {
        rate(&format!("sample_rates.{tenant}"), *share);
    }
    for (name, bound) in one.guardrails.bounds().filter(|(name, _)| name.ends_with("_rate")) {
        rate(&format!("guardrails.{name}"), bound);
    }
    for (name, bound) in one.guardrails.bounds().filter(|(name, _)| !name.ends_with("_rate")) {
        if !(bound.is_finite() && bound > 0.0) {
            wrong(&format!("guardrails.{name}"), format!("is {bound}: give a finite number above 0"));
        }
    }
    if !(one.alpha > 0.0 && one.alpha <= 0.5) {
        wrong("alpha", format!("is {}: give a probability above 0 and at most 0.5, such as 0.05", one.alpha));
    }
    if !(one.margin.is_finite() && one.margin >= 0.0) {
        wrong("margin", format!("is {}: give a finite number, 0 or more", one.margin));
    }
    if one.primary.better() == Better::Neither {
        wrong("primary", format!("no way of {} is better: choose another metric", one.primary.title()));
    }
    if one.min_pairs == 0 {
        wrong("min_pairs", "is 0: give at least 1".to_owned());
    }
}

/// Whether two experiments may be on at the same moment.
fn overlap(one: &Definition, other: &Definition) -> bool {
    let on = |one: &Definition| one.enabled && !one.killed;
    let times = |one: &Definition| (one.start.unwrap_or(i64::MIN), one.end.unwrap_or(i64::MAX));
    let ((start, end), (other_start, other_end)) = (times(one), times(other));
    on(one) && on(other) && start < other_end && other_start < end
}

/// Letters, digits, `_`, `-` and `.`: names go into paths, labels of metrics, and joined by `+` into episodes.
fn is_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
    !name.is_empty() && name.chars().count() <= NAME_CHARS && name.chars().all(fits)
}

fn name_message(name: &str) -> String {
    format!("{name:?} is no name: use 1 to {NAME_CHARS} letters, digits, '_', '-' and '.'")
}

fn is_rewriter(name: &str) -> bool {
    matches!(name, "configured" | "remote" | "pass_through") || name.strip_prefix("policy:").is_some_and(is_name)
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none, because there is none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guardrails::Guardrails;

    fn tenants() -> Vec<String> {
        ["fivedoctors", "chengla"].map(str::to_owned).to_vec()
    }

    fn good(id: &str) -> Definition {
        let mut one = Definition::between(id, Kind::Shadow, "local", "teacher");
        one.tenants = vec!["fivedoctors".to_owned()];
        one
    }

    fn fields(definitions: &[Definition]) -> Vec<String> {
        check(definitions, &tenants()).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn a_good_definition_has_no_problem() {
        assert_eq!(check(&[good("teacher")], &tenants()), []);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let mut one = good("a b");
        one.tenants = ["fivedoctors", "fivedoctors", "nobody"].map(str::to_owned).to_vec();
        one.arms[0].weight = -1.0;
        one.arms[1].weight = f64::NAN;
        one.arms[1].name = "local".to_owned();
        one.arms[1].rewriter = "policy:".to_owned();
        one.control = "baseline".to_owned();
        one.sample_rate = 1.5;
        one.control_rate = f64::NAN;
        one.sample_rates.insert("chengla".to_owned(), -0.1);
        (one.start, one.end) = (Some(2), Some(2));
        (one.alpha, one.margin, one.min_pairs) = (0.0, -1.0, 0);
        one.primary = crate::report::Metric::RewriteChars;
        one.guardrails = Guardrails {
            p99_rewrite_ms: Some(0.0),
            empty_recall_rate: Some(2.0),
            degraded_rate: Some(-0.5),
            length_ratio: Some(f64::INFINITY),
        };
        let mut found = fields(&[one]);
        found.sort_unstable();
        let mut expected = [
            "id",
            "tenants[1]",
            "tenants[2]",
            "arms[0].weight",
            "arms[1].weight",
            "arms[1].name",
            "arms[1].rewriter",
            "control",
            "sample_rate",
            "control_rate",
            "sample_rates.chengla",
            "sample_rates.chengla",
            "end",
            "alpha",
            "margin",
            "primary",
            "min_pairs",
            "guardrails.p99_rewrite_ms",
            "guardrails.empty_recall_rate",
            "guardrails.degraded_rate",
            "guardrails.length_ratio",
        ]
        .map(|field| format!("define[0].{field}"));
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn arms_must_fit_the_kind() {
        let mut one = good("arms");
        one.arms.push(crate::Arm { name: "third".to_owned(), weight: 1.0, rewriter: "remote".to_owned() });
        assert_eq!(fields(&[one.clone()]), ["define[0].arms"]);
        one.kind = Kind::Interleave;
        assert_eq!(fields(&[one.clone()]), ["define[0].arms"]);
        one.kind = Kind::Split;
        assert_eq!(fields(&[one.clone()]), [""; 0]);
        one.arms.truncate(1);
        assert_eq!(fields(&[one.clone()]), ["define[0].arms"]);
        one.arms.clear();
        assert_eq!(fields(&[one]), ["define[0].arms", "define[0].control"]);
    }

    #[test]
    fn weights_must_not_all_be_nought() {
        let mut one = good("weights");
        one.arms.iter_mut().for_each(|arm| arm.weight = 0.0);
        assert_eq!(fields(&[one.clone()]), ["define[0].arms"]);
        one.arms[1].weight = 1.0;
        assert_eq!(fields(&[one]), [""; 0]);
    }

    #[test]
    fn experiments_of_one_tenant_must_not_meet() {
        let (mut one, mut other) = (good("one"), good("other"));
        assert_eq!(fields(&[one.clone(), other.clone()]), ["define[1].tenants"]);
        (one.end, other.start) = (Some(100), Some(100));
        assert_eq!(fields(&[one.clone(), other.clone()]), [""; 0]);
        other.start = Some(99);
        assert_eq!(fields(&[one.clone(), other.clone()]), ["define[1].tenants"]);
        one.enabled = false;
        assert_eq!(fields(&[one.clone(), other.clone()]), [""; 0]);
        (one.enabled, other.killed) = (true, true);
        assert_eq!(fields(&[one.clone(), other.clone()]), [""; 0]);
        (other.killed, other.tenants) = (false, vec!["chengla".to_owned()]);
        assert_eq!(fields(&[one, other]), [""; 0]);
    }

    #[test]
    fn an_id_is_taken_once() {
        let (one, mut other) = (good("same"), good("same"));
        other.tenants = vec!["chengla".to_owned()];
        assert_eq!(fields(&[one, other]), ["define[1].id"]);
    }

    #[test]
    fn messages_say_what_to_do() {
        let mut one = good("words");
        one.tenants = vec!["fivedoctor".to_owned()];
        one.arms[1].rewriter = "32b".to_owned();
        let messages: Vec<String> = check(&[one], &tenants()).into_iter().map(|problem| problem.message).collect();
        assert!(messages[0].contains("use one of fivedoctors, chengla"), "{messages:?}");
        assert!(messages[1].contains("use configured, remote, pass_through or policy:NAME"), "{messages:?}");
    }
}
