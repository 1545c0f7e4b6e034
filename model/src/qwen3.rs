//! Qwen3 with gradients: RMS norms, normalised queries and keys, rotary positions, grouped heads, SwiGLU.
//!
//! One network serves full training (every weight a variable), adapter training (weights frozen, [`Lora`] attached) and
//! inference (nothing tracked, see [`Qwen3::detached`]).
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};

use crate::batch::Batch;
use crate::cache::KvCache;
use crate::config::Qwen3Config;
use crate::error::{ModelError, Result};
use crate::lora::{Lora, LowRank};
use crate::ops::{self, Kernels, Rotary, TokenScores, Visible};
use crate::weights::{Weights, expected_shapes};

/// A Qwen3 network on one device.
#[derive(Debug, Clone)]
pub struct Qwen3 {
    config: Qwen3Config,
    kernels: Kernels,
    device: Device,
    rotary: Arc<Rotary>,
    weights: Weights,
    vars: BTreeMap<String, Var>,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
}

#[derive(Debug, Clone)]
struct Layer {
    input_norm: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: Tensor,
    key_norm: Tensor,
    post_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

#[derive(Debug, Clone)]
struct Linear {
    weight: Tensor,
    low_rank: Option<LowRank>,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let out = times_transposed(x, &self.weight)?;
        match &self.low_rank {
            None => Ok(out),
            Some(low_rank) => out + low_rank.forward(x)?,
        }
    }
}

fn times_transposed(x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
    if weight.is_variable() { ops::matmul_nt(x, weight) } else { ops::matmul_frozen(x, weight) }
}

impl Qwen3 {
    /// A network that does not train its weights.
    ///
    /// # Errors
    /// Where the configuration is invalid, or a weight is absent or has the wrong shape.
    pub fn frozen(config: Qwen3Config, weights: Weights, device: &Device) -> Result<Self> {
        let weights = checked(&config, weights, device)?;
        Self::build(config, Kernels::of(device), device, weights, BTreeMap::new(), None)
    }

    /// A network all of whose weights are variables, for full training.
    ///
    /// # Errors
    /// As [`Qwen3::frozen`].
    pub fn trainable(config: Qwen3Config, weights: Weights, device: &Device) -> Result<Self> {
        let mut vars = BTreeMap::new();
        let mut tracked = Weights::new();
        for (name, tensor) in checked(&config, weights, device)? {
            let var = Var::from_tensor(&tensor)?;
            tracked.insert(name.clone(), var.as_tensor().clone());
            vars.insert(name, var);
        }
        Self::build(config, Kernels::of(device), device, tracked, vars, None)
    }

    /// This network with its weights frozen and an adapter beside them; the adapter's matrices are the variables.
    ///
    /// # Errors
    /// Where the adapter does not fit this network.
    pub fn with_adapter(&self, adapter: &Lora) -> Result<Self> {
        adapter.check(&self.config)?;
        let weights = self.weights.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
        Self::build(self.config.clone(), self.kernels, &self.device, weights, adapter.vars(), Some(adapter))
    }

    /// This network with an adapter added into its weights; nothing is trained.
    ///
    /// # Errors
    /// Where the adapter does not fit this network.
    pub fn merged(&self, adapter: &Lora) -> Result<Self> {
        let weights = adapter.merge(&self.config, &self.weights)?;
        Self::build(self.config.clone(), self.kernels, &self.device, weights, BTreeMap::new(), None)
    }

    /// The same network without gradients. It shares storage with this one, so it follows further training steps.
    ///
    /// # Errors
    /// Never in practice; the layers are put together again.
    pub fn detached(&self) -> Result<Self> {
        let mut copy = self.clone();
        for tensor in copy.weights.values_mut() {
            *tensor = tensor.detach();
        }
        copy.vars = BTreeMap::new();
        let mut plain = Self::build(copy.config, self.kernels, &self.device, copy.weights, BTreeMap::new(), None)?;
        for (layer, own) in plain.layers.iter_mut().zip(&self.layers) {
            for (linear, own) in layer.linears_mut().into_iter().zip(own.linears()) {
                linear.low_rank = own.low_rank.as_ref().map(LowRank::detached);
            }
        }
        Ok(plain)
    }

    /// The same network on the other implementation of its operations.
    #[must_use]
    pub fn with_kernels(mut self, kernels: Kernels) -> Self {
        self.kernels = kernels;
        self
    }

