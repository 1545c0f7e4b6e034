//! The recipe of the shipped models: tokenizer, rewriter, embedder, reranker, each from the train split alone.
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rand::Rng as _;
use recast_model::{
    Encoder, EncoderSettings, Lora, LoraConfig, Manifest, ModelFolder, ModelKind, ModelTokenizer, PROJECTION,
    PromptRenderer, PromptSettings, Qwen3, Qwen3Config, TOKENIZER, Weights, grow, init,
};
use serde::Serialize;

use crate::checkpoint::Checkpoints;
use crate::contrastive::{ContrastiveObjective, RankingValidation};
use crate::corpus::{Corpus, TrainingData};
use crate::curriculum::{Curriculum, Shares, random};
use crate::distil::Distilled;
use crate::error::{LearnError, Result};
use crate::names::NameMaker;
use crate::pairs::{PairMaker, PairSettings};
use crate::rerank::LateObjective;
use crate::settings::{EncoderTraining, RewriterTraining, Shape, TrainSettings};
use crate::sft::{SftObjective, SftSettings};
use crate::trainer::{Objective, Outcome, Plan, seconds_per_step, train};
use crate::validate::RewriteValidation;

/// Han characters in daily use (the first level of GB 2312), the most frequent first: so that the vocabulary knows the
/// characters of names that the data do not hold.
const HAN: &str = include_str!("../assets/han.txt");

/// What a training made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainReport {
    /// The model folder.
    pub dir: PathBuf,
    /// Weights of the network.
    pub parameters: usize,
    /// Steps made.
    pub steps: u32,
    /// Tokens read.
    pub tokens: u64,
    /// Seconds trained, validation included.
    pub seconds: f64,
    /// Step whose weights were kept.
    pub kept_step: Option<u32>,
    /// Figures of the kept weights on the validation split.
    pub figures: BTreeMap<String, f64>,
    /// Some validation questions: the query, the rewrite, a gold rewrite. Empty for encoders.
    pub samples: Vec<[String; 3]>,
}

/// Sees each step's number and loss; may end the run, which can be resumed later.
pub type Observer<'a> = &'a mut dyn FnMut(u32, f64) -> ControlFlow<()>;

/// Shares of a run's minutes that validation and saving take.
const OVERHEAD: f64 = 0.12;
const TOKENIZER_FOLDER: &str = "tokenizer";
const REPORT: &str = "report.json";
/// Sets the examples of learning from rewards apart from those of supervised training with the same seed.
const RL_STREAM: u64 = 0x524c;

/// Trains the vocabulary that all small models share, into `out/tokenizer`.
///
/// # Errors
/// Where the data or the disk are at fault.
pub fn train_tokenizer(settings: &TrainSettings) -> Result<ModelTokenizer> {
    let data = Corpus::load(&settings.data)?.training()?;
    let tokenizer = recast_model::train_tokenizer(&data.texts(), HAN, settings.vocabulary)?;
    let dir = settings.out.join(TOKENIZER_FOLDER);
    std::fs::create_dir_all(&dir).map_err(LearnError::io(&dir))?;
    tokenizer.write(&dir, settings.rewriter.prompt.max_prompt_tokens)?;
    Ok(tokenizer)
}

/// What every training of a model begins with.
struct Prepared {
    corpus: Corpus,
    data: Arc<TrainingData>,
    tokenizer: Arc<ModelTokenizer>,
    names: NameMaker,
}

fn prepare(settings: &TrainSettings, base: Option<&Path>, teacher: Option<(&Path, f64)>) -> Result<Prepared> {
    let mut corpus = Corpus::load(&settings.data)?;
    corpus.add_datasets(settings)?;
    if let Some((teacher, temperature)) = teacher {
        let Distilled { taught, dropped } = corpus.distil(teacher, temperature, settings.seed)?;
        tracing::info!(taught, dropped, "the teacher has rewritten the train dialogues");
    }
    let data = corpus.training()?;
    let shared = settings.out.join(TOKENIZER_FOLDER).join(TOKENIZER);
    let tokenizer = match base {
        Some(base) => ModelFolder::open(base)?.tokenizer().as_ref().clone(),
        None if shared.exists() => ModelTokenizer::read(&shared)?,
        None => train_tokenizer(settings)?,
    };
    let real = data.entity_names();
    let names = NameMaker::new(&tokenizer, real.iter().map(String::as_str));
    Ok(Prepared { corpus, data: Arc::new(data), tokenizer: Arc::new(tokenizer), names })
}

