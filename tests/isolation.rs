//! Two tenants: whatever either does, neither sees the other's passages, cache entries or episodes.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::{Server, TENANTS, World};

#[derive(Debug, Clone)]
enum Operation {
    /// Ask; the text repeats often, so that caches are hit.
    Ask(usize, usize),
    /// Put a document whose text names its owner; ids collide between tenants on purpose.
    Put(usize, usize),
    Delete(usize, usize),
    /// Read an episode of the other tenant.
    Peek(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2_usize, 0..4_usize).prop_map(|(tenant, text)| Operation::Ask(tenant, text)),
        2 => (0..2_usize, 0..4_usize).prop_map(|(tenant, doc)| Operation::Put(tenant, doc)),
        1 => (0..2_usize, 0..4_usize).prop_map(|(tenant, doc)| Operation::Delete(tenant, doc)),
        1 => (0..2_usize).prop_map(Operation::Peek),
    ]
}

const QUERIES: [&str; 4] = ["胶原蛋白肽饮 孕妇", "alpha beta 自营", "机密 说明", "价格"];

struct Tenant {
    serve: String,
    admin: String,
    episodes: Vec<String>,
}

async fn apply(server: &Server, client: &reqwest::Client, tenants: &mut [Tenant; 2], operation: &Operation) {
    match *operation {
        Operation::Ask(who, text) => {
            let reply = server.ask(client, &tenants[who].serve, &json!({"query": QUERIES[text], "top_k": 20})).await;
            assert_eq!(reply.status, 200, "{:?}", reply.body);
            let foreign = format!("（{} 自营）", TENANTS[1 - who]);
            assert!(!reply.body.to_string().contains(&foreign), "tenant {who} saw {:?}", reply.body);
            tenants[who].episodes.push(reply.body["episode_id"].as_str().expect("an id").to_owned());
        }
        Operation::Put(who, doc) => {
            let text = format!("机密 说明 {doc}（{} 自营）", TENANTS[who]);
            let url = format!("{}/v1/kbs/default/documents/shared-{doc}", server.url);
            let request = client.put(url).bearer_auth(&tenants[who].admin).json(&json!({"title": "t", "text": text}));
            assert!(request.send().await.expect("an answer").status().is_success());
        }
        Operation::Delete(who, doc) => {
            let url = format!("{}/v1/kbs/default/documents/shared-{doc}", server.url);
            let status = client.delete(url).bearer_auth(&tenants[who].admin).send().await.expect("an answer").status();
            assert!(status.is_success() || status.as_u16() == 404, "{status}");
        }
        Operation::Peek(who) => {
            if let Some(id) = tenants[1 - who].episodes.last() {
                let reply = server.get(client, &tenants[who].admin, &format!("/v1/episodes/{id}")).await;
                assert_eq!(reply.status, 404, "tenant {who} read a foreign episode");
            }
        }
    }
}

#[test]
fn no_operation_crosses_the_border() {
    let mut world = World::new();
    world.set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "1000000").set("ADMISSION__TENANT_BURST", "1000000");
    let keys = TENANTS.map(|tenant| (world.key(tenant, "serve"), world.key(tenant, "admin")));
    let server = world.serve();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = reqwest::Client::new();
    // The server lives on between cases: later cases start from a more tangled state, which is what we want.
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&proptest::collection::vec(operation(), 1..60), |operations| {
        let mut tenants = keys.clone().map(|(serve, admin)| Tenant { serve, admin, episodes: Vec::new() });
        runtime.block_on(async {
            for operation in &operations {
                apply(&server, &client, &mut tenants, operation).await;
            }
        });
        Ok(())
    });
    outcome.expect("the border holds");
}
