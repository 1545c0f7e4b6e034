//! Datasets from a store to their files.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use recast_config::{DatasetSettings, Durability, Source, TenantProfile, load};
use recast_domain::{Episode, EpisodeId, Role, Turn};
use serde_json::Value;

use super::build::Builder;
use super::*;
use crate::reader::EpisodeReader;
use crate::record::encode;
use crate::schema::open_file;
use crate::testing::episode;
use crate::write::{Write, commit};

pub(super) const NOW: i64 = 1_795_000_000_000;

pub(super) fn limits() -> DatasetSettings {
    load(&Source::parse("demo"), std::iter::empty()).unwrap().settings.datasets
}

pub(super) fn tenant() -> TenantProfile {
    TenantProfile::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/fivedoctors")).unwrap()
}

pub(super) fn asked(number: usize, query: &str, rewrite: &str) -> Episode {
    let mut one = episode("fivedoctors", NOW - 1000 - number as i64);
    one.conversation.query = query.to_owned();
    one.rewrite.text = rewrite.to_owned();
    one.request.conversation_id = Some(format!("c{}", number / 2));
    one
}

/// A store of so many questions, two a conversation.
pub(super) fn store(dir: &Path, count: usize) -> EpisodeReader {
    let episodes: Vec<Episode> = (0..count)
        .map(|number| {
            let mut one =
                asked(number, &format!("胶原蛋白第{number}天怎么吃"), &format!("胶原蛋白肽 第{number}天 怎么吃 用量"));
            one.conversation.history = vec![Turn { role: Role::User, content: "在吗".to_owned() }; number % 2];
            one
        })
        .collect();
    written(dir, episodes.iter().map(|one| Write::Episode(encode(one).unwrap())).collect())
}

pub(super) fn written(dir: &Path, writes: Vec<Write>) -> EpisodeReader {
    let path = dir.join("e.db");
    let connection = open_file(&path, Durability::Strict).unwrap().into();
    let applied = commit(&connection, writes.iter(), false).unwrap();
    assert!(applied.iter().all(Result::is_ok), "{applied:?}");
    EpisodeReader::open(&path).unwrap()
}

pub(super) fn made(reader: &EpisodeReader, out: &Path, kind: Kind, now_ms: i64) -> (DatasetManifest, PathBuf) {
    let (tenant, settings) = (tenant(), limits());
    let request = BuildRequest { tenant: &tenant, kind, out, settings: &settings, seed: 7, now_ms };
    let manifest = build(reader, &request, 30, |_| ControlFlow::Continue(())).unwrap();
    let folder = if kind == Kind::Messages { "sft" } else { kind.name() };
    (manifest, out.join(folder).join("fivedoctors"))
}

