//! What was drawn and what it earned.
use recast_domain::{Environment, RolloutItem, Scored};
use recast_model::{Qwen3, SamplerSettings, sample};

use super::settings::RlSettings;
use crate::error::{LearnError, Result};

/// A question as the network reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The id under which the environment knows it.
    pub id: String,
    /// The rendered prompt.
    pub ids: Vec<u32>,
}

/// Where questions come from.
pub trait Questions: Send + Sync {
    /// The questions of a step; `attempt` is above 0 where more are needed than were drawn. A pure function of its
    /// arguments, so that a run that was killed goes on with the questions it would have seen.
    ///
    /// # Errors
    /// Where a prompt cannot be rendered.
    fn draw(&self, step: u64, attempt: u32, count: usize) -> Result<Vec<Question>>;

    /// The text of a completion.
    ///
    /// # Errors
    /// Where the tokenizer refuses.
    fn text(&self, ids: &[u32]) -> Result<String>;
}

/// A completion with everything needed to learn from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The question's id.
    pub question: String,
    /// Completions of one prompt share a number.
    pub group: usize,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of the completion, the end mark included.
    pub ids: Vec<u32>,
    /// Natural log-probability of each under the distribution it was drawn from.
    pub log_probs: Vec<f32>,
    /// Whether the end mark came.
    pub finished: bool,
    /// Step of the policy that drew it.
    pub version: u64,
    /// What it earned; `None` where nobody could say.
    pub scored: Option<Scored>,
    /// The reward of the question's fixed rewrite.
    pub baseline: Option<f64>,
}

/// Draws a group for each question and has them scored.
///
/// # Errors
/// Where the network fails, or the environment answers another number than it was asked.
pub fn roll(
    model: &Qwen3,
    questions: &dyn Questions,
    environment: &dyn Environment,
    settings: &RlSettings,
    (step, attempt): (u64, u32),
    first_group: usize,
) -> Result<Vec<Sample>> {
    let drawn = questions.draw(step, attempt, settings.questions)?;
    let prompts: Vec<&[u32]> = drawn.iter().map(|question| question.ids.as_slice()).collect();
    let sampler = SamplerSettings {
        temperature: settings.temperature,
        top_p: 1.0,
        max_new_tokens: settings.max_new_tokens,
        end: settings.end,
        // distinct for each step and attempt of a seed
        seed: settings.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(step * 64 + u64::from(attempt)),
    };
    let completions = sample(model, &prompts, settings.group, &sampler)?;
    let ids: Vec<String> = drawn.iter().map(|question| question.id.clone()).collect();
    let baselines = environment.baselines(&ids);
    let mut samples = Vec::with_capacity(completions.len());
    let mut items = Vec::with_capacity(completions.len());
    for (index, completion) in completions.into_iter().enumerate() {
        let question = &drawn[index / settings.group];
        let text = questions.text(&completion.ids)?;
        items.push(RolloutItem { question: question.id.clone(), text, finished: completion.finished });
        samples.push(Sample {
            question: question.id.clone(),
            group: first_group + index / settings.group,
            prompt: question.ids.clone(),
            ids: completion.ids,
            log_probs: completion.log_probs,
            finished: completion.finished,
            version: step,
            scored: None,
            baseline: baselines.get(index / settings.group).copied().flatten(),
        });
    }
    let scores = environment.score(&items);
    if scores.len() != samples.len() {
        return Err(LearnError::Data(format!("{} scores for {} rewrites", scores.len(), samples.len())));
    }
    for (sample, scored) in samples.iter_mut().zip(scores) {
        // a reward that is no number says no more than none
        sample.scored = scored.filter(|scored| scored.reward.is_finite());
    }
    Ok(samples)
}
