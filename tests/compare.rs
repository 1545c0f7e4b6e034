//! `recast experiment`: comparisons from the command line, over a few labelled dialogues.

use serde_json::json;

use crate::support::World;

/// Dialogues of the tenant alpha: the question leaves the product out, the gold rewrite names it.
fn dialogues() -> String {
    let products = ["胶原蛋白肽饮", "胶原蛋白肽粉", "益生菌冻干粉", "叶黄素软糖"];
    let aspects = [("禁忌", "孕妇能吃吗"), ("用法", "一天几次"), ("价格", "多少钱")];
    let mut lines = String::new();
    for (index, product) in products.iter().enumerate() {
        for (aspect, query) in aspects {
            let record = json!({
                "id": format!("d-{index}-{aspect}"),
                "conversation_id": format!("c-{index}-{aspect}"),
                "split": "test",
                "history": [{"role": "user", "content": format!("{product}怎么样")}],
                "query": query,
                "user_profile": "", "history_summary": "", "thought": "",
                "gold_rewrites": [format!("{product} {aspect}")],
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
    let output = world.run(&["experiment", "compare", "--a", "pass_through", "--b", "gold", "--limit", "12"]);
    let (shown, complaints) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{complaints}");
    assert!(shown.contains("gold") && shown.contains("pass_through"), "{shown}");
    assert!(shown.contains("12"), "{shown}");
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
