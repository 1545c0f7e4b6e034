//! Which queries went wrong most often, in bounded memory.

use std::cmp::Reverse;
use std::collections::HashMap;

use recast_domain::TenantId;

use super::Failing;

/// Different queries that are counted one by one; more are counted together.
const QUERIES: usize = 50_000;
/// Queries that are named.
const NAMED: usize = 20;

/// What was wrong with one answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    pub empty: bool,
    pub degraded: bool,
    pub thumbs_down: bool,
}

/// Counts of the queries that went wrong.
#[derive(Debug, Default)]
pub(super) struct FailingQueries {
    queries: HashMap<(TenantId, String), Failing>,
    pub others: u64,
}

impl FailingQueries {
    pub(super) fn add(&mut self, tenant: &TenantId, query: &str, faults: Faults) {
        if !(faults.empty || faults.degraded || faults.thumbs_down) {
            return;
        }
        let query = query.trim();
        let key = (tenant.clone(), query.to_owned());
        if self.queries.len() >= QUERIES && !self.queries.contains_key(&key) {
            self.others += 1;
            return;
        }
        let one = self.queries.entry(key).or_insert_with(|| Failing {
            tenant: tenant.clone(),
            query: query.to_owned(),
            failed: 0,
            empty: 0,
            degraded: 0,
            thumbs_down: 0,
        });
        one.failed += 1;
        one.empty += u64::from(faults.empty);
        one.degraded += u64::from(faults.degraded);
        one.thumbs_down += u64::from(faults.thumbs_down);
    }

    /// The most frequent ones first; what people disliked before what was merely slow.
    pub(super) fn top(self) -> Vec<Failing> {
        let mut all: Vec<Failing> = self.queries.into_values().collect();
        all.sort_by(|a, b| {
            let weight = |one: &Failing| Reverse((one.failed, one.thumbs_down, one.empty));
            weight(a).cmp(&weight(b)).then_with(|| (&a.tenant, &a.query).cmp(&(&b.tenant, &b.query)))
        });
        all.truncate(NAMED);
        all
    }
}
