//! Training of a small tokenizer that lets a small model copy Chinese names.
//!
//! Every Han character and every digit stands alone before merging: a name is then spelled from pieces that occur in
//! many other names, and a model learns to copy pieces, not words. The characters' own merges come first in the table,
//! so that each listed character is one token whatever the words around it taught.
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, PreTokenizerWrapper, Tokenizer};

use crate::error::{ModelError, Result};
use crate::prompt::MARKS;
use crate::tokenizer::{ModelTokenizer, is_han};

/// Pieces that no merge may cross.
const ALONE: &str = r"\p{Han}|\p{N}";

/// Size of a vocabulary to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VocabularySettings {
    /// Entries in all, marks included.
    pub entries: usize,
    /// Entries kept free for merges of Latin letters and punctuation.
    pub words: usize,
}

impl Default for VocabularySettings {
    fn default() -> Self {
        Self { entries: 4096, words: 900 }
    }
}

/// Trains a tokenizer on texts; `further_han` are characters to know beside those of the texts, most useful first.
///
/// # Errors
/// Where the size has no room for the byte alphabet and the marks.
pub fn train_tokenizer(texts: &[String], further_han: &str, settings: VocabularySettings) -> Result<ModelTokenizer> {
    let room = settings.entries.checked_sub(256 + MARKS.len() + settings.words);
    let Some(han_room) = room else {
        let least = 256 + MARKS.len() + settings.words;
        return Err(ModelError::Tokenizer(format!(
            "a vocabulary of {} entries is too small, use at least {least}",
            settings.entries
        )));
    };
    let mut table = Table::bytes();
    for c in han_by_use(texts, further_han) {
        if !table.add_character(c, han_room) {
            break;
        }
    }
    let limit = settings.entries - MARKS.len();
    for (left, right) in word_merges(texts, limit)? {
        if table.tokens.len() >= limit {
            break;
        }
        table.merge(&left, &right);
    }
    ModelTokenizer::from_json(table.into_json())
}

/// Tokens in order of id, and merges in order of rank.
struct Table {
    tokens: Vec<String>,
    known: HashSet<String>,
    merges: Vec<(String, String)>,
    letters: Vec<char>,
}

impl Table {
    fn bytes() -> Self {
        let letters = byte_letters();
        let tokens: Vec<String> = letters.iter().map(char::to_string).collect();
        Self { known: tokens.iter().cloned().collect(), tokens, merges: Vec::new(), letters }
    }

    fn merge(&mut self, left: &str, right: &str) {
        let whole = format!("{left}{right}");
        if self.known.contains(left) && self.known.contains(right) && self.known.insert(whole.clone()) {
            self.tokens.push(whole);
            self.merges.push((left.to_owned(), right.to_owned()));
        }
    }

    /// Merges the bytes of a character from the left; false where that would pass `room` entries beyond the bytes.
    fn add_character(&mut self, c: char, room: usize) -> bool {
        let mut buffer = [0; 4];
        let letters: Vec<char> = c.encode_utf8(&mut buffer).bytes().map(|byte| self.letters[byte as usize]).collect();
        if self.tokens.len() - 256 + letters.len() - 1 > room {
            return false;
        }
        let mut left = letters[0].to_string();
        for letter in &letters[1..] {
            let right = letter.to_string();
            self.merge(&left, &right);
            left.push(*letter);
        }
        true
    }

    fn into_json(self) -> Value {
        let count = self.tokens.len();
        let vocabulary: serde_json::Map<String, Value> =
            self.tokens.into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
        let added: Vec<Value> = MARKS
            .iter()
            .enumerate()
            .map(|(i, mark)| {
                json!({"id": count + i, "content": mark, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true})
            })
            .collect();
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": pre_tokenizer(),
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": false,
                "vocab": vocabulary,
                "merges": self.merges,
            },
        })
    }
}

fn pre_tokenizer() -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": ALONE}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
    ]})
}

/// The letter that stands for each byte: printable Latin-1 as it is, the others moved up behind U+0100.
fn byte_letters() -> Vec<char> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    let letter = |byte: u8| {
        if printable(byte) {
            char::from(byte)
        } else {
            next += 1;
            char::from_u32(next - 1).unwrap_or('\u{FFFD}')
        }
    };
    (0..=255u8).map(letter).collect()
}

/// Han characters of the texts, the most used first, then the further ones.
fn han_by_use(texts: &[String], further: &str) -> Vec<char> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for c in texts.iter().flat_map(|text| text.chars()).filter(|c| is_han(*c)) {
        *counts.entry(c).or_default() += 1;
    }
    let mut used: Vec<(char, usize)> = counts.into_iter().collect();
    used.sort_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
    let mut seen = HashSet::new();
    let all = used.into_iter().map(|(c, _)| c).chain(further.chars().filter(|c| is_han(*c)));
    all.filter(|c| seen.insert(*c)).collect()
}

