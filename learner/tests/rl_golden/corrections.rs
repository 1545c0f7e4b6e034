use recast_learner::rl::importance::{Bound, Correction, Divergence, Level, Reach, Rejection, off_policy};
use recast_learner::rl::losses::PolicyLoss;
use recast_learner::rl::{Aggregation, Layout};

use crate::policy::check_loss;
use crate::{Case, EXACT, flat};

pub(crate) fn check(case: &Case) -> bool {
    let (name, rest) = case.id.split_once('/').unwrap_or((case.id, ""));
    match name {
        "tis" => truncated(case),
        "rejection" => rejected(case),
        "offpolicy_metrics" => figures(case),
        "trl_is" => bounded(case, rest),
        "decoupled_ppo" => {
            let layout = case.layout("response_mask");
            let bound = Bound::Truncate(case.param("behave_cap"));
            let weights = decoupled(case, &layout, Level::Token, bound, None, EXACT);
            case.all_near("weights", &weights, EXACT);
        }
        _ => return false,
    }
    true
}

fn log_probs(case: &Case) -> (Vec<f64>, Vec<f64>, Layout) {
    (case.numbers("train_log_prob"), case.numbers("rollout_log_prob"), case.layout("response_mask"))
}

fn truncated(case: &Case) {
    let (proximal, behaviour, layout) = log_probs(case);
    let level = if case.params["level"] == "token" { Level::Token } else { Level::Sequence };
    let bound = match case.params["threshold"].as_str() {
        Some(text) => {
            let (least, most) = text.split_once('_').unwrap();
            Bound::Mask(least.parse().unwrap(), most.parse().unwrap())
        }
        None => Bound::Truncate(case.param("threshold")),
    };
    let normalise = case.params["batch_normalize"] == true;
    let (weights, figures) = Correction { level, bound, normalise }.weights(&proximal, &behaviour, &layout);
    case.all_near("weights", &weights, EXACT);
    let recorded = |name: &str| case.outputs["metrics"][name].as_f64().unwrap();
    for (found, name) in [
        (figures.mean, "rollout_is_mean"),
        (figures.deviation, "rollout_is_std"),
        (figures.effective_share, "rollout_is_eff_sample_size"),
    ] {
        assert!((found - recorded(name)).abs() < 1e-7, "{}: {name} is {found}, recorded {}", case.id, recorded(name));
    }
}

fn rejected(case: &Case) {
    let (proximal, behaviour, layout) = log_probs(case);
    let names = case.params["rollout_rs"].as_str().unwrap().split(',');
    let thresholds = case.params["threshold"].as_str().unwrap().split(',');
    let mut kept = layout.mask().to_vec();
    for (name, threshold) in names.zip(thresholds) {
        let (reach, divergence) = name.rsplit_once('_').unwrap();
        let rejection = Rejection {
            divergence: match divergence {
                "k1" => Divergence::K1,
                "k2" => Divergence::K2,
                _ => Divergence::K3,
            },
            reach: match reach {
                "token" => Reach::Token,
                "seq_sum" => Reach::SequenceSum,
                "seq_mean" => Reach::SequenceMean,
                _ => Reach::SequenceMax,
            },
            bounds: match threshold.split_once('_') {
                Some((least, most)) => (least.parse::<f64>().unwrap().ln(), most.parse::<f64>().unwrap().ln()),
                None => (f64::NEG_INFINITY, threshold.parse().unwrap()),
            },
        };
        for (kept, stays) in kept.iter_mut().zip(rejection.kept(&proximal, &behaviour, &layout)) {
            *kept &= stays;
        }
    }
    let found: Vec<f64> = kept.into_iter().map(|kept| f64::from(u8::from(kept))).collect();
    case.all_near("mask", &found, EXACT);
}

fn figures(case: &Case) {
    let (proximal, behaviour, layout) = log_probs(case);
    let found = off_policy(&proximal, &behaviour, &layout);
    case.near("kl", found.kl, EXACT);
    case.near("k3_kl", found.k3, EXACT);
    case.near("training_ppl", found.proximal_perplexity, 1e-7);
    case.near("rollout_ppl", found.behaviour_perplexity, 1e-7);
    case.near("log_ppl_diff", found.mean_gap, 1e-7);
    case.near("log_ppl_abs_diff", found.mean_abs_gap, 1e-7);
    case.near("chi2_token", found.chi2_token, 1e-7);
    case.near("chi2_seq", found.chi2_sequence, 1e-7);
}

fn bounded(case: &Case, mode: &str) {
    let (proximal, behaviour, layout) = log_probs(case);
    let most = case.param("clip_max");
    let level = if mode.starts_with("token") { Level::Token } else { Level::Sequence };
    let bound = if mode.ends_with("mask") { Bound::Mask(0.0, most) } else { Bound::Truncate(most) };
    let (weights, _) = Correction { level, bound, normalise: false }.weights(&proximal, &behaviour, &layout);
    let recorded = flat(&case.outputs["ratio"]);
    let recorded = if recorded.len() == layout.rows() { layout.spread(&recorded) } else { recorded };
    for place in (0..layout.len()).filter(|place| layout.mask()[*place]) {
        let (found, expected) = (weights[place], recorded[place]);
        assert!((found - expected).abs() < EXACT, "{}: {found} is not {expected}", case.id);
    }
}

fn decoupled(case: &Case, layout: &Layout, level: Level, bound: Bound, dual: Option<f64>, tolerance: f64) -> Vec<f64> {
    let (behaviour, proximal) = (case.numbers("behave_log_prob"), case.numbers("proximal_log_prob"));
    let (weights, _) = Correction { level, bound, normalise: false }.weights(&proximal, &behaviour, layout);
    let low = case.params["clip"].as_f64().or(case.params["eps_clip"].as_f64()).unwrap();
    let high = case.params["eps_clip_higher"].as_f64().unwrap_or(low);
    let clip = PolicyLoss::Clip { low, high, dual, most: None };
    let mut losses = clip.tokens(&case.numbers("log_prob"), &proximal, &case.numbers("advantages"), layout);
    losses.weigh(&weights);
    // the denominator stays that of all tokens
    check_loss(case, &losses, &Aggregation::TokenMean.weights(layout), tolerance);
    weights
}

pub(crate) fn check_decoupled(case: &Case) -> bool {
    let level = if case.params["level"] == "token" { Level::Token } else { Level::GeometricMean };
    let most = case.param("upper");
    let bound = match case.params["action"].as_str() {
        Some("mask") => Bound::Mask(case.params["lower"].as_f64().unwrap_or(0.0), most),
        _ => Bound::Truncate(most),
    };
    let layout = case.layout("response_mask");
    decoupled(case, &layout, level, bound, case.params["c_clip"].as_f64(), 1e-6);
    true
}
