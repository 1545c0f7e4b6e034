use anyhow::Context;
use recast_domain::{KbName, TenantId};
use recast_retrieval::Retriever;
use serde_json::Value;

use crate::args::{DocumentsArgs, DocumentsCommand, KnowledgeBase};
use crate::ingest::{client, document_url, expect_success, key};
use crate::{config, out};

/// Documents of one page of a listing.
const PAGE: usize = 500;

/// `recast documents list|delete`
pub fn run(args: &DocumentsArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match &args.command {
            DocumentsCommand::List(kb) => list(kb).await,
            DocumentsCommand::Delete { ids, kb } => delete(kb, ids).await,
        }
    })
}

async fn open(kb: &KnowledgeBase) -> anyhow::Result<Retriever> {
    let effective = config::effective(&kb.settings)?;
    let opened = Retriever::open(&effective.settings).await;
    opened.context("the store cannot be opened here; while a gateway runs, go through it with --url and --key")
}

fn names(kb: &KnowledgeBase) -> anyhow::Result<(TenantId, KbName)> {
    Ok((kb.tenant.parse()?, kb.kb.parse()?))
}

async fn list(kb: &KnowledgeBase) -> anyhow::Result<()> {
    let (tenant, name) = names(kb)?;
    let mut after: Option<String> = None;
    if let Some(url) = &kb.remote.url {
        let client = client()?;
        loop {
            let mut target = document_url(url, &name, None)?;
            target.query_pairs_mut().append_pair("limit", &PAGE.to_string());
            if let Some(after) = &after {
                target.query_pairs_mut().append_pair("after", after);
            }
            let response = client.get(target).bearer_auth(key(&kb.remote)?).send().await?;
            let page: Value = response.error_for_status()?.json().await?;
            let documents = page["documents"].as_array().cloned().unwrap_or_default();
            for document in &documents {
                out::line(&document.to_string());
            }
            match documents.last().and_then(|document| document["doc_id"].as_str()) {
                Some(last) if documents.len() == PAGE => after = Some(last.to_owned()),
                _ => return Ok(()),
            }
        }
    }
    let retriever = open(kb).await?;
    loop {
        let page = retriever.list_documents(&tenant, &name, after.as_deref(), PAGE).await?;
        for document in &page {
            out::line(&serde_json::to_string(document)?);
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.doc_id.clone()),
            _ => return Ok(()),
        }
    }
}

async fn delete(kb: &KnowledgeBase, ids: &[String]) -> anyhow::Result<()> {
    let (tenant, name) = names(kb)?;
    if let Some(url) = &kb.remote.url {
        let client = client()?;
        for id in ids {
            let target = document_url(url, &name, Some(id))?;
            expect_success(client.delete(target).bearer_auth(key(&kb.remote)?).send().await?, id).await?;
        }
        return Ok(());
    }
    let retriever = open(kb).await?;
    for id in ids {
        retriever.delete_document(&tenant, &name, id).await?;
        out::error(&format!("{id}: deleted"));
    }
    retriever.flush().await?;
    Ok(())
}
