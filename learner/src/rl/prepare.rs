//! From samples to the numbers of an update: who takes part, and how good each token was.
use recast_model::Qwen3;

use super::advantages::{
    against_baseline, bandit, generalised, group_relative, leave_one_out, length_weighted,
    reinforce_plus_plus_baseline, whiten,
};
use super::critic::Critic;
use super::importance::WeightFigures;
use super::kl::KlEstimator;
use super::sample::Sample;
use super::settings::{AdvantageKind, RlSettings};
use super::shaping::teaching_groups;
use super::tokens::Layout;
use super::update::{Prepared, evaluate};
use super::value::explained_variance;
use crate::error::Result;

/// A batch and what its making showed.
pub(crate) struct Preparation<'a> {
    pub(crate) batch: Prepared<'a>,
    pub(crate) kl_reference: Option<f64>,
    pub(crate) explained_variance: Option<f64>,
    pub(crate) weights: Option<WeightFigures>,
    /// Samples that take part.
    pub(crate) live: usize,
}

/// Rewards after shaping; `None` where nobody could score.
pub(crate) fn shaped(samples: &[&Sample], settings: &RlSettings) -> Vec<Option<f64>> {
    let shape = |sample: &&Sample| {
        let penalty = settings.overlong.map_or(0.0, |overlong| overlong.penalty(sample.ids.len()));
        sample.scored.as_ref().map(|scored| scored.reward + penalty)
    };
    samples.iter().map(shape).collect()
}

/// Which samples take part: those with a reward, in a group with another scored member where groups are compared, not
/// cut at the length where the settings leave those out.
fn layout_of(samples: &[&Sample], rewards: &[Option<f64>], settings: &RlSettings) -> Layout {
    let lengths: Vec<usize> = samples.iter().map(|sample| sample.ids.len()).collect();
    let mut layout = Layout::full(&lengths);
    for (row, sample) in samples.iter().enumerate() {
        let of_group =
            || samples.iter().zip(rewards).filter(|(other, reward)| other.group == sample.group && reward.is_some());
        let alone = settings.advantage.is_relative() && of_group().count() < 2;
        let no_baseline = settings.advantage == AdvantageKind::Baseline && sample.baseline.is_none();
        let cut = settings.mask_truncated && !sample.finished;
        if rewards[row].is_none() || alone || no_baseline || cut {
            layout.drop_row(row);
        }
    }
    layout
}

/// Samples of groups that teach, for dynamic sampling.
pub(crate) fn of_teaching_groups(samples: Vec<Sample>, settings: &RlSettings) -> Vec<Sample> {
    let rewards = shaped(&samples.iter().collect::<Vec<_>>(), settings);
    let groups: Vec<usize> = samples.iter().map(|sample| sample.group).collect();
    let kept = teaching_groups(&rewards, &groups, 2);
    samples.into_iter().filter(|sample| kept.contains(&sample.group)).collect()
}

