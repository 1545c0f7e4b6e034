//! How much may be asked: requests and tokens a minute for the service, money a day for a tenant.
//!
//! A crate for rate limits takes a permit and never gives one back; here an estimate is taken before a call and put
//! right after it, so the buckets are our own. Money is written down before it is spent: a process that is killed leaves
//! the estimates of its running calls behind, never less than was spent.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use recast_domain::TenantId;
use tokio::time::Instant;

use crate::{JudgeBooks, VerdictFault};

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
    /// Whether calls cost anything at all.
    fn paid(&self) -> bool {
        self.price_in > 0.0 || self.price_out > 0.0
    }

    fn cost(&self, usage: Usage) -> f64 {
        (f64::from(usage.sent) * self.price_in + f64::from(usage.received) * self.price_out) / 1e6
    }
}

/// Spends, and keeps count.
pub(crate) struct Budget {
    bounds: Bounds,
    start: Instant,
    start_time: SystemTime,
    minute: Mutex<(Bucket, Bucket)>,
    /// What each tenant's day has cost; a day that is not there was not looked up yet.
    days: Mutex<BTreeMap<(u64, TenantId), f64>>,
    books: Option<Arc<dyn JudgeBooks>>,
}

/// What was taken for one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Taken {
    day: u64,
    estimate: Usage,
}

impl Budget {
    pub fn new(bounds: Bounds, books: Option<Arc<dyn JudgeBooks>>, now: Instant) -> Self {
        let minute = Mutex::new((Bucket::new(bounds.rpm, now), Bucket::new(bounds.tpm, now)));
        Self { bounds, start: now, start_time: SystemTime::now(), minute, days: Mutex::default(), books }
    }

    /// Waits for a place in the minute and takes the estimate from the tenant's day.
    pub async fn take(&self, tenant: &TenantId, estimate: Usage, deadline: Instant) -> Result<Taken, VerdictFault> {
        let (day, cost) = (self.day(), self.bounds.cost(estimate));
        self.look_up(tenant, day).await?;
        self.reserve(tenant, day, cost)?;
        loop {
            let wait = self.try_minute(estimate);
            if wait.is_zero() {
                break;
            }
            if Instant::now() + wait >= deadline {
                self.correct(tenant, day, -cost);
                return Err(VerdictFault::Late);
            }
            tokio::time::sleep(wait).await;
        }
        if let Err(error) = self.write_down(tenant, day, cost).await {
            self.correct(tenant, day, -cost);
            return Err(closed_books(&error));
        }
        Ok(Taken { day, estimate })
    }

    /// Puts an estimate right.
    pub async fn settle(&self, tenant: &TenantId, taken: Taken, real: Usage) {
        let tokens = |usage: Usage| f64::from(usage.sent) + f64::from(usage.received);
        {
            let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
            let level = minute.1.level + tokens(taken.estimate) - tokens(real);
            // a call that took more than it said leaves a debt, but never more than one minute's worth
            minute.1.level = level.clamp(-minute.1.size, minute.1.size);
        }
        let more = self.bounds.cost(real) - self.bounds.cost(taken.estimate);
        self.correct(tenant, taken.day, more);
        metrics::counter!("recast_judge_tokens_total", "way" => "sent").increment(real.sent.into());
        metrics::counter!("recast_judge_tokens_total", "way" => "received").increment(real.received.into());
        if let Err(error) = self.write_down(tenant, taken.day, more).await {
            tracing::warn!(error, "what a call to the judge really cost is not written down: the estimate stands");
        }
    }

    /// What the tenant's day has cost so far, estimates of running calls included.
    pub async fn spent(&self, tenant: &TenantId) -> Result<f64, VerdictFault> {
        let day = self.day();
        self.look_up(tenant, day).await?;
        let days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(days.get(&(day, tenant.clone())).copied().unwrap_or_default())
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

    /// Brings in what an earlier process spent on this day. Money that cannot be counted is not spent.
    async fn look_up(&self, tenant: &TenantId, day: u64) -> Result<(), VerdictFault> {
        let key = (day, tenant.clone());
        let known = || self.days.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key);
        let Some(books) = self.books.as_ref().filter(|_| self.bounds.paid() && !known()) else { return Ok(()) };
        let spent = books.cost(tenant, day).await.map_err(|error| closed_books(&error))?;
        // whoever looked it up meanwhile may have spent since
        self.days.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(spent);
        Ok(())
    }

    async fn write_down(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), String> {
        match &self.books {
            Some(books) if cost != 0.0 => books.add_cost(tenant, day, cost).await,
            _ => Ok(()),
        }
    }

    fn reserve(&self, tenant: &TenantId, day: u64, cost: f64) -> Result<(), VerdictFault> {
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        // calls that began before midnight are still settled
        days.retain(|(old, _), _| *old + 1 >= day);
        let spent = days.entry((day, tenant.clone())).or_default();
        if cost > 0.0 && *spent + cost > self.bounds.daily_cost {
            return Err(VerdictFault::BudgetSpent);
        }
        *spent += cost;
        show(tenant, *spent);
        Ok(())
    }

    fn correct(&self, tenant: &TenantId, day: u64, more: f64) {
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = days.get_mut(&(day, tenant.clone())) {
            *spent = (*spent + more).max(0.0);
            show(tenant, *spent);
        }
    }

    /// Days since 1970, UTC. Counted on from the start by the clock that timers use.
    fn day(&self) -> u64 {
        let time = self.start_time + self.start.elapsed();
        time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
    }
}

fn show(tenant: &TenantId, spent: f64) {
    metrics::gauge!("recast_judge_spent_today", "tenant" => tenant.as_str().to_owned()).set(spent);
}

fn closed_books(error: &str) -> VerdictFault {
    VerdictFault::Unavailable(format!("what judging costs cannot be written down, so nobody is paid: {error}"))
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
#[path = "budget_tests.rs"]
mod tests;
