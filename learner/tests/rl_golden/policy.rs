use candle_core::{Device, Tensor, Var};
use recast_learner::rl::importance::unlikely_failures;
use recast_learner::rl::kl::k3_unbounded;
use recast_learner::rl::losses::{PolicyLoss, TokenLosses, ratio};
use recast_learner::rl::{Aggregation, Layout, weighted};

use crate::{Case, EXACT, near_all};

pub(crate) fn aggregation(case: &Case) -> Aggregation {
    let width = case.layout_width();
    match case.params["loss_agg_mode"].as_str().unwrap() {
        "token-mean" => Aggregation::TokenMean,
        "token-sum" => Aggregation::TokenSum,
        "seq-mean-token-sum" => Aggregation::SeqMeanTokenSum,
        "seq-mean-token-sum-norm" => Aggregation::SeqMeanTokenSumNorm(width),
        "seq-mean-token-mean" => Aggregation::SeqMeanTokenMean,
        other => panic!("unknown aggregation {other}"),
    }
}

impl Case<'_> {
    fn layout_width(&self) -> f64 {
        self.inputs["response_mask"][0].as_array().unwrap().len() as f64
    }
}

/// Loss and slopes under the weights, against the record, in 64 bits and through a 32-bit tensor's backward pass.
pub(crate) fn check_loss(case: &Case, losses: &TokenLosses, weights: &[f64], tolerance: f64) {
    let loss = weighted(weights, &losses.loss);
    case.near("loss", loss, tolerance);
    let slopes: Vec<f64> = losses.slope.iter().zip(weights).map(|(slope, weight)| slope * weight).collect();
    case.all_near("grad_log_prob", &slopes, tolerance);
    through_tensor(case, &slopes, "log_prob");
}

/// The slopes reach a variable's gradient as they are.
pub(crate) fn through_tensor(case: &Case, slopes: &[f64], input: &str) {
    let single = |numbers: &[f64]| numbers.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let var = Var::new(single(&case.numbers(input)), &Device::Cpu).unwrap();
    let constant = Tensor::new(single(slopes), &Device::Cpu).unwrap();
    let store = (var.as_tensor() * constant).unwrap().sum_all().unwrap().backward().unwrap();
    let found: Vec<f64> = store.get(&var).unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
    let most = slopes.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
    near_all(case.id, &found, slopes, 2e-5 * most);
}

pub(crate) fn check(case: &Case) -> bool {
    let name = case.id.split('/').next().unwrap();
    let clip = |name: &str| case.param(name);
    let loss = match name {
        "ppo_clip" | "dapo_clip_higher" | "masked_out_row" | "plan_worked_example_sequence_level" => PolicyLoss::Clip {
            low: clip("clip_low"),
            high: clip("clip_high"),
            dual: Some(clip("clip_ratio_c")),
            most: None,
        },
        "gspo" => PolicyLoss::Sequence { low: clip("clip_low"), high: clip("clip_high") },
        "cispo" => PolicyLoss::Cispo { least: 1.0 - clip("clip_low"), most: 1.0 + clip("clip_high") },
        "sapo" => PolicyLoss::Soft { positive: clip("tau_pos"), negative: clip("tau_neg") },
        "gmpo_geo_mean" => PolicyLoss::GeometricMean { low: clip("clip_low"), high: clip("clip_high") },
        "dppo_tv" => {
            PolicyLoss::TotalVariation { low: clip("clip_low"), high: clip("clip_high"), cap: clip("clip_ratio_c") }
        }
        "reinforce" => PolicyLoss::Reinforce,
        _ => return false,
    };
    let layout = case.layout("response_mask");
    let (new, advantages) = (case.numbers("log_prob"), case.numbers("advantages"));
    let old = case.numbers(if loss.uses_ratio() { "old_log_prob" } else { "rollout_log_prob" });
    let mut losses = loss.tokens(&new, &old, &advantages, &layout);
    if case.inputs["rollout_is_weights"].is_array() {
        losses.weigh(&case.numbers("rollout_is_weights"));
    }
    // GMPO is a loss of sequences, whatever its record says of tokens
    let by_sequence = matches!(loss, PolicyLoss::GeometricMean { .. });
    let aggregation = if by_sequence { Aggregation::SeqMeanTokenMean } else { aggregation(case) };
    check_loss(case, &losses, &aggregation.weights(&layout), EXACT);
    if loss.uses_ratio() {
        let figures = losses.figures(&new, &old, &layout);
        case.near("pg_clipfrac", figures.clip_fraction, EXACT);
        case.near("pg_clipfrac_lower", figures.low_clip_fraction, EXACT);
        // these two do not bound the log-ratio of 25 before they take its mean
        if !matches!(loss, PolicyLoss::GeometricMean { .. } | PolicyLoss::Sequence { .. }) {
            case.near("ppo_kl", figures.approx_kl, 2e-9);
        }
    }
    true
}

