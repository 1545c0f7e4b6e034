//! The formulas held against the vectors of the plan.
#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use recast_judge::{Arm, Reward, RewardWeights, Shaping, ShapingRules, reward};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("golden/plan_reward_vectors.json")).expect("golden vectors")
}

fn close(what: &str, found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("{what}: no number"));
    assert!((found - expected).abs() <= 1e-9, "{what}: {found} instead of {expected}");
}

/// The reranker's score where there is one, else the similarity.
fn relevance(hits: &Value) -> Vec<f64> {
    let score = |hit: &Value| hit["reranker_score"].as_f64().or(hit["score"].as_f64()).expect("a score");
    hits.as_array().expect("hits").iter().map(score).collect()
}

#[test]
fn every_case_of_the_reward() {
    let vectors = vectors();
    let cases = vectors["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 26);
    for case in cases {
        let id = case["id"].as_str().expect("an id");
        let (inputs, outputs) = (&case["inputs"], &case["outputs"]);
        let (student, baseline) = (relevance(&inputs["results_8b"]), relevance(&inputs["results_32b"]));
        let student = Arm { judge: inputs["judge_8b"].as_f64(), hits: Some(&student) };
        let baseline = Arm { judge: inputs["judge_32b"].as_f64(), hits: Some(&baseline) };
        let Reward::Scored(parts) = reward(student, baseline, &RewardWeights::default()) else {
            panic!("{id} has everything")
        };
        close(&format!("{id} g"), parts.judge, &outputs["judge_reward"]);
        close(&format!("{id} q of the student"), parts.quality_student, &outputs["quality_8b"]);
        close(&format!("{id} q of the baseline"), parts.quality_baseline, &outputs["quality_32b"]);
        close(&format!("{id} r"), parts.retrieval, &outputs["retrieval_reward"]);
        close(&format!("{id} m"), (parts.judge + parts.retrieval) / 2.0, &outputs["improvement"]);
        close(&format!("{id} b"), parts.bonus, &outputs["bonus"]);
        close(&format!("{id} R"), parts.total, &outputs["total"]);
    }
}

#[test]
fn the_whole_run_of_the_shaping() {
    let vectors = vectors();
    let run = &vectors["shaping"];
    let mut shaping = Shaping::new(ShapingRules::default());
    let inputs = run["inputs"].as_array().expect("inputs");
    assert_eq!(inputs.len(), 5200);
    let shaped: Vec<f64> = inputs.iter().map(|reward| shaping.shape(reward.as_f64().expect("a reward"))).collect();
    for (index, expected) in run["checks"].as_object().expect("checks") {
        close(&format!("step {index}"), shaped[index.parse::<usize>().expect("an index")], expected);
    }
    close("sum", shaped.iter().sum(), &run["sum"]);
}
