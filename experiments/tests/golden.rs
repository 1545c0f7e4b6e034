//! Agreement with SciPy, with the published confidence sequences and with full enumerations, from recorded numbers.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use recast_experiments::{
    AsymptoticInterval, BettingInterval, BettingTest, Bootstrap, EmpiricalBernstein, Evidence, Interval, LoggedAction,
    Method, Msprt, Spread, StatsError, TwoSidedBettingTest, bootstrap_mean, off_policy, paired_t, sign_flip, sign_test,
    wilson,
};
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

fn stream() -> Vec<f64> {
    numbers(&vectors()["data"]["d_400"])
}

fn close(actual: f64, expected: f64, what: &str) {
    assert!((actual - expected).abs() < 1e-9, "{what}: {actual} against {expected}");
}

/// The positions at which a case was recorded, with what it recorded there under a key.
fn recorded<'a>(case: &'a Value, key: &str) -> Vec<(usize, &'a Value)> {
    let positions = case["outputs"]["index0"].as_array().expect("positions").iter();
    let values = case["outputs"][key].as_array().unwrap_or_else(|| panic!("no {key}"));
    positions
        .map(|position| usize::try_from(position.as_u64().expect("a position")).expect("a place"))
        .zip(values)
        .collect()
}

/// Runs the stream through a sequence and holds its mean and interval against every recorded position.
fn check_intervals(id: &str, mut push: impl FnMut(f64) -> Result<(f64, Option<Interval>), StatsError>) {
    let case = case(id);
    let seen: Vec<_> = stream().into_iter().map(|value| push(value).expect("a value")).collect();
    for (position, expected) in recorded(&case, "estimate") {
        close(seen[position].0, number(expected), &format!("{id}, mean at {position}"));
    }
    for (key, end) in
        [("lower", (|interval| interval.lower) as fn(Interval) -> f64), ("upper", |interval| interval.upper)]
    {
        for (position, expected) in recorded(&case, key) {
            let what = format!("{id}, {key} at {position}");
            match (seen[position].1, expected.as_f64()) {
                (Some(interval), Some(expected)) => close(end(interval), expected, &what),
                (None, None) => {}
                (actual, _) => panic!("{what}: {actual:?} against {expected}"),
            }
        }
    }
}

#[test]
fn asymptotic_sequence() {
    for (id, tightest_at, first) in [("asymptotic_cs/t_opt100", 100, 10), ("asymptotic_cs/t_opt5000", 5_000, 30)] {
        let rho = number(&case(id)["params"]["rho_precision"]);
        let mut sequence = AsymptoticInterval::with_rho(0.05, rho, first).expect("a sequence");
        // The recorded rho came from a numerical search, so the exact one agrees to fewer digits.
        let mut tightest = AsymptoticInterval::new(0.05, tightest_at, first).expect("a sequence");
        check_intervals(id, |value| {
            sequence.push(value)?;
            tightest.push(value)?;
            if let (Some(searched), Some(exact)) = (sequence.interval(), tightest.interval()) {
                assert!((searched.lower - exact.lower).abs() < 1e-6, "{searched:?} against {exact:?}");
            }
            Ok((sequence.mean(), sequence.interval()))
        });
    }
}

#[test]
fn asymptotic_sequence_in_the_form_of_growthbook() {
    let case = case("asymptotic_cs/growthbook_N5000");
    let mut sequence = AsymptoticInterval::growthbook(0.05, 5_000, 2).expect("a sequence");
    let mut radii = Vec::new();
    for value in stream() {
        sequence.push(value).expect("a value");
        radii.push(sequence.interval().map(|interval| 0.5 * (interval.upper - interval.lower)));
    }
    for (position, expected) in recorded(&case, "radius") {
        close(radii[position].expect("a radius"), number(expected), &format!("radius at {position}"));
    }
}

#[test]
fn empirical_bernstein_sequence() {
    let plain = EmpiricalBernstein::new(0.05, -1.0, 1.0).expect("a sequence");
    for (id, mut sequence) in [
        ("empirical_bernstein_cs/intersect_True", plain),
        ("empirical_bernstein_cs/intersect_False", plain.without_intersection()),
    ] {
        check_intervals(id, |value| sequence.push(value).map(|()| (sequence.mean(), Some(sequence.interval()))));
    }
}

#[test]
fn betting_sequence() {
    let mut sequence = BettingInterval::new(0.05, -1.0, 1.0, 2_001).expect("a sequence");
    check_intervals("betting_cs", |value| sequence.push(value).map(|()| (sequence.mean(), Some(sequence.interval()))));
}

