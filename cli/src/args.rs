//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use recast_episodes::export::TagWanted;

mod arena;
mod datasets;
mod judge;
mod policy;
mod rl;

pub use arena::*;
pub use datasets::*;
pub use judge::*;
pub use policy::*;
pub use rl::*;

/// A query-rewrite RAG gateway that learns online.
#[derive(Debug, Parser)]
#[command(name = "recast", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(ServeArgs),
    /// Put files into a knowledge base; unchanged documents cost nothing
    Ingest(IngestArgs),
    /// List or delete documents of a knowledge base
    Documents(DocumentsArgs),
    /// Create, rotate, revoke and list API keys
    Keys(KeysArgs),
    /// List or show episodes; works beside a running gateway
    Episodes(EpisodesArgs),
    /// Make datasets that train, of episodes or of the workbook of a batch run
    Datasets(DatasetsArgs),
    /// Ask a running gateway a test set and write down what came back
    Batch(BatchArgs),
    /// Take in what people wrote down about answers
    Labels(LabelsArgs),
    /// Measure retrieval for raw queries, rewrites and gold rewrites
    Eval(EvalArgs),
    /// Compare the shipped rewriter with a larger one in its shadow, on the demo's own questions
    Demo(DemoArgs),
    /// Offer a model to other programs as a rewrite service
    Rewriter(RewriterArgs),
    /// Plan, run, report and check comparisons of rewriters
    Experiment(ExperimentArgs),
    /// Try the judge, and hold it against people's grades
    Judge(JudgeArgs),
    /// Show and recompute rewards
    Reward(RewardArgs),
    /// Fit fusion weights and score calibration on the validation split
    Tune(TuneArgs),
    /// Train the tokenizer, rewriter, embedder and reranker
    Train(TrainArgs),
    /// List, show, compare, publish, promote and roll back policies
    Policy(PolicyArgs),
    /// Learn from what was asked, scored by a running gateway, and offer what is better
    Learn(LearnArgs),
    /// Add a tenant from a folder
    Tenant(TenantArgs),
    /// Check the configuration and print it, secrets masked
    Config(ConfigArgs),
    /// Copy the episode store to a file while the gateway runs
    Backup(BackupArgs),
    /// Put a backup in the place of the episode store
    Restore(RestoreArgs),
    /// Look for trouble in the state folder
    Doctor(DoctorArgs),
}

/// Where the settings come from.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// A shipped profile (demo, production) or a TOML file
    #[arg(long, default_value = "demo", env = "RECAST_CONFIG", global = true)]
    pub config: String,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct IngestArgs {
    /// Files or folders: .md, .txt, .jsonl, .csv
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Whose knowledge base
    #[arg(long)]
    pub tenant: String,
    /// Which knowledge base
    #[arg(long, default_value = "default")]
    pub kb: String,
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub settings: Settings,
}

/// A running gateway to talk to instead of opening the store.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// A running gateway, for example http://127.0.0.1:8642; without it the store is opened here
    #[arg(long)]
    pub url: Option<String>,
    /// A key of the tenant with scope admin
    #[arg(long, env = "RECAST_KEY", hide_env_values = true, requires = "url")]
    pub key: Option<String>,
}

#[derive(Debug, Args)]
pub struct DocumentsArgs {
    #[command(subcommand)]
    pub command: DocumentsCommand,
}

#[derive(Debug, Subcommand)]
pub enum DocumentsCommand {
    /// Print the id, passages and content hash of each document
    List(KnowledgeBase),
    /// Delete documents by id
    Delete {
        /// Document ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        kb: KnowledgeBase,
    },
}

