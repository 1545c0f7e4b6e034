//! Which policy answers a request while a candidate is tried on a share of the traffic.

use recast_domain::{PolicyId, TenantId};
use serde::{Deserialize, Serialize};

/// A candidate that serves some of the sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The candidate.
    pub policy: PolicyId,
    /// Share of sessions it serves, 0 to 1.
    pub share: f64,
}

/// Where a session stands in the order in which sessions are given to a candidate: uniform in [0, 1), always the same
/// for the same tenant, session and candidate.
///
/// Every candidate has an order of its own, so that the same users are not the first to try each one.
#[must_use]
pub fn position(candidate: &PolicyId, tenant: &TenantId, session: &str) -> f64 {
    let mut hasher = blake3::Hasher::new();
    for part in [candidate.as_str(), tenant.as_str(), session] {
        // With its length: ("ab", "c") is not ("a", "bc").
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    f64::from(u32::from_le_bytes([a, b, c, d])) / 2f64.powi(32)
}

/// Whether the candidate answers this session. Once it does it goes on doing so as the share grows.
#[must_use]
pub fn serves(canary: &Canary, tenant: &TenantId, session: &str) -> bool {
    position(&canary.policy, tenant, session) < canary.share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(policy: &str, share: f64) -> Canary {
        Canary { policy: policy.parse().unwrap(), share }
    }

    fn served(canary: &Canary, sessions: u32) -> Vec<u32> {
        let tenant: TenantId = "acme".parse().unwrap();
        (0..sessions).filter(|n| serves(canary, &tenant, &format!("session-{n}"))).collect()
    }

    #[test]
    fn each_share_is_held_and_grows_without_moving_anybody_back() {
        let sessions = 20_000;
        let mut before = Vec::new();
        for share in [0.05, 0.25, 0.5, 1.0] {
            let now = served(&canary("a", share), sessions);
            let expected = f64::from(sessions) * share;
            // five standard deviations of a binomial count
            let spread = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((now.len() as f64 - expected).abs() <= spread, "{} of {expected}", now.len());
            assert!(before.iter().all(|session| now.contains(session)), "a session left the candidate at {share}");
            before = now.into_iter().take(1000).collect();
        }
        assert!(served(&canary("a", 0.0), sessions).is_empty());
    }

    #[test]
    fn candidates_and_tenants_have_orders_of_their_own() {
        let (a, b) = (served(&canary("a", 0.5), 10_000), served(&canary("b", 0.5), 10_000));
        let both = a.iter().filter(|session| b.binary_search(session).is_ok()).count();
        assert!((2_250..2_750).contains(&both), "independent halves share a quarter: {both}");
        let other = position(&"a".parse().unwrap(), &"other".parse().unwrap(), "s");
        assert_ne!(position(&"a".parse().unwrap(), &"acme".parse().unwrap(), "s"), other);
    }

    #[test]
    fn the_hash_is_the_same_in_every_process_and_release() {
        let found = position(&"candidate".parse().unwrap(), &"acme".parse().unwrap(), "session-1");
        assert!((found - POSITION_OF_SESSION_1).abs() < 1e-9, "{found}");
    }

    /// Computed once and written down; a change would move live sessions between policies.
    const POSITION_OF_SESSION_1: f64 = 0.817_638_342;
}
