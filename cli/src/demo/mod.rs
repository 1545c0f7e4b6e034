//! `recast demo`.

mod drain;
mod questions;
mod replay;
mod service;
mod three_way;
