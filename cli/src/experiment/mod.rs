//! `recast experiment`: comparisons of rewriters, offline.

mod arm;
mod compare;
mod labels;
mod names;

pub use names::RewriterName;

use crate::args::{ExperimentArgs, ExperimentCommand};

/// `recast experiment compare`
pub fn run(args: &ExperimentArgs) -> anyhow::Result<()> {
    match &args.command {
        ExperimentCommand::Compare(args) => compare::run(args),
    }
}
