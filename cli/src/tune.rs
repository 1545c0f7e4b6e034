//! `recast tune`: fusion weights and score calibration, fitted on the validation split.

use std::time::Duration;

use indicatif::ProgressBar;
use recast_config::Settings;
use recast_domain::{KbName, Split};
use recast_gateway::{Pipeline, QuerySource, RunOptions};
use recast_retrieval::tune::{LabelledCandidate, LabelledLists, calibration_error, fit_calibration, tune_fusion};
use recast_retrieval::tuning::{DEFAULT_ENTRY, TenantTuning, Tuning};
use recast_retrieval::{CandidateSet, LegChoice, SearchRequest};
use tokio::time::Instant;

use crate::args::TuneArgs;
use crate::labelled::{self, LabelledTenant, grades};
use crate::{config, out};

const PATIENCE: Duration = Duration::from_secs(60);

/// What was searched for one question, with its labels.
struct Searched {
    set: CandidateSet,
    relevant: Vec<String>,
}

/// `recast tune`
pub fn run(args: &TuneArgs) -> anyhow::Result<()> {
    let mut settings = config::effective(&args.settings)?.settings;
    if let Some(out) = &args.out {
        settings.retrieval.tuning.clone_from(out);
    }
    let tenants = labelled::load(&settings.tenants.dir, None)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(tune(&settings, &tenants, args.limit))
}

/// Two rounds: the candidates that the calibration is fitted on depend on the fusion weights.
async fn tune(settings: &Settings, tenants: &[LabelledTenant], limit: Option<usize>) -> anyhow::Result<()> {
    let mut tuning = Tuning::default();
    for round in ["fusion", "calibration"] {
        let (parts, pipeline) = labelled::open(settings, tenants).await?;
        tuning.embedder = pipeline.retriever().embedder_identity().to_owned();
        tuning.reranker = pipeline.retriever().reranker_identity().to_owned();
        tuning.tokenizer = recast_retrieval::tokenize::TOKENIZER_VERSION;
        let mut everything = Vec::new();
        for tenant in tenants {
            let searched = search_all(&pipeline, tenant, limit).await?;
            let entry = tuning.tenants.entry(tenant.profile.id.to_string()).or_default();
            fit(entry, &searched, settings.retrieval.rrf_k, round, tenant.profile.id.as_str());
            everything.extend(searched);
        }
        let entry = tuning.tenants.entry(DEFAULT_ENTRY.to_owned()).or_default();
        fit(entry, &everything, settings.retrieval.rrf_k, round, DEFAULT_ENTRY);
        tuning.save(&settings.retrieval.tuning)?;
        pipeline.retriever().flush().await?;
        drop((parts, pipeline));
    }
    out::error(&format!("written to {}", settings.retrieval.tuning.display()));
    Ok(())
}

fn fit(entry: &mut TenantTuning, searched: &[Searched], rrf_k: f32, round: &str, name: &str) {
    if round == "fusion" {
        let lists: Vec<_> = searched.iter().map(lists).collect();
        let (weights, mrr) = tune_fusion(&lists, rrf_k, 30);
        entry.fusion = weights;
        out::line(&format!("{name}: bm25 {:.2}, dense {:.2}, validation MRR {mrr:.3}", weights.bm25, weights.dense));
    } else {
        let candidates: Vec<_> = searched.iter().flat_map(candidates).collect();
        entry.calibration = fit_calibration(&candidates);
        let stated = |candidate: &LabelledCandidate| {
            (entry.calibration.score(candidate.cosine, candidate.lexical), candidate.relevant)
        };
        let error = calibration_error(&candidates.iter().map(stated).collect::<Vec<_>>());
        out::line(&format!("{name}: {} candidates, expected calibration error of score {error:.3}", candidates.len()));
    }
}

fn lists(searched: &Searched) -> LabelledLists<uuid::Uuid> {
    let relevant =
        searched.set.candidates.iter().filter(|candidate| searched.relevant.contains(&candidate.point.passage.id));
    LabelledLists {
        bm25: searched.set.bm25.clone(),
        dense: searched.set.dense.clone(),
        relevant: relevant.map(|candidate| candidate.point.id).collect(),
    }
}

fn candidates(searched: &Searched) -> impl Iterator<Item = LabelledCandidate> + '_ {
    searched.set.candidates.iter().map(|candidate| LabelledCandidate {
        cosine: candidate.cosine,
        lexical: candidate.lexical,
        raw_rerank: candidate.raw_rerank,
        relevant: searched.relevant.contains(&candidate.point.passage.id),
    })
}

/// Searches what the configured rewriter makes of each validation question, since that is what is served.
async fn search_all(
    pipeline: &Pipeline,
    tenant: &LabelledTenant,
    limit: Option<usize>,
) -> anyhow::Result<Vec<Searched>> {
    let progress = ProgressBar::new(tenant.split(Split::Val, limit).count() as u64);
    let legs = if pipeline.retriever().embedder_identity().is_empty() { LegChoice::Bm25 } else { LegChoice::Both };
    let mut searched = Vec::new();
    for dialogue in tenant.split(Split::Val, limit) {
        let options =
            RunOptions { query: QuerySource::Rewriter { cache: true }, rerank: false, ..RunOptions::default() };
        let rewritten = pipeline.run(&tenant.profile, &dialogue.conversation(), options).await?.trace.rewrite;
        let request = SearchRequest {
            tenant: tenant.profile.id.clone(),
            kb: KbName::default(),
            query: rewritten.text,
            top_k: 30,
            score_threshold: 0.0,
            filters: Vec::new(),
            legs,
            rerank: true,
            retrieval_deadline: Instant::now() + PATIENCE,
            rerank_deadline: Instant::now() + PATIENCE,
        };
        let set = pipeline.retriever().candidates(&request).await?;
        searched.push(Searched { set, relevant: grades(dialogue).into_keys().collect() });
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(searched)
}
