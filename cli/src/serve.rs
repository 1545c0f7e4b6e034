use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use recast_config::Effective;
use recast_domain::KbName;
use recast_gateway::Gateway;
use recast_gateway::Scope;
use recast_gateway::init_telemetry;
use secrecy::ExposeSecret;

use crate::args::ServeArgs;
use crate::learn::supervise;
use crate::stop::Stop;
use crate::{config, ingest, out};

/// How long a key that was minted at start works.
const MINTED_KEY_LIFE: Duration = Duration::from_secs(86_400);

/// `recast serve`
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let effective = config::effective(&args.settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let telemetry = {
        let _inside = runtime.enter();
        init_telemetry(&effective.settings.telemetry)?
    };
    let outcome = runtime.block_on(serve(effective, &args.settings.config));
    telemetry.shutdown();
    outcome
}

async fn serve(effective: Effective, config: &str) -> anyhow::Result<()> {
    let mut stop = Stop::listen(false)?;
    let gateway = Gateway::open(effective.settings.clone()).await?;
    if effective.settings.tenants.seed {
        seed(&gateway, &effective.settings.tenants.dir).await?;
    }
    // Passages that are not prepared yet are prepared when they are first reranked; this only spares early askers the wait.
    let retriever = std::sync::Arc::clone(gateway.retriever());
    tokio::spawn(async move {
        if let Err(error) = retriever.warm_up().await {
            tracing::warn!(%error, "the reranker could not be prepared ahead");
        }
    });
    let asker = if effective.settings.server.mint_keys { Some(mint(&gateway)?) } else { None };
    let learner_keys = if effective.settings.learner.enabled { Some(supervise::mint(&gateway)?) } else { None };

    let running = gateway.serve();
    let learning = learner_keys.map(|keys| {
        let url = format!("http://{}", running.address());
        tokio::spawn(supervise::keep(effective.settings.clone(), config.to_owned(), url, keys))
    });
    out::line(&format!("listening on http://{}", running.address()));
    if let Some((tenant, key)) = asker {
        out::line(&hint(&running.address().to_string(), &tenant, &key));
    }
    stop.asked().await?;
    if let Some(learning) = learning {
        learning.abort();
    }
    let report = running.shutdown().await?;
    if !report.drained {
        out::error("some requests were broken off: server.drain_seconds was over");
    }
    Ok(())
}

/// Ingests the passages that lie in the tenants' folders; unchanged ones cost nothing.
pub async fn seed(gateway: &Gateway, dir: &Path) -> anyhow::Result<()> {
    let tenants = gateway.tenants().snapshot();
    for tenant in tenants.keys() {
        let file = dir.join(tenant.as_str()).join("passages.jsonl");
        if file.is_file() {
            ingest::into_store(gateway.retriever(), tenant, &KbName::default(), &[file]).await?;
        }
    }
    Ok(())
}

/// Makes a key a tenant, prints them, and returns the first for the ready-made request.
fn mint(gateway: &Gateway) -> anyhow::Result<(String, String)> {
    let mut first = None;
    let snapshot = gateway.tenants().snapshot();
    let mut tenants: Vec<_> = snapshot.keys().collect();
    tenants.sort();
    out::line("keys for today (made at this start, good for a day):");
    for tenant in tenants {
        let key = gateway.keys().create(tenant, Scope::Admin, Some(MINTED_KEY_LIFE))?;
        out::line(&format!("  {tenant}  {}", key.text.expose_secret()));
        if first.is_none() || tenant.as_str() == "fivedoctors" {
            first = Some((tenant.to_string(), key.text.expose_secret().to_owned()));
        }
    }
    first.context("tenants.dir holds no tenant")
}

fn hint(address: &str, tenant: &str, key: &str) -> String {
    format!(
        "try it ({tenant}):\n  curl -s http://{address}/general_rag -H 'authorization: Bearer {key}' -H 'content-type: application/json' \\\n    \
         -d '{{\"query\": \"孕妇能喝吗\", \"history\": \"用户: 胶原蛋白肽饮怎么喝\\n助手: 每天一瓶，饭后喝\"}}'"
    )
}
