//! The local rewriter: prompt, engine, text.
use std::path::Path;

use async_trait::async_trait;
use recast_config::{Device, RewriterSettings, TenantProfile};
use recast_domain::{Conversation, PolicyId, Rewrite, RewriteSource, Sampling};
use recast_model::{PromptInput, PromptRenderer};
use tokio::time::Instant;

use crate::engine::{Engine, Job};
use crate::load::EngineSettings;
use crate::validate::checked_rewrite;
use crate::{
    MemoryNeed, ModelFiles, ModelSource, Result, RewriteError, RewriteRequest, Rewriter, SelfTest, available_bytes,
    prompt_hash, self_test,
};

/// Sequences at once on a GPU, where the self-test finds that they do not disturb each other.
const GPU_SEQUENCES: usize = 8;

/// Rewrites with a model in this process.
pub struct LocalRewriter {
    engine: Engine,
    files: ModelFiles,
    renderer: PromptRenderer,
    policy: PolicyId,
    version: PolicyId,
    sampling: Sampling,
    stops: Vec<u32>,
    tested: SelfTest,
}

impl LocalRewriter {
    /// Loads the model of the settings and tests it.
    ///
    /// # Errors
    /// When a setting cannot work, a file is missing or damaged, the model does not fit into memory, or it fails the
    /// test. Each message says what to do.
    pub async fn load(settings: &RewriterSettings) -> Result<Self> {
        check(settings)?;
        let (path, adapter) = (settings.model.clone(), settings.adapter.clone());
        let open = move || ModelSource::open(&path, Some(adapter.as_path()).filter(|dir| !dir.as_os_str().is_empty()));
        let source = tokio::task::spawn_blocking(open)
            .await
            .map_err(|error| RewriteError::load(&settings.model, format!("reading it failed: {error}")))??;
        let wanted = match settings.device {
            Device::Cpu => 1,
            Device::Cuda => GPU_SEQUENCES,
        };
        check_memory(settings, &source, wanted)?;
        let engine = EngineSettings {
            files: source.files.clone(),
            device: settings.device,
            quantization: settings.quantization,
        };
        let engine = Engine::load(engine).await?;
        Self::start(engine, source, settings, wanted).await
    }

    async fn start(engine: Engine, source: ModelSource, settings: &RewriterSettings, wanted: usize) -> Result<Self> {
        let bounds = *source.renderer.settings();
        if bounds.max_prompt_tokens >= engine.window() {
            let reason = format!(
                "its window of {} tokens is shorter than a prompt of {}: set prompt.max_prompt_tokens in its recast.toml",
                engine.window(),
                bounds.max_prompt_tokens
            );
            return Err(RewriteError::load(&source.path, reason));
        }
        let prompts = [trial(&source.renderer, "怎么")?, trial(&source.renderer, "什么")?];
        let length = prompts[0].len().min(prompts[1].len());
        let ends = prompts.each_ref().map(|prompt| &prompt[prompt.len() - length..]);
        let tested = self_test(&engine, ends, wanted).await?;
        let sampling = Sampling {
            temperature: settings.temperature,
            top_p: settings.top_p,
            seed: 0,
            max_new_tokens: settings.max_new_tokens.min(bounds.max_new_tokens),
        };
        let mut stops = vec![source.renderer.end()];
        stops.extend(source.renderer.tokenizer().mark("<|endoftext|>"));
        tracing::info!(
            policy = %source.policy,
            permits = tested.permits,
            batch_error = tested.batch_error,
            tokens_per_second = tested.tokens_per_second,
            "rewriter loaded and tested"
        );
        let (policy, version) = (source.policy.clone(), source.policy);
        Ok(Self { engine, files: source.files, renderer: source.renderer, policy, version, sampling, stops, tested })
    }

    /// The same rewriter under the name that its policy was published with.
    #[must_use]
    pub fn named(self, policy: PolicyId) -> Self {
        Self { policy, ..self }
    }

    /// What the start-up test showed.
    #[must_use]
    pub fn tested(&self) -> SelfTest {
        self.tested
    }

