//! Error rates of the sequential tests, measured on simulated experiments from fixed seeds.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_experiments::{
    AsymptoticInterval, BettingInterval, EmpiricalBernstein, PairModel, Procedure, Simulation, TwoSidedBettingTest,
    sample_ratio,
};
use serde_json::Value;

const RUNS: u32 = 2_000;
const SEQUENTIAL: [Procedure; 4] = [
    Procedure::Betting,
    Procedure::EmpiricalBernstein,
    Procedure::Asymptotic { tightest_at: 250 },
    Procedure::Mixture { tau: 0.1 },
];

/// 1,000 pairs of which 55 % tie, looked at after every pair from the 50th on.
fn simulation(effect: f64) -> Simulation {
    Simulation {
        model: PairModel::of_unit_metric(effect, 0.266, 0.55),
        margin: 0.0,
        alpha: 0.025,
        pairs: 1_000,
        first_look: 50,
        look_every: 1,
        runs: RUNS.into(),
        seed: 11,
    }
}

/// The most that a rate of `alpha` shows in so many runs, short of three standard errors.
fn at_most(alpha: f64) -> f64 {
    alpha + 3.0 * (alpha * (1.0 - alpha) / f64::from(RUNS)).sqrt()
}

#[test]
fn a_treatment_equal_to_the_control_is_seldom_promoted() {
    for procedure in SEQUENTIAL {
        let rate = simulation(0.0).claim_rate(procedure).expect("a simulation");
        assert!(rate <= at_most(0.025), "{procedure:?}: {rate}");
    }
    // The same looks with a test made for one look: if this passed too, the check above would prove nothing.
    let peeking = Simulation { look_every: 25, ..simulation(0.0) };
    let rate = peeking.claim_rate(Procedure::Peeking).expect("a simulation");
    assert!(rate > 2.0 * 0.025 && rate > at_most(0.025), "{rate}");
}

#[test]
fn a_clear_gain_is_found() {
    for procedure in SEQUENTIAL {
        let rate = simulation(0.08).claim_rate(procedure).expect("a simulation");
        assert!(rate >= 0.95, "{procedure:?}: {rate}");
    }
}

/// A rollback tests the differences with their sign turned: a loss of 0.1 is a gain of the control.
#[test]
fn a_bad_policy_is_rolled_back_within_250_pairs() {
    let rollback = Simulation { alpha: 0.05, first_look: 1, pairs: 250, ..simulation(0.1) };
    let rate = rollback.claim_rate(Procedure::Betting).expect("a simulation");
    assert!(rate >= 0.95, "{rate}");
    // At the margin itself nothing is wrong yet.
    let boundary = Simulation { margin: 0.02, pairs: 1_000, ..rollback };
    let boundary = Simulation { model: PairModel { effect: 0.02, ..boundary.model }, ..boundary };
    let rate = boundary.claim_rate(Procedure::Betting).expect("a simulation");
    assert!(rate <= at_most(0.05), "{rate}");
}

/// The recorded rates come from another model of the pairs with the same ties and spread, so they agree roughly.
#[test]
fn rates_agree_with_the_recorded_ones() {
    let reference: Value = serde_json::from_str(include_str!("golden/sim_aa_reference.json")).expect("JSON");
    let looks = |effect| Simulation { look_every: 25, ..simulation(effect) };
    let every_pair = |effect| Simulation { first_look: 1, ..simulation(effect) };
    let asymptotic = Procedure::Asymptotic { tightest_at: 250 };
    for effect in ["0.0", "0.02", "0.04"] {
        let d: f64 = effect.parse().expect("a number");
        for (key, simulation, procedure) in [
            ("naive_peeking_39_looks", looks(d), Procedure::Peeking),
            ("asymptotic_cs_topt250_every_obs_from50", simulation(d), asymptotic),
            ("msprt_tau0.1_plugin_looks", looks(d), Procedure::Mixture { tau: 0.1 }),
            ("empirical_bernstein_cs_every_obs", every_pair(d), Procedure::EmpiricalBernstein),
            ("betting_one_sided_alpha.025_every_obs", every_pair(d), Procedure::Betting),
        ] {
            let expected = reference[format!("mean_diff_{effect}")][key].as_f64().expect("a rate");
            let rate = simulation.claim_rate(procedure).expect("a simulation");
            assert!((rate - expected).abs() < 0.05, "{key} at {effect}: {rate} against {expected}");
        }
    }
}

