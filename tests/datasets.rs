//! From answers to datasets as people meet it: a batch run against a real server, its workbook, labels, and datasets.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::World;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that must go well printed.
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn a_test_set_becomes_a_workbook_labels_and_datasets() {
    let world = World::new();
    let (key, other) = (world.key("alpha", "admin"), world.key("beta", "admin"));
    let server = world.serve();
    let (set, book) = (world.path("set.jsonl"), world.path("test_sft.xlsx"));
    let questions: String = (0..24)
        .map(|number| {
            format!("{{\"query\": \"胶原蛋白肽饮第{number}天怎么吃\", \"conversation_id\": \"c{number}\"}}\n")
        })
        .collect();
    std::fs::write(&set, questions).expect("a test set");
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let batch = |more: &[&str]| {
        let (set, book) = (path(&set), path(&book));
        let mut args = vec!["batch", &set, "--out", &book, "--url", &server.url, "--concurrency", "4"];
        args.extend(more);
        world.bare_command(&args).env("RECAST_KEY", &key).output().expect("the binary runs")
    };
    let said = good(&batch(&[]));
    assert!(said.starts_with("24 rows, 24 answered"), "{said}");
    let rows = lines(&world.path("test_sft.jsonl"));
    assert_eq!(rows.len(), 24);
    assert_eq!(rows[3]["original_query"], "胶原蛋白肽饮第3天怎么吃", "rows keep the order of the test set");
    assert!(book.is_file() && !world.path("test_sft.progress").exists());

    let labels = world.path("labels.jsonl");
    let id = rows[3]["episode_id"].as_str().expect("an episode");
    let unknown = "01995f2e-0000-7000-8000-000000000001";
    std::fs::write(
        &labels,
        format!(
            "{{\"episode_id\":\"{id}\",\"author\":\"li\",\"gold_rewrite\":\"胶原蛋白肽饮 第三天 用量\",\"score\":0.5}}\n\
             {{\"episode_id\":\"{unknown}\",\"author\":\"li\",\"score\":1}}\n"
        ),
    )
    .expect("labels");
    let file = path(&labels);
    let owned = world.run(&["labels", "import", &file, "--tenant", "alpha"]);
    assert!(text(&owned.stderr).contains("--url"), "the gateway owns the store: {}", text(&owned.stderr));
    let sent = world.run(&["labels", "import", &file, "--url", &server.url, "--key", &key]);
    assert!(text(&sent.stdout).starts_with("2 labels stored, 0 there already"), "{}", text(&sent.stdout));
    assert!(text(&sent.stderr).contains(&format!("labels.jsonl:2: episode_id: {unknown}")), "{}", text(&sent.stderr));
    assert!(!sent.status.success(), "a row was not taken");
    let again = world.run(&["labels", "import", &file, "--url", &server.url, "--key", &key]);
    assert!(text(&again.stdout).starts_with("0 labels stored, 2 there already"), "{}", text(&again.stdout));
    let theirs = world.run(&["labels", "import", &file, "--url", &server.url, "--key", &other]);
    assert!(text(&theirs.stdout).starts_with("0 labels stored, 0"), "another tenant's episode looks unknown");

    let out = path(&world.path("datasets"));
    for kind in ["sft", "messages", "rl", "verl", "trl"] {
        let made = world.run(&["datasets", "build", "--tenant", "alpha", "--kind", kind, "--out", &out, "--json"]);
        let manifest: Value = serde_json::from_str(&good(&made)).expect("a manifest");
        assert_eq!(manifest["counts"]["read"], 24, "{kind}");
        assert!(text(&made.stderr).contains("10000 are wanted"), "{}", text(&made.stderr));
    }
    let folder = world.path("datasets/sft/alpha");
    let all: Vec<Value> = ["train", "val", "test"]
        .iter()
        .flat_map(|split| lines(&folder.join(format!("{split}_latest.jsonl"))))
        .collect();
    let labelled = all.iter().find(|row| row["episode_id"] == id && row["metadata"]["augmented"] == false);
    assert_eq!(labelled.expect("the labelled row")["rewritten_query"], "胶原蛋白肽饮 第三天 用量");

    let (file, out) = (path(&book), path(&world.path("imported")));
    let said = good(&world.run(&["datasets", "import", &file, "--tenant", "alpha", "--out", &out]));
    assert!(said.starts_with("read\t24\n"), "{said}");
}
