//! The shape of a Qwen3, as `config.json` says it.
//!
//! Reads both layouts of the wild (top-level `rope_theta`, and `rope_parameters.rope_theta` of transformers 5) and
//! writes the older one, because the serving engine refuses a file without `rope_theta` and `max_window_layers`.
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{ModelError, Result};

/// Shape and constants of a Qwen3 network.
#[derive(Debug, Clone, PartialEq)]
pub struct Qwen3Config {
    /// Entries of the token embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads a layer.
    pub num_attention_heads: usize,
    /// Key and value heads a layer; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head (even, for the rotation).
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon inside every RMS norm.
    pub rms_norm_eps: f64,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the token embedding.
    pub tie_word_embeddings: bool,
    /// Token that ends a completion.
    pub eos_token_id: Option<u32>,
    /// Token that starts a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Token that fills a batch.
    pub pad_token_id: Option<u32>,
    /// Whether a token sees only those before it. Encoders of this project may set false.
    pub causal: bool,
}

impl Qwen3Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// Where the file is absent, is no JSON, lacks a field, or fails [`Qwen3Config::validate`].
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(ModelError::Missing { path: path.to_owned(), fix: "a model folder needs its config.json" });
        }
        let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| ModelError::corrupt(path, e))?;
        Self::from_json(&value)
    }

    /// Reads the fields from parsed JSON.
    ///
    /// # Errors
    /// Where a field is absent or wrong; the message names it.
    pub fn from_json(value: &Value) -> Result<Self> {
        if let Some(kind) = value.get("model_type").and_then(Value::as_str)
            && kind != "qwen3"
        {
            return Err(ModelError::config("model_type", format!("{kind} is not supported, use a qwen3 model")));
        }
        if value.get("attention_bias").and_then(Value::as_bool) == Some(true) {
            return Err(ModelError::config("attention_bias", "true is not supported, qwen3 has no attention bias"));
        }
        if value.get("use_sliding_window").and_then(Value::as_bool) == Some(true) {
            return Err(ModelError::config("use_sliding_window", "true is not supported, set it to false"));
        }
        let hidden_size = size(value, "hidden_size")?;
        let num_attention_heads = size(value, "num_attention_heads")?;
        let head_dim = match value.get("head_dim") {
            None | Some(Value::Null) => hidden_size / num_attention_heads.max(1),
            Some(_) => size(value, "head_dim")?,
        };
        let config = Self {
            vocab_size: size(value, "vocab_size")?,
            hidden_size,
            intermediate_size: size(value, "intermediate_size")?,
            num_hidden_layers: size(value, "num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: match value.get("num_key_value_heads") {
                None | Some(Value::Null) => num_attention_heads,
                Some(_) => size(value, "num_key_value_heads")?,
            },
            head_dim,
            rope_theta: rope_theta(value)?,
            rms_norm_eps: value.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
            max_position_embeddings: size(value, "max_position_embeddings")?,
            tie_word_embeddings: value.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            eos_token_id: token(value, "eos_token_id"),
            bos_token_id: token(value, "bos_token_id"),
            pad_token_id: token(value, "pad_token_id"),
            causal: value.pointer("/recast/causal").and_then(Value::as_bool).unwrap_or(true),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Names the first field that does not fit and says what would.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        if let Some((field, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::config(field, "must be at least 1"));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            let reason = format!(
                "{} does not divide num_attention_heads {}",
                self.num_key_value_heads, self.num_attention_heads
            );
            return Err(ModelError::config("num_key_value_heads", reason));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ModelError::config(
                "head_dim",
                format!("{} is odd, the rotation needs an even width", self.head_dim),
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return Err(ModelError::config(
                "rope_theta",
                format!("{} must be a finite number above 1", self.rope_theta),
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(ModelError::config("rms_norm_eps", format!("{} must be above 0", self.rms_norm_eps)));
        }
        let tokens = [
            ("eos_token_id", self.eos_token_id),
            ("bos_token_id", self.bos_token_id),
            ("pad_token_id", self.pad_token_id),
        ];
        for (field, id) in tokens {
            if id.is_some_and(|id| id as usize >= self.vocab_size) {
                return Err(ModelError::config(field, format!("lies outside vocab_size {}", self.vocab_size)));
            }
        }
        Ok(())
    }

    /// Width of all query heads together.
    #[must_use]
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Number of weights, the head counted once where it is tied.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let attention = 2 * self.hidden_size * (self.query_size() + self.key_value_size());
        let layer =
            attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size + 2 * self.head_dim;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 } * self.vocab_size * self.hidden_size;
        embeddings + self.num_hidden_layers * layer + self.hidden_size
    }

    /// The older `config.json` layout, which every reader we know accepts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "max_window_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": self.rope_theta,
            "sliding_window": null,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "use_sliding_window": false,
            "vocab_size": self.vocab_size,
            "recast": { "causal": self.causal },
        })
    }
}

