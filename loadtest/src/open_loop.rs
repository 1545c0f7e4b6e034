//! Requests at the times that a Poisson process sets, whether the server keeps up or not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::arrivals::PoissonGaps;
use crate::client::Pool;
use crate::cpu;
use crate::error::Error;
use crate::record::{Outcome, Record, Sample};
use crate::requests::Prepared;

/// What is sent where; shared by all modes.
#[derive(Debug)]
pub struct Load {
    /// Connections to the server.
    pub pool: Pool,
    /// Sent in turn, from the first; never empty.
    pub requests: Vec<Prepared>,
    /// The server's process, where its CPU time is wanted.
    pub pid: Option<u32>,
}

/// One open-loop run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Requests per second.
    pub rate: f64,
    /// Thrown away at the start.
    pub warm_up: Duration,
    /// Measured after it.
    pub measured: Duration,
    /// Seed of the arrivals.
    pub seed: u64,
    /// Requests on the wire at once; those above it wait, and their waiting counts as latency.
    pub max_in_flight: usize,
    /// A start later than this after the intended one is the generator's fault, not the server's.
    pub late_after: Duration,
}

/// What a run of either mode yields.
#[derive(Debug)]
pub struct Finished {
    /// The sums.
    pub record: Record,
    /// From the end of the warm-up to the last reply.
    pub elapsed: Duration,
    /// CPU time of the server a request, in microseconds, where its process was given.
    pub cpu_us_per_request: Option<f64>,
}

/// A lock that a panicking task cannot spoil: the sums are valid after each addition.
pub(crate) fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// CPU time of the server now, where its process is known.
pub(crate) fn cpu_reading(load: &Load) -> Result<Option<u64>, Error> {
    load.pid.map(cpu::tree_cpu_us).transpose()
}

/// Runs the plan and waits for the last reply.
///
/// # Errors
/// The server's process cannot be read.
pub async fn run(plan: Plan, load: Arc<Load>) -> Result<Finished, Error> {
    let record = Arc::new(Mutex::new(Record::default()));
    let start = Instant::now();
    let measure_from = start + plan.warm_up;
    // Every request holds a sender; the channel ends when the last one is done.
    let (alive, mut all_done) = mpsc::channel::<()>(1);
    let dispatcher = Dispatcher {
        plan,
        start,
        measure_from,
        load: Arc::clone(&load),
        record: Arc::clone(&record),
        permits: Arc::new(Semaphore::new(plan.max_in_flight)),
        alive,
    };
    // A thread of its own: the runtime's timers are a millisecond coarse, a parked thread wakes within 0.1 ms.
    let runtime = Handle::current();
    let thread = std::thread::spawn(move || dispatcher.dispatch(&runtime));

    tokio::time::sleep_until(measure_from.into()).await;
    let cpu_before = cpu_reading(&load)?;
    let answered_before = lock(&record).replies;
    all_done.recv().await;
    let elapsed = measure_from.elapsed();
    let cpu_after = cpu_reading(&load)?;
    thread.join().map_err(|_| Error::Answer("the dispatcher thread panicked".to_owned()))?;

    let record = std::mem::take(&mut *lock(&record));
    let answered = record.replies - answered_before;
    let cpu_us_per_request =
        cpu_before.zip(cpu_after).and_then(|(before, after)| cpu::per_request_us(before, after, answered));
    Ok(Finished { record, elapsed, cpu_us_per_request })
}

struct Dispatcher {
    plan: Plan,
    start: Instant,
    measure_from: Instant,
    load: Arc<Load>,
    record: Arc<Mutex<Record>>,
    permits: Arc<Semaphore>,
    alive: mpsc::Sender<()>,
}

impl Dispatcher {
    fn dispatch(self, runtime: &Handle) {
        let end = self.measure_from + self.plan.measured;
        let mut intended = self.start;
        for (index, gap) in PoissonGaps::new(self.plan.rate, self.plan.seed).enumerate() {
            intended += gap;
            if intended >= end {
                return;
            }
            while let Some(wait) = intended.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
                std::thread::park_timeout(wait);
            }
            runtime.spawn(self.request(index, intended));
        }
    }

    fn request(&self, index: usize, intended: Instant) -> impl Future<Output = ()> + Send + use<> {
        let measured = intended >= self.measure_from;
        let late_after = self.plan.late_after;
        let (load, record) = (Arc::clone(&self.load), Arc::clone(&self.record));
        let (permits, alive) = (Arc::clone(&self.permits), self.alive.clone());
        async move {
            if measured {
                lock(&record).started(intended.elapsed(), late_after);
            }
            // The semaphore is never closed, so the permit always comes; it is held until the reply is in.
            let _permit = permits.acquire().await;
            let reply = load.pool.post(&load.requests[index % load.requests.len()]).await;
            let latency = intended.elapsed();
            let outcome = Outcome::of(reply);
            lock(&record).add(Sample { latency, outcome }, measured);
            drop(alive);
        }
    }
}