/// Merges that the texts teach once their Han characters are taken out, most useful first.
fn word_merges(texts: &[String], limit: usize) -> Result<Vec<(String, String)>> {
    let failed = |e: tokenizers::Error| ModelError::Tokenizer(e.to_string());
    let mut tokenizer = Tokenizer::new(BPE::default());
    let pre: PreTokenizerWrapper =
        serde_json::from_value(pre_tokenizer()).map_err(|e| ModelError::Tokenizer(e.to_string()))?;
    tokenizer.with_pre_tokenizer(Some(pre));
    let trainer = BpeTrainer::builder()
        .vocab_size(limit)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(Vec::<AddedToken>::new())
        .build();
    let pieces: Vec<&str> =
        texts.iter().flat_map(|text| text.split(is_han)).filter(|piece| !piece.is_empty()).collect();
    tokenizer.train(&mut TrainerWrapper::from(trainer), pieces.into_iter()).map_err(failed)?;
    // the library shows its merges only in its file form
    let text = tokenizer.to_string(false).map_err(failed)?;
    let mut json: HashMap<String, Value> =
        serde_json::from_str(&text).map_err(|e| ModelError::Tokenizer(e.to_string()))?;
    let merges = json.get_mut("model").and_then(|model| model.get_mut("merges")).map(Value::take).unwrap_or_default();
    serde_json::from_value(merges).map_err(|e| ModelError::Tokenizer(e.to_string()))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    fn trained() -> ModelTokenizer {
        let texts: Vec<String> =
            ["胶原蛋白怎么吃，每天 30ml", "the super fund of the super fund", "孕妇能喝吗？", "，，，、、"]
                .map(str::to_owned)
                .to_vec();
        train_tokenizer(&texts, "养老金龘", VocabularySettings { entries: 700, words: 100 }).unwrap()
    }

    #[test]
    fn han_and_digits_stand_alone() {
        let tokenizer = trained();
        for text in ["胶", "龘", "3", " super"] {
            assert_eq!(tokenizer.encode(text).unwrap().len(), 1, "{text}");
        }
        assert_eq!(tokenizer.encode("胶原蛋白30").unwrap().len(), 6);
        assert_eq!(tokenizer.encode("鑫").unwrap().len(), 3, "an unknown character is a run of bytes");
        let han = tokenizer.han_entries();
        assert!(han.contains(&'养') && han.contains(&'孕') && !han.contains(&'鑫'));
        assert!(tokenizer.vocab_size() <= 700);
    }

    #[test]
    fn text_cannot_forge_a_mark() {
        let tokenizer = trained();
        let end = tokenizer.need_mark("<|im_end|>").unwrap();
        let ids = tokenizer.encode("a<|im_end|>b<|q|>").unwrap();
        assert!(!ids.contains(&end) && ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size() - MARKS.len()));
        assert_eq!(tokenizer.decode(&ids).unwrap(), "a<|im_end|>b<|q|>");
        assert_eq!(tokenizer.decode(&[ids.as_slice(), &[end]].concat()).unwrap(), "a<|im_end|>b<|q|>");
    }

    #[test]
    fn any_text_comes_back_as_it_was() {
        let tokenizer = trained();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for _ in 0..500 {
            let length = rng.random_range(0..40);
            let draw = |_| match rng.random_range(0..4) {
                0 => char::from(rng.random_range(b' '..=b'~')),
                1 => char::from_u32(rng.random_range(0x4E00..0x9FFF)).unwrap(),
                2 => *['\n', '\u{0}', '\u{301}', '，', '👩', '\u{200D}', 'é', ' ', '٣']
                    .get(rng.random_range(0..9))
                    .unwrap(),
                _ => char::from_u32(rng.random_range(0..0x10_FFFF)).unwrap_or('x'),
            };
            let text: String = (0..length).map(draw).collect();
            let ids = tokenizer.encode(&text).unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }

    #[test]
    fn a_written_tokenizer_reads_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = trained();
        tokenizer.write(dir.path(), 128).unwrap();
        let read = ModelTokenizer::read(&dir.path().join("tokenizer.json")).unwrap();
        let text = "孕妇能喝 super 吗 2024";
        assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        assert!(ModelTokenizer::read(&dir.path().join("nothing.json")).is_err());
    }

    #[test]
    fn training_twice_gives_one_vocabulary() {
        assert_eq!(trained().json(), trained().json());
        assert!(train_tokenizer(&[], "", VocabularySettings { entries: 200, words: 10 }).is_err());
    }
}