impl Prepared {
    /// Hash of the data, the vocabulary and a training's settings.
    fn fingerprint(&self, seed: u64, training: &impl Debug) -> String {
        let mut hasher = blake3::Hasher::new();
        for text in self.data.texts() {
            hasher.update(text.as_bytes()).update(b"\n");
        }
        hasher.update(self.tokenizer.json().to_string().as_bytes());
        hasher.update(format!("{seed} {training:?}").as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    fn config(&self, shape: Shape, positions: usize, causal: bool) -> Qwen3Config {
        Qwen3Config {
            vocab_size: self.tokenizer.vocab_size(),
            hidden_size: shape.hidden,
            intermediate_size: shape.intermediate,
            num_hidden_layers: shape.layers,
            num_attention_heads: shape.heads,
            num_key_value_heads: shape.key_heads,
            head_dim: shape.head_dim,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-6,
            max_position_embeddings: positions,
            tie_word_embeddings: true,
            eos_token_id: self.tokenizer.mark("<|im_end|>"),
            bos_token_id: None,
            pad_token_id: self.tokenizer.mark("<pad>"),
            causal,
        }
    }
}

/// What keeps a rewriter able to copy while it learns from rewards: the stream of questions with fresh names that it was
/// trained on, and validation questions with names that nobody wrote.
///
/// # Errors
/// Where the data or the model folder are at fault.
pub fn copying_practice(settings: &TrainSettings, base: &Path) -> Result<(Curriculum, RewriteValidation)> {
    let prepared = prepare(settings, Some(base), None)?;
    let training = &settings.rewriter;
    let shares = Shares {
        swapped: 1.0,
        copies: training.copies,
        faithful: 1.0,
        reworded: training.reworded,
        other_ways: training.other_ways,
    };
    let curriculum = Curriculum::new(prepared.data.clone(), prepared.names.clone(), settings.seed ^ RL_STREAM, shares);
    let validation = RewriteValidation::new(&prepared.corpus, &prepared.names, settings.seed);
    Ok((curriculum, validation))
}

/// Trains the rewriter into `out/rewriter`.
///
/// # Errors
/// Where the data, the disk or a checkpoint are at fault, or the loss is no number.
pub fn train_rewriter(settings: &TrainSettings, observe: Observer<'_>) -> Result<TrainReport> {
    rewriter("rewriter", &settings.rewriter, settings, observe)
}

/// Trains the teacher into `out/teacher`: a larger rewriter, slower and better, by the same recipe.
///
/// # Errors
/// As [`train_rewriter`].
pub fn train_teacher(settings: &TrainSettings, observe: Observer<'_>) -> Result<TrainReport> {
    rewriter("teacher", &settings.teacher, settings, observe)
}

fn rewriter(
    name: &'static str,
    training: &RewriterTraining,
    settings: &TrainSettings,
    observe: Observer<'_>,
) -> Result<TrainReport> {
    let teacher = training.taught_by.as_deref().map(|teacher| (teacher, training.taught_at));
    let prepared = prepare(settings, training.base.as_deref(), teacher)?;
    let device = Device::Cpu;
    let (config, weights, prompt) = match &training.base {
        Some(base) => {
            let folder = ModelFolder::open(base)?;
            let (config, weights) = (folder.config().clone(), folder.network(&device)?.weights().clone());
            let larger = prepared.config(training.shape, config.max_position_embeddings, true);
            // a base of that size goes on as it is
            if training.grow && config.hidden_size < larger.hidden_size {
                let weights = grow(&weights, &config, &larger, settings.seed, &device)?;
                (larger, weights, folder.manifest().prompt)
            } else {
                (config, weights, folder.manifest().prompt)
            }
        }
        None => {
            let positions = (training.prompt.max_prompt_tokens + training.prompt.max_new_tokens).next_power_of_two();
            let config = prepared.config(training.shape, positions, true);
            (config.clone(), init(&config, settings.seed, &device)?, training.prompt)
        }
    };
    let adapter = match training.lora {
        Some((rank, alpha)) => {
            Some(Lora::init(&LoraConfig::all_linears(rank, alpha), &config, settings.seed, &device)?)
        }
        None => None,
    };
    let model = match &adapter {
        Some(adapter) => Qwen3::frozen(config.clone(), weights, &device)?.with_adapter(adapter)?,
        None => Qwen3::trainable(config.clone(), weights, &device)?,
    };
    let renderer = PromptRenderer::new(prepared.tokenizer.clone(), prompt)?;
    let curriculum = Curriculum::new(
        prepared.data.clone(),
        prepared.names.clone(),
        settings.seed,
        Shares {
            swapped: training.swapped,
            copies: training.copies,
            faithful: training.faithful,
            reworded: training.reworded,
            other_ways: training.other_ways,
        },
    );
    let validation = RewriteValidation::new(&prepared.corpus, &prepared.names, settings.seed);
    let sft = SftSettings {
        rows: training.rows,
        workers: settings.workers,
        smoothing: training.smoothing,
        prompt_weight: training.prompt_weight,
        seed: settings.seed,
    };
    let objective = SftObjective::new(model, renderer.clone(), curriculum, validation, sft);
    let fingerprint = prepared.fingerprint(settings.seed, &RewriterTraining { minutes: 0.0, ..training.clone() });
    let run = Run { name, minutes: training.minutes, learning_rate: training.learning_rate, fingerprint };
    let outcome = run.go(&objective, settings, observe)?;
    let model = objective.model();
    let mut figures = objective.validation().full(model, &renderer)?.figures();
    let (distinct, constant) = objective.validation().variety(48, settings.seed, model, &renderer)?;
    figures.insert("distinct_of_8".into(), distinct);
    figures.insert("constant_groups".into(), constant);
    let samples = objective.validation().samples(24, model, &renderer)?;
    let manifest = run.manifest(ModelKind::Rewriter, settings, &outcome, prompt, None);
    let dir = settings.out.join(run.name);
    let weights = if training.half { halved(model.weights())? } else { model.weights().clone() };
    let folder = ModelFolder::save(&dir, &manifest, &config, &weights, &prepared.tokenizer, adapter.as_ref())?;
    run.finish(&folder, settings, outcome, figures, samples)
}

/// The weights in 16 bits: half the size on disk, and a change far below what a step of training makes.
fn halved(weights: &Weights) -> Result<Weights> {
    weights.iter().map(|(name, weight)| Ok((name.clone(), weight.to_dtype(DType::F16)?))).collect()
}

/// Trains the embedder into `out/embedder`.
///
/// # Errors
/// As [`train_rewriter`].
pub fn train_embedder(settings: &TrainSettings, observe: Observer<'_>) -> Result<TrainReport> {
    let training = &settings.embedder;
    let prepared = prepare(settings, training.base.as_deref(), None)?;
    let (encoder, pairs) = encoder_and_pairs(&prepared, settings, training)?;
    let validation = RankingValidation::new(&prepared.corpus);
    let objective = ContrastiveObjective::new(encoder, pairs, validation, training.scale, settings.workers);
    let run = Run::of_encoder("embedder", &prepared, settings, training);
    let outcome = run.go(&objective, settings, observe)?;
    save_encoder(
        &run,
        ModelKind::Embedder,
        objective.encoder(),
        &prepared,
        settings,
        training,
        outcome,
        objective.validate()?,
    )
}

/// Trains the reranker into `out/reranker`.
///
/// # Errors
/// As [`train_rewriter`].
pub fn train_reranker(settings: &TrainSettings, observe: Observer<'_>) -> Result<TrainReport> {
    let training = &settings.reranker;
    let prepared = prepare(settings, training.base.as_deref(), None)?;
    let (encoder, pairs) = encoder_and_pairs(&prepared, settings, training)?;
    let validation = RankingValidation::new(&prepared.corpus);
    let objective = LateObjective::new(encoder, pairs, validation, training.scale, settings.workers);
    let run = Run::of_encoder("reranker", &prepared, settings, training);
    let outcome = run.go(&objective, settings, observe)?;
    save_encoder(
        &run,
        ModelKind::Reranker,
        objective.encoder(),
        &prepared,
        settings,
        training,
        outcome,
        objective.validate()?,
    )
}

fn encoder_and_pairs(
    prepared: &Prepared,
    settings: &TrainSettings,
    training: &EncoderTraining,
) -> Result<(Encoder, PairMaker)> {
    let device = Device::Cpu;
    let config = prepared.config(training.shape, training.max_tokens.next_power_of_two(), false);
    let mut weights = init(&config, settings.seed, &device)?;
    let mut rng = random(settings.seed, 21, 0);
    let (rows, columns) = (training.dimension, config.hidden_size);
    let reach = (3.0 / columns as f32).sqrt();
    let numbers = (0..rows * columns).map(|_| rng.random_range(-reach..reach)).collect();
    weights.insert(PROJECTION.into(), Tensor::from_vec(numbers, (rows, columns), &device)?);
    if let Some(base) = &training.base {
        let found: Weights = ModelFolder::open(base)?.network(&device)?.weights().clone();
        for (name, weight) in &mut weights {
            if let Some(found) = found.get(name).filter(|found| found.dims() == weight.dims()) {
                *weight = found.detach();
            }
        }
    }
    let network = Qwen3::trainable(config, weights, &device)?;
    let sizes = EncoderSettings { dimension: training.dimension, max_tokens: training.max_tokens };
    let encoder = Encoder::new(network, prepared.tokenizer.clone(), sizes)?;
    let pairs =
        PairSettings { rows: training.rows, hard: training.hard, swapped: training.swapped, seed: settings.seed };
    Ok((encoder, PairMaker::new(prepared.data.clone(), prepared.names.clone(), pairs)))
}

#[expect(clippy::too_many_arguments, reason = "the end of two functions that share nothing but it")]
fn save_encoder(
    run: &Run,
    kind: ModelKind,
    encoder: &Encoder,
    prepared: &Prepared,
    settings: &TrainSettings,
    training: &EncoderTraining,
    outcome: Outcome,
    figures: BTreeMap<String, f64>,
) -> Result<TrainReport> {
    let sizes = EncoderSettings { dimension: training.dimension, max_tokens: training.max_tokens };
    let manifest = run.manifest(kind, settings, &outcome, PromptSettings::default(), Some(sizes));
    let network = encoder.model();
    let dir = settings.out.join(run.name);
    let folder = ModelFolder::save(&dir, &manifest, network.config(), network.weights(), &prepared.tokenizer, None)?;
    run.finish(&folder, settings, outcome, figures, Vec::new())
}

/// The parts of a run that all models share.
struct Run {
    name: &'static str,
    minutes: f64,
    learning_rate: f64,
    fingerprint: String,
}

impl Run {
    fn of_encoder(
        name: &'static str,
        prepared: &Prepared,
        settings: &TrainSettings,
        training: &EncoderTraining,
    ) -> Self {
        let fingerprint = prepared.fingerprint(settings.seed, &EncoderTraining { minutes: 0.0, ..training.clone() });
        Self { name, minutes: training.minutes, learning_rate: training.learning_rate, fingerprint }
    }

    fn checkpoint_dir(&self, settings: &TrainSettings) -> PathBuf {
        settings.out.join(format!("{}.training", self.name))
    }

    fn go(&self, objective: &dyn Objective, settings: &TrainSettings, observe: Observer<'_>) -> Result<Outcome> {
        let dir = self.checkpoint_dir(settings);
        let steps = self.steps(objective, settings, &dir)?;
        let plan = Plan {
            name: self.name.to_owned(),
            steps,
            warmup: 100.min(steps / 4),
            learning_rate: self.learning_rate,
            weight_decay: 0.05,
            validate_every: (steps / 16).max(1),
            patience: 6,
            least_tokens: 1_500_000,
            fingerprint: self.fingerprint.clone(),
        };
        let outcome = train(objective, &plan, &dir, settings.resume, observe)?;
        if outcome.finished {
            return Ok(outcome);
        }
        let reason = format!("the run was ended at step {} of {steps}; resume it to go on", outcome.step);
        Err(LearnError::Checkpoint { path: dir, reason })
    }

    /// Steps of the run: those that the checkpoint recorded, else as many as the minutes allow.
    fn steps(&self, objective: &dyn Objective, settings: &TrainSettings, dir: &Path) -> Result<u32> {
        if settings.resume
            && let Some(state) = Checkpoints::open(dir)?.latest()?
        {
            return Ok(state.steps);
        }
        if let Some(steps) = settings.steps {
            return Ok(steps.max(1));
        }
        let minutes = settings.minutes.unwrap_or(self.minutes);
        if !(minutes.is_finite() && minutes > 0.0) {
            return Err(LearnError::Setting(format!("minutes is {minutes}, it must be above 0")));
        }
        let steps = minutes * 60.0 * (1.0 - OVERHEAD) / seconds_per_step(objective)?;
        Ok((steps as u32).max(10))
    }

    fn manifest(
        &self,
        kind: ModelKind,
        settings: &TrainSettings,
        outcome: &Outcome,
        prompt: PromptSettings,
        encoder: Option<EncoderSettings>,
    ) -> Manifest {
        let trained_by =
            format!("recast train, seed {}, {} steps, {} tokens", settings.seed, outcome.step, outcome.tokens);
        Manifest { kind, name: format!("recast-{}", self.name), trained_by, prompt, encoder }
    }

    /// Writes report and curve into the model folder.
    fn finish(
        &self,
        folder: &ModelFolder,
        settings: &TrainSettings,
        outcome: Outcome,
        figures: BTreeMap<String, f64>,
        samples: Vec<[String; 3]>,
    ) -> Result<TrainReport> {
        let report = TrainReport {
            dir: folder.dir().to_owned(),
            parameters: folder.weights(&Device::Cpu)?.values().map(Tensor::elem_count).sum(),
            steps: outcome.step,
            tokens: outcome.tokens,
            seconds: outcome.seconds.round(),
            kept_step: outcome.best.map(|(step, _)| step),
            figures,
            samples,
        };
        for name in ["curve.csv", "curve.png"] {
            let (from, to) = (self.checkpoint_dir(settings).join(name), folder.dir().join(name));
            std::fs::copy(&from, &to).map_err(LearnError::io(&from))?;
        }
        let path = folder.dir().join(REPORT);
        let text = serde_json::to_string_pretty(&report).map_err(|e| LearnError::Data(e.to_string()))?;
        std::fs::write(&path, text + "\n").map_err(LearnError::io(&path))?;
        Ok(report)
    }
}
