use std::path::Path;
use std::sync::Arc;

use recast_config::{Settings, TenantProfile};
use recast_domain::{Conversation, KbName, TenantId};
use recast_gateway::Parts;
use recast_retrieval::document::from_passages;
use recast_retrieval::eval::formats::{read_beir, read_trec};

use crate::args::SplitArg;
use crate::eval::measure::searches;
use crate::eval::report::{Question, Report};

/// Measures a BEIR or TREC folder: its queries as they are, without a rewriter.
pub async fn measure(settings: &Settings, folder: &Path, split: SplitArg) -> anyhow::Result<Report> {
    let split = match split {
        SplitArg::Train => "train",
        SplitArg::Val => "dev",
        SplitArg::Test => "test",
    };
    let collection = if folder.join("corpus.jsonl").is_file() { read_beir(folder, split)? } else { read_trec(folder)? };

    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let id: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect();
    let tenant: TenantId = format!("collection-{id}").parse()?;
    let mut settings = settings.clone();
    settings.state.dir = settings.state.dir.join("offline");
    let parts = Parts::open(&settings).await?;
    for document in from_passages(collection.passages) {
        parts.pipeline.retriever().put_document(&tenant, &KbName::default(), document).await?;
    }
    let profile = Arc::new(TenantProfile {
        id: tenant.clone(),
        name: name.clone(),
        domain: String::new(),
        system_prompt: String::new(),
        synonyms: Default::default(),
        term_expansion: Default::default(),
        protected_terms: Vec::new(),
        redact: false,
        retention_days: None,
    });
    let mut report = Report::default();
    for (id, query) in &collection.queries {
        let Some(labels) = collection.qrels.get(id) else { continue };
        let runs = searches(&parts.pipeline, &profile, &Conversation::default(), "raw", query, labels).await?;
        report.questions.push(Question {
            id: id.clone(),
            tenant: tenant.to_string(),
            query_type: "-".to_owned(),
            rewriting: None,
            runs,
        });
    }
    Ok(report)
}
