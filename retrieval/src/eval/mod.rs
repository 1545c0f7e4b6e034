//! Retrieval metrics in the order and with the gains of `trec_eval`, and readers of the usual test collections.
pub mod formats;
pub mod metrics;
