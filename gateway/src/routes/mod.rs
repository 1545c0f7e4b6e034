//! The handlers, one file an area.

pub mod documents;
pub mod episodes;
pub mod erasures;
pub mod experiments;
pub mod exports;
pub mod feedback;
pub mod labels;
pub mod ops;
pub mod policies;
pub mod rag;
pub mod rewrite;
pub mod rl;
