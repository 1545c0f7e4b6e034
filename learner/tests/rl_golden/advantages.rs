use recast_learner::rl::Layout;
use recast_learner::rl::advantages::{
    Scale, against_baseline, bandit, by_part, generalised, group_relative, leave_one_out, length_weighted,
    reinforce_plus_plus, reinforce_plus_plus_baseline, weighted_sums, whiten,
};

use crate::{Case, EXACT, flat};

pub(crate) fn check(case: &Case) -> bool {
    let name = case.id.split('/').next().unwrap();
    if name.starts_with("trl_adv") {
        return parts(case, name);
    }
    match name {
        "gae" => gae(case),
        "plan_bandit_advantage" => {
            let rewards = some(&case.numbers("reward"));
            case.all_near("advantage_normalised", &bandit(&rewards, &case.numbers("value")), EXACT);
        }
        _ => return grouped(case, name),
    }
    true
}

fn some(numbers: &[f64]) -> Vec<Option<f64>> {
    numbers.iter().map(|x| (!x.is_nan()).then_some(*x)).collect()
}

fn grouped(case: &Case, name: &str) -> bool {
    let rewards = some(&case.numbers("rewards"));
    let lengths = case.integers("response_lengths");
    let width = *lengths.iter().max().unwrap();
    let mask: Vec<bool> = lengths.iter().flat_map(|length| (0..width).map(move |t| t < *length)).collect();
    let layout = Layout::masked(&vec![width; lengths.len()], &mask);
    if name == "remax" {
        let advantages = against_baseline(&rewards, &some(&case.numbers("reward_baselines")));
        case.all_near("advantages", &layout.spread(&advantages), EXACT);
        return true;
    }
    let groups = case.integers("group_index");
    let by_sequence = match name {
        "grpo_std" => group_relative(&rewards, &groups, Scale::Group(case.param("epsilon"))),
        "grpo_nostd_drgrpo" => group_relative(&rewards, &groups, Scale::None),
        "rloo" => leave_one_out(&rewards, &groups),
        "opo" => length_weighted(&rewards, &groups, &lengths),
        "reinforce_pp" => {
            let (advantages, returns) = reinforce_plus_plus(&rewards, &layout, case.param("gamma"));
            case.all_near("advantages", &advantages, EXACT);
            case.all_near("returns", &returns, EXACT);
            return true;
        }
        "reinforce_pp_baseline" => {
            case.all_near("advantages", &reinforce_plus_plus_baseline(&rewards, &groups, &layout), EXACT);
            return true;
        }
        _ => return false,
    };
    case.all_near("advantage_per_sequence", &by_sequence, EXACT);
    true
}

fn parts(case: &Case, name: &str) -> bool {
    let parts: Vec<Vec<Option<f64>>> =
        case.inputs["rewards_per_func"].as_array().unwrap().iter().map(|row| some(&flat(row))).collect();
    let weights = case.numbers("weights");
    let size = case.inputs["group_size"].as_u64().unwrap() as usize;
    let groups: Vec<usize> = (0..parts.len()).map(|row| row / size).collect();
    let eps = case.param("epsilon");
    let rewards = weighted_sums(&parts, &weights);
    let advantages = match name {
        "trl_adv_group" => group_relative(&rewards, &groups, Scale::Group(eps)),
        "trl_adv_batch" => group_relative(&rewards, &groups, Scale::Batch(eps)),
        "trl_adv_none" => group_relative(&rewards, &groups, Scale::None),
        "trl_adv_gdpo" => by_part(&parts, &weights, &groups, eps),
        _ => return false,
    };
    case.all_near("advantages", &advantages, EXACT);
    true
}

fn gae(case: &Case) {
    let layout = case.layout("response_mask");
    let (rewards, values) = (case.numbers("token_level_rewards"), case.numbers("values"));
    let (advantages, returns) = generalised(&rewards, &values, &layout, case.param("gamma"), case.param("lam"));
    case.all_near("advantages_raw", &advantages, EXACT);
    case.all_near("returns", &returns, EXACT);
    case.all_near("advantages_whitened", &whiten(&advantages, &layout), EXACT);
}
