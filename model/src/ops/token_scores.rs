use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::lane::{exp, max, sum_pairs};
use super::{Kernels, Numbers, contiguous, tensor};

/// What losses need to know of each predicted token; each a tensor `[n]` of nats, with gradient.
#[derive(Debug, Clone)]
pub struct TokenScores {
    /// Log-probability of the target token.
    pub log_prob: Tensor,
    /// Entropy of the predicted distribution.
    pub entropy: Tensor,
    /// Mean log-probability over the vocabulary (label smoothing).
    pub mean_log_prob: Tensor,
}

/// Scores of `targets [n]` under `softmax(logits / temperature)`, `logits [n, vocabulary]`.
///
/// # Errors
/// Where a target lies outside the vocabulary, the counts differ, or the temperature is not above zero.
pub fn token_scores(kernels: Kernels, logits: &Tensor, targets: &[u32], temperature: f64) -> Result<TokenScores> {
    let (n, vocabulary) = logits.dims2()?;
    if targets.len() != n {
        candle_core::bail!("{} targets for {n} rows of logits", targets.len());
    }
    if let Some(target) = targets.iter().find(|target| **target as usize >= vocabulary) {
        candle_core::bail!("target {target} lies outside the vocabulary of {vocabulary}");
    }
    if temperature.is_nan() || temperature <= 0.0 {
        candle_core::bail!("temperature {temperature} must be above 0");
    }
    match kernels {
        Kernels::Fused => {
            let op = Scores { targets: targets.to_vec(), inverse_temperature: (1.0 / temperature) as f32 };
            let scores = logits.apply_op1(op)?;
            let column = |i| scores.narrow(0, i, 1)?.squeeze(0);
            Ok(TokenScores { log_prob: column(0)?, entropy: column(1)?, mean_log_prob: column(2)? })
        }
        Kernels::Composed => {
            let all = candle_nn::ops::log_softmax(&(logits / temperature)?, D::Minus1)?;
            let targets = Tensor::from_slice(targets, (n, 1), logits.device())?;
            let log_prob = all.gather(&targets, 1)?.squeeze(1)?;
            let entropy = (all.exp()? * &all)?.sum(D::Minus1)?.neg()?;
            Ok(TokenScores { log_prob, entropy, mean_log_prob: all.mean(D::Minus1)? })
        }
    }
}

/// One pass over the logits; output `[3, n]`.
struct Scores {
    targets: Vec<u32>,
    inverse_temperature: f32,
}

/// Writes `e^(z - max)` of a row into `exps`; returns the log of the partition sum and that sum relative to the maximum.
fn partition(row: &[f32], inverse_temperature: f32, exps: &mut [f32]) -> (f32, f32) {
    let most = max(row) * inverse_temperature;
    for (out, logit) in exps.iter_mut().zip(row) {
        *out = exp(logit * inverse_temperature - most);
    }
    let sum = sum_pairs(exps, exps, |e, _| e);
    (most + sum.ln(), sum)
}

impl CustomOp1 for Scores {
    fn name(&self) -> &'static str {
        "token-scores"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, vocabulary) = layout.shape().dims2()?;
        let logits = contiguous(logits, layout, "token-scores")?;
        let scale = self.inverse_temperature;
        let mut exps = vec![0f32; vocabulary];
        let mut out = vec![0f32; 3 * n];
        for (i, (row, target)) in logits.chunks_exact(vocabulary).zip(&self.targets).enumerate() {
            let (log_sum, sum) = partition(row, scale, &mut exps);
            let expected = sum_pairs(&exps, row, |e, logit| e * logit) * scale / sum;
            let mean = sum_pairs(row, row, |logit, _| logit) * scale / vocabulary as f32;
            out[i] = row[*target as usize] * scale - log_sum;
            out[n + i] = log_sum - expected;
            out[2 * n + i] = mean - log_sum;
        }
        Ok((CpuStorage::F32(out), Shape::from((3, n))))
    }

    /// With `p` the probabilities: `d log_prob = onehot - p`, `d entropy = -p (log p + entropy)`, `d mean = 1/V - p`.
    fn bwd(&self, logits: &Tensor, scores: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (n, vocabulary) = logits.dims2()?;
        let (scores, grad) = (scores.contiguous()?, grad.contiguous()?);
        let (logits_read, scores_read, grad_read) = (Numbers::of(logits), Numbers::of(&scores), Numbers::of(&grad));
        let (numbers, scores, grads) = (logits_read.get()?, scores_read.get()?, grad_read.get()?);
        let scale = self.inverse_temperature;
        let mut out = vec![0f32; numbers.len()];
        for (i, (row, out)) in numbers.chunks_exact(vocabulary).zip(out.chunks_exact_mut(vocabulary)).enumerate() {
            let (to_log_prob, to_entropy, to_mean) = (grads[i], grads[n + i], grads[2 * n + i]);
            if to_log_prob == 0.0 && to_entropy == 0.0 && to_mean == 0.0 {
                continue;
            }
            let (log_sum, sum) = partition(row, scale, out);
            let inverse = 1.0 / sum;
            let entropy = scores[n + i];
            let shared = to_log_prob + to_mean;
            let even = to_mean / vocabulary as f32;
            for (out, logit) in out.iter_mut().zip(row) {
                let p = *out * inverse;
                let log_p = logit * scale - log_sum;
                *out = scale * (even - p * (shared + to_entropy * (log_p + entropy)));
            }
            out[self.targets[i] as usize] += scale * to_log_prob;
        }
        tensor(out, logits).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{noise, same};
    use super::*;

    fn stacked(kernels: Kernels, logits: &Tensor) -> Result<Tensor> {
        let scores = token_scores(kernels, logits, &[3, 0, 36], 0.7)?;
        Tensor::stack(&[scores.log_prob, scores.entropy, scores.mean_log_prob], 0)
    }

    #[test]
    fn fused_agrees_with_composed() {
        let logits = noise(&[3, 37], 1);
        same(
            std::slice::from_ref(&logits),
            || stacked(Kernels::Fused, &logits),
            || stacked(Kernels::Composed, &logits),
        );
    }

    #[test]
    fn bad_arguments_are_errors() {
        let logits = noise(&[3, 37], 1);
        for (targets, temperature) in [(vec![0, 1], 1.0), (vec![0, 1, 37], 1.0), (vec![0, 1, 2], 0.0)] {
            assert!(token_scores(Kernels::Fused, &logits, &targets, temperature).is_err());
        }
    }
}
