//! How often the gate errs, on seeded candidates. Differences are ties in 55 % of the questions.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::tests::{gate, gate_at, live, offline_report, sane};
use super::{Gate, GateRules, Observation, Stage, Verdict};

const TIES: f64 = 0.55;

/// Differences in [-1, 1] with this mean: ties, else uniform around it.
fn differences(rng: &mut ChaCha8Rng, mean: f64, n: usize) -> Vec<f64> {
    let centre = mean / (1.0 - TIES);
    let draw = |rng: &mut ChaCha8Rng| if rng.random_bool(TIES) { 0.0 } else { centre + rng.random_range(-0.6..0.6) };
    (0..n).map(|_| draw(rng)).collect()
}

/// Rules whose bootstrap is quick; everything else as shipped.
fn quick_rules() -> GateRules {
    let mut rules = GateRules::default();
    rules.offline.resamples = 1_000;
    rules
}

/// `p + 3 sqrt(p (1 - p) / runs)`: a rate that a test of chance `p` exceeds once in 700 tries.
fn three_sigma_above(p: f64, runs: u32) -> f64 {
    p + 3.0 * (p * (1.0 - p) / f64::from(runs)).sqrt()
}

/// Whether a candidate with this mean difference gets to serve users.
fn reaches_users(rules: &GateRules, mean: f64, attempt: u32, seed: u64) -> bool {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut gate = gate(rules, attempt);
    gate.observe(rules, &sane(), 0).unwrap();
    let report = offline_report(rules, &differences(&mut rng, mean, 400));
    gate.observe(rules, &Observation::Offline(report), 0).unwrap();
    let mut batch = 0;
    while gate.stage() == Stage::Shadow {
        batch += 1;
        gate.observe(rules, &live(&format!("b{batch}"), &differences(&mut rng, mean, 50)), 0).unwrap();
    }
    gate.stage().serves()
}

#[test]
fn pure_noise_is_not_promoted() {
    let rules = quick_rules();
    let promoted: Vec<u64> = (0..20).filter(|seed| reaches_users(&rules, 0.0, 1, *seed)).collect();
    assert_eq!(promoted, [] as [u64; 0]);
}

#[test]
fn a_clear_gain_is_promoted() {
    let rules = quick_rules();
    let promoted = (0..20).filter(|seed| reaches_users(&rules, 0.08, 1, *seed)).count();
    assert!(promoted >= 19, "{promoted} of 20");
}

/// Share of runs without any difference in which a stage by itself advances.
fn false_advances(stage: Stage, rules: &GateRules, runs: u32) -> f64 {
    let start = gate_at(rules, stage);
    let advances = (0..runs).filter(|seed| {
        let mut rng = ChaCha8Rng::seed_from_u64(u64::from(*seed));
        let mut gate = start.clone();
        let observation = match stage {
            Stage::Offline => Observation::Offline(offline_report(rules, &differences(&mut rng, 0.0, 400))),
            _ => live("live", &differences(&mut rng, 0.0, 1_000)),
        };
        gate.observe(rules, &observation, 0).unwrap().verdict == Verdict::Advance
    });
    f64::from(u32::try_from(advances.count()).unwrap()) / f64::from(runs)
}

#[test]
fn candidates_like_the_incumbent_pass_as_rarely_as_alpha_says() {
    let rules = quick_rules();
    let limit = three_sigma_above(rules.alpha_of(1), 400);
    for stage in [Stage::Offline, Stage::Shadow] {
        let rate = false_advances(stage, &rules, 400);
        assert!(rate <= limit, "{stage:?} passes {rate}, allowed are {limit}");
    }
    // The measure can fail: a gate that is told to accept one error in two makes many.
    let careless = GateRules { alpha: 0.49, ..rules };
    assert!(false_advances(Stage::Offline, &careless, 400) > limit);
}

#[test]
fn the_tenth_attempt_must_show_more() {
    let rules = quick_rules();
    let passes = |attempt| (0..40).filter(|seed| reaches_users(&rules, 0.035, attempt, *seed)).count();
    let (first, tenth) = (passes(1), passes(10));
    assert!(tenth < first, "{tenth} pass at the tenth attempt, {first} at the first");
}

/// How many live pairs it takes until a serving candidate with this mean difference is rolled back.
fn pairs_until_rolled_back(start: &Gate, rules: &GateRules, mean: f64, most: usize, seed: u64) -> Option<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut gate = start.clone();
    (1..=most).find(|n| {
        let observation = live(&format!("p{n}"), &differences(&mut rng, mean, 1));
        gate.observe(rules, &observation, 0).unwrap().verdict == Verdict::RollBack
    })
}

#[test]
fn a_harmful_policy_is_rolled_back_within_250_questions() {
    let rules = quick_rules();
    let start = gate_at(&rules, Stage::Canary { step: 0 });
    let runs = 200;
    let caught = (0..runs).filter(|seed| pairs_until_rolled_back(&start, &rules, -0.1, 250, *seed).is_some()).count();
    assert!(caught >= 190, "{caught} of {runs}");
}

#[test]
fn a_policy_at_the_margin_is_rarely_rolled_back() {
    let rules = quick_rules();
    let start = gate_at(&rules, Stage::Canary { step: 0 });
    let runs = 200;
    let seeds = 0..u64::from(runs);
    let wrong =
        seeds.filter(|seed| pairs_until_rolled_back(&start, &rules, -rules.margin, 1_000, *seed).is_some()).count();
    let limit = three_sigma_above(rules.rollback_alpha, runs) * f64::from(runs);
    assert!(wrong as f64 <= limit, "{wrong} of {runs}, allowed are {limit}");
}
