//! Policies in service: swaps under load, adapters that must be refused, a bad candidate, tenants apart.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use recast_policies::{
    BaseModel, Gate, GateRules, Observation, OfflineReport, Pair, Pairing, PolicyStore, SanityReport, Scope, Stage,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Reply, Server, World, repository};

const RANK: usize = 4;
/// Small numbers for the gate.
const RULES: &str = "watch_ms = 600000
offline = { min_items = 4, min_sessions = 2, resamples = 1000, guardrails = {} }
shadow = { min_pairs = 2, max_pairs = 1000, max_ms = 600000 }
canary = { shares = [0.5, 1.0], min_paired = 1000, min_unpaired = 1000, min_ms = 60000, max_ms = 600000 }";

fn rules() -> GateRules {
    toml::from_str(RULES).expect("rules")
}

fn model() -> PathBuf {
    repository().join("models/rewriter")
}

fn world() -> World {
    let mut world = World::new();
    world.set("REWRITER__KIND", "local").set("REWRITER__MODEL", &model().display().to_string());
    world
        .set("POLICIES__RULES", RULES)
        .set("POLICIES__POLL_MS", "50")
        .set("ADMISSION__TENANT_REQUESTS_PER_SECOND", "100000");
    world
}

/// Writes a PEFT adapter for the shipped rewriter whose change of each weight is of this size.
fn adapter(dir: &Path, size: f32, alpha: f64, seed: u64) {
    let config: Value =
        serde_json::from_slice(&std::fs::read(model().join("config.json")).expect("a config")).expect("JSON");
    let number = |name: &str| usize::try_from(config[name].as_u64().expect(name)).expect("a size");
    let (hidden, inner, head) = (number("hidden_size"), number("intermediate_size"), number("head_dim"));
    let (heads, key_heads) = (number("num_attention_heads") * head, number("num_key_value_heads") * head);
    let modules = [
        ("self_attn.q_proj", heads, hidden),
        ("self_attn.k_proj", key_heads, hidden),
        ("self_attn.v_proj", key_heads, hidden),
        ("self_attn.o_proj", hidden, heads),
        ("mlp.gate_proj", inner, hidden),
        ("mlp.up_proj", inner, hidden),
        ("mlp.down_proj", hidden, inner),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = HashMap::new();
    for layer in 0..number("num_hidden_layers") {
        for (module, rows, columns) in modules {
            for (matrix, shape) in [("lora_A", [RANK, columns]), ("lora_B", [rows, RANK])] {
                let numbers =
                    (0..shape[0] * shape[1]).flat_map(|_| (rng.random_range(-size..size)).to_le_bytes()).collect();
                let name = format!("base_model.model.model.layers.{layer}.{module}.{matrix}.weight");
                tensors.insert(name, (shape.to_vec(), numbers));
            }
        }
    }
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
    });
    std::fs::create_dir_all(dir).expect("a folder");
    safetensors::serialize_to_file(views, None, &dir.join("adapter_model.safetensors")).expect("weights");
    let names: Vec<&str> = modules.iter().filter_map(|(name, ..)| name.split('.').next_back()).collect();
    let config = json!({"peft_type": "LORA", "r": RANK, "lora_alpha": alpha, "target_modules": names, "bias": "none"});
    std::fs::write(dir.join("adapter_config.json"), config.to_string()).expect("a config");
}

