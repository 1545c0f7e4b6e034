//! Batched sampling: each prompt is read once, then all its completions grow side by side.
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::batch::Batch;
use crate::cache::KvCache;
use crate::error::{ModelError, Result};
use crate::ops::{TokenScores, lane};
use crate::qwen3::Qwen3;

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerSettings {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Smallest set of likeliest tokens to draw from, by its probability; 1 keeps all.
    pub top_p: f64,
    /// Longest completion in tokens, its end mark included.
    pub max_new_tokens: usize,
    /// Token that ends a completion.
    pub end: u32,
    /// Same seed, same prompts, same weights: same completions.
    pub seed: u64,
}

impl SamplerSettings {
    fn validate(&self) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(ModelError::Invalid(format!("temperature {} must be 0 or above", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(ModelError::Invalid(format!("top_p {} must lie in (0, 1]", self.top_p)));
        }
        if self.max_new_tokens == 0 {
            return Err(ModelError::Invalid("max_new_tokens must be at least 1".into()));
        }
        Ok(())
    }
}

/// A sampled completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Tokens, the end mark included where it came.
    pub ids: Vec<u32>,
    /// Natural log-probability of each token under the distribution it was drawn from (temperature and top-p applied
    /// and renormalised; at temperature 0 that of the plain distribution).
    pub log_probs: Vec<f32>,
    /// Whether the end mark came before the length ran out.
    pub finished: bool,
}

/// One choice from a row of logits.
fn draw(logits: &[f32], settings: &SamplerSettings, rng: &mut ChaCha8Rng, exps: &mut Vec<f32>) -> (u32, f32) {
    let greedy = settings.temperature == 0.0;
    let inverse = if greedy { 1.0 } else { (1.0 / settings.temperature) as f32 };
    let most = lane::max(logits) * inverse;
    exps.clear();
    exps.extend(logits.iter().map(|logit| lane::exp(logit * inverse - most)));
    let total: f32 = lane::sum_pairs(exps, exps, |e, _| e);
    if greedy {
        let best = logits.iter().enumerate().fold(0, |best, (i, logit)| if *logit > logits[best] { i } else { best });
        return (best as u32, (exps[best] / total).ln());
    }
    let target = rng.random::<f32>();
    if settings.top_p >= 1.0 {
        let pick = walk(exps.iter().copied().enumerate(), target * total);
        return (pick as u32, (exps[pick] / total).ln());
    }
    let mut order: Vec<usize> = (0..exps.len()).collect();
    order.sort_unstable_by(|a, b| exps[*b].total_cmp(&exps[*a]).then(a.cmp(b)));
    let mut kept = 0.0;
    let mut count = 0;
    for index in &order {
        kept += exps[*index];
        count += 1;
        if kept >= settings.top_p as f32 * total {
            break;
        }
    }
    let pick = walk(order[..count].iter().map(|index| (*index, exps[*index])), target * kept);
    (pick as u32, (exps[pick] / kept).ln())
}

/// The entry at which the running sum passes `target`; the last possible one where rounding leaves it unreached.
fn walk(entries: impl Iterator<Item = (usize, f32)>, target: f32) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (index, mass) in entries {
        if mass > 0.0 {
            sum += mass;
            last = index;
            if sum > target {
                break;
            }
        }
    }
    last
}

