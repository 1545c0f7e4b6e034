//! How much better a completion was than what could be expected of its question: one number a completion.
//!
//! A reward that is absent (nobody could score the completion) takes no part in any mean or deviation, and its
//! completion gets 0 and must be dropped from the loss as well.
use std::collections::BTreeMap;

use super::tokens::Layout;

/// What a group's deviations are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// Nothing: Dr.GRPO (Liu et al. 2025).
    None,
    /// The group's sample deviation plus the number: GRPO (Shao et al. 2024).
    Group(f64),
    /// The batch's sample deviation plus the number: a noisy judge's groups of nearly equal rewards stay small.
    Batch(f64),
}

/// Rewards within `1e-9` of each other are equal: the deviation of equal floats is not always zero.
pub const SAME: f64 = 1e-9;

/// Mean of some numbers; 0 of none.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Sample deviation (`n - 1`); 0 of equal numbers, and of fewer than two.
#[must_use]
pub fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 || all_equal(values) {
        return 0.0;
    }
    let center = mean(values);
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Whether numbers differ by no more than [`SAME`].
#[must_use]
pub fn all_equal(values: &[f64]) -> bool {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most - least <= SAME || values.is_empty()
}

/// Scored members of each group, by group.
fn members(rewards: &[Option<f64>], groups: &[usize]) -> BTreeMap<usize, Vec<(usize, f64)>> {
    let mut found: BTreeMap<usize, Vec<(usize, f64)>> = BTreeMap::new();
    for (index, (reward, group)) in rewards.iter().zip(groups).enumerate() {
        if let Some(reward) = reward {
            found.entry(*group).or_default().push((index, *reward));
        }
    }
    found
}

/// Applies a rule (rewards of a group -> advantages of a group) to each group's scored members.
fn by_group(rewards: &[Option<f64>], groups: &[usize], rule: impl Fn(&[f64], &[usize]) -> Vec<f64>) -> Vec<f64> {
    let mut advantages = vec![0.0; rewards.len()];
    for group in members(rewards, groups).values() {
        let numbers: Vec<f64> = group.iter().map(|(_, reward)| *reward).collect();
        let places: Vec<usize> = group.iter().map(|(index, _)| *index).collect();
        for (place, advantage) in places.iter().zip(rule(&numbers, &places)) {
            advantages[*place] = advantage;
        }
    }
    advantages
}

/// `(R - mean of the group) / scale`. Equal rewards give exactly 0; the only member of a group gets its reward, undivided
/// by anything but `1 + eps`.
#[must_use]
pub fn group_relative(rewards: &[Option<f64>], groups: &[usize], scale: Scale) -> Vec<f64> {
    let scored: Vec<f64> = rewards.iter().flatten().copied().collect();
    let batch = deviation(&scored);
    by_group(rewards, groups, |numbers, _| {
        let single = numbers.len() == 1;
        if !single && all_equal(numbers) {
            return vec![0.0; numbers.len()];
        }
        let center = if single { 0.0 } else { mean(numbers) };
        let divisor = match scale {
            Scale::None => 1.0,
            Scale::Group(eps) => eps + if single { 1.0 } else { deviation(numbers) },
            Scale::Batch(eps) => eps + batch,
        };
        numbers.iter().map(|reward| (reward - center) / divisor).collect()
    })
}

/// RLOO (Ahmadian et al. 2024): the reward minus the mean of the group's others; alone in its group, the reward.
#[must_use]
pub fn leave_one_out(rewards: &[Option<f64>], groups: &[usize]) -> Vec<f64> {
    by_group(rewards, groups, |numbers, _| {
        let n = numbers.len() as f64;
        if numbers.len() == 1 {
            return numbers.to_vec();
        }
        if all_equal(numbers) {
            return vec![0.0; numbers.len()];
        }
        let center = mean(numbers);
        numbers.iter().map(|reward| (reward - center) * n / (n - 1.0)).collect()
    })
}

/// OPO (Hao et al. 2025): the baseline is the mean reward weighted by length; alone in its group, the reward.
#[must_use]
pub fn length_weighted(rewards: &[Option<f64>], groups: &[usize], lengths: &[usize]) -> Vec<f64> {
    by_group(rewards, groups, |numbers, places| {
        if numbers.len() == 1 {
            return numbers.to_vec();
        }
        if all_equal(numbers) {
            return vec![0.0; numbers.len()];
        }
        let total: f64 = places.iter().map(|place| lengths[*place] as f64).sum();
        let sum: f64 = places.iter().zip(numbers).map(|(place, reward)| lengths[*place] as f64 * reward).sum();
        numbers.iter().map(|reward| reward - sum / total.max(1.0)).collect()
    })
}

/// ReMax (Li et al. 2023): the reward minus that of one fixed rewrite of the same question, such as the greedy one or
/// that of a larger model. Where either is absent, 0.
#[must_use]
pub fn against_baseline(rewards: &[Option<f64>], baselines: &[Option<f64>]) -> Vec<f64> {
    rewards.iter().zip(baselines).map(|(reward, baseline)| reward.zip(*baseline).map_or(0.0, |(r, b)| r - b)).collect()
}

