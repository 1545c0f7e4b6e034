//! Supervised fine-tuning of the rewriter: every token of the rewrite, and a few of the prompt's, are to be predicted.
use std::collections::BTreeMap;
use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use rand::seq::SliceRandom as _;
use recast_model::{Batch, Gradients, PromptInput, PromptRenderer, Qwen3};

use crate::curriculum::{Curriculum, Example, random};
use crate::error::{LearnError, Result};
use crate::trainer::{Objective, StepLoss};
use crate::validate::RewriteValidation;

/// Settings of [`SftObjective`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SftSettings {
    /// Sequences a step.
    pub rows: usize,
    /// Threads that share a step; each takes a part of its rows.
    pub workers: usize,
    /// Weight of the uniform distribution in the target of a rewrite's token.
    pub smoothing: f64,
    /// Weight of the loss on prompts beside that on rewrites.
    pub prompt_weight: f64,
    /// Seed of everything random.
    pub seed: u64,
}

/// Batches that are drawn together and sorted by length, so that a batch has little filling.
const POOL: u32 = 16;
/// Of the prompt's tokens, one in so many takes part in the loss: the output layer is the dearest of a small network.
const PROMPT_STRIDE: usize = 6;

/// A prompt with its rewrite, as tokens.
#[derive(Debug, Clone, PartialEq)]
struct Sequence {
    ids: Vec<u32>,
    prompt: usize,
}

/// The training of a rewriter.
pub struct SftObjective {
    model: Qwen3,
    renderer: PromptRenderer,
    curriculum: Curriculum,
    validation: RewriteValidation,
    settings: SftSettings,
    /// The pool that the last step drew from, by its number.
    pool: Mutex<Option<(u32, Vec<Vec<Sequence>>)>>,
}

impl SftObjective {
    /// A training of `model`'s variables (all weights, or those of its adapter).
    #[must_use]
    pub fn new(
        model: Qwen3,
        renderer: PromptRenderer,
        curriculum: Curriculum,
        validation: RewriteValidation,
        settings: SftSettings,
    ) -> Self {
        Self { model, renderer, curriculum, validation, settings, pool: Mutex::new(None) }
    }

    /// The model in training.
    #[must_use]
    pub fn model(&self) -> &Qwen3 {
        &self.model
    }

    /// The validation, for a report at the end.
    #[must_use]
    pub fn validation(&self) -> &RewriteValidation {
        &self.validation
    }

    fn sequence(&self, example: &Example) -> Result<Sequence> {
        let tenant = &self.curriculum.data().tenants[example.tenant];
        let input = PromptInput {
            tenant: &tenant.id,
            system_prompt: &tenant.system_prompt,
            conversation: &example.conversation,
        };
        let mut ids = self.renderer.render(&input)?.ids;
        let prompt = ids.len();
        let mut rewrite = self.renderer.completion(&example.rewrite)?;
        rewrite.truncate(self.renderer.settings().max_new_tokens);
        ids.extend(rewrite);
        Ok(Sequence { ids, prompt })
    }

    /// The sequences of a step.
    fn batch(&self, step: u32, steps: u32) -> Result<Vec<Sequence>> {
        let number = step / POOL;
        let mut pool = self.pool.lock().map_err(|_| LearnError::Setting("a training thread failed before".into()))?;
        if pool.as_ref().is_none_or(|(known, _)| *known != number) {
            let count = self.settings.rows * POOL as usize;
            let progress = f64::from(number * POOL) / f64::from(steps.max(1));
            let examples = self.curriculum.examples(u64::from(number) * count as u64, count, progress);
            let mut sequences = examples.iter().map(|example| self.sequence(example)).collect::<Result<Vec<_>>>()?;
            sequences.sort_by_key(|sequence| sequence.ids.len());
            let mut batches: Vec<Vec<Sequence>> =
                sequences.chunks(self.settings.rows).map(<[Sequence]>::to_vec).collect();
            batches.shuffle(&mut random(self.settings.seed, 3, u64::from(number)));
            *pool = Some((number, batches));
        }
        let batches = pool.as_ref().map(|(_, batches)| batches.as_slice()).unwrap_or_default();
        Ok(batches[(step % POOL) as usize].clone())
    }

