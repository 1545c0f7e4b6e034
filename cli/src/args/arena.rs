//! Arguments of the commands that compare rewriters: `experiment`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Settings, SplitArg};
use crate::experiment::RewriterName;

#[derive(Debug, Args)]
pub struct ExperimentArgs {
    #[command(subcommand)]
    pub command: ExperimentCommand,
}

#[derive(Debug, Subcommand)]
pub enum ExperimentCommand {
    /// Compare two rewriters over labelled dialogues, offline
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// First rewriter, the one that is compared against: pass_through, gold, configured, a model folder, or the URL of
    /// a rewrite service
    #[arg(long)]
    pub a: RewriterName,
    /// Second rewriter, named in the same way
    #[arg(long)]
    pub b: RewriterName,
    /// A tenant folder, a folder of tenants, or a dialogues.jsonl; the tenants' folder without it
    #[arg(conflicts_with = "data")]
    pub file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Which split
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitArg,
    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// At most this many questions a tenant
    #[arg(long)]
    pub limit: Option<usize>,
    /// Name of the environment variable that holds the key of a rewrite service
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Also write a page to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}
