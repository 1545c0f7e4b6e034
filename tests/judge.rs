//! Judging and rewards as people meet them: the commands, and a real server with a judge's service beside it.

use std::path::Path;

use recast_episodes::{EpisodeReader, Side};
use serde_json::{Value, json};

use crate::support::judge::{JudgeService, Mood};
use crate::support::{PATIENCE, Reply, Server, World};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must go well, and returns what it printed.
fn good(world: &World, args: &[&str]) -> String {
    let output = world.run(args);
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must be refused, and returns the complaint.
fn refused(world: &World, args: &[&str]) -> String {
    let output = world.run(args);
    assert!(!output.status.success(), "{args:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// A world whose judge is the service.
fn judged(service: &JudgeService) -> World {
    let mut world = World::new();
    world
        .set("JUDGE__KIND", "openai")
        .set("JUDGE__PROVIDER", "local")
        .set("JUDGE__URL", &service.url)
        .set("JUDGE__MODEL", "double")
        .set("JUDGE__CANARY_RATE", "0.0")
        .set("JUDGE__SAMPLE_RATE", "0.0");
    world
}

/// A command blocks, and the service lives on this runtime.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the command ends")
}

async fn post(server: &Server, key: &str, path: &str, body: &Value) -> Reply {
    let client = reqwest::Client::new();
    let sent = client.post(format!("{}{path}", server.url)).bearer_auth(key).json(body).send().await;
    Reply::read(sent.expect("the server answers")).await
}

async fn ask(server: &Server, key: &str, query: &str) -> String {
    let reply = server.ask(&reqwest::Client::new(), key, &json!({"query": query})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body["episode_id"].as_str().expect("an id").to_owned()
}

fn reader(world: &World) -> EpisodeReader {
    EpisodeReader::open(world.path("state").join("episodes.sqlite")).expect("the store opens beside the server")
}

/// What `look` finds, once it finds something.
async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                break found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it happens in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_says_what_is_wrong_with_the_judge_and_how_to_mend_it() {
    let probe = ["judge", "probe"];
    let world = World::new();
    let complaint = refused(&world, &probe);
    assert!(complaint.contains("judge.kind is off") && complaint.contains("heuristic"), "{complaint}");
    let mut world = World::new();
    world.set("JUDGE__KIND", "heuristic");
    assert_eq!(good(&world, &probe).trim(), "heuristic-1 answers");

    let service = JudgeService::start().await;
    let parameter = json!({"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}});
    let cases = [
        (Mood::Scores, ""),
        (Mood::Fails(401, json!({})), "judge.api_key"),
        (Mood::Fails(400, parameter), "judge.provider = \"gpt5\""),
        (Mood::Fails(503, json!({})), "status 503"),
        (Mood::Says("五分！"), "is judge.model able to write JSON?"),
    ];
    for (mood, expected) in cases {
        service.be(mood.clone());
        let world = judged(&service);
        let output = aside(move || world.run(&probe)).await;
        assert_eq!(output.status.success(), expected.is_empty(), "{mood:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(expected), "{mood:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_calibration_reads_pairs_and_certifies_or_says_why_not() {
    let mut world = World::new();
    let header = "id,tenant,history,query,rewrite_a,rewrite_b,winner,note\n";
    let rows = "1,alpha,用户: 胶原蛋白肽饮怎么样,孕妇能喝吗,胶原蛋白肽饮 孕妇能喝吗,孕妇能喝吗,a,\n\
        2,alpha,用户: 叶黄素软糖怎么样,多少钱,多少钱,叶黄素软糖 多少钱,b,\n";
    let file = world.path("pairs.csv");
    let labels = file.display().to_string();
    let args = ["judge", "calibrate", "--judge", "heuristic", "--labels", &labels];
    std::fs::write(&file, format!("{header}{rows}")).expect("pairs");
    let shown = good(&world, &args);
    assert!(shown.contains("heuristic-1") && shown.contains("2 judged, 0 without a verdict"), "{shown}");
    assert!(shown.contains("certified\tno") && shown.contains("too few"), "{shown}");
    let found: Value = serde_json::from_str(&good(&world, &[&args[..], &["--json"]].concat())).expect("JSON");
    assert_eq!((&found["certified"], &found["agreement"]), (&json!(false), &json!(1.0)), "{found}");

    std::fs::write(&file, format!("{header}{}", rows.replace(",a,", ",first,").replace("2,alpha", "2,nobody")))
        .expect("pairs");
    let complaint = refused(&world, &args);
    assert!(complaint.contains("winner") && complaint.contains("pairs.csv"), "{complaint}");
    std::fs::write(&file, format!("{header}{}", rows.replace("2,alpha", "2,nobody"))).expect("pairs");
    let complaint = refused(&world, &args);
    assert!(complaint.contains("pair 2") && complaint.contains("nobody"), "{complaint}");
    assert!(refused(&world, &["judge", "calibrate", "--labels", &labels]).contains("judge.kind is off"));

    // what people said is held against what a search finds, too
    world.set("TENANTS__DIR", &world.path("tenants").display().to_string());
    let retrieval = refused(&world, &[&args[..], &["--retrieval"]].concat());
    assert!(retrieval.contains("dialogues.jsonl"), "{retrieval}");
    std::fs::write(world.path("tenants/alpha/dialogues.jsonl"), crate::compare::dialogues()).expect("dialogues");
    let three = format!("{header}{rows}3,alpha,用户: 叶黄素软糖怎么样,怎么吃,叶黄素软糖 用法,怎么吃,a,\n");
    std::fs::write(&file, three).expect("pairs");
    let found = good(&world, &[&args[..], &["--retrieval", "--json"]].concat());
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert!(found["gain_correlation"].as_f64() > Some(0.5), "{found}");

    // The pairs that come with the repository, with the rules.
    world.set("TENANTS__DIR", "data");
    let found = good(&world, &["judge", "calibrate", "--judge", "heuristic", "--json"]);
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert!(found["judged"].as_u64() >= Some(120) && found["kappa"].as_f64() > Some(0.2), "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewards_are_explained_and_computed_again() {
    let service = JudgeService::start().await;
    let world = judged(&service);
    let (serve, train) = (world.key("alpha", "serve"), world.key("alpha", "train"));
    let mut server = world.serve();
    let id = ask(&server, &serve, "多少钱").await;
    let other = ask(&server, &serve, "怎么吃").await;
    let samples =
        json!({"item_id": id, "completion": ["叶黄素软糖 价格", "多少钱", "：："], "sample_id": ["a", "b", "c"]});
    let reply = post(&server, &train, "/v1/rl/score", &samples).await;
    assert_eq!((reply.status, &reply.body["scored"]), (200, &json!(3)), "{}", reply.body);
    let reward = reply.body["results"][0]["reward"].as_f64().expect("a reward");
    assert!(reward > 0.3, "{}", reply.body);
    let remote = json!({"query": ["P叶黄素软糖 用法"], "prompts": ["P"], "labels": [other]});
    let reply = post(&server, &train, "/get_reward", &remote).await;
    assert_eq!(reply.body["extra_logs"]["scored"], json!([1]), "{}", reply.body);

    // A reader of the store needs no stopped server.
    let world = aside(move || {
        let shown = good(&world, &["reward", "explain", &id, "--tenant", "alpha"]);
        for part in ["多少钱", "叶黄素软糖 价格", "openai:local:double", "tanh", "no rewrite", &format!("{reward:.4}")]
        {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!shown.contains("what is stored differs"), "{shown}");
        assert!(shown.contains("no rewrite: junk\n") || shown.ends_with("no rewrite: junk\n"), "{shown}");
        for (args, expected) in [
            (["reward", "explain", &id, "--tenant", "beta"], "episode"),
            (["reward", "explain", "x", "--tenant", "alpha"], "UUID"),
            (["reward", "explain", "0198c0de-0000-7000-8000-000000000000", "--tenant", "alpha"], "0198c0de"),
        ] {
            let complaint = refused(&world, &args);
            assert!(complaint.contains(expected), "{args:?}: {complaint}");
        }
        world
    })
    .await;

    let store = ["reward", "rescore", "--tenant", "alpha", "--store"];
    let complaint = refused(&world, &store);
    assert!(complaint.contains("in use") || complaint.contains("another process"), "{complaint}");
    let world = aside(move || {
        assert!(server.terminate().success());
        world
    })
    .await;
    let lines = good(&world, &["reward", "rescore", "--tenant", "alpha"]);
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert_eq!(good(&world, &["reward", "rescore", "--tenant", "alpha"]), lines, "the same bytes");
    assert_eq!(good(&world, &["reward", "rescore", "--tenant", "beta"]), "");

    let weights = world.path("weights.toml");
    std::fs::write(&weights, "[reward]\njudge = 1.0\nretrieval = 0.0\nbonus = 0.0\n").expect("weights");
    let weights = weights.display().to_string();
    let out = world.path("again.jsonl");
    let shown = out.display().to_string();
    good(&world, &[&store[..], &["--weights", &weights, "--out", &shown]].concat());
    let again = read_lines(&out);
    let total =
        |lines: &[Value]| lines.iter().filter_map(|one| one["reward"]["total"].as_f64()).fold(0.0_f64, f64::max);
    // the judge says 5 and 3: tanh(2 (1 - 0.6))
    assert!((total(&again) - 0.8_f64.tanh()).abs() < 1e-6, "{again:?}");
    assert_ne!(
        again[0]["weights_hash"],
        serde_json::from_str::<Value>(lines.lines().next().expect("a line")).expect("JSON")["weights_hash"]
    );
    let tenant = "alpha".parse().expect("a tenant");
    let id = again[0]["episode"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    assert_eq!(reader(&world).rewards(&tenant, id).expect("rewards").len(), 6, "the new ones lie beside the old");
    assert_eq!(good(&world, &["reward", "rescore", "--tenant", "alpha"]), lines, "and change nothing");
    std::fs::write(&out, "judges = 1.0").expect("weights");
    assert!(refused(&world, &["reward", "rescore", "--tenant", "alpha", "--weights", &shown]).contains("[reward]"));
    assert!(refused(&world, &["reward", "rescore", "--tenant", "alpha", "--from", "yesterday"]).contains("--from"));
}

fn read_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_pays_for_nothing_twice_and_gives_no_money_back() {
    let service = JudgeService::start().await;
    let mut world = judged(&service);
    // 1,200 tokens a call and two calls a question: 2.4 at 1,000 a million
    world.set("JUDGE__PRICE_IN", "1000.0").set("JUDGE__PRICE_OUT", "1000.0").set("JUDGE__DAILY_COST", "8.0");
    let train = ["alpha", "beta"].map(|tenant| world.key(tenant, "train"));
    let sample = |query: &str| json!({"item_id": "q", "completion": "叶黄素软糖 价格", "context": {"query": query}});
    let server = world.serve();
    let probes = service.calls();
    let first = post(&server, &train[0], "/v1/rl/score", &sample("多少钱")).await;
    assert_eq!((&first.body["status"], service.calls() - probes), (&json!("scored"), 2), "{}", first.body);
    server.kill();

    let server = world.serve();
    let probes = service.calls();
    let again = post(&server, &train[0], "/v1/rl/score", &sample("多少钱")).await;
    assert_eq!(service.calls(), probes, "nobody was asked again");
    same(&again.body, &first.body);
    let mut asked = 0;
    let spent = loop {
        let reply = post(&server, &train[0], "/v1/rl/score", &sample(&format!("多少钱 {asked}"))).await;
        if reply.body["status"] == "unscored" {
            break reply;
        }
        asked += 1;
        assert!(asked < 4, "8.0 is enough for three questions at most");
    };
    let reason = spent.body["reason"].as_str().expect("a reason");
    assert!(asked >= 1 && reason.starts_with("judge_budget_spent"), "{asked}: {reason}");
    server.kill();

    let server = world.serve();
    let probes = service.calls();
    let still = post(&server, &train[0], "/v1/rl/score", &sample("一盒多少")).await;
    assert_eq!((&still.body["reward"], service.calls()), (&Value::Null, probes), "{}", still.body);
    assert!(still.body["reason"].as_str().is_some_and(|reason| reason.starts_with("judge_budget_spent")));
    let known = post(&server, &train[0], "/v1/rl/score", &sample("多少钱")).await;
    same(&known.body, &first.body);
    let other = post(&server, &train[1], "/v1/rl/score", &sample("多少钱")).await;
    assert_eq!((&other.body["status"], service.calls()), (&json!("scored"), probes + 2), "another tenant's money");
}

/// The same verdict, and the same reward but for the last digits of a search's scores.
fn same(one: &Value, other: &Value) {
    for part in ["judge", "judge_student", "judge_baseline"] {
        assert_eq!(one["parts"][part], other["parts"][part], "{one} {other}");
    }
    let reward = |reply: &Value| reply["reward"].as_f64().expect("a reward");
    assert!((reward(one) - reward(other)).abs() < 1e-6, "{one} {other}");
    assert_eq!(one["reason"], other["reason"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadowed_answers_are_judged_and_show_in_the_report() {
    let service = JudgeService::start().await;
    let (url, _) = crate::arena::rewrite_service(|_| crate::arena::Act::Answer).await;
    let mut world = judged(&service);
    let define = "[{id = \"judged\", kind = \"shadow\", tenants = [\"alpha\"], control = \"now\", sample_rate = 1.0, \
        arms = [{name = \"now\", rewriter = \"configured\"}, {name = \"32b\", rewriter = \"remote\"}]}]";
    world.set("JUDGE__SAMPLE_RATE", "1.0").set("EXPERIMENTS__DEFINE", define).set("SHADOW__REMOTE__URL", &url);
    let (alpha, beta) = (world.key("alpha", "serve"), world.key("beta", "serve"));
    let (admin, foreign) = (world.key("alpha", "admin"), world.key("beta", "admin"));
    let server = world.serve();
    let tenant = "alpha".parse().expect("a tenant");
    for query in ["多少钱", "怎么吃", "有活动吗"] {
        let id = ask(&server, &alpha, query).await.parse().expect("an id");
        let rows = eventually(|| reader(&world).verdicts(&tenant, id).ok().filter(|rows| rows.len() == 2)).await;
        assert!(rows.iter().all(|row| row.raw.contains("entries") && row.judge.starts_with("openai:local:double")));
        let feedback = json!({"episode_id": id, "thumbs": "up"});
        assert_eq!(post(&server, &alpha, "/v1/feedback", &feedback).await.status, 200);
    }
    // An answer without a shadow is judged by itself, and what came is kept.
    let id = ask(&server, &beta, "叶黄素软糖 价格").await.parse().expect("an id");
    let other = "beta".parse().expect("a tenant");
    let rows = eventually(|| reader(&world).verdicts(&other, id).ok().filter(|rows| !rows.is_empty())).await;
    assert_eq!((rows.len(), &rows[0].side), (1, &Side::Live));
    assert!(rows[0].raw.contains("改写质量"), "{}", rows[0].raw);
    service.be(Mood::Says("五分！"));
    let id = ask(&server, &beta, "益生菌冻干粉 用法").await.parse().expect("an id");
    let rows = eventually(|| reader(&world).verdicts(&other, id).ok().filter(|rows| !rows.is_empty())).await;
    assert_eq!((rows[0].scores.as_ref(), rows[0].raw.as_str()), (None, "五分！"));

    let live = server.get(&reqwest::Client::new(), &admin, "/v1/experiments/judged/report").await.body;
    let world = aside(move || {
        let stored = good(&world, &["experiment", "report", "judged", "--json"]);
        let stored: Value = serde_json::from_str(&stored).expect("JSON");
        for report in [&live, &stored] {
            let metrics = report["metrics"].as_array().expect("metrics");
            let judge = metrics.iter().find(|one| one["metric"] == "judge").expect("the judge's metric");
            assert_eq!(
                (&judge["n"], &judge["control_mean"], &judge["treatment_mean"]),
                (&json!(3), &json!(3.0), &json!(5.0))
            );
            assert!(report["notes"].to_string().contains("openai:local:double"), "{}", report["notes"]);
            assert_eq!(report["feedback"][0]["up"], 3);
        }
        world
    })
    .await;
    let refused = server.get(&reqwest::Client::new(), &foreign, "/v1/experiments/judged/report").await;
    assert_eq!(refused.status, 404);
    drop(world);
}
