use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Remote, Settings};

#[derive(Debug, Args)]
pub struct DatasetsArgs {
    #[command(subcommand)]
    pub command: DatasetsCommand,
}

#[derive(Debug, Subcommand)]
pub enum DatasetsCommand {
    /// Make a dataset of a tenant's episodes; works beside a running gateway
    Build(BuildArgs),
    /// Make a dataset of rewrites out of the workbook of a batch run
    Import(ImportArgs),
    /// Take the rows of erased episodes out of the datasets of a tenant
    Forget {
        /// The folder that datasets were built in
        out: PathBuf,
        /// Whose datasets
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DatasetKind {
    /// Rewrites in an envelope of JSON
    Sft,
    /// Rewrites as chats, one a line
    Messages,
    /// Pairs of rewrites with results, scores and rewards, in an envelope of JSON
    Rl,
    /// Prompts for verl, one a line
    Verl,
    /// Prompts for TRL, one a line
    Trl,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Whose episodes
    #[arg(long)]
    pub tenant: String,
    /// What the dataset is for
    #[arg(long, value_enum)]
    pub kind: DatasetKind,
    /// The folder; files go to {out}/{sft|rl|verl|trl}/{tenant}
    #[arg(long)]
    pub out: PathBuf,
    /// Days back; settings' datasets.days_back without it
    #[arg(long)]
    pub days_back: Option<u32>,
    /// Seed of splits and synonyms
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Print the manifest as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The workbook
    pub file: PathBuf,
    /// Whose rows
    #[arg(long)]
    pub tenant: String,
    /// The folder; files go to {out}/sft/{tenant}
    #[arg(long)]
    pub out: PathBuf,
    /// sft or messages
    #[arg(long, value_enum, default_value = "messages")]
    pub kind: DatasetKind,
    /// Write every fault to this file, one JSON object a line
    #[arg(long)]
    pub faults: Option<PathBuf>,
    /// Seed of splits and synonyms
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Print the manifest as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct BatchArgs {
    /// The test set: .jsonl or .xlsx, a row a question (query, user_profile, history_summary, history, thought, ..)
    pub file: PathBuf,
    /// The workbook to write; its rows go to a .jsonl beside it, too
    #[arg(long)]
    pub out: PathBuf,
    /// A running gateway
    #[arg(long, default_value = "http://127.0.0.1:8642")]
    pub url: String,
    /// A key of the tenant with scope serve
    #[arg(long, env = "RECAST_KEY", hide_env_values = true)]
    pub key: String,
    /// Requests at a time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Seconds that one answer may take
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout_s: u64,
    /// Go on with a run that was broken off; rows that were answered are not asked again
    #[arg(long)]
    pub resume: bool,
}

#[derive(Debug, Args)]
pub struct LabelsArgs {
    #[command(subcommand)]
    pub command: LabelsCommand,
}

#[derive(Debug, Subcommand)]
pub enum LabelsCommand {
    /// Read labels of people (.jsonl or .csv) into the episode store; reading a file twice changes nothing
    Import {
        /// Rows of episode_id, author and any of gold_rewrite, relevant, score and label
        file: PathBuf,
        /// Whose episodes; with --url the key decides
        #[arg(long, required_unless_present = "url")]
        tenant: Option<String>,
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        settings: Settings,
    },
}
