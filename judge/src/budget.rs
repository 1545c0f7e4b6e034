//! How much may be asked: requests and tokens a minute for the service, money a day for a tenant.
//!
//! A crate for rate limits takes a permit and never gives one back; here an estimate is taken before a call and put
//! right after it, so the buckets are our own.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recast_domain::TenantId;
use tokio::time::Instant;

use crate::VerdictFault;

/// A bucket that fills evenly to what one minute allows.
#[derive(Debug)]
struct Bucket {
    size: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_minute: u32, now: Instant) -> Self {
        let size = f64::from(per_minute.max(1));
        Self { size, level: size, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + seconds * self.size / 60.0).min(self.size);
        self.at = now;
    }

    /// How long until `amount` is there; more than the whole bucket counts as the whole.
    fn wait(&self, amount: f64) -> Duration {
        let lacking = amount.min(self.size) - self.level;
        // a hair more than the exact time, so that rounding does not cost a second wait
        if lacking > 0.0 { Duration::from_secs_f64(lacking * 60.0 / self.size + 0.001) } else { Duration::ZERO }
    }
}

/// What a call takes, before it is made and after.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Tokens that are sent.
    pub sent: u32,
    /// Tokens that come back.
    pub received: u32,
}

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub rpm: u32,
    pub tpm: u32,
    /// A tenant and day (UTC); in the currency of the prices.
    pub daily_cost: f64,
    /// A million tokens sent.
    pub price_in: f64,
    /// A million tokens received.
    pub price_out: f64,
}

impl Bounds {
    fn cost(&self, usage: Usage) -> f64 {
        (f64::from(usage.sent) * self.price_in + f64::from(usage.received) * self.price_out) / 1e6
    }
}

/// Keeps the books.
#[derive(Debug)]
pub(crate) struct Budget {
    bounds: Bounds,
    start: Instant,
    start_time: SystemTime,
    minute: Mutex<(Bucket, Bucket)>,
    days: Mutex<Days>,
}

#[derive(Debug, Default)]
struct Days {
    today: u64,
    spent: BTreeMap<TenantId, f64>,
}

