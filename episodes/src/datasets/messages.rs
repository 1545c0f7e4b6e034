//! Rows for trainers that take chats, the rewriter's own trainer among them.

use recast_config::TenantProfile;
use recast_domain::{ChatMessage, chat_messages};
use serde_json::{Value, json};

use super::sample::Sample;
use super::sft;

/// A chat: what serving renders, then the rewrite. The texts it is made of stand beside it, so that a trainer with a
/// prompt of its own needs no parser.
#[must_use]
pub fn row(tenant: &TenantProfile, sample: &Sample) -> Value {
    let mut messages = chat_messages(&tenant.system_prompt, &sample.conversation);
    messages.push(ChatMessage::new("assistant", sample.rewrite.trim()));
    json!({
        "messages": messages,
        "metadata": {
            "source": sample.origin,
            "tenant_id": tenant.id,
            "top1_score": sample.top1_score,
            "recall_count": sample.recall_count,
            "augmented": sample.augmented,
        },
        "sample_id": sample.id(),
        "episode_id": sample.episode_id,
        "conversation_id": sample.conversation_id,
        "original_query": sample.conversation.query,
        "rewritten_query": sample.rewrite,
        "context": sft::context(sample),
    })
}
