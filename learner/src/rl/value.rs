//! The critic's loss and how good it is.
use super::advantages::mean;
use super::tokens::Layout;

/// Value losses by token, not yet weighted.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueLosses {
    /// `max((v - R)^2, (clip(v, v_old ± range) - R)^2) / 2`.
    pub loss: Vec<f64>,
    /// Its derivative with respect to the new value.
    pub slope: Vec<f64>,
    /// Share of tokens where the clipped term was the larger.
    pub clip_fraction: f64,
}

/// The clipped value loss of PPO; an infinite range does not clip.
#[must_use]
pub fn value_loss(values: &[f64], old: &[f64], returns: &[f64], layout: &Layout, range: f64) -> ValueLosses {
    let mut out = ValueLosses { loss: vec![0.0; layout.len()], slope: vec![0.0; layout.len()], clip_fraction: 0.0 };
    let mut clipped = vec![0.0; layout.len()];
    for place in (0..layout.len()).filter(|place| layout.mask()[*place]) {
        let (value, wanted) = (values[place], returns[place]);
        let held = value.clamp(old[place] - range, old[place] + range);
        let (plain, bounded) = ((value - wanted).powi(2), (held - wanted).powi(2));
        clipped[place] = f64::from(u8::from(bounded > plain));
        out.loss[place] = 0.5 * plain.max(bounded);
        // where the clipped term is the larger, the value stands still
        out.slope[place] = if bounded > plain { 0.0 } else { value - wanted };
    }
    out.clip_fraction = layout.mean(&clipped);
    out
}

/// `1 - var(R - v) / var(R)`: 1 is a perfect critic, 0 one that says the mean, below 0 worse than that. 0 where the
/// returns do not vary.
#[must_use]
pub fn explained_variance(values: &[f64], returns: &[f64]) -> f64 {
    let variance = |numbers: &[f64]| {
        let center = mean(numbers);
        mean(&numbers.iter().map(|x| (x - center).powi(2)).collect::<Vec<f64>>())
    };
    let whole = variance(returns);
    let rest: Vec<f64> = returns.iter().zip(values).map(|(wanted, value)| wanted - value).collect();
    if whole > 1e-12 { 1.0 - variance(&rest) / whole } else { 0.0 }
}
