//! Named tensors of a network: what a safetensors file holds.
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::Qwen3Config;
use crate::error::{ModelError, Result};

/// Tensors by their name in the file, in name order.
pub type Weights = BTreeMap<String, Tensor>;

/// The linear layers of one block, by the path behind `model.layers.N.`, as `(path, rows, columns)`.
#[must_use]
pub fn linear_shapes(config: &Qwen3Config) -> [(&'static str, usize, usize); 7] {
    let (d, ff, q, kv) = (config.hidden_size, config.intermediate_size, config.query_size(), config.key_value_size());
    [
        ("self_attn.q_proj", q, d),
        ("self_attn.k_proj", kv, d),
        ("self_attn.v_proj", kv, d),
        ("self_attn.o_proj", d, q),
        ("mlp.gate_proj", ff, d),
        ("mlp.up_proj", ff, d),
        ("mlp.down_proj", d, ff),
    ]
}

/// Name and shape of every weight that the configuration asks for.
#[must_use]
pub fn expected_shapes(config: &Qwen3Config) -> BTreeMap<String, Vec<usize>> {
    let d = config.hidden_size;
    let mut shapes = BTreeMap::from([
        ("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, d]),
        ("model.norm.weight".to_owned(), vec![d]),
    ]);
    if !config.tie_word_embeddings {
        shapes.insert("lm_head.weight".to_owned(), vec![config.vocab_size, d]);
    }
    for layer in 0..config.num_hidden_layers {
        for (path, rows, columns) in linear_shapes(config) {
            shapes.insert(format!("model.layers.{layer}.{path}.weight"), vec![rows, columns]);
        }
        let norms = [
            ("input_layernorm", d),
            ("post_attention_layernorm", d),
            ("self_attn.q_norm", config.head_dim),
            ("self_attn.k_norm", config.head_dim),
        ];
        for (path, width) in norms {
            shapes.insert(format!("model.layers.{layer}.{path}.weight"), vec![width]);
        }
    }
    shapes
}

/// Fresh weights: normal with deviation 0.02, the layers that write to the residual stream scaled down by
/// `sqrt(2 * layers)`, norms at one. The same seed gives the same weights on every machine.
///
/// # Errors
/// Where the device refuses the tensors.
pub fn init(config: &Qwen3Config, seed: u64, device: &Device) -> Result<Weights> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let depth = (2.0 * config.num_hidden_layers as f64).sqrt();
    let mut weights = Weights::new();
    for (name, shape) in expected_shapes(config) {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = if shape.len() == 1 {
            vec![1.0; count]
        } else {
            let residual = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
            let deviation = if residual { 0.02 / depth } else { 0.02 };
            (0..count).map(|_| (normal(&mut rng) * deviation) as f32).collect()
        };
        weights.insert(name, Tensor::from_vec(values, shape, device)?);
    }
    Ok(weights)
}

/// One draw from the standard normal distribution (Box-Muller).
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// Reads one safetensors file into `f32` tensors.
///
/// # Errors
/// Where the file is absent or damaged.
pub fn read_safetensors(path: &Path, device: &Device) -> Result<Weights> {
    if !path.exists() {
        return Err(ModelError::Missing { path: path.to_owned(), fix: "put the safetensors file of the model there" });
    }
    let tensors = candle_core::safetensors::load(path, device).map_err(|e| ModelError::corrupt(path, e))?;
    tensors.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F32)?))).collect()
}

/// Writes tensors as a safetensors file, through a temporary file beside it, so that a reader never sees half of one.
///
/// # Errors
/// Where a tensor cannot be read or the file cannot be written.
pub fn write_safetensors(path: &Path, weights: &Weights) -> Result<()> {
    let tensors = weights
        .iter()
        .map(|(name, tensor)| Ok((name, tensor.detach().to_device(&Device::Cpu)?.contiguous()?)))
        .collect::<Result<Vec<_>>>()?;
    // other readers refuse a file that does not say which library laid it out
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| ModelError::corrupt(path, e))?;
    write_atomically(path, &bytes)
}

/// Writes a file under a temporary name, flushes it to the disk and renames it.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = std::fs::File::create(&temporary).map_err(ModelError::io(&temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(ModelError::io(&temporary))?;
    std::fs::rename(&temporary, path).map_err(ModelError::io(path))
}
