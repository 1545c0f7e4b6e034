//! The search path over the embedded store.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recast_config::TenantProfile;
use recast_domain::Degradation;
use recast_retrieval::document::Document;
use recast_retrieval::{LegChoice, RetrievalError, Retriever};
use tokio::time::Instant;

use crate::support::{HashEmbedder, MarkerReranker, edge, request, retriever, retriever_with, scope, tenant};

const TEXTS: [(&str, &str); 4] = [
    ("use", "胶原蛋白肽 每天一瓶，饭后服用。 score=0.1 "),
    ("pregnant", "胶原蛋白肽 孕妇不建议服用。 score=0.9 "),
    ("zinc", "锌片 每天一片，编号 FD-2107。 score=0.2 "),
    ("price", "鱼油 价格 27,500 元。 score=0.3 "),
];

async fn fill(retriever: &Retriever) {
    let shop = scope("shop", "default");
    let documents = TEXTS.iter().map(|(id, text)| Document::text(*id, "", *text)).collect();
    retriever.put_documents(&shop.tenant, &shop.kb, documents, &|_| {}).await.unwrap();
}

fn ids(outcome: &recast_retrieval::SearchOutcome) -> Vec<&str> {
    outcome.hits.iter().map(|hit| hit.passage.doc_id.as_str()).collect()
}

#[tokio::test]
async fn both_legs_agree_on_codes_amounts_and_words() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever(edge(folder.path()), None).await;
    fill(&retriever).await;
    let shop = scope("shop", "default");
    for (query, expected) in [("fd2107", "zinc"), ("27500元", "price"), ("孕婦能喝嗎", "pregnant"), ("饭后", "use")]
    {
        let outcome = retriever.search(&request(&shop, query)).await.unwrap();
        assert_eq!(ids(&outcome)[0], expected, "{query}");
        let first = &outcome.hits[0];
        assert_eq!((first.rank, first.legs.bm25.unwrap().rank), (1, 1));
        assert!(first.legs.dense.is_some() && (0.0..=1.0).contains(&first.score) && first.reranker_score.is_none());
        assert!(outcome.degraded.is_empty());
    }
    let mut lexical = request(&shop, "fd-2107");
    lexical.legs = LegChoice::Bm25;
    let outcome = retriever.search(&lexical).await.unwrap();
    assert_eq!(ids(&outcome), ["zinc"]);
    assert!(outcome.hits[0].legs.dense.is_none());
}

#[tokio::test]
async fn the_reranker_orders_the_head_and_lateness_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let reranker = Arc::new(MarkerReranker::default());
    let retriever = retriever(edge(folder.path()), Some(reranker.clone())).await;
    fill(&retriever).await;
    let shop = scope("shop", "default");
    let outcome = retriever.search(&request(&shop, "胶原蛋白肽 每天一瓶 饭后")).await.unwrap();
    assert_eq!(ids(&outcome)[0], "pregnant");
    assert!(outcome.hits.windows(2).all(|pair| pair[0].reranker_score >= pair[1].reranker_score));

    reranker.partial.store(true, Ordering::Relaxed);
    let outcome = retriever.search(&request(&shop, "胶原蛋白肽 每天一瓶 饭后")).await.unwrap();
    assert_eq!((ids(&outcome)[0], outcome.degraded.as_slice()), ("use", [Degradation::RerankTimeout].as_slice()));

    reranker.hangs.store(true, Ordering::Relaxed);
    let mut late = request(&shop, "胶原蛋白肽 每天一瓶 饭后");
    late.rerank_deadline = Instant::now() + Duration::from_millis(20);
    let outcome = retriever.search(&late).await.unwrap();
    assert_eq!(outcome.degraded, [Degradation::RerankTimeout]);
    assert!(outcome.hits.iter().all(|hit| hit.reranker_score.is_none()));
}

#[tokio::test]
async fn a_dense_leg_that_fails_or_is_late_leaves_the_lexical_one() {
    let folder = tempfile::tempdir().unwrap();
    let embedder = Arc::new(HashEmbedder::default());
    let retriever = retriever_with(edge(folder.path()), embedder.clone(), None).await;
    fill(&retriever).await;
    let shop = scope("shop", "default");
    embedder.fails.store(true, Ordering::Relaxed);
    let outcome = retriever.search(&request(&shop, "锌片")).await.unwrap();
    assert_eq!((ids(&outcome), outcome.degraded.clone()), (vec!["zinc"], vec![Degradation::DenseUnavailable]));
    embedder.fails.store(false, Ordering::Relaxed);
    embedder.hangs.store(true, Ordering::Relaxed);
    let mut late = request(&shop, "鱼油");
    late.retrieval_deadline = Instant::now() + Duration::from_millis(50);
    // The deadline is that of the whole stage: what the lexical leg found must still be read after it.
    let outcome = retriever.search(&late).await.unwrap();
    assert_eq!((ids(&outcome), outcome.degraded.clone()), (vec!["price"], vec![Degradation::DenseUnavailable]));
    let mut dense = request(&shop, "other");
    dense.legs = LegChoice::Dense;
    dense.retrieval_deadline = Instant::now() + Duration::from_millis(20);
    assert!(matches!(retriever.search(&dense).await, Err(RetrievalError::Timeout(_))));
}

