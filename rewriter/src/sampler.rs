//! Sampling, taken out of the engine's hands.
//!
//! The engine has no seed, reports logarithms to base 10 that ignore top-p, and names no token ids. A logits processor
//! sees every row of logits, so this one draws the token itself, keeps what it drew with its log-probability, and hands
//! the engine a row in which only that token can win. It is also where a request is cancelled: an error from here ends
//! this sequence and no other.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Error, Tensor};
use mistralrs::CustomLogitsProcessor;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_domain::Sampling;

/// Draws the tokens of one request.
pub struct SeededSampler {
    sampling: Sampling,
    prompt_tokens: usize,
    cancelled: AtomicBool,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    rng: ChaCha8Rng,
    token_ids: Vec<u32>,
    log_probs: Vec<f32>,
}

impl SeededSampler {
    /// A sampler for a prompt of `prompt_tokens` tokens.
    pub fn new(sampling: Sampling, prompt_tokens: usize) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        let drawn = Mutex::new(Drawn { rng, token_ids: Vec::new(), log_probs: Vec::new() });
        Self { sampling, prompt_tokens, cancelled: AtomicBool::new(false), drawn }
    }

    /// Ends the request at its next token.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tokens drawn so far and their natural log-probabilities.
    pub fn drawn(&self) -> (Vec<u32>, Vec<f32>) {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        (drawn.token_ids.clone(), drawn.log_probs.clone())
    }

    fn step(&self, logits: &Tensor, context: &[u32]) -> candle_core::Result<Tensor> {
        if self.is_cancelled() {
            return Err(Error::msg("the request was cancelled"));
        }
        let mut row: Vec<f32> = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?;
        let place = context.len().saturating_sub(self.prompt_tokens);
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        // the engine may ask twice for one place; the answer must not change
        let token = match drawn.token_ids.get(place) {
            Some(token) => *token,
            None => {
                let (token, log_prob) = draw(&row, &self.sampling, &mut drawn.rng)
                    .ok_or_else(|| Error::msg("the model's logits are not finite"))?;
                drawn.token_ids.push(token);
                drawn.log_probs.push(log_prob);
                token
            }
        };
        row.fill(f32::NEG_INFINITY);
        // 1 and not 0: the engine takes the logarithm of what wins
        row[token as usize] = 1.0;
        Tensor::from_vec(row, logits.shape(), logits.device())
    }
}

impl CustomLogitsProcessor for SeededSampler {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> candle_core::Result<Tensor> {
        // a panic here would end the engine and every request in it
        catch_unwind(AssertUnwindSafe(|| self.step(logits, context)))
            .unwrap_or_else(|_| Err(Error::msg("the sampler panicked")))
    }
}

/// One token of a row of logits, with the natural logarithm of its probability under the distribution it was drawn
/// from: temperature and top-p applied and renormalised. At temperature 0 the likeliest token, with its probability
/// under the plain softmax. `None` where the row is empty or holds no finite maximum.
fn draw(logits: &[f32], sampling: &Sampling, rng: &mut ChaCha8Rng) -> Option<(u32, f32)> {
    // anything colder would divide to infinity, and draws the same token
    let greedy = sampling.temperature < 1e-6;
    let inverse = if greedy { 1.0 } else { 1.0 / sampling.temperature };
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if *logit > logits[best] {
            best = token;
        }
    }
    let most = f64::from(*logits.get(best)?);
    if !most.is_finite() {
        return None;
    }
    let mass = |token: usize| ((f64::from(logits[token]) - most) * inverse).exp();
    let total: f64 = (0..logits.len()).map(mass).sum();
    if greedy {
        return Some((best as u32, (mass(best) / total).ln() as f32));
    }
    let uniform: f64 = rng.random();
    let (token, kept) = if sampling.top_p >= 1.0 {
        (walk((0..logits.len()).map(|token| (token, mass(token))), uniform * total), total)
    } else {
        // tokens this unlikely hold less than 1 - top_p together, so the nucleus is among the others
        let floor = (1.0 - sampling.top_p) * total / logits.len() as f64;
        let mut likely: Vec<(usize, f64)> = (0..logits.len()).map(|token| (token, mass(token))).collect();
        likely.retain(|(token, mass)| *mass >= floor || *token == best);
        likely.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut kept = 0.0;
        let mut count = 0;
        for (_, mass) in &likely {
            kept += mass;
            count += 1;
            if kept >= sampling.top_p * total {
                break;
            }
        }
        (walk(likely[..count].iter().copied(), uniform * kept), kept)
    };
    Some((token as u32, (mass(token) / kept).ln() as f32))
}

