use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use recast_learner::rl::advantages::whiten;
use recast_learner::rl::entropy::{entropy, log_softmax};
use recast_learner::rl::kl::{AdaptiveKl, KlEstimator, in_reward, k3_unbounded};
use recast_learner::rl::shaping::{Overlong, teaching_groups};
use recast_learner::rl::value::value_loss;
use recast_learner::rl::{Aggregation, weighted};
use recast_model::{AdamW, AdamWConfig, Gradients};

use crate::policy::through_tensor;
use crate::{Case, EXACT, flat, near_all};

pub(crate) fn check(case: &Case) -> bool {
    let name = case.id.split('/').next().unwrap();
    match name {
        "kl_estimators" => estimators(case),
        "kl_k3_unclamped_trl" => {
            let found: Vec<(f64, f64)> = case
                .numbers("logprob")
                .iter()
                .zip(case.numbers("ref_logprob"))
                .map(|(new, reference)| k3_unbounded(*new, reference))
                .collect();
            let expected = flat(&case.outputs["k3"]);
            let slopes = flat(&case.outputs["grad_logprob"]);
            for ((value, slope), (expected, wanted)) in found.iter().zip(expected.iter().zip(&slopes)) {
                assert!((value - expected).abs() <= EXACT * expected.abs().max(1.0), "{value} is not {expected}");
                assert!((slope - wanted).abs() <= EXACT * wanted.abs().max(1.0), "{slope} is not {wanted}");
            }
        }
        "kl_in_reward" => {
            let (scores, new) = (case.numbers("token_level_scores"), case.numbers("old_log_prob"));
            let found = in_reward(&scores, &new, &case.numbers("ref_log_prob"), case.param("kl_ratio"));
            case.all_near("token_level_rewards", &found, EXACT);
        }
        "adaptive_kl_controller" => {
            let mut controller = AdaptiveKl {
                weight: case.param("init_kl_coef"),
                target: case.param("target_kl"),
                horizon: case.param("horizon"),
            };
            let found: Vec<f64> = case
                .numbers("current_kl")
                .iter()
                .zip(case.integers("n_steps"))
                .map(|(kl, n)| {
                    controller.update(*kl, n);
                    controller.weight
                })
                .collect();
            case.all_near("kl_coef_after_each", &found, EXACT);
        }
        "value_loss" => values(case),
        "agg_loss" => aggregated(case),
        "masked_whiten" => {
            let layout = case.layout("mask");
            let found = whiten(&case.numbers("values"), &layout);
            let expected = flat(&case.outputs["whitened"]);
            for place in (0..layout.len()).filter(|place| layout.mask()[*place]) {
                assert!((found[place] - expected[place]).abs() < EXACT, "{} is not {}", found[place], expected[place]);
            }
        }
        "logprob_entropy" => entropies(case),
        "entropy_grad" => entropy_slopes(case),
        "dapo_overlong_penalty" => {
            let overlong = Overlong {
                most: case.param("max_resp_len") as usize,
                buffer: case.param("buffer_len") as usize,
                factor: case.param("penalty_factor"),
            };
            let found: Vec<f64> =
                case.integers("response_length").into_iter().map(|length| overlong.penalty(length)).collect();
            case.all_near("penalty", &found, EXACT);
        }
        "dynamic_sampling_filter" => filter(case),
        "adamw_clip_grad_norm" => optimizer(case),
        _ => return false,
    }
    true
}

fn estimators(case: &Case) {
    let kinds = [
        ("k1", KlEstimator::K1),
        ("abs", KlEstimator::Abs),
        ("k2", KlEstimator::K2),
        ("k3", KlEstimator::K3),
        ("k1+", KlEstimator::StraightK1),
        ("k3+", KlEstimator::StraightK3),
    ];
    let (new, reference) = (case.numbers("logprob"), case.numbers("ref_logprob"));
    for (name, kind) in kinds {
        let found: Vec<(f64, f64)> = new.iter().zip(&reference).map(|(new, old)| kind.token(*new, *old)).collect();
        let (values, slopes): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
        near_all(name, &values, &flat(&case.outputs[name]["value"]), EXACT);
        near_all(name, &slopes, &flat(&case.outputs[name]["grad_logprob"]), EXACT);
    }
}

fn values(case: &Case) {
    let layout = case.layout("response_mask");
    let (new, old, returns) = (case.numbers("vpreds"), case.numbers("values_old"), case.numbers("returns"));
    let found = value_loss(&new, &old, &returns, &layout, case.param("cliprange_value"));
    let weights = match case.params["loss_agg_mode"].as_str().unwrap() {
        "token-mean" => Aggregation::TokenMean,
        _ => Aggregation::SeqMeanTokenMean,
    }
    .weights(&layout);
    case.near("loss", weighted(&weights, &found.loss), EXACT);
    case.near("clipfrac", found.clip_fraction, EXACT);
    let slopes: Vec<f64> = found.slope.iter().zip(&weights).map(|(slope, weight)| slope * weight).collect();
    case.all_near("grad_vpreds", &slopes, EXACT);
    through_tensor(case, &slopes, "vpreds");
}

