//! Exact rewrites of conversations that were asked before.
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use recast_domain::{Conversation, PolicyId, Rewrite, RewriteSource, Role, TenantId};

use crate::{Result, RewriteError};

/// A stand-in may be this many times as old as an exact hit.
const STAND_IN_AGE: u32 = 10;
/// The cache refuses ages of centuries with a panic.
const MOST_AGE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Rewrites by tenant, prompt, conversation and policy; and the newest one of each conversation by whatever policy,
/// which stands in when the local model fails. Equal questions that arrive together are rewritten once.
#[derive(Clone)]
pub struct RewriteCache {
    exact: Cache<[u8; 32], Arc<Kept>>,
    stand_ins: Cache<[u8; 32], Arc<Kept>>,
    secret: [u8; 32],
    keeps: bool,
}

struct Kept {
    tenant: TenantId,
    rewrite: Rewrite,
}

/// What a rewrite depends on beside the policy.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whose question it is.
    pub tenant: &'a TenantId,
    /// Hash of the rest of the prompt.
    pub prompt_hash: &'a str,
    /// The question with its context.
    pub conversation: &'a Conversation,
}

impl RewriteCache {
    /// A cache of at most `entries` rewrites, each kept for `age`; none are kept where either is zero.
    #[must_use]
    pub fn new(entries: u64, age: Duration) -> Self {
        let keeps = entries > 0 && !age.is_zero();
        let cache = |age: Duration| {
            let age = age.clamp(Duration::from_secs(1), MOST_AGE);
            Cache::builder().max_capacity(entries).time_to_live(age).build()
        };
        Self { exact: cache(age), stand_ins: cache(age.saturating_mul(STAND_IN_AGE)), secret: rand::random(), keeps }
    }

    /// The rewrite of this question by this policy: a kept one (marked [`RewriteSource::Cached`]), or a new one.
    ///
    /// # Errors
    /// Those of `fresh`; all who wait for the same question get the same one. Errors are not kept.
    pub async fn get_or<F>(
        &self,
        question: Question<'_>,
        policy: &PolicyId,
        fresh: F,
    ) -> Result<Rewrite, Arc<RewriteError>>
    where
        F: Future<Output = Result<Rewrite>>,
    {
        if !self.keeps {
            return fresh.await.map_err(Arc::new);
        }
        let tenant = question.tenant.clone();
        let keep = async { Ok(Arc::new(Kept { tenant, rewrite: fresh.await? })) };
        let key = rewrite_key(&self.secret, question, Some(policy));
        let entry = self.exact.entry(key).or_try_insert_with(keep).await?;
        let is_new = entry.is_fresh();
        let kept = entry.into_value();
        if kept.tenant != *question.tenant {
            // a collision of 256-bit keyed hashes: cheaper to refuse than to explain
            return Err(Arc::new(RewriteError::Engine("the cached rewrite belongs to another tenant".to_owned())));
        }
        if is_new {
            self.stand_ins.insert(rewrite_key(&self.secret, question, None), kept.clone()).await;
            return Ok(kept.rewrite.clone());
        }
        Ok(Rewrite { source: RewriteSource::Cached, ..kept.rewrite.clone() })
    }

    /// The newest rewrite of this question by any policy, also an old one.
    pub async fn stand_in(&self, question: Question<'_>) -> Option<Rewrite> {
        let kept = self.stand_ins.get(&rewrite_key(&self.secret, question, None)).await?;
        (kept.tenant == *question.tenant).then(|| Rewrite { source: RewriteSource::Cached, ..kept.rewrite.clone() })
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.exact.invalidate_all();
        self.stand_ins.invalidate_all();
    }
}