    fn build(
        config: Qwen3Config,
        kernels: Kernels,
        device: &Device,
        weights: Weights,
        vars: BTreeMap<String, Var>,
        adapter: Option<&Lora>,
    ) -> Result<Self> {
        let get = |name: &str| weights.get(name).cloned().ok_or_else(|| ModelError::weight(name, "is missing"));
        let layers = (0..config.num_hidden_layers)
            .map(|layer| {
                let norm = |path: &str| get(&format!("model.layers.{layer}.{path}.weight"));
                let linear = |path: &str| -> Result<Linear> {
                    let module = format!("model.layers.{layer}.{path}");
                    let low_rank = adapter.and_then(|adapter| adapter.low_rank(&module));
                    Ok(Linear { weight: get(&format!("{module}.weight"))?, low_rank })
                };
                Ok(Layer {
                    input_norm: norm("input_layernorm")?,
                    query: linear("self_attn.q_proj")?,
                    key: linear("self_attn.k_proj")?,
                    value: linear("self_attn.v_proj")?,
                    output: linear("self_attn.o_proj")?,
                    query_norm: norm("self_attn.q_norm")?,
                    key_norm: norm("self_attn.k_norm")?,
                    post_norm: norm("post_attention_layernorm")?,
                    gate: linear("mlp.gate_proj")?,
                    up: linear("mlp.up_proj")?,
                    down: linear("mlp.down_proj")?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let embedding = get("model.embed_tokens.weight")?;
        let head = if config.tie_word_embeddings { embedding.clone() } else { get("lm_head.weight")? };
        let norm = get("model.norm.weight")?;
        let rotary = Arc::new(Rotary::new(config.max_position_embeddings, config.head_dim, config.rope_theta));
        Ok(Self { config, kernels, device: device.clone(), rotary, weights, vars, embedding, layers, norm, head })
    }

    /// Shape of the network.
    #[must_use]
    pub fn config(&self) -> &Qwen3Config {
        &self.config
    }

    /// Device of the weights.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Implementation of the operations that runs.
    #[must_use]
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// What is trained, by name: every weight, the adapter's matrices, or nothing.
    #[must_use]
    pub fn vars(&self) -> &BTreeMap<String, Var> {
        &self.vars
    }

    /// All weights by name, an attached adapter not among them.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Final hidden states of a batch, `[rows * width, hidden]`; [`Batch::place`] finds a token's row.
    ///
    /// # Errors
    /// Where the batch is longer than the positions of the network.
    pub fn hidden(&self, batch: &Batch) -> Result<Tensor> {
        self.run(batch, None)
    }

    /// Reads prompts into an empty cache and gives their hidden states.
    ///
    /// # Errors
    /// Where the cache is too small, holds another number of rows, or holds tokens already.
    pub fn prefill(&self, prompts: &Batch, cache: &mut KvCache) -> Result<Tensor> {
        if !cache.is_empty() || cache.rows() != prompts.rows() {
            return Err(ModelError::Invalid("prefill needs an empty cache with a row for each prompt".into()));
        }
        self.run(prompts, Some(cache))
    }

    /// Reads one further token of each row of the cache; `[rows, hidden]`.
    ///
    /// # Errors
    /// Where the cache is full, or the count of tokens differs from its rows.
    pub fn step(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Tensor> {
        if tokens.len() != cache.rows() {
            return Err(ModelError::Invalid(format!("{} tokens for a cache of {} rows", tokens.len(), cache.rows())));
        }
        let batch = Batch::following(tokens, cache.len(), cache.starts().clone());
        self.run(&batch, Some(cache))
    }

    /// Logits over the vocabulary, `[n, vocabulary]`, of chosen hidden states `[n, hidden]`.
    ///
    /// # Errors
    /// Where the width is not that of the network.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        Ok(times_transposed(hidden, &self.head)?)
    }

    /// The rows `places` of `hidden`, so that the head, the dearest product of a small network, runs on them only.
    ///
    /// # Errors
    /// Where a place lies outside.
    pub fn select(&self, hidden: &Tensor, places: &[u32]) -> Result<Tensor> {
        let index = Tensor::from_slice(places, places.len(), &self.device)?;
        Ok(hidden.index_select(&index, 0)?)
    }

    /// Scores of the token that follows each of `places`: `targets[i]` is predicted from hidden row `places[i]`.
    ///
    /// # Errors
    /// Where the counts differ or an index lies outside.
    pub fn score(&self, hidden: &Tensor, places: &[u32], targets: &[u32], temperature: f64) -> Result<TokenScores> {
        let logits = self.logits(&self.select(hidden, places)?)?;
        Ok(ops::token_scores(self.kernels, &logits, targets, temperature)?)
    }

    fn run(&self, batch: &Batch, mut cache: Option<&mut KvCache>) -> Result<Tensor> {
        let frame = &batch.frame;
        let length = frame.past + frame.width;
        if length > self.rotary.positions() {
            let message =
                format!("a sequence of {length} tokens exceeds max_position_embeddings {}", self.rotary.positions());
            return Err(ModelError::Invalid(message));
        }
        if let Some(id) = batch.ids.iter().find(|id| **id as usize >= self.config.vocab_size) {
            return Err(ModelError::Invalid(format!("token {id} lies outside vocab_size {}", self.config.vocab_size)));
        }
        if let Some(cache) = cache.as_deref_mut() {
            cache.begin(&frame.starts, frame.width)?;
        }
        let scale = 1.0 / (self.config.head_dim as f32).sqrt();
        let visible = Visible { frame: frame.clone(), causal: self.config.causal, scale };
        let ids = Tensor::from_slice(&batch.ids, batch.ids.len(), &self.device)?;
        let mut x = self.embedding.index_select(&ids, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let attended =
                self.attend(index, layer, &self.norm(&x, &layer.input_norm)?, &visible, cache.as_deref_mut())?;
            x = (x + attended)?;
            let normed = self.norm(&x, &layer.post_norm)?;
            let gated = ops::swiglu(self.kernels, &layer.gate.forward(&normed)?, &layer.up.forward(&normed)?)?;
            x = (x + layer.down.forward(&gated)?)?;
        }
        if let Some(cache) = cache {
            cache.advance(frame.width);
        }
        Ok(self.norm(&x, &self.norm)?)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> candle_core::Result<Tensor> {
        ops::rms_norm(self.kernels, x, weight, self.config.rms_norm_eps)
    }

    fn attend(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        visible: &Visible,
        cache: Option<&mut KvCache>,
    ) -> candle_core::Result<Tensor> {
        let (frame, size) = (&visible.frame, self.config.head_dim);
        let (heads, key_heads) = (self.config.num_attention_heads, self.config.num_key_value_heads);
        let tokens = frame.rows * frame.width;
        let rotated = |linear: &Linear, norm: &Tensor, heads: usize| {
            let projected = linear.forward(x)?.reshape((tokens * heads, size))?;
            let normed = self.norm(&projected, norm)?.reshape((tokens, heads * size))?;
            ops::rotate_heads(self.kernels, &normed, &self.rotary, frame)
        };
        let queries = rotated(&layer.query, &layer.query_norm, heads)?;
        let mut keys = rotated(&layer.key, &layer.key_norm, key_heads)?;
        let mut values = ops::split_heads(self.kernels, &layer.value.forward(x)?, size, frame)?;
        if let Some(cache) = cache {
            (keys, values) = cache.extend(index, &keys, &values)?;
        }
        // the query heads of one key head lie side by side, so one product serves them without copying the key
        let grouped = queries.reshape((frame.rows, key_heads, heads / key_heads * frame.width, size))?;
        let scores = ops::matmul_nt(&grouped, &keys)?;
        let context = ops::masked_softmax(self.kernels, &scores, visible)?.matmul(&values)?;
        let context = context.reshape((frame.rows, heads, frame.width, size))?;
        layer.output.forward(&ops::join_heads(self.kernels, &context, frame)?)
    }
}

impl Layer {
    fn linears(&self) -> [&Linear; 7] {
        [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down]
    }

    fn linears_mut(&mut self) -> [&mut Linear; 7] {
        let Self { query, key, value, output, gate, up, down, .. } = self;
        [query, key, value, output, gate, up, down]
    }
}

/// The weights that the configuration asks for, in `f32` on the device; others (a projection) are kept as they are.
fn checked(config: &Qwen3Config, mut weights: Weights, device: &Device) -> Result<Weights> {
    config.validate()?;
    if config.tie_word_embeddings {
        weights.remove("lm_head.weight");
    }
    for (name, shape) in expected_shapes(config) {
        let tensor = weights.get(&name).ok_or_else(|| ModelError::weight(&name, "is missing"))?;
        if tensor.dims() != shape {
            return Err(ModelError::weight(
                &name,
                format!("has shape {:?}, the config asks for {shape:?}", tensor.dims()),
            ));
        }
    }
    let place = |(name, tensor): (String, Tensor)| {
        Ok((name, tensor.to_dtype(candle_core::DType::F32)?.to_device(device)?.contiguous()?))
    };
    weights.into_iter().map(place).collect()
}
