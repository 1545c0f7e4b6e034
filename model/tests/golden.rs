//! The network against numbers of transformers 5 and PEFT (`golden/tiny_qwen3`, evaluated there in f64).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor, Var};
use recast_model::{
    AdamW, AdamWConfig, Batch, Gradients, Kernels, KvCache, Lora, Qwen3, Qwen3Config, TokenScores, read_safetensors,
};
use serde_json::Value;

struct Golden {
    vectors: Value,
    base: Qwen3,
    adapter: Lora,
    batch: Batch,
    /// Hidden row and target of each completion token that counts, in reading order.
    places: Vec<u32>,
    targets: Vec<u32>,
}

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny_qwen3")
}

fn golden(kernels: Kernels) -> Golden {
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(dir().join("vectors.json")).unwrap()).unwrap();
    let config = Qwen3Config::read(&dir().join("base/config.json")).unwrap();
    let weights = read_safetensors(&dir().join("base/model.safetensors"), &Device::Cpu).unwrap();
    let adapter = Lora::read(&dir().join("adapter"), &config, &Device::Cpu).unwrap();
    let base = Qwen3::frozen(config, weights, &Device::Cpu).unwrap().with_kernels(kernels);
    let ids: Vec<Vec<u32>> = serde_json::from_value(vectors["input_ids"].clone()).unwrap();
    let lengths = [8, 7];
    let rows: Vec<&[u32]> = ids.iter().zip(lengths).map(|(row, length)| &row[..length]).collect();
    let batch = Batch::right_padded(&rows).unwrap();
    let mut places = Vec::new();
    let mut targets = Vec::new();
    for (row, ids) in rows.iter().enumerate() {
        for index in 4..ids.len() {
            places.push(batch.place(row, index - 1));
            targets.push(ids[index]);
        }
    }
    Golden { vectors, base, adapter, batch, places, targets }
}

/// All numbers of nested lists.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        _ => vec![value.as_f64().unwrap()],
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = 1e-5 + 2e-5 * expected.abs();
        assert!((found - expected).abs() <= allowed, "{what}[{i}] is {found}, expected {expected}");
    }
}

impl Golden {
    /// Seven of the eight completion values: the last of row 1 is padding.
    fn expected(&self, name: &str) -> Vec<f64> {
        flat(&self.vectors[name])[..7].to_vec()
    }

    fn scores(&self, model: &Qwen3, temperature: f64) -> TokenScores {
        let hidden = model.hidden(&self.batch).unwrap();
        model.score(&hidden, &self.places, &self.targets, temperature).unwrap()
    }

    /// The clipped objective of the file: token mean, clip 0.2 / 0.28, plus 0.04 times the k3 divergence from the base.
    fn loss(&self, model: &Qwen3) -> Tensor {
        let train = &self.vectors["train"];
        let column = |values: Vec<f64>| {
            let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
            Tensor::new(values, &Device::Cpu).unwrap()
        };
        let log_prob = self.scores(model, 1.0).log_prob;
        let old = column(flat(&train["old_logp"])[..7].to_vec());
        let reference = column(self.expected("base_logp_T1"));
        let advantages = column(vec![0.9, 0.9, 0.9, 0.9, -0.7, -0.7, -0.7]);
        let ratio = (&log_prob - old).unwrap().exp().unwrap();
        let plain = (&ratio * &advantages).unwrap();
        let clipped = (ratio.clamp(0.8f32, 1.28f32).unwrap() * &advantages).unwrap();
        let objective = plain.minimum(&clipped).unwrap();
        let difference = (reference - &log_prob).unwrap();
        let k3 = ((difference.exp().unwrap() - difference).unwrap() - 1.0).unwrap();
        ((k3 * 0.04).unwrap() - objective).unwrap().mean_all().unwrap()
    }
}

fn gradients(vars: &BTreeMap<String, Var>, loss: &Tensor) -> Gradients {
    let mut gradients = Gradients::default();
    gradients.add(vars, &loss.backward().unwrap(), 1.0).unwrap();
    gradients
}

