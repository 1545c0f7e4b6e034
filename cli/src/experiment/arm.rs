//! A rewriter opened for an offline comparison: its own rewriting in front of the shared retrieval.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use recast_config::{RewriterKind, RewriterSettings, TenantProfile};
use recast_domain::Dialogue;
use recast_gateway::{ArmError, Pipeline, QuerySource, Run, RunOptions};
use recast_rewriter::{LocalRewriter, RemoteRewriter, Rewriter};
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
enum Query {
    PassThrough,
    Gold,
    /// A rewriter without anything to stand in for it: where it has no answer, the arm has none.
    Rewriter(Arc<dyn Rewriter>),
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
        pipeline: &Pipeline,
    ) -> anyhow::Result<Self> {
        let query = match name {
            RewriterName::PassThrough => Ok(Query::PassThrough),
            RewriterName::Gold => Ok(Query::Gold),
            RewriterName::Configured => query(configured).await,
            RewriterName::Model(path, adapter) => query(&local(configured, path, adapter.as_deref())).await,
            RewriterName::Service(url) => query(&remote(configured, url, api_key)).await,
        };
        let query = query.with_context(|| format!("rewriter {name}"))?;
        Ok(Self { name: name.to_string(), query, pipeline: pipeline.clone() })
    }

    /// Rewrites and searches one labelled question.
    ///
    /// # Errors
    /// Why this arm has no answer, in a word or two.
    pub async fn answer(&self, tenant: &Arc<TenantProfile>, dialogue: &Dialogue) -> Result<Run, String> {
        let conversation = dialogue.conversation();
        let options = |query| RunOptions { query, top_k: DEPTH, ..RunOptions::default() };
        let source = match &self.query {
            Query::PassThrough => QuerySource::PassThrough,
            Query::Gold => QuerySource::Given(labelled::one_gold(dialogue).to_owned()),
            Query::Rewriter(rewriter) => {
                // The source is not looked at: this rewriter answers, or nobody does.
                let options = options(QuerySource::PassThrough);
                let run = self.pipeline.run_with(&**rewriter, tenant, &conversation, options).await;
                return run.map_err(|error| reason(&error));
            }
        };
        let run = self.pipeline.run(tenant, &conversation, options(source)).await;
        run.map_err(|error| reason(&ArmError::from(error)))
    }
}

/// What kept an arm from answering, as metrics name it.
fn reason(error: &ArmError) -> String {
    tracing::debug!(%error, "an arm has no answer");
    match error {
        ArmError::Rewrite(error) => error.outcome().to_owned(),
        ArmError::Search(_) => "retrieval_failed".to_owned(),
    }
}

async fn query(settings: &RewriterSettings) -> anyhow::Result<Query> {
    Ok(match settings.kind {
        RewriterKind::PassThrough => Query::PassThrough,
        RewriterKind::Local => Query::Rewriter(Arc::new(LocalRewriter::load(settings).await?)),
        RewriterKind::Remote => Query::Rewriter(Arc::new(RemoteRewriter::new(&settings.remote)?)),
    })
}

/// Settings without a rewriter: nothing is loaded.
pub fn nobody(configured: &RewriterSettings) -> RewriterSettings {
    RewriterSettings { kind: RewriterKind::PassThrough, ..configured.clone() }
}

fn local(configured: &RewriterSettings, path: &Path, adapter: Option<&Path>) -> RewriterSettings {
    let mut settings = configured.clone();
    settings.kind = RewriterKind::Local;
    settings.model = path.to_owned();
    settings.adapter = adapter.map(Path::to_owned).unwrap_or_default();
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
