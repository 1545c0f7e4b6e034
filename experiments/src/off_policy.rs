use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check_positive, check_sample};

/// A logged action with its reward, and what both policies think of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LoggedAction {
    /// ln of the probability under the policy to be judged.
    pub log_prob: f64,
    /// ln of the probability under the policy that acted.
    pub behaviour_log_prob: f64,
    /// The reward it got.
    pub reward: f64,
    /// A model's reward for the logged action (left) and its mean over the actions of the policy to be judged (right).
    pub model: Option<(f64, f64)>,
}

/// Estimates of a policy's mean reward from another policy's log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OffPolicy {
    /// Actions used.
    pub n: usize,
    /// Inverse propensity score: mean of w r with w = p / p_behaviour. No bias, much spread.
    pub ips: f64,
    /// The same with w cut at the clip.
    pub clipped_ips: f64,
    /// Self-normalised: sum of w r over sum of w.
    pub snips: f64,
    /// Doubly robust: mean of v + w (r - q); only where every action has a model's values.
    pub doubly_robust: Option<f64>,
    /// Effective sample size (sum w)^2 / sum w^2, in actions.
    pub effective: f64,
}

impl OffPolicy {
    /// Whether the policies are close enough for the log to say anything: an effective size of 0.3 n or more.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
    pub fn usable(&self) -> bool {
        self.effective >= 0.3 * self.n as f64
    }
}

/// Judges a policy by the log of another. A screen only: logged questions can be rewritten again, which is better.
///
/// # Errors
/// There are no actions, a number is not finite, `clip` is not above 0, or every weight vanishes.
#[expect(clippy::cast_precision_loss, reason = "samples are far shorter than 2^53")]
pub fn off_policy(actions: &[LoggedAction], clip: f64) -> Result<OffPolicy, StatsError> {
    check_positive("clip", clip)?;
    let weights: Vec<f64> = actions.iter().map(|action| (action.log_prob - action.behaviour_log_prob).exp()).collect();
    check_sample(&weights)?;
    let rewards: Vec<f64> = actions.iter().map(|action| action.reward).collect();
    check_sample(&rewards)?;
    let n = actions.len() as f64;
    let total: f64 = weights.iter().sum();
    check_positive("the sum of the weights", total)?;

    let weighted = |weight: fn(f64, f64) -> f64| -> f64 {
        weights.iter().zip(&rewards).map(|(w, r)| weight(*w, clip) * r).sum::<f64>()
    };
    let ips = weighted(|w, _| w);
    let doubly_robust = actions
        .iter()
        .zip(&weights)
        .map(|(action, w)| action.model.map(|(logged, policy)| policy + w * (action.reward - logged)))
        .sum::<Option<f64>>();
    if let Some(sum) = doubly_robust {
        check_sample(&[sum])?;
    }
    Ok(OffPolicy {
        n: actions.len(),
        ips: ips / n,
        clipped_ips: weighted(f64::min) / n,
        snips: ips / total,
        doubly_robust: doubly_robust.map(|sum| sum / n),
        effective: total * total / weights.iter().map(|w| w * w).sum::<f64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(log_ratio: f64, reward: f64) -> LoggedAction {
        LoggedAction { log_prob: log_ratio - 1.0, behaviour_log_prob: -1.0, reward, model: None }
    }

    #[test]
    fn the_same_policy_is_judged_by_its_mean() {
        let result = off_policy(&[action(0.0, 0.2), action(0.0, 0.6)], 2.0).unwrap();
        for estimate in [result.ips, result.clipped_ips, result.snips] {
            assert!((estimate - 0.4).abs() < 1e-12, "{result:?}");
        }
        assert_eq!((result.effective, result.doubly_robust, result.usable()), (2.0, None, true));
    }

    #[test]
    fn one_heavy_action_makes_the_log_useless() {
        let mut actions = vec![action(0.0, 0.0); 20];
        actions.push(action(6.0, 1.0));
        let result = off_policy(&actions, 2.0).unwrap();
        assert!(!result.usable() && result.clipped_ips < 0.1 && result.ips > 1.0, "{result:?}");
    }

    #[test]
    fn refuses_what_is_no_log() {
        assert_eq!(off_policy(&[], 2.0), Err(StatsError::Empty));
        assert_eq!(off_policy(&[action(f64::NAN, 0.1)], 2.0), Err(StatsError::NotFinite { index: 0 }));
        assert_eq!(off_policy(&[action(0.0, 0.1)], 0.0), Err(StatsError::NotPositive { name: "clip", value: 0.0 }));
    }
}
