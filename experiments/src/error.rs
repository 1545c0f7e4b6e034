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
    /// A value lies outside the bounds that the statistic relies on.
    #[error("{value} is outside {lower}..{upper}: give the bounds that the metric really has")]
    OutOfBounds {
        /// The value.
        value: f64,
        /// Lower bound.
        lower: f64,
        /// Upper bound.
        upper: f64,
    },
    /// The bounds of a metric are no range.
    #[error("bounds {lower}..{upper} are no range: give two finite numbers, the lower one first")]
    Bounds {
        /// Lower bound.
        lower: f64,
        /// Upper bound.
        upper: f64,
    },
    /// A setting that must be above 0 is not.
    #[error("{name} is {value}: give a finite number above 0")]
    NotPositive {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A share is not between 0 and 1.
    #[error("{name} is {value}: give a share from 0 to 1")]
    Share {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// A count that must be at least 1 is 0.
    #[error("{0} is 0: give at least 1")]
    Zero(&'static str),
    /// There are values, but fewer than the statistic needs.
    #[error("{given} values are too few: this needs at least {needed}")]
    TooFew {
        /// Values needed.
        needed: usize,
        /// Values given.
        given: usize,
    },
    /// The share of one arm is negative, not finite, or all shares are 0.
    #[error("weight {index} is {value}: weights are finite, not negative, and not all 0")]
    Weight {
        /// Position of the weight.
        index: usize,
        /// The weight.
        value: f64,
    },
    /// No distribution has this mean and spread within its bounds.
    #[error("mean {mean} with standard deviation {sd} does not fit into {lower}..{upper} with these ties")]
    Spread {
        /// The mean asked for.
        mean: f64,
        /// The standard deviation asked for.
        sd: f64,
        /// Lower bound.
        lower: f64,
        /// Upper bound.
        upper: f64,
    },
}

/// Refuses a value that is not finite, with its place in a stream.
pub(crate) fn check_value(value: f64, index: u64) -> Result<(), StatsError> {
    if value.is_finite() {
        Ok(())
    } else {
        Err(StatsError::NotFinite { index: usize::try_from(index).unwrap_or(usize::MAX) })
    }
}

/// Refuses bounds that are not finite or not in order.
pub(crate) fn check_bounds(lower: f64, upper: f64) -> Result<(), StatsError> {
    if lower.is_finite() && upper.is_finite() && lower < upper {
        Ok(())
    } else {
        Err(StatsError::Bounds { lower, upper })
    }
}

/// Refuses bounds that are no range and a value that is not strictly between them.
pub(crate) fn check_inside(value: f64, lower: f64, upper: f64) -> Result<(), StatsError> {
    check_bounds(lower, upper)?;
    if lower < value && value < upper { Ok(()) } else { Err(StatsError::OutOfBounds { value, lower, upper }) }
}

/// Refuses a setting that is not finite and above 0.
pub(crate) fn check_positive(name: &'static str, value: f64) -> Result<(), StatsError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(StatsError::NotPositive { name, value }) }
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

/// Refuses a share outside 0 to 1.
pub(crate) fn check_share(name: &'static str, value: f64) -> Result<(), StatsError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(StatsError::Share { name, value }) }
}
