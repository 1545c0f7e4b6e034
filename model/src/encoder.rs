//! Texts as vectors: one a text for search, or one a token for late interaction. The network is the same Qwen3.
use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::batch::Batch;
use crate::error::{ModelError, Result};
use crate::folder::{EncoderSettings, ModelFolder};
use crate::ops;
use crate::qwen3::Qwen3;
use crate::tokenizer::ModelTokenizer;

/// Name of the optional matrix `[dimension, hidden]` behind the network.
pub const PROJECTION: &str = "projection.weight";

/// Most tokens of a batch, filling included: bounds the memory of an ingest.
const BATCH_TOKENS: usize = 4096;

/// The vectors of a text's tokens, each of length one, as rows.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenVectors {
    /// Numbers of a vector.
    pub dimension: usize,
    /// `tokens * dimension` numbers.
    pub numbers: Vec<f32>,
}

impl TokenVectors {
    /// The vectors, one a token.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.dimension.max(1))
    }
}

/// Late interaction (ColBERT): the mean over query tokens of the best match among the passage's tokens, in `[-1, 1]`.
/// Zero where either side has no token.
#[must_use]
pub fn max_sim(query: &TokenVectors, passage: &TokenVectors) -> f32 {
    let count = query.iter().count();
    if count == 0 || passage.numbers.is_empty() {
        return 0.0;
    }
    let best =
        |token: &[f32]| passage.iter().map(|other| ops::lane::dot(token, other)).fold(f32::NEG_INFINITY, f32::max);
    query.iter().map(best).sum::<f32>() / count as f32
}

/// A text encoder.
#[derive(Debug, Clone)]
pub struct Encoder {
    model: Qwen3,
    tokenizer: Arc<ModelTokenizer>,
    settings: EncoderSettings,
    identity: String,
}

impl Encoder {
    /// Opens the encoder of a folder, ready for inference.
    ///
    /// # Errors
    /// Where the folder holds no encoder, or a part is missing or damaged.
    pub fn open(folder: &ModelFolder, device: &Device) -> Result<Self> {
        let settings = folder
            .manifest()
            .encoder
            .ok_or_else(|| ModelError::config("encoder", "is missing, this folder holds no encoder"))?;
        let encoder = Self::new(folder.network(device)?, folder.tokenizer().clone(), settings)?;
        Ok(Self { identity: folder.identity().to_owned(), ..encoder })
    }

    /// An encoder over a network, which may be in training.
    ///
    /// # Errors
    /// Where `dimension` is neither that of the projection nor, without one, that of the hidden states.
    pub fn new(model: Qwen3, tokenizer: Arc<ModelTokenizer>, settings: EncoderSettings) -> Result<Self> {
        let hidden = model.config().hidden_size;
        let expected = [settings.dimension, hidden];
        match model.weights().get(PROJECTION) {
            Some(projection) if projection.dims() != expected => {
                return Err(ModelError::weight(
                    PROJECTION,
                    format!("has shape {:?}, expected {expected:?}", projection.dims()),
                ));
            }
            None if settings.dimension != hidden => {
                let reason = format!("{} needs a {PROJECTION}, the network gives {hidden}", settings.dimension);
                return Err(ModelError::config("encoder.dimension", reason));
            }
            _ => {}
        }
        Ok(Self { model, tokenizer, settings, identity: String::new() })
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.settings.dimension
    }

    /// Hash of the folder's content; empty for a network that is in training.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The network.
    #[must_use]
    pub fn model(&self) -> &Qwen3 {
        &self.model
    }

