//! What a judge was paid for, kept beyond the life of a process.
use async_trait::async_trait;
use recast_domain::TenantId;

use crate::{StoredReply, VerdictKey};

/// Keeps replies, so that none is paid for twice, and what a tenant's day has cost, so that a restart does not give the
/// money again. Every error is in words.
#[async_trait]
pub trait JudgeBooks: Send + Sync {
    /// What is kept under this key.
    ///
    /// # Errors
    /// When the store does not work; the judge is then asked again.
    async fn reply(&self, tenant: &TenantId, key: &VerdictKey) -> Result<Option<StoredReply>, String>;

    /// Keeps a reply; an older one under the same key is replaced. Replies from before `oldest_ms` (milliseconds since
    /// the Unix epoch) may go: they are not asked for any more.
    ///
    /// # Errors
    /// When the store does not work; the verdict counts all the same.
    async fn keep(
        &self,
        tenant: &TenantId,
        key: &VerdictKey,
        reply: &StoredReply,
        oldest_ms: i64,
    ) -> Result<(), String>;

    /// What a day (days since 1970, UTC) has cost so far, in the currency of the prices.
    ///
    /// # Errors
    /// When the store does not work; nobody is paid then.
    async fn cost(&self, tenant: &TenantId, day: u64) -> Result<f64, String>;

    /// Adds to it; below zero gives back.
    ///
    /// # Errors
    /// When the store does not work. Nobody is paid who cannot be written down; what cannot be given back stays spent.
    async fn add_cost(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), String>;
}
