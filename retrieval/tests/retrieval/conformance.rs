//! One suite for every store.
use std::sync::Arc;

use recast_config::QdrantSettings;
use recast_domain::{Metadata, Passage};
use recast_retrieval::RetrievalError;
use recast_retrieval::bm25::{Sparse, passage_vector};
use recast_retrieval::document::Document;
use recast_retrieval::store::{
    CollectionSpec, EdgeStore, Filter, Generation, LegQuery, Point, QdrantStore, Scalar, Scope, Test, VectorStore,
};
use serde_json::json;

use crate::double::Double;
use crate::support::{DIMENSION, edge, request, retriever, scope, settings, spec};

fn axis(at: usize) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSION];
    vector[at] = 1.0;
    vector
}

fn point(scope: &Scope, doc_id: &str, chunk: u32, text: &str, direction: usize, metadata: Metadata) -> Point {
    Point {
        id: scope.point_id(doc_id, chunk),
        tenant: scope.tenant.clone(),
        passage: Passage {
            id: format!("{doc_id}#{chunk}"),
            doc_id: doc_id.to_owned(),
            title: "标题".to_owned(),
            text: text.to_owned(),
            source: "s".to_owned(),
            kb_name: scope.kb.clone(),
            metadata,
        },
        doc_hash: "h".to_owned(),
        chunk,
        chunks: 2,
        dense: axis(direction),
        sparse: passage_vector(text),
    }
}

fn facts(value: serde_json::Value) -> Metadata {
    value.as_object().unwrap().clone()
}

/// What every store must do.
pub async fn suite(store: Arc<dyn VectorStore>) {
    let (ours, theirs) = (scope("shop", "default"), scope("rival", "default"));
    let other_kb = scope("shop", "faq");
    let points = vec![
        point(&ours, "a", 0, "红色 鞋 red shoe", 0, facts(json!({"year": 2023, "entity": "x y", "sale": true}))),
        point(&ours, "a", 1, "蓝色 帽子 blue hat", 1, facts(json!({"year": 2024, "entity": "z", "价格": 9.5}))),
        point(&theirs, "a", 0, "红色 鞋 red shoe", 0, Metadata::new()),
        point(&other_kb, "a", 0, "红色 鞋 red shoe", 0, Metadata::new()),
    ];
    store.upsert(points.clone()).await.unwrap();
    for (scope, expected) in [(&ours, 2), (&theirs, 1), (&other_kb, 1), (&scope("nobody", "default"), 0)] {
        assert_eq!(store.count(scope).await.unwrap(), expected);
    }

    // Each leg alone, inside the scope only, best first, with the score of its formula.
    let words = Sparse::from_weights(passage_vector("red hat").indices.into_iter().map(|id| (id, 2.0)));
    let found = store.search(&ours, &[], LegQuery::Bm25(&words), 10).await.unwrap();
    assert_eq!(found.len(), 2);
    assert!((found[0].score - words.dot(&points.iter().find(|p| p.id == found[0].id).unwrap().sparse)).abs() < 1e-4);
    assert!(found[0].score >= found[1].score);
    let query: Vec<f32> = axis(0).iter().zip(axis(1)).map(|(x, y)| 0.8 * x + 0.6 * y).collect();
    let found = store.search(&ours, &[], LegQuery::Dense(&query), 10).await.unwrap();
    assert_eq!(found.iter().map(|scored| scored.id).collect::<Vec<_>>(), [points[0].id, points[1].id]);
    assert!((found[0].score - 0.8).abs() < 1e-4 && (found[1].score - 0.6).abs() < 1e-4);
    assert_eq!(store.search(&ours, &[], LegQuery::Dense(&query), 1).await.unwrap().len(), 1);

    filters(store.as_ref(), &ours, &query, &points).await;

    // Whole points come back, in the order asked for, and never another tenant's.
    let ids = [points[1].id, points[2].id, points[0].id, ours.point_id("none", 0)];
    let fetched = store.fetch(&ours, &ids).await.unwrap();
    assert_eq!(
        fetched.iter().map(|point| (**point).clone()).collect::<Vec<_>>(),
        [points[1].clone(), points[0].clone()]
    );

    let mut heads = store.document(&ours, "a").await.unwrap();
    heads.sort_by_key(|head| head.chunk);
    assert_eq!(heads.iter().map(|head| (head.chunk, head.chunks)).collect::<Vec<_>>(), [(0, 2), (1, 2)]);

    let (page, next) = store.scroll(&ours, None, 1).await.unwrap();
    let (rest, end) = store.scroll(&ours, next, 10).await.unwrap();
    assert_eq!((page.len(), rest.len(), end), (1, 1, None));
    assert!(page.iter().chain(&rest).all(|point| points.contains(point)));

    // A replacement is seen at once, also by readers that had the old one.
    let changed = point(&ours, "a", 0, "绿色 手套 green glove", 2, Metadata::new());
    store.upsert(vec![changed.clone()]).await.unwrap();
    assert_eq!(*store.fetch(&ours, &[changed.id]).await.unwrap()[0], changed);
    assert_eq!(store.count(&ours).await.unwrap(), 2);

    // Generations are no passages.
    let generation = Generation { scope: ours.clone(), generation: 7 };
    store.set_generation(&generation).await.unwrap();
    store.set_generation(&Generation { generation: 8, ..generation.clone() }).await.unwrap();
    assert_eq!(store.generations().await.unwrap(), [Generation { generation: 8, ..generation }]);
    assert_eq!(store.count(&ours).await.unwrap(), 2);

    store.delete(&[changed.id, ours.point_id("none", 0)]).await.unwrap();
    assert_eq!(store.count(&ours).await.unwrap(), 1);
    assert!(store.fetch(&ours, &[changed.id]).await.unwrap().is_empty());
    assert_eq!(store.count(&theirs).await.unwrap(), 1);
    store.flush().await.unwrap();
    assert!(store.health().await.ready);

    let short = store.search(&ours, &[], LegQuery::Dense(&[1.0]), 1).await;
    assert!(matches!(short, Err(RetrievalError::Store(_))), "{short:?}");
}

