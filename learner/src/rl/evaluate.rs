//! How good a policy is on questions it does not learn from.
use std::collections::BTreeMap;

use recast_domain::{Environment, RolloutItem, Scored};
use recast_model::{Qwen3, SamplerSettings, log_probs, sample};
use serde::{Deserialize, Serialize};

use super::kl::KlEstimator;
use super::pool::QuestionPool;
use crate::error::Result;

/// Prompts that are read together.
const TOGETHER: usize = 64;

/// Figures of greedy rewrites.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Questions asked.
    pub questions: usize,
    /// Share that nobody could score.
    pub unscored_share: f64,
    /// Mean reward of the others.
    pub reward: f64,
    /// Means of the reward's parts, each over the questions that have it.
    pub parts: BTreeMap<String, f64>,
}

/// The greedy rewrite of each question of the pool, in order.
///
/// # Errors
/// Where the network fails.
pub fn greedy(model: &Qwen3, pool: &QuestionPool) -> Result<Vec<RolloutItem>> {
    let sampler = SamplerSettings {
        temperature: 0.0,
        top_p: 1.0,
        max_new_tokens: pool.renderer().settings().max_new_tokens,
        end: pool.renderer().end(),
        seed: 0,
    };
    // neighbours of a like length waste no padding
    let mut order: Vec<usize> = (0..pool.questions().len()).collect();
    order.sort_by_key(|place| pool.questions()[*place].ids.len());
    let mut items: Vec<Option<RolloutItem>> = vec![None; order.len()];
    for places in order.chunks(TOGETHER) {
        let prompts: Vec<&[u32]> = places.iter().map(|place| pool.questions()[*place].ids.as_slice()).collect();
        for (place, completion) in places.iter().zip(sample(model, &prompts, 1, &sampler)?) {
            let text = pool.text(&completion.ids)?;
            let question = pool.questions()[*place].id.clone();
            items[*place] = Some(RolloutItem { question, text, finished: completion.finished });
        }
    }
    Ok(items.into_iter().flatten().collect())
}

/// Greedy rewrites of all questions of a pool, and what they earn.
///
/// # Errors
/// Where the network fails.
pub fn evaluate(model: &Qwen3, pool: &QuestionPool, environment: &dyn Environment) -> Result<Evaluation> {
    let scores = environment.score(&greedy(model, pool)?);
    Ok(Evaluation::of(&scores))
}

impl Evaluation {
    /// Means of scores.
    #[must_use]
    pub fn of(scores: &[Option<Scored>]) -> Self {
        let scored: Vec<&Scored> = scores.iter().flatten().collect();
        let mut parts: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for (name, value) in scored.iter().flat_map(|one| &one.parts) {
            let (sum, count) = parts.entry(name.clone()).or_default();
            *sum += value;
            *count += 1.0;
        }
        let all = scores.len().max(1) as f64;
        Self {
            questions: scores.len(),
            unscored_share: (scores.len() - scored.len()) as f64 / all,
            reward: scored.iter().map(|one| one.reward).sum::<f64>() / scored.len().max(1) as f64,
            parts: parts.into_iter().map(|(name, (sum, count))| (name, sum / count)).collect(),
        }
    }
}

/// Mean distance of a policy from another in nats a token (k3), over what the first draws at temperature 1.
///
/// # Errors
/// Where a network fails.
pub fn divergence(policy: &Qwen3, reference: &Qwen3, pool: &QuestionPool, questions: usize) -> Result<f64> {
    let sampler = SamplerSettings {
        temperature: 1.0,
        top_p: 1.0,
        max_new_tokens: pool.renderer().settings().max_new_tokens,
        end: pool.renderer().end(),
        seed: 0,
    };
    let (mut sum, mut count) = (0.0, 0);
    let all = &pool.questions()[..pool.questions().len().min(questions)];
    for part in all.chunks(TOGETHER) {
        let prompts: Vec<&[u32]> = part.iter().map(|question| question.ids.as_slice()).collect();
        let drawn = sample(policy, &prompts, 1, &sampler)?;
        let completions: Vec<&[u32]> = drawn.iter().map(|completion| completion.ids.as_slice()).collect();
        let held = log_probs(reference, &prompts, &completions, 1.0)?;
        for (new, old) in drawn.iter().zip(&held).flat_map(|(one, old)| one.log_probs.iter().zip(old)) {
            sum += KlEstimator::K3.token(f64::from(*new), f64::from(*old)).0;
            count += 1;
        }
    }
    Ok(sum / f64::from(count.max(1)))
}