fn publish(world: &World, tenant: &str, name: &str, size: f32) {
    let dir = world.path(name);
    adapter(&dir, size, 8.0, name.bytes().map(u64::from).sum());
    let dir = dir.display().to_string();
    let output = world.run(&["policy", "publish", &dir, "--name", name, "--tenant", tenant]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn post(server: &Server, key: &str, path: &str, body: &Value) -> Reply {
    let client = reqwest::Client::new();
    let response = client.post(format!("{}{path}", server.url)).bearer_auth(key).json(body).send().await;
    Reply::read(response.expect("an answer")).await
}

async fn promote(server: &Server, key: &str, name: &str, version: u64) -> Reply {
    post(server, key, &format!("/v1/policies/{name}/promote"), &json!({"expected_version": version})).await
}

fn question(number: usize) -> Value {
    let products = ["胶原蛋白肽饮", "胶原蛋白肽粉", "益生菌冻干粉", "叶黄素软糖"];
    let asked = ["多少钱", "怎么吃", "孕妇能吃吗", "有什么活动", "一天几次"];
    let history = json!([{"role": "user", "content": format!("{}是什么", products[number % products.len()])}]);
    json!({"query": asked[number % asked.len()], "history": history, "conversation_id": format!("c{number}")})
}

const QUESTIONS: usize = 20;

/// What a server answers to each question now, by question.
async fn rewrites(server: &Server, key: &str) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut texts = Vec::new();
    for number in 0..QUESTIONS {
        let reply = server.ask(&client, key, &question(number)).await;
        texts.push(reply.body["data"]["rewritten_query"].as_str().expect("a rewrite").to_owned());
    }
    texts
}

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_promotions_and_roll_backs_under_load_lose_nothing_and_mix_nothing() {
    let mut world = world();
    // each question is to be rewritten anew, by whatever serves
    world.set("REWRITER__CACHE_ENTRIES", "0");
    let (key, admin) = (world.key("alpha", "serve"), world.key("alpha", "admin"));
    publish(&world, "alpha", "one", 0.05);
    publish(&world, "alpha", "two", 0.07);
    let server = Arc::new(world.serve());
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    let mut version = 0;
    for name in ["one", "two"] {
        let reply = promote(&server, &admin, name, version).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        version = reply.body["version"].as_u64().expect("a version");
        expected.insert(name.to_owned(), rewrites(&server, &key).await);
    }
    assert_ne!(expected["one"], expected["two"], "the two must differ, or nothing can mix");

    let expected = Arc::new(expected);
    let swapping = Arc::new(AtomicBool::new(true));
    let client = |worker: usize| {
        let (server, key, expected, swapping) = (server.clone(), key.clone(), expected.clone(), swapping.clone());
        async move {
            let client = reqwest::Client::new();
            let mut times = Vec::new();
            let mut number = worker;
            while swapping.load(Ordering::Relaxed) {
                number += 1;
                let start = Instant::now();
                let reply = server.ask(&client, &key, &question(number % QUESTIONS)).await;
                times.push(start.elapsed());
                assert_eq!(reply.status, 200, "{:?}", reply.body);
                assert!(reply.body["degraded"].as_array().expect("a list").is_empty(), "{:?}", reply.body);
                let policy = reply.body["policy"].as_str().expect("a policy");
                let said =
                    &expected.get(policy).unwrap_or_else(|| panic!("{policy} never served alone"))[number % QUESTIONS];
                assert_eq!(reply.body["data"]["rewritten_query"], said.as_str(), "by {policy}");
            }
            times
        }
    };
    let clients: Vec<_> = (0..3).map(|worker| tokio::spawn(client(worker))).collect();
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(500) {
        tokio::task::yield_now().await;
    }
    for turn in 0..20 {
        let reply = if turn % 2 == 0 {
            post(&server, &admin, "/v1/policies/rollback", &json!({"expected_version": version})).await
        } else {
            promote(&server, &admin, "two", version).await
        };
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        assert_eq!(reply.body["problems"], json!([]));
        version = reply.body["version"].as_u64().expect("a version");
    }
    swapping.store(false, Ordering::Relaxed);
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.expect("no client failed"));
    }
    let count = times.len();
    println!(
        "{count} answers over 20 swaps: p50 {:?}, p99 {:?}",
        percentile(&mut times, 0.5),
        percentile(&mut times, 0.99)
    );
    assert!(count > 40, "{count} answers are no load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_promote_and_roll_back_at_once_one_wins_and_tenants_stay_apart() {
    let world = world();
    let (alpha, beta) = (world.key("alpha", "admin"), world.key("beta", "admin"));
    publish(&world, "alpha", "one", 0.05);
    publish(&world, "alpha", "two", 0.05);
    let server = world.serve();
    assert_eq!(promote(&server, &alpha, "one", 0).await.status, 200);
    assert_eq!(promote(&server, &beta, "one", 0).await.status, 404, "another tenant's policy does not exist");
    let expected = json!({"expected_version": 1});
    let (first, second) =
        tokio::join!(promote(&server, &alpha, "two", 1), post(&server, &alpha, "/v1/policies/rollback", &expected));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{:?} {:?}", first.body, second.body);
    let lost = if first.status == 409 { &first } else { &second };
    assert_eq!(lost.body["active_version"], 2, "{:?}", lost.body);

    let client = reqwest::Client::new();
    let listed = server.get(&client, &alpha, "/v1/policies").await;
    assert_eq!(listed.body["active"]["version"], 2, "{:?}", listed.body);
    let serving = server.ask(&client, &alpha, &question(0)).await.body["policy"].clone();
    let expected = if first.status == 200 { json!("two") } else { listed.body["active"]["policy"].clone() };
    assert!(expected.is_null() || serving == expected, "{serving} is not {expected}");
    let other = server.ask(&client, &beta, &question(0)).await.body["policy"].clone();
    assert!(other.as_str().is_some_and(|policy| policy.starts_with("recast-rewriter-")), "{other}");
    let journal = reqwest::Client::new().get(format!("{}/v1/policies/journal", server.url)).bearer_auth(&alpha).send();
    let text = journal.await.expect("an answer").text().await.expect("text");
    assert!(text.lines().count() >= 4, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sound_is_refused_and_what_served_goes_on() {
    let world = world();
    let admin = world.key("alpha", "admin");
    let bad = world.path("bad");
    adapter(&bad, 0.05, 0.0, 1);
    let refused = world.run(&["policy", "publish", &bad.display().to_string(), "--name", "bad", "--tenant", "alpha"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("lora_alpha"), "{said}");
    publish(&world, "alpha", "one", 0.05);
    publish(&world, "alpha", "torn", 0.05);
    publish(&world, "alpha", "wild", 1e30);
    let server = world.serve();
    let client = reqwest::Client::new();
    assert_eq!(promote(&server, &admin, "one", 0).await.status, 200);
    let file = world.path("state/policies/alpha/torn/adapter_model.safetensors");
    let mut bytes = std::fs::read(&file).expect("weights");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&file).expect("the file is sealed, its folder is not");
    std::fs::write(&file, bytes).expect("weights");
    let reply = promote(&server, &admin, "torn", 1).await;
    assert!(reply.status >= 400 && reply.status < 500, "{} {:?}", reply.status, reply.body);
    // sound as a file, and no rewriter: the pointer stays where it was
    let reply = promote(&server, &admin, "wild", 1).await;
    assert_eq!((reply.status, &reply.body["code"]), (422, &json!("policy_unsound")), "{:?}", reply.body);
    let state = server.get(&client, &admin, "/v1/policies").await.body;
    assert_eq!((&state["active"]["policy"], &state["active"]["version"]), (&json!("one"), &json!(1)), "{state}");
    assert_eq!(server.ask(&client, &admin, &question(1)).await.body["policy"], "one");
    // and after a kill the last good one serves again
    server.kill();
    let server = world.serve();
    assert_eq!(server.ask(&client, &admin, &question(1)).await.body["policy"], "one");
}

/// Kills the gateway, and a publishing command beside it, at some moment of a promotion: whatever serves afterwards is one
/// of the two, whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_while_it_swaps_serves_one_good_version_afterwards() {
    let mut world = world();
    world.set("REWRITER__CACHE_ENTRIES", "0");
    let (key, admin) = (world.key("alpha", "serve"), world.key("alpha", "admin"));
    publish(&world, "alpha", "one", 0.05);
    publish(&world, "alpha", "two", 0.07);
    adapter(&world.path("more"), 0.05, 8.0, 3);
    let mut expected = HashMap::new();
    let mut server = world.serve();
    let mut version = 0;
    for name in ["one", "two"] {
        assert_eq!(promote(&server, &admin, name, version).await.status, 200);
        version += 1;
        expected.insert(name.to_owned(), rewrites(&server, &key).await);
    }
    let (mut serving, mut moved) = ("two".to_owned(), 0);
    for (round, after_ms) in [0, 1, 3, 8, 20, 60].into_iter().enumerate() {
        let name = format!("more-{round}");
        let dir = world.path("more").display().to_string();
        let mut publishing = world.command(&["policy", "publish", &dir, "--name", &name, "--tenant", "alpha"]);
        let mut publishing = publishing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let next = if serving == "one" { "two" } else { "one" };
        let (url, body) = (format!("{}/v1/policies/{next}/promote", server.url), json!({"expected_version": version}));
        let asked = tokio::spawn(reqwest::Client::new().post(url).bearer_auth(&admin).json(&body).send());
        // how far it comes is left to chance on purpose: every moment must do
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(after_ms) {
            tokio::task::yield_now().await;
        }
        publishing.kill().expect("it can be killed");
        publishing.wait().expect("it ends");
        server.kill();
        let _ = asked.await.expect("the client does not panic");

        server = world.serve();
        let client = reqwest::Client::new();
        let listed = server.get(&client, &admin, "/v1/policies").await;
        let active = listed.body["active"]["policy"].as_str().expect("a policy").to_owned();
        assert!(active == serving || active == next, "{active} came from nowhere: {:?}", listed.body);
        assert_eq!(listed.body["problems"], json!([]), "{}", server.log());
        assert_eq!(rewrites(&server, &key).await, expected[&active], "{active} does not write as it did");
        let now = listed.body["active"]["version"].as_u64().expect("a version");
        assert_eq!(now, version + u64::from(active != serving));
        moved += u64::from(active != serving);
        (serving, version) = (active, now);
        // what was published is there as a whole or not at all
        let shown = world.run(&["policy", "show", &name, "--tenant", "alpha"]);
        let said = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(shown.status.success() || said.contains(&name), "{said}");
    }
    println!("{moved} of 6 promotions were in force when the gateway was killed");
}

/// A candidate that stands before its first users, brought there by made-up reports.
fn at_the_door(world: &World, name: &str) {
    let base = BaseModel::read(&model()).expect("a base");
    let store = PolicyStore::open(&world.path("state/policies"), base).expect("a store");
    let scope: Scope = "alpha".parse().expect("a scope");
    let policy = name.parse().expect("a name");
    let rules = rules();
    let mut gate = Gate::new(scope.clone(), policy, 1, &rules, 0).expect("a gate");
    let pairs: Vec<Pair> =
        (0..200).map(|n| Pair { session: n.to_string(), difference: Some(0.3 + f64::from(n % 7) / 100.0) }).collect();
    let sanity = SanityReport {
        refused: None,
        prompts: 64,
        empty: Some(0),
        distinct: Some(64),
        invalid_format_rate: Some(0.0),
        kl: Some(0.01),
    };
    let seen = [
        Observation::Sanity(sanity),
        Observation::Offline(OfflineReport { primary: pairs.clone(), guardrails: BTreeMap::new() }),
        Observation::Pairs { pairing: Pairing::SameQuestion, pairs },
    ];
    for one in seen {
        let record = gate.observe(&rules, &one, 1).expect("a record");
        store.keep_gate(&scope, &gate, &record, 1).expect("it is kept");
    }
    assert!(matches!(gate.stage(), Stage::Canary { step: 0 }), "{:?}", gate.stage());
}

/// Users are served worse, or the candidate does not even rewrite the trial: both end it, without anybody's help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_candidate_in_the_canary_is_rolled_back_by_itself() {
    assert_eq!(rolled_back(1.5).await, 0, "so large a change writes nothing that could be searched for");
    // how much is too much depends on the numbers drawn: the first that passes the trial must be found out by its users
    for size in [0.25, 0.22, 0.19, 0.16] {
        if rolled_back(size).await > 0 {
            return;
        }
    }
    panic!("no candidate answered anybody");
}

