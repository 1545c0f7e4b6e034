use recast_config::{Effective, Source, load};

use crate::args::{ConfigArgs, ConfigCommand, Settings};
use crate::out;

/// Loads the settings that a command line names, with the overrides of the environment.
///
/// # Errors
/// Every problem of the settings at once.
pub fn effective(args: &Settings) -> anyhow::Result<Effective> {
    Ok(load(&Source::parse(&args.config), std::env::vars())?)
}

/// `recast config check`
pub fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let ConfigCommand::Check(settings) = &args.command;
    let effective = effective(settings)?;
    out::line(&effective.display());
    out::error("the configuration is valid");
    Ok(())
}