/// Puts a batch together.
pub(crate) fn prepare<'a>(
    model: &Qwen3,
    reference: Option<&Qwen3>,
    critic: Option<&Critic>,
    samples: Vec<&'a Sample>,
    settings: &RlSettings,
) -> Result<Preparation<'a>> {
    let mut rewards = shaped(&samples, settings);
    let layout = layout_of(&samples, &rewards, settings);
    let behaviour: Vec<f64> = samples.iter().flat_map(|s| s.log_probs.iter().map(|x| f64::from(*x))).collect();
    let against = reference.map(|reference| evaluate(reference, None, &samples, settings)).transpose()?;
    let against = against.map(|(log_probs, _)| log_probs);
    let (proximal, values) = if settings.correction.is_some() || critic.is_some() {
        evaluate(model, critic, &samples, settings)?
    } else {
        (Vec::new(), Vec::new())
    };
    let (weights, figures) = match &settings.correction {
        Some(correction) => {
            let (weights, figures) = correction.weights(&proximal, &behaviour, &layout);
            (Some(weights), Some(figures))
        }
        None => (None, None),
    };
    let kl_reference = against
        .as_ref()
        .map(|reference| layout.mean_of(|place| KlEstimator::K3.token(behaviour[place], reference[place]).0));
    let penalty = match (settings.kl.filter(|kl| kl.in_reward), &against) {
        (Some(kl), Some(reference)) => {
            Some((0..layout.len()).map(|p| kl.weight * (behaviour[p] - reference[p])).collect::<Vec<f64>>())
        }
        _ => None,
    };
    if let Some(penalty) = penalty.as_ref().filter(|_| settings.advantage != AdvantageKind::Generalised) {
        for (row, reward) in rewards.iter_mut().enumerate() {
            let sum: f64 = layout.counted(row).map(|place| penalty[place]).sum();
            *reward = reward.map(|reward| reward - sum);
        }
    }
    let (advantages, returns) = advantages(&samples, &rewards, &layout, penalty.as_deref(), &values, settings);
    let explained = returns.as_ref().map(|returns| {
        let pick = |list: &[f64]| (0..layout.len()).filter(|p| layout.mask()[*p]).map(|p| list[p]).collect::<Vec<_>>();
        explained_variance(&pick(&values), &pick(returns))
    });
    let live = layout.live_rows();
    let old = if settings.correction.is_some() { proximal } else { behaviour };
    let values = returns.map(|returns| (values, returns));
    let batch = Prepared { samples, layout, old, advantages, weights, reference: against, values };
    Ok(Preparation { batch, kl_reference, explained_variance: explained, weights: figures, live })
}

/// Advantages by token, and returns where a critic learns.
fn advantages(
    samples: &[&Sample],
    rewards: &[Option<f64>],
    layout: &Layout,
    penalty: Option<&[f64]>,
    values: &[f64],
    settings: &RlSettings,
) -> (Vec<f64>, Option<Vec<f64>>) {
    let groups: Vec<usize> = samples.iter().map(|sample| sample.group).collect();
    // who takes no part in the loss takes none in a mean
    let rewards: Vec<Option<f64>> =
        rewards.iter().enumerate().map(|(row, reward)| reward.filter(|_| layout.count(row) > 0)).collect();
    let by_row = match settings.advantage {
        AdvantageKind::Group(scale) => group_relative(&rewards, &groups, scale),
        AdvantageKind::LeaveOneOut => leave_one_out(&rewards, &groups),
        AdvantageKind::LengthWeighted => {
            let lengths: Vec<usize> = samples.iter().map(|sample| sample.ids.len()).collect();
            length_weighted(&rewards, &groups, &lengths)
        }
        AdvantageKind::Whitened => return (reinforce_plus_plus_baseline(&rewards, &groups, layout), None),
        AdvantageKind::Baseline => {
            let baselines: Vec<Option<f64>> = samples.iter().map(|sample| sample.baseline).collect();
            against_baseline(&rewards, &baselines)
        }
        AdvantageKind::Bandit => {
            // the value before the first token is that of the question
            let firsts: Vec<f64> =
                (0..layout.rows()).map(|row| values.get(layout.range(row).start).copied().unwrap_or(0.0)).collect();
            let known: Vec<f64> = rewards.iter().map(|reward| reward.unwrap_or(0.0)).collect();
            return (layout.spread(&bandit(&rewards, &firsts)), Some(layout.spread(&known)));
        }
        AdvantageKind::Generalised => {
            let (gamma, lambda) = settings.critic.map_or((1.0, 1.0), |critic| (critic.gamma, critic.lambda));
            let mut by_token = vec![0.0; layout.len()];
            for (row, reward) in rewards.iter().enumerate() {
                if let (Some(last), Some(reward)) = (layout.counted(row).last(), reward) {
                    by_token[last] = *reward;
                }
            }
            if let Some(penalty) = penalty {
                by_token.iter_mut().zip(penalty).for_each(|(reward, penalty)| *reward -= penalty);
            }
            let (advantages, returns) = generalised(&by_token, values, layout, gamma, lambda);
            return (whiten(&advantages, layout), Some(returns));
        }
    };
    (layout.spread(&by_row), None)
}
