//! A fixed number of connections, each sending its next request when the last is answered.
//!
//! It finds the ceiling, and at one connection the latency without queueing. It must not be used for latency under
//! load: it stops sending while the server stalls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cpu;
use crate::error::Error;
use crate::open_loop::{Finished, Load, cpu_reading, lock};
use crate::record::{Outcome, Record, Sample};

/// How long a phase lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many requests over all connections.
    Requests(u64),
    /// So long.
    For(Duration),
}

/// One closed-loop run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Requests on the wire at once.
    pub connections: usize,
    /// Thrown away at the start.
    pub warm_up: Amount,
    /// Measured after it.
    pub measured: Amount,
}

/// Runs the plan.
///
/// # Errors
/// The server's process cannot be read.
pub async fn run(plan: Plan, load: &Arc<Load>) -> Result<Finished, Error> {
    let record = Arc::new(Mutex::new(Record::default()));
    phase(plan.connections, plan.warm_up, load, &record, false).await;
    let answered_before = lock(&record).replies;
    let cpu_before = cpu_reading(load)?;
    let start = Instant::now();
    phase(plan.connections, plan.measured, load, &record, true).await;
    let elapsed = start.elapsed();
    let cpu_after = cpu_reading(load)?;

    let record = std::mem::take(&mut *lock(&record));
    let answered = record.replies - answered_before;
    let cpu_us_per_request =
        cpu_before.zip(cpu_after).and_then(|(before, after)| cpu::per_request_us(before, after, answered));
    Ok(Finished { record, elapsed, cpu_us_per_request })
}

async fn phase(connections: usize, amount: Amount, load: &Arc<Load>, record: &Arc<Mutex<Record>>, measured: bool) {
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (next, load, record) = (Arc::clone(&next), Arc::clone(load), Arc::clone(record));
        workers.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let over = match amount {
                    Amount::Requests(count) => index >= count,
                    Amount::For(duration) => start.elapsed() >= duration,
                };
                if over {
                    return;
                }
                let place = usize::try_from(index).unwrap_or(0) % load.requests.len();
                let sent = Instant::now();
                let reply = load.pool.post(&load.requests[place]).await;
                let latency = sent.elapsed();
                lock(&record).add(Sample { latency, outcome: Outcome::of(reply) }, measured);
            }
        });
    }
    while workers.join_next().await.is_some() {}
}
