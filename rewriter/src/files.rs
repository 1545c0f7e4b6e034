//! Which files a model consists of, checked before the engine sees them: given a wrong path it asks the network, and
//! given a wrong file it may panic.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use recast_domain::PolicyId;
use recast_model::{
    ADAPTER_CONFIG, ADAPTER_WEIGHTS, Lora, Manifest, ModelFolder, ModelKind, ModelTokenizer, PromptRenderer,
    PromptSettings, Qwen3Config,
};

use crate::{Result, RewriteError};

/// The files that the engine loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFiles {
    /// A folder of the hub.
    Safetensors {
        /// `config.json`, in the older or the newer layout.
        config: PathBuf,
        /// `tokenizer.json`.
        tokenizer: PathBuf,
        /// One file, or all shards.
        weights: Vec<PathBuf>,
        /// A PEFT folder whose matrices are added into the weights at load.
        adapter: Option<PathBuf>,
    },
    /// A quantised file.
    Gguf {
        /// The file.
        weights: PathBuf,
        /// `tokenizer.json` beside it.
        tokenizer: PathBuf,
    },
}

/// A rewriter model on disk: its files, its prompt, its name as a policy.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// Folder or file that was named.
    pub path: PathBuf,
    /// What the engine loads.
    pub files: ModelFiles,
    /// Renders prompts and reads rewrites.
    pub renderer: PromptRenderer,
    /// Name and hash of everything that decides what the model writes.
    pub policy: PolicyId,
    /// Shape of the network; `None` for a GGUF file, which carries its own.
    pub config: Option<Qwen3Config>,
}

impl ModelSource {
    /// Finds and checks the files of a model: a folder with safetensors, a `.gguf` file, or a folder with one. An
    /// adapter given here replaces one that lies in the folder.
    ///
    /// # Errors
    /// Names the file that is missing or damaged.
    pub fn open(path: &Path, adapter: Option<&Path>) -> Result<Self> {
        match gguf_file(path)? {
            Some(file) => Self::open_gguf(path, file, adapter),
            None => Self::open_folder(path, adapter),
        }
    }

    fn open_folder(path: &Path, adapter: Option<&Path>) -> Result<Self> {
        let folder = ModelFolder::open(path)?;
        if folder.manifest().kind != ModelKind::Rewriter {
            return Err(RewriteError::load(
                path,
                "its recast.toml says that it is no rewriter: set rewriter.model to one",
            ));
        }
        let own = path.join(ADAPTER_CONFIG).exists().then_some(path);
        let merged = adapter.or(own);
        if let Some(dir) = merged {
            // the engine ignores what it does not know in an adapter; this reader refuses it
            Lora::read(dir, folder.config(), &candle_core::Device::Cpu)?;
        }
        let mut identity = folder.identity().to_owned();
        if let Some(dir) = adapter {
            identity = hash_of(&[dir.join(ADAPTER_CONFIG), dir.join(ADAPTER_WEIGHTS)], &identity)?;
        }
        let files = ModelFiles::Safetensors {
            config: path.join("config.json"),
            tokenizer: path.join("tokenizer.json"),
            weights: weight_files(path)?,
            adapter: merged.map(Path::to_owned),
        };
        Ok(Self {
            path: path.to_owned(),
            files,
            renderer: folder.renderer()?,
            policy: policy(&folder.manifest().name, &identity)?,
            config: Some(folder.config().clone()),
        })
    }

    fn open_gguf(path: &Path, weights: PathBuf, adapter: Option<&Path>) -> Result<Self> {
        if adapter.is_some() {
            return Err(RewriteError::load(
                path,
                "the engine merges no adapter into a GGUF file: clear rewriter.adapter",
            ));
        }
        let folder = weights.parent().unwrap_or(Path::new("."));
        let tokenizer_file = folder.join("tokenizer.json");
        let tokenizer = ModelTokenizer::read(&tokenizer_file)?;
        let manifest = folder.join("recast.toml");
        let mut prompt = PromptSettings::default();
        let mut parts = vec![weights.clone(), tokenizer_file.clone()];
        if manifest.exists() {
            let text = std::fs::read_to_string(&manifest).map_err(|error| RewriteError::load(&manifest, error))?;
            let parsed: Manifest = toml::from_str(&text).map_err(|error| RewriteError::load(&manifest, error))?;
            prompt = parsed.prompt;
            parts.push(manifest);
        }
        let name = weights.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self {
            path: path.to_owned(),
            renderer: PromptRenderer::new(Arc::new(tokenizer), prompt)?,
            policy: policy(&name, &hash_of(&parts, "")?)?,
            files: ModelFiles::Gguf { weights, tokenizer: tokenizer_file },
            config: None,
        })
    }
}

/// The GGUF file that a path names: itself, or the only one in a folder without safetensors.
fn gguf_file(path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if is_gguf(path) {
        if !path.is_file() {
            return Err(RewriteError::load(
                path,
                "there is no such file: set rewriter.model to a model folder or a .gguf file",
            ));
        }
        return Ok(Some(path.to_owned()));
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Ok(None) };
    if path.join("model.safetensors").exists() || path.join("model.safetensors.index.json").exists() {
        return Ok(None);
    }
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_gguf(path)).collect();
    found.sort();
    match found.len() {
        0 => Ok(None),
        1 => Ok(found.pop()),
        count => {
            Err(RewriteError::load(path, format!("it holds {count} .gguf files: name one of them in rewriter.model")))
        }
    }
}

/// `model.safetensors`, or the shards that the index names.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).map_err(|error| RewriteError::load(&index, error))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| RewriteError::load(&index, error))?;
    let map = value.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| RewriteError::load(&index, "field weight_map is missing"))?;
    let names: std::collections::BTreeSet<&str> = map.values().filter_map(serde_json::Value::as_str).collect();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// BLAKE3 over files and a text, 64 hex digits.
fn hash_of(files: &[PathBuf], text: &str) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    for path in files {
        let file = std::fs::File::open(path).map_err(|error| RewriteError::load(path, error))?;
        let length = file.metadata().map_err(|error| RewriteError::load(path, error))?.len();
        hasher.update(&length.to_le_bytes());
        hasher.update_reader(file).map_err(|error| RewriteError::load(path, error))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// `name-0123456789ab`, the name made fit for an identifier.
fn policy(name: &str, identity: &str) -> Result<PolicyId> {
    let legal =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(legal).take(60).collect();
    let name = if name.is_empty() { "rewriter" } else { &name };
    let id = format!("{name}-{}", identity.get(..12).unwrap_or(identity));
    id.parse().map_err(|error| RewriteError::Engine(format!("{error}")))
}
