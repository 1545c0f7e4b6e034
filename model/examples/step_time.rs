//! Time of one training step and of sampling, for the model sizes that this project trains.
//!
//! `RAYON_NUM_THREADS=1 cargo run -p recast-model --example step_time [hidden] [layers] [batch] [width]`
#![allow(clippy::print_stdout, reason = "prints its measurements")]

use std::time::Instant;

use candle_core::Device;
use recast_model::{
    AdamW, AdamWConfig, Batch, Gradients, Lora, LoraConfig, Qwen3, Qwen3Config, Result, SamplerSettings, init, sample,
};

fn main() -> Result<()> {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let size = |index: usize, default: usize| sizes.get(index).copied().unwrap_or(default);
    let (hidden, layers, rows, width) = (size(0, 128), size(1, 4), size(2, 32), size(3, 128));
    let config = Qwen3Config {
        vocab_size: 4096,
        hidden_size: hidden,
        intermediate_size: 3 * hidden,
        num_hidden_layers: layers,
        num_attention_heads: hidden / 32,
        num_key_value_heads: hidden / 64,
        head_dim: 32,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        max_position_embeddings: 256,
        tie_word_embeddings: true,
        eos_token_id: Some(1),
        bos_token_id: None,
        pad_token_id: Some(0),
        causal: true,
    };
    let device = Device::Cpu;
    let sequences: Vec<Vec<u32>> =
        (0..rows).map(|row| (0..width).map(|i| ((row * 131 + i * 17) % 4000) as u32 + 2).collect()).collect();
    let batch = Batch::right_padded(&sequences)?;
    let weights = init(&config, 1, &device)?;
    println!("{} parameters, {rows} x {width} tokens", config.parameters());
    let full = Qwen3::trainable(config.clone(), weights.clone(), &device)?;
    let base = Qwen3::frozen(config.clone(), weights, &device)?;
    let lora = Lora::init(&LoraConfig::all_linears(32, 64.0), &config, 1, &device)?;
    for (name, model) in [("full", &full), ("lora r32", &base.with_adapter(&lora)?)] {
        let mut optimizer = AdamW::new(model.vars(), AdamWConfig::default())?;
        // the rewrite is the last fifth of a sequence; one prompt token in eight takes part in the loss
        let scored = |i: &usize| *i >= width * 4 / 5 || i.is_multiple_of(8);
        let spots = (0..rows).flat_map(|row| (1..width).filter(scored).map(move |i| (row, i)));
        let (places, targets): (Vec<u32>, Vec<u32>) =
            spots.map(|(row, i)| (batch.place(row, i - 1), sequences[row][i])).unzip();
        for _ in 0..4 {
            let start = Instant::now();
            let scores = model.score(&model.hidden(&batch)?, &places, &targets, 1.0)?;
            let loss = scores.log_prob.mean_all()?.neg()?;
            let forward = start.elapsed();
            let store = loss.backward()?;
            let backward = start.elapsed();
            let mut gradients = Gradients::default();
            gradients.add(model.vars(), &store, 1.0)?;
            optimizer.step(&gradients, 1e-3)?;
            let all = start.elapsed();
            let speed = (rows * width) as f64 / all.as_secs_f64();
            println!(
                "{name}: forward {forward:.0?}, backward {:.0?}, update {:.0?}, {speed:.0} tokens/s",
                backward - forward,
                all - backward
            );
        }
    }
    let settings = SamplerSettings { temperature: 1.0, top_p: 1.0, max_new_tokens: 20, end: 1, seed: 1 };
    let prompts: Vec<Vec<u32>> = sequences.iter().take(16).map(|ids| ids[..width.min(90)].to_vec()).collect();
    let start = Instant::now();
    let completions = sample(&full, &prompts, 8, &settings)?;
    println!("{} completions of 20 tokens in {:.2?}", completions.len(), start.elapsed());
    Ok(())
}
