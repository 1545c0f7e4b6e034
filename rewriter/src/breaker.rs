//! When to leave a failing service alone, and how often to ask it twice.
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const WINDOW_SECONDS: usize = 10;
const LEAST_CALLS: u32 = 20;
const REST: Duration = Duration::from_secs(5);
/// Several processes must not all come back in the same moment.
const MOST_JITTER_MS: u64 = 1000;

/// Opens when half of at least 20 calls within 10 seconds failed; after 5 seconds (and up to one more, drawn) it lets
/// one call try again.
#[derive(Debug)]
pub struct Breaker {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seconds: [Second; WINDOW_SECONDS],
    closed_again: Option<Instant>,
    trying: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Second {
    at: u64,
    calls: u32,
    failures: u32,
}

/// The right to make one call. Tell it how the call went; a dropped pass counts as no call.
#[derive(Debug)]
#[must_use]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    trial: bool,
    told: bool,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { start: now, state: Mutex::default() }
    }

    /// Lets a call through, or `None` while the service is left alone.
    pub fn admit(&self, now: Instant) -> Option<Pass<'_>> {
        let mut state = self.lock();
        let Some(end) = state.closed_again else {
            return Some(Pass { breaker: self, trial: false, told: false });
        };
        if now < end || state.trying {
            return None;
        }
        state.trying = true;
        Some(Pass { breaker: self, trial: true, told: false })
    }

    /// Whether calls are refused at this moment.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        let state = self.lock();
        state.closed_again.is_some_and(|end| now < end || state.trying)
    }

    fn tell(&self, now: Instant, trial: bool, good: bool) {
        let mut state = self.lock();
        if trial {
            state.trying = false;
            state.seconds = Default::default();
            state.closed_again = (!good).then(|| now + rest());
            return;
        }
        let at = now.saturating_duration_since(self.start).as_secs();
        let second = &mut state.seconds[(at % WINDOW_SECONDS as u64) as usize];
        if second.at != at {
            *second = Second { at, ..Second::default() };
        }
        second.calls += 1;
        second.failures += u32::from(!good);
        let recent = state.seconds.iter().filter(|second| at - second.at.min(at) < WINDOW_SECONDS as u64);
        let (calls, failures) = recent.fold((0, 0), |sum, second| (sum.0 + second.calls, sum.1 + second.failures));
        if state.closed_again.is_none() && calls >= LEAST_CALLS && 2 * failures >= calls {
            state.closed_again = Some(now + rest());
            metrics::counter!("recast_remote_rewrite_breaker_opened_total").increment(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rest() -> Duration {
    REST + Duration::from_millis(rand::random_range(0..MOST_JITTER_MS))
}

impl Pass<'_> {
    /// Says how the call went.
    pub fn tell(mut self, now: Instant, good: bool) {
        self.told = true;
        self.breaker.tell(now, self.trial, good);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial && !self.told {
            self.breaker.lock().trying = false;
        }
    }
}

/// Second tries in tenths: each call earns one tenth of a try, at most ten tries are saved up.
#[derive(Debug)]
pub struct RetryBudget(AtomicU32);

const TRY: u32 = 10;
const MOST: u32 = 10 * TRY;

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(TRY))
    }
}

impl RetryBudget {
    /// A first try was made.
    pub fn earn(&self) {
        let more = |tenths: u32| Some((tenths + 1).min(MOST));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether a second try may be made; it is paid for.
    pub fn spend(&self) -> bool {
        let less = |tenths: u32| tenths.checked_sub(TRY);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(breaker: &Breaker, now: Instant, outcomes: impl IntoIterator<Item = bool>) -> usize {
        outcomes.into_iter().filter_map(|good| breaker.admit(now).map(|pass| pass.tell(now, good))).count()
    }

    #[test]
    fn it_opens_at_half_of_twenty_and_not_before() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        assert_eq!(run(&breaker, now, [true; 10]), 10);
        assert_eq!(run(&breaker, now, [false; 30]), 10, "the tenth failure of twenty calls opens it");
        assert!(breaker.is_open(now));
        let few = Breaker::new(now);
        assert_eq!(run(&few, now, [false; 19]), 19);
        assert!(!few.is_open(now));
    }

    #[test]
    fn old_calls_do_not_count() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        run(&breaker, now, [false; 19]);
        let later = now + Duration::from_secs(11);
        run(&breaker, later, [false; 19]);
        assert!(!breaker.is_open(later));
    }

    #[test]
    fn one_call_tries_again_and_decides() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        run(&breaker, now, [false; 20]);
        assert!(breaker.admit(now + Duration::from_millis(4990)).is_none());
        let later = now + Duration::from_secs(7);
        let first = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_none(), "only one at a time");
        first.tell(later, false);
        assert!(breaker.admit(later + Duration::from_secs(4)).is_none());
        let again = later + Duration::from_secs(7);
        drop(breaker.admit(again).unwrap());
        breaker.admit(again).unwrap().tell(again, true);
        assert_eq!(run(&breaker, again, [true; 30]), 30);
    }

    #[test]
    fn second_tries_stay_within_a_tenth() {
        let budget = RetryBudget::default();
        let mut tries = 0;
        for _ in 0..1000 {
            budget.earn();
            tries += usize::from(budget.spend());
        }
        assert!((100..=101).contains(&tries), "{tries}");
    }
}
