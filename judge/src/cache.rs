//! Replies that were paid for are kept: in memory for a while, and in a store where there is one.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moka::future::Cache;
use recast_domain::TenantId;
use serde::{Deserialize, Serialize};

use crate::JudgeBooks;

/// Names one question to a judge: everything that its answer depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VerdictKey(pub [u8; 32]);

impl VerdictKey {
    /// The key of these parts; their lengths count, so that no two lists of parts share a key.
    #[must_use]
    pub fn of(parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// A reply as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredReply {
    /// The judge's id.
    pub judge: String,
    /// The reply as it came.
    pub reply: String,
    /// When it came, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
}

/// The memory before the store. A store that fails costs a call, never a verdict.
pub(crate) struct Replies {
    memory: Cache<VerdictKey, Arc<StoredReply>>,
    books: Option<Arc<dyn JudgeBooks>>,
    life: Duration,
}

impl Replies {
    pub fn new(entries: u64, life: Duration, books: Option<Arc<dyn JudgeBooks>>) -> Self {
        let memory = Cache::builder().max_capacity(entries).time_to_live(life).build();
        Self { memory, books, life }
    }

    /// Forgets what is in memory.
    pub fn forget(&self) {
        self.memory.invalidate_all();
    }

    pub async fn get(&self, tenant: &TenantId, key: &VerdictKey) -> Option<Arc<StoredReply>> {
        if let Some(reply) = self.memory.get(key).await {
            metrics::counter!("recast_judge_cache_total", "result" => "hit").increment(1);
            return Some(reply);
        }
        let stored = match &self.books {
            Some(books) => books.reply(tenant, key).await.unwrap_or_else(|error| {
                tracing::warn!(error, "kept replies of the judge cannot be read");
                None
            }),
            None => None,
        };
        let fresh = stored.filter(|reply| reply.created_ms >= self.oldest_ms()).map(Arc::new);
        let result = if fresh.is_some() { "stored" } else { "miss" };
        metrics::counter!("recast_judge_cache_total", "result" => result).increment(1);
        if let Some(reply) = &fresh {
            self.memory.insert(*key, reply.clone()).await;
        }
        fresh
    }

    pub async fn put(&self, tenant: &TenantId, key: VerdictKey, judge: &str, reply: String) {
        let stored = Arc::new(StoredReply { judge: judge.to_owned(), reply, created_ms: now_ms() });
        // first, so that the reply is there even where nobody waits for the store any more
        self.memory.insert(key, Arc::clone(&stored)).await;
        if let Some(books) = &self.books
            && let Err(error) = books.keep(tenant, &key, &stored, self.oldest_ms()).await
        {
            tracing::warn!(error, "a reply of the judge cannot be kept");
        }
    }

    fn oldest_ms(&self) -> i64 {
        now_ms().saturating_sub(i64::try_from(self.life.as_millis()).unwrap_or(i64::MAX))
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBooks;

    const WEEK: Duration = Duration::from_secs(604_800);

    fn tenant() -> TenantId {
        "a".parse().unwrap()
    }

    #[test]
    fn keys_hold_their_parts_apart() {
        let keys = [VerdictKey::of(&["ab", "c"]), VerdictKey::of(&["a", "bc"]), VerdictKey::of(&["abc"])];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        assert_eq!(keys[0].hex().len(), 64);
    }

    #[tokio::test]
    async fn a_reply_survives_the_memory_but_not_its_time() {
        let books = Arc::new(TestBooks::default());
        let key = VerdictKey::of(&["k"]);
        Replies::new(10, WEEK, Some(books.clone())).put(&tenant(), key, "j", "{}".to_owned()).await;
        let later = Replies::new(10, WEEK, Some(books.clone()));
        assert_eq!(later.get(&tenant(), &key).await.unwrap().reply, "{}");
        let other = Replies::new(10, WEEK, Some(books.clone()));
        assert!(other.get(&"b".parse().unwrap(), &key).await.is_none(), "nobody reads another tenant's");
        books.replies.lock().unwrap().get_mut(&(tenant(), key)).unwrap().created_ms -= 604_801_000;
        assert!(Replies::new(10, WEEK, Some(books)).get(&tenant(), &key).await.is_none());
    }

    #[tokio::test]
    async fn a_broken_store_costs_nothing_but_memory() {
        let replies = Replies::new(10, WEEK, Some(Arc::new(TestBooks::broken())));
        let key = VerdictKey::of(&["k"]);
        assert!(replies.get(&tenant(), &key).await.is_none());
        replies.put(&tenant(), key, "j", "{}".to_owned()).await;
        assert!(replies.get(&tenant(), &key).await.is_some());
    }
}
