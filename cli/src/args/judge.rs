//! Arguments of `judge` and `reward`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Settings;

#[derive(Debug, Args)]
pub struct JudgeArgs {
    #[command(subcommand)]
    pub command: JudgeCommand,
}

#[derive(Debug, Subcommand)]
pub enum JudgeCommand {
    /// Ask the judge of the settings one question, to find wrong settings
    Probe(Settings),
    /// Compare a judge with people's grades: may it be trained on?
    Calibrate(CalibrateArgs),
}

#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Graded pairs: id, tenant, history, query, rewrite_a, rewrite_b, winner, note
    #[arg(long, default_value = "data/judge/pairs.csv")]
    pub labels: PathBuf,
    /// Which judge
    #[arg(long, value_enum, default_value = "configured")]
    pub judge: JudgeName,
    /// Also search with both rewrites of each pair, and hold the judge against what is found
    #[arg(long)]
    pub retrieval: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JudgeName {
    /// The rules that need no model
    Heuristic,
    /// The one of the settings
    Configured,
}

#[derive(Debug, Args)]
pub struct RewardArgs {
    #[command(subcommand)]
    pub command: RewardCommand,
}

#[derive(Debug, Subcommand)]
pub enum RewardCommand {
    /// Show the arithmetic of an episode's rewards
    Explain {
        /// The episode's id
        episode: String,
        /// Whose episode
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        weights: Weights,
        #[command(flatten)]
        settings: Settings,
    },
    /// Compute stored rewards again, under the weights of the settings or of a file; prints one JSON object a reward
    Rescore(RescoreArgs),
}

/// Other numbers for the formulas.
#[derive(Debug, Clone, Args)]
pub struct Weights {
    /// A TOML file with keys of the section reward; what it leaves out is as in the settings
    #[arg(long)]
    pub weights: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RescoreArgs {
    /// Whose episodes
    #[arg(long)]
    pub tenant: String,
    /// Only episodes of this time or later: Unix milliseconds, or an episode's id
    #[arg(long)]
    pub from: Option<String>,
    /// Only episodes up to this time: Unix milliseconds, or an episode's id
    #[arg(long)]
    pub to: Option<String>,
    #[command(flatten)]
    pub weights: Weights,
    /// Write there instead of printing
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Also store the rewards with their episodes; no gateway may be running
    #[arg(long)]
    pub store: bool,
    #[command(flatten)]
    pub settings: Settings,
}
