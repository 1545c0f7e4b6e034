//! What people said about an arm, added up for a report.

use recast_domain::{FeedbackSignal, Preferred};
use recast_experiments::report::ArmFeedback;

/// What was said about an arm, while it is being added up.
pub(super) struct Heard {
    counts: ArmFeedback,
    score_sum: f64,
}

impl Heard {
    /// Nothing yet about this arm.
    pub fn of(arm: String) -> Self {
        Self { counts: ArmFeedback { arm, ..ArmFeedback::default() }, score_sum: 0.0 }
    }

    /// Adds one event.
    pub fn hear(&mut self, signal: &FeedbackSignal) {
        let counts = &mut self.counts;
        match signal {
            FeedbackSignal::Thumbs { up: true } => counts.up += 1,
            FeedbackSignal::Thumbs { up: false } => counts.down += 1,
            FeedbackSignal::Click { .. } => counts.clicks += 1,
            FeedbackSignal::Comment { .. } => counts.comments += 1,
            FeedbackSignal::Score { value } => {
                counts.scores += 1;
                self.score_sum += value;
            }
            FeedbackSignal::Preference { preferred, .. } => match preferred {
                Preferred::This => counts.preferred += 1,
                Preferred::Other => counts.not_preferred += 1,
                Preferred::Neither => {}
            },
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    /// The sums.
    pub fn arm(mut self) -> ArmFeedback {
        if self.counts.scores > 0 {
            self.counts.mean_score = self.score_sum / self.counts.scores as f64;
        }
        self.counts
    }
}
