//! What DAPO (Yu et al. 2025) changes before advantages are taken: long completions and groups that teach nothing.
use std::collections::BTreeMap;

use super::advantages::all_equal;

/// A soft penalty for completions that come near the length limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlong {
    /// Longest completion in tokens.
    pub most: usize,
    /// Tokens before it within which the penalty grows.
    pub buffer: usize,
    /// Penalty at the longest.
    pub factor: f64,
}

impl Overlong {
    /// `min(-(length - (most - buffer)) / buffer * factor, 0)`, to be added to the reward.
    #[must_use]
    pub fn penalty(&self, length: usize) -> f64 {
        let over = length as f64 - (self.most as f64 - self.buffer as f64);
        (-over / self.buffer.max(1) as f64 * self.factor).min(0.0)
    }
}

/// Groups that can teach: with at least `least` scored members whose rewards differ. A single member counts as differing
/// (its advantage is its reward), so ask for two where advantages are relative.
#[must_use]
pub fn teaching_groups(rewards: &[Option<f64>], groups: &[usize], least: usize) -> Vec<usize> {
    let mut members: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (reward, group) in rewards.iter().zip(groups) {
        members.entry(*group).or_default().extend(*reward);
    }
    let teaches = |rewards: &[f64]| rewards.len() >= least.max(1) && (rewards.len() == 1 || !all_equal(rewards));
    members.into_iter().filter(|(_, rewards)| teaches(rewards)).map(|(group, _)| group).collect()
}