/// The entry at which the running sum passes `target`; the last possible one where rounding leaves it unreached.
fn walk(entries: impl Iterator<Item = (usize, f64)>, target: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (token, mass) in entries {
        if mass > 0.0 {
            sum += mass;
            last = token;
            if sum > target {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn sampling(temperature: f64, top_p: f64) -> Sampling {
        Sampling { temperature, top_p, seed: 1, max_new_tokens: 8 }
    }

    #[test]
    fn frequencies_follow_temperature_and_top_p() {
        // softmax of these is 0.5, 0.3, 0.15, 0.05; top-p 0.75 keeps the first two
        let logits: Vec<f32> = [0.15f32, 0.5, 0.05, 0.3].iter().map(|p| p.ln()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (top_p, expected) in [(1.0, [0.15, 0.5, 0.05, 0.3]), (0.75, [0.0, 0.625, 0.0, 0.375])] {
            let mut counts = [0u32; 4];
            for _ in 0..20_000 {
                let (token, log_prob) = draw(&logits, &sampling(1.0, top_p), &mut rng).unwrap();
                assert!((f64::from(log_prob).exp() - expected[token as usize]).abs() < 1e-6);
                counts[token as usize] += 1;
            }
            for (count, share) in counts.iter().zip(expected) {
                assert!((f64::from(*count) / 20_000.0 - share).abs() < 0.02, "{counts:?}");
            }
        }
        let sharp: Vec<u32> = (0..50).map(|_| draw(&logits, &sampling(0.01, 1.0), &mut rng).unwrap().0).collect();
        assert!(sharp.iter().all(|token| *token == 1));
    }

    #[test]
    fn greedy_takes_the_first_of_the_best_and_reports_the_plain_softmax() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (token, log_prob) = draw(&[0.0, 1.0, 1.0], &sampling(0.0, 0.9), &mut rng).unwrap();
        assert_eq!(token, 1);
        assert!((log_prob - (1.0 - (1.0 + 2.0 * 1f32.exp()).ln())).abs() < 1e-6);
    }

    #[test]
    fn rows_without_a_maximum_are_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for row in [&[][..], &[0.0, f32::NAN], &[f32::NEG_INFINITY; 2], &[0.0, f32::INFINITY]] {
            assert!(draw(row, &sampling(1.0, 1.0), &mut rng).is_none(), "{row:?}");
        }
    }

    #[test]
    fn a_place_asked_twice_gets_the_same_token_and_cancelling_is_an_error() {
        let sampler = SeededSampler::new(sampling(1.0, 1.0), 2);
        let row = Tensor::zeros(50, DType::F32, &Device::Cpu).unwrap();
        let first = sampler.apply(&row, &[1, 2]).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(sampler.apply(&row, &[1, 2]).unwrap().to_vec1::<f32>().unwrap(), first);
        let (token_ids, log_probs) = sampler.drawn();
        assert_eq!(first.iter().filter(|logit| logit.is_finite()).count(), 1);
        assert_eq!(first[token_ids[0] as usize], 1.0);
        assert!((log_probs[0] + 50f32.ln()).abs() < 1e-5);
        sampler.cancel();
        assert!(sampler.apply(&row, &[1, 2, 3]).unwrap_err().to_string().contains("cancelled"));
        assert_eq!(sampler.drawn().0.len(), 1);
    }
}
