//! Loading a model into the engine.
//!
//! Each load runs on a thread of its own: the engine keeps adapters and quantisation of a load in thread-local state that
//! nobody clears, so a second load on the same thread would add both adapters. All paths are given to the engine as
//! local files, so that it never asks the network.
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mistralrs::core::{
    AdapterPaths, GGUFLoaderBuilder, GGUFSpecificConfig, Loader, LocalModelPaths, LoraAdapterPaths, MistralRsBuilder,
    ModelPaths, NormalLoaderBuilder, NormalSpecificConfig,
};
use mistralrs::{
    DefaultSchedulerMethod, DeviceMapSetting, IsqType, MistralRs, ModelDType, NormalLoaderType, SchedulerConfig,
};
use recast_config::{Device, Quantization};
use recast_model::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Qwen3Config};
use tokio::sync::oneshot;

use crate::{ModelFiles, Result, RewriteError};

/// What to load, and where to compute.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// The model.
    pub files: ModelFiles,
    /// Processor (f32) or first GPU (bf16).
    pub device: Device,
    /// Weight format after loading; a GGUF file keeps its own.
    pub quantization: Quantization,
}

/// A running engine.
pub(crate) struct Loaded {
    pub(crate) runner: Arc<MistralRs>,
    /// Longest sequence in tokens.
    pub(crate) window: usize,
}

impl EngineSettings {
    /// The file to name in errors.
    fn path(&self) -> &Path {
        match &self.files {
            ModelFiles::Safetensors { config, .. } => config.parent().unwrap_or(config),
            ModelFiles::Gguf { weights, .. } => weights,
        }
    }

    fn check(&self) -> Result<()> {
        let (ModelFiles::Safetensors { tokenizer, .. } | ModelFiles::Gguf { tokenizer, .. }) = &self.files;
        let mut needed: Vec<PathBuf> = vec![tokenizer.clone()];
        match &self.files {
            ModelFiles::Safetensors { config, weights, adapter, .. } => {
                needed.push(config.clone());
                needed.extend(weights.iter().cloned());
                if let Some(dir) = adapter {
                    needed.extend([dir.join(ADAPTER_CONFIG), dir.join(ADAPTER_WEIGHTS)]);
                }
            }
            ModelFiles::Gguf { weights, .. } => {
                needed.push(weights.clone());
                if self.quantization != Quantization::None {
                    let reason = "a GGUF file has its format already: set it to \"none\"".to_owned();
                    return Err(RewriteError::Setting { field: "rewriter.quantization", reason });
                }
            }
        }
        match needed.iter().find(|path| !path.is_file()) {
            Some(path) => Err(RewriteError::load(path, "there is no such file")),
            None => Ok(()),
        }
    }
}

pub(crate) async fn load(settings: EngineSettings) -> Result<Loaded> {
    settings.check()?;
    let path = settings.path().to_owned();
    let (done, loaded) = oneshot::channel();
    let work = move || {
        let loaded = catch_unwind(AssertUnwindSafe(|| load_here(&settings)));
        let loaded = loaded.unwrap_or_else(|panic| Err(format!("the loader panicked: {}", message(&*panic))));
        let _ = done.send(loaded);
    };
    let thread = std::thread::Builder::new().name("rewriter-load".to_owned()).spawn(work);
    thread.map_err(|error| RewriteError::load(&path, format!("no thread to load it on: {error}")))?;
    let loaded = loaded.await.unwrap_or_else(|_| Err("the loading thread ended early".to_owned()));
    loaded.map_err(|reason| RewriteError::load(&path, reason))
}

fn load_here(settings: &EngineSettings) -> Result<Loaded, String> {
    let (device, dtype) = match settings.device {
        // the engine's own choice on a processor is f16, and bf16 fails every request there
        Device::Cpu => (candle_core::Device::Cpu, ModelDType::F32),
        Device::Cuda => (candle_core::Device::new_cuda(0).map_err(text)?, ModelDType::BF16),
    };
    let quantization = match settings.quantization {
        Quantization::None => None,
        Quantization::Q4k => Some(IsqType::Q4K),
        Quantization::Q6k => Some(IsqType::Q6K),
        Quantization::Q8_0 => Some(IsqType::Q8_0),
    };
    // the engine reads only the older layout of config.json; the copy must live until it has
    let copy = tempfile::NamedTempFile::new().map_err(|error| format!("no temporary file: {error}"))?;
    let (loader, paths) = prepare(&settings.files, copy.path())?;
    let pipeline = loader
        .load_model_from_path(&paths, &dtype, &device, true, DeviceMapSetting::dummy(), quantization, None)
        .map_err(|error| format!("{error:#}"))?;
    let sequences = NonZeroUsize::new(32).ok_or("the engine needs room for sequences")?;
    let scheduler = SchedulerConfig::DefaultScheduler { method: DefaultSchedulerMethod::Fixed(sequences) };
    // on a runtime of one thread the engine skips its own trial generation
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    // its prefix cache is never emptied on a processor
    let builder = MistralRsBuilder::new(pipeline, scheduler, false, None).with_no_prefix_cache(true);
    let runner = runtime.block_on(builder.build());
    let window = runner.max_sequence_length(None).map_err(text)?.ok_or("the model states no window")?;
    Ok(Loaded { runner, window })
}

/// What mistral.rs loads a model with: how to read it, and where its files are.
type Source = (Box<dyn Loader>, Box<dyn ModelPaths>);

fn prepare(files: &ModelFiles, config_copy: &Path) -> Result<Source, String> {
    let name = "rewriter".to_owned();
    // no template and no generation config: prompts come as tokens, and each request names its own end
    let paths = |tokenizer: &Path, config: &Path, filenames: Vec<PathBuf>, adapter_paths| LocalModelPaths {
        tokenizer_filename: tokenizer.to_owned(),
        config_filename: config.to_owned(),
        template_filename: None,
        filenames,
        adapter_paths,
        gen_conf: None,
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: None,
    };
    match files {
        ModelFiles::Safetensors { config, tokenizer, weights, adapter } => {
            let shape = Qwen3Config::read(config).map_err(text)?;
            std::fs::write(config_copy, shape.to_json().to_string()).map_err(text)?;
            let mut builder =
                NormalLoaderBuilder::new(NormalSpecificConfig::default(), None, None, Some(name), false, None);
            let mut adapters = AdapterPaths::None;
            if let Some(dir) = adapter {
                let settings = std::fs::read_to_string(dir.join(ADAPTER_CONFIG)).map_err(text)?;
                let lora_config =
                    serde_json::from_str(&settings).map_err(|error| format!("{ADAPTER_CONFIG}: {error}"))?;
                let one = LoraAdapterPaths { lora_config, adapter_path: dir.join(ADAPTER_WEIGHTS) };
                adapters = AdapterPaths::Lora(vec![one]);
                builder = builder.with_lora(vec!["adapter".to_owned()]);
            }
            let loader = builder.build(Some(NormalLoaderType::Qwen3)).map_err(|error| format!("{error:#}"))?;
            Ok((loader, Box::new(paths(tokenizer, config_copy, weights.clone(), adapters))))
        }
        ModelFiles::Gguf { weights, tokenizer } => {
            let file = weights.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder = weights.parent().unwrap_or(Path::new(".")).to_string_lossy().into_owned();
            let specific = GGUFSpecificConfig { topology: None };
            let loader = GGUFLoaderBuilder::new(None, None, folder, vec![file], specific, false, None).build();
            let paths = paths(tokenizer, config_copy, vec![weights.clone()], AdapterPaths::None);
            Ok((loader, Box::new(paths)))
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
