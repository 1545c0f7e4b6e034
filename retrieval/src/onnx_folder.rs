//! An ONNX model folder: `model.onnx`, the four tokenizer files of the hub, and `model.toml`.
use std::path::Path;

use fastembed::TokenizerFiles;
use serde::Deserialize;

use crate::error::RetrievalError;

/// `model.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OnnxManifest {
    /// How token vectors become one; not for rerankers.
    #[serde(default)]
    pub(crate) pooling: PoolingName,
    /// Size of a vector; not for rerankers.
    #[serde(default)]
    pub(crate) dimension: usize,
    /// Longest text in tokens.
    pub(crate) max_length: usize,
    /// Goes before queries.
    #[serde(default)]
    pub(crate) query_prefix: String,
    /// Goes before passages.
    #[serde(default)]
    pub(crate) passage_prefix: String,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PoolingName {
    #[default]
    Mean,
    Cls,
}

pub(crate) struct OnnxFolder {
    pub(crate) manifest: OnnxManifest,
    pub(crate) model: Vec<u8>,
    pub(crate) tokenizer: TokenizerFiles,
    pub(crate) identity: String,
}

impl OnnxFolder {
    pub(crate) fn read(dir: &Path, setting: &str) -> Result<Self, RetrievalError> {
        let fault = |file: &str, message: String| RetrievalError::Model {
            what: setting.to_owned(),
            message: format!("{}: {message}", dir.join(file).display()),
        };
        let bytes = |file: &str| std::fs::read(dir.join(file)).map_err(|error| fault(file, error.to_string()));
        let text = bytes("model.toml")?;
        let manifest: OnnxManifest = std::str::from_utf8(&text)
            .map_err(|error| fault("model.toml", error.to_string()))
            .and_then(|text| toml::from_str(text).map_err(|error| fault("model.toml", error.to_string())))?;
        let tokenizer = TokenizerFiles {
            tokenizer_file: bytes("tokenizer.json")?,
            config_file: bytes("config.json")?,
            special_tokens_map_file: bytes("special_tokens_map.json")?,
            tokenizer_config_file: bytes("tokenizer_config.json")?,
        };
        let model = bytes("model.onnx")?;
        let mut hash = blake3::Hasher::new();
        hash.update(&model).update(&text).update(&tokenizer.tokenizer_file);
        let identity = format!("onnx:{}", &hash.finalize().to_hex()[..32]);
        Ok(Self { manifest, model, tokenizer, identity })
    }
}

/// Threads of one model: half the machine, as the gateway has other work.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}
