use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use recast_domain::{KbName, TenantId};
use recast_retrieval::Retriever;
use recast_retrieval::document::{Document, read_file};

use crate::args::{IngestArgs, Remote};
use crate::{config, out};

const KINDS: [&str; 6] = ["md", "markdown", "txt", "text", "jsonl", "csv"];

/// `recast ingest`
pub fn run(args: &IngestArgs) -> anyhow::Result<()> {
    let (tenant, kb): (TenantId, KbName) = (args.tenant.parse()?, args.kb.parse()?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if let Some(url) = &args.remote.url {
            return over_http(url, &args.remote, &kb, &args.paths).await;
        }
        let effective = config::effective(&args.settings)?;
        let retriever = Retriever::open(&effective.settings)
            .await
            .context("the store cannot be opened here; while a gateway runs, ingest through it with --url and --key")?;
        into_store(&retriever, &tenant, &kb, &args.paths).await
    })
}

/// Puts files into a store that this process owns.
pub async fn into_store(
    retriever: &Retriever,
    tenant: &TenantId,
    kb: &KbName,
    paths: &[PathBuf],
) -> anyhow::Result<()> {
    let documents = read(paths)?;
    let progress = bar(documents.len(), tenant.as_str());
    let (mut changed, mut passages) = (0, 0);
    for document in documents {
        let name = document.doc_id.clone();
        let report = retriever.put_document(tenant, kb, document).await.with_context(|| format!("document {name}"))?;
        changed += usize::from(report.changed);
        passages += if report.changed { report.passages } else { 0 };
        progress.inc(1);
    }
    let total = progress.length().unwrap_or_default();
    progress.finish_and_clear();
    retriever.flush().await?;
    out::error(&format!("{tenant}/{kb}: {total} documents, {changed} new or changed, {passages} passages written"));
    Ok(())
}

async fn over_http(url: &str, remote: &Remote, kb: &KbName, paths: &[PathBuf]) -> anyhow::Result<()> {
    let documents = read(paths)?;
    let progress = bar(documents.len(), kb.as_str());
    let client = client()?;
    for document in documents {
        let target = document_url(url, kb, Some(&document.doc_id))?;
        let request = client.put(target).bearer_auth(key(remote)?).json(&document);
        expect_success(request.send().await?, &document.doc_id).await?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    out::error(&format!("{kb}: {} documents sent", progress.length().unwrap_or_default()));
    Ok(())
}

/// The client of every command that talks to a running gateway.
pub fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none())
        .build()?)
}

/// The key of a `--url`.
pub fn key(remote: &Remote) -> anyhow::Result<&str> {
    remote.key.as_deref().context("--url needs --key (or RECAST_KEY): a key of the tenant with scope admin")
}

/// `{url}/v1/kbs/{kb}/documents[/{doc_id}]`; an id may hold any character.
pub fn document_url(url: &str, kb: &KbName, doc_id: Option<&str>) -> anyhow::Result<reqwest::Url> {
    let mut target = reqwest::Url::parse(url).with_context(|| format!("--url {url:?}"))?;
    target
        .path_segments_mut()
        .map_err(|()| anyhow::anyhow!("--url must start with http:// or https://"))?
        .pop_if_empty()
        .extend(["v1", "kbs", kb.as_str(), "documents"])
        .extend(doc_id);
    Ok(target)
}

/// Turns an error answer into an error that quotes it.
pub async fn expect_success(response: reqwest::Response, what: &str) -> anyhow::Result<()> {
    let status = response.status();
    if !status.is_success() {
        bail!("{what}: the gateway answered {status}: {}", response.text().await.unwrap_or_default());
    }
    Ok(())
}

fn bar(length: usize, label: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} documents, {per_sec}, {eta} left");
    let progress = ProgressBar::new(length as u64).with_prefix(label.to_owned());
    if let Ok(style) = style { progress.with_style(style) } else { progress }
}

fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Document>> {
    let mut files = Vec::new();
    for path in paths {
        collect(path, path, &mut files)?;
    }
    let mut documents = Vec::new();
    for (file, doc_id) in files {
        documents.extend(read_file(&file, &doc_id)?);
    }
    Ok(documents)
}

/// Files below `path` with the ids that their documents get: the path relative to what was named.
fn collect(root: &Path, path: &Path, files: &mut Vec<(PathBuf, String)>) -> anyhow::Result<()> {
    if !path.is_dir() {
        let name = path.strip_prefix(root).ok().filter(|name| !name.as_os_str().is_empty());
        let name = name.or_else(|| path.file_name().map(Path::new)).unwrap_or(path);
        files.push((path.to_owned(), name.to_string_lossy().into_owned()));
        return Ok(());
    }
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut entries = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for entry in entries {
        let known = entry.extension().and_then(|kind| kind.to_str()).is_some_and(|kind| KINDS.contains(&kind));
        if entry.is_dir() || known {
            collect(root, &entry, files)?;
        }
    }
    Ok(())
}
