use recast_domain::Scored;
use recast_model::{Qwen3Config, init};

use super::*;
use crate::rl::prepare::prepare;
use crate::rl::settings::Algorithm;

fn model() -> Qwen3 {
    let value = serde_json::json!({
        "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32, "rope_theta": 10000.0,
        "tie_word_embeddings": true,
    });
    let config = Qwen3Config::from_json(&value).unwrap();
    let weights = init(&config, 3, &Device::Cpu).unwrap();
    Qwen3::trainable(config, weights, &Device::Cpu).unwrap()
}

/// Groups of four with completions of different lengths.
fn samples(rewards: &[Option<f64>]) -> Vec<Sample> {
    let sample = |(index, reward): (usize, &Option<f64>)| {
        let ids: Vec<u32> = (0..1 + index % 5).map(|t| (4 + (index * 7 + t * 3) % 20) as u32).collect();
        Sample {
            question: (index / 4).to_string(),
            group: index / 4,
            prompt: vec![5, 6, 7 + (index / 4) as u32],
            // a policy a little off, so that ratios are not all 1
            log_probs: ids.iter().enumerate().map(|(t, _)| -3.2 + 0.1 * ((index + t) % 3) as f32).collect(),
            ids,
            finished: true,
            version: 0,
            scored: reward.map(|reward| Scored { reward, valid: true, ..Scored::default() }),
            baseline: None,
        }
    };
    rewards.iter().enumerate().map(sample).collect()
}

fn dials() -> Dials {
    Dials {
        step: 9,
        learning_rate: 1e-3,
        entropy_weight: 0.01,
        most_on_policy_deviation: 1.0,
        most_grad_norm: f64::INFINITY,
    }
}

fn some(rewards: &[f64]) -> Vec<Option<f64>> {
    rewards.iter().copied().map(Some).collect()
}

fn step_of(model: &Qwen3, samples: &[Sample], settings: &RlSettings, dials: &Dials) -> Step {
    let critic = settings.critic.map(|critic| Critic::new(critic, 16, &Device::Cpu).unwrap());
    let made = prepare(model, None, critic.as_ref(), samples.iter().collect(), settings).unwrap();
    let rows: Vec<usize> = (0..samples.len()).collect();
    gradients(model, critic.as_ref(), &made.batch, &rows, settings, dials).unwrap()
}

fn lists(model: &Qwen3, step: &Step) -> Vec<Vec<f32>> {
    let list = |name: &String| step.gradients.get(name).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    model.vars().keys().map(list).collect()
}

#[test]
fn parts_of_a_batch_add_up_to_the_whole() {
    let model = model();
    let samples = samples(&some(&[0.1, 0.9, 0.4, 0.2, 0.7, 0.7, 0.0, 1.0]));
    for (name, algorithm) in Algorithm::ALL.into_iter().filter(|(_, a)| *a != Algorithm::ReMax) {
        let settings = |micro_rows| RlSettings { micro_rows, ..RlSettings::of(algorithm, 8, 3) };
        let whole = step_of(&model, &samples, &settings(8), &dials());
        for micro_rows in [1, 3] {
            let parts = step_of(&model, &samples, &settings(micro_rows), &dials());
            assert!((whole.loss - parts.loss).abs() < 1e-6, "{name}: {} is not {}", parts.loss, whole.loss);
            assert!((whole.entropy - parts.entropy).abs() < 1e-6);
            assert!((whole.ratios.clip_fraction - parts.ratios.clip_fraction).abs() < 1e-6);
            for (whole, parts) in lists(&model, &whole).iter().zip(lists(&model, &parts)) {
                let most = whole.iter().fold(0f32, |most, x| most.max(x.abs()));
                assert!(most > 0.0, "{name}: every weight has a gradient");
                for (a, b) in whole.iter().zip(&parts) {
                    assert!((a - b).abs() <= 1e-4 * most, "{name}: {b} is not {a}");
                }
            }
        }
    }
}

#[test]
fn groups_of_equal_rewards_have_a_gradient_of_exactly_zero() {
    let model = model();
    let dials = Dials { entropy_weight: 0.0, ..dials() };
    let samples = samples(&some(&[0.1; 8]));
    for algorithm in [Algorithm::Grpo, Algorithm::DrGrpo, Algorithm::Gspo, Algorithm::Cispo, Algorithm::Rloo] {
        let settings = RlSettings::of(algorithm, 8, 3);
        let step = step_of(&model, &samples, &settings, &dials);
        assert_eq!(step.gradients.norm().unwrap(), 0.0, "{algorithm:?}");
        // moments of an earlier step must not move the weights either
        let mut optimizer = AdamW::new(model.vars(), recast_model::AdamWConfig::default()).unwrap();
        let uneven = super::tests::samples(&some(&[0.1, 0.9, 0.4, 0.2, 0.7, 0.7, 0.0, 1.0]));
        optimizer.step(&step_of(&model, &uneven, &settings, &dials).gradients, 0.0).unwrap();
        let before = model.vars()["model.norm.weight"].to_vec1::<f32>().unwrap();
        let made = prepare(&model, None, None, samples.iter().collect(), &settings).unwrap();
        let done = passes(&model, None, &mut optimizer, &made.batch, &settings, &dials).unwrap();
        assert_eq!((done.updates, before), (0, model.vars()["model.norm.weight"].to_vec1::<f32>().unwrap()));
    }
}

#[test]
fn an_unscored_completion_is_as_if_it_had_never_been_drawn() {
    let model = model();
    for algorithm in [Algorithm::Grpo, Algorithm::Rloo, Algorithm::ReinforcePlusPlus, Algorithm::Ppo] {
        let settings = RlSettings { micro_rows: 1, ..RlSettings::of(algorithm, 8, 3) };
        let mut rewards = some(&[0.1, 0.9, 0.4, 0.2, 0.7, 0.7, 0.0, 1.0]);
        rewards[2] = None;
        let all = samples(&rewards);
        let without: Vec<Sample> = all.iter().filter(|sample| sample.scored.is_some()).cloned().collect();
        let (found, expected) =
            (step_of(&model, &all, &settings, &dials()), step_of(&model, &without, &settings, &dials()));
        assert_eq!(found.loss, expected.loss, "{algorithm:?}");
        assert_eq!(lists(&model, &found), lists(&model, &expected));
    }
}

#[test]
fn a_group_with_one_scored_member_takes_no_part() {
    let model = model();
    let mut rewards = some(&[0.1, 0.9, 0.4, 0.2]);
    rewards.extend([Some(1.0), None, None, None]);
    let settings = RlSettings::of(Algorithm::Grpo, 8, 3);
    let all = samples(&rewards);
    let made = prepare(&model, None, None, all.iter().collect(), &settings).unwrap();
    assert_eq!(made.live, 4);
}
