//! Inner loops over `f32` rows, written so that the compiler turns them into vector instructions.

const LANES: usize = 16;

/// `e^x` to about one unit in the last place times two, without a call and without a branch.
///
/// Splits `x = n ln 2 + r` with `|r| <= ln 2 / 2` and evaluates the Taylor series of `e^r` to degree 6.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // beyond these the result is zero or above the largest number; NaN passes both tests and stays NaN
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let series = 1.0 / 720.0;
    let series = series * r + 1.0 / 120.0;
    let series = series * r + 1.0 / 24.0;
    let series = series * r + 1.0 / 6.0;
    let series = series * r + 0.5;
    let series = series * r + 1.0;
    let series = series * r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    series * scale
}

/// Sum of `f(a, b)` over two rows of one length, in independent partial sums.
#[inline(always)]
pub(crate) fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut partial = [0f32; LANES];
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            partial[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| f(*a, *b)).sum();
    partial.iter().sum::<f32>() + rest
}

/// Scalar product of two rows.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_pairs(a, b, |a, b| a * b)
}

/// Largest value of a row; negative infinity of an empty one.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut partial = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            partial[lane] = if block[lane] > partial[lane] { block[lane] } else { partial[lane] };
        }
    }
    let pick = |most: f32, x: &f32| if *x > most { *x } else { most };
    rest.iter().fold(partial.iter().fold(f32::NEG_INFINITY, pick), pick)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library() {
        for step in -8600..8800 {
            let x = step as f32 * 0.01;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn sums_cover_the_rest_of_a_row() {
        let row: Vec<f32> = (0..37).map(|x| x as f32).collect();
        assert_eq!(dot(&row, &[1.0; 37]), 666.0);
        assert_eq!(max(&row), 36.0);
    }
}
