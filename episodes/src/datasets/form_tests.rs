//! What the rows of each kind hold.

use recast_domain::{EpisodeId, RewriteSource, ShadowOutcome};
use serde_json::Value;

use super::tests::{NOW, asked, made, rows, store, tenant, written};
use super::*;
use crate::labels::LabelValue;
use crate::ledger;
use crate::record::encode;
use crate::scores::Side;
use crate::testing::{completed, ended, label, reward, sampled, verdict};
use crate::write::Write;

#[test]
fn prompts_are_what_verl_reads_and_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let reader = store(dir.path(), 40);
    let (manifest, folder) = made(&reader, dir.path(), Kind::Verl, NOW);
    assert_eq!(manifest.augmented, 0);
    let golden: Value =
        serde_json::from_str(include_str!("../../tests/golden/verl_sample.jsonl").lines().next().unwrap()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (split, row) in rows(&manifest, &folder) {
        assert_eq!(keys(&row), keys(&golden));
        assert_eq!(keys(&row["reward_model"]), keys(&golden["reward_model"]));
        assert_eq!(row["extra_info"]["split"], split);
        let id = row["reward_model"]["ground_truth"].as_str().unwrap();
        assert_eq!(row["extra_info"]["index"], id);
        let asked = reader.get(&"fivedoctors".parse().unwrap(), EpisodeId(id.parse().unwrap())).unwrap();
        let served = recast_domain::chat_messages(&tenant().system_prompt, &asked.conversation);
        assert_eq!(row["prompt"], serde_json::to_value(served).unwrap());
    }
}

#[test]
fn a_persons_rewrite_comes_before_the_models() {
    let dir = tempfile::tempdir().unwrap();
    let one = asked(0, "孕妇能喝吗", "孕妇 喝");
    let gold = label(&one, LabelValue::GoldRewrite("胶原蛋白肽 孕妇禁忌 孕期".to_owned()));
    let writes = vec![Write::Episode(encode(&one).unwrap()), Write::Labels(vec![gold])];
    let reader = written(dir.path(), writes);
    let (manifest, folder) = made(&reader, dir.path(), Kind::Sft, NOW);
    let (_, row) = rows(&manifest, &folder).remove(0);
    assert_eq!(row["rewritten_query"], "胶原蛋白肽 孕妇禁忌 孕期");
    assert_eq!(row["metadata"]["source"], "human_label");
    assert_eq!(row["metadata"]["quality_score"], Value::Null);
    assert_eq!(row["episode_id"], one.id.to_string());
}

#[test]
fn pairs_hold_both_arms_and_what_is_missing_is_null() {
    let dir = tempfile::tempdir().unwrap();
    let pair = |judged: bool| {
        let (mut one, run) = sampled("fivedoctors", NOW - 5000 - i64::from(judged));
        one.conversation.query = format!("孕妇能喝吗{judged}");
        one.rewrite.source = RewriteSource::Remote;
        let mut outcome = completed();
        if let ShadowOutcome::Completed { answer } = &mut outcome {
            answer.rewrite.text = "胶原蛋白肽 禁忌".to_owned();
            answer.hits[0].reranker_score = None;
        }
        let run = ledger::encode(&ended(&run, outcome)).unwrap();
        (one.clone(), Write::Sampled(encode(&one).unwrap(), Box::new(run)))
    };
    let ((first, judged), (_, bare)) = (pair(true), pair(false));
    let scores = |overall: f64| Some(serde_json::json!({"overall": overall}));
    let live = verdict(&first, 1, scores(4.75));
    let shadow = crate::scores::VerdictRecord { side: Side::Shadow, ..verdict(&first, 2, scores(4.25)) };
    let mut earned = reward(&first, "w", -0.18);
    earned.side = Side::Shadow;
    let relevant = label(&first, LabelValue::Relevant(vec!["p1".to_owned(), "p9".to_owned()]));
    let alone = Write::Episode(encode(&asked(9, "蛋白粉怎么吃", "蛋白粉 服用")).unwrap());
    let writes = vec![
        judged,
        bare,
        alone,
        Write::Verdicts(vec![live, shadow]),
        Write::Rewards(vec![earned]),
        Write::Labels(vec![relevant]),
    ];
    let reader = written(dir.path(), writes);
    let (manifest, folder) = made(&reader, dir.path(), Kind::Rl, NOW);
    assert_eq!((manifest.counts.kept, manifest.counts.dropped[&Rule::NoPair]), (2, 1));
    let all = rows(&manifest, &folder);
    let (_, row) = all.iter().find(|(_, row)| row["original_query"] == "孕妇能喝吗true").unwrap();
    assert_eq!(row["candidates"]["qwen_8b_rewrite"], "胶原蛋白肽 禁忌");
    assert_eq!(row["candidates"]["qwen_32b_rewrite"], "胶原蛋白肽 孕妇禁忌");
    assert_eq!(row["evaluation"]["gpt5_scores"], serde_json::json!({"qwen_8b": 4.25, "qwen_32b": 4.75}));
    assert_eq!((&row["evaluation"]["winner"], &row["evaluation"]["margin"]), (&"qwen_32b".into(), &(-0.5).into()));
    let metrics = &row["evaluation"]["retrieval_metrics"];
    let top1 = |arm: &str| metrics[arm]["top1_score"].as_f64().unwrap();
    assert!((top1("qwen_8b") - 0.83).abs() < 1e-6 && (top1("qwen_32b") - 0.91).abs() < 1e-6, "{metrics}");
    assert_eq!(metrics["qwen_8b"]["recall_at_3"], 0.5);
    assert_eq!((&row["reward"], &row["metadata"]["live"]), (&(-0.18).into(), &"qwen_32b".into()));
    let (_, row) = all.iter().find(|(_, row)| row["original_query"] == "孕妇能喝吗false").unwrap();
    for missing in
        [&row["reward"], &row["evaluation"]["winner"], &row["evaluation"]["margin"], &row["evaluation"]["judge"]]
    {
        assert_eq!(*missing, Value::Null);
    }
    assert_eq!(row["evaluation"]["retrieval_metrics"]["qwen_8b"]["recall_at_3"], Value::Null);
}
