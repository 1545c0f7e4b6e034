//! `recast experiment`: comparisons of rewriters, offline.

mod arm;
mod compare;
mod labels;
mod names;
mod plan;

pub use labels::{Labelled, table as label_table};
pub use names::{Fraction, RewriterName};

use crate::args::{ExperimentArgs, ExperimentCommand};

/// `recast experiment plan|compare`
pub fn run(args: &ExperimentArgs) -> anyhow::Result<()> {
    match &args.command {
        ExperimentCommand::Plan(args) => plan::run(args),
        ExperimentCommand::Compare(args) => compare::run(args),
    }
}
