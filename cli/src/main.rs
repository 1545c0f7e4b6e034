//! `recast`: a query-rewrite RAG gateway that learns online. Thin subcommands that wire the rooms together.

mod args;
mod batch;
mod config;
mod datasets;
mod demo;
mod documents;
mod episodes;
mod erase;
mod eval;
mod experiment;
mod export;
mod ingest;
mod judge;
mod keys;
mod labelled;
mod labels;
mod learn;
mod maintenance;
mod out;
mod policy;
mod reward;
mod rewriter_serve;
mod serve;
mod stop;
mod tenant;
mod train;
mod tune;
mod workbook;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` prints the chain of causes on one line.
            out::error(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Ingest(args) => ingest::run(&args),
        Command::Documents(args) => documents::run(&args),
        Command::Keys(args) => keys::run(&args),
        Command::Episodes(args) => episodes::run(&args),
        Command::Datasets(args) => datasets::run(&args),
        Command::Batch(args) => batch::run(&args),
        Command::Labels(args) => labels::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Rewriter(args) => rewriter_serve::run(&args),
        Command::Experiment(args) => experiment::run(&args),
        Command::Judge(args) => judge::run(&args),
        Command::Reward(args) => reward::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Learn(args) => learn::run(&args),
        Command::Tenant(args) => tenant::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Backup(args) => maintenance::backup(&args),
        Command::Restore(args) => maintenance::restore(&args),
        Command::Doctor(args) => maintenance::doctor(&args),
    }
}