/// Two-sided, on skewed coins: at most alpha of the streams may ever leave the true mean outside.
#[test]
fn intervals_hold_the_mean_at_every_look() {
    let mean = 0.3;
    let (mut bernstein, mut betting, mut asymptotic, mut test) = (0, 0, 0, 0);
    for run in 0..u64::from(RUNS) {
        let mut rng = ChaCha8Rng::seed_from_u64(17);
        rng.set_stream(run);
        let mut by_bernstein = EmpiricalBernstein::new(0.05, 0.0, 1.0).expect("a sequence");
        let mut by_betting = BettingInterval::new(0.05, 0.0, 1.0, 41).expect("a sequence");
        let mut by_limit = AsymptoticInterval::new(0.05, 250, 50).expect("a sequence");
        let mut by_test = TwoSidedBettingTest::new(0.05, 0.0, 1.0, mean).expect("a test");
        let mut outside_limit = false;
        for _ in 0..300 {
            let value = f64::from(u8::from(rng.random_bool(mean)));
            by_bernstein.push(value).expect("a value");
            by_betting.push(value).expect("a value");
            by_limit.push(value).expect("a value");
            by_test.push(value).expect("a value");
            outside_limit |=
                by_limit.interval().is_some_and(|interval| !(interval.lower..=interval.upper).contains(&mean));
        }
        // These three keep what they once ruled out, so the last look is the worst.
        let outside = |interval: recast_experiments::Interval| !(interval.lower..=interval.upper).contains(&mean);
        bernstein += u32::from(outside(by_bernstein.interval()));
        betting += u32::from(outside(by_betting.interval()));
        test += u32::from(by_test.evidence().rejected);
        asymptotic += u32::from(outside_limit);
    }
    for (name, failures) in [("Bernstein", bernstein), ("betting", betting), ("limit", asymptotic), ("test", test)] {
        let rate = f64::from(failures) / f64::from(RUNS);
        assert!(rate <= at_most(0.05), "{name}: {rate}");
    }
    // Intervals as wide as the bounds would pass too: the test and the limit use up some of their alpha.
    assert!(test > 0 && asymptotic > 0, "{test} {asymptotic}");
}

/// Units fall to three arms as they should; the counts are looked at after every tenth.
#[test]
fn a_sound_split_is_seldom_called_a_mismatch() {
    let weights = [0.5, 0.3, 0.2];
    let (mut anytime, mut one_look) = (0, 0);
    for run in 0..u64::from(RUNS) {
        let mut rng = ChaCha8Rng::seed_from_u64(23);
        rng.set_stream(run);
        let mut counts = [0, 0, 0];
        let (mut called, mut called_by_one_look) = (false, false);
        for n in 1..=1_000 {
            let unit: f64 = rng.random();
            counts[usize::from(unit >= 0.5) + usize::from(unit >= 0.8)] += 1;
            if n % 10 == 0 {
                let ratio = sample_ratio(&counts, &weights).expect("counts");
                called |= ratio.mismatch(0.05);
                called_by_one_look |= ratio.p <= 0.05;
            }
        }
        anytime += u32::from(called);
        one_look += u32::from(called_by_one_look);
    }
    assert!(f64::from(anytime) / f64::from(RUNS) <= at_most(0.05), "{anytime}");
    // The p-value for one look, looked at a hundred times, is the negative control.
    assert!(f64::from(one_look) / f64::from(RUNS) > 2.0 * 0.05, "{one_look}");
}
