//! SIGKILL and SIGTERM under load: what was acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::{Reply, Server, World};

/// Kills in one run; `RECAST_TEST_KILLS` raises it for a long one.
fn kills() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a switch of this test, not a setting of the program")]
    std::env::var("RECAST_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

/// Asks and ingests until told to stop or the server is gone; returns what was acknowledged.
async fn load(
    url: String,
    serve: String,
    admin: String,
    round: usize,
    stop: Arc<AtomicBool>,
) -> (Vec<String>, Vec<String>) {
    let client = reqwest::Client::new();
    let (mut episodes, mut documents) = (Vec::new(), Vec::new());
    let mut index = 0;
    while !stop.load(Ordering::Relaxed) {
        index += 1;
        let ask = client.post(format!("{url}/general_rag")).bearer_auth(&serve);
        let Ok(response) = ask.json(&json!({"query": format!("价格 {round} {index}")})).send().await else { break };
        let Ok(bytes) = response.bytes().await else { break };
        let reply: serde_json::Value = serde_json::from_slice(&bytes).expect("a whole reply is JSON");
        if reply["episode_stored"] == true {
            episodes.push(reply["episode_id"].as_str().expect("an id").to_owned());
        }
        let name = format!("crash-{round}-{index}");
        let put = client.put(format!("{url}/v1/kbs/default/documents/{name}")).bearer_auth(&admin);
        let text = format!("批次 {name} 的说明：存放于阴凉处。");
        match put.json(&json!({"title": name, "text": text})).send().await {
            Ok(response) if response.status().is_success() => documents.push(name),
            Ok(response) => panic!("a document was refused: {}", response.status()),
            Err(_) => break,
        }
    }
    (episodes, documents)
}

async fn stored_documents(server: &Server, client: &reqwest::Client, admin: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut after = String::new();
    loop {
        let page = server.get(client, admin, &format!("/v1/kbs/default/documents?limit=500&after={after}")).await;
        let documents = page.body["documents"].as_array().expect("a list of documents").clone();
        let ids: Vec<String> =
            documents.iter().filter_map(|document| document["doc_id"].as_str().map(str::to_owned)).collect();
        let Some(last) = ids.last() else { return found };
        after.clone_from(last);
        found.extend(ids);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_sigkill() {
    let mut world = World::new();
    world.set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "1000000").set("ADMISSION__TENANT_BURST", "1000000");
    let (serve, admin) = (world.key("alpha", "serve"), world.key("alpha", "admin"));
    let client = reqwest::Client::new();
    let (mut episodes, mut documents) = (Vec::new(), Vec::new());
    let mut slowest = Duration::ZERO;
    for round in 0..kills() {
        let server = world.serve();
        slowest = slowest.max(server.ready_after);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = tokio::spawn(load(server.url.clone(), serve.clone(), admin.clone(), round, Arc::clone(&stop)));
        // A different moment each round, so that the kill meets different stages.
        tokio::time::sleep(Duration::from_millis(150 + 70 * (round as u64 % 7))).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        let (acked_episodes, acked_documents) = worker.await.expect("the load ends");
        assert!(!acked_episodes.is_empty(), "round {round} acknowledged nothing: the test proves nothing");
        episodes.extend(acked_episodes);
        documents.extend(acked_documents);
    }

    let server = world.serve();
    let stored = stored_documents(&server, &client, &admin).await;
    let lost: Vec<_> = documents.iter().filter(|name| !stored.contains(*name)).collect();
    assert!(lost.is_empty(), "{} of {} documents lost: {lost:?}", lost.len(), documents.len());
    for id in &episodes {
        let reply = server.get(&client, &admin, &format!("/v1/episodes/{id}")).await;
        assert_eq!(reply.status, 200, "episode {id} is lost");
    }
    for name in documents.iter().take(40) {
        let reply = server.ask(&client, &serve, &json!({"query": format!("批次 {name} 的说明")})).await;
        assert!(reply.body["data"]["recall"].to_string().contains(name.as_str()), "{name} cannot be found");
    }
    println!(
        "{} kills: {} episodes, {} documents, none lost; slowest start {slowest:?}",
        kills(),
        episodes.len(),
        documents.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_without_a_failed_request() {
    let mut world = World::new();
    world.set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "1000000").set("ADMISSION__TENANT_BURST", "1000000");
    let key = world.key("alpha", "serve");
    let mut server = world.serve();
    let answered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (url, key, answered) = (server.url.clone(), key.clone(), Arc::clone(&answered));
            tokio::spawn(async move {
                let client = reqwest::Client::new();
                loop {
                    let request = client.post(format!("{url}/general_rag")).bearer_auth(&key);
                    match request.json(&json!({"query": "价格"})).send().await {
                        // A new connection is refused once the listener is gone; that is the end of the load.
                        Err(error) if error.is_connect() => return Ok(()),
                        Err(error) => return Err(format!("a request broke off: {error:?}")),
                        Ok(response) => {
                            let reply = Reply::read(response).await;
                            match reply.status {
                                200 => answered.fetch_add(1, Ordering::Relaxed),
                                503 => return Ok(()),
                                status => return Err(format!("answered with {status}")),
                            };
                        }
                    }
                }
            })
        })
        .collect();
    while answered.load(Ordering::Relaxed) < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.expect("the wait ends");
    assert!(status.success(), "{status}");
    for worker in workers {
        worker.await.expect("the worker ends").expect("no failed request");
    }
}
