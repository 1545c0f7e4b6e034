//! The dataset of pairs: both rewriters on the same question, with what each found and what a judge thought.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::sample::{Arm, Pair, Sample};
use super::sft;

/// The name of this dataset.
pub const NAME: &str = "sales_rag_query_rewrite_rl";

/// Hits that the means and the recall of a side look at.
const TOP: usize = 3;

/// A sample of the envelope. What is missing is null; a side that searched and found nothing has the score 0.
#[must_use]
pub fn row(sample: &Sample, pair: &Pair) -> Value {
    let margin = pair.student.overall.zip(pair.baseline.overall).map(|(student, baseline)| student - baseline);
    let winner = margin.map(|margin| match margin.total_cmp(&0.0) {
        _ if margin == 0.0 => "tie",
        Ordering::Greater => "qwen_8b",
        _ => "qwen_32b",
    });
    let relevant = sample.relevant.as_deref();
    json!({
        "sample_id": sample.id(),
        "original_query": sample.conversation.query,
        "context": sft::context(sample),
        "candidates": {"qwen_8b_rewrite": pair.student.rewrite, "qwen_32b_rewrite": pair.baseline.rewrite},
        "retrieval_results": {"qwen_8b_results": pair.student.found, "qwen_32b_results": pair.baseline.found},
        "evaluation": {
            "gpt5_scores": {"qwen_8b": pair.student.overall, "qwen_32b": pair.baseline.overall},
            "judge": pair.judge,
            "retrieval_metrics": {
                "qwen_8b": metrics(&pair.student, relevant),
                "qwen_32b": metrics(&pair.baseline, relevant),
            },
            "winner": winner,
            "margin": margin,
        },
        "reward": pair.reward,
        "metadata": {
            "timestamp": sft::timestamp(sample),
            "qwen_8b_policy": pair.student.policy,
            "qwen_32b_policy": pair.baseline.policy,
            "live": if pair.student_was_live { "qwen_8b" } else { "qwen_32b" },
        },
        "episode_id": sample.episode_id,
        "conversation_id": sample.conversation_id,
    })
}

/// `recall_at_3` is the share of the passages that a person named which are among the first three; null without labels.
fn metrics(arm: &Arm, relevant: Option<&[String]>) -> Value {
    let top: Vec<f64> = arm.found.iter().take(TOP).map(super::sample::Found::best).collect();
    let mean = top.iter().sum::<f64>() / top.len().max(1) as f64;
    let recall = relevant.filter(|ids| !ids.is_empty()).map(|ids| {
        let first = || arm.found.iter().take(TOP);
        ids.iter().filter(|id| first().any(|hit| hit.id == **id)).count() as f64 / ids.len() as f64
    });
    json!({
        "top1_score": top.first().copied().unwrap_or(0.0),
        "avg_top3_score": mean,
        "recall_at_3": recall,
    })
}
