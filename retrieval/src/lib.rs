//! Knowledge bases: ingest, lexical and dense search, fusion, reranking, scores that read as probabilities, evaluation.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod bm25;
pub mod chunk;
pub mod document;
pub mod embed;
mod error;
pub mod eval;
pub mod fuse;
mod http;
mod ingest;
mod knowledge;
pub mod onnx;
mod onnx_folder;
mod open;
pub mod rerank;
mod retriever;
pub mod score;
pub mod statistics;
pub mod store;
pub mod tokenize;
pub mod tune;
pub mod tuning;
mod worker;

pub use error::RetrievalError;
pub use ingest::PutReport;
pub use knowledge::DocumentInfo;
pub use open::{open_embedder, open_reranker, remove_store};
pub use retriever::{Candidate, CandidateSet, LegChoice, Retriever, SearchOutcome, SearchRequest};
