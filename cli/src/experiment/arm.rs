//! A rewriter opened for an offline comparison: its own rewriting in front of the shared retrieval.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use recast_config::{DeadlineSettings, RewriterKind, RewriterSettings, TenantProfile};
use recast_domain::{Dialogue, RewriteSource};
use recast_gateway::{Pipeline, QuerySource, Run, RunOptions};
use recast_retrieval::Retriever;
use recast_rewriter::Ladder;
use secrecy::SecretString;

use super::RewriterName;
use crate::labelled;

/// Hits asked for: label metrics look at the first ten.
pub const DEPTH: usize = 10;

/// How long a rewrite service may take when nobody waits for the answer, in milliseconds.
const PATIENT_MS: u64 = 60_000;

/// One of the two rewriters of a comparison.
pub struct Arm {
    /// The name that reports show.
    pub name: String,
    query: Query,
    pipeline: Pipeline,
}

/// Where an arm's query comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Query {
    PassThrough,
    Gold,
    /// The pipeline's own rewriter, which must answer itself: what stands in for it is a failure here.
    Rewriter(RewriteSource),
}

impl Arm {
    /// Opens a rewriter; a model folder is loaded, a service is not asked yet.
    ///
    /// # Errors
    /// When the model cannot be loaded or the address is no address; the message names which rewriter.
    pub async fn open(
        name: &RewriterName,
        configured: &RewriterSettings,
        api_key: Option<SecretString>,
        retriever: &Arc<Retriever>,
        deadlines: DeadlineSettings,
    ) -> anyhow::Result<Self> {
        let (query, settings) = match name {
            RewriterName::PassThrough => (Query::PassThrough, nobody(configured)),
            RewriterName::Gold => (Query::Gold, nobody(configured)),
            RewriterName::Configured => (configured_query(configured.kind), configured.clone()),
            RewriterName::Model(path) => (Query::Rewriter(RewriteSource::Local), local(configured, path)),
            RewriterName::Service(url) => (Query::Rewriter(RewriteSource::Remote), remote(configured, url, api_key)),
        };
        let ladder = Ladder::from_settings(&settings).await.with_context(|| format!("rewriter {name}"))?;
        let pipeline = Pipeline::new(Arc::new(ladder), Arc::clone(retriever), deadlines);
        Ok(Self { name: name.to_string(), query, pipeline })
    }

    /// Rewrites and searches one labelled question.
    ///
    /// # Errors
    /// Why this arm has no answer of its own, in a word or two.
    pub async fn answer(&self, tenant: &Arc<TenantProfile>, dialogue: &Dialogue) -> Result<Run, String> {
        let query = match self.query {
            Query::PassThrough => QuerySource::PassThrough,
            Query::Gold => QuerySource::Given(labelled::one_gold(dialogue).to_owned()),
            Query::Rewriter(_) => QuerySource::Rewriter { cache: false },
        };
        let options = RunOptions { query, top_k: DEPTH, ..RunOptions::default() };
        let run = self.pipeline.run(tenant, &dialogue.conversation(), options).await;
        let run = run.map_err(|error| format!("retrieval_failed: {error}"))?;
        match self.query {
            Query::Rewriter(wanted) if run.trace.rewrite.source != wanted => Err(reason(&run)),
            _ => Ok(run),
        }
    }
}

/// What kept the rewriter from answering, as the trace tells it.
fn reason(run: &Run) -> String {
    let first = run.trace.degraded.first().and_then(|degradation| serde_json::to_value(degradation).ok());
    first.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_else(|| "rewriter_failed".to_owned())
}

fn configured_query(kind: RewriterKind) -> Query {
    match kind {
        RewriterKind::Local => Query::Rewriter(RewriteSource::Local),
        RewriterKind::Remote => Query::Rewriter(RewriteSource::Remote),
        RewriterKind::PassThrough => Query::PassThrough,
    }
}

/// Settings without a rewriter: nothing is loaded.
pub fn nobody(configured: &RewriterSettings) -> RewriterSettings {
    RewriterSettings { kind: RewriterKind::PassThrough, ..configured.clone() }
}

/// A model folder alone, with no service to stand in for it.
fn local(configured: &RewriterSettings, path: &Path) -> RewriterSettings {
    let mut settings = configured.clone();
    settings.kind = RewriterKind::Local;
    settings.model = path.to_owned();
    settings.adapter = Default::default();
    settings.remote.url.clear();
    settings
}

fn remote(configured: &RewriterSettings, url: &str, api_key: Option<SecretString>) -> RewriterSettings {
    let mut settings = configured.clone();
    settings.kind = RewriterKind::Remote;
    settings.remote.url = url.to_owned();
    settings.remote.timeout_ms = PATIENT_MS;
    settings.remote.api_key = api_key.unwrap_or_default();
    settings
}
