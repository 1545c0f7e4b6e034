//! `recast learn`: round after round, from questions that were asked to a candidate at the gate.
//!
//! A process of its own: it asks a running gateway for rewards, reads the episode store, and hands its candidates over
//! in the policy store. Nothing that serves waits for it.

mod candidate;
mod cores;
mod questions;
mod round;
mod status;
pub mod supervise;

pub use round::now_ms;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use recast_config::Settings;
use recast_domain::TenantId;
use secrecy::SecretString;

use crate::args::LearnArgs;
use crate::{config, out};

/// The environment variable with the keys of the scope train: `tenant=key`, separated by commas.
pub const KEYS: &str = "RECAST_LEARNER_KEYS";

/// How long a round that could not be scored is left alone, at most: the judge may be back before the next round is due.
const PAUSE: Duration = Duration::from_secs(60);

/// `recast learn`
pub fn run(args: &LearnArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let switch = status::Switch::at(&settings.learner_dir())?;
    if args.off {
        switch.off("switched off on the command line")?;
        out::line("the learner is off: it stops before its next step, and does not start again until --on");
        return Ok(());
    }
    if args.on {
        switch.on()?;
        out::line("the learner may run");
        return Ok(());
    }
    if args.status {
        out::line(&status::shown(&settings.learner_dir())?);
        return Ok(());
    }
    if let Some(why) = switch.why_off() {
        bail!("the learner is off ({why}): recast learn --on lets it run");
    }
    // before any thread is there: those that follow keep to the same cores
    let cores = cores::spare(settings.learner.spare_cores);
    let world = round::World { keys: keys()?, url: gateway(&settings)? };
    out::error(&format!("learning on {cores} cores, scored by {}", world.url));
    loop {
        let mut time = Duration::from_secs(settings.learner.rest_seconds);
        match round::run(&settings, &world, &switch)? {
            round::Ended::TooFew { found } => {
                let wanted = settings.learner.min_questions;
                let text = format!("{found} questions, {wanted} are needed: learner.min_questions");
                status::write(&settings.learner_dir(), &status::Status::waiting(&text))?;
                out::error(&text);
            }
            round::Ended::Off => bail!("the learner was switched off"),
            round::Ended::Done(summary) => out::line(&summary),
            round::Ended::Paused(summary) => {
                out::line(&summary);
                time = time.min(PAUSE);
            }
        }
        if args.once {
            return Ok(());
        }
        if !rest(time, &switch) {
            bail!("the learner was switched off");
        }
    }
}

/// Waits; false where the learner is switched off meanwhile.
#[expect(clippy::disallowed_methods, reason = "a pause between two rounds, with a look at the switch each second")]
fn rest(time: Duration, switch: &status::Switch) -> bool {
    let end = std::time::Instant::now() + time;
    while std::time::Instant::now() < end {
        if switch.why_off().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_secs(1).min(time));
    }
    true
}

fn gateway(settings: &Settings) -> anyhow::Result<String> {
    let url = &settings.learner.gateway;
    if !url.is_empty() {
        return Ok(url.clone());
    }
    let listen = settings.server.listen;
    if listen.port() == 0 {
        bail!(
            "learner.gateway is empty, and server.listen has no fixed port: set the address of the gateway that scores"
        );
    }
    let host = if listen.ip().is_unspecified() { "127.0.0.1".to_owned() } else { listen.ip().to_string() };
    Ok(format!("http://{host}:{}", listen.port()))
}

/// The keys by tenant.
fn keys() -> anyhow::Result<BTreeMap<TenantId, SecretString>> {
    let help =
        || format!("{KEYS} must hold tenant=key, separated by commas: recast keys create --scope train makes one");
    let text = config::secret(KEYS).with_context(help)?;
    parse_keys(secrecy::ExposeSecret::expose_secret(&text)).with_context(help)
}

fn parse_keys(text: &str) -> Option<BTreeMap<TenantId, SecretString>> {
    let pair = |part: &str| {
        let (tenant, key) = part.split_once('=')?;
        Some((tenant.trim().parse().ok()?, SecretString::from(key.trim().to_owned())))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_by_tenant_and_a_fault_shows_none() {
        let keys = parse_keys("a=k1, b=k=2,").unwrap();
        assert_eq!(keys.keys().map(TenantId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert!(parse_keys("a").is_none() && parse_keys("no tenant=k").is_none());
    }
}