/// Key of a rewrite: a BLAKE3 hash keyed with `secret` over all parts, each with its length before it, so that different
/// questions never share one.
#[must_use]
pub fn rewrite_key(secret: &[u8; 32], question: Question<'_>, policy: Option<&PolicyId>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    let Question { tenant, prompt_hash, conversation } = question;
    part(policy.map_or("", PolicyId::as_str).as_bytes());
    part(tenant.as_str().as_bytes());
    part(prompt_hash.as_bytes());
    for text in [&conversation.query, &conversation.user_profile, &conversation.history_summary, &conversation.thought]
    {
        part(text.as_bytes());
    }
    for turn in &conversation.history {
        part(match turn.role {
            Role::User => b"u",
            Role::Assistant => b"a",
        });
        part(turn.content.as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use recast_domain::Turn;

    use super::*;

    fn conversation(query: &str, history: &[(Role, &str)]) -> Conversation {
        let history =
            history.iter().map(|(role, content)| Turn { role: *role, content: (*content).to_owned() }).collect();
        Conversation { query: query.into(), history, ..Conversation::default() }
    }

    fn local(text: &str) -> Rewrite {
        Rewrite::plain(text, RewriteSource::Local, "p1".parse().unwrap())
    }

    #[test]
    fn different_questions_have_different_keys() {
        let tenants: [TenantId; 2] = ["ab".parse().unwrap(), "a".parse().unwrap()];
        let conversations = [
            conversation("q", &[]),
            conversation("", &[(Role::User, "q")]),
            conversation("q", &[(Role::User, "x"), (Role::User, "y")]),
            conversation("q", &[(Role::User, "xy")]),
            conversation("q", &[(Role::Assistant, "xy")]),
            Conversation { user_profile: "q".into(), ..Conversation::default() },
            Conversation { history_summary: "q".into(), ..Conversation::default() },
            Conversation { thought: "q".into(), ..Conversation::default() },
        ];
        let policies = ["p1", "p2"].map(|id| id.parse::<PolicyId>().unwrap());
        let mut keys = HashSet::new();
        let mut count = 0;
        for tenant in &tenants {
            for conversation in &conversations {
                for prompt_hash in ["", "b", "c"] {
                    for policy in policies.iter().map(Some).chain([None]) {
                        keys.insert(rewrite_key(&[7; 32], Question { tenant, prompt_hash, conversation }, policy));
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(keys.len(), count);
    }

    #[tokio::test]
    async fn equal_questions_run_once_and_tenants_stay_apart() {
        let cache = RewriteCache::new(100, Duration::from_secs(60));
        let (policy, runs) = ("p1".parse::<PolicyId>().unwrap(), AtomicUsize::new(0));
        let conversation = conversation("q", &[]);
        let tenants: [TenantId; 2] = ["a".parse().unwrap(), "b".parse().unwrap()];
        let ask = |tenant: usize| {
            let question = Question { tenant: &tenants[tenant], prompt_hash: "", conversation: &conversation };
            cache.get_or(question, &policy, async {
                runs.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(local("r"))
            })
        };
        let (first, second) = tokio::join!(ask(0), ask(0));
        let sources = HashSet::from([first.unwrap().source, second.unwrap().source]);
        assert_eq!(sources, HashSet::from([RewriteSource::Local, RewriteSource::Cached]));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(ask(1).await.unwrap().source, RewriteSource::Local);
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn errors_are_not_kept_and_stand_ins_outlive_a_policy() {
        let cache = RewriteCache::new(100, Duration::from_secs(60));
        let conversation = conversation("q", &[]);
        let tenant: TenantId = "a".parse().unwrap();
        let question = Question { tenant: &tenant, prompt_hash: "", conversation: &conversation };
        let [old, new] = ["p1", "p2"].map(|id| id.parse::<PolicyId>().unwrap());
        assert!(cache.get_or(question, &old, async { Err(RewriteError::Timeout) }).await.is_err());
        assert!(cache.stand_in(question).await.is_none());
        cache.get_or(question, &old, async { Ok(local("r")) }).await.unwrap();
        assert!(cache.get_or(question, &new, async { Err(RewriteError::Timeout) }).await.is_err());
        let stand_in = cache.stand_in(question).await.unwrap();
        assert_eq!((stand_in.text.as_str(), stand_in.source), ("r", RewriteSource::Cached));
    }

    #[tokio::test]
    async fn zero_entries_keep_nothing() {
        let cache = RewriteCache::new(0, Duration::MAX);
        let conversation = conversation("q", &[]);
        let tenant: TenantId = "a".parse().unwrap();
        let question = Question { tenant: &tenant, prompt_hash: "", conversation: &conversation };
        let policy = "p1".parse::<PolicyId>().unwrap();
        for _ in 0..3 {
            let rewrite = cache.get_or(question, &policy, async { Ok(local("r")) }).await.unwrap();
            assert_eq!(rewrite.source, RewriteSource::Local);
        }
    }
}
