//! `recast serve` as the learner's keeper: starts it, starts it again when it dies, and stops it at once when it is
//! switched off.

use std::process::Stdio;
use std::time::Duration;

use recast_config::Settings;
use recast_gateway::{Gateway, KeyError, Scope};
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::status::{self, Switch};

/// How often the switch is looked at.
const LOOK: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MOST_PAUSE: Duration = Duration::from_secs(300);
/// A learner that lived so long has earned a quick restart.
const LIVED: Duration = Duration::from_secs(600);
/// The learner's keys; it is started again, with new ones, before they end.
const KEY_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// Keys for the learner, one a tenant, as [`super::KEYS`] wants them.
///
/// # Errors
/// When the key file cannot be written.
pub fn mint(gateway: &Gateway) -> Result<String, KeyError> {
    let mut pairs = Vec::new();
    for tenant in gateway.tenants().snapshot().keys() {
        let key = gateway.keys().create(tenant, Scope::Train, Some(KEY_LIFE))?;
        pairs.push(format!("{tenant}={}", key.text.expose_secret()));
    }
    Ok(pairs.join(","))
}

/// Keeps a learner running until the future is dropped, which ends the learner too.
pub async fn keep(settings: Settings, config: String, url: String, keys: String) {
    let dir = settings.learner_dir();
    let Ok(switch) = Switch::at(&dir) else {
        tracing::error!(dir = %dir.display(), "the learner's folder cannot be made: nothing is learned");
        return;
    };
    let mut pause = FIRST_PAUSE;
    loop {
        if switch.why_off().is_some() {
            sleep(LOOK).await;
            continue;
        }
        let born = Instant::now();
        match start(&config, &url, &keys) {
            Ok(child) => watch(child, &switch, &dir).await,
            Err(error) => tracing::error!(%error, "the learner cannot be started"),
        }
        metrics::gauge!("recast_learner_running").set(0.0);
        if switch.why_off().is_some() {
            continue;
        }
        metrics::counter!("recast_learner_restarts_total").increment(1);
        pause = if born.elapsed() > LIVED { FIRST_PAUSE } else { (pause * 2).min(MOST_PAUSE) };
        sleep(pause).await;
    }
}

fn start(config: &str, url: &str, keys: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["learn", "--config", config])
        .env("RECAST__LEARNER__GATEWAY", url)
        .env(super::KEYS, keys)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the learner's end, or ends it when it is switched off.
async fn watch(mut child: Child, switch: &Switch, dir: &std::path::Path) {
    metrics::gauge!("recast_learner_running").set(1.0);
    loop {
        tokio::select! {
            ended = child.wait() => {
                match ended {
                    Ok(code) => tracing::warn!(%code, "the learner ended"),
                    Err(error) => tracing::warn!(%error, "the learner cannot be waited for"),
                }
                return;
            }
            () = sleep(LOOK) => {}
        }
        if let Some(why) = switch.why_off() {
            tracing::warn!(why, "the learner is switched off");
            // it goes on from its last checkpoint
            let _ = child.kill().await;
            return;
        }
        if let Some(status) = status::read(dir) {
            tell(&status);
        }
    }
}

fn tell(status: &status::Status) {
    metrics::gauge!("recast_learner_step").set(status.step as f64);
    metrics::gauge!("recast_learner_questions").set(status.questions as f64);
    let Some(step) = &status.metrics else { return };
    let figures = [
        ("reward", Some(step.reward_mean)),
        ("entropy", Some(step.entropy)),
        ("kl_reference", step.kl_reference),
        ("zero_variance_share", Some(step.zero_variance_share)),
        ("unscored_share", Some(step.unscored_share)),
        ("stale_share", Some(step.stale_share)),
        ("grad_norm", Some(step.grad_norm)),
        ("clip_fraction", step.clip_fraction.last().copied()),
        ("length_tokens", Some(step.length_mean)),
        ("win_rate", step.parts.get("win").copied()),
        ("value_loss", step.value_loss),
        ("explained_variance", step.explained_variance),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            metrics::gauge!("recast_learner_figure", "figure" => name).set(value);
        }
    }
}
