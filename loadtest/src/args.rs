use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures a gateway over HTTP. How to read the figures: loadtest/README.md.
#[derive(Debug, Parser)]
#[command(name = "recast-loadtest", version)]
pub struct Arguments {
    /// Threads of the generator; leave a core to the server
    #[arg(long, global = true, default_value_t = 1)]
    pub threads: usize,
    #[command(subcommand)]
    pub mode: Mode,
}

#[derive(Debug, Subcommand)]
pub enum Mode {
    /// One rate, Poisson arrivals
    Open {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        arrivals: Arrivals,
        /// Requests per second
        #[arg(long)]
        rate: f64,
        /// Repeats, each with its own arrivals
        #[arg(long, default_value_t = 1)]
        repeats: u64,
    },
    /// Rising rates, until no bound on the 99th percentile holds: the frontier
    Ladder {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        arrivals: Arrivals,
        /// First rate, requests per second
        #[arg(long)]
        from: f64,
        /// Factor from one rate to the next
        #[arg(long, default_value_t = 1.25)]
        factor: f64,
        /// Rates at most
        #[arg(long, default_value_t = 40)]
        steps: usize,
        /// Climbs; the median and range of the frontiers are shown
        #[arg(long, default_value_t = 3)]
        repeats: u64,
    },
    /// A fixed number of connections: the ceiling, and the latency without queueing at 1
    Closed {
        #[command(flatten)]
        common: Common,
        /// Requests on the wire at once
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Measured seconds
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Seconds thrown away first
        #[arg(long, default_value_t = 3.0)]
        warm_up: f64,
        /// Repeats
        #[arg(long, default_value_t = 1)]
        repeats: u64,
    },
    /// Interleaved pairs of a bare echo server and the gateway at one connection
    Overhead {
        #[command(flatten)]
        common: Common,
        /// Pairs
        #[arg(long, default_value_t = 5)]
        pairs: usize,
        /// Measured requests an arm
        #[arg(long, default_value_t = 5_000)]
        count: u64,
    },
    /// The bare echo server: the floor
    Echo {
        /// Address; port 0 takes a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

/// What every mode needs to know.
#[derive(Debug, Args)]
pub struct Common {
    /// Server, as http://host:port
    #[arg(long)]
    pub url: String,
    /// Path of the requests
    #[arg(long, default_value = "/general_rag")]
    pub path: String,
    /// File of `tenant=key` lines; without it no key is sent
    #[arg(long)]
    pub keys: Option<PathBuf>,
    /// Folder whose `*/dialogues.jsonl` are sent
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// JSONL of dialogues or of ready bodies; may be given more than once
    #[arg(long)]
    pub requests: Vec<PathBuf>,
    /// Only dialogues of this split
    #[arg(long)]
    pub split: Option<String>,
    /// Only this tenant; may be given more than once
    #[arg(long)]
    pub tenant: Vec<String>,
    /// Send the first gold rewrite, so that the server skips its rewriter
    #[arg(long)]
    pub with_gold: bool,
    /// The server's process, for its CPU time; its children count
    #[arg(long)]
    pub pid: Option<u32>,
    /// Longest wait for a reply, milliseconds
    #[arg(long, default_value_t = 10_000)]
    pub timeout_ms: u64,
    /// Seed of the order of bodies and of the arrivals
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Do not compare stored episodes with acknowledged ones
    #[arg(long)]
    pub no_parity: bool,
    /// Where the server's counters are
    #[arg(long, default_value = "/metrics")]
    pub metrics_path: String,
    /// Counter of stored episodes
    #[arg(long, default_value = "recast_episodes_stored_total")]
    pub metric: String,
    /// Shell command that prints the number of stored episodes, instead of the counter
    #[arg(long)]
    pub count_cmd: Option<String>,
    /// Write the report, histograms in full, to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// The open loop's times.
#[derive(Debug, Args)]
pub struct Arrivals {
    /// Measured seconds at each rate
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds thrown away first
    #[arg(long, default_value_t = 3.0)]
    pub warm_up: f64,
    /// Requests on the wire at once; more wait, and the wait counts
    #[arg(long, default_value_t = 1_024)]
    pub max_in_flight: usize,
    /// A start this late is the generator's fault, microseconds
    #[arg(long, default_value_t = 1_000)]
    pub late_after_us: u64,
}
