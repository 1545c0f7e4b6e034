//! `recast demo`.

mod replay;
mod service;
