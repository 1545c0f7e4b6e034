//! A reward without meaning: what is learned from it does not get to serve anybody.
use std::ops::ControlFlow;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_domain::{Environment, RolloutItem, Scored};
use recast_learner::rl::{Algorithm, Learner, MonitorSettings, Question, Questions, RlSettings};
use recast_model::{Qwen3, SamplerSettings, sample};
use recast_policies::{Gate, GateRules, Observation, OfflineReport, Pair, Pairing, SanityReport, Scope, Stage};

use super::toy::{END, Toy};

/// Scores each text of a question by a number drawn for it.
struct Noise(u64);

impl Noise {
    fn reward(&self, question: &str, text: &str) -> f64 {
        let hash = blake3::hash(format!("{} {question} {text}", self.0).as_bytes());
        let seed = u64::from_le_bytes(std::array::from_fn(|place| hash.as_bytes()[place]));
        ChaCha8Rng::seed_from_u64(seed).random_range(-0.5..0.5)
    }
}

impl Environment for Noise {
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
        let scored = |item: &RolloutItem| {
            let reward = self.reward(&item.question, &item.text);
            Some(Scored { reward, valid: true, ..Scored::default() })
        };
        items.iter().map(scored).collect()
    }
}

fn greedy(model: &Qwen3, world: &Toy, questions: &[Question]) -> Vec<String> {
    let settings = SamplerSettings { temperature: 0.0, top_p: 1.0, max_new_tokens: 10, end: END, seed: 0 };
    let prompts: Vec<&[u32]> = questions.iter().map(|question| question.ids.as_slice()).collect();
    let drawn = sample(model, &prompts, 1, &settings).unwrap();
    drawn.iter().map(|completion| world.text(&completion.ids).unwrap()).collect()
}

/// Rewards of the learned network's rewrites minus those of the one it began as.
fn pairs(models: [&Qwen3; 2], world: &Toy, noise: &Noise, step: u64, count: usize) -> Vec<Pair> {
    let questions = world.draw(step, 0, count).unwrap();
    let [old, new] = models.map(|model| greedy(model, world, &questions));
    let pair = |((question, old), new): ((&Question, &String), &String)| Pair {
        session: question.id.clone(),
        difference: Some(noise.reward(&question.id, new) - noise.reward(&question.id, old)),
    };
    questions.iter().zip(&old).zip(&new).map(pair).collect()
}

/// How far a candidate that learned from noise gets, and on how many held-out questions it does something new.
fn reached(seed: u64, rules: &GateRules) -> (Stage, usize) {
    let world = Toy { vocabulary: 64, hidden: 32, layers: 1, prompt: 6, seed };
    let noise = Noise(seed);
    let settings = RlSettings {
        questions: 4,
        learning_rate: 1e-2,
        warmup: 0,
        overlong: None,
        seed,
        ..RlSettings::of(Algorithm::Grpo, 10, END)
    };
    let limits = MonitorSettings { most_approx_kl: 1.0, ..MonitorSettings::default() };
    let mut learner = Learner::new(world.model(), None, settings, limits).unwrap();
    learner.run(&world, &noise, 12, None, &mut |_| ControlFlow::Continue(())).unwrap();

    let models = [&world.model(), learner.model()];
    let mut gate = Gate::new(Scope::Everyone, "noise".parse().unwrap(), 1, rules, 0).unwrap();
    let sane = SanityReport {
        refused: None,
        prompts: 20,
        empty: Some(0),
        distinct: Some(20),
        invalid_format_rate: Some(0.0),
        kl: Some(0.01),
    };
    gate.observe(rules, &Observation::Sanity(sane), 0).unwrap();
    let primary = pairs(models, &world, &noise, 1000, 300);
    let moved = primary.iter().filter(|pair| pair.difference != Some(0.0)).count();
    let guardrails = rules.offline.guardrails.keys().map(|name| (name.clone(), primary.clone())).collect();
    gate.observe(rules, &Observation::Offline(OfflineReport { primary, guardrails }), 0).unwrap();
    let mut step = 1001;
    while gate.stage() == Stage::Shadow {
        let pairs = pairs(models, &world, &noise, step, 100);
        gate.observe(rules, &Observation::Pairs { pairing: Pairing::SameQuestion, pairs }, 0).unwrap();
        step += 1;
    }
    (gate.stage(), moved)
}

#[test]
fn what_was_learned_from_noise_serves_nobody() {
    let mut rules = GateRules::default();
    rules.offline.resamples = 1000;
    for seed in 0..20 {
        let (stage, moved) = reached(seed, &rules);
        assert!(moved > 100, "seed {seed}: the network hardly changed, {moved} of 300: the test proves nothing");
        assert!(!stage.serves(), "seed {seed} reached {stage:?}");
    }
}