fn check_values(kernels: Kernels) {
    let golden = golden(kernels);
    let adapted = golden.base.with_adapter(&golden.adapter).unwrap();
    let merged = golden.base.merged(&golden.adapter).unwrap();
    for (name, model) in [("base_logits", &golden.base), ("adapter_logits", &adapted), ("adapter_logits", &merged)] {
        let logits = numbers(&model.logits(&model.hidden(&golden.batch).unwrap()).unwrap());
        // the last row of the file belongs to a padding token
        let real = logits.len() - 64;
        assert_close(name, &logits[..real], &flat(&golden.vectors[name])[..real]);
    }
    let base = golden.scores(&golden.base, 1.0);
    assert_close("base_logp_T1", &numbers(&base.log_prob), &golden.expected("base_logp_T1"));
    for (temperature, label) in [(1.0, "T1"), (0.7, "T0.7")] {
        let scores = golden.scores(&adapted, temperature);
        assert_close("logp", &numbers(&scores.log_prob), &golden.expected(&format!("adapter_logp_{label}")));
        assert_close("entropy", &numbers(&scores.entropy), &golden.expected(&format!("adapter_entropy_{label}")));
    }
}

fn check_training(kernels: Kernels) {
    let golden = golden(kernels);
    let model = golden.base.with_adapter(&golden.adapter).unwrap();
    let train = &golden.vectors["train"];
    let expected = train["lora_grads_step0"].as_object().unwrap();
    assert_eq!(model.vars().len(), 28);
    let first = gradients(model.vars(), &golden.loss(&model));
    for (name, grad) in expected {
        let found = first.get(&name.replace(".default", "")).expect("every matrix has a gradient");
        assert_close(name, &numbers(found), &flat(grad));
    }
    let losses = flat(&train["loss_per_step"]);
    let norms = flat(&train["grad_norm_per_step"]);
    let mut optimizer = AdamW::new(model.vars(), AdamWConfig::default()).unwrap();
    for step in 0..5 {
        let loss = golden.loss(&model);
        let update = optimizer.step(&gradients(model.vars(), &loss), 0.01).unwrap();
        let loss = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!((loss - losses[step]).abs() < 1e-4, "loss {loss} at step {step}, expected {}", losses[step]);
        let relative = (update.grad_norm - norms[step]).abs() / norms[step];
        assert!(relative < 2e-3, "norm {} at step {step}, expected {}", update.grad_norm, norms[step]);
    }
}

#[test]
fn logits_and_token_scores_agree() {
    check_values(Kernels::Fused);
    check_values(Kernels::Composed);
}

#[test]
fn gradients_and_five_steps_agree() {
    check_training(Kernels::Fused);
    check_training(Kernels::Composed);
}