/// Samples `group` completions of each prompt; the result holds those of prompt 0 first.
///
/// # Errors
/// Where a setting is out of range, a prompt is empty, prompt and completion exceed the positions of the network, or
/// the logits are not finite.
pub fn sample<S: AsRef<[u32]>>(
    model: &Qwen3,
    prompts: &[S],
    group: usize,
    settings: &SamplerSettings,
) -> Result<Vec<Completion>> {
    settings.validate()?;
    if group == 0 || prompts.is_empty() {
        return Ok(Vec::new());
    }
    let model = model.detached()?;
    let batch = Batch::left_padded(prompts)?;
    let capacity = batch.width() + settings.max_new_tokens;
    let mut cache = KvCache::new(model.config(), batch.rows(), capacity, model.device())?;
    let hidden = model.prefill(&batch, &mut cache)?;
    let rows: Vec<u32> = (0..batch.rows() as u32).flat_map(|row| std::iter::repeat_n(row, group)).collect();
    let lasts: Vec<u32> = rows.iter().map(|row| batch.last(*row as usize)).collect();
    let mut logits = model.logits(&model.select(&hidden, &lasts)?)?;
    if group > 1 {
        cache = cache.select(&rows)?;
    }
    // each completion has its own stream of random numbers, so that none depends on when another ends
    let stream = |index: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
        rng.set_stream(index as u64);
        (Completion { ids: Vec::new(), log_probs: Vec::new(), finished: false }, rng)
    };
    let mut completions: Vec<(Completion, ChaCha8Rng)> = (0..rows.len()).map(stream).collect();
    // which completion each row of the cache belongs to
    let mut owners: Vec<usize> = (0..rows.len()).collect();
    let mut exps = Vec::new();
    for step in 1..=settings.max_new_tokens {
        let numbers = logits.flatten_all()?.to_vec1::<f32>()?;
        let mut picks = Vec::with_capacity(owners.len());
        for (owner, line) in owners.iter().zip(numbers.chunks_exact(model.config().vocab_size)) {
            let (completion, rng) = &mut completions[*owner];
            if completion.finished {
                picks.push(settings.end);
                continue;
            }
            let (token, log_prob) = draw(line, settings, rng, &mut exps);
            if !log_prob.is_finite() {
                return Err(ModelError::Invalid("the logits are not finite, the weights are damaged".into()));
            }
            completion.ids.push(token);
            completion.log_probs.push(log_prob);
            completion.finished = token == settings.end;
            picks.push(token);
        }
        let open: Vec<u32> =
            (0..owners.len()).filter(|row| !completions[owners[*row]].0.finished).map(|row| row as u32).collect();
        if open.is_empty() || step == settings.max_new_tokens {
            break;
        }
        // rows that ended are dropped once they are a quarter of the work; before that the copy costs more
        if open.len() * 4 <= owners.len() * 3 {
            cache = cache.select(&open)?;
            picks = open.iter().map(|row| picks[*row as usize]).collect();
            owners = open.iter().map(|row| owners[*row as usize]).collect();
        }
        logits = model.logits(&model.step(&picks, &mut cache)?)?;
    }
    Ok(completions.into_iter().map(|(completion, _)| completion).collect())
}

/// Natural log-probabilities of given completions, `softmax(logits / temperature)`, one list a pair; no gradient.
///
/// # Errors
/// Where a prompt or completion is empty, or a pair exceeds the positions of the network.
pub fn log_probs<S: AsRef<[u32]>>(
    model: &Qwen3,
    prompts: &[S],
    completions: &[S],
    temperature: f64,
) -> Result<Vec<Vec<f32>>> {
    let (scores, lengths) = completion_scores(&model.detached()?, prompts, completions, temperature)?;
    let numbers = scores.log_prob.to_vec1::<f32>()?;
    let mut rest = numbers.as_slice();
    let mut lists = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (list, behind) = rest.split_at(length);
        lists.push(list.to_vec());
        rest = behind;
    }
    Ok(lists)
}

