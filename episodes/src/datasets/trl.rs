//! Prompts for TRL: every column but `prompt` is handed to the reward function.

use recast_config::TenantProfile;
use recast_domain::{Split, chat_messages};
use serde_json::{Value, json};

use super::sample::Sample;
use super::split::name;

/// A row of a conversational prompt dataset. `item_id` is the item's id at `POST /v1/rl/score`.
#[must_use]
pub fn row(tenant: &TenantProfile, split: Split, sample: &Sample) -> Value {
    json!({
        "prompt": chat_messages(&tenant.system_prompt, &sample.conversation),
        "item_id": sample.episode_id,
        "episode_id": sample.episode_id,
        "tenant_id": tenant.id,
        "original_query": sample.conversation.query,
        "split": name(split),
    })
}
