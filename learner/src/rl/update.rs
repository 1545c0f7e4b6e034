//! Passes of one batch through the network, and what they change.
use candle_core::{Device, Tensor};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use recast_model::{AdamW, Batch, Gradients, Qwen3, TokenScores, token_scores};

use super::critic::Critic;
use super::losses::RatioFigures;
use super::sample::Sample;
use super::settings::RlSettings;
use super::tokens::{Layout, weighted};
use super::value::value_loss;
use crate::error::Result;

/// A batch in numbers; all lists are by token, in the order of the layout.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(crate) samples: Vec<&'a Sample>,
    pub(crate) layout: Layout,
    /// Log-probabilities that the ratio is taken against.
    pub(crate) old: Vec<f64>,
    pub(crate) advantages: Vec<f64>,
    /// Importance weights.
    pub(crate) weights: Option<Vec<f64>>,
    /// Log-probabilities under the reference, where there is one.
    pub(crate) reference: Option<Vec<f64>>,
    /// Values before the update and returns, with a critic.
    pub(crate) values: Option<(Vec<f64>, Vec<f64>)>,
}

/// What may vary from step to step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dials {
    pub(crate) step: u64,
    pub(crate) learning_rate: f64,
    pub(crate) entropy_weight: f64,
    /// Largest `|ratio - 1|` of fresh tokens in the first minibatch.
    pub(crate) most_on_policy_deviation: f64,
    pub(crate) most_grad_norm: f64,
}

/// What the passes did.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Passes {
    pub(crate) clip_fraction: Vec<f64>,
    pub(crate) approx_kl: f64,
    pub(crate) on_policy_deviation: f64,
    pub(crate) ratio_deviation: f64,
    pub(crate) entropy: f64,
    pub(crate) loss: f64,
    pub(crate) grad_norm: f64,
    pub(crate) value_loss: Option<f64>,
    pub(crate) updates: u32,
}

/// One run of some sequences through the network.
struct Forward {
    scores: TokenScores,
    values: Option<Tensor>,
}

