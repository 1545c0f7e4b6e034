//! The dataset of rewrites: an envelope around its samples.

use recast_domain::Role;
use serde_json::{Value, json};

use super::sample::Sample;
use crate::export::time_text;

/// The name of this dataset.
pub const NAME: &str = "sales_rag_query_rewrite_sft";
/// The version of its form.
pub const VERSION: &str = "1.0.0";

/// A sample of the envelope.
#[must_use]
pub fn row(sample: &Sample) -> Value {
    json!({
        "sample_id": sample.id(),
        "original_query": sample.conversation.query,
        "rewritten_query": sample.rewrite,
        "context": context(sample),
        "metadata": {
            "source": sample.origin,
            "timestamp": timestamp(sample),
            "model": sample.model,
            "quality_score": sample.quality_score,
            "augmented": sample.augmented,
        },
        "episode_id": sample.episode_id,
        "conversation_id": sample.conversation_id,
    })
}

/// When the episode was answered, UTC; null where nobody knows.
pub(super) fn timestamp(sample: &Sample) -> Option<String> {
    (sample.created_ms > 0).then(|| time_text(sample.created_ms))
}

/// The context of a question; `history` holds the same turns as `history_context`, as a list.
pub(super) fn context(sample: &Sample) -> Value {
    let said = &sample.conversation;
    let turns: Vec<String> = said
        .history
        .iter()
        .map(|turn| {
            let who = match turn.role {
                Role::User => "用户",
                Role::Assistant => "助手",
            };
            format!("{who}: {}", turn.content)
        })
        .collect();
    json!({
        "user_profile": said.user_profile,
        "history_summary": said.history_summary,
        "history_context": turns.join("\n"),
        "thought_unit": said.thought,
        "history": said.history,
    })
}

/// What stands before the samples of an envelope; the samples follow, separated by commas, then [`ENVELOPE_END`].
#[must_use]
pub fn envelope_start(name: &str, tenant: &str, created_at: Option<&str>, total_samples: u64) -> String {
    let head = json!({
        "dataset_name": name,
        "version": VERSION,
        "tenant_id": tenant,
        "created_at": created_at,
        "total_samples": total_samples,
    });
    let mut text = head.to_string();
    text.pop();
    text.push_str(",\"samples\":[\n");
    text
}

/// What stands behind the samples of an envelope.
pub const ENVELOPE_END: &str = "\n]}\n";
