//! `recast experiment`: comparisons from the command line, over a few labelled dialogues.

use recast_experiments::Verdict;
use recast_experiments::report::Metric;
use serde_json::json;

use crate::support::World;

/// Dialogues of the tenant alpha: the question leaves the product out, the gold rewrite names it.
pub fn dialogues() -> String {
    let products = ["胶原蛋白肽饮", "胶原蛋白肽粉", "益生菌冻干粉", "叶黄素软糖"];
    let aspects = [("禁忌", "能吃吗", "孕妇"), ("用法", "一天几次", "每日一次 温水"), ("价格", "多少钱", "零售价")];
    let mut lines = String::new();
    for (index, product) in products.iter().enumerate() {
        for (aspect, query, words) in aspects {
            let record = json!({
                "id": format!("d-{index}-{aspect}"),
                "conversation_id": format!("c-{index}-{aspect}"),
                "split": "test",
                "history": [{"role": "user", "content": format!("{product}怎么样")}],
                "query": query,
                "user_profile": "", "history_summary": "", "thought": "",
                "gold_rewrites": [format!("{product} {words}")],
                "relevant": [{"id": format!("alpha-{index}-{aspect}"), "grade": 2}],
                "query_type": "general",
            });
            lines.push_str(&record.to_string());
            lines.push('\n');
        }
    }
    lines
}