fn forward(model: &Qwen3, critic: Option<&Critic>, samples: &[&Sample], temperature: f64) -> Result<Forward> {
    let pairs: Vec<Vec<u32>> = samples.iter().map(|s| [s.prompt.as_slice(), &s.ids].concat()).collect();
    let batch = Batch::right_padded(&pairs)?;
    let mut places = Vec::new();
    let mut targets = Vec::new();
    for (row, sample) in samples.iter().enumerate() {
        for (index, token) in sample.ids.iter().enumerate() {
            places.push(batch.place(row, sample.prompt.len() + index - 1));
            targets.push(*token);
        }
    }
    let states = model.select(&model.hidden(&batch)?, &places)?;
    let scores = token_scores(model.kernels(), &model.logits(&states)?, &targets, temperature)?;
    let values = critic.map(|critic| critic.values(&states)).transpose()?;
    Ok(Forward { scores, values })
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

/// `sum(tensor * constants)`, whose gradient with respect to the tensor is the constants.
fn dot(tensor: &Tensor, constants: &[f64], device: &Device) -> Result<Tensor> {
    let constants: Vec<f32> = constants.iter().map(|x| *x as f32).collect();
    let count = constants.len();
    Ok((tensor * Tensor::from_vec(constants, count, device)?)?.sum_all()?)
}

/// Log-probabilities of all samples, and values with a critic, without gradient.
pub(crate) fn evaluate(
    model: &Qwen3,
    critic: Option<&Critic>,
    samples: &[&Sample],
    settings: &RlSettings,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let model = model.detached()?;
    let (mut log_probs, mut values) = (Vec::new(), Vec::new());
    for part in samples.chunks(settings.micro_rows) {
        let forward = forward(&model, critic, part, settings.temperature)?;
        log_probs.extend(numbers(&forward.scores.log_prob)?);
        if let Some(tensor) = forward.values {
            values.extend(numbers(&tensor)?);
        }
    }
    Ok((log_probs, values))
}

/// Gradients of one minibatch, not yet applied.
pub(crate) struct Step {
    pub(crate) gradients: Gradients,
    critic_gradients: Gradients,
    ratios: RatioFigures,
    on_policy_deviation: f64,
    entropy: f64,
    pub(crate) loss: f64,
    value_loss: f64,
}

/// Gradients of the rows `rows` of a batch, by parts of `micro_rows`; the denominators are those of all the rows.
pub(crate) fn gradients(
    model: &Qwen3,
    critic: Option<&Critic>,
    batch: &Prepared,
    rows: &[usize],
    settings: &RlSettings,
    dials: &Dials,
) -> Result<Step> {
    let (whole, _) = batch.layout.select(rows);
    let weights = settings.aggregation.weights(&whole);
    let total = whole.total().max(1) as f64;
    let mut step = Step {
        gradients: Gradients::default(),
        critic_gradients: Gradients::default(),
        ratios: RatioFigures::default(),
        on_policy_deviation: 0.0,
        entropy: 0.0,
        loss: 0.0,
        value_loss: 0.0,
    };
    let live: Vec<usize> = (0..rows.len()).filter(|row| whole.count(*row) > 0).collect();
    for part in live.chunks(settings.micro_rows) {
        let (layout, places) = whole.select(part);
        let originals: Vec<usize> = part.iter().map(|row| rows[*row]).collect();
        let (_, tokens) = batch.layout.select(&originals);
        let samples: Vec<&Sample> = originals.iter().map(|row| batch.samples[*row]).collect();
        let pick = |list: &[f64], places: &[usize]| places.iter().map(|place| list[*place]).collect::<Vec<f64>>();
        let weights = pick(&weights, &places);
        let (old, advantages) = (pick(&batch.old, &tokens), pick(&batch.advantages, &tokens));
        let forward = forward(model, critic, &samples, settings.temperature)?;
        let new = numbers(&forward.scores.log_prob)?;
        let mut losses = settings.loss.tokens(&new, &old, &advantages, &layout);
        if let Some(importance) = &batch.weights {
            losses.weigh(&pick(importance, &tokens));
        }
        let share = layout.total() as f64 / total;
        add_figures(&mut step.ratios, losses.figures(&new, &old, &layout), share);
        for (row, sample) in samples.iter().enumerate().filter(|(_, sample)| sample.version == dials.step) {
            for (place, drawn) in layout.range(row).zip(&sample.log_probs) {
                let deviation = (super::losses::ratio(new[place], f64::from(*drawn)) - 1.0).abs();
                // a number that is none must not pass for a small one
                if deviation > step.on_policy_deviation || deviation.is_nan() {
                    step.on_policy_deviation = deviation;
                }
            }
        }
        if let (Some(term), Some(reference)) = (settings.kl.filter(|kl| !kl.in_reward), &batch.reference) {
            for (index, place) in tokens.iter().enumerate() {
                let (value, slope) = term.estimator.token(new[index], reference[*place]);
                losses.loss[index] += term.weight * value;
                losses.slope[index] += term.weight * slope;
            }
        }
        let entropies = numbers(&forward.scores.entropy)?;
        step.entropy += layout.mean(&entropies) * share;
        step.loss += weighted(&weights, &losses.loss) - dials.entropy_weight * weighted(&weights, &entropies);
        let slopes: Vec<f64> = losses.slope.iter().zip(&weights).map(|(slope, weight)| slope * weight).collect();
        let device = model.device();
        let mut surrogate = dot(&forward.scores.log_prob, &slopes, device)?;
        if dials.entropy_weight != 0.0 {
            let slopes: Vec<f64> = weights.iter().map(|weight| -dials.entropy_weight * weight).collect();
            surrogate = (surrogate + dot(&forward.scores.entropy, &slopes, device)?)?;
        }
        if let (Some(critic), Some(tensor), Some((before, returns))) = (critic, &forward.values, &batch.values) {
            let values = numbers(tensor)?;
            let found =
                value_loss(&values, &pick(before, &tokens), &pick(returns, &tokens), &layout, critic.settings().range);
            // the mean over tokens: a critic has no use for the policy's aggregation
            step.value_loss += layout.mean(&found.loss) * share;
            let slopes: Vec<f64> =
                found.slope.iter().zip(layout.mask()).map(|(s, m)| if *m { s / total } else { 0.0 }).collect();
            surrogate = (surrogate + dot(tensor, &slopes, device)?)?;
        }
        let store = surrogate.backward()?;
        step.gradients.add(model.vars(), &store, 1.0)?;
        if let Some(critic) = critic {
            step.critic_gradients.add(critic.vars(), &store, 1.0)?;
        }
    }
    Ok(step)
}

fn add_figures(sum: &mut RatioFigures, part: RatioFigures, share: f64) {
    sum.clip_fraction += part.clip_fraction * share;
    sum.low_clip_fraction += part.low_clip_fraction * share;
    sum.approx_kl += part.approx_kl * share;
    if part.ratio_deviation > sum.ratio_deviation || part.ratio_deviation.is_nan() {
        sum.ratio_deviation = part.ratio_deviation;
    }
}

/// All passes over a batch. Nothing is changed where the first minibatch shows that the sampler drew from another
/// distribution, and no update is made whose gradient is zero, not finite or far too large.
pub(crate) fn passes(
    model: &Qwen3,
    mut critic: Option<&mut Critic>,
    optimizer: &mut AdamW,
    batch: &Prepared,
    settings: &RlSettings,
    dials: &Dials,
) -> Result<Passes> {
    let mut out = Passes { value_loss: critic.as_ref().map(|_| 0.0), ..Passes::default() };
    let mut order: Vec<usize> = (0..batch.samples.len()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed ^ dials.step.rotate_left(32));
    for epoch in 0..settings.epochs {
        if settings.minibatches > 1 {
            order.shuffle(&mut rng);
        }
        let size = order.len().div_ceil(settings.minibatches).max(1);
        let count = order.chunks(size).len() as f64;
        let (mut clipped, mut moved) = (0.0, 0.0);
        for (index, rows) in order.chunks(size).enumerate() {
            let step = gradients(model, critic.as_deref(), batch, rows, settings, dials)?;
            let first = epoch == 0 && index == 0;
            if first {
                out.on_policy_deviation = step.on_policy_deviation;
                out.entropy = step.entropy;
            }
            out.ratio_deviation = out.ratio_deviation.max(step.ratios.ratio_deviation);
            out.loss = step.loss;
            out.grad_norm = step.gradients.norm()?;
            clipped += step.ratios.clip_fraction / count;
            moved += step.ratios.approx_kl / count;
            let fits = step.on_policy_deviation <= dials.most_on_policy_deviation;
            if first && !fits {
                return Ok(out);
            }
            if let (Some(critic), Some(sum)) = (critic.as_deref_mut(), &mut out.value_loss) {
                *sum += step.value_loss / (count * f64::from(settings.epochs));
                let learning_rate = critic.settings().learning_rate;
                critic.optimizer.step(&step.critic_gradients, learning_rate)?;
            }
            // a gradient of zero would still let the moments of earlier steps move the weights
            if out.grad_norm > 0.0 && out.grad_norm <= dials.most_grad_norm {
                let update = optimizer.step(&step.gradients, dials.learning_rate)?;
                out.updates += u32::from(update.applied);
            }
        }
        out.clip_fraction.push(clipped);
        out.approx_kl = moved;
        if moved.abs() > 1.5 * settings.target_kl {
            break;
        }
    }
    Ok(out)
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
