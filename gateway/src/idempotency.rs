//! Replies kept for `Idempotency-Key`, so that a caller may repeat a request without repeating its effect.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use moka::sync::Cache;
use recast_config::AdmissionSettings;
use recast_domain::TenantId;

use crate::problem::Problem;

const KEY: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// A kept reply weighs one entry for each of these, so that a few huge replies cannot fill the memory.
const BYTES_PER_ENTRY: usize = 8192;

#[derive(Clone)]
struct Entry {
    body: blake3::Hash,
    reply: Option<(HeaderMap, Bytes)>,
}

/// The kept replies of all tenants; a tenant never meets another's.
pub struct Idempotency {
    entries: Cache<blake3::Hash, Entry>,
}

/// What to do with a request that carries a key.
pub enum Repeat {
    /// It is the first: run it, and tell the claim how it went.
    First(Claim),
    /// It has been answered: send the same again.
    Replay(Response),
}

/// The right to answer for a key. Dropped without a reply, it frees the key.
pub struct Claim {
    entries: Cache<blake3::Hash, Entry>,
    key: blake3::Hash,
    body: blake3::Hash,
    kept: bool,
}

impl Idempotency {
    /// An empty store with these bounds.
    #[must_use]
    pub fn new(settings: &AdmissionSettings) -> Self {
        let weight = |_: &blake3::Hash, entry: &Entry| {
            let bytes = entry.reply.as_ref().map_or(0, |(_, body)| body.len());
            u32::try_from(bytes / BYTES_PER_ENTRY + 1).unwrap_or(u32::MAX)
        };
        let entries = Cache::builder()
            .max_capacity(settings.idempotency_entries)
            .weigher(weight)
            .time_to_live(Duration::from_secs(settings.idempotency_seconds))
            .build();
        Self { entries }
    }

    /// Forgets every kept reply: a request that is sent again is answered anew.
    pub fn forget(&self) {
        self.entries.invalidate_all();
    }

    /// Looks at the header of a request with this body; `None` where it carries no key.
    ///
    /// # Errors
    /// 400 for a key that cannot be one, 409 while the first request runs, 422 for another body under the same key.
    pub fn claim(&self, tenant: &TenantId, headers: &HeaderMap, body: &[u8]) -> Result<Option<Repeat>, Problem> {
        let Some(text) = key(headers)? else { return Ok(None) };
        let key = cache_key(tenant, text);
        let body = blake3::hash(body);
        let found = self.entries.entry(key).or_insert_with(|| Entry { body, reply: None });
        if found.is_fresh() {
            let claim = Claim { entries: self.entries.clone(), key, body, kept: false };
            return Ok(Some(Repeat::First(claim)));
        }
        let entry = found.into_value();
        if entry.body != body {
            let detail = "this idempotency-key was used with another body: use a fresh key";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail));
        }
        match entry.reply {
            Some((mut headers, body)) => {
                headers.insert(REPLAYED, HeaderValue::from_static("true"));
                Ok(Some(Repeat::Replay((headers, body).into_response())))
            }
            None => {
                let detail = "the first request with this idempotency-key is still running";
                let problem = Problem::new(StatusCode::CONFLICT, "idempotency_key_in_use", detail);
                Err(problem.retry_after(Duration::from_secs(1)))
            }
        }
    }
}

/// The key that a request carries.
///
/// # Errors
/// 400 for one that cannot be a key.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=255).contains(&text.len()));
    text.map(Some).ok_or_else(|| Problem::malformed("idempotency-key must be 1 to 255 visible ASCII characters"))
}

/// Tenant and key are hashed with the tenant's length in front, so that no two pairs can run together.
fn cache_key(tenant: &TenantId, key: &str) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(tenant.as_str().len() as u64).to_le_bytes());
    hasher.update(tenant.as_str().as_bytes());
    hasher.update(key.as_bytes());
    hasher.finalize()
}

impl Claim {
    /// Keeps a successful reply.
    pub fn keep(mut self, headers: HeaderMap, body: Bytes) {
        self.entries.insert(self.key, Entry { body: self.body, reply: Some((headers, body)) });
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            self.entries.invalidate(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Idempotency {
        Idempotency::new(&AdmissionSettings {
            max_in_flight: 1,
            tenant_requests_per_second: 1,
            tenant_burst: 1,
            idempotency_entries: 100,
            idempotency_seconds: 60,
        })
    }

    fn headers(key: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(KEY), HeaderValue::from_str(key).unwrap())])
    }

    fn first(store: &Idempotency, tenant: &str, key: &str, body: &str) -> Claim {
        match store.claim(&tenant.parse().unwrap(), &headers(key), body.as_bytes()).unwrap().unwrap() {
            Repeat::First(claim) => claim,
            Repeat::Replay(_) => panic!("a first request was replayed"),
        }
    }

    fn refusal(store: &Idempotency, body: &str) -> &'static str {
        let claim = store.claim(&"a".parse().unwrap(), &headers("k"), body.as_bytes());
        claim.err().map_or("none", |problem| problem.code())
    }

    #[test]
    fn a_reply_is_replayed_to_its_own_tenant_only() {
        let store = store();
        first(&store, "a", "k", "1").keep(HeaderMap::new(), Bytes::from_static(b"reply"));
        let again = store.claim(&"a".parse().unwrap(), &headers("k"), b"1").unwrap();
        let Some(Repeat::Replay(response)) = again else { panic!("no replay") };
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        assert_eq!(refusal(&store, "2"), "idempotency_key_reused");
        drop(first(&store, "b", "k", "1"));
    }

    #[test]
    fn a_key_in_flight_is_refused_and_a_failure_frees_it() {
        let store = store();
        let claim = first(&store, "a", "k", "1");
        assert_eq!(refusal(&store, "1"), "idempotency_key_in_use");
        drop(claim);
        drop(first(&store, "a", "k", "1"));
    }

    #[test]
    fn no_header_is_no_key_and_a_huge_one_is_refused() {
        let store = store();
        assert!(store.claim(&"a".parse().unwrap(), &HeaderMap::new(), b"").unwrap().is_none());
        assert!(store.claim(&"a".parse().unwrap(), &headers(&"k".repeat(256)), b"").is_err());
    }
}
