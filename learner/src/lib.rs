//! The trainers: supervised fine-tuning of the rewriter, and the small embedder and reranker beside it.
//!
//! What a batch holds is a pure function of the seed and the step, so that a run that was killed goes on with the very
//! examples it would have seen. Nothing of the validation or test split can reach a batch: the trainers are given a
//! [`TrainingData`], which has no room for it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod average;
mod checkpoint;
mod contrastive;
mod corpus;
mod curriculum;
mod curve;
mod dataset;
mod distil;
mod error;
mod lexical;
mod mentions;
mod names;
mod pairs;
mod recipe;
mod rerank;
pub mod rl;
mod settings;
mod sft;
mod swap;
mod trainer;
mod validate;
mod ways;

pub use average::average;
pub use checkpoint::{Checkpoints, RunState};
pub use contrastive::{ContrastiveObjective, RankingValidation, in_batch_loss, ranking_loss, unit_rows};
pub use corpus::{Corpus, TenantData, TenantTraining, TrainingData, searched_text};
pub use curriculum::{Curriculum, Example};
pub use curve::{Curve, CurvePoint};
pub use dataset::{DatasetFit, dataset_fit};
pub use distil::Distilled;
pub use error::{LearnError, Result};
pub use lexical::LexicalIndex;
pub use mentions::{Form, Mentions, Piece};
pub use names::NameMaker;
pub use pairs::{PairMaker, PairSettings, RankingBatch};
pub use recipe::{
    Observer, TrainReport, copying_practice, train_embedder, train_reranker, train_rewriter, train_teacher,
    train_tokenizer,
};
pub use rerank::{LateObjective, late_interaction_scores};
pub use settings::{EncoderTraining, RewriterTraining, Shape, TrainSettings};
pub use sft::{SftObjective, SftSettings};
pub use trainer::{Objective, Outcome, Plan, StepLoss, train};
pub use validate::{RewriteReport, RewriteValidation, mean_reciprocal_rank};
