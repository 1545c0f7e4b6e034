//! The Qwen3 of this project: a network with gradients, its tokenizer, its files, and the one prompt renderer.
//!
//! Training, rollouts and export run on the network here; serving runs the same files in another engine, and the two are
//! held to the same numbers. Nothing here knows queries, HTTP, or that engine.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod batch;
mod cache;
mod config;
mod encoder;
mod error;
mod folder;
mod grow;
mod lora;
mod ops;
mod optim;
mod prompt;
mod qwen3;
mod sampler;
mod tokenizer;
mod vocabulary;
mod weights;

pub use batch::Batch;
pub use cache::KvCache;
pub use config::Qwen3Config;
pub use encoder::{Encoder, PROJECTION, TokenVectors, max_sim};
pub use error::{ModelError, Result};
pub use folder::{EncoderSettings, Manifest, ModelFolder, ModelKind};
pub use grow::grow;
pub use lora::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Lora, LoraConfig};
pub use ops::{Kernels, TokenScores, token_scores};
pub use optim::{AdamW, AdamWConfig, Gradients, Schedule, Update};
pub use prompt::{MARKS, Prompt, PromptInput, PromptRenderer, PromptSettings, PromptStyle};
pub use qwen3::Qwen3;
pub use sampler::{Completion, SamplerSettings, completion_scores, log_probs, sample};
pub use tokenizer::{ModelTokenizer, TOKENIZER, TOKENIZER_CONFIG, is_han};
pub use vocabulary::{VocabularySettings, train_tokenizer};
pub use weights::{Weights, init, read_safetensors, write_safetensors};
