//! The standard normal distribution, to double precision.

use std::f64::consts::{PI, SQRT_2};

/// P(Z <= x).
pub(crate) fn normal_cdf(x: f64) -> f64 {
    if x < 0.0 { 0.5 * upper_erf(-x / SQRT_2) } else { 1.0 - 0.5 * upper_erf(x / SQRT_2) }
}

/// The x with P(Z <= x) = p; infinite at 0 and 1.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    if p <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if p >= 1.0 {
        return f64::INFINITY;
    }
    // From the upper half the CDF cannot tell small tails apart, so the search runs in the lower one.
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    // Bisection needs no starting value and no table; it is called a handful of times an interval.
    let (mut low, mut high) = (-40.0_f64, 0.0_f64);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// erfc(x) for x >= 0: the power series of erf where it converges fast, else the continued fraction of the tail
/// (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn upper_erf(x: f64) -> f64 {
    if x < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term > sum * 1e-17 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        return 1.0 - 2.0 / PI.sqrt() * (-x * x).exp() * sum;
    }
    let mut fraction = x;
    for k in (1..=120).rev() {
        fraction = x + 0.5 * f64::from(k) / fraction;
    }
    (-x * x).exp() / (PI.sqrt() * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points() {
        for (x, p) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (-1.959_963_984_540_054, 0.025),
            (3.0, 0.998_650_101_968_369_9),
            (-5.0, 2.866_515_718_791_946e-7),
        ] {
            assert!((normal_cdf(x) - p).abs() < 1e-13, "cdf({x}) = {}", normal_cdf(x));
            assert!((normal_quantile(p) - x).abs() < 1e-8, "quantile({p}) = {}", normal_quantile(p));
        }
    }

    #[test]
    fn the_two_branches_meet() {
        let gap = upper_erf(2.5) - upper_erf(2.5 - 1e-12);
        assert!(gap.abs() < 1e-13, "{gap}");
    }
}
