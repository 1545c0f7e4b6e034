//! The ranking loss against sentence-transformers' numbers: value and gradient.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use candle_core::{DType, Device, Tensor, Var};
use recast_learner::{in_batch_loss, unit_rows};
use serde_json::Value;

fn matrix(value: &Value) -> Tensor {
    let rows: Vec<Vec<f32>> = serde_json::from_value(value.clone()).unwrap();
    let width = rows[0].len();
    Tensor::from_vec(rows.concat(), (rows.len(), width), &Device::Cpu).unwrap()
}

fn assert_close(found: &Tensor, expected: &Tensor, case: &str) {
    let difference = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let worst = difference.to_dtype(DType::F32).unwrap().to_scalar::<f32>().unwrap();
    assert!(worst < 2e-5, "{case} differs by {worst}");
}

#[test]
fn the_ranking_loss_meets_the_golden_values() {
    let all: Value = serde_json::from_str(include_str!("golden/embedding_loss_vectors.json")).unwrap();
    let names = ["mnrl/pairs_scale20", "mnrl/pairs_scale50", "mnrl/dot_scale1", "mnrl/hard_negatives_2_scale20"];
    let names = names.iter().chain(&["mnrl/hard_negatives_2_scale50", "cached_mnrl/mini2"]);
    for name in names {
        let case = all["cases"].as_array().unwrap().iter().find(|case| case["id"] == **name).unwrap();
        let inputs = case["inputs"]["embeddings"].as_array().unwrap();
        let vars: Vec<Var> = inputs.iter().map(|rows| Var::from_tensor(&matrix(rows)).unwrap()).collect();
        let cosine = case["params"]["similarity"] != "dot";
        let units: Vec<Tensor> =
            vars.iter().map(|var| if cosine { unit_rows(var).unwrap() } else { var.as_tensor().clone() }).collect();
        let candidates = Tensor::cat(&units[1..], 0).unwrap();
        let rows = units[0].dims()[0];
        let targets: Vec<u32> = (0..rows as u32).collect();
        let scale = case["params"]["scale"].as_f64().unwrap();
        let loss = in_batch_loss(&units[0], &candidates, &targets, &vec![Vec::new(); rows], scale).unwrap();
        let expected = case["outputs"]["loss"].as_f64().unwrap();
        let found = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!((found - expected).abs() < 2e-5 * expected.abs().max(1.0), "{name}: {found} is not {expected}");
        let gradients = loss.backward().unwrap();
        for (var, expected) in vars.iter().zip(case["outputs"]["grad_embeddings"].as_array().unwrap()) {
            assert_close(gradients.get(var).unwrap(), &matrix(expected), name);
        }
    }
}

#[test]
fn a_further_right_answer_takes_no_part() {
    let rows = |numbers: &[f32]| Tensor::from_slice(numbers, (numbers.len() / 2, 2), &Device::Cpu).unwrap();
    let queries = rows(&[1.0, 0.0]);
    let with = in_batch_loss(&queries, &rows(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]), &[0], &[vec![1]], 1.0).unwrap();
    let without = in_batch_loss(&queries, &rows(&[1.0, 0.0, 0.0, 1.0]), &[0], &[vec![]], 1.0).unwrap();
    assert_close(&with, &without, "masked");
}