/// How many questions a candidate of this size of change answered before it was rolled back.
async fn rolled_back(size: f32) -> usize {
    let world = world();
    let admin = world.key("alpha", "admin");
    // so large a change that what it writes finds nothing
    publish(&world, "alpha", "noise", size);
    at_the_door(&world, "noise");
    let server = world.serve();
    let client = reqwest::Client::new();
    let start = Instant::now();
    let (mut by_candidate, mut number) = (0, 0);
    loop {
        assert!(start.elapsed() < PATIENCE, "it still serves after {number} questions, {by_candidate} of its own");
        let reply = server.ask(&client, &admin, &question(number)).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        by_candidate += usize::from(reply.body["policy"] == "noise");
        number += 1;
        let listed = server.get(&client, &admin, "/v1/policies").await;
        if listed.body["gate"]["stage"]["stage"] == "rolled_back" {
            break;
        }
    }
    println!("rolled back after {number} questions, {by_candidate} of them answered by the candidate");
    // the store knows a moment before the engines do
    while server.ask(&client, &admin, &question(0)).await.body["policy"] == "noise" {
        assert!(start.elapsed() < PATIENCE, "it still serves");
    }
    for number in 0..QUESTIONS {
        let reply = server.ask(&client, &admin, &question(number)).await;
        assert_ne!(reply.body["policy"], "noise");
    }
    let text = world.run(&["policy", "journal", "--tenant", "alpha"]).stdout;
    let text = String::from_utf8_lossy(&text);
    // on a busy machine its own deadline may be what it misses first
    let reasons = ["served worse", "is not tried", "checks failed"];
    assert!(reasons.iter().any(|reason| text.contains(reason)), "{text}");
    by_candidate
}