/// All rows of a dataset, by split.
pub(super) fn rows(manifest: &DatasetManifest, folder: &Path) -> Vec<(&'static str, Value)> {
    let mut rows = Vec::new();
    for file in &manifest.files {
        let text = fs::read_to_string(folder.join(&file.path)).unwrap();
        let of_file: Vec<Value> = if file.path.ends_with(".json") {
            let envelope: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(envelope["total_samples"].as_u64(), Some(file.rows));
            envelope["samples"].as_array().unwrap().clone()
        } else {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_eq!(of_file.len() as u64, file.rows);
        rows.extend(of_file.into_iter().map(|row| (file.split, row)));
    }
    rows
}

#[test]
fn every_rule_drops_what_it_names() {
    let cases = [
        ("", "胶原蛋白", Some(Rule::QueryMissing)),
        ("吃", "胶原蛋白", Some(Rule::QueryTooShort)),
        ("怎么吃", " \u{3000} ", Some(Rule::RewriteMissing)),
        ("怎么吃", "肽", Some(Rule::RewriteTooShort)),
        ("怎么吃", " 怎么吃\u{3000}", Some(Rule::Unchanged)),
        ("ＶＣ怎么吃", "VC怎么吃", Some(Rule::Unchanged)),
        ("怎么吃", "胶原蛋白肽 服用方法 用量", Some(Rule::Duplicate)),
        ("怎么吃", "胶原蛋白肽 服用方法 推荐用量吗", Some(Rule::RewriteGrewTooMuch)),
        ("怎么吃呢", "胶原蛋白肽 服用方法", None),
    ];
    let mut seen = Seen::default();
    for (query, rewrite, rule) in cases {
        let mut one = plain("c", query);
        one.rewrite = rewrite.to_owned();
        let found = quality(&one, Wanted::Rewrites, &limits());
        if rule == Some(Rule::Duplicate) {
            assert_eq!(found, None, "{query} {rewrite}");
            assert_eq!(seen.enter(&one, Wanted::Rewrites, recast_domain::Split::Train), None);
            assert_eq!(seen.enter(&one, Wanted::Rewrites, recast_domain::Split::Train), Some(Rule::Duplicate));
            let other = seen.enter(&one, Wanted::Rewrites, recast_domain::Split::Test);
            assert_eq!(other, Some(Rule::DuplicateOfOtherSplit));
        } else {
            assert_eq!(found, rule, "{query} {rewrite}");
        }
    }
    for (query, rewrite, rule) in [
        ("问".repeat(201), "答案".to_owned(), Rule::QueryTooLong),
        ("问".repeat(200), "答".repeat(501), Rule::RewriteTooLong),
    ] {
        let one = Sample { rewrite, ..plain("c", &query) };
        assert_eq!(quality(&one, Wanted::Rewrites, &limits()), Some(rule));
    }
}

pub(super) fn plain(conversation: &str, query: &str) -> Sample {
    Sample {
        episode_id: EpisodeId::now().to_string(),
        conversation_id: conversation.to_owned(),
        created_ms: 5,
        conversation: recast_domain::Conversation { query: query.to_owned(), ..Default::default() },
        rewrite: format!("{query} 检索"),
        origin: Origin::EpisodeLog,
        model: "m".to_owned(),
        quality_score: Some(4.0),
        top1_score: Some(0.7),
        recall_count: 1,
        relevant: None,
        augmented: false,
        pair: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn kept_and_dropped_add_up_and_nothing_leaks(
        texts in proptest::collection::vec(("[a-c]{0,3}", "[a-c ]{0,9}", 0_u8..6), 0..60),
        seed in 0_u64..50,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (tenant, settings) = (tenant(), limits());
        let kind = Kind::Messages;
        let request = BuildRequest { tenant: &tenant, kind, out: dir.path(), settings: &settings, seed, now_ms: NOW };
        let mut builder = Builder::new(&request).unwrap();
        for (query, rewrite, conversation) in &texts {
            let mut one = plain(&conversation.to_string(), query);
            one.rewrite.clone_from(rewrite);
            builder.push(&one).unwrap();
        }
        let manifest = builder.finish("test".to_owned(), None).unwrap();
        let dropped: u64 = manifest.counts.dropped.values().sum();
        prop_assert_eq!(manifest.counts.kept + dropped, texts.len() as u64);
        prop_assert_eq!(manifest.counts.read, texts.len() as u64);
        let (mut conversations, mut contents) = (HashMap::new(), HashMap::new());
        let mut originals = 0;
        for (split, row) in rows(&manifest, &dir.path().join("sft/fivedoctors")) {
            originals += u64::from(row["metadata"]["augmented"] == false);
            let first = *conversations.entry(row["conversation_id"].to_string()).or_insert(split);
            prop_assert_eq!(first, split);
            let text = |name: &str| normalised(row[name].as_str().unwrap());
            let content = (text("original_query"), text("rewritten_query"));
            prop_assert!(contents.insert(content, split).is_none(), "a text is there twice");
        }
        prop_assert_eq!(originals, manifest.counts.kept);
    }
}

#[test]
fn a_dataset_has_its_splits_copies_links_and_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let reader = store(dir.path(), 600);
    let (manifest, folder) = made(&reader, dir.path(), Kind::Messages, NOW);
    assert_eq!((manifest.counts.read, manifest.counts.kept), (600, 600));
    assert_eq!(manifest.timestamp, "20261118_110640");
    let all = rows(&manifest, &folder);
    let originals =
        |split: &str| all.iter().filter(|(of, row)| *of == split && row["metadata"]["augmented"] == false).count();
    let (train, val, test) = (originals("train"), originals("val"), originals("test"));
    assert!(
        (430..=530).contains(&train) && (30..=90).contains(&val) && (30..=90).contains(&test),
        "{train} {val} {test}"
    );
    let copies: Vec<&Value> = all
        .iter()
        .filter(|(_, row)| row["metadata"]["augmented"] == true)
        .map(|(split, row)| {
            assert_eq!(*split, "train");
            row
        })
        .collect();
    assert_eq!(copies.len() as u64, manifest.augmented);
    // a third of the rows is chosen; 1 - 0.7^2 of these have one of their two synonyms replaced
    assert!((0.10..0.24).contains(&(copies.len() as f64 / train as f64)), "{}", copies.len());
    for copy in &copies {
        let (query, rewrite) = (copy["original_query"].as_str().unwrap(), copy["rewritten_query"].as_str().unwrap());
        for (word, others) in [("怎么", ["如何", "怎样"]), ("吃", ["服用", "使用"])] {
            assert_eq!(query.contains(word), rewrite.contains(word), "{query} {rewrite}");
            assert!(
                query.contains(word) || others.iter().any(|other| query.contains(other) && rewrite.contains(other))
            );
        }
        assert!(copy["sample_id"].as_str().unwrap().ends_with("-augmented"));
        assert_eq!(copy["metadata"]["top1_score"], Value::Null, "what was measured was another text");
    }
    for split in ["train", "val", "test"] {
        let link = folder.join(format!("{split}_latest.jsonl"));
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(&format!("{split}_20261118_110640.jsonl")));
    }
    let report: Value = serde_json::from_slice(&fs::read(folder.join("stats_report.json")).unwrap()).unwrap();
    assert_eq!(report["splits"]["train"]["total_samples"], (train + copies.len()) as u64);
    assert_eq!(report["splits"]["train"]["has_user_profile"], 0);
    assert!(report["splits"]["train"]["has_history"].as_u64().unwrap() > 200);
    assert!(report["splits"]["val"]["avg_original_length"].as_f64().unwrap() > 8.0);
    let stored = fs::read_to_string(folder.join("manifest_messages_20261118_110640.json")).unwrap();
    assert!(stored.contains(&manifest.files[0].sha256));
    assert!(!folder.join(".build").exists());
}