async fn filters(store: &dyn VectorStore, scope: &Scope, query: &[f32], points: &[Point]) {
    let range = |gte, lt| Test::Range { gt: None, gte, lt, lte: None };
    let text = |value: &str| Scalar::Text(value.to_owned());
    let any = |values: Vec<Scalar>| Test::Any(values);
    let cases = [
        ("entity", any(vec![text("x y")]), false, vec![0]),
        ("entity", any(vec![text("x y"), text("z")]), false, vec![0, 1]),
        ("year", any(vec![Scalar::Integer(2024)]), false, vec![1]),
        ("sale", any(vec![Scalar::Bool(true)]), false, vec![0]),
        ("year", range(Some(2023.0), Some(2024.0)), false, vec![0]),
        ("价格", range(Some(9.0), None), false, vec![1]),
        ("entity", any(vec![text("z")]), true, vec![0]),
        ("doc_id", any(vec![text("a")]), false, vec![0, 1]),
        ("tenant_id", any(vec![text("rival")]), false, vec![]),
    ];
    for (key, test, not, expected) in cases {
        let filter = Filter::new(key, test, not).unwrap();
        let found = store.search(scope, std::slice::from_ref(&filter), LegQuery::Dense(query), 10).await.unwrap();
        let ids: Vec<_> = found.iter().map(|scored| scored.id).collect();
        assert_eq!(ids, expected.iter().map(|at: &usize| points[*at].id).collect::<Vec<_>>(), "{filter:?}");
    }
}

#[tokio::test]
async fn the_embedded_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    suite(edge(folder.path())).await;
}