fn aggregated(case: &Case) {
    let layout = case.layout("loss_mask");
    let losses = case.numbers("loss_mat");
    let width = case.inputs["loss_mask"][0].as_array().unwrap().len() as f64;
    let aggregation = match case.params["mode"].as_str().unwrap() {
        "token-mean" => Aggregation::TokenMean,
        "token-sum" => Aggregation::TokenSum,
        "seq-mean-token-sum" => Aggregation::SeqMeanTokenSum,
        "seq-mean-token-mean" => Aggregation::SeqMeanTokenMean,
        _ => Aggregation::SeqMeanTokenSumNorm(case.params["loss_scale_factor"].as_f64().unwrap_or(width)),
    };
    let weights = aggregation.weights(&layout);
    let Some(size) = case.params["micro_batch"].as_u64() else {
        case.near("loss", weighted(&weights, &losses), EXACT);
        return;
    };
    let rows: Vec<usize> = (0..layout.rows()).collect();
    let parts: Vec<f64> = rows
        .chunks(size as usize)
        .map(|rows| {
            let (_, places) = layout.select(rows);
            places.iter().map(|place| weights[*place] * losses[*place]).sum()
        })
        .collect();
    case.all_near("micro_losses", &parts, EXACT);
    case.near("sum", parts.iter().sum(), EXACT);
}

fn entropies(case: &Case) {
    let labels: Vec<usize> = case.integers("labels");
    for temperature in flat(&case.params["temperature"]) {
        let name = if temperature == 1.0 { "1".to_owned() } else { temperature.to_string() };
        let rows: Vec<Vec<f64>> = rows_of(case);
        let chosen: Vec<f64> =
            rows.iter().zip(&labels).map(|(row, label)| log_softmax(row, temperature)[*label]).collect();
        case.all_near(&format!("logprob_T{name}"), &chosen, EXACT);
        let found: Vec<f64> = rows.iter().map(|row| entropy(row, temperature).0).collect();
        case.all_near(&format!("entropy_T{name}"), &found, EXACT);
        let logits = Tensor::new(rows.iter().map(|r| single(r)).collect::<Vec<_>>(), &Device::Cpu).unwrap();
        let targets: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
        let scores = recast_model::token_scores(recast_model::Kernels::Fused, &logits, &targets, temperature).unwrap();
        let double = |t: &Tensor| t.to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<f64>>();
        near_all(case.id, &double(&scores.log_prob), &chosen, 2e-5);
        near_all(case.id, &double(&scores.entropy), &found, 2e-5);
    }
}

fn single(row: &[f64]) -> Vec<f32> {
    row.iter().map(|x| *x as f32).collect()
}

fn rows_of(case: &Case) -> Vec<Vec<f64>> {
    let lists = case.inputs["logits"].as_array().unwrap();
    lists.iter().flat_map(|rows| rows.as_array().unwrap().iter().map(flat)).collect()
}

fn entropy_slopes(case: &Case) {
    let rows = rows_of(case);
    let found: Vec<(f64, Vec<f64>)> = rows.iter().map(|row| entropy(row, 1.0)).collect();
    let count = found.len() as f64;
    case.near("mean_entropy", found.iter().map(|(h, _)| h).sum::<f64>() / count, EXACT);
    let slopes: Vec<f64> = found.iter().flat_map(|(_, slopes)| slopes.iter().map(|s| s / count)).collect();
    case.all_near("grad_logits", &slopes, EXACT);
    let var = Var::new(rows.iter().map(|r| single(r)).collect::<Vec<_>>(), &Device::Cpu).unwrap();
    let targets = vec![0; rows.len()];
    let scores = recast_model::token_scores(recast_model::Kernels::Fused, &var, &targets, 1.0).unwrap();
    let store = scores.entropy.mean_all().unwrap().backward().unwrap();
    let gradient = store.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    near_all(case.id, &gradient.into_iter().map(f64::from).collect::<Vec<_>>(), &slopes, 2e-5);
}

fn filter(case: &Case) {
    let groups = case.inputs["groups"].as_object().unwrap();
    let mut rewards = Vec::new();
    let mut indices = Vec::new();
    for (index, members) in groups.values().enumerate() {
        for reward in flat(members) {
            rewards.push(Some(reward));
            indices.push(index);
        }
    }
    let names: Vec<&String> = groups.keys().collect();
    let kept: Vec<&str> = teaching_groups(&rewards, &indices, 1).into_iter().map(|i| names[i].as_str()).collect();
    assert_eq!(serde_json::json!(kept), case.outputs["kept"]);
}

fn optimizer(case: &Case) {
    let rows = case.inputs["grads"].as_array().unwrap();
    // decay goes to matrices only, so the numbers stand as one row
    let var = Var::from_tensor(&Tensor::new(vec![single(&case.numbers("p0"))], &Device::Cpu).unwrap()).unwrap();
    let vars = BTreeMap::from([("p".to_owned(), var.clone())]);
    let config = AdamWConfig {
        weight_decay: case.param("weight_decay"),
        max_grad_norm: case.param("max_norm"),
        ..AdamWConfig::default()
    };
    let mut adam = AdamW::new(&vars, config).unwrap();
    for (step, row) in rows.iter().enumerate() {
        let constant = Tensor::new(vec![single(&flat(row))], &Device::Cpu).unwrap();
        let store = (var.as_tensor() * constant).unwrap().sum_all().unwrap().backward().unwrap();
        let mut gradients = Gradients::default();
        gradients.add(&vars, &store, 1.0).unwrap();
        let update = adam.step(&gradients, case.param("lr")).unwrap();
        let norm = flat(&case.outputs["grad_norm_before_clip"])[step];
        assert!((update.grad_norm - norm).abs() < 2e-5 * norm.max(1.0));
        let found: Vec<f64> = var.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
        near_all(case.id, &found, &flat(&case.outputs["params_after_each"][step]), 2e-5);
    }
}
