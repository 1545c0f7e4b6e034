//! A larger network that computes what a smaller one does, to go on training from (Chen, Goodfellow and Shlens 2016,
//! "Net2Net: Accelerating Learning via Knowledge Transfer").
//!
//! What is new reads from the residual stream by random weights and writes to it by zeros: it changes nothing yet, and
//! its gradients are not zero. The root mean square of a wider stream that holds zeros is smaller by
//! `sqrt(old / new)`; norms of the stream are scaled by that.
use candle_core::{Device, Tensor};

use crate::config::Qwen3Config;
use crate::error::{ModelError, Result};
use crate::weights::{Weights, init};

/// Weights of the shape `to` that compute what `weights` of the shape `from` do, up to the epsilon of the norms.
///
/// # Errors
/// Where `to` is smaller than `from` in any size, or differs in what growing keeps: vocabulary, head width, query heads
/// to a key head, tied embeddings.
pub fn grow(weights: &Weights, from: &Qwen3Config, to: &Qwen3Config, seed: u64, device: &Device) -> Result<Weights> {
    check(from, to)?;
    let mut grown = init(to, seed, &Device::Cpu)?;
    let stream_scale = (from.hidden_size as f64 / to.hidden_size as f64).sqrt() as f32;
    for (name, tensor) in &mut grown {
        let writes = ["o_proj.weight", "down_proj.weight", "embed_tokens.weight"].iter().any(|end| name.ends_with(end));
        let of_stream = name.ends_with("layernorm.weight") || name == "model.norm.weight";
        let dims = tensor.dims().to_vec();
        let mut values = tensor.flatten_all()?.to_vec1::<f32>()?;
        if writes {
            values.fill(0.0);
        }
        if let Some(old) = weights.get(name) {
            let old_columns = *old.dims().last().unwrap_or(&1);
            let columns = *dims.last().unwrap_or(&1);
            let old = old.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            for (row, old) in old.chunks(old_columns).enumerate() {
                values[row * columns..row * columns + old_columns].copy_from_slice(old);
            }
            if of_stream {
                values.iter_mut().for_each(|value| *value *= stream_scale);
            }
        }
        *tensor = Tensor::from_vec(values, dims, device)?;
    }
    Ok(grown)
}

fn check(from: &Qwen3Config, to: &Qwen3Config) -> Result<()> {
    let grows = [
        ("hidden_size", from.hidden_size, to.hidden_size),
        ("intermediate_size", from.intermediate_size, to.intermediate_size),
        ("num_hidden_layers", from.num_hidden_layers, to.num_hidden_layers),
        ("num_attention_heads", from.num_attention_heads, to.num_attention_heads),
        ("num_key_value_heads", from.num_key_value_heads, to.num_key_value_heads),
    ];
    let refused = |field: &str, reason: String| ModelError::Config { field: field.to_owned(), reason };
    if let Some((name, old, new)) = grows.into_iter().find(|(_, old, new)| new < old) {
        return Err(refused(name, format!("a network of {old} cannot grow to {new}")));
    }
    let kept = [
        ("vocab_size", from.vocab_size == to.vocab_size),
        ("head_dim", from.head_dim == to.head_dim),
        (
            "num_key_value_heads",
            from.num_attention_heads * to.num_key_value_heads == to.num_attention_heads * from.num_key_value_heads,
        ),
        ("tie_word_embeddings", from.tie_word_embeddings && to.tie_word_embeddings),
    ];
    match kept.into_iter().find(|(_, same)| !same) {
        Some((name, _)) => Err(refused(name, "a network that grows keeps this as it is".to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::qwen3::Qwen3;

    fn config(hidden: usize, layers: usize, heads: usize) -> Qwen3Config {
        Qwen3Config {
            vocab_size: 60,
            hidden_size: hidden,
            intermediate_size: 2 * hidden,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads / 2,
            head_dim: 8,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            max_position_embeddings: 32,
            tie_word_embeddings: true,
            eos_token_id: Some(1),
            bos_token_id: None,
            pad_token_id: Some(0),
            causal: true,
        }
    }

    fn log_probs(model: &Qwen3) -> Vec<f32> {
        let rows: [&[u32]; 2] = [&[5, 9, 33, 2], &[7, 7, 41]];
        let batch = Batch::right_padded(&rows).unwrap();
        let places = [batch.place(0, 2), batch.place(1, 1)];
        let scores = model.score(&model.hidden(&batch).unwrap(), &places, &[2, 41], 1.0).unwrap();
        scores.log_prob.to_vec1().unwrap()
    }

    #[test]
    fn a_grown_network_says_the_same_and_all_of_it_can_learn() {
        let (small, large) = (config(16, 2, 2), config(40, 3, 6));
        let mut weights = init(&small, 4, &Device::Cpu).unwrap();
        for (seed, weight) in (100..).zip(weights.values_mut()) {
            // norms at one and near-zero outputs would hide a wrong place
            let noise = init(&config(16, 1, 2), seed, &Device::Cpu).unwrap()["model.embed_tokens.weight"].clone();
            let count = weight.elem_count();
            let noise = noise.flatten_all().unwrap().narrow(0, 0, count.min(960)).unwrap();
            if count <= 960 {
                *weight = (&*weight + (noise.reshape(weight.dims()).unwrap() * 10.0).unwrap()).unwrap();
            }
        }
        let grown = grow(&weights, &small, &large, 9, &Device::Cpu).unwrap();
        let before = log_probs(&Qwen3::frozen(small, weights, &Device::Cpu).unwrap());
        let model = Qwen3::trainable(large, grown, &Device::Cpu).unwrap();
        for (old, new) in before.iter().zip(log_probs(&model)) {
            assert!((old - new).abs() < 1e-4, "{old} became {new}");
        }
        let batch = Batch::right_padded(&[&[5, 9, 33, 2]]).unwrap();
        let places: Vec<u32> = (0..3).map(|place| batch.place(0, place)).collect();
        let scores = model.score(&model.hidden(&batch).unwrap(), &places, &[9, 33, 2], 1.0).unwrap();
        let gradients = scores.log_prob.sum_all().unwrap().backward().unwrap();
        let out = &model.vars()["model.layers.2.mlp.down_proj.weight"];
        let gradient = gradients.get(out.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(gradient.to_scalar::<f32>().unwrap() > 0.0, "the new layer gets no gradient");
    }

    #[test]
    fn what_cannot_grow_is_named() {
        let message = |from: Qwen3Config, to: Qwen3Config| check(&from, &to).unwrap_err().to_string();
        assert!(message(config(40, 2, 2), config(16, 2, 2)).contains("hidden_size"));
        assert!(message(config(16, 2, 2), Qwen3Config { head_dim: 4, ..config(16, 2, 2) }).contains("head_dim"));
    }
}
