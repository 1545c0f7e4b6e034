use std::sync::Arc;

use indicatif::ProgressBar;
use recast_config::TenantProfile;
use recast_domain::{Conversation, Dialogue, RewriteSource, Split};
use recast_gateway::{Pipeline, QuerySource, RunOptions};
use recast_retrieval::LegChoice;
use recast_retrieval::eval::metrics::{self, Grades};

use crate::eval::report::{Question, Report, Rewriting, Run};
use crate::labelled::{self, LabelledTenant, grades};

/// How deep rankings are looked at.
pub const DEPTH: usize = 30;

/// Ways to search, by name: which legs, and whether the reranker runs.
pub const SEARCHES: [(&str, LegChoice, bool); 4] = [
    ("bm25", LegChoice::Bm25, false),
    ("dense", LegChoice::Dense, false),
    ("hybrid", LegChoice::Both, false),
    ("hybrid+rerank", LegChoice::Both, true),
];

/// Runs every question of `split` with every query and every search.
pub async fn measure(
    pipeline: &Pipeline,
    tenants: &[LabelledTenant],
    split: Split,
    limit: Option<usize>,
) -> anyhow::Result<Report> {
    let total: usize = tenants.iter().map(|tenant| tenant.split(split, limit).count()).sum();
    let progress = ProgressBar::new(total as u64);
    let mut report = Report::default();
    for tenant in tenants {
        let trained = tenant.trained_documents();
        for dialogue in tenant.split(split, limit) {
            let unseen = tenant.has_unseen_name(dialogue, &trained);
            report.questions.push(question(pipeline, &tenant.profile, dialogue, unseen).await?);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(report)
}

async fn question(
    pipeline: &Pipeline,
    tenant: &Arc<TenantProfile>,
    dialogue: &Dialogue,
    unseen: bool,
) -> anyhow::Result<Question> {
    let conversation = dialogue.conversation();
    let labels = grades(dialogue);
    let options = RunOptions { query: QuerySource::Rewriter { cache: false }, ..depth_options() };
    let rewritten = pipeline.run(tenant, &conversation, options).await?.trace;
    let mut runs = Vec::new();
    let queries = [
        ("raw", dialogue.query.as_str()),
        ("rewrite", &rewritten.rewrite.text),
        ("gold", labelled::one_gold(dialogue)),
    ];
    for (query, text) in queries {
        runs.extend(searches(pipeline, tenant, &conversation, query, text, &labels).await?);
    }
    let same = |gold: &String| squeeze(gold) == squeeze(&rewritten.rewrite.text);
    let rewriting = Rewriting {
        text: rewritten.rewrite.text.clone(),
        by_local_model: rewritten.rewrite.source == RewriteSource::Local,
        exact: dialogue.gold_rewrites.iter().any(same),
        unseen_name: unseen,
        rewrite_us: rewritten.timings.rewrite_us,
    };
    Ok(Question {
        id: dialogue.id.clone(),
        tenant: tenant.id.to_string(),
        query_type: labelled::query_type(dialogue).to_owned(),
        rewriting: Some(rewriting),
        runs,
    })
}

fn depth_options() -> RunOptions {
    RunOptions { top_k: DEPTH, ..RunOptions::default() }
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Searches `text` in every way that this configuration has.
pub async fn searches(
    pipeline: &Pipeline,
    tenant: &Arc<TenantProfile>,
    conversation: &Conversation,
    query: &str,
    text: &str,
    labels: &Grades,
) -> anyhow::Result<Vec<Run>> {
    let dense = !pipeline.retriever().embedder_identity().is_empty();
    let reranker = !pipeline.retriever().reranker_identity().is_empty();
    let mut runs = Vec::new();
    for (search, legs, rerank) in SEARCHES {
        if (legs != LegChoice::Bm25 && !dense) || (rerank && !reranker) {
            continue;
        }
        let options = RunOptions { query: QuerySource::Given(text.to_owned()), legs, rerank, ..depth_options() };
        let trace = pipeline.run(tenant, conversation, options).await?.trace;
        let ids: Vec<&str> = trace.hits.iter().map(|hit| hit.passage.id.as_str()).collect();
        runs.push(Run {
            query: query.to_owned(),
            search: search.to_owned(),
            top1: metrics::success(&ids, labels, 1),
            recall_5: metrics::recall(&ids, labels, 5),
            recall_10: metrics::recall(&ids, labels, 10),
            mrr: metrics::reciprocal_rank(&ids, labels),
            ndcg_10: metrics::ndcg(&ids, labels, 10),
            precision_5: metrics::precision(&ids, labels, 5),
        });
    }
    Ok(runs)
}