pub(crate) fn check_trl(case: &Case) -> bool {
    let layout = case.layout("response_mask");
    let (new, old) = (case.numbers("log_prob"), case.numbers("old_log_prob"));
    let by_row = case.numbers("advantages");
    let advantages = layout.spread(&by_row);
    let (low, high) = (case.param("epsilon"), case.param("epsilon_high"));
    let kind = case.params["loss_type"].as_str().unwrap();
    let loss = match kind {
        "cispo" => PolicyLoss::Cispo { least: 0.0, most: high },
        "sapo" => PolicyLoss::Soft { positive: 1.0, negative: 1.05 },
        "vespo" => PolicyLoss::Variational { positive: (2.0, 3.0), negative: (3.0, 2.0) },
        _ if case.params["importance_sampling_level"] == "sequence" => PolicyLoss::Sequence { low, high },
        _ => PolicyLoss::Clip { low, high, dual: None, most: case.params["delta"].as_f64() },
    };
    let mut losses = loss.tokens(&new, &old, &advantages, &layout);
    let weights = trl_weights(case, kind, &layout);
    if case.inputs["importance_sampling_ratio"].is_array() {
        let given = case.numbers("importance_sampling_ratio");
        losses.weigh(&if given.len() == layout.rows() { layout.spread(&given) } else { given });
    }
    if let Some(most) = case.params["off_policy_mask_threshold"].as_f64() {
        let dropped = unlikely_failures(&new, &old, &advantages, &layout, most);
        let kept: Vec<f64> = dropped.iter().map(|dropped| if *dropped { 0.0 } else { 1.0 }).collect();
        losses.weigh(&layout.spread(&kept));
    }
    let beta = case.param("beta");
    if beta > 0.0 {
        add_divergence(case, &mut losses, &new, &old, &layout, beta);
    }
    // its library adds 1e-8 nowhere in row means
    check_loss(case, &losses, &weights, 3e-9);
    if case.outputs["clip_ratio/region_mean"].is_number() && !matches!(loss, PolicyLoss::Sequence { .. }) {
        let region = layout.mean_of(|place| {
            let r = ratio(new[place], old[place]);
            f64::from(u8::from(
                (r < 1.0 - low && advantages[place] < 0.0) || (r > 1.0 + high && advantages[place] > 0.0),
            ))
        });
        case.near("clip_ratio/region_mean", region, EXACT);
    }
    true
}

fn trl_weights(case: &Case, kind: &str, layout: &Layout) -> Vec<f64> {
    match kind {
        "grpo" | "sapo" => Aggregation::SeqMeanTokenMean,
        "dr_grpo" => Aggregation::SeqMeanTokenSumNorm(case.param("max_completion_length")),
        _ => Aggregation::TokenMean,
    }
    .weights(layout)
}

/// `+ beta * k3`, with the ratio before it where the record says so.
fn add_divergence(case: &Case, losses: &mut TokenLosses, new: &[f64], old: &[f64], layout: &Layout, beta: f64) {
    let reference = case.numbers("ref_log_prob");
    let corrected = case.params["use_bias_correction_kl"] == true;
    let mut values = vec![0.0; layout.len()];
    for place in (0..layout.len()).filter(|place| layout.mask()[*place]) {
        let (value, slope) = k3_unbounded(new[place], reference[place]);
        let r = if corrected { ratio(new[place], old[place]) } else { 1.0 };
        values[place] = value * r;
        losses.loss[place] += beta * value * r;
        losses.slope[place] += beta * if corrected { r * (slope + value) } else { slope };
    }
    case.near("kl", layout.mean(&values), 2e-9);
}
