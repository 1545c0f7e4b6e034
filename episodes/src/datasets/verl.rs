//! Prompts for verl: its trainer draws the rewrites, a gateway scores them by the item's id.

use recast_config::TenantProfile;
use recast_domain::{Split, chat_messages};
use serde_json::{Value, json};

use super::sample::Sample;
use super::split::name;

/// A row of verl's `RLHFDataset`. `ground_truth` and `index` are the item's id at `POST /v1/rl/score`.
#[must_use]
pub fn row(tenant: &TenantProfile, split: Split, sample: &Sample) -> Value {
    json!({
        "data_source": "gateway/rewrite",
        "prompt": chat_messages(&tenant.system_prompt, &sample.conversation),
        "ability": "query_rewrite",
        "reward_model": {"style": "rule", "ground_truth": sample.episode_id},
        "extra_info": {
            "split": name(split),
            "index": sample.episode_id,
            "episode_id": sample.episode_id,
            "tenant_id": tenant.id,
            "original_query": sample.conversation.query,
        },
    })
}
