//! Whole trainings on a tiny data folder: they learn it, and a killed one goes on as if it had not been.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use recast_learner::{
    EncoderTraining, Shape, TrainSettings, train_embedder, train_reranker, train_rewriter, train_tokenizer,
};
use recast_model::{ModelFolder, ModelKind, VocabularySettings};
use serde_json::json;

/// Three products by three aspects; what is validated on is what is trained on, so that a memory is enough.
fn write_data(dir: &Path) {
    let shop = dir.join("shop");
    std::fs::create_dir_all(&shop).unwrap();
    std::fs::write(shop.join("tenant.toml"), "id = \"shop\"\nname = \"shop\"\nsystem_prompt = \"改写查询\"\n").unwrap();
    let aspects = [
        ("taboo", "不适宜人群：孕妇慎用", "孕妇能喝吗"),
        ("usage", "食用方法：每日一次", "怎么吃"),
        ("price", "价格：99元", "多少钱"),
    ];
    let (mut passages, mut dialogues) = (Vec::new(), Vec::new());
    for (number, name) in ["胶原饮", "钙片", "鱼油胶囊"].into_iter().enumerate() {
        for (aspect, text, question) in aspects {
            let id = format!("{number}-{aspect}");
            passages.push(json!({
                "id": id, "doc_id": name, "title": "", "text": format!("{name}{text}"), "source": "",
                "metadata": {"entity": name, "aliases": [], "aspect": aspect},
            }));
            for split in ["train", "val"] {
                dialogues.push(json!({
                    "id": format!("{split}-{id}"), "conversation_id": format!("{split}-{id}"), "split": split,
                    "history": [{"role": "user", "content": format!("{name}好吗")}], "query": question,
                    "user_profile": "", "history_summary": "", "thought": "",
                    "gold_rewrites": [format!("{name}{question}")], "relevant": [{"id": id, "grade": 2}],
                    "query_type": "general",
                }));
            }
        }
    }
    let lines = |rows: &[serde_json::Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    std::fs::write(shop.join("passages.jsonl"), lines(&passages)).unwrap();
    std::fs::write(shop.join("dialogues.jsonl"), lines(&dialogues)).unwrap();
}

fn settings(root: &Path) -> TrainSettings {
    let data = root.join("data");
    write_data(&data);
    let mut settings = TrainSettings::new(&data, &root.join("models"), 7);
    settings.vocabulary = VocabularySettings { entries: 480, words: 20 };
    let shape = Shape { hidden: 32, intermediate: 64, layers: 2, heads: 2, key_heads: 1, head_dim: 16 };
    settings.rewriter.shape = shape;
    settings.rewriter.rows = 9;
    settings.rewriter.swapped = 0.0;
    settings.rewriter.copies = 0.0;
    settings.rewriter.learning_rate = 5e-3;
    for encoder in [&mut settings.embedder, &mut settings.reranker] {
        *encoder =
            EncoderTraining { shape, dimension: 16, rows: 9, swapped: 0.3, learning_rate: 5e-3, ..encoder.clone() };
    }
    settings
}

fn go_on() -> impl FnMut(u32, f64) -> ControlFlow<()> {
    |_, _| ControlFlow::Continue(())
}

#[test]
fn a_rewriter_learns_a_tiny_set_by_heart() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path());
    settings.steps = Some(260);
    let mut losses = Vec::new();
    let report = train_rewriter(&settings, &mut |_, loss| {
        losses.push(loss);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(losses[259] < 0.5 * losses[0], "the loss went from {} to {}", losses[0], losses[259]);
    assert_eq!(report.figures["exact"], 1.0, "{:?}", report.figures);
    let folder = ModelFolder::open(&report.dir).unwrap();
    assert_eq!(folder.manifest().kind, ModelKind::Rewriter);
    for name in ["curve.csv", "curve.png", "report.json"] {
        assert!(report.dir.join(name).exists(), "{name} is missing");
    }
}

#[test]
fn encoders_learn_a_tiny_set() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path());
    settings.steps = Some(150);
    train_tokenizer(&settings).unwrap();
    for report in [train_embedder(&settings, &mut go_on()).unwrap(), train_reranker(&settings, &mut go_on()).unwrap()] {
        assert!(report.figures["mrr"] > 0.95, "{report:?}");
        assert!(ModelFolder::open(&report.dir).unwrap().manifest().encoder.is_some());
    }
}

#[test]
fn an_adapter_is_trained_beside_a_frozen_base() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path());
    settings.steps = Some(10);
    let base = train_rewriter(&settings, &mut go_on()).unwrap().dir;
    let weights = ModelFolder::open(&base).unwrap().weights(&candle_core::Device::Cpu).unwrap();
    settings.out = root.path().join("tuned");
    settings.rewriter.base = Some(base);
    settings.rewriter.lora = Some((4, 8.0));
    let tuned = ModelFolder::open(&train_rewriter(&settings, &mut go_on()).unwrap().dir).unwrap();
    assert!(tuned.adapter(&candle_core::Device::Cpu).unwrap().is_some());
    for (name, weight) in tuned.weights(&candle_core::Device::Cpu).unwrap() {
        let same = |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(same(&weight), same(&weights[&name]), "{name} was trained");
    }
}

/// Where the child of the kill test works; set only in that child.
const CHILD: &str = "RECAST_TEST_TRAIN_IN";

fn losses_from(settings: &TrainSettings, steps: u32) -> Vec<(u32, f64)> {
    let mut losses = Vec::new();
    let ended = train_rewriter(settings, &mut |step, loss| {
        losses.push((step, loss));
        if step + 1 == steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(ended.is_err() || steps >= 64);
    losses
}

/// The killed process; a test without the variable does nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the parent test speaks to this child through the environment")]
fn child_that_is_killed() {
    let Ok(root) = std::env::var(CHILD) else { return };
    let mut settings = settings(Path::new(&root));
    settings.steps = Some(64);
    train_rewriter(&settings, &mut |step, _| {
        std::fs::write(Path::new(&root).join("step"), step.to_string()).unwrap();
        ControlFlow::Continue(())
    })
    .unwrap();
}

#[test]
fn a_killed_run_goes_on_to_the_same_losses() {
    let whole = tempfile::tempdir().unwrap();
    let mut uninterrupted = settings(whole.path());
    uninterrupted.steps = Some(64);
    let expected = losses_from(&uninterrupted, 64);
    let root = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_is_killed"])
        .env(CHILD, root.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let reached = || std::fs::read_to_string(root.path().join("step")).ok().and_then(|step| step.parse().ok());
    while reached().is_none_or(|step: u32| step < 21) {
        assert!(child.try_wait().unwrap().is_none(), "the child ended too soon");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut resumed = settings(root.path());
    resumed.steps = Some(64);
    resumed.resume = true;
    let found = losses_from(&resumed, 64);
    assert!(found[0].0 >= 20, "it began again at step {}", found[0].0);
    assert_eq!(found, expected[found[0].0 as usize..]);
    resumed.rewriter.learning_rate *= 2.0;
    let refused = train_rewriter(&resumed, &mut go_on()).unwrap_err().to_string();
    assert!(refused.contains("other settings"), "{refused}");
}
