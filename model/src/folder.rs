//! A model as a folder: the files of the hub, and `recast.toml` with what they do not say.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::config::Qwen3Config;
use crate::error::{ModelError, Result};
use crate::lora::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Lora};
use crate::prompt::{PromptRenderer, PromptSettings};
use crate::qwen3::Qwen3;
use crate::tokenizer::{ModelTokenizer, TOKENIZER};
use crate::weights::{Weights, read_safetensors, write_atomically, write_safetensors};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const MANIFEST: &str = "recast.toml";

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// Writes a retrieval query from a question and its context.
    Rewriter,
    /// Turns a text into one vector.
    Embedder,
    /// Turns a text into a vector a token, for late interaction.
    Reranker,
}

/// How an encoder of this project is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderSettings {
    /// Numbers of a vector.
    pub dimension: usize,
    /// Longest text in tokens; the rest is cut off.
    pub max_tokens: usize,
}

/// `recast.toml`: what this project adds to the files of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the model is for.
    pub kind: ModelKind,
    /// A short name for logs and reports.
    pub name: String,
    /// The command or recipe that made it, empty where unknown.
    #[serde(default)]
    pub trained_by: String,
    /// Layout and sizes of prompts, of a rewriter.
    #[serde(default)]
    pub prompt: PromptSettings,
    /// Sizes of an encoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<EncoderSettings>,
}

/// An opened model folder: everything but the weights, which are read on demand.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    dir: PathBuf,
    manifest: Manifest,
    config: Qwen3Config,
    tokenizer: Arc<ModelTokenizer>,
    identity: String,
}

