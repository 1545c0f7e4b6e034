//! What a run that goes wrong looks like, and what is done about it.
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::metrics::StepMetrics;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// This batch changes nothing; the run goes on.
    Skip,
    /// The run waits for its surroundings, such as a judge that does not answer, and goes on later.
    Pause,
    /// The run ends; the last good policy stays.
    Halt,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What is done.
    pub action: Action,
    /// Short name, for counters.
    pub name: String,
    /// Why, in words with numbers.
    pub reason: String,
}

/// Limits of the monitors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MonitorSettings {
    /// Share of unscored completions beyond which the run pauses.
    pub most_unscored: f64,
    /// Share of stale completions beyond which a batch is skipped.
    pub most_stale: f64,
    /// Distance to the reference in nats a token beyond which the run ends.
    pub most_kl_reference: f64,
    /// Mean `old - new` in nats a token beyond which it ends.
    pub most_approx_kl: f64,
    /// Share of the entropy at the start below which it ends.
    pub least_entropy_share: f64,
    /// Multiple of the entropy at the start beyond which it ends.
    pub most_entropy_share: f64,
    /// Entropy in nats a token that is never too much.
    pub harmless_entropy: f64,
    /// Shares of invalid, copied and repeated completions beyond which it ends.
    pub most_invalid: f64,
    /// As `most_invalid`, of copies of the query.
    pub most_copied: f64,
    /// As `most_invalid`, of repetitions within a group.
    pub most_duplicate: f64,
    /// Largest `|ratio - 1|` of tokens that the present policy drew; beyond it the trainer does not compute what the
    /// sampler drew from.
    pub most_on_policy_deviation: f64,
    /// Skipped batches in a row after which the run ends.
    pub most_skips: u32,
    /// Steps over which a judge's rise is held against retrieval's fall.
    pub window: usize,
    /// Rise of the part `judge` over the window that, while `retrieval` falls, ends the run.
    pub hacking_rise: f64,
    /// Multiple of the median gradient norm beyond which an update is not made.
    pub most_grad_norm: f64,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self {
            most_unscored: 0.2,
            most_stale: 0.5,
            most_kl_reference: 0.5,
            most_approx_kl: 0.1,
            least_entropy_share: 0.1,
            most_entropy_share: 3.0,
            harmless_entropy: 1.0,
            most_invalid: 0.5,
            most_copied: 0.95,
            most_duplicate: 0.95,
            most_on_policy_deviation: 1e-3,
            most_skips: 5,
            window: 20,
            hacking_rise: 0.1,
            most_grad_norm: 10.0,
        }
    }
}

/// Gradient norms whose median a new one is held against, and how many it takes to begin with.
const NORMS: usize = 50;
const NORMS_TO_BEGIN: usize = 10;
/// Fall of the part `retrieval` that counts beside a judge's rise.
const HACKING_FALL: f64 = 0.02;

/// Looks at each step; its memory goes into checkpoints.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Monitors {
    first_entropy: Option<f64>,
    skips: u32,
    norms: VecDeque<f64>,
    /// Means of judge and retrieval by step.
    parts: VecDeque<(f64, f64)>,
}