/// Runs the stream through a test and holds its e-values, p-values and the first rejection against the record.
fn check_evidence(id: &str, mut push: impl FnMut(f64) -> Result<Evidence, StatsError>) {
    let case = case(id);
    let seen: Vec<_> = stream().into_iter().map(|value| push(value).expect("a value")).collect();
    for (position, expected) in recorded(&case, "log_e") {
        close(seen[position].e_value.ln(), number(expected), &format!("{id}, log e at {position}"));
    }
    if case["outputs"]["p_value_running"].is_array() {
        for (position, expected) in recorded(&case, "p_value_running") {
            close(seen[position].anytime_p, number(expected), &format!("{id}, p at {position}"));
        }
    }
    if let Some(rejected_at) = case["outputs"]["rejected_at"].as_u64() {
        let first = seen.iter().find(|evidence| evidence.rejected).expect("a rejection");
        assert_eq!(first.n, rejected_at, "{id}");
    }
}

#[test]
fn betting_test() {
    let mut test = BettingTest::new(0.05, -1.0, 1.0, 0.0).expect("a test");
    check_evidence("betting_test/greater", |value| test.push(value).map(|()| test.evidence()));
    let mut test = TwoSidedBettingTest::new(0.05, -1.0, 1.0, 0.0).expect("a test");
    check_evidence("betting_test/two-sided", |value| test.push(value).map(|()| test.evidence()));
}

#[test]
fn mixture_test() {
    let tau = number(&case("msprt/tau_None")["params"]["tau"]);
    for (id, mut test) in [
        ("msprt/tau_None", Msprt::new(0.05, tau, Spread::Known(0.35)).expect("a test")),
        ("msprt/tau_0.1", Msprt::new(0.05, 0.1, Spread::Known(0.35)).expect("a test")),
    ] {
        check_evidence(id, |value| test.push(value).map(|()| test.evidence()));
    }
    // The recorded tau is that of 200 values, to the digits of a numerical search.
    let (mut tuned, mut searched) = (Msprt::tuned(0.05, 0.35, 200), Msprt::new(0.05, tau, Spread::Known(0.35)));
    for value in stream() {
        for test in [&mut tuned, &mut searched] {
            test.as_mut().expect("a test").push(value).expect("a value");
        }
    }
    let [tuned, searched] = [tuned, searched].map(|test| test.expect("a test").evidence().e_value.ln());
    assert!((tuned - searched).abs() < 1e-6, "{tuned} against {searched}");
}

#[test]
fn paired_t_meets_scipy() {
    let case = case("paired_t_200");
    let result = paired_t(&stream()[..200], 0.95).expect("a sample of 200");
    close(result.t, number(&case["outputs"]["t"]), "t");
    close(result.p_two_sided, number(&case["outputs"]["p"]), "p");
    let ends = numbers(&case["outputs"]["ci95"]);
    close(result.interval.lower, ends[0], "lower");
    close(result.interval.upper, ends[1], "upper");
}

#[test]
fn sign_test_meets_scipy() {
    let case = case("win_rate_sign_test");
    let pairs = case["inputs"]["wins_losses"].as_array().expect("pairs");
    for (pair, expected) in pairs.iter().zip(numbers(&case["outputs"]["p_two_sided"])) {
        let (wins, losses) = (pair[0].as_u64().expect("wins"), pair[1].as_u64().expect("losses"));
        close(sign_test(wins, losses), expected, &format!("{wins}-{losses}"));
    }
}

#[test]
fn off_policy_estimates() {
    let case = case("ope");
    let column = |key: &str| numbers(&case["inputs"][key]);
    let (log_probs, behaviour, rewards) = (column("logp_new"), column("logp_behaviour"), column("reward"));
    let (logged, policy) = (column("q_hat_logged_action"), column("v_hat_new_policy"));
    let actions: Vec<_> = (0..rewards.len())
        .map(|n| LoggedAction {
            log_prob: log_probs[n],
            behaviour_log_prob: behaviour[n],
            reward: rewards[n],
            model: Some((logged[n], policy[n])),
        })
        .collect();
    let result = off_policy(&actions, number(&case["params"]["clip"])).expect("twelve actions");
    for (key, actual) in [
        ("ips", result.ips),
        ("clipped_ips", result.clipped_ips),
        ("snips", result.snips),
        ("dr", result.doubly_robust.expect("a model's values")),
        ("ess", result.effective),
    ] {
        close(actual, number(&case["outputs"][key]), key);
    }
}
