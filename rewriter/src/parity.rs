//! Whether the engine that serves and the network that learns agree about a policy.
use std::path::Path;

use candle_core::Device;
use recast_config::{Device as Place, Quantization, RewriterSettings};
use recast_domain::Sampling;
use recast_model::{Lora, ModelFolder, Qwen3, log_probs};
use tokio::time::{Duration, Instant};

use crate::engine::Job;
use crate::local::{LocalRewriter, trial};
use crate::{ModelFiles, Result, RewriteError};

/// Log-probabilities may differ by this much in nats; a ratio of new to old probabilities starts from them.
pub const PARITY_NATS: f32 = 1e-4;
/// Weights of at most this many bytes are read a second time for the check.
const MOST_BYTES: u64 = 1 << 30;
const QUERIES: [&str; 3] = ["怎么", "孕妇能喝吗", "how much is the cap"];
const TOKENS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);

impl LocalRewriter {
    /// Largest difference in nats between the log-probabilities of a few completions as the engine reported them and as
    /// the network of [`recast_model`] finds them, with the files of `settings`. `None` where the two cannot agree so
    /// closely, or the look is too dear: quantised weights, a GPU (16 bits), a GGUF file, more than 1 GiB of weights.
    ///
    /// # Errors
    /// When the engine fails, or a file cannot be read.
    pub async fn parity(&self, settings: &RewriterSettings) -> Result<Option<f32>> {
        let ModelFiles::Safetensors { weights, .. } = self.files() else { return Ok(None) };
        let bytes: u64 = weights.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len()).sum();
        if settings.device != Place::Cpu || settings.quantization != Quantization::None || bytes > MOST_BYTES {
            return Ok(None);
        }
        let (mut prompts, mut written, mut reported) = (Vec::new(), Vec::new(), Vec::new());
        for query in QUERIES {
            let prompt = trial(self.renderer(), query)?;
            // greedy: of tokens drawn at random one in eight lists is no text, at which the engine falls over
            let sampling = Sampling { temperature: 0.0, top_p: 1.0, seed: 0, max_new_tokens: TOKENS };
            let job = Job { prompt: prompt.clone(), stops: Vec::new(), sampling };
            let completion = self.engine().complete(&job, Instant::now() + PATIENCE).await?;
            prompts.push(prompt);
            written.push(completion.token_ids);
            reported.extend(completion.log_probs);
        }
        let (model, adapter) = (settings.model.clone(), settings.adapter.clone());
        let found = tokio::task::spawn_blocking(move || {
            log_probs(&network(&model, &adapter)?, &prompts, &written, 1.0).map_err(RewriteError::from)
        });
        let found =
            found.await.map_err(|error| RewriteError::Engine(format!("the parity check failed: {error}")))??;
        let pairs = found.into_iter().flatten().zip(reported);
        // a number that is not finite is no small difference
        let worst = pairs
            .map(|(own, other)| (own - other).abs())
            .fold(0.0, |worst: f32, next| if next.is_finite() { worst.max(next) } else { f32::INFINITY });
        Ok(Some(worst))
    }
}

/// The learner's network with these files; an adapter that is given replaces one that lies beside the weights.
fn network(model: &Path, adapter: &Path) -> Result<Qwen3> {
    let folder = ModelFolder::open(model)?;
    if adapter.as_os_str().is_empty() {
        return Ok(folder.cpu_network()?);
    }
    let base = Qwen3::frozen(folder.config().clone(), folder.weights(&Device::Cpu)?, &Device::Cpu)?;
    Ok(base.merged(&Lora::read(adapter, folder.config(), &Device::Cpu)?)?)
}