    /// Renders prompts the way this model was trained on.
    #[must_use]
    pub fn renderer(&self) -> &PromptRenderer {
        &self.renderer
    }

    /// The files that it was loaded from.
    pub(crate) fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// The engine, for completions that are not rewrites (parity checks).
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

#[async_trait]
impl Rewriter for LocalRewriter {
    fn policy(&self) -> PolicyId {
        self.policy.clone()
    }

    fn version(&self) -> PolicyId {
        self.version.clone()
    }

    fn prompt_hash(&self, tenant: &TenantProfile) -> String {
        prompt_hash(tenant, self.renderer.settings().style)
    }

    async fn rewrite(&self, request: &RewriteRequest, deadline: Instant) -> Result<Rewrite> {
        let conversation = &request.conversation;
        let tenant = &request.tenant;
        let input = PromptInput { tenant: tenant.id.as_str(), system_prompt: &tenant.system_prompt, conversation };
        let prompt = self.renderer.render(&input)?;
        let sampling = Sampling { seed: request.seed, ..self.sampling };
        let job = Job { prompt: prompt.ids, stops: self.stops.clone(), sampling };
        let completion = self.engine.complete(&job, deadline).await?;
        let written = self.renderer.rewrite(&completion.token_ids)?;
        let text = checked_rewrite(&conversation.query, &written)?.to_owned();
        Ok(Rewrite {
            text,
            source: RewriteSource::Local,
            policy: self.policy.clone(),
            token_ids: completion.token_ids,
            log_probs: completion.log_probs,
            prompt_tokens: job.prompt.len(),
            sampling: Some(sampling),
        })
    }
}

/// A prompt for the self-test.
pub(crate) fn trial(renderer: &PromptRenderer, query: &str) -> Result<Vec<u32>> {
    let conversation = Conversation { query: query.to_owned(), ..Conversation::default() };
    let input = PromptInput { tenant: "test", system_prompt: "改写", conversation: &conversation };
    Ok(renderer.render(&input)?.ids)
}

fn check(settings: &RewriterSettings) -> Result<()> {
    let wrong = |field, reason: String| Err(RewriteError::Setting { field, reason });
    if !(settings.temperature.is_finite() && settings.temperature >= 0.0) {
        return wrong("rewriter.temperature", format!("{} must be 0 or above", settings.temperature));
    }
    if !(settings.top_p > 0.0 && settings.top_p <= 1.0) {
        return wrong("rewriter.top_p", format!("{} must be above 0 and at most 1", settings.top_p));
    }
    if settings.max_new_tokens == 0 {
        return wrong("rewriter.max_new_tokens", "must be at least 1".to_owned());
    }
    Ok(())
}

/// Says what the model needs and what there is, and refuses what cannot work.
fn check_memory(settings: &RewriterSettings, source: &ModelSource, sequences: usize) -> Result<()> {
    let bounds = source.renderer.settings();
    let tokens = bounds.max_prompt_tokens + bounds.max_new_tokens;
    let bytes = if settings.device == Device::Cpu { 4 } else { 2 };
    let config = source.config.as_ref();
    let need = MemoryNeed::of(&source.files, config, settings.quantization, bytes, tokens, sequences)?;
    let path: &Path = &source.path;
    let available = match settings.memory_limit_mib {
        0 => device_bytes(settings.device),
        limit => Some(limit.saturating_mul(1 << 20)),
    };
    let Some(available) = available else {
        tracing::warn!(model = %path.display(), need_mib = need.total() >> 20, "available memory is not known");
        return Ok(());
    };
    tracing::info!(
        model = %path.display(),
        need_mib = need.total() >> 20,
        available_mib = available >> 20,
        "loading the rewriter"
    );
    need.check(path, available)
}

fn device_bytes(device: Device) -> Option<u64> {
    match device {
        Device::Cpu => available_bytes(),
        Device::Cuda => {
            let device = candle_core::Device::new_cuda(0).ok()?;
            mistralrs::core::MemoryUsage.get_memory_available(&device).ok().map(|bytes| bytes as u64)
        }
    }
}
