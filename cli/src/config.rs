use anyhow::Context;
use recast_config::{Effective, Source, load};
use secrecy::SecretString;

use crate::args::{ConfigArgs, ConfigCommand, Settings};
use crate::out;

/// Loads the settings that a command line names, with the overrides of the environment.
///
/// # Errors
/// Every problem of the settings at once.
pub fn effective(args: &Settings) -> anyhow::Result<Effective> {
    Ok(load(&Source::parse(&args.config), std::env::vars())?)
}

/// The secret in an environment variable that a command line names, so that no secret stands in a list of processes.
///
/// # Errors
/// When there is no such variable, or it is empty.
pub fn secret(variable: &str) -> anyhow::Result<SecretString> {
    let value = std::env::vars().find(|(name, value)| name == variable && !value.is_empty());
    let (_, value) = value.with_context(|| format!("--api-key-env: the environment variable {variable} is not set"))?;
    Ok(value.into())
}

/// `recast config check`
pub fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let ConfigCommand::Check(settings) = &args.command;
    let effective = effective(settings)?;
    out::line(&effective.display());
    out::error("the configuration is valid");
    Ok(())
}
