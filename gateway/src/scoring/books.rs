//! What a judge was paid for, kept in the episode store.

use std::sync::Arc;

use async_trait::async_trait;
use recast_domain::TenantId;
use recast_episodes::{EpisodeError, EpisodeStore, JudgeReply};
use recast_judge::{JudgeBooks, StoredReply, VerdictKey};

/// The episode store as a judge sees it.
pub struct StoredBooks(pub Arc<EpisodeStore>);

#[async_trait]
impl JudgeBooks for StoredBooks {
    async fn reply(&self, tenant: &TenantId, key: &VerdictKey) -> Result<Option<StoredReply>, String> {
        let (tenant, key) = (tenant.clone(), key.0);
        let kept = self.0.read(move |reader| reader.judge_reply(&tenant, &key)).await.map_err(words)?;
        Ok(kept.map(|kept| StoredReply { judge: kept.judge, reply: kept.reply, created_ms: kept.created_ms }))
    }

    async fn keep(
        &self,
        tenant: &TenantId,
        key: &VerdictKey,
        reply: &StoredReply,
        oldest_ms: i64,
    ) -> Result<(), String> {
        let kept = JudgeReply {
            tenant: tenant.clone(),
            key: key.0,
            judge: reply.judge.clone(),
            reply: reply.reply.clone(),
            created_ms: reply.created_ms,
        };
        self.0.put_judge_reply(kept, oldest_ms).await.map_err(words)
    }

    async fn cost(&self, tenant: &TenantId, day: u64) -> Result<f64, String> {
        let tenant = tenant.clone();
        self.0.read(move |reader| reader.judge_cost(&tenant, day)).await.map_err(words)
    }

    async fn add_cost(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), String> {
        self.0.add_judge_cost(tenant, day, cost).await.map_err(words)
    }
}

fn words(error: EpisodeError) -> String {
    error.to_string()
}
