//! Two tenants, random operations: no search ever returns the other's passage.
use std::collections::BTreeMap;

use proptest::prelude::*;
use recast_retrieval::document::Document;

use crate::support::{edge, request, retriever, scope};

#[derive(Debug, Clone)]
enum Operation {
    Put { tenant: usize, doc: u8, words: Vec<u8> },
    Delete { tenant: usize, doc: u8 },
    Search { tenant: usize, word: u8 },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..2_usize, 0..6_u8, prop::collection::vec(0..8_u8, 1..12))
            .prop_map(|(tenant, doc, words)| Operation::Put { tenant, doc, words }),
        1 => (0..2_usize, 0..6_u8).prop_map(|(tenant, doc)| Operation::Delete { tenant, doc }),
        3 => (0..2_usize, 0..8_u8).prop_map(|(tenant, word)| Operation::Search { tenant, word }),
    ]
}

const NAMES: [&str; 2] = ["alpha", "beta"];

async fn run(operations: Vec<Operation>) {
    let folder = tempfile::tempdir().unwrap();
    let retriever = retriever(edge(folder.path()), None).await;
    let scopes = NAMES.map(|name| scope(name, "default"));
    let mut model: [BTreeMap<String, String>; 2] = [BTreeMap::new(), BTreeMap::new()];
    for operation in operations {
        match operation {
            Operation::Put { tenant, doc, words } => {
                let words: Vec<String> = words.iter().map(|word| format!("word{word}")).collect();
                let (doc_id, text) = (format!("d{doc}"), format!("{} {}", NAMES[tenant], words.join(" ")));
                let document = Document::text(&doc_id, "", &text);
                let scope = &scopes[tenant];
                let report = retriever.put_document(&scope.tenant, &scope.kb, document).await.unwrap();
                let before = model[tenant].insert(doc_id, text.clone());
                assert_eq!(report.changed, before != Some(text));
            }
            Operation::Delete { tenant, doc } => {
                let (scope, doc_id) = (&scopes[tenant], format!("d{doc}"));
                let deleted = retriever.delete_document(&scope.tenant, &scope.kb, &doc_id).await.is_ok();
                assert_eq!(deleted, model[tenant].remove(&doc_id).is_some());
            }
            Operation::Search { tenant, word } => {
                let scope = &scopes[tenant];
                let outcome = retriever.search(&request(scope, &format!("word{word}"))).await;
                let Ok(outcome) = outcome else {
                    assert!(model[tenant].is_empty());
                    continue;
                };
                for hit in &outcome.hits {
                    assert_eq!(model[tenant].get(&hit.passage.doc_id), Some(&hit.passage.text));
                }
            }
        }
        for (scope, model) in scopes.iter().zip(&model) {
            let listed = retriever.list_documents(&scope.tenant, &scope.kb, None, 100).await.unwrap();
            let listed: Vec<_> = listed.into_iter().map(|document| document.doc_id).collect();
            assert_eq!(listed, model.keys().cloned().collect::<Vec<_>>());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn no_tenant_sees_anothers_passages(operations in prop::collection::vec(operation(), 1..40)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(operations));
    }
}
