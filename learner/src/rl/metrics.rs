//! What a step tells.
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::advantages::{all_equal, deviation, mean};
use super::importance::WeightFigures;
use super::sample::Sample;

/// Figures of one step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Number of the step, from 0.
    pub step: u64,
    /// Completions that took part in the update.
    pub samples: usize,
    /// Tokens of completions drawn.
    pub tokens: u64,
    /// Mean reward of scored completions.
    pub reward_mean: f64,
    /// Their sample deviation.
    pub reward_deviation: f64,
    /// Means of the reward's parts.
    pub parts: BTreeMap<String, f64>,
    /// Share of completions that nobody could score.
    pub unscored_share: f64,
    /// Share of groups whose scored rewards are equal, or are fewer than two.
    pub zero_variance_share: f64,
    /// Share of scored completions that cannot be searched for.
    pub invalid_share: f64,
    /// Share of scored completions that repeat the query.
    pub copied_share: f64,
    /// Share of completions that repeat another of their group.
    pub duplicate_share: f64,
    /// Mean length in tokens.
    pub length_mean: f64,
    /// Share of completions that were cut at the length.
    pub truncated_share: f64,
    /// Completions of too old a policy, which were thrown away.
    pub stale: usize,
    /// Their share of what came in.
    pub stale_share: f64,
    /// Mean k3 to the reference, nats a token; absent without a reference.
    pub kl_reference: Option<f64>,
    /// Mean entropy, nats a token.
    pub entropy: f64,
    /// Share of clipped tokens, one figure an inner pass.
    pub clip_fraction: Vec<f64>,
    /// Mean `old - new` of the last pass, nats a token.
    pub approx_kl: f64,
    /// Largest `|ratio - 1|` over the first minibatch, of tokens that the present policy drew.
    pub on_policy_deviation: f64,
    /// Largest `|ratio - 1|` over all passes.
    pub ratio_deviation: f64,
    /// Figures of the importance weights, where there are any.
    pub weights: Option<WeightFigures>,
    /// The policy's loss, of the last update.
    pub loss: f64,
    /// Global norm of its gradient before clipping, of the last update.
    pub grad_norm: f64,
    /// Mean value loss, with a critic.
    pub value_loss: Option<f64>,
    /// Explained variance of the critic before the update.
    pub explained_variance: Option<f64>,
    /// Updates that changed the weights.
    pub updates: u32,
    /// Seconds of sampling and scoring.
    pub roll_seconds: f64,
    /// Seconds of learning.
    pub learn_seconds: f64,
}

impl StepMetrics {
    /// What can be said of samples before they are learned from.
    #[must_use]
    pub fn of(step: u64, samples: &[Sample]) -> Self {
        let count = samples.len().max(1) as f64;
        let share = |matches: &dyn Fn(&Sample) -> bool| samples.iter().filter(|s| matches(s)).count() as f64 / count;
        let scored: Vec<_> = samples.iter().filter_map(|sample| sample.scored.as_ref()).collect();
        let rewards: Vec<f64> = scored.iter().map(|scored| scored.reward).collect();
        let of_scored = |n: usize| n as f64 / scored.len().max(1) as f64;
        let mut groups: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut duplicates = 0;
        for sample in samples {
            groups.entry(sample.group).or_default().extend(sample.scored.as_ref().map(|scored| scored.reward));
            duplicates += usize::from(!seen.insert((sample.group, &sample.ids)));
        }
        let mut parts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (name, value) in scored.iter().flat_map(|scored| &scored.parts) {
            parts.entry(name.clone()).or_default().push(*value);
        }
        let mute = groups.values().filter(|rewards| rewards.len() < 2 || all_equal(rewards)).count();
        Self {
            step,
            tokens: samples.iter().map(|sample| sample.ids.len() as u64).sum(),
            reward_mean: mean(&rewards),
            reward_deviation: deviation(&rewards),
            parts: parts.into_iter().map(|(name, values)| (name, mean(&values))).collect(),
            unscored_share: share(&|sample| sample.scored.is_none()),
            zero_variance_share: mute as f64 / groups.len().max(1) as f64,
            invalid_share: of_scored(scored.iter().filter(|scored| !scored.valid).count()),
            copied_share: of_scored(scored.iter().filter(|scored| scored.copied).count()),
            duplicate_share: duplicates as f64 / count,
            length_mean: samples.iter().map(|sample| sample.ids.len() as f64).sum::<f64>() / count,
            truncated_share: share(&|sample| !sample.finished),
            ..Self::default()
        }
    }
}