#[tokio::test]
async fn thresholds_and_top_k_cut() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever(edge(folder.path()), None).await;
    fill(&retriever).await;
    let shop = scope("shop", "default");
    let mut strict = request(&shop, "锌片 每天一片 编号 FD-2107");
    strict.score_threshold = 0.6;
    let outcome = retriever.search(&strict).await.unwrap();
    assert_eq!(ids(&outcome), ["zinc"]);
    let mut short = request(&shop, "每天");
    short.top_k = 1;
    assert_eq!(retriever.search(&short).await.unwrap().hits.len(), 1);
    let empty = retriever.search(&request(&shop, " ")).await;
    assert!(matches!(empty, Err(RetrievalError::Invalid { .. })));
    let unknown = retriever.search(&request(&scope("shop", "other"), "x")).await;
    assert!(matches!(unknown, Err(RetrievalError::NoKnowledgeBase { .. })));
}

#[tokio::test]
async fn ingest_is_incremental_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let shop = scope("shop", "default");
    {
        let embedder = Arc::new(HashEmbedder::default());
        let retriever = retriever_with(edge(folder.path()), embedder.clone(), None).await;
        fill(&retriever).await;
        let embedded = embedder.texts.load(Ordering::Relaxed);
        let generation = retriever.generation(&shop.tenant, &shop.kb).await.unwrap();
        let again =
            retriever.put_document(&shop.tenant, &shop.kb, Document::text("use", "", TEXTS[0].1)).await.unwrap();
        assert!(!again.changed);
        assert_eq!(embedder.texts.load(Ordering::Relaxed), embedded);
        assert_eq!(retriever.generation(&shop.tenant, &shop.kb).await.unwrap(), generation);

        let long: String = (0..60).map(|n| format!("第{n}句讲的是钙片的用法和用量以及注意事项。")).collect();
        let put = retriever.put_document(&shop.tenant, &shop.kb, Document::text("use", "", long)).await.unwrap();
        assert!(put.changed && put.passages > 3, "{put:?}");
        let put = retriever.put_document(&shop.tenant, &shop.kb, Document::text("use", "", "钙片。")).await.unwrap();
        assert_eq!((put.changed, put.passages), (true, 1));
        assert_eq!(retriever.generation(&shop.tenant, &shop.kb).await.unwrap(), generation + 2);
        retriever.delete_document(&shop.tenant, &shop.kb, "price").await.unwrap();
        let gone = retriever.delete_document(&shop.tenant, &shop.kb, "price").await;
        assert!(matches!(gone, Err(RetrievalError::NoDocument { .. })));
    }
    let retriever = retriever(edge(folder.path()), None).await;
    let listed = retriever.list_documents(&shop.tenant, &shop.kb, Some("pregnant"), 10).await.unwrap();
    assert_eq!(
        listed.iter().map(|info| (info.doc_id.as_str(), info.passages)).collect::<Vec<_>>(),
        [("use", 1), ("zinc", 1)]
    );
    assert_eq!(ids(&retriever.search(&request(&shop, "钙片")).await.unwrap())[0], "use");
}

#[tokio::test]
async fn a_document_that_was_half_replaced_is_redone() {
    let folder = tempfile::tempdir().unwrap();
    let shop = scope("shop", "default");
    let store = edge(folder.path());
    let retriever = retriever(store.clone(), None).await;
    let long: String = (0..60).map(|n| format!("第{n}句讲的是钙片的用法和用量以及注意事项。")).collect();
    let document = Document::text("d", "", long);
    let whole = retriever.put_document(&shop.tenant, &shop.kb, document.clone()).await.unwrap();
    // What a kill between the writes of a replacement leaves: some passages of it are missing.
    store.delete(&[shop.point_id("d", 1)]).await.unwrap();
    let redone = retriever.put_document(&shop.tenant, &shop.kb, document).await.unwrap();
    assert_eq!((redone.changed, redone.passages), (true, whole.passages));
    assert_eq!(store.count(&shop).await.unwrap() as usize, whole.passages);
}

#[tokio::test]
async fn a_tenants_expansion_reaches_its_own_searches_only() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever(edge(folder.path()), None).await;
    for name in ["shop", "rival"] {
        let scope = scope(name, "default");
        let document = Document::text("d", "", "superannuation rules");
        retriever.put_document(&scope.tenant, &scope.kb, document).await.unwrap();
        let other = Document::text("e", "", "unrelated words");
        retriever.put_document(&scope.tenant, &scope.kb, other).await.unwrap();
    }
    let profile = TenantProfile {
        id: tenant("shop"),
        name: "Shop".to_owned(),
        domain: String::new(),
        system_prompt: "x".to_owned(),
        synonyms: Default::default(),
        term_expansion: [("养老金".to_owned(), vec!["superannuation".to_owned()])].into(),
        protected_terms: Vec::new(),
        redact: false,
        retention_days: None,
    };
    retriever.set_tenants(&HashMap::from([(tenant("shop"), Arc::new(profile))]));
    for (name, expected) in [("shop", vec!["d"]), ("rival", vec![])] {
        let mut request = request(&scope(name, "default"), "养老金");
        request.legs = LegChoice::Bm25;
        assert_eq!(ids(&retriever.search(&request).await.unwrap()), expected, "{name}");
    }
}