fn size(value: &Value, field: &str) -> Result<usize> {
    let found = value.get(field).ok_or_else(|| ModelError::config(field, "is missing"))?;
    let number = found.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| ModelError::config(field, format!("{found} is no whole number")))
}

/// Hub files give one id or a list of them; the first ends a completion.
fn token(value: &Value, field: &str) -> Option<u32> {
    let found = value.get(field)?;
    let first = found.as_array().and_then(|ids| ids.first()).unwrap_or(found);
    first.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn rope_theta(value: &Value) -> Result<f64> {
    let scaling = value.get("rope_scaling").filter(|scaling| !scaling.is_null());
    if let Some(scaling) = scaling {
        return Err(ModelError::config("rope_scaling", format!("{scaling} is not supported, set it to null")));
    }
    if let Some(kind) = value.pointer("/rope_parameters/rope_type").and_then(Value::as_str)
        && kind != "default"
    {
        return Err(ModelError::config("rope_parameters.rope_type", format!("{kind} is not supported, use default")));
    }
    let found = value.pointer("/rope_parameters/rope_theta").or_else(|| value.get("rope_theta"));
    let found = found.ok_or_else(|| ModelError::config("rope_theta", "is missing, here and under rope_parameters"))?;
    found.as_f64().ok_or_else(|| ModelError::config("rope_theta", format!("{found} is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Value {
        json!({
            "model_type": "qwen3", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128,
            "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}, "eos_token_id": [1, 2],
        })
    }

    fn message(change: impl FnOnce(&mut Value)) -> String {
        let mut value = small();
        change(&mut value);
        Qwen3Config::from_json(&value).unwrap_err().to_string()
    }

    #[test]
    fn both_places_of_rope_theta_are_read_and_the_older_is_written() {
        let config = Qwen3Config::from_json(&small()).unwrap();
        assert_eq!(config.rope_theta, 5000.0);
        assert_eq!(config.eos_token_id, Some(1));
        let written = config.to_json();
        assert_eq!(written["rope_theta"], 5000.0);
        assert_eq!(written["max_window_layers"], 2);
        assert_eq!(Qwen3Config::from_json(&written).unwrap(), config);
    }

    #[test]
    fn errors_name_the_field() {
        assert!(message(|v| v["num_key_value_heads"] = json!(3)).contains("num_key_value_heads"));
        assert!(message(|v| v["head_dim"] = json!(7)).contains("head_dim"));
        assert!(message(|v| v["model_type"] = json!("llama")).contains("llama"));
        assert!(message(|v| v["hidden_size"] = json!("x")).contains("hidden_size"));
        assert!(message(|v| v["rope_scaling"] = json!({"type": "yarn"})).contains("rope_scaling"));
        assert!(message(|v| v["eos_token_id"] = json!(64)).contains("eos_token_id"));
    }

    #[test]
    fn an_encoder_keeps_its_missing_mask() {
        let mut config = Qwen3Config::from_json(&small()).unwrap();
        config.causal = false;
        assert!(!Qwen3Config::from_json(&config.to_json()).unwrap().causal);
    }
}