    /// Tokens of a text as the encoder sees them: cut to the longest length, never empty.
    ///
    /// # Errors
    /// Where the tokenizer cannot spell it.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(text.trim())?;
        ids.truncate(self.settings.max_tokens);
        if ids.is_empty() {
            ids = self.tokenizer.encode("\n")?;
        }
        Ok(ids)
    }

    /// Mean-pooled vectors of length one, `[n, dimension]`, with gradient where the network trains.
    ///
    /// # Errors
    /// Where the batch exceeds the positions of the network.
    pub fn pooled(&self, batch: &Batch) -> Result<Tensor> {
        let rows = batch.rows();
        let hidden = self.model.hidden(batch)?.reshape((rows, batch.width(), ()))?;
        let mut shares = vec![0f32; rows * batch.width()];
        for row in 0..rows {
            for index in 0..batch.len(row) {
                shares[batch.place(row, index) as usize] = 1.0 / batch.len(row) as f32;
            }
        }
        let shares = Tensor::from_vec(shares, (rows, 1, batch.width()), self.model.device())?;
        let mean = shares.matmul(&hidden)?.squeeze(1)?;
        unit(&self.project(&mean)?)
    }

    /// Vectors of length one of every real token of a batch, row after row `[tokens, dimension]`, with gradient where
    /// the network trains.
    ///
    /// # Errors
    /// Where the batch exceeds the positions of the network.
    pub fn token_rows(&self, batch: &Batch) -> Result<Tensor> {
        let real = (0..batch.rows()).flat_map(|row| (0..batch.len(row)).map(move |index| batch.place(row, index)));
        let real: Vec<u32> = real.collect();
        let hidden = self.model.select(&self.model.hidden(batch)?, &real)?;
        unit(&self.project(&hidden)?)
    }

    /// One vector of length one for each text, in their order.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = vec![Vec::new(); texts.len()];
        self.in_batches(texts, |encoder, places, batch| {
            for (place, vector) in places.iter().zip(encoder.pooled(batch)?.to_vec2()?) {
                vectors[*place] = vector;
            }
            Ok(())
        })?;
        Ok(vectors)
    }

    /// The vectors of the tokens of each text, in their order.
    ///
    /// # Errors
    /// Where the network fails.
    pub fn token_vectors<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<TokenVectors>> {
        let dimension = self.dimension();
        let mut vectors = vec![TokenVectors { dimension, numbers: Vec::new() }; texts.len()];
        self.in_batches(texts, |encoder, places, batch| {
            let numbers = encoder.token_rows(batch)?.flatten_all()?.to_vec1::<f32>()?;
            let mut rest = numbers.as_slice();
            for (row, place) in places.iter().enumerate() {
                let (own, behind) = rest.split_at(batch.len(row) * dimension);
                vectors[*place].numbers = own.to_vec();
                rest = behind;
            }
            Ok(())
        })?;
        Ok(vectors)
    }

    /// Runs texts of like length together, so that little work goes into filling.
    fn in_batches<S: AsRef<str>>(
        &self,
        texts: &[S],
        mut run: impl FnMut(&Self, &[usize], &Batch) -> Result<()>,
    ) -> Result<()> {
        let tokens = texts.iter().map(|text| self.tokens(text.as_ref())).collect::<Result<Vec<_>>>()?;
        let plain = Self { model: self.model.detached()?, ..self.clone() };
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|place| tokens[*place].len());
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            // lengths rise, so the last of a batch is its width
            let fits =
                (1..=rest.len()).take_while(|count| count * tokens[rest[count - 1]].len() <= BATCH_TOKENS).last();
            let (places, behind) = rest.split_at(fits.unwrap_or(1));
            let sequences: Vec<&[u32]> = places.iter().map(|place| tokens[*place].as_slice()).collect();
            run(&plain, places, &Batch::right_padded(&sequences)?)?;
            rest = behind;
        }
        Ok(())
    }

    fn project(&self, hidden: &Tensor) -> Result<Tensor> {
        match self.model.weights().get(PROJECTION) {
            Some(projection) => Ok(ops::matmul_nt(hidden, projection)?),
            None => Ok(hidden.clone()),
        }
    }
}

