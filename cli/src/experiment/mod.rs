//! `recast experiment`: plans, comparisons and reports.

pub mod arm;
mod check;
mod compare;
mod labels;
mod names;
mod offline;
mod plan;
mod report;
mod table;

pub use arm::nobody;
pub use labels::{Labelled, table as label_table};
pub use names::{Fraction, RewriterName};
pub use report::show;

use crate::args::{ExperimentArgs, ExperimentCommand};

/// `recast experiment plan|compare|table|report|check`
pub fn run(args: &ExperimentArgs) -> anyhow::Result<()> {
    match &args.command {
        ExperimentCommand::Plan(args) => plan::run(args),
        ExperimentCommand::Compare(args) => compare::run(args),
        ExperimentCommand::Table(args) => table::run(args),
        ExperimentCommand::Report(args) => report::run(args),
        ExperimentCommand::Check(args) => check::run(args),
    }
}