fn labelled_world() -> World {
    let world = World::new();
    std::fs::write(world.path("tenants/alpha/dialogues.jsonl"), dialogues()).expect("dialogues");
    world
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_gold_rewrites_beat_the_questions_as_typed() {
    let world = labelled_world();
    let compare = ["experiment", "compare", "--a", "pass_through", "--b", "gold", "--limit", "12"];
    let output = world.run(&compare);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("| pass_through | 12 |") && shown.contains("| gold | 12 |"), "{shown}");
    assert!(shown.contains("gold - pass_through: top-1 +"), "{shown}");

    let file = world.path("questions.json");
    let questions = file.display().to_string();
    let output = world.run(&[compare.as_slice(), &["--questions", &questions]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
    let questions = record["questions"].as_array().expect("questions");
    let top1 = |arm: &str| questions.iter().filter_map(|one| one[arm]["labels"]["top1"].as_f64()).sum::<f64>();
    assert_eq!(questions.len(), 12);
    let (typed, gold) = (top1("a"), top1("b"));
    assert!(typed <= 4.0, "a question that leaves the product out finds it by chance: {typed}");
    assert!(gold >= typed + 4.0, "a gold rewrite names it: {gold} against {typed}");
}

#[test]
fn a_comparison_gives_the_report_of_a_live_experiment() {
    let world = labelled_world();
    let (file, page) = (world.path("tenants/alpha/dialogues.jsonl"), world.path("report.html"));
    let (file, html) = (file.display().to_string(), page.display().to_string());
    let args = ["experiment", "compare", "--a", "raw", "--b", "gold", &file, "--judge", "heuristic"];
    let output = world.run(&[&args[..], &["--json", "--html", &html]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    // what is printed is a report and nothing else
    let report: recast_experiments::report::Report = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!((report.pairs, report.accounting.sampled, report.adds_up), (12, 12, true));
    assert_eq!((report.control.as_str(), report.treatment.as_str()), ("pass_through", "gold"));
    assert_eq!(report.primary, Metric::LabelNdcgAt10);
    assert_eq!(report.decision.verdict, Verdict::TreatmentBetter, "{:?}", report.decision);
    let judge = report.metric(Metric::Judge).expect("the judge's scores");
    assert!(judge.n == 12 && judge.difference.mean > 0.0, "{judge:?}");
    assert!(report.notes.iter().any(|note| note.contains("heuristic-1")), "{:?}", report.notes);
    assert!(!report.largest_wins.is_empty());
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.starts_with("<!") && page.contains("pass_through") && page.contains("gold"));

    let output = world.run(&[&args[..], &["--primary", "quality"]].concat());
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("| pass_through | 12 |"), "{shown}");
    let output = world.run(&[&args[..], &["--primary", "fun"]].concat());
    assert!(text(&output.stderr).contains("label_ndcg_at10"), "{}", text(&output.stderr));
}

#[test]
fn a_check_names_every_problem_of_a_file_at_once() {
    let world = World::new();
    let file = world.path("experiments.toml");
    let arms =
        "arms = [{ name = \"now\", rewriter = \"configured\" }, { name = \"raw\", rewriter = \"pass_through\" }]";
    let good = format!(
        "[[experiments.define]]\nid = \"one\"\nkind = \"shadow\"\ntenants = [\"alpha\"]\ncontrol = \"now\"\n{arms}\n"
    );
    let wrong = "[[experiments.define]]\nkind = \"shadow\"\n\
        [[experiments.define]]\nid = \"two\"\nkind = \"split\"\ntenants = [\"alpha\", \"nobody\"]\ncontrol = \"gone\"\n\
        arms = [{ name = \"a\", rewriter = \"gpt\", weight = -1.0 }, { name = \"b\", rewriter = \"remote\" }]\n";
    let shown = file.display().to_string();
    let args = ["experiment", "check", &shown];
    std::fs::write(&file, &good).expect("definitions");
    let output = world.run(&args);
    assert!(output.status.success(), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("1 definition(s), no problem"));

    std::fs::write(&file, format!("{good}{wrong}")).expect("definitions");
    let output = world.run(&args);
    let problems = text(&output.stdout);
    assert!(!output.status.success(), "{problems}");
    let expected = [
        ("define[1]:", "missing field"),
        ("define[2].tenants:", "\"one\" at the same time"),
        ("define[2].tenants[1]:", "not a tenant here"),
        ("define[2].control:", "not the name of an arm"),
        ("define[2].arms[0].rewriter:", "not known"),
        ("define[2].arms[0].weight:", "finite number, 0 or more"),
        ("define[2].arms[1].rewriter:", "rewriter.remote.url is empty"),
    ];
    for (field, message) in expected {
        let named = problems.lines().any(|line| line.starts_with(field) && line.contains(message));
        assert!(named, "{field} {message} is not in\n{problems}");
    }
    assert_eq!(problems.lines().count(), expected.len(), "{problems}");
    assert!(text(&output.stderr).contains("7 problem(s)"), "{}", text(&output.stderr));
}

#[test]
fn an_arm_that_cannot_answer_is_counted_and_not_replaced() {
    let world = labelled_world();
    // Nobody listens on this port.
    let args = ["experiment", "compare", "--a", "raw", "--b", "http://127.0.0.1:1", "--limit", "3"];
    let output = world.run(&args);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("pass_through: median rewrite 0 ms, failed: none"), "{shown}");
    assert!(shown.contains("failed: 3 by unreachable"), "{shown}");
}

#[test]
fn an_argument_that_cannot_be_meant_is_named_with_the_fix() {
    let world = labelled_world();
    let refused = |args: &[&str], expected: &[&str]| {
        let output = world.run(args);
        let complaints = text(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        for part in expected {
            assert!(complaints.contains(part), "{args:?}: {part} is not in {complaints}");
        }
    };
    refused(&["experiment", "compare", "--a", "no/such", "--b", "gold"], &["--a", "pass_through, gold, configured"]);
    refused(&["experiment", "compare", "--a", "raw", "--b", "gold", "--split", "train"], &["--split"]);
    refused(
        &["experiment", "compare", "--a", "raw", "--b", "http://127.0.0.1:1", "--api-key-env", "RECAST_NO_SUCH"],
        &["--api-key-env", "RECAST_NO_SUCH"],
    );
    let stray = world.path("stray.jsonl");
    std::fs::write(&stray, dialogues()).expect("dialogues");
    let stray = stray.display().to_string();
    refused(&["experiment", "compare", "--a", "raw", "--b", "gold", &stray], &["--tenant"]);
}

#[test]
fn a_rewrite_service_of_a_missing_model_says_what_is_missing() {
    let world = World::new();
    let output = world.run(&["rewriter", "serve", "--model", "no/such/model", "--listen", "127.0.0.1:0"]);
    let complaints = text(&output.stderr);
    assert!(!output.status.success(), "{complaints}");
    assert!(complaints.contains("no/such/model"), "{complaints}");
}

#[test]
fn a_plan_says_how_many_pairs_an_effect_needs() {
    let world = World::new();
    let plan = |effect: &str| {
        let args =
            ["experiment", "plan", "--effect", effect, "--sd", "0.4", "--ties", "0.3", "--win-rate", "0.6", "--json"];
        // A plan needs no settings, and so no --config.
        let output = world.bare_command(&args).output().expect("the binary runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    };
    let (large, small) = (plan("0.2"), plan("0.1"));
    let fixed = |plan: &serde_json::Value| plan["mean"]["fixed"].as_u64().expect("a number");
    // ((1.960 + 0.842) * 0.4 / 0.2)^2 = 31.4; half the effect needs four times as many.
    assert_eq!((fixed(&large), fixed(&small)), (32, 126));
    assert!(small["mean"]["sequential_median"].as_u64() > large["mean"]["sequential_median"].as_u64());
    assert!(large["win_rate"]["pairs"].as_u64() > large["win_rate"]["decided"].as_u64());
}
