//! Replies that were paid for are kept: in memory for a while, and in a store where there is one.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use moka::future::Cache;
use serde::{Deserialize, Serialize};

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

/// Keeps replies beyond the life of a process. A store that fails costs a call, never a verdict.
#[async_trait]
pub trait VerdictStore: Send + Sync {
    /// What is kept under this key.
    ///
    /// # Errors
    /// In words, when the store does not work; the judge is then asked again.
    async fn get(&self, key: &VerdictKey) -> Result<Option<StoredReply>, String>;

    /// Keeps a reply; an older one under the same key is replaced.
    ///
    /// # Errors
    /// In words, when the store does not work.
    async fn put(&self, key: &VerdictKey, reply: &StoredReply) -> Result<(), String>;
}

/// The memory before the store.
pub(crate) struct Replies {
    memory: Cache<VerdictKey, Arc<StoredReply>>,
    store: Option<Arc<dyn VerdictStore>>,
    life: Duration,
}

impl Replies {
    pub fn new(entries: u64, life: Duration, store: Option<Arc<dyn VerdictStore>>) -> Self {
        let memory = Cache::builder().max_capacity(entries).time_to_live(life).build();
        Self { memory, store, life }
    }

    pub async fn get(&self, key: &VerdictKey) -> Option<Arc<StoredReply>> {
        if let Some(reply) = self.memory.get(key).await {
            metrics::counter!("recast_judge_cache_total", "result" => "hit").increment(1);
            return Some(reply);
        }
        let stored = match &self.store {
            Some(store) => store.get(key).await.unwrap_or_else(|error| {
                tracing::warn!(error, "the store of verdicts cannot be read");
                None
            }),
            None => None,
        };
        let oldest = now_ms().saturating_sub(i64::try_from(self.life.as_millis()).unwrap_or(i64::MAX));
        let fresh = stored.filter(|reply| reply.created_ms >= oldest).map(Arc::new);
        let result = if fresh.is_some() { "stored" } else { "miss" };
        metrics::counter!("recast_judge_cache_total", "result" => result).increment(1);
        if let Some(reply) = &fresh {
            self.memory.insert(*key, reply.clone()).await;
        }
        fresh
    }

    pub async fn put(&self, key: VerdictKey, judge: &str, reply: String) {
        let stored = Arc::new(StoredReply { judge: judge.to_owned(), reply, created_ms: now_ms() });
        if let Some(store) = &self.store
            && let Err(error) = store.put(&key, &stored).await
        {
            tracing::warn!(error, "a verdict cannot be stored");
        }
        self.memory.insert(key, stored).await;
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    /// A store in memory that can be told to fail.
    #[derive(Default)]
    struct TestStore {
        kept: Mutex<HashMap<VerdictKey, StoredReply>>,
        broken: bool,
    }

    #[async_trait]
    impl VerdictStore for TestStore {
        async fn get(&self, key: &VerdictKey) -> Result<Option<StoredReply>, String> {
            if self.broken { Err("disk".to_owned()) } else { Ok(self.kept.lock().unwrap().get(key).cloned()) }
        }
        async fn put(&self, key: &VerdictKey, reply: &StoredReply) -> Result<(), String> {
            if self.broken {
                return Err("disk".to_owned());
            }
            self.kept.lock().unwrap().insert(*key, reply.clone());
            Ok(())
        }
    }

    const WEEK: Duration = Duration::from_secs(604_800);

    #[test]
    fn keys_hold_their_parts_apart() {
        let keys = [VerdictKey::of(&["ab", "c"]), VerdictKey::of(&["a", "bc"]), VerdictKey::of(&["abc"])];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
        assert_eq!(keys[0].hex().len(), 64);
    }

    #[tokio::test]
    async fn a_reply_survives_the_memory_but_not_its_time() {
        let store = Arc::new(TestStore::default());
        let key = VerdictKey::of(&["k"]);
        Replies::new(10, WEEK, Some(store.clone())).put(key, "j", "{}".to_owned()).await;
        let later = Replies::new(10, WEEK, Some(store.clone()));
        assert_eq!(later.get(&key).await.unwrap().reply, "{}");
        store.kept.lock().unwrap().get_mut(&key).unwrap().created_ms -= 604_801_000;
        assert!(Replies::new(10, WEEK, Some(store)).get(&key).await.is_none());
    }

    #[tokio::test]
    async fn a_broken_store_costs_nothing_but_calls() {
        let store = Arc::new(TestStore { broken: true, ..TestStore::default() });
        let (replies, key) = (Replies::new(10, WEEK, Some(store)), VerdictKey::of(&["k"]));
        assert!(replies.get(&key).await.is_none());
        replies.put(key, "j", "{}".to_owned()).await;
        assert!(replies.get(&key).await.is_some());
    }
}
