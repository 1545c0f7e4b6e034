use std::path::PathBuf;

use clap::{Args, Subcommand};
use recast_domain::PolicyId;
use recast_policies::Scope;

use super::Settings;

#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    pub command: PolicyCommand,
    /// A tenant's policies; those of all tenants without it
    #[arg(long, global = true, default_value = "default")]
    pub tenant: Scope,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// All policies, oldest first; a star marks the one that serves
    List,
    /// A policy's manifest, after its files were checked
    Show { policy: PolicyId },
    /// What two policies differ in
    Diff { left: PolicyId, right: PolicyId },
    /// Check a PEFT adapter and add it
    Publish {
        /// The folder with adapter_config.json and adapter_model.safetensors
        dir: PathBuf,
        /// Its name, used once and never again
        #[arg(long)]
        name: PolicyId,
    },
    /// Let a policy serve, whatever the gate says of it
    Promote {
        policy: PolicyId,
        /// Fails where the pointer has moved on from this version; without it, from the one there is now
        #[arg(long)]
        expected_version: Option<u64>,
        /// Why; kept in the journal
        #[arg(long, default_value = "on the command line")]
        reason: String,
    },
    /// Let the earlier policy serve again; in the end the model of the settings
    Rollback {
        /// As for promote
        #[arg(long)]
        expected_version: Option<u64>,
        /// Why; kept in the journal
        #[arg(long, default_value = "on the command line")]
        reason: String,
    },
    /// Everything that was decided, with its evidence, one JSON object a line
    Journal,
    /// The candidate at the gate
    Gate,
    /// Delete all but the newest policies; what serves, served last, is pinned or at the gate stays
    Prune {
        /// How many stay
        #[arg(long, default_value_t = 10)]
        keep: usize,
    },
}
