//! Arguments of the commands that compare rewriters: `rewriter`, `experiment` and `demo`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::judge::JudgeName;
use super::{Settings, SplitArg};
use crate::experiment::{Fraction, RewriterName};

#[derive(Debug, Args)]
pub struct RewriterArgs {
    #[command(subcommand)]
    pub command: RewriterCommand,
}

#[derive(Debug, Subcommand)]
pub enum RewriterCommand {
    /// Offer a model folder as a rewrite service: POST /api/rewrite_query
    Serve(RewriterServeArgs),
}

#[derive(Debug, Args)]
pub struct RewriterServeArgs {
    /// A model folder, or a .gguf file
    #[arg(long)]
    pub model: PathBuf,
    /// Address and port; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7861")]
    pub listen: SocketAddr,
    /// Name of the environment variable that holds the key callers must send; without it anybody may ask
    #[arg(long, value_name = "NAME")]
    pub api_key_env: Option<String>,
    /// The folder of tenants, for their prompts; the settings' own without it
    #[arg(long)]
    pub tenants: Option<PathBuf>,
    /// Also stop when standard input ends, so that no service outlives the program that started it
    #[arg(long)]
    pub stop_with_stdin: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct ExperimentArgs {
    #[command(subcommand)]
    pub command: ExperimentCommand,
}

#[derive(Debug, Subcommand)]
pub enum ExperimentCommand {
    /// How many pairs an effect of a given size needs
    Plan(PlanArgs),
    /// Compare two rewriters over labelled dialogues, offline
    Compare(CompareArgs),
    /// Quality, top-1, latency, cost and win rate of rewriters over labelled questions
    Table(TableArgs),
    /// Report a running or finished experiment; works beside a running gateway
    Report(ReportArgs),
    /// Name every problem of a file of experiment definitions
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Smallest mean difference of a pair that should be found, of a metric from 0 to 1
    #[arg(long, allow_negative_numbers = true)]
    pub effect: f64,
    /// Standard deviation of a pair's difference, ties included
    #[arg(long)]
    pub sd: f64,
    /// Share of pairs without any difference, 0 to 1
    #[arg(long, default_value = "0")]
    pub ties: Fraction,
    /// Chance of finding a difference that is not there
    #[arg(long, default_value = "0.05")]
    pub alpha: Fraction,
    /// Chance of finding the effect
    #[arg(long, default_value = "0.8")]
    pub power: Fraction,
    /// Share of the pairs without ties that the better arm wins; adds a plan for the win rate
    #[arg(long)]
    pub win_rate: Option<Fraction>,
    /// Seed of the simulation
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TableArgs {
    /// The rewriter that the others are held against, named as in compare
    #[arg(long)]
    pub teacher: RewriterName,
    /// A rewriter to hold against it; give it once or more. A folder + an adapter's folder is one, too
    #[arg(long = "arm", required = true)]
    pub arms: Vec<RewriterName>,
    /// The folder of tenants; that of the settings without it
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Which split
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitArg,
    /// At most this many questions a tenant
    #[arg(long)]
    pub limit: Option<usize>,
    /// Price of an hour of one core, in any currency
    #[arg(long, default_value_t = 0.05)]
    pub core_hour: f64,
    /// Also write the figures of each question to this file, as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
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
    /// The metric that decides, as in a definition; without it label_ndcg_at10 where every question has labels, else
    /// quality
    #[arg(long, value_name = "METRIC")]
    pub primary: Option<String>,
    /// Also ask a judge about both rewrites of each question
    #[arg(long, value_enum)]
    pub judge: Option<JudgeName>,
    /// Print the report as JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Also write the report as a page to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write every question with both answers to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The experiment's id
    pub id: String,
    /// Only this version of its definition
    #[arg(long)]
    pub version: Option<u32>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// Also write a page to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// A TOML file with [[experiments.define]], or a JSON file with one definition or a list
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The model folder that plays the large rewriter
    #[arg(long, default_value = "models/teacher")]
    pub teacher: PathBuf,
    /// Requests a second, on average; they arrive at random, as people do
    #[arg(long, default_value_t = 4.0)]
    pub rate: f64,
    /// How many questions to ask; every test dialogue once without it
    #[arg(long)]
    pub count: Option<usize>,
    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// Share of the sampled requests that run the live arm once more, to measure noise
    #[arg(long, default_value = "0.1")]
    pub control_rate: Fraction,
    /// Seed of the order of questions and of their pacing
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Also search the questions as typed, and compare all three by labels
    #[arg(long)]
    pub three_way: bool,
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "var/demo-report.html")]
    pub html: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}