#[tokio::test]
async fn an_embedded_store_is_found_again_and_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let ours = scope("shop", "default");
    let stored = point(&ours, "a", 0, "红色", 3, Metadata::new());
    let store = edge(folder.path());
    store.upsert(vec![stored.clone()]).await.unwrap();
    let second = EdgeStore::open(folder.path(), &spec(), std::time::Duration::from_secs(5)).err().unwrap();
    assert!(matches!(second, RetrievalError::StoreInUse { .. }), "{second}");
    drop(store);
    std::fs::create_dir_all(folder.path().join("shard/temp_segments/left")).unwrap();
    let store = edge(folder.path());
    assert!(!folder.path().join("shard/temp_segments/left").exists());
    assert_eq!(*store.fetch(&ours, &[stored.id]).await.unwrap()[0], stored);
}

#[tokio::test]
async fn vectors_of_another_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(edge(folder.path()));
    let other = CollectionSpec::new("other-model", DIMENSION);
    let error = EdgeStore::open(folder.path(), &other, std::time::Duration::from_secs(5)).err().unwrap();
    assert!(matches!(error, RetrievalError::Mismatch { .. }) && error.to_string().contains("--rebuild"), "{error}");
}

#[tokio::test]
async fn a_backup_opens_as_a_store() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = scope("shop", "default");
    let stored = point(&ours, "a", 0, "红色", 3, Metadata::new());
    let store = edge(folder.path());
    store.upsert(vec![stored.clone()]).await.unwrap();
    store.backup(&copy.path().join("backup")).await.unwrap();
    let copied = edge(&copy.path().join("backup"));
    assert_eq!(*copied.fetch(&ours, &[stored.id]).await.unwrap()[0], stored);
}

fn server(url: &str) -> QdrantSettings {
    QdrantSettings { url: url.to_owned(), ..settings().qdrant }
}

#[tokio::test]
async fn the_servers_store_conforms() {
    let url = Double::serve().await;
    suite(Arc::new(QdrantStore::open(&server(&url), "c", &spec()).await.unwrap())).await;
    // A second process finds the same collection, and only with the same models.
    assert!(QdrantStore::open(&server(&url), "c", &spec()).await.is_ok());
    let other = QdrantStore::open(&server(&url), "c", &CollectionSpec::new("other-model", DIMENSION)).await;
    assert!(matches!(other.err(), Some(RetrievalError::Mismatch { .. })));
    QdrantStore::remove(&server(&url), "c").await.unwrap();
    assert!(QdrantStore::open(&server(&url), "c", &CollectionSpec::new("other-model", DIMENSION)).await.is_ok());
}

#[tokio::test]
async fn a_search_over_the_server_ranks_as_over_the_embedded_engine() {
    let (url, folder) = (Double::serve().await, tempfile::tempdir().unwrap());
    let remote: Arc<dyn VectorStore> = Arc::new(QdrantStore::open(&server(&url), "c", &spec()).await.unwrap());
    let shop = scope("shop", "default");
    let mut rankings = Vec::new();
    for store in [edge(folder.path()), remote] {
        let retriever = retriever(store, None).await;
        let document = |n: usize| {
            let words = ["胶原蛋白", "鱼油", "钙片", "孕妇", "用量"];
            Document::text(format!("d{n}"), "", format!("{} {} 编号 FD-{n}", words[n % 5], words[n * 3 % 4]))
        };
        retriever.put_documents(&shop.tenant, &shop.kb, (0..40).map(document).collect(), &|_| {}).await.unwrap();
        let outcome = retriever.search(&request(&shop, "孕妇 鱼油 FD-7 用量")).await.unwrap();
        assert!(outcome.degraded.is_empty());
        rankings.push(
            outcome.hits.iter().map(|hit| (hit.passage.id.clone(), (hit.score * 1e4).round())).collect::<Vec<_>>(),
        );
    }
    assert_eq!(rankings[0], rankings[1]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = QdrantStore::open(&server(&url), "c", &spec()).await.err().unwrap();
    assert!(matches!(error, RetrievalError::Store(_)), "{error}");
}