/// Scores of the tokens of given completions, one behind the other, with gradient; and the length of each completion.
///
/// # Errors
/// As [`log_probs`].
pub fn completion_scores<S: AsRef<[u32]>>(
    model: &Qwen3,
    prompts: &[S],
    completions: &[S],
    temperature: f64,
) -> Result<(TokenScores, Vec<usize>)> {
    let empty = |ids: &S| ids.as_ref().is_empty();
    if prompts.len() != completions.len() || prompts.iter().any(empty) || completions.iter().any(empty) {
        return Err(ModelError::Invalid("each prompt needs one completion, and neither may be empty".into()));
    }
    let pairs: Vec<Vec<u32>> =
        prompts.iter().zip(completions).map(|(p, c)| [p.as_ref(), c.as_ref()].concat()).collect();
    let batch = Batch::right_padded(&pairs)?;
    let mut places = Vec::new();
    let mut targets = Vec::new();
    for (row, (prompt, completion)) in prompts.iter().zip(completions).enumerate() {
        for (i, token) in completion.as_ref().iter().enumerate() {
            places.push(batch.place(row, prompt.as_ref().len() + i - 1));
            targets.push(*token);
        }
    }
    let scores = model.score(&model.hidden(&batch)?, &places, &targets, temperature)?;
    Ok((scores, completions.iter().map(|completion| completion.as_ref().len()).collect()))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::config::Qwen3Config;
    use crate::weights::init;

    fn model() -> Qwen3 {
        let value = serde_json::json!({
            "vocab_size": 12, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rope_theta": 10000.0, "tie_word_embeddings": true,
        });
        let config = Qwen3Config::from_json(&value).unwrap();
        let mut weights = init(&config, 3, &Device::Cpu).unwrap();
        // sharper than a fresh model, so that temperature and top-p matter
        for (name, tensor) in &mut weights {
            if name.contains("embed") {
                *tensor = (&*tensor * 12.0).unwrap();
            }
        }
        Qwen3::frozen(config, weights, &Device::Cpu).unwrap()
    }

    fn settings() -> SamplerSettings {
        SamplerSettings { temperature: 1.0, top_p: 1.0, max_new_tokens: 12, end: 3, seed: 9 }
    }

    fn prompts() -> Vec<Vec<u32>> {
        vec![vec![1, 2, 5], vec![7], vec![4, 4, 8, 9, 10]]
    }

    fn by_prompt(group: usize) -> Vec<Vec<u32>> {
        prompts().into_iter().flat_map(|prompt| std::iter::repeat_n(prompt, group)).collect()
    }

    #[test]
    fn recorded_log_probs_are_those_of_teacher_forcing() {
        let model = model();
        for temperature in [1.0, 0.7] {
            let settings = SamplerSettings { temperature, ..settings() };
            let found = sample(&model, &prompts(), 8, &settings).unwrap();
            let ids: Vec<Vec<u32>> = found.iter().map(|completion| completion.ids.clone()).collect();
            let expected = log_probs(&model, &by_prompt(8), &ids, temperature).unwrap();
            for (completion, expected) in found.iter().zip(&expected) {
                assert_eq!(completion.log_probs.len(), expected.len());
                for (found, expected) in completion.log_probs.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
                }
                assert_eq!(completion.finished, completion.ids.last() == Some(&3));
                assert!(completion.finished || completion.ids.len() == 12);
                assert!(!completion.ids[..completion.ids.len() - 1].contains(&3));
            }
            assert!(found.iter().any(|completion| completion.finished));
            assert!(
                ids[..8].iter().collect::<std::collections::HashSet<_>>().len() > 3,
                "one group has distinct members"
            );
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        let model = model();
        let first = sample(&model, &prompts(), 4, &settings()).unwrap();
        assert_eq!(sample(&model, &prompts(), 4, &settings()).unwrap(), first);
        let other = SamplerSettings { seed: 10, ..settings() };
        assert_ne!(sample(&model, &prompts(), 4, &other).unwrap(), first);
    }

    #[test]
    fn greedy_members_of_a_group_agree_and_need_no_company() {
        let model = model();
        let greedy = SamplerSettings { temperature: 0.0, ..settings() };
        let found = sample(&model, &prompts(), 2, &greedy).unwrap();
        for (i, prompt) in prompts().iter().enumerate() {
            assert_eq!(found[2 * i].ids, found[2 * i + 1].ids);
            assert_eq!(sample(&model, std::slice::from_ref(prompt), 1, &greedy).unwrap()[0].ids, found[2 * i].ids);
        }
    }

    #[test]
    fn top_p_keeps_the_likeliest_and_renormalises() {
        let logits: Vec<f32> = [0.5f32, 0.3, 0.15, 0.05].iter().map(|p| p.ln()).collect();
        let settings = SamplerSettings { top_p: 0.75, ..settings() };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            let (token, log_prob) = draw(&logits, &settings, &mut rng, &mut Vec::new());
            counts[token as usize] += 1;
            let expected = [0.5f32 / 0.8, 0.3 / 0.8][token as usize].ln();
            assert!((log_prob - expected).abs() < 1e-5);
        }
        assert!((2350..2650).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        let model = model();
        let bad = [
            SamplerSettings { temperature: -1.0, ..settings() },
            SamplerSettings { temperature: f64::NAN, ..settings() },
            SamplerSettings { top_p: 0.0, ..settings() },
            SamplerSettings { max_new_tokens: 0, ..settings() },
            SamplerSettings { max_new_tokens: 64, ..settings() },
        ];
        for settings in bad {
            let endless = SamplerSettings { end: 99, ..settings };
            assert!(sample(&model, &prompts(), 1, &endless).is_err(), "{settings:?}");
        }
    }
}
