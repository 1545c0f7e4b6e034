use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The numbers of the plan's shaping by step. An option, off by default where rewards are made: it depends on the
/// order of samples, and does nothing once rewards are normalised in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapingRules {
    /// Before this step rewards are multiplied by `early_factor`.
    pub early_steps: u64,
    /// The factor of the first steps.
    pub early_factor: f64,
    /// Before this step, and after the early ones, rewards stay as they are.
    pub plain_steps: u64,
    /// The factor of a later reward that stands out.
    pub late_factor: f64,
    /// A reward stands out when it is this much above the mean of the last `window`.
    pub margin: f64,
    /// Rewards in that mean, the present one included.
    pub window: usize,
}

impl Default for ShapingRules {
    fn default() -> Self {
        Self { early_steps: 1000, early_factor: 1.5, plain_steps: 5000, late_factor: 1.3, margin: 0.2, window: 100 }
    }
}

/// The state of the shaping: how many rewards there were, and the last ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shaping {
    rules: ShapingRules,
    step: u64,
    recent: VecDeque<f64>,
}

impl Shaping {
    /// A shaping that has seen nothing yet.
    #[must_use]
    pub fn new(rules: ShapingRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The shaped form of the next reward, -1 to 1. The step is counted, and the reward remembered, before the test.
    pub fn shape(&mut self, reward: f64) -> f64 {
        self.step += 1;
        self.recent.push_back(reward);
        while self.recent.len() > self.rules.window.max(1) {
            self.recent.pop_front();
        }
        let mean = self.recent.iter().sum::<f64>() / self.recent.len() as f64;
        let factor = if self.step < self.rules.early_steps {
            self.rules.early_factor
        } else if self.step >= self.rules.plain_steps && reward > mean + self.rules.margin {
            self.rules.late_factor
        } else {
            1.0
        };
        (reward * factor).clamp(-1.0, 1.0)
    }
}