/// Sum of weighted reward parts; a part that is absent beside others counts as 0, a row without any part is absent.
#[must_use]
pub fn weighted_sums(parts: &[Vec<Option<f64>>], weights: &[f64]) -> Vec<Option<f64>> {
    let sum = |row: &Vec<Option<f64>>| {
        row.iter().any(Option::is_some).then(|| row.iter().zip(weights).map(|(p, w)| p.unwrap_or(0.0) * w).sum())
    };
    parts.iter().map(sum).collect()
}

/// GDPO (Liu et al. 2026, arXiv 2601.05242): each reward part is set against its own group and deviation, then summed
/// under the weights and divided by the deviation of the batch; parts of different scale then count alike.
#[must_use]
pub fn by_part(parts: &[Vec<Option<f64>>], weights: &[f64], groups: &[usize], eps: f64) -> Vec<f64> {
    let mut sums = vec![0.0; parts.len()];
    for (part, weight) in weights.iter().enumerate() {
        let rewards: Vec<Option<f64>> = parts.iter().map(|row| row.get(part).copied().flatten()).collect();
        for (sum, advantage) in sums.iter_mut().zip(group_relative(&rewards, groups, Scale::Group(eps))) {
            *sum += weight * advantage;
        }
    }
    let scored: Vec<usize> = (0..parts.len()).filter(|row| parts[*row].iter().any(Option::is_some)).collect();
    let numbers: Vec<f64> = scored.iter().map(|row| sums[*row]).collect();
    let (center, divisor) = (mean(&numbers), deviation(&numbers) + eps);
    let mut advantages = vec![0.0; parts.len()];
    for row in scored {
        advantages[row] = (sums[row] - center) / divisor;
    }
    advantages
}

/// One-step episodes with a critic: `A = R - V(question)`, normalised over the batch by mean and sample deviation
/// (`+ 1e-8`). Absent rewards get 0.
#[must_use]
pub fn bandit(rewards: &[Option<f64>], values: &[f64]) -> Vec<f64> {
    let raw: Vec<Option<f64>> = rewards.iter().zip(values).map(|(reward, value)| reward.map(|r| r - value)).collect();
    let scored: Vec<f64> = raw.iter().flatten().copied().collect();
    let (center, divisor) = (mean(&scored), deviation(&scored) + 1e-8);
    raw.iter().map(|advantage| advantage.map_or(0.0, |advantage| (advantage - center) / divisor)).collect()
}

/// REINFORCE++ (Hu 2025): the discounted return of each token (the reward stands on the last), whitened over the batch.
/// Returns the advantages and the returns of tokens.
#[must_use]
pub fn reinforce_plus_plus(rewards: &[Option<f64>], layout: &Layout, gamma: f64) -> (Vec<f64>, Vec<f64>) {
    let mut returns = vec![0.0; layout.len()];
    for (row, reward) in rewards.iter().enumerate() {
        let mut running = reward.unwrap_or(0.0);
        let places: Vec<usize> = layout.counted(row).collect();
        for place in places.into_iter().rev() {
            returns[place] = running;
            running *= gamma;
        }
    }
    (whiten(&returns, layout), returns)
}

/// REINFORCE++ with a group's mean as baseline, given to all tokens and whitened over the batch.
#[must_use]
pub fn reinforce_plus_plus_baseline(rewards: &[Option<f64>], groups: &[usize], layout: &Layout) -> Vec<f64> {
    whiten(&layout.spread(&group_relative(rewards, groups, Scale::None)), layout)
}

/// Mean 0 and variance 1 over the counting tokens: `(x - mean) / sqrt(var + 1e-8)`, `n - 1` in the variance; 0 elsewhere.
#[must_use]
pub fn whiten(values: &[f64], layout: &Layout) -> Vec<f64> {
    let center = layout.mean(values);
    let count = layout.total() as f64;
    let squares = layout.mean_of(|place| (values[place] - center).powi(2));
    let divisor = (squares * count / (count - 1.0).max(1.0) + 1e-8).sqrt();
    values.iter().zip(layout.mask()).map(|(v, counts)| if *counts { (v - center) / divisor } else { 0.0 }).collect()
}

/// Generalised advantage estimation (Schulman et al. 2016): `delta = r + gamma V' - V`, `A = delta + gamma lambda A'`.
/// Tokens that do not count are passed over. Returns advantages (not whitened) and returns `A + V`.
#[must_use]
pub fn generalised(rewards: &[f64], values: &[f64], layout: &Layout, gamma: f64, lambda: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; layout.len()];
    let mut returns = vec![0.0; layout.len()];
    for row in 0..layout.rows() {
        let (mut next_value, mut next) = (0.0, 0.0);
        let places: Vec<usize> = layout.counted(row).collect();
        for place in places.into_iter().rev() {
            let delta = rewards[place] + gamma * next_value - values[place];
            next = delta + gamma * lambda * next;
            next_value = values[place];
            advantages[place] = next;
            returns[place] = next + values[place];
        }
    }
    (advantages, returns)
}
