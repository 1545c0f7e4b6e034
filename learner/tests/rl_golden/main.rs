//! Advantages, losses, divergences and corrections against the numbers of verl, TRL and AReaL: values, slopes, figures.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they cover"
)]

mod advantages;
mod corrections;
mod policy;
mod rest;

use recast_learner::rl::Layout;
use serde_json::Value;

/// One recorded case.
pub(crate) struct Case<'a> {
    pub(crate) id: &'a str,
    pub(crate) inputs: &'a Value,
    pub(crate) params: &'a Value,
    pub(crate) outputs: &'a Value,
}

impl Case<'_> {
    /// A list or matrix, flat.
    pub(crate) fn numbers(&self, name: &str) -> Vec<f64> {
        flat(&self.inputs[name])
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<usize> {
        self.numbers(name).into_iter().map(|x| x as usize).collect()
    }

    pub(crate) fn param(&self, name: &str) -> f64 {
        self.params[name].as_f64().unwrap_or_else(|| panic!("{}: {name} is no number", self.id))
    }

    /// The layout of a mask `[rows][width]`.
    pub(crate) fn layout(&self, name: &str) -> Layout {
        let rows = self.inputs[name].as_array().unwrap();
        let lengths: Vec<usize> = rows.iter().map(|row| row.as_array().unwrap().len()).collect();
        let mask: Vec<bool> = self.numbers(name).into_iter().map(|x| x > 0.5).collect();
        Layout::masked(&lengths, &mask)
    }

    pub(crate) fn near(&self, what: &str, found: f64, tolerance: f64) {
        let expected = self.outputs[what].as_f64().unwrap_or_else(|| panic!("{}: {what} is not recorded", self.id));
        assert!((found - expected).abs() <= tolerance, "{}: {what} is {found}, recorded {expected}", self.id);
    }

    pub(crate) fn all_near(&self, what: &str, found: &[f64], tolerance: f64) {
        near_all(&format!("{}: {what}", self.id), found, &flat(&self.outputs[what]), tolerance);
    }
}

pub(crate) const EXACT: f64 = 1e-9;

pub(crate) fn near_all(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}[{place}] is {found}, recorded {expected}");
    }
}

pub(crate) fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        Value::Null => vec![f64::NAN],
        Value::String(text) => vec![text.parse().unwrap()],
        Value::Bool(flag) => vec![f64::from(u8::from(*flag))],
        other => vec![other.as_f64().unwrap()],
    }
}

#[test]
fn every_recorded_case_is_met() {
    let all: Value = serde_json::from_str(include_str!("../golden/rl_vectors.json")).unwrap();
    let mut missed = Vec::new();
    let mut met = 0;
    for case in all["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let group = case["group"].as_str().unwrap();
        let case = Case { id, inputs: &case["inputs"], params: &case["params"], outputs: &case["outputs"] };
        let found = std::panic::catch_unwind(|| match group {
            "advantage" | "gae" => advantages::check(&case),
            "policy_loss" => policy::check(&case),
            "policy_loss_trl" => policy::check_trl(&case),
            "decoupled_areal" => corrections::check_decoupled(&case),
            "rollout_correction" => corrections::check(&case),
            "kl" | "value_loss" | "aggregation" | "entropy" | "shaping" | "optimizer" => rest::check(&case),
            _ => false,
        });
        // all that differ are named at the end
        match found {
            Ok(true) => met += 1,
            _ => missed.push(id),
        }
    }
    println!("{met} recorded cases met, not met: {missed:?}");
    assert_eq!((met, missed), (123, Vec::new()));
}
