//! Byte-level BPE in the `tokenizer.json` form that every Qwen3 folder has.
//!
//! Text of a user and marks of the prompt never meet: [`ModelTokenizer::encode`] knows no added token at all, so that no
//! text can forge one; marks are asked for by name.
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::error::{ModelError, Result};
use crate::weights::write_atomically;

/// File of the vocabulary and merges.
pub const TOKENIZER: &str = "tokenizer.json";
/// File with the chat template and the names of special tokens.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The chat layout of Qwen3 without tools, which the serving engine wants to see in a folder.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + \
    '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A tokenizer with its marks.
#[derive(Debug, Clone)]
pub struct ModelTokenizer {
    /// Without added tokens: plain text in, plain tokens out.
    text: Tokenizer,
    /// With added tokens: to find marks and to decode.
    full: Tokenizer,
    json: Value,
}

impl ModelTokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// Where the file is absent or no tokenizer.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(ModelError::Missing { path: path.to_owned(), fix: "a model folder needs its tokenizer.json" });
        }
        let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
        let value = serde_json::from_str(&text).map_err(|e| ModelError::corrupt(path, e))?;
        Self::from_json(value).map_err(|e| ModelError::corrupt(path, e))
    }

    /// Builds a tokenizer from parsed `tokenizer.json`.
    ///
    /// # Errors
    /// Where the JSON is no tokenizer.
    pub fn from_json(json: Value) -> Result<Self> {
        let mut plain = json.clone();
        plain["added_tokens"] = json!([]);
        // templates of some hub files name added tokens, and add marks that the renderer adds itself
        plain["post_processor"] = Value::Null;
        plain["truncation"] = Value::Null;
        plain["padding"] = Value::Null;
        let build =
            |json: &Value| Tokenizer::from_bytes(json.to_string()).map_err(|e| ModelError::Tokenizer(e.to_string()));
        Ok(Self { text: build(&plain)?, full: build(&json)?, json })
    }

    /// Token ids of a text, with nothing added and no mark recognised.
    ///
    /// # Errors
    /// Where the tokenizer has no token for a part of the text; byte-level vocabularies have one for every text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.text.encode_fast(text, false).map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of token ids, marks left out.
    ///
    /// # Errors
    /// Where the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.full.decode(ids, true).map_err(|e| ModelError::Tokenizer(e.to_string()))
    }

    /// Text of token ids with the marks written out.
    ///
    /// # Errors
    /// Where the decoder fails.
    pub fn decode_with_marks(&self, ids: &[u32]) -> Result<String> {
        self.full.decode(ids, false).map_err(|e| ModelError::Tokenizer(e.to_string()))
    }

    /// Id of a mark such as `<|im_end|>`, where the tokenizer has it.
    #[must_use]
    pub fn mark(&self, name: &str) -> Option<u32> {
        self.full.get_added_vocabulary().get_vocab().get(name).copied()
    }

    /// Id of a mark that must exist.
    ///
    /// # Errors
    /// Where the tokenizer lacks it.
    pub fn need_mark(&self, name: &str) -> Result<u32> {
        self.mark(name).ok_or_else(|| ModelError::Tokenizer(format!("the vocabulary has no token {name}")))
    }

    /// Number of entries, marks included; the embedding of a model must have at least as many rows.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        let ids = self.full.get_vocab(true).into_values();
        ids.max().map_or(0, |most| most as usize + 1)
    }

    /// The Han characters that are one token, in order of their ids: what a small model can copy safely.
    #[must_use]
    pub fn han_entries(&self) -> Vec<char> {
        let mut entries: Vec<(u32, char)> = Vec::new();
        for id in self.text.get_vocab(false).into_values() {
            let Ok(text) = self.text.decode(&[id], false) else { continue };
            let mut chars = text.chars();
            if let (Some(c), None) = (chars.next(), chars.next())
                && is_han(c)
            {
                entries.push((id, c));
            }
        }
        entries.sort_unstable();
        entries.into_iter().map(|(_, c)| c).collect()
    }

    /// Content of `tokenizer.json`.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Content of a `tokenizer_config.json` with a chat template.
    #[must_use]
    pub fn config_json(&self, max_tokens: usize) -> Value {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_tokens,
            "bos_token": null,
            "eos_token": "<|im_end|>",
            "pad_token": "<pad>",
            "unk_token": null,
            "add_bos_token": false,
            "add_prefix_space": false,
            "clean_up_tokenization_spaces": false,
            "chat_template": CHAT_TEMPLATE,
        })
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a folder.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn write(&self, dir: &Path, max_tokens: usize) -> Result<()> {
        write_atomically(&dir.join(TOKENIZER), self.json.to_string().as_bytes())?;
        let config = format!("{:#}\n", self.config_json(max_tokens));
        write_atomically(&dir.join(TOKENIZER_CONFIG), config.as_bytes())
    }
}

/// Whether a character is written Chinese: the unified ideographs with their extensions, and the few signs like `〇`.
#[must_use]
pub fn is_han(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAD9}' | '\u{20000}'..='\u{323AF}'
        | '\u{3005}' | '\u{3007}' | '\u{2E80}'..='\u{2FD5}')
}
