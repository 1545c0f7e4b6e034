/// Why a statistic cannot be computed from its input.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// There is nothing to compute from.
    #[error("the sample is empty: give at least one value")]
    Empty,
    /// The two sides of a paired comparison are not the same questions.
    #[error("paired samples differ in length ({left} and {right}): pair them by question first")]
    Lengths {
        /// Values on the left.
        left: usize,
        /// Values on the right.
        right: usize,
    },
    /// A value is NaN or infinite.
    #[error("value {index} is not finite: drop missing values, in both samples, before comparing")]
    NotFinite {
        /// Position of the first such value.
        index: usize,
    },
    /// The confidence level is no probability.
    #[error("level {0} is out of range: give a number between 0 and 1, such as 0.95")]
    Level(f64),
    /// No resamples were asked for.
    #[error("resamples is 0: give at least 1, 10000 for a figure to publish")]
    Resamples,
    /// More successes than trials, or no trials.
    #[error("{successes} successes of {trials} trials is no rate: trials must be at least 1 and at least successes")]
    Rate {
        /// Successes counted.
        successes: u64,
        /// Trials counted.
        trials: u64,
    },
}

/// Refuses an empty sample and one with a value that is not finite.
pub(crate) fn check_sample(values: &[f64]) -> Result<(), StatsError> {
    if values.is_empty() {
        return Err(StatsError::Empty);
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(StatsError::NotFinite { index }),
        None => Ok(()),
    }
}

/// `left - right`, value by value.
pub(crate) fn paired_differences(left: &[f64], right: &[f64]) -> Result<Vec<f64>, StatsError> {
    if left.len() != right.len() {
        return Err(StatsError::Lengths { left: left.len(), right: right.len() });
    }
    Ok(left.iter().zip(right).map(|(l, r)| l - r).collect())
}

/// Refuses a confidence level outside (0, 1).
pub(crate) fn check_level(level: f64) -> Result<(), StatsError> {
    if level > 0.0 && level < 1.0 { Ok(()) } else { Err(StatsError::Level(level)) }
}
