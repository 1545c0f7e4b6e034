use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{StatsError, check_sample, paired_differences};

/// What the paired sign-flip permutation test found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SignFlip {
    /// Mean of `left - right`.
    pub mean_difference: f64,
    /// Probability of a mean this far from 0, either way, if the sides were exchangeable.
    pub p_two_sided: f64,
    /// Probability of a mean this high.
    pub p_greater: f64,
    /// Whether every assignment of signs was counted (else they were drawn).
    pub exact: bool,
}

/// Paired sign-flip permutation test of `mean(left - right) = 0`.
///
/// Counts all 2^n assignments of signs where there are no more than `resamples`, else draws `resamples` of them from
/// `seed` and counts the observed one in, so that p is never 0: p = (1 + hits) / (1 + resamples).
///
/// # Errors
/// The sides are empty, differ in length or hold a value that is not finite; `resamples` is 0.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
pub fn sign_flip(left: &[f64], right: &[f64], resamples: usize, seed: u64) -> Result<SignFlip, StatsError> {
    let differences = paired_differences(left, right)?;
    check_sample(&differences)?;
    if resamples == 0 {
        return Err(StatsError::Resamples);
    }
    let observed: f64 = differences.iter().sum();
    // Sums of the same numbers in another order differ in the last bits; ties must count as ties.
    let slack = 1e-12 * differences.iter().map(|value| value.abs()).sum::<f64>();
    let mut counts = Counts { observed, slack, two_sided: 0, greater: 0 };

    let n = differences.len();
    let exact = u32::try_from(n).ok().and_then(|bits| 1_usize.checked_shl(bits)).is_some_and(|all| all <= resamples);
    let total = if exact {
        let all = 1_u64 << n;
        for mask in 0..all {
            counts.add(flipped_sum(&differences, std::iter::once(mask)));
        }
        all as f64
    } else {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        counts.add(observed);
        for _ in 0..resamples {
            counts.add(flipped_sum(&differences, std::iter::repeat_with(|| rng.next_u64())));
        }
        resamples as f64 + 1.0
    };
    Ok(SignFlip {
        mean_difference: observed / n as f64,
        p_two_sided: counts.two_sided as f64 / total,
        p_greater: counts.greater as f64 / total,
        exact,
    })
}

struct Counts {
    observed: f64,
    slack: f64,
    two_sided: u64,
    greater: u64,
}

impl Counts {
    fn add(&mut self, sum: f64) {
        self.two_sided += u64::from(sum.abs() >= self.observed.abs() - self.slack);
        self.greater += u64::from(sum >= self.observed - self.slack);
    }
}

/// The sum with the sign of value i turned where bit `i % 64` of word `i / 64` is set.
fn flipped_sum(values: &[f64], mut words: impl Iterator<Item = u64>) -> f64 {
    let mut sum = 0.0;
    for chunk in values.chunks(64) {
        let mut bits = words.next().unwrap_or(0);
        for value in chunk {
            sum += if bits & 1 == 0 { *value } else { -*value };
            bits >>= 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_signs_agree_with_counted_ones() {
        let differences = [0.2, -0.1, 0.35, 0.0, 0.5, -0.25, 0.15, 0.4, -0.05, 0.3];
        let zeros = [0.0; 10];
        let exact = sign_flip(&differences, &zeros, 1024, 0).unwrap();
        let drawn = sign_flip(&differences, &zeros, 1023, 7).unwrap();
        assert!(exact.exact && !drawn.exact);
        assert!((exact.p_two_sided - drawn.p_two_sided).abs() < 0.04, "{drawn:?}");
        assert_eq!(drawn, sign_flip(&differences, &zeros, 1023, 7).unwrap());
    }

    #[test]
    fn equal_sides_are_never_significant() {
        let values: Vec<f64> = (0..300).map(f64::from).collect();
        let result = sign_flip(&values, &values, 500, 1).unwrap();
        assert_eq!((result.mean_difference, result.p_two_sided), (0.0, 1.0));
    }

    #[test]
    fn a_clear_gain_over_many_questions_reaches_the_smallest_p() {
        let left = vec![1.0; 200];
        let right = vec![0.5; 200];
        let result = sign_flip(&left, &right, 999, 1).unwrap();
        assert_eq!(result.p_two_sided, 0.001);
    }

    #[test]
    fn refuses_sides_that_do_not_pair() {
        assert_eq!(sign_flip(&[1.0], &[], 10, 0), Err(StatsError::Lengths { left: 1, right: 0 }));
        assert_eq!(sign_flip(&[], &[], 10, 0), Err(StatsError::Empty));
        assert_eq!(sign_flip(&[f64::NAN], &[0.0], 10, 0), Err(StatsError::NotFinite { index: 0 }));
    }
}
