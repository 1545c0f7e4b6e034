//! `recast episodes erase|erased`: a user goes, and what remains is a list of ids.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use recast_domain::TenantId;
use recast_episodes::export::parse_time;
use recast_episodes::{EpisodeReader, EpisodeStore, Place};
use serde_json::{Value, json};

use crate::args::{Remote, Settings};
use crate::{config, ingest, out};

/// `recast episodes erase`
pub fn erase(tenant: Option<&str>, user: &str, remote: &Remote, settings: &Settings) -> anyhow::Result<()> {
    if user.is_empty() {
        bail!("--user is empty: name the user as the requests did");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let episodes = runtime.block_on(async {
        if let Some(url) = &remote.url {
            return over_http(url, remote, user).await;
        }
        let tenant: TenantId = tenant.context("--tenant is missing")?.parse()?;
        let settings = config::effective(settings)?.settings;
        let place = Place::of(&settings)?;
        // there must be a store: an erasure makes none
        drop(EpisodeReader::open(place.clone())?);
        let store = EpisodeStore::open(place, &settings.episodes)
            .context("while a gateway runs, ask it with --url and --key: it has caches to empty, too")?;
        let now_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let erased = store.erase_user(&tenant, user, now_ms).await;
        store.close().await;
        Ok(erased?)
    })?;
    out::line(&format!("{episodes} episodes erased"));
    Ok(())
}

async fn over_http(url: &str, remote: &Remote, user: &str) -> anyhow::Result<u64> {
    let target = format!("{}/v1/erasures", url.trim_end_matches('/'));
    let request = ingest::client()?.post(target).bearer_auth(ingest::key(remote)?).json(&json!({"user_id": user}));
    let response = request.send().await?;
    if !response.status().is_success() {
        ingest::expect_success(response, "the erasure").await?;
        bail!("the gateway did not say what it erased");
    }
    let reply: Value = response.json().await?;
    reply["episodes"].as_u64().context("the gateway did not say what it erased")
}

/// `recast episodes erased`
pub fn erased(tenant: &str, since: Option<&str>, settings: &Settings) -> anyhow::Result<()> {
    let tenant: TenantId = tenant.parse()?;
    let since_ms = since.map(|text| parse_time(text, "--since")).transpose()?;
    let reader = EpisodeReader::open(Place::of(&config::effective(settings)?.settings)?)?;
    let mut last = None;
    loop {
        let page = reader.tombstones(&tenant, since_ms.unwrap_or(0), last)?;
        let Some(end) = page.last() else { return Ok(()) };
        last = Some(*end);
        for one in &page {
            out::line(&serde_json::to_string(one)?);
        }
    }
}