#[test]
fn the_same_episodes_and_seed_give_the_same_bytes_also_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let reader = store(dir.path(), 90);
    for kind in [Kind::Sft, Kind::Messages, Kind::Verl, Kind::Trl] {
        let (first, folder) = made(&reader, dir.path(), kind, NOW);
        // what a build that was killed leaves behind
        fs::create_dir(folder.join(".build")).unwrap();
        fs::write(folder.join(".build/train_20261118_110641.jsonl"), "half").unwrap();
        let (second, _) = made(&reader, dir.path(), kind, NOW);
        assert_ne!(first.timestamp, second.timestamp, "an older dataset stays");
        let hashes =
            |manifest: &DatasetManifest| manifest.files.iter().map(|file| file.sha256.clone()).collect::<Vec<_>>();
        assert_eq!(hashes(&first), hashes(&second), "{kind:?}");
        let names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|name| name.contains(".build") || name.ends_with(".new")), "{names:?}");
        for file in first.files.iter().chain(&second.files) {
            assert!(names.contains(&file.path));
        }
    }
    let lock = fs::File::open(dir.path().join("sft/fivedoctors/.datasets.lock")).unwrap();
    lock.lock().unwrap();
    let (tenant, settings) = (tenant(), limits());
    let request =
        BuildRequest { tenant: &tenant, kind: Kind::Sft, out: dir.path(), settings: &settings, seed: 7, now_ms: NOW };
    let error = build(&reader, &request, 30, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("another build"), "{error}");
}

#[test]
fn synonyms_stay_out_of_protected_terms() {
    let (tenant, settings) = (tenant(), DatasetSettings { synonym_share: 1.0, ..limits() });
    let profile = TenantProfile { protected_terms: vec!["吃货节".to_owned()], ..tenant };
    let mut one = plain("c", "吃货节的糖怎么吃");
    one.rewrite = "吃货节 糖 吃法".to_owned();
    let copy = augmented(7, &one, &profile, &settings).unwrap();
    assert!(copy.conversation.query.starts_with("吃货节的糖") && !copy.conversation.query.ends_with('吃'));
    assert!(copy.rewrite.starts_with("吃货节 糖 ") && !copy.rewrite.contains("吃法"), "{}", copy.rewrite);
    assert_eq!(augmented(7, &plain("c", "糖好"), &profile, &settings), None);
    let chosen = (0..999).filter(|number| is_chosen(3, *number, &limits())).count();
    assert_eq!(chosen, 333);
}