/// Rows scaled to length one.
fn unit(rows: &Tensor) -> Result<Tensor> {
    let length = (rows.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?;
    Ok(rows.broadcast_div(&length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Qwen3Config;
    use crate::vocabulary::{VocabularySettings, train_tokenizer};
    use crate::weights::init;

    const TEXTS: [&str; 4] = ["胶原蛋白", "孕妇能喝吗孕妇能喝吗", "", "super fund"];

    fn encoder(causal: bool, trained: bool) -> Encoder {
        let tokenizer =
            train_tokenizer(&TEXTS.map(str::to_owned), "", VocabularySettings { entries: 320, words: 10 }).unwrap();
        let value = serde_json::json!({
            "vocab_size": 320, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "recast": {"causal": causal},
        });
        let config = Qwen3Config::from_json(&value).unwrap();
        let mut weights = init(&config, 3, &Device::Cpu).unwrap();
        weights.insert(PROJECTION.into(), ops::testing::noise(&[6, 16], 5).as_tensor().detach());
        let build = if trained { Qwen3::trainable } else { Qwen3::frozen };
        let model = build(config, weights, &Device::Cpu).unwrap();
        Encoder::new(model, Arc::new(tokenizer), EncoderSettings { dimension: 6, max_tokens: 12 }).unwrap()
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }

    #[test]
    fn company_changes_no_vector() {
        for causal in [true, false] {
            let encoder = encoder(causal, false);
            let (pooled, tokens) = (encoder.embed(&TEXTS).unwrap(), encoder.token_vectors(&TEXTS).unwrap());
            for (i, text) in TEXTS.iter().enumerate() {
                assert_close(&pooled[i], &encoder.embed(&[text]).unwrap()[0]);
                assert_close(&tokens[i].numbers, &encoder.token_vectors(&[text]).unwrap()[0].numbers);
                assert!((ops::lane::dot(&pooled[i], &pooled[i]) - 1.0).abs() < 1e-5);
                assert!(tokens[i].iter().all(|vector| (ops::lane::dot(vector, vector) - 1.0).abs() < 1e-5));
            }
        }
        assert!(encoder(true, false).embed::<&str>(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_late_token_reaches_an_early_one_only_without_the_mask() {
        for causal in [true, false] {
            let encoder = encoder(causal, false);
            let vectors = encoder.token_vectors(&["胶原", "胶孕"]).unwrap();
            let same = vectors[0].numbers[..6] == vectors[1].numbers[..6];
            assert_eq!(same, causal);
        }
    }

    #[test]
    fn a_text_matches_itself_best() {
        let encoder = encoder(false, false);
        let vectors = encoder.token_vectors(&TEXTS).unwrap();
        assert!((max_sim(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-5);
        assert!(max_sim(&vectors[0], &vectors[1]) < 1.0);
        assert_eq!(max_sim(&vectors[0], &TokenVectors { dimension: 6, numbers: Vec::new() }), 0.0);
    }

    #[test]
    fn training_reaches_the_projection_and_the_network() {
        let encoder = encoder(false, true);
        let sequences: Vec<Vec<u32>> = TEXTS.iter().map(|text| encoder.tokens(text).unwrap()).collect();
        let batch = Batch::right_padded(&sequences).unwrap();
        let sum = |tensor: Tensor| tensor.narrow(1, 0, 1).unwrap().sum_all().unwrap().backward().unwrap();
        for store in [sum(encoder.pooled(&batch).unwrap()), sum(encoder.token_rows(&batch).unwrap())] {
            for (name, var) in encoder.model().vars() {
                assert!(store.get(var).is_some(), "{name} has no gradient");
            }
        }
    }

    #[test]
    fn a_dimension_without_its_projection_is_refused() {
        let encoder = encoder(true, false);
        let settings = EncoderSettings { dimension: 7, max_tokens: 12 };
        let message = Encoder::new(encoder.model.clone(), encoder.tokenizer.clone(), settings).unwrap_err().to_string();
        assert!(message.contains(PROJECTION), "{message}");
    }
}
