//! Who gets in: a rate per tenant, and a bound on what is in the pipeline at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use recast_config::AdmissionSettings;
use recast_domain::TenantId;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");

/// A place in the pipeline; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    left: Arc<Notify>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The place first: whoever is told must find it free.
        drop(self.permit.take());
        self.left.notify_waiters();
    }
}

/// What a tenant has left, for the reply's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    limit: u32,
    remaining: u32,
    reset: Duration,
}

impl Allowance {
    /// Writes the `x-ratelimit-*` headers.
    pub fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0)));
    }
}

/// The two gates of admission.
pub struct Limits {
    rates: RateLimiter<TenantId, DashMapStateStore<TenantId>, DefaultClock, StateInformationMiddleware>,
    burst: u32,
    refill: Duration,
    places: Arc<Semaphore>,
    n_places: usize,
    left: Arc<Notify>,
}

impl Limits {
    /// Gates with these settings.
    #[must_use]
    pub fn new(settings: &AdmissionSettings) -> Self {
        let one_at_least = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let rate = one_at_least(settings.tenant_requests_per_second);
        let burst = one_at_least(settings.tenant_burst);
        let rates = RateLimiter::dashmap(Quota::per_second(rate).allow_burst(burst)).with_middleware();
        Self {
            rates,
            burst: burst.get(),
            refill: Duration::from_secs(1) / rate.get(),
            places: Arc::new(Semaphore::new(settings.max_in_flight)),
            n_places: settings.max_in_flight,
            left: Arc::new(Notify::new()),
        }
    }

    /// Takes one request out of the tenant's allowance.
    ///
    /// # Errors
    /// 429 with the time to wait, and the allowance for the headers.
    pub fn rate(&self, tenant: &TenantId) -> Result<Allowance, (Problem, Allowance)> {
        let allowance = |remaining: u32| Allowance {
            limit: self.burst,
            remaining,
            reset: self.refill * self.burst.saturating_sub(remaining),
        };
        match self.rates.check_key(tenant) {
            Ok(state) => Ok(allowance(state.remaining_burst_capacity())),
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                metrics::counter!("recast_refused_total", "reason" => "rate").increment(1);
                let problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limited",
                    "this tenant asks faster than it may: wait as long as retry-after says",
                );
                Err((problem.retry_after(wait), allowance(0)))
            }
        }
    }

    /// Takes a place in the pipeline; nobody waits for one.
    ///
    /// # Errors
    /// 429 when all places are taken.
    pub fn admit(&self) -> Result<Permit, Problem> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => Ok(Permit { permit: Some(permit), left: Arc::clone(&self.left) }),
            Err(_) => {
                metrics::counter!("recast_refused_total", "reason" => "overload").increment(1);
                let detail = "too many requests are in flight: wait as long as retry-after says";
                Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail)
                    .retry_after(Duration::from_secs(1)))
            }
        }
    }

    /// Places that are taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.n_places.saturating_sub(self.places.available_permits())
    }

    /// Waits until at most `busy_above` places are taken.
    pub async fn calm(&self, busy_above: usize) {
        loop {
            let left = self.left.notified();
            if self.in_flight() <= busy_above {
                return;
            }
            left.await;
        }
    }

    /// Forgets tenants whose allowance is full again.
    pub fn forget_idle(&self) {
        self.rates.retain_recent();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(burst: u32, places: usize) -> Limits {
        Limits::new(&AdmissionSettings {
            max_in_flight: places,
            tenant_requests_per_second: 1,
            tenant_burst: burst,
            idempotency_entries: 1,
            idempotency_seconds: 1,
        })
    }

    #[test]
    fn one_tenants_flood_is_not_anothers() {
        let limits = limits(3, 1);
        let (a, b): (TenantId, TenantId) = ("a".parse().unwrap(), "b".parse().unwrap());
        for left in [2, 1, 0] {
            assert_eq!(limits.rate(&a).unwrap().remaining, left);
        }
        let (problem, allowance) = limits.rate(&a).unwrap_err();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        let mut headers = HeaderMap::new();
        allowance.write(&mut headers);
        assert_eq!(headers["x-ratelimit-limit-requests"], "3");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "0");
        assert_eq!(headers["x-ratelimit-reset-requests"], "3");
        assert!(limits.rate(&b).is_ok());
    }

    #[test]
    fn a_place_comes_back_when_its_permit_goes() {
        let limits = limits(1, 2);
        let first = limits.admit().unwrap();
        let _second = limits.admit().unwrap();
        assert_eq!(limits.admit().unwrap_err().code(), "overloaded");
        assert_eq!(limits.in_flight(), 2);
        drop(first);
        assert!(limits.admit().is_ok());
    }

    #[tokio::test]
    async fn what_waits_for_calm_goes_on_with_the_reply_that_makes_it_calm() {
        use futures::FutureExt;
        let limits = limits(1, 8);
        let mut permits: Vec<_> = (0..3).map(|_| limits.admit().unwrap()).collect();
        let mut calm = Box::pin(limits.calm(1));
        assert!(calm.as_mut().now_or_never().is_none());
        permits.pop();
        assert!(calm.as_mut().now_or_never().is_none());
        permits.pop();
        calm.await;
    }
}
