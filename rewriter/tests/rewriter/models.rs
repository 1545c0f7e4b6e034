//! Small models on disk.
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use recast_model::{
    Lora, Manifest, ModelFolder, ModelKind, ModelTokenizer, PromptSettings, PromptStyle, Qwen3, Qwen3Config,
    VocabularySettings, Weights, init, read_safetensors, train_tokenizer,
};
use recast_rewriter::{EngineSettings, ModelFiles};
use tempfile::TempDir;

/// The golden model of `recast-model`, whose numbers come from another implementation.
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tiny_qwen3")
}

/// A tokenizer of 300 entries that knows four Han characters.
pub fn tokenizer() -> ModelTokenizer {
    train_tokenizer(&[], "胶原蛋白", VocabularySettings { entries: 300, words: 0 }).unwrap()
}

/// The golden model as the engine takes it; the folder must outlive the loading.
pub fn golden_settings(adapter: bool) -> (TempDir, EngineSettings) {
    let dir = tempfile::tempdir().unwrap();
    tokenizer().write(dir.path(), 128).unwrap();
    let files = ModelFiles::Safetensors {
        config: golden().join("base/config.json"),
        tokenizer: dir.path().join("tokenizer.json"),
        weights: vec![golden().join("base/model.safetensors")],
        adapter: adapter.then(|| golden().join("adapter")),
    };
    let quantization = recast_config::Quantization::None;
    (dir, EngineSettings { files, device: recast_config::Device::Cpu, quantization })
}

/// The golden model in this project's own network.
pub fn golden_network(adapter: bool) -> Qwen3 {
    let config = Qwen3Config::read(&golden().join("base/config.json")).unwrap();
    let weights = read_safetensors(&golden().join("base/model.safetensors"), &Device::Cpu).unwrap();
    let network = Qwen3::frozen(config.clone(), weights, &Device::Cpu).unwrap();
    if !adapter {
        return network;
    }
    network.merged(&Lora::read(&golden().join("adapter"), &config, &Device::Cpu).unwrap()).unwrap()
}

/// A rewriter that always writes `text` (of characters that the tokenizer knows): each token decides the next.
pub fn parrot(dir: &Path, text: &str) -> ModelFolder {
    let tokenizer = tokenizer();
    let size = 304;
    let config = Qwen3Config {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: size,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 96,
        tie_word_embeddings: false,
        eos_token_id: tokenizer.mark("<|im_end|>"),
        bos_token_id: None,
        pad_token_id: tokenizer.mark("<pad>"),
        causal: true,
    };
    let mut weights: Weights = init(&config, 1, &Device::Cpu).unwrap();
    // without the two layers that write to the residual stream, the last token alone decides
    for name in ["self_attn.o_proj", "mlp.down_proj"] {
        let weight = weights.get_mut(&format!("model.layers.0.{name}.weight")).unwrap();
        *weight = weight.zeros_like().unwrap();
    }
    let mut chain = vec![tokenizer.need_mark("<|rw|>").unwrap()];
    chain.extend(tokenizer.encode(text).unwrap());
    chain.push(tokenizer.need_mark("<|im_end|>").unwrap());
    let rows = config.vocab_size;
    let (mut embedding, mut head) = (vec![0f32; rows * size], vec![0f32; rows * size]);
    for token in 0..rows.min(size) {
        embedding[token * size + token] = 1.0;
    }
    for pair in chain.windows(2) {
        head[pair[1] as usize * size + pair[0] as usize] = 1.0;
    }
    for (name, values) in [("model.embed_tokens.weight", embedding), ("lm_head.weight", head)] {
        weights.insert(name.to_owned(), Tensor::from_vec(values, (rows, size), &Device::Cpu).unwrap());
    }
    let prompt =
        PromptSettings { style: PromptStyle::Compact, max_prompt_tokens: 64, max_new_tokens: 24, tenant_tag: false };
    let manifest =
        Manifest { kind: ModelKind::Rewriter, name: "parrot".into(), trained_by: String::new(), prompt, encoder: None };
    ModelFolder::save(dir, &manifest, &config, &weights, &tokenizer, None).unwrap()
}

/// Writes the weights of a network as a GGUF file, in f32.
pub fn write_gguf(path: &Path, config: &Qwen3Config, weights: &Weights) {
    use gguf_file::Value;
    let number = |number: usize| Value::U32(number as u32);
    let metadata = [
        ("general.architecture", Value::String("qwen3".to_owned())),
        ("qwen3.block_count", number(config.num_hidden_layers)),
        ("qwen3.embedding_length", number(config.hidden_size)),
        ("qwen3.attention.head_count", number(config.num_attention_heads)),
        ("qwen3.attention.head_count_kv", number(config.num_key_value_heads)),
        ("qwen3.attention.key_length", number(config.head_dim)),
        ("qwen3.attention.value_length", number(config.head_dim)),
        ("qwen3.attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("qwen3.rope.freq_base", Value::F32(config.rope_theta as f32)),
        ("qwen3.context_length", Value::U64(config.max_position_embeddings as u64)),
    ];
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.norm", "output_norm"),
        ("model.layers.", "blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let tensors: Vec<(String, QTensor)> = weights
        .iter()
        .map(|(name, tensor)| {
            let name = names.iter().fold(name.clone(), |name, (from, to)| name.replace(from, to));
            (name, QTensor::quantize(tensor, GgmlDType::F32).unwrap())
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}
