//! The loop over rewards: it learns, it goes on where it was, and it stops where it must.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod noise;
mod toy;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use recast_domain::{Environment, RolloutItem, Scored};
use recast_learner::Checkpoints;
use recast_learner::rl::kl::KlEstimator;
use recast_learner::rl::{Action, Algorithm, KlTerm, Learner, MonitorSettings, RlSettings};
use recast_model::{Lora, LoraConfig, Qwen3};
use toy::{END, Toy};

fn world(seed: u64) -> Toy {
    Toy { vocabulary: 64, hidden: 32, layers: 1, prompt: 6, seed }
}

fn settings(algorithm: Algorithm) -> RlSettings {
    RlSettings {
        questions: 4,
        learning_rate: 5e-3,
        warmup: 0,
        overlong: None,
        seed: 5,
        ..RlSettings::of(algorithm, 10, END)
    }
}

fn learner(world: &Toy, algorithm: Algorithm) -> Learner {
    let limits = MonitorSettings { most_approx_kl: 1.0, ..MonitorSettings::default() };
    Learner::new(world.model(), None, settings(algorithm), limits).unwrap()
}

fn weights(learner: &Learner) -> BTreeMap<String, Vec<f32>> {
    let numbers = |var: &candle_core::Var| var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    learner.model().vars().iter().map(|(name, var)| (name.clone(), numbers(var))).collect()
}

fn go_on(_: &recast_learner::rl::StepReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn every_algorithm_learns_the_toy_world() {
    for algorithm in [
        Algorithm::Grpo,
        Algorithm::DrGrpo,
        Algorithm::Dapo,
        Algorithm::Gspo,
        Algorithm::Cispo,
        Algorithm::Rloo,
        Algorithm::ReinforcePlusPlus,
        Algorithm::Ppo,
        Algorithm::PpoBandit,
    ] {
        let world = world(1);
        let run = learner(&world, algorithm).run(&world, &world, 40, None, &mut go_on).unwrap();
        let mean = |part: &[recast_learner::rl::StepMetrics]| {
            part.iter().map(|m| m.reward_mean).sum::<f64>() / part.len() as f64
        };
        let (first, last) = (mean(&run.steps[..5]), mean(&run.steps[run.steps.len() - 5..]));
        assert!(first < 0.3, "{algorithm:?} begins at {first}");
        assert!(last > first + 0.3, "{algorithm:?} went from {first} to {last}, alarms {:?}", run.alarms);
    }
}

#[test]
fn the_first_update_finds_the_policy_that_drew() {
    let world = world(2);
    let report = learner(&world, Algorithm::Grpo).step(&world, &world).unwrap();
    assert_eq!(report.alarm, None);
    let m = report.metrics;
    assert!(m.on_policy_deviation < 1e-4, "{}", m.on_policy_deviation);
    assert_eq!((m.clip_fraction.as_slice(), m.updates), ([0.0].as_slice(), 1));
    assert!(m.approx_kl.abs() < 1e-5 && m.grad_norm > 0.0);
}

#[test]
fn a_run_that_was_killed_goes_on_bit_for_bit() {
    for algorithm in [Algorithm::Grpo, Algorithm::Ppo] {
        let world = world(3);
        let mut whole = learner(&world, algorithm);
        whole.run(&world, &world, 7, None, &mut go_on).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let folder = Checkpoints::open(dir.path()).unwrap();
        let mut killed = learner(&world, algorithm);
        killed.run(&world, &world, 4, Some((&folder, 2)), &mut go_on).unwrap();
        // two further steps that no checkpoint holds, then the process is gone
        killed.run(&world, &world, 6, None, &mut go_on).unwrap();
        drop(killed);
        let mut resumed = learner(&world, algorithm);
        assert!(resumed.resume(&folder).unwrap());
        assert_eq!(resumed.step_number(), 4);
        resumed.run(&world, &world, 7, None, &mut go_on).unwrap();
        assert_eq!(weights(&resumed), weights(&whole), "{algorithm:?}");
    }
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let world = world(3);
    let dir = tempfile::tempdir().unwrap();
    let folder = Checkpoints::open(dir.path()).unwrap();
    assert!(!learner(&world, Algorithm::Grpo).resume(&folder).unwrap());
    learner(&world, Algorithm::Grpo).save(&folder).unwrap();
    assert!(learner(&world, Algorithm::Rloo).resume(&folder).is_err());
}

/// A judge that answers only while it is up.
struct Outage<'a> {
    world: &'a Toy,
    down: AtomicBool,
}

impl Environment for Outage<'_> {
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
        let down = self.down.load(Ordering::SeqCst);
        let scores = self.world.score(items);
        scores.into_iter().enumerate().map(|(i, scored)| scored.filter(|_| !down || i % 2 == 0)).collect()
    }
}