impl Budget {
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        let minute = Mutex::new((Bucket::new(bounds.rpm, now), Bucket::new(bounds.tpm, now)));
        Self { bounds, start: now, start_time: SystemTime::now(), minute, days: Mutex::default() }
    }

    /// Waits for a place in the minute and takes the estimate from the tenant's day.
    pub async fn take(&self, tenant: &TenantId, estimate: Usage, deadline: Instant) -> Result<(), VerdictFault> {
        self.spend(tenant, self.bounds.cost(estimate))?;
        loop {
            let wait = self.try_minute(estimate);
            if wait.is_zero() {
                return Ok(());
            }
            if Instant::now() + wait >= deadline {
                self.correct(tenant, -self.bounds.cost(estimate));
                return Err(VerdictFault::Late);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Puts an estimate right.
    pub fn settle(&self, tenant: &TenantId, estimate: Usage, real: Usage) {
        let tokens = |usage: Usage| f64::from(usage.sent) + f64::from(usage.received);
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let level = minute.1.level + tokens(estimate) - tokens(real);
        // a call that took more than it said leaves a debt, but never more than one minute's worth
        minute.1.level = level.clamp(-minute.1.size, minute.1.size);
        drop(minute);
        self.correct(tenant, self.bounds.cost(real) - self.bounds.cost(estimate));
        metrics::counter!("recast_judge_tokens_total", "way" => "sent").increment(real.sent.into());
        metrics::counter!("recast_judge_tokens_total", "way" => "received").increment(real.received.into());
    }

    /// What the tenant's day has cost so far, estimates of running calls included.
    pub fn spent(&self, tenant: &TenantId) -> f64 {
        let today = self.day();
        let days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if days.today == today { days.spent.get(tenant).copied().unwrap_or_default() } else { 0.0 }
    }

    fn try_minute(&self, estimate: Usage) -> Duration {
        let now = Instant::now();
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        let (requests, tokens) = &mut *minute;
        requests.fill(now);
        tokens.fill(now);
        let amount = (f64::from(estimate.sent) + f64::from(estimate.received)).min(tokens.size);
        let wait = requests.wait(1.0).max(tokens.wait(amount));
        if wait.is_zero() {
            requests.level -= 1.0;
            tokens.level -= amount;
        }
        wait
    }

    fn spend(&self, tenant: &TenantId, cost: f64) -> Result<(), VerdictFault> {
        let today = self.day();
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if days.today != today {
            *days = Days { today, spent: BTreeMap::new() };
        }
        let spent = days.spent.entry(tenant.clone()).or_default();
        if cost > 0.0 && *spent + cost > self.bounds.daily_cost {
            return Err(VerdictFault::BudgetSpent);
        }
        *spent += cost;
        Ok(())
    }

    fn correct(&self, tenant: &TenantId, more: f64) {
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = days.spent.get_mut(tenant) {
            *spent = (*spent + more).max(0.0);
        }
    }

    /// Days since 1970, UTC. Counted on from the start by the clock that timers use.
    fn day(&self) -> u64 {
        let time = self.start_time + self.start.elapsed();
        time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
    }
}

/// About how many tokens a text has: one a Han character, one for three other bytes.
pub(crate) fn estimated_tokens(text: &str) -> u32 {
    let (mut wide, mut bytes) = (0_usize, 0_usize);
    for c in text.chars() {
        if c.len_utf8() >= 3 { wide += 1 } else { bytes += c.len_utf8() }
    }
    u32::try_from(wide + bytes.div_ceil(3)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Usage = Usage { sent: 600, received: 400 };

    fn budget(rpm: u32, tpm: u32, daily_cost: f64) -> Budget {
        let bounds = Bounds { rpm, tpm, daily_cost, price_in: 1000.0, price_out: 1000.0 };
        Budget::new(bounds, Instant::now())
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_tokens_wait_for_their_minute() {
        for budget in [budget(2, 1_000_000, 1e9), budget(1000, 2000, 1e9)] {
            let (start, far) = (Instant::now(), Instant::now() + Duration::from_secs(600));
            for _ in 0..4 {
                budget.take(&tenant("a"), CALL, far).await.unwrap();
            }
            let seconds = start.elapsed().as_secs_f64();
            assert!((60.0..61.0).contains(&seconds), "two at once, two more within a minute: {seconds}");
            let soon = Instant::now() + Duration::from_secs(1);
            assert_eq!(budget.take(&tenant("a"), CALL, soon).await, Err(VerdictFault::Late));
            assert!(start.elapsed().as_secs_f64() < 61.0, "what cannot be in time is refused at once");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn real_usage_replaces_the_estimate() {
        let budget = budget(1000, 2000, 10.0);
        let far = Instant::now() + Duration::from_secs(60);
        budget.take(&tenant("a"), CALL, far).await.unwrap();
        assert!((budget.spent(&tenant("a")) - 1.0).abs() < 1e-9);
        budget.settle(&tenant("a"), CALL, Usage { sent: 100, received: 0 });
        assert!((budget.spent(&tenant("a")) - 0.1).abs() < 1e-9);
        let start = Instant::now();
        budget.take(&tenant("a"), Usage { sent: 1900, received: 0 }, far).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "tokens that were not used are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenants_day_ends_at_its_money_and_the_next_begins_anew() {
        let budget = budget(1000, 1_000_000, 2.5);
        let far = Instant::now() + Duration::from_secs(200_000);
        for _ in 0..2 {
            budget.take(&tenant("a"), CALL, far).await.unwrap();
        }
        assert_eq!(budget.take(&tenant("a"), CALL, far).await, Err(VerdictFault::BudgetSpent));
        budget.take(&tenant("b"), CALL, far).await.unwrap();
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert!(budget.spent(&tenant("a")).abs() < 1e-9);
        budget.take(&tenant("a"), CALL, far).await.unwrap();
    }

    #[test]
    fn tokens_are_estimated_by_script() {
        assert_eq!(
            (estimated_tokens("胶原蛋白"), estimated_tokens("collagen peptide"), estimated_tokens("")),
            (4, 6, 0)
        );
    }
}