#[test]
fn greedy_decoding_with_the_cache_agrees() {
    for kernels in [Kernels::Fused, Kernels::Composed] {
        let golden = golden(kernels);
        let model = golden.base.merged(&golden.adapter).unwrap();
        let expected: Vec<u32> =
            serde_json::from_value(golden.vectors["greedy_8_tokens_from_prompt0"].clone()).unwrap();
        // a second, longer row, so that the first one is padded on the left
        let prompts = Batch::left_padded(&[vec![5, 9, 33, 12], vec![40, 7, 7, 21, 22, 61]]).unwrap();
        let mut cache = KvCache::new(model.config(), 2, 16, &Device::Cpu).unwrap();
        let hidden = model.prefill(&prompts, &mut cache).unwrap();
        let mut last = model.select(&hidden, &[prompts.last(0), prompts.last(1)]).unwrap();
        let mut found = Vec::new();
        for _ in 0..8 {
            let picks = model.logits(&last).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap();
            found.push(picks[0]);
            last = model.step(&picks, &mut cache).unwrap();
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn full_training_reaches_every_weight() {
    let golden = golden(Kernels::Fused);
    for tied in [false, true] {
        let config = Qwen3Config { tie_word_embeddings: tied, ..golden.base.config().clone() };
        let model = Qwen3::trainable(config, golden.base.weights().clone(), &Device::Cpu).unwrap();
        let loss = golden.scores(&model, 1.0).log_prob.mean_all().unwrap();
        let found = gradients(model.vars(), &loss);
        let composed = model.clone().with_kernels(Kernels::Composed);
        let loss = golden.scores(&composed, 1.0).log_prob.mean_all().unwrap();
        let expected = gradients(model.vars(), &loss);
        for name in model.vars().keys() {
            let (found, expected) = (numbers(found.get(name).unwrap()), numbers(expected.get(name).unwrap()));
            assert!(found.iter().any(|x| *x != 0.0), "{name} has a gradient of zeros");
            assert_close(name, &found, &expected);
        }
    }
}

#[test]
fn an_adapter_survives_writing_and_reading() {
    let golden = golden(Kernels::Fused);
    let dir = tempfile::tempdir().unwrap();
    golden.adapter.write(dir.path()).unwrap();
    let read = Lora::read(dir.path(), golden.base.config(), &Device::Cpu).unwrap();
    let before = golden.adapter.vars();
    assert_eq!(read.config(), golden.adapter.config());
    for (name, var) in read.vars() {
        assert_eq!(numbers(&var), numbers(&before[&name]), "{name}");
    }
    let wider = Qwen3Config { hidden_size: 40, ..golden.base.config().clone() };
    let message = Lora::read(dir.path(), &wider, &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("shape"), "{message}");
}

#[test]
fn a_fresh_adapter_changes_nothing_and_a_detached_model_follows_training() {
    let golden = golden(Kernels::Fused);
    let config = recast_model::LoraConfig::all_linears(4, 8.0);
    let fresh = Lora::init(&config, golden.base.config(), 1, &Device::Cpu).unwrap();
    let model = golden.base.with_adapter(&fresh).unwrap();
    let logits = |model: &Qwen3| numbers(&model.hidden(&golden.batch).unwrap());
    assert_close("fresh adapter", &logits(&model), &logits(&golden.base));
    let follower = model.detached().unwrap();
    let mut optimizer = AdamW::new(model.vars(), AdamWConfig::default()).unwrap();
    for _ in 0..2 {
        optimizer.step(&gradients(model.vars(), &golden.loss(&model)), 0.01).unwrap();
    }
    assert_close("follower", &logits(&follower), &logits(&model));
    assert!(numbers(&follower.hidden(&golden.batch).unwrap()) != numbers(&golden.base.hidden(&golden.batch).unwrap()));
}

#[test]
fn padding_changes_no_number() {
    let golden = golden(Kernels::Fused);
    let sequences = [vec![5, 9, 33, 12, 17, 3], vec![40, 7]];
    let alone = Batch::right_padded(&sequences[1..]).unwrap();
    let expected = numbers(&golden.base.hidden(&alone).unwrap());
    for batch in [Batch::right_padded(&sequences).unwrap(), Batch::left_padded(&sequences).unwrap()] {
        let hidden = golden.base.hidden(&batch).unwrap();
        let found = golden.base.select(&hidden, &[batch.place(1, 0), batch.place(1, 1)]).unwrap();
        assert_close("padded", &numbers(&found), &expected);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let golden = golden(Kernels::Fused);
    let mut weights = golden.base.weights().clone();
    weights.remove("model.norm.weight");
    let missing = Qwen3::frozen(golden.base.config().clone(), weights, &Device::Cpu).unwrap_err().to_string();
    assert!(missing.contains("model.norm.weight"), "{missing}");
    let long = Batch::right_padded(&[vec![1; 129]]).unwrap();
    assert!(golden.base.hidden(&long).unwrap_err().to_string().contains("max_position_embeddings"));
    let foreign = Batch::right_padded(&[vec![64]]).unwrap();
    assert!(golden.base.hidden(&foreign).unwrap_err().to_string().contains("vocab_size"));
}
