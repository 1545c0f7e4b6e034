//! Experiments on the real server: a rewrite service that misbehaves in every way, kills and restarts, and books that
//! balance all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_domain::{EpisodeId, TenantId};
use recast_episodes::{Accounting, EpisodeFilter, EpisodeReader};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Server, World};

/// What the scripted rewrite service does with a question.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    Answer,
    Garbage,
    Fail,
    Close,
    Hang,
}

/// A double of the 32B service; `script` says what it does with each question, by its number from zero.
pub async fn rewrite_service(script: impl Fn(usize) -> Act + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, script) = (Arc::clone(&asked), Arc::new(script));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let act = script(count.fetch_add(1, Ordering::SeqCst));
            tokio::spawn(serve(socket, act));
        }
    });
    (url, asked)
}

async fn serve(mut socket: TcpStream, act: Act) {
    let mut request = [0; 65_536];
    let _ = socket.read(&mut request).await;
    let reply = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let text = match act {
        Act::Answer => reply("200 OK", "{\"rewritten_query\": \"叶黄素软糖 价格\"}"),
        Act::Garbage => reply("200 OK", "Sure! Here is your query: <think>"),
        Act::Fail => reply("500 Oops", "oops"),
        Act::Close => return,
        Act::Hang => std::future::pending().await,
    };
    // A server that was killed takes no answer.
    let _ = socket.write_all(text.as_bytes()).await;
}

/// A shadow experiment of the tenant alpha at rate 1, with some control runs, over the service at `url`.
fn shadowed(url: &str) -> World {
    let mut world = World::new();
    let define = "[{id = \"chaos\", kind = \"shadow\", tenants = [\"alpha\"], control = \"now\", sample_rate = 1.0, \
        control_rate = 0.2, arms = [{name = \"now\", rewriter = \"configured\"}, {name = \"32b\", rewriter = \"remote\"}]}]";
    world
        .set("EXPERIMENTS__DEFINE", define)
        .set("SHADOW__REMOTE__URL", url)
        .set("SHADOW__DEADLINE_MS", "400")
        .set("SHADOW__QUEUE", "16")
        .set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "1000000")
        .set("ADMISSION__TENANT_BURST", "1000000");
    world
}

fn reader(world: &World) -> EpisodeReader {
    EpisodeReader::open(world.path("state").join("episodes.sqlite")).expect("the store opens beside the server")
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant")
}

fn accounts(world: &World, name: &str) -> Vec<Accounting> {
    reader(world).shadow_accounting(&tenant(name), None).expect("the ledger")
}

fn sum(accounts: &[Accounting], of: impl Fn(&Accounting) -> u64) -> u64 {
    accounts.iter().map(of).sum()
}

/// Asks `count` questions from four clients at once; returns the episodes that were acknowledged. Every answer that
/// comes is a good one.
async fn load(server: &Server, key: &str, count: usize) -> Vec<EpisodeId> {
    let workers = (0..4).map(|worker| {
        let (url, key) = (server.url.clone(), key.to_owned());
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut stored: Vec<EpisodeId> = Vec::new();
            for index in 0..count / 4 {
                let body = json!({"query": format!("叶黄素软糖 价格 {worker} {index}")});
                let request = client.post(format!("{url}/general_rag")).bearer_auth(&key).json(&body);
                // A killed server answers no more.
                let Ok(response) = request.send().await else { break };
                assert_eq!(response.status(), 200);
                let Ok(reply) = response.json::<Value>().await else { break };
                assert_eq!(reply["degraded"], json!([]), "the shadow must not touch a live answer");
                if reply["episode_stored"] == true {
                    stored.push(reply["episode_id"].as_str().and_then(|id| id.parse().ok()).expect("an id"));
                }
            }
            stored
        })
    });
    let mut all = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        all.extend(worker.await.expect("the worker ends"));
    }
    all
}

fn all_episodes(world: &World) -> BTreeSet<EpisodeId> {
    let filter = EpisodeFilter::newest(tenant("alpha"), recast_episodes::LIST_MAX);
    let episodes = reader(world).list(&filter).expect("the episodes");
    assert!(episodes.iter().all(|episode| episode.experiment.is_some()));
    episodes.iter().map(|episode| episode.id).collect()
}