#[derive(Debug, Clone, Args)]
pub struct KnowledgeBase {
    /// Whose knowledge base
    #[arg(long)]
    pub tenant: String,
    /// Which knowledge base
    #[arg(long, default_value = "default")]
    pub kb: String,
    #[command(flatten)]
    pub remote: Remote,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    pub command: KeysCommand,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new key; it is shown once
    Create {
        /// The tenant that the key speaks for
        #[arg(long)]
        tenant: String,
        /// What the key may do
        #[arg(long, value_enum, default_value = "serve")]
        scope: Scope,
        /// Days until it expires; never without this
        #[arg(long)]
        days: Option<u32>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print a successor of a key; the old one works for a while longer
    Rotate {
        /// The key's id: the middle part of rk_ID_SECRET
        id: String,
        /// Hours that the old key goes on working
        #[arg(long, default_value_t = 24)]
        grace_hours: u32,
        #[command(flatten)]
        settings: Settings,
    },
    /// End a key at once
    Revoke {
        /// The key's id
        id: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print ids, tenants, scopes and dates; never secrets
    List {
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Ask questions
    Serve,
    /// Have completions scored for training
    Train,
    /// Both, and write documents and read episodes
    Admin,
}

#[derive(Debug, Args)]
pub struct EpisodesArgs {
    #[command(subcommand)]
    pub command: EpisodesCommand,
}

#[derive(Debug, Subcommand)]
pub enum EpisodesCommand {
    /// Print one line an episode, newest first
    List {
        /// Whose episodes
        #[arg(long)]
        tenant: String,
        /// At most this many
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Only those where a stage failed or was late
        #[arg(long)]
        degraded: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print one episode as JSON
    Show {
        /// The episode's id
        id: String,
        /// Whose episode
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Write episodes to files, one flat row each; works beside a running gateway
    Export(ExportArgs),
    /// Erase everything that is stored of one user, and print how many episodes that were
    Erase {
        /// Whose user
        #[arg(long)]
        tenant: Option<String>,
        /// The user, as requests name them in user_id
        #[arg(long)]
        user: String,
        #[command(flatten)]
        remote: Remote,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the ids of erased episodes, one JSON object a line: remove them from what was exported
    Erased {
        /// Whose episodes
        #[arg(long)]
        tenant: String,
        /// Erased at this time or later: a date, a time, or Unix milliseconds
        #[arg(long)]
        since: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show volumes, degraded share, latency by stage, win rate of pairs and the queries that failed
    Stats(StatsArgs),
}

/// Which episodes are wanted.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only this tenant; all tenants without it
    #[arg(long)]
    pub tenant: Option<String>,
    /// Created at this time or later: 2026-11-21, 2026-11-21T09:00:00+08:00, or Unix milliseconds
    #[arg(long)]
    pub from: Option<String>,
    /// Created before this time
    #[arg(long)]
    pub to: Option<String>,
    /// Only those of this experiment
    #[arg(long)]
    pub experiment: Option<String>,
    /// Only those that this arm answered
    #[arg(long)]
    pub arm: Option<String>,
    /// Only those whose query this policy wrote
    #[arg(long)]
    pub policy: Option<String>,
    /// Only those with this feedback
    #[arg(long, value_enum)]
    pub feedback: Option<FeedbackArg>,
    /// Only those that the caller marked with this tag: NAME, or NAME=VALUE
    #[arg(long)]
    pub tag: Option<TagWanted>,
    /// Only those where a stage failed or was late; `--degraded=false` for the others
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub degraded: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FeedbackArg {
    /// Some feedback
    Any,
    /// No feedback
    None,
    /// A thumb up
    Up,
    /// A thumb down
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Apache Parquet, typed, zstd, in folders by tenant and date
    Parquet,
    /// A JSON object a line
    Jsonl,
    /// UTF-8 with a byte order mark, safe to open in a spreadsheet
    Csv,
    /// Excel workbooks; a sheet holds 1,048,575 rows, more go to further workbooks
    Xlsx,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The folder to write to: an empty one, or with --resume one that an export was broken off in
    #[arg(long)]
    pub out: PathBuf,
    /// In which form
    #[arg(long, value_enum, default_value = "parquet")]
    pub format: FormatArg,
    /// Rows of a file; without it 250000, in a workbook 50000
    #[arg(long)]
    pub rows_per_file: Option<u64>,
    /// Go on with an export that was broken off; repeat its other options
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Print everything as JSON
    #[arg(long)]
    pub json: bool,
    /// Also write a page that stands alone to this file
    #[arg(long)]
    pub html: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A tenant folder, a folder of tenants, a dialogues.jsonl, or a BEIR or TREC folder; the tenants' folder without it
    pub data: Option<PathBuf>,
    /// Only this tenant
    #[arg(long)]
    pub tenant: Option<String>,
    /// Which split
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitArg,
    /// At most this many questions a tenant
    #[arg(long)]
    pub limit: Option<usize>,
    /// Also write all figures to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    Train,
    Val,
    Test,
}

#[derive(Debug, Args)]
pub struct TuneArgs {
    /// At most this many validation questions a tenant
    #[arg(long)]
    pub limit: Option<usize>,
    /// Where to write; settings' retrieval.tuning without it
    #[arg(long)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// What to train
    #[arg(value_enum)]
    pub what: TrainWhat,
    /// The folder of tenants
    #[arg(long, default_value = "data")]
    pub data: PathBuf,
    /// With sft: a file of `recast datasets build` to learn from beside the tenants' own dialogues; may be given again
    #[arg(long)]
    pub dataset: Vec<PathBuf>,
    /// With sft: a rewriter whose own rewrites of the train dialogues are learned, in the place of the gold ones
    #[arg(long)]
    pub distil: Option<PathBuf>,
    /// Temperature at which they are drawn
    #[arg(long, default_value_t = 0.6, requires = "distil")]
    pub distil_temperature: f64,
    /// Where the model folders go
    #[arg(long, default_value = "models")]
    pub out: PathBuf,
    /// Minutes for each model; the recipe's own without it
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Seed of everything random
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// A rewriter folder whose weights a new run begins from; the teacher is grown out of it
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// A model folder to average; give it twice or more
    #[arg(long)]
    pub from: Vec<PathBuf>,
    /// Highest learning rate of the rewriter
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Go on from the last checkpoint
    #[arg(long)]
    pub resume: bool,
    #[command(flatten, next_help_heading = "Learning from rewards (grpo, ppo)")]
    pub rl: RlArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TrainWhat {
    /// The byte-level BPE that the small models share
    Tokenizer,
    /// The rewriter, by supervised fine-tuning on gold rewrites
    Sft,
    /// The embedder, contrastively
    Embedder,
    /// The late-interaction reranker
    Reranker,
    /// The larger rewriter that the small one is compared with
    Teacher,
    /// An adapter for the rewriter --base, by group-relative policy gradients; written to the folder --out
    Grpo,
    /// The same with a critic
    Ppo,
    /// The mean of the models in --from, written to the folder --out
    Average,
    /// Tokenizer, sft, embedder and reranker, in this order
    All,
}

#[derive(Debug, Args)]
pub struct TenantArgs {
    #[command(subcommand)]
    pub command: TenantCommand,
}

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Check a tenant folder, copy it to the tenants' folder and ingest its passages
    Add {
        /// A folder with tenant.toml and passages.jsonl, and dialogues.jsonl where there are labels
        dir: PathBuf,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Name every problem, or print the settings in force
    Check(Settings),
}

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    pub file: PathBuf,
    /// Overwrite an episode store that is there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub settings: Settings,
}
