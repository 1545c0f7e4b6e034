//! What the engine of this build does right, found out before it serves.
use std::time::Instant as Clock;

use recast_domain::Sampling;
use tokio::time::{Duration, Instant};

use crate::engine::{Completion, Engine, Job};
use crate::{Result, RewriteError};

/// Tokens that each trial writes.
const TOKENS: usize = 8;
/// Log-probabilities of a sequence alone and beside another may differ by this much, in nats (rounding differs).
const TOLERANCE: f32 = 1e-2;
/// A machine that cannot write a few tokens in this time cannot serve.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the trials showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelfTest {
    /// Largest difference in nats between a sequence alone and beside another of its length; `None` where only one
    /// may run at a time anyway.
    pub batch_error: Option<f32>,
    /// Sequences that may run at once.
    pub permits: usize,
    /// Tokens a second of one sequence, its prompt included.
    pub tokens_per_second: f64,
}

/// Writes a few tokens: all must be finite, and the same twice. Where `wanted` sequences are to run at once, two of one
/// length must also come out together as they do alone, else one at a time is allowed. `prompts` differ and have one
/// length.
///
/// # Errors
/// When the engine fails, writes something else the second time, or takes minutes.
pub async fn self_test(engine: &Engine, prompts: [&[u32]; 2], wanted: usize) -> Result<SelfTest> {
    let deadline = Instant::now() + PATIENCE;
    let jobs = prompts.map(|prompt| job(prompt, TOKENS));
    let alone = engine.complete(&jobs[0], deadline).await?;
    let started = Clock::now();
    let again = engine.complete(&jobs[0], deadline).await?;
    let tokens_per_second = again.token_ids.len() as f64 / started.elapsed().as_secs_f64().max(1e-9);
    let drift = difference(&alone, &again);
    if drift > 1e-4 {
        let reason =
            format!("the same prompt gave something else the second time (log-probabilities differ by {drift} nats)");
        return Err(RewriteError::Engine(reason));
    }
    if wanted <= 1 {
        return Ok(SelfTest { batch_error: None, permits: 1, tokens_per_second });
    }
    let second = engine.complete(&jobs[1], deadline).await?;
    let together = together(engine, &jobs).await?;
    let error = difference(&alone, &together[0]).max(difference(&second, &together[1]));
    let permits = if error <= TOLERANCE { wanted } else { 1 };
    engine.allow(permits - 1);
    Ok(SelfTest { batch_error: Some(error), permits, tokens_per_second })
}

/// Both jobs side by side. A first request keeps the engine busy, so that it picks these two up in one round.
async fn together(engine: &Engine, jobs: &[Job; 2]) -> Result<[Completion; 2]> {
    let busy = job(&jobs[0].prompt[..jobs[0].prompt.len().div_ceil(2)], 2);
    let (busy, first, second) =
        (engine.start(&busy, None).await?, engine.start(&jobs[0], None).await?, engine.start(&jobs[1], None).await?);
    busy.wait(&[]).await?;
    let (first, second) = (first.wait(&[]).await?, second.wait(&[]).await?);
    Ok([first, second])
}

fn job(prompt: &[u32], tokens: usize) -> Job {
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0, max_new_tokens: tokens };
    Job { prompt: prompt.to_vec(), stops: Vec::new(), sampling }
}

/// Largest difference of log-probabilities in nats; infinite where the tokens differ.
fn difference(left: &Completion, right: &Completion) -> f32 {
    if left.token_ids != right.token_ids {
        return f32::INFINITY;
    }
    let pairs = left.log_probs.iter().zip(&right.log_probs);
    pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}