impl ModelFolder {
    /// Opens a folder and checks its parts against each other.
    ///
    /// A folder of the hub has no `recast.toml`; it is taken as a rewriter with the chat layout.
    ///
    /// # Errors
    /// Names the file that is missing or damaged, and what belongs there.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(ModelError::Missing {
                path: dir.to_owned(),
                fix: "name an existing model folder, or train one",
            });
        }
        let config = Qwen3Config::read(&dir.join(CONFIG))?;
        let tokenizer = ModelTokenizer::read(&dir.join(TOKENIZER))?;
        if tokenizer.vocab_size() > config.vocab_size {
            let reason =
                format!("{} is less than the {} entries of {TOKENIZER}", config.vocab_size, tokenizer.vocab_size());
            return Err(ModelError::config("vocab_size", reason));
        }
        let manifest = read_manifest(dir)?;
        if let Some(encoder) = &manifest.encoder
            && (encoder.dimension == 0
                || encoder.max_tokens == 0
                || encoder.max_tokens > config.max_position_embeddings)
        {
            let reason =
                format!("dimension must be at least 1 and max_tokens at most {}", config.max_position_embeddings);
            return Err(ModelError::config("encoder", reason));
        }
        let window = manifest.prompt.max_prompt_tokens + manifest.prompt.max_new_tokens;
        if manifest.kind == ModelKind::Rewriter && window > config.max_position_embeddings {
            let reason = format!(
                "prompt and rewrite take {window} tokens, the model has {} positions",
                config.max_position_embeddings
            );
            return Err(ModelError::config("prompt.max_prompt_tokens", reason));
        }
        let identity = content_hash(dir)?;
        Ok(Self { dir: dir.to_owned(), manifest, config, tokenizer: Arc::new(tokenizer), identity })
    }

    /// Writes a whole model folder beside the target and renames it into place; an older folder there is replaced.
    ///
    /// # Errors
    /// Where the disk refuses, or the parts do not fit each other (checked by opening the result).
    pub fn save(
        dir: &Path,
        manifest: &Manifest,
        config: &Qwen3Config,
        weights: &Weights,
        tokenizer: &ModelTokenizer,
        adapter: Option<&Lora>,
    ) -> Result<Self> {
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(ModelError::io(parent))?;
        let beside = |what: &str| {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            parent.join(format!(".{name}.{what}{}", std::process::id()))
        };
        let (fresh, old) = (beside("new"), beside("old"));
        remove(&fresh)?;
        std::fs::create_dir(&fresh).map_err(ModelError::io(&fresh))?;
        let json = |name: &str, value: &serde_json::Value| {
            write_atomically(&fresh.join(name), format!("{value:#}\n").as_bytes())
        };
        let mut described = config.to_json();
        let half = weights.values().any(|weight| weight.dtype() == DType::F16);
        described["torch_dtype"] = if half { "float16" } else { "float32" }.into();
        json(CONFIG, &described)?;
        let ends = serde_json::json!({"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id});
        json(GENERATION_CONFIG, &ends)?;
        write_safetensors(&fresh.join(WEIGHTS), weights)?;
        tokenizer.write(&fresh, config.max_position_embeddings)?;
        let text = toml::to_string(manifest).map_err(|e| ModelError::corrupt(&fresh.join(MANIFEST), e))?;
        write_atomically(&fresh.join(MANIFEST), text.as_bytes())?;
        if let Some(adapter) = adapter {
            adapter.write(&fresh)?;
        }
        Self::open(&fresh)?;
        remove(&old)?;
        if dir.exists() {
            std::fs::rename(dir, &old).map_err(ModelError::io(dir))?;
        }
        std::fs::rename(&fresh, dir).map_err(ModelError::io(dir))?;
        remove(&old)?;
        Self::open(dir)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the model is for and how it is used.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Shape of the network.
    #[must_use]
    pub fn config(&self) -> &Qwen3Config {
        &self.config
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<ModelTokenizer> {
        &self.tokenizer
    }

    /// BLAKE3 (64 hex digits) over the files that decide what the model computes: two folders that compute the same
    /// have the same identity wherever they lie.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The weights, without an adapter that lies beside them.
    ///
    /// # Errors
    /// Where a file is missing or damaged.
    pub fn weights(&self, device: &Device) -> Result<Weights> {
        let mut weights = Weights::new();
        for file in weight_files(&self.dir)? {
            weights.append(&mut read_safetensors(&file, device)?);
        }
        Ok(weights)
    }

    /// The adapter beside the weights, where there is one.
    ///
    /// # Errors
    /// Where it is damaged or does not fit.
    pub fn adapter(&self, device: &Device) -> Result<Option<Lora>> {
        if !self.dir.join(ADAPTER_CONFIG).exists() {
            return Ok(None);
        }
        Lora::read(&self.dir, &self.config, device).map(Some)
    }

    /// The network for inference, an adapter of the folder merged.
    ///
    /// # Errors
    /// Where weights or adapter are missing or damaged.
    pub fn network(&self, device: &Device) -> Result<Qwen3> {
        let network = Qwen3::frozen(self.config.clone(), self.weights(device)?, device)?;
        match self.adapter(device)? {
            Some(adapter) => network.merged(&adapter),
            None => Ok(network),
        }
    }

    /// The network on the processor, see [`Self::network`].
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn cpu_network(&self) -> Result<Qwen3> {
        self.network(&Device::Cpu)
    }

    /// The renderer of this model's prompts.
    ///
    /// # Errors
    /// Where the tokenizer lacks a mark of the layout.
    pub fn renderer(&self) -> Result<PromptRenderer> {
        PromptRenderer::new(self.tokenizer.clone(), self.manifest.prompt)
    }
}

fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    if !path.exists() {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prompt = PromptSettings::default();
        return Ok(Manifest { kind: ModelKind::Rewriter, name, trained_by: String::new(), prompt, encoder: None });
    }
    let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    toml::from_str(&text).map_err(|e| ModelError::corrupt(&path, e))
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() { std::fs::remove_dir_all(dir).map_err(ModelError::io(dir)) } else { Ok(()) }
}

/// The one weight file, or the shards that an index names.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join(WEIGHTS);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join(WEIGHTS_INDEX);
    if !index.exists() {
        return Err(ModelError::Missing {
            path: single,
            fix: "a model folder needs model.safetensors, or shards with an index",
        });
    }
    let text = std::fs::read_to_string(&index).map_err(ModelError::io(&index))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| ModelError::corrupt(&index, e))?;
    let map = value.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| ModelError::corrupt(&index, "field weight_map is missing"))?;
    let names: std::collections::BTreeSet<&str> = map.values().filter_map(serde_json::Value::as_str).collect();
    // a name with a folder in it could read a file outside of the model
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(ModelError::corrupt(&index, format!("shard {name} is no plain file name")));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn content_hash(dir: &Path) -> Result<String> {
    let mut files = weight_files(dir)?;
    files.extend([CONFIG, TOKENIZER, MANIFEST, ADAPTER_CONFIG, ADAPTER_WEIGHTS].map(|name| dir.join(name)));
    let mut hasher = blake3::Hasher::new();
    for path in files {
        if !path.exists() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut file = std::fs::File::open(&path).map_err(ModelError::io(&path))?;
        let length = file.metadata().map_err(ModelError::io(&path))?.len();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(&length.to_le_bytes());
        hasher.update_reader(&mut file).map_err(ModelError::io(&path))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::LoraConfig;
    use crate::prompt::PromptStyle;
    use crate::vocabulary::{VocabularySettings, train_tokenizer};
    use crate::weights::init;

    fn tiny(dir: &Path, seed: u64) -> Result<ModelFolder> {
        let tokenizer = train_tokenizer(&[], "胶原", VocabularySettings { entries: 300, words: 0 }).unwrap();
        let config = Qwen3Config {
            vocab_size: 300,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 64,
            tie_word_embeddings: true,
            eos_token_id: tokenizer.mark("<|im_end|>"),
            bos_token_id: None,
            pad_token_id: tokenizer.mark("<pad>"),
            causal: true,
        };
        let prompt = PromptSettings {
            style: PromptStyle::Compact,
            max_prompt_tokens: 40,
            max_new_tokens: 24,
            tenant_tag: false,
        };
        let manifest = Manifest {
            kind: ModelKind::Rewriter,
            name: "tiny".into(),
            trained_by: "test".into(),
            prompt,
            encoder: None,
        };
        let weights = init(&config, seed, &Device::Cpu)?;
        let adapter = Lora::init(&LoraConfig::all_linears(2, 4.0), &config, seed, &Device::Cpu)?;
        ModelFolder::save(dir, &manifest, &config, &weights, &tokenizer, Some(&adapter))
    }

    #[test]
    fn a_saved_folder_opens_with_the_same_content() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("models/rewriter");
        let first = tiny(&dir, 1).unwrap();
        assert_eq!(first.manifest().prompt.style, PromptStyle::Compact);
        assert!(first.network(&Device::Cpu).is_ok() && first.renderer().is_ok());
        assert!(first.adapter(&Device::Cpu).unwrap().is_some());
        assert_eq!(tiny(&root.path().join("elsewhere"), 1).unwrap().identity(), first.identity());
        let second = tiny(&dir, 2).unwrap();
        assert_ne!(second.identity(), first.identity());
        let left: Vec<_> = std::fs::read_dir(root.path().join("models")).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary folder stays");
    }

    #[test]
    fn weights_of_16_bits_are_read_as_numbers_of_32() {
        let root = tempfile::tempdir().unwrap();
        let first = tiny(&root.path().join("a"), 1).unwrap();
        let weights = first.weights(&Device::Cpu).unwrap();
        let half = weights.iter().map(|(name, w)| (name.clone(), w.to_dtype(DType::F16).unwrap())).collect();
        let tokenizer = first.tokenizer();
        let dir = root.path().join("b");
        let second = ModelFolder::save(&dir, first.manifest(), first.config(), &half, tokenizer, None).unwrap();
        assert!(std::fs::read_to_string(dir.join(CONFIG)).unwrap().contains("\"float16\""));
        for (name, read) in second.weights(&Device::Cpu).unwrap() {
            let error = (read - &weights[&name]).unwrap().abs().unwrap().max_all().unwrap();
            assert!(error.to_scalar::<f32>().unwrap() < 1e-3, "{name}");
        }
    }

    #[test]
    fn damage_is_named_by_file() {
        let root = tempfile::tempdir().unwrap();
        let message = |change: &dyn Fn(&Path)| {
            let dir = root.path().join("model");
            tiny(&dir, 1).unwrap();
            change(&dir);
            let opened = ModelFolder::open(&dir).and_then(|folder| folder.network(&Device::Cpu));
            opened.unwrap_err().to_string()
        };
        for name in [CONFIG, TOKENIZER, WEIGHTS] {
            let found = message(&|dir| std::fs::remove_file(dir.join(name)).unwrap());
            assert!(found.contains(name) && found.contains("missing"), "{found}");
            let found = message(&|dir| {
                let bytes = std::fs::read(dir.join(name)).unwrap();
                std::fs::write(dir.join(name), &bytes[..bytes.len() / 2]).unwrap();
            });
            assert!(found.contains(name) && found.contains("cannot be read"), "{found}");
        }
        let found = message(&|dir| std::fs::write(dir.join(MANIFEST), "kind = \"poet\"\nname = \"x\"").unwrap());
        assert!(found.contains(MANIFEST), "{found}");
        assert!(ModelFolder::open(&root.path().join("nowhere")).unwrap_err().to_string().contains("nowhere"));
    }

    #[test]
    fn shards_are_read_through_their_index() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("model");
        let folder = tiny(&dir, 1).unwrap();
        let whole = folder.weights(&Device::Cpu).unwrap();
        let mut map = serde_json::Map::new();
        for (i, (name, tensor)) in whole.iter().enumerate() {
            let shard = format!("model-{}.safetensors", i % 2);
            map.insert(name.clone(), shard.into());
            let mut part = read_safetensors(&dir.join(map[name].as_str().unwrap()), &Device::Cpu).unwrap_or_default();
            part.insert(name.clone(), tensor.clone());
            write_safetensors(&dir.join(map[name].as_str().unwrap()), &part).unwrap();
        }
        std::fs::remove_file(dir.join(WEIGHTS)).unwrap();
        std::fs::write(dir.join(WEIGHTS_INDEX), serde_json::json!({"weight_map": map}).to_string()).unwrap();
        assert_eq!(ModelFolder::open(&dir).unwrap().weights(&Device::Cpu).unwrap().len(), whole.len());
    }
}
