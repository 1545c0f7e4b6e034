//! The recipe's settings, with the values that the shipped models are trained with.
use std::path::{Path, PathBuf};

use recast_model::{PromptSettings, PromptStyle, VocabularySettings};

/// Settings of all trainings.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    /// Folder of tenants.
    pub data: PathBuf,
    /// Files of rewrites that the rewriter learns from beside the tenants' own train dialogues.
    pub datasets: Vec<PathBuf>,
    /// Where the model folders go.
    pub out: PathBuf,
    /// Minutes for each model, in place of the recipe's own.
    pub minutes: Option<f64>,
    /// Steps of each run, in place of as many as the minutes allow.
    pub steps: Option<u32>,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether to go on from the last checkpoint.
    pub resume: bool,
    /// Threads that share a step. Set `RAYON_NUM_THREADS=1` beside it: the parts are too small to be split further.
    pub workers: usize,
    /// The shared vocabulary.
    pub vocabulary: VocabularySettings,
    /// The rewriter.
    pub rewriter: RewriterTraining,
    /// The larger rewriter that the small one is compared with.
    pub teacher: RewriterTraining,
    /// The embedder.
    pub embedder: EncoderTraining,
    /// The reranker.
    pub reranker: EncoderTraining,
}

/// Shape of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward block.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// The rewriter's training.
#[derive(Debug, Clone, PartialEq)]
pub struct RewriterTraining {
    /// Shape of the network.
    pub shape: Shape,
    /// Wall time of the run, validation included.
    pub minutes: f64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Sequences a step.
    pub rows: usize,
    /// Share of dialogues with fresh names.
    pub swapped: f64,
    /// Share of copying practice.
    pub copies: f64,
    /// Share of examples whose rewrite is the one nearest the asker's words.
    pub faithful: f64,
    /// Share of examples whose words are replaced by others that only copying can keep.
    pub reworded: f64,
    /// Share of questions that ask again, or point at one of several things, in other ways than the data do.
    pub other_ways: f64,
    /// Label smoothing.
    pub smoothing: f64,
    /// Weight of the loss on prompts.
    pub prompt_weight: f64,
    /// Layout and sizes of prompts.
    pub prompt: PromptSettings,
    /// A model folder to begin from.
    pub base: Option<PathBuf>,
    /// Whether a network of `shape` is grown out of the base; without it the base keeps its own shape.
    pub grow: bool,
    /// Rank and alpha of an adapter to train beside the frozen base; without it all weights are trained.
    pub lora: Option<(usize, f64)>,
    /// Whether the weights are written in 16 bits.
    pub half: bool,
    /// A rewriter whose own rewrites are learned, in the place of the gold ones.
    pub taught_by: Option<PathBuf>,
    /// Temperature at which the teacher writes them. Below 1 the student is surer than the teacher, and a sample of its
    /// own is worth more when it learns from rewards; at 1 it keeps all of the teacher's doubt.
    pub taught_at: f64,
}

/// The training of an encoder: embedder or reranker.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderTraining {
    /// Shape of the network.
    pub shape: Shape,
    /// Numbers of a vector.
    pub dimension: usize,
    /// Longest text in tokens.
    pub max_tokens: usize,
    /// Wall time of the run, validation included.
    pub minutes: f64,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Questions a step.
    pub rows: usize,
    /// Hard negatives a question.
    pub hard: usize,
    /// Share of questions with fresh names.
    pub swapped: f64,
    /// One over the softmax temperature.
    pub scale: f64,
    /// A model folder whose weights of equal name and shape are taken over.
    pub base: Option<PathBuf>,
}

impl TrainSettings {
    /// The recipe of the shipped models.
    #[must_use]
    pub fn new(data: &Path, out: &Path, seed: u64) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(2);
        let shape = Shape { hidden: 128, intermediate: 384, layers: 4, heads: 4, key_heads: 2, head_dim: 32 };
        let prompt = PromptSettings {
            style: PromptStyle::Compact,
            max_prompt_tokens: 160,
            max_new_tokens: 40,
            tenant_tag: false,
        };
        let encoder = EncoderTraining {
            shape: Shape { layers: 3, ..shape },
            dimension: 128,
            max_tokens: 160,
            minutes: 20.0,
            learning_rate: 1.5e-3,
            rows: 24,
            hard: 2,
            swapped: 0.6,
            scale: 20.0,
            base: None,
        };
        let rewriter = RewriterTraining {
            shape: Shape { hidden: 160, intermediate: 480, layers: 4, heads: 5, key_heads: 5, head_dim: 32 },
            minutes: 20.0,
            learning_rate: 2e-3,
            rows: 32,
            swapped: 0.6,
            copies: 0.05,
            faithful: 0.0,
            reworded: 0.12,
            other_ways: 0.6,
            smoothing: 0.05,
            prompt_weight: 0.15,
            prompt,
            base: None,
            grow: false,
            lora: None,
            half: false,
            taught_by: None,
            taught_at: 0.6,
        };
        Self {
            data: data.to_owned(),
            datasets: Vec::new(),
            out: out.to_owned(),
            minutes: None,
            steps: None,
            seed,
            resume: false,
            workers,
            vocabulary: VocabularySettings::default(),
            teacher: RewriterTraining {
                shape: Shape { hidden: 256, intermediate: 768, layers: 6, heads: 8, key_heads: 8, head_dim: 32 },
                minutes: 30.0,
                learning_rate: 1.2e-3,
                grow: true,
                half: true,
                ..rewriter.clone()
            },
            rewriter,
            reranker: EncoderTraining {
                shape: Shape { layers: 2, ..shape },
                dimension: 64,
                hard: 3,
                ..encoder.clone()
            },
            embedder: encoder,
        }
    }
}
