//! The learner as a process beside a running gateway: a round from start to end, kills, and the switch.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::judge::{JudgeService, Mood};
use crate::support::{PATIENCE, Server, TENANTS, World, repository};

/// A gateway with the shipped rewriter and a judge, asked a few dozen questions.
async fn asked(steps: &str) -> (World, Server, String) {
    let mut world = World::new();
    world.set("JUDGE__KIND", "heuristic").set("LEARNER__EVERY", "1");
    asked_in(world, steps).await
}

async fn asked_in(mut world: World, steps: &str) -> (World, Server, String) {
    let model = repository().join("models/rewriter");
    world.set("REWRITER__KIND", "local").set("REWRITER__MODEL", &model.display().to_string());
    world.set("LEARNER__MIN_QUESTIONS", "20").set("LEARNER__STEPS", steps);
    world.set("LEARNER__QUESTIONS", "3").set("LEARNER__GROUP", "6");
    let keys: Vec<String> = TENANTS.iter().map(|tenant| format!("{tenant}={}", world.key(tenant, "train"))).collect();
    let asker = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    for product in ["胶原蛋白肽饮", "胶原蛋白肽粉", "益生菌冻干粉", "叶黄素软糖"] {
        for question in
            ["多少钱", "怎么吃", "孕妇能吃吗", "有什么活动", "一天几次", "过敏能用吗", "什么时候喝", "贵不贵"]
        {
            let history = json!([{"role": "user", "content": format!("{product}是什么")}]);
            let reply = server.ask(&client, &asker, &json!({"query": question, "history": history})).await;
            assert_eq!(reply.status, 200, "{:?}", reply.body);
        }
    }
    world.set("LEARNER__GATEWAY", &server.url.clone());
    (world, server, keys.join(","))
}

fn learn(world: &World, keys: &str, args: &[&str]) -> Command {
    let mut command = world.command(&[&["learn"], args].concat());
    command.env("RECAST_LEARNER_KEYS", keys);
    command
}

fn status(world: &World) -> Value {
    let text = std::fs::read(world.path("state/learner/status.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn rounds(world: &World) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(world.path("state/learner/rounds/default")) else { return Vec::new() };
    entries.map(|entry| entry.expect("a folder").path()).collect()
}

/// Waits for `done`, while the learner lives.
async fn until(world: &World, child: &mut Child, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "nothing happened: {}", status(world));
        if let Some(status) = child.try_wait().expect("the learner can be waited for") {
            panic!("the learner ended: {status}");
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_goes_from_episodes_to_the_gate_and_shows_no_key() {
    let (world, server, keys) = asked("2").await;
    let output = learn(&world, &keys, &["--once"]).output().expect("the learner runs");
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{log}");
    assert_eq!(status(&world)["state"], "ended", "{said}{log}");
    let [round] = rounds(&world).try_into().expect("one round");
    let table = std::fs::read_to_string(round.join("steps.csv")).expect("a table");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(round.join("steps.png").exists() && round.join("ended.json").exists());
    let questions = std::fs::read_to_string(round.join("questions.jsonl")).expect("questions");
    assert_eq!(questions.lines().count(), 32);
    // what was learned is at the gate with its evidence, or it was said that nothing was
    let policies: Vec<PathBuf> = std::fs::read_dir(world.path("state/policies/default"))
        .map(|entries| entries.map(|entry| entry.expect("a name").path()).filter(|path| path.is_dir()).collect())
        .unwrap_or_default();
    if said.contains("nothing better") {
        assert!(policies.is_empty(), "{policies:?}");
    } else {
        assert_eq!(policies.len(), 1, "{said}");
        let journal = std::fs::read_to_string(world.path("state/policies/default/JOURNAL.jsonl")).expect("a journal");
        assert!(journal.contains("sanity"), "{journal}");
    }
    for text in [&said, &log] {
        assert!(keys.split(['=', ',']).filter(|part| part.len() > 10).all(|key| !text.contains(key)), "{text}");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_round_goes_on_and_the_switch_ends_it() {
    let (world, server, keys) = asked("100000").await;
    let start = || learn(&world, &keys, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let step = || status(&world)["step"].as_u64().unwrap_or(0);
    let mut first = start();
    until(&world, &mut first, || step() >= 3).await;
    first.kill().expect("it can be killed");
    first.wait().expect("it ends");
    let before = step();
    let mut second = start();
    until(&world, &mut second, || step() > before).await;
    assert_eq!(rounds(&world).len(), 1, "the round goes on");
    let table = std::fs::read_to_string(rounds(&world)[0].join("steps.csv")).expect("a table");
    let numbers: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let expected: Vec<String> = (0..numbers.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected, "each step once");

    let off = learn(&world, &keys, &["--off"]).output().expect("it runs");
    assert!(off.status.success());
    assert!(!second.wait().expect("it ends").success());
    let refused = learn(&world, &keys, &["--once"]).output().expect("it runs");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--on"), "{refused:?}");
    assert!(learn(&world, &keys, &["--on"]).status().expect("it runs").success());
    drop(server);
}

/// The judge goes away in the middle of a round and comes back: the round pauses with the reason, changes nothing by
/// what it cannot know, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_judge_that_goes_away_pauses_the_round_and_its_return_ends_the_pause() {
    let service = JudgeService::start().await;
    let mut world = World::new();
    world.set("JUDGE__KIND", "openai").set("JUDGE__PROVIDER", "local").set("JUDGE__MODEL", "double");
    world.set("JUDGE__URL", &service.url).set("JUDGE__CANARY_RATE", "0.0").set("JUDGE__SAMPLE_RATE", "0.0");
    world.set("JUDGE__RPM", "1000000").set("JUDGE__TPM", "1000000000").set("JUDGE__IN_FLIGHT", "32");
    // what is not scored soon is unscored
    world.set("JUDGE__GROUP_MS", "1000").set("SCORING__TIMEOUT_MS", "2000").set("LEARNER__PATIENCE_SECONDS", "4");
    world.set("LEARNER__REST_SECONDS", "1").set("LEARNER__EVERY", "1000");
    let (world, server, keys) = asked_in(world, "100000").await;
    let step = || status(&world)["step"].as_u64().unwrap_or(0);
    let mut learner = learn(&world, &keys, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    until(&world, &mut learner, || step() >= 1).await;
    service.be(Mood::Fails(503, json!({"error": {"message": "overloaded"}})));
    until(&world, &mut learner, || status(&world)["state"] == "waiting").await;
    let reason = status(&world)["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("unscored"), "{reason}");
    let table = |world: &World| std::fs::read_to_string(rounds(world)[0].join("steps.csv")).expect("a table");
    let paused = table(&world).lines().count();
    service.be(Mood::Scores);
    until(&world, &mut learner, || table(&world).lines().count() > paused + 1).await;
    assert_eq!(rounds(&world).len(), 1, "the same round");
    learner.kill().expect("it can be killed");
    learner.wait().expect("it ends");
    drop(server);
}

#[tokio::test]
async fn without_keys_or_with_too_few_questions_it_says_what_is_missing() {
    let mut world = World::new();
    let model = repository().join("models/rewriter");
    world.set("REWRITER__KIND", "local").set("REWRITER__MODEL", &model.display().to_string());
    world.set("LEARNER__GATEWAY", "http://127.0.0.1:9");
    let output = world.command(&["learn", "--once"]).env_remove("RECAST_LEARNER_KEYS").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("RECAST_LEARNER_KEYS"), "{said}");
    let output = learn(&world, "alpha=k", &["--once"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("learner.min_questions"), "{said}");
    assert_eq!(status(&world)["state"], "waiting");
}
