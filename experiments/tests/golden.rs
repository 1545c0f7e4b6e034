//! Agreement with SciPy (bootstrap, Wilson) and with a full enumeration (sign flips), from recorded numbers.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use recast_experiments::{Bootstrap, Method, bootstrap_mean, sign_flip, wilson};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("golden/stats_vectors.json")).expect("the vectors are JSON")
}

fn case(id: &str) -> Value {
    let cases = vectors()["cases"].as_array().expect("a list of cases").clone();
    cases.into_iter().find(|case| case["id"] == id).unwrap_or_else(|| panic!("no case {id}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn bootstrap_meets_scipy() {
    let stream = numbers(&vectors()["data"]["d_400"]);
    let case = case("bootstrap_200");
    let (level, tolerance) = (number(&case["params"]["level"]), number(&case["params"]["tolerance"]));
    for (method, key) in [(Method::Percentile, "percentile"), (Method::Bca, "bca")] {
        let settings = Bootstrap { method, level, resamples: 50_000, seed: 20 };
        let interval = bootstrap_mean(&stream[..200], settings).expect("a sample of 200").interval;
        let expected = numbers(&case["outputs"][key]);
        assert!((interval.lower - expected[0]).abs() < tolerance, "{key}: {interval:?} against {expected:?}");
        assert!((interval.upper - expected[1]).abs() < tolerance, "{key}: {interval:?} against {expected:?}");
    }
}

#[test]
fn sign_flip_meets_the_enumeration() {
    let case = case("sign_flip_exact");
    let differences = numbers(&case["inputs"]["d"]);
    let zeros = vec![0.0; differences.len()];
    let result = sign_flip(&differences, &zeros, 10_000, 0).expect("ten differences");
    assert!(result.exact);
    assert!((result.mean_difference - number(&case["outputs"]["mean"])).abs() < 1e-12);
    assert_eq!(result.p_two_sided, number(&case["outputs"]["p_two_sided"]));
    assert_eq!(result.p_greater, number(&case["outputs"]["p_greater"]));
}

#[test]
fn wilson_meets_scipy() {
    let case = case("win_rate_sign_test");
    let pairs = case["inputs"]["wins_losses"].as_array().expect("pairs");
    let expected = case["outputs"]["wilson95"].as_array().expect("intervals");
    for (pair, bounds) in pairs.iter().zip(expected) {
        let (wins, losses) = (pair[0].as_u64().expect("wins"), pair[1].as_u64().expect("losses"));
        let interval = wilson(wins, wins + losses, 0.95).expect("a rate");
        let bounds = numbers(bounds);
        assert!((interval.lower - bounds[0]).abs() < 1e-12, "{wins}-{losses}: {interval:?}");
        assert!((interval.upper - bounds[1]).abs() < 1e-12, "{wins}-{losses}: {interval:?}");
    }
}