fn alarm(action: Action, name: &str, reason: String) -> Option<Alarm> {
    Some(Alarm { action, name: name.to_owned(), reason })
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

impl Monitors {
    /// Largest gradient norm that an update may have; infinity until some are known.
    #[must_use]
    pub fn most_grad_norm(&self, settings: &MonitorSettings) -> f64 {
        if self.norms.len() < NORMS_TO_BEGIN {
            return f64::INFINITY;
        }
        let mut sorted: Vec<f64> = self.norms.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        settings.most_grad_norm * sorted[sorted.len() / 2]
    }

    /// Looks at a batch before it is learned from.
    pub fn before(&mut self, metrics: &StepMetrics, settings: &MonitorSettings) -> Option<Alarm> {
        let m = metrics;
        if m.unscored_share > settings.most_unscored {
            let reason = format!(
                "{} of the rewrites could not be scored, at most {} may; nothing is learned until the judge answers",
                percent(m.unscored_share),
                percent(settings.most_unscored)
            );
            return alarm(Action::Pause, "unscored", reason);
        }
        if m.stale_share > settings.most_stale {
            let reason = format!(
                "{} of the samples are of too old a policy; sampling is slower than learning",
                percent(m.stale_share)
            );
            return self.skip("stale", reason, settings);
        }
        if !m.reward_mean.is_finite() {
            return self.skip("reward", "a reward is not finite".to_owned(), settings);
        }
        if m.zero_variance_share >= 1.0 {
            let reason = "the rewards of every group are equal, so there is nothing to learn".to_owned();
            return self.skip("equal_rewards", reason, settings);
        }
        None
    }

    /// Looks at what an update did.
    pub fn after(&mut self, metrics: &StepMetrics, settings: &MonitorSettings) -> Option<Alarm> {
        let m = metrics;
        if !(m.loss.is_finite() && m.grad_norm.is_finite() && m.entropy.is_finite()) {
            let reason =
                format!("loss {}, gradient norm {} or entropy {} is no number", m.loss, m.grad_norm, m.entropy);
            return self.skip("not_finite", reason, settings);
        }
        // a deviation that is no number must not pass
        if m.on_policy_deviation.is_nan() || m.on_policy_deviation > settings.most_on_policy_deviation {
            let reason = format!(
                "the trainer gives tokens that it drew itself other probabilities, up to {:.2e} apart, at most {:.0e} may be",
                m.on_policy_deviation, settings.most_on_policy_deviation
            );
            return self.skip("on_policy", reason, settings);
        }
        let most_norm = self.most_grad_norm(settings);
        self.norms.push_back(m.grad_norm);
        if self.norms.len() > NORMS {
            self.norms.pop_front();
        }
        if m.grad_norm > most_norm {
            let reason = format!("the gradient's norm {:.3} is above {most_norm:.3}", m.grad_norm);
            return self.skip("gradient", reason, settings);
        }
        self.skips = 0;
        self.distance(m, settings).or_else(|| self.collapse(m, settings)).or_else(|| self.hacking(m, settings))
    }

    fn distance(&self, m: &StepMetrics, settings: &MonitorSettings) -> Option<Alarm> {
        if let Some(kl) = m.kl_reference.filter(|kl| kl.is_nan() || *kl > settings.most_kl_reference) {
            let reason = format!(
                "the policy is {kl:.3} nats a token from its reference, at most {} are allowed",
                settings.most_kl_reference
            );
            return alarm(Action::Halt, "kl_reference", reason);
        }
        if m.approx_kl.abs() > settings.most_approx_kl {
            let reason = format!(
                "one update moved the policy by {:.3} nats a token, at most {} are allowed; lower the learning rate",
                m.approx_kl, settings.most_approx_kl
            );
            return alarm(Action::Halt, "approx_kl", reason);
        }
        None
    }

    fn collapse(&mut self, m: &StepMetrics, settings: &MonitorSettings) -> Option<Alarm> {
        let first = *self.first_entropy.get_or_insert(m.entropy);
        if m.entropy < settings.least_entropy_share * first {
            let reason = format!("the entropy fell from {first:.3} to {:.3} nats a token", m.entropy);
            return alarm(Action::Halt, "entropy_collapse", reason);
        }
        // a policy that was very sure at the start may well get three times as unsure
        if m.entropy > (settings.most_entropy_share * first).max(settings.harmless_entropy) {
            let reason = format!("the entropy rose from {first:.3} to {:.3} nats a token", m.entropy);
            return alarm(Action::Halt, "entropy_explosion", reason);
        }
        let shares = [
            ("invalid", m.invalid_share, settings.most_invalid, "cannot be searched for"),
            ("copied", m.copied_share, settings.most_copied, "repeat the user's query"),
            ("duplicate", m.duplicate_share, settings.most_duplicate, "repeat another of their group"),
        ];
        let (name, share, _, what) = shares.into_iter().find(|(_, share, most, _)| share > most)?;
        alarm(Action::Halt, name, format!("{} of the rewrites {what}", percent(share)))
    }

    fn hacking(&mut self, m: &StepMetrics, settings: &MonitorSettings) -> Option<Alarm> {
        let (judge, retrieval) = (m.parts.get("judge")?, m.parts.get("retrieval")?);
        self.parts.push_back((*judge, *retrieval));
        while self.parts.len() > settings.window.max(2) {
            self.parts.pop_front();
        }
        if self.parts.len() < settings.window {
            return None;
        }
        // halves of the window, since single steps are noise
        let half = self.parts.len() / 2;
        let mean = |from: usize, to: usize| {
            let part = self.parts.range(from..to);
            let count = (to - from).max(1) as f64;
            part.fold((0.0, 0.0), |(j, r), (judge, retrieval)| (j + judge / count, r + retrieval / count))
        };
        let (early, late) = (mean(0, half), mean(half, self.parts.len()));
        let (rise, fall) = (late.0 - early.0, early.1 - late.1);
        if rise > settings.hacking_rise && fall > HACKING_FALL {
            let reason = format!(
                "the judge's part rose by {rise:.3} while the retrieval part fell by {fall:.3}: the policy pleases the \
                 judge, not the search"
            );
            return alarm(Action::Halt, "reward_hacking", reason);
        }
        None
    }

    fn skip(&mut self, name: &str, reason: String, settings: &MonitorSettings) -> Option<Alarm> {
        self.skips += 1;
        if self.skips >= settings.most_skips {
            return alarm(Action::Halt, name, format!("{reason}; {} batches in a row were skipped", self.skips));
        }
        alarm(Action::Skip, name, reason)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn healthy() -> StepMetrics {
        StepMetrics { entropy: 2.0, grad_norm: 1.0, reward_mean: 0.3, ..StepMetrics::default() }
    }

    fn settings() -> MonitorSettings {
        MonitorSettings::default()
    }

    fn after_some_steps() -> Monitors {
        let mut monitors = Monitors::default();
        for _ in 0..30 {
            assert_eq!(monitors.before(&healthy(), &settings()), None);
            assert_eq!(monitors.after(&healthy(), &settings()), None);
        }
        monitors
    }

    #[test]
    fn each_known_failure_of_a_batch_is_seen() {
        let cases = [
            (StepMetrics { unscored_share: 0.3, ..healthy() }, "unscored", Action::Pause),
            (StepMetrics { stale_share: 0.6, ..healthy() }, "stale", Action::Skip),
            (StepMetrics { reward_mean: f64::NAN, ..healthy() }, "reward", Action::Skip),
            (StepMetrics { zero_variance_share: 1.0, ..healthy() }, "equal_rewards", Action::Skip),
        ];
        for (metrics, name, action) in cases {
            let found = after_some_steps().before(&metrics, &settings()).unwrap();
            assert_eq!((found.name.as_str(), found.action), (name, action));
            assert!(!found.reason.is_empty());
        }
    }

    #[test]
    fn each_known_failure_of_an_update_is_seen() {
        let cases = [
            (StepMetrics { loss: f64::NAN, ..healthy() }, "not_finite", Action::Skip),
            (StepMetrics { grad_norm: f64::INFINITY, ..healthy() }, "not_finite", Action::Skip),
            (StepMetrics { on_policy_deviation: 0.5, ..healthy() }, "on_policy", Action::Skip),
            (StepMetrics { on_policy_deviation: f64::NAN, ..healthy() }, "on_policy", Action::Skip),
            (StepMetrics { grad_norm: 11.0, ..healthy() }, "gradient", Action::Skip),
            (StepMetrics { kl_reference: Some(0.6), ..healthy() }, "kl_reference", Action::Halt),
            (StepMetrics { approx_kl: 0.2, ..healthy() }, "approx_kl", Action::Halt),
            (StepMetrics { approx_kl: -0.2, ..healthy() }, "approx_kl", Action::Halt),
            (StepMetrics { entropy: 0.1, ..healthy() }, "entropy_collapse", Action::Halt),
            (StepMetrics { entropy: 7.0, ..healthy() }, "entropy_explosion", Action::Halt),
            (StepMetrics { invalid_share: 0.6, ..healthy() }, "invalid", Action::Halt),
            (StepMetrics { copied_share: 0.96, ..healthy() }, "copied", Action::Halt),
            (StepMetrics { duplicate_share: 0.96, ..healthy() }, "duplicate", Action::Halt),
        ];
        for (metrics, name, action) in cases {
            let found = after_some_steps().after(&metrics, &settings()).unwrap();
            assert_eq!((found.name.as_str(), found.action), (name, action));
        }
    }

    #[test]
    fn a_sure_policy_may_become_less_sure() {
        let mut monitors = Monitors::default();
        assert_eq!(monitors.after(&StepMetrics { entropy: 0.17, ..healthy() }, &settings()), None);
        assert_eq!(monitors.after(&StepMetrics { entropy: 0.9, ..healthy() }, &settings()), None);
        let found = monitors.after(&StepMetrics { entropy: 1.1, ..healthy() }, &settings()).unwrap();
        assert_eq!(found.name, "entropy_explosion");
    }

    #[test]
    fn skipping_again_and_again_ends_the_run() {
        let mut monitors = after_some_steps();
        let mute = StepMetrics { zero_variance_share: 1.0, ..healthy() };
        let actions: Vec<Action> = (0..5).map(|_| monitors.before(&mute, &settings()).unwrap().action).collect();
        assert_eq!(actions, [Action::Skip, Action::Skip, Action::Skip, Action::Skip, Action::Halt]);
        // a good batch in between starts the count anew
        monitors.after(&healthy(), &settings());
        assert_eq!(monitors.before(&mute, &settings()).unwrap().action, Action::Skip);
    }

    fn pleasing(step: usize, retrieval: f64) -> StepMetrics {
        let judge = 0.2 + 0.02 * step as f64;
        let parts = BTreeMap::from([("judge".to_owned(), judge), ("retrieval".to_owned(), retrieval)]);
        StepMetrics { parts, ..healthy() }
    }

    #[test]
    fn a_judge_that_is_pleased_while_retrieval_falls_ends_the_run() {
        let mut monitors = Monitors::default();
        let found = (0..40).find_map(|step| monitors.after(&pleasing(step, 0.6 - 0.01 * step as f64), &settings()));
        assert_eq!(found.unwrap().name, "reward_hacking");
        let mut monitors = Monitors::default();
        let both_rise = |step: usize| pleasing(step, 0.3 + 0.01 * step as f64);
        assert!((0..40).all(|step| monitors.after(&both_rise(step), &settings()).is_none()));
    }
}
