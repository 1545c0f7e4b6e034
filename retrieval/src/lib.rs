//! Knowledge bases: ingest, lexical and dense search, fusion, reranking, scores that read as probabilities, evaluation.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")
)]

pub mod bm25;
pub mod chunk;
pub mod document;
mod error;
pub mod eval;
pub mod fuse;
pub mod score;
pub mod statistics;
pub mod tokenize;
pub mod tune;
pub mod tuning;

pub use error::RetrievalError;