/// The sum of a counter over all its labels.
async fn counter(server: &Server, name: &str) -> u64 {
    let text = reqwest::get(format!("{}/metrics", server.url)).await.expect("metrics").text().await.expect("a text");
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_service_is_nobodys_trouble_and_sigterm_closes_the_books() {
    let (url, asked) = rewrite_service(|_| Act::Hang).await;
    let world = shadowed(&url);
    let key = world.key("alpha", "serve");
    let mut server = world.serve();
    let stored = load(&server, &key, 400).await;
    assert_eq!(stored.len(), 400, "every answer was given and kept");
    assert!(asked.load(Ordering::SeqCst) > 0, "the service was asked");
    let sampled = counter(&server, "recast_shadow_sampled_total").await;
    assert_eq!(sampled, 400);
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.expect("the wait ends");
    assert!(status.success(), "{status}");
    let books = accounts(&world, "alpha");
    assert!(books.iter().all(Accounting::adds_up));
    assert_eq!((sum(&books, |one| one.sampled), sum(&books, |one| one.pending)), (400, 0), "{books:?}");
    let treatment: Vec<_> = books.into_iter().filter(|one| one.arm == "32b").collect();
    assert_eq!(sum(&treatment, |one| one.completed), 0);
    assert!(sum(&treatment, |one| one.timed_out + one.dropped.values().sum::<u64>()) > 0, "{treatment:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_over_kills_restarts_and_every_fault() {
    let script = |number: usize| match ChaCha8Rng::seed_from_u64(number as u64).random_range(0..8) {
        0..=3 => Act::Answer,
        4 => Act::Garbage,
        5 => Act::Fail,
        6 => Act::Close,
        _ => Act::Hang,
    };
    let (url, _) = rewrite_service(script).await;
    let world = shadowed(&url);
    let (key, other) = (world.key("alpha", "serve"), world.key("beta", "serve"));
    let mut acknowledged = Vec::new();
    for round in 0..4_u64 {
        let server = world.serve();
        let kill_after = 40 + 30 * usize::try_from(round).expect("a small number");
        let (some, _) = tokio::join!(load(&server, &key, kill_after), load(&server, &other, 8));
        acknowledged.extend(some);
        server.kill();
    }
    // What the last kill left open is ended by the next start.
    let server = world.serve();
    let books = accounts(&world, "alpha");
    assert!(books.iter().all(Accounting::adds_up), "{books:?}");
    assert_eq!(sum(&books, |one| one.pending), 0, "{books:?}");
    let episodes = all_episodes(&world);
    assert!(acknowledged.iter().all(|id| episodes.contains(id)), "an acknowledged episode is lost");
    assert_eq!(sum(&books, |one| one.sampled), episodes.len() as u64, "each episode was sampled once: {books:?}");
    let restarts = sum(&books, |one| one.dropped.get("restart").copied().unwrap_or(0));
    println!(
        "{} sampled: {} completed, {} failed, {} timed out, {} dropped ({restarts} by kills)",
        episodes.len(),
        sum(&books, |one| one.completed),
        sum(&books, |one| one.failed.values().sum()),
        sum(&books, |one| one.timed_out),
        sum(&books, |one| one.dropped.values().sum()),
    );
    assert!(sum(&books, |one| one.completed) > 0, "some runs must have come through: {books:?}");
    assert!(accounts(&world, "beta").is_empty(), "another tenant takes no part");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Runs that found no place are written a moment after their episodes: a kill in that moment must not lose them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_takes_no_refused_run_from_the_books() {
    let (url, _) = rewrite_service(|_| Act::Hang).await;
    let world = shadowed(&url);
    let key = world.key("alpha", "serve");
    let server = world.serve();
    load(&server, &key, 120).await;
    server.kill();
    let written = sum(&accounts(&world, "alpha"), |one| one.sampled);
    let episodes = all_episodes(&world).len() as u64;
    assert!(written < episodes, "the kill came between episodes and runs, or this test shows nothing: {written}");
    let server = world.serve();
    let books = accounts(&world, "alpha");
    assert!(books.iter().all(Accounting::adds_up), "{books:?}");
    assert_eq!((sum(&books, |one| one.sampled), sum(&books, |one| one.pending)), (episodes, 0), "{books:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kill_switch_works_under_load_and_survives_a_restart() {
    let (url, _) = rewrite_service(|_| Act::Hang).await;
    let mut world = shadowed(&url);
    world.set("EXPERIMENTS__DEFINE", "[]");
    let (key, admin) = (world.key("alpha", "serve"), world.key("alpha", "admin"));
    let server = world.serve();
    let client = reqwest::Client::new();
    let definition = json!({
        "id": "mine", "kind": "shadow", "tenants": ["alpha"], "control": "now", "sample_rate": 1.0,
        "arms": [{"name": "now", "rewriter": "configured"}, {"name": "32b", "rewriter": "remote"}],
    });
    let post = client.post(format!("{}/v1/experiments", server.url)).bearer_auth(&admin).json(&definition);
    assert_eq!(post.send().await.expect("an answer").status(), 201);
    let kill = async {
        while counter(&server, "recast_shadow_sampled_total").await < 40 {}
        let path = format!("{}/v1/experiments/mine/kill?reason=test", server.url);
        let killed: Value =
            client.post(path).bearer_auth(&admin).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!((&killed["state"], &killed["note"]), (&json!("killed"), &json!("test")));
    };
    let (stored, ()) = tokio::join!(load(&server, &key, 400), kill);
    assert_eq!(stored.len(), 400);
    let after = server.ask(&client, &key, &json!({"query": "价格"})).await;
    let id = after.body["episode_id"].as_str().expect("an id").to_owned();
    let episode = server.get(&client, &admin, &format!("/v1/episodes/{id}")).await;
    assert!(episode.body.get("experiment").is_none(), "{:?}", episode.body);
    let sampled = counter(&server, "recast_shadow_sampled_total").await;
    assert!((40..400).contains(&sampled), "{sampled} of 400 were sampled before the kill");
    server.kill();
    let again = world.serve();
    let shown = again.get(&client, &admin, "/v1/experiments/mine").await;
    assert_eq!((&shown.body["state"], &shown.body["version"]), (&json!("killed"), &json!(2)));
    let books = accounts(&world, "alpha");
    assert_eq!((sum(&books, |one| one.sampled), sum(&books, |one| one.pending)), (sampled, 0), "{books:?}");
}