    /// Loss of a part of a batch and its gradients. `counts` are the rewrite and prompt tokens of the whole batch, so
    /// that the parts' losses sum to that of the batch.
    fn part(&self, rows: &[Sequence], counts: (f64, f64), step: u32) -> Result<(f64, GradStore)> {
        let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
        let batch = Batch::right_padded(&ids)?;
        let SftSettings { smoothing, prompt_weight, .. } = self.settings;
        let (mut places, mut targets, mut to_log_prob, mut to_mean) = (vec![], vec![], vec![], vec![]);
        for (number, row) in rows.iter().enumerate() {
            for index in 1..row.ids.len() {
                let rewrite = index >= row.prompt;
                if !rewrite && !in_loss(index, step) {
                    continue;
                }
                places.push(batch.place(number, index - 1));
                targets.push(row.ids[index]);
                let (log_prob, mean) = if rewrite {
                    ((1.0 - smoothing) / counts.0, smoothing / counts.0)
                } else {
                    (prompt_weight / counts.1, 0.0)
                };
                to_log_prob.push(log_prob as f32);
                to_mean.push(mean as f32);
            }
        }
        let scores = self.model.score(&self.model.hidden(&batch)?, &places, &targets, 1.0)?;
        let weights = |numbers: Vec<f32>| Tensor::from_vec(numbers, places.len(), self.model.device());
        let gain = (scores.log_prob * weights(to_log_prob)?)? + (scores.mean_log_prob * weights(to_mean)?)?;
        let loss = gain?.sum_all()?.neg()?;
        Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
    }
}

/// Whether a token of a prompt takes part in the loss of a step; each does in one step of so many.
fn in_loss(index: usize, step: u32) -> bool {
    (index + step as usize).is_multiple_of(PROMPT_STRIDE)
}

impl Objective for SftObjective {
    fn vars(&self) -> &BTreeMap<String, Var> {
        self.model.vars()
    }

    fn step(&self, step: u32, steps: u32) -> Result<StepLoss> {
        let batch = self.batch(step, steps)?;
        let rewrites: usize = batch.iter().map(|row| row.ids.len() - row.prompt).sum();
        let prompts: usize =
            batch.iter().map(|row| (1..row.prompt).filter(|index| in_loss(*index, step)).count()).sum();
        let counts = (rewrites.max(1) as f64, prompts.max(1) as f64);
        let size = batch.len().div_ceil(self.settings.workers.max(1)).max(1);
        let parts = in_threads(batch.chunks(size), |rows| self.part(rows, counts, step))?;
        let mut gradients = Gradients::default();
        let mut loss = 0.0;
        for (part, store) in parts {
            loss += part;
            gradients.add(self.vars(), &store, 1.0)?;
        }
        let tokens = batch.iter().map(|row| row.ids.len() as u64).sum();
        Ok(StepLoss { gradients, loss, tokens })
    }

    fn validate(&self) -> Result<BTreeMap<String, f64>> {
        Ok(self.validation.quick(&self.model, &self.renderer)?.figures())
    }
}

/// Runs parts of a step side by side; results come in the order of the parts, whichever ends first.
pub(crate) fn in_threads<P: Send, T: Send>(
    parts: impl Iterator<Item = P>,
    run: impl Fn(P) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut parts: Vec<P> = parts.collect();
    let Some(own) = parts.pop() else { return Ok(Vec::new()) };
    std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || run(part))).collect();
        let last = run(own)?;
        let failed = |_| LearnError::Setting("a training thread failed".into());
        let mut results =
            others.into_iter().map(|thread| thread.join().map_err(failed)?).collect::<Result<Vec<T>>>()?;
        results.push(last);
        Ok(results)
    })
}