#[test]
fn an_outage_of_the_judge_pauses_and_changes_nothing() {
    let world = world(4);
    let judge = Outage { world: &world, down: AtomicBool::new(true) };
    let mut paused = learner(&world, Algorithm::Grpo);
    let before = weights(&paused);
    let run = paused.run(&world, &judge, 3, None, &mut go_on).unwrap();
    assert_eq!((run.finished, run.alarms[0].1.action), (false, Action::Pause));
    assert_eq!((weights(&paused), paused.step_number()), (before, 0));
    judge.down.store(false, Ordering::SeqCst);
    assert!(paused.run(&world, &judge, 3, None, &mut go_on).unwrap().finished);
    let mut calm = learner(&world, Algorithm::Grpo);
    calm.run(&world, &world, 3, None, &mut go_on).unwrap();
    assert_eq!(weights(&paused), weights(&calm));
}

#[test]
fn equal_rewards_teach_nothing() {
    struct Same;
    impl Environment for Same {
        fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
            items.iter().map(|_| Some(Scored { reward: 0.1, valid: true, ..Scored::default() })).collect()
        }
    }
    let world = world(5);
    for algorithm in [Algorithm::Grpo, Algorithm::Dapo] {
        let mut learner = learner(&world, algorithm);
        let before = weights(&learner);
        let run = learner.run(&world, &Same, 100, None, &mut go_on).unwrap();
        assert_eq!(weights(&learner), before);
        let last = run.alarms.last().unwrap();
        assert_eq!((last.1.action, last.1.name.as_str(), run.steps.len()), (Action::Halt, "equal_rewards", 5));
    }
}

#[test]
fn stale_samples_are_thrown_away_and_counted() {
    let world = world(6);
    let mut learner = learner(&world, Algorithm::Grpo);
    let old = learner.roll(&world, &world).unwrap();
    learner.run(&world, &world, 3, None, &mut go_on).unwrap();
    let mut mixed = learner.roll(&world, &world).unwrap();
    let fresh = mixed.len();
    mixed.extend(old.into_iter().take(8).map(|mut sample| {
        sample.group += 100;
        sample
    }));
    let report = learner.learn(&mixed).unwrap();
    assert_eq!((report.metrics.stale, report.metrics.samples, learner.stale_total()), (8, fresh, 8));
    let before = weights(&learner);
    mixed.iter_mut().for_each(|sample| sample.version = 0);
    let report = learner.learn(&mixed).unwrap();
    assert_eq!(report.alarm.unwrap().name, "stale");
    assert_eq!(weights(&learner), before);
}

#[test]
fn a_sampler_that_draws_from_another_distribution_is_noticed() {
    let world = world(7);
    for algorithm in [Algorithm::Grpo, Algorithm::Ppo] {
        let mut learner = learner(&world, algorithm);
        let before = weights(&learner);
        let mut samples = learner.roll(&world, &world).unwrap();
        samples[3].log_probs[0] -= 0.01;
        let report = learner.learn(&samples).unwrap();
        assert_eq!(report.alarm.unwrap().name, "on_policy");
        assert_eq!((report.metrics.updates, weights(&learner)), (0, before));
    }
}

#[test]
fn an_adapter_is_held_near_the_network_without_it() {
    let world = world(8);
    let base = Qwen3::frozen(world.config(), world.model().weights().clone(), &Device::Cpu).unwrap();
    let adapter = Lora::init(&LoraConfig::all_linears(4, 8.0), &world.config(), 1, &Device::Cpu).unwrap();
    let distance = |weight: f64| {
        let kl = KlTerm { estimator: KlEstimator::StraightK3, weight, in_reward: false };
        let settings = RlSettings { kl: Some(kl), learning_rate: 2e-2, ..settings(Algorithm::Grpo) };
        let model = base.with_adapter(&adapter.snapshot().unwrap()).unwrap();
        let limits = MonitorSettings { most_approx_kl: 10.0, most_kl_reference: 100.0, ..MonitorSettings::default() };
        let mut learner = Learner::new(model, Some(base.clone()), settings, limits).unwrap();
        let run = learner.run(&world, &world, 15, None, &mut go_on).unwrap();
        let first = run.steps[0].kl_reference.unwrap();
        assert!(first.abs() < 1e-6, "a fresh adapter changes nothing, but is {first} away");
        run.steps.last().unwrap().kl_reference.unwrap()
    };
    let (free, held) = (distance(0.0), distance(10.0));
    assert!(free > 2.0 * held && held > 0.0, "{free} without a pull, {held} with one");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let world = world(9);
    let refused = [
        RlSettings { group: 1, ..settings(Algorithm::Grpo) },
        RlSettings { critic: None, ..settings(Algorithm::Ppo) },
        RlSettings { temperature: 0.0, ..settings(Algorithm::Grpo) },
        RlSettings { micro_rows: 0, ..settings(Algorithm::Grpo) },
        RlSettings {
            kl: Some(KlTerm { estimator: KlEstimator::K3, weight: 0.1, in_reward: false }),
            ..settings(Algorithm::Grpo)
        },
    ];
    for settings in refused {
        assert!(Learner::new(world.model(), None, settings, MonitorSettings::default()).is_err());
    }
    let frozen = Qwen3::frozen(world.config(), world.model().weights().clone(), &Device::Cpu).unwrap();
    assert!(Learner::new(frozen, None, settings(Algorithm::Grpo), MonitorSettings::default()).is_err());
}
