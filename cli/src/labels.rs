//! `recast labels`: what people wrote down about answers.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use recast_config::TenantProfile;
use recast_domain::{EpisodeId, TenantId};
use recast_episodes::{EpisodeReader, EpisodeStore, LabelRecord, LabelRow, Place, PutCounts, read_labels};
use serde_json::{Value, json};

use crate::args::{LabelsArgs, LabelsCommand, Remote};
use crate::{config, ingest, out};

/// Rows of one request.
const BATCH: usize = 200;
/// Complaints that are printed; the rest is counted.
const SHOWN: usize = 20;

/// `recast labels import`
pub fn run(args: &LabelsArgs) -> anyhow::Result<()> {
    let LabelsCommand::Import { file, tenant, remote, settings } = &args.command;
    let (rows, problems) = read_labels(file).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let mut complaints: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    let (counts, refused) = runtime.block_on(async {
        if let Some(url) = &remote.url {
            return over_http(url, remote, &rows).await;
        }
        let tenant: TenantId = tenant.as_deref().context("--tenant is missing")?.parse()?;
        let settings = config::effective(settings)?.settings;
        let place = Place::of(&settings)?;
        // there must be a store: an import makes none
        drop(EpisodeReader::open(place.clone())?);
        let store = EpisodeStore::open(place, &settings.episodes)
            .context("while a gateway runs, send the labels to it with --url and --key")?;
        // what is known of the tenant says whether its texts are redacted
        let redacts = TenantProfile::load(&settings.tenants.dir.join(tenant.as_str()))?.redact;
        let stored = into_store(&store, &tenant, redacts, &rows).await;
        store.close().await;
        stored
    })?;
    complaints.extend(refused.iter().map(|(line, message)| format!("{}:{line}: {message}", file.display())));
    complaints.iter().take(SHOWN).for_each(|complaint| out::error(complaint));
    if complaints.len() > SHOWN {
        out::error(&format!("and {} more", complaints.len() - SHOWN));
    }
    out::line(&format!("{} labels stored, {} there already", counts.stored, counts.known));
    if !complaints.is_empty() {
        bail!("{} of {} rows were not taken", complaints.len(), rows.len() + problems.len());
    }
    Ok(())
}

/// Lines that were refused, and why.
type Refused = Vec<(usize, String)>;

async fn into_store(
    store: &EpisodeStore,
    tenant: &TenantId,
    redacts: bool,
    rows: &[(usize, LabelRow)],
) -> anyhow::Result<(PutCounts, Refused)> {
    let created_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let (mut labels, mut refused): (Vec<LabelRecord>, Refused) = (Vec::new(), Vec::new());
    for (line, row) in rows {
        let id = EpisodeId(row.episode_id);
        let row = if redacts { row.clone().redacted() } else { row.clone() };
        match row.records(tenant, created_ms) {
            Err(message) => refused.push((*line, message)),
            Ok(_) if !store.reader().has(tenant, id)? => refused.push((*line, unknown(id))),
            Ok(records) => labels.extend(records),
        }
    }
    Ok((store.put_labels(labels).await?, refused))
}

fn unknown(id: EpisodeId) -> String {
    format!("episode_id: {id} is no episode of this tenant")
}

async fn over_http(url: &str, remote: &Remote, rows: &[(usize, LabelRow)]) -> anyhow::Result<(PutCounts, Refused)> {
    let target = format!("{}/v1/labels", url.trim_end_matches('/'));
    let client = ingest::client()?;
    let (mut counts, mut refused) = (PutCounts::default(), Vec::new());
    for some in rows.chunks(BATCH) {
        let labels: Vec<&LabelRow> = some.iter().map(|(_, row)| row).collect();
        let request = client.post(&target).bearer_auth(ingest::key(remote)?).json(&json!({"labels": labels}));
        let response = request.send().await?;
        if !response.status().is_success() {
            ingest::expect_success(response, "labels").await?;
            continue;
        }
        let reply: Value = response.json().await?;
        counts.stored += reply["stored"].as_u64().unwrap_or(0) as usize;
        counts.known += reply["known"].as_u64().unwrap_or(0) as usize;
        for one in reply["refused"].as_array().into_iter().flatten() {
            let line = one["index"].as_u64().and_then(|at| some.get(at as usize)).map_or(0, |(line, _)| *line);
            refused.push((line, one["message"].as_str().unwrap_or("refused").to_owned()));
        }
    }
    Ok((counts, refused))
}
