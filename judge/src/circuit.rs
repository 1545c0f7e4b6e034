//! When to leave a failing judge alone.
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Attempts in a row that may fail.
const FAILURES: u32 = 5;
const REST: Duration = Duration::from_secs(30);
/// After a refusal that only a person can mend: a wrong key, model, address or parameter.
const LONG_REST: Duration = Duration::from_secs(300);

/// Opens after five failed attempts in a row, at once after a refusal, and for as long as a service asks. When the
/// rest is over one attempt is let through, and decides.
#[derive(Debug, Default)]
pub(crate) struct Circuit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    closed_again: Option<Instant>,
    trying: bool,
    cause: String,
}

/// The right to make one attempt. A dropped pass counts as no attempt.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    circuit: &'a Circuit,
    trial: bool,
    told: bool,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service answered.
    Good,
    /// It did not.
    Failed(String),
    /// It refused in a way that repeats.
    Refused(String),
}

impl Circuit {
    /// Lets an attempt through, or says why the service is left alone.
    pub fn admit(&self, now: Instant) -> Result<Pass<'_>, String> {
        let mut state = self.lock();
        let Some(end) = state.closed_again else { return Ok(Pass { circuit: self, trial: false, told: false }) };
        if now < end || state.trying {
            return Err(format!("left alone for a while after: {}", state.cause));
        }
        state.trying = true;
        Ok(Pass { circuit: self, trial: true, told: false })
    }

    /// Leaves the service alone until `end`, as it asked.
    pub fn rest_until(&self, end: Instant, cause: &str) {
        let mut state = self.lock();
        state.closed_again = Some(state.closed_again.map_or(end, |before| before.max(end)));
        cause.clone_into(&mut state.cause);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Says how the attempt went.
    pub fn tell(mut self, now: Instant, outcome: Outcome) {
        self.told = true;
        let mut state = self.circuit.lock();
        state.trying &= !self.trial;
        let (rest, cause) = match outcome {
            Outcome::Good => {
                state.failures = 0;
                if self.trial {
                    state.closed_again = None;
                }
                return;
            }
            Outcome::Failed(cause) => {
                state.failures += 1;
                if state.failures < FAILURES && !self.trial {
                    return;
                }
                (REST, cause)
            }
            Outcome::Refused(cause) => (LONG_REST, cause),
        };
        state.closed_again = Some(now + rest);
        state.cause = cause;
        metrics::counter!("recast_judge_circuit_opened_total").increment(1);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial && !self.told {
            self.circuit.lock().trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Outcome {
        Outcome::Failed("status 500".to_owned())
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_one_attempt_decides() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        for _ in 0..4 {
            circuit.admit(now).unwrap().tell(now, failed());
        }
        circuit.admit(now).unwrap().tell(now, Outcome::Good);
        for _ in 0..5 {
            circuit.admit(now).unwrap().tell(now, failed());
        }
        assert!(circuit.admit(now + Duration::from_secs(29)).unwrap_err().contains("status 500"));
        let later = now + Duration::from_secs(30);
        let trial = circuit.admit(later).unwrap();
        assert!(circuit.admit(later).is_err(), "one at a time");
        trial.tell(later, failed());
        assert!(circuit.admit(later + Duration::from_secs(29)).is_err());
        let again = later + Duration::from_secs(30);
        drop(circuit.admit(again).unwrap());
        circuit.admit(again).unwrap().tell(again, Outcome::Good);
        assert!(circuit.admit(again).is_ok());
    }

    #[test]
    fn a_refusal_opens_it_at_once() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        circuit.admit(now).unwrap().tell(now, Outcome::Refused("status 401".to_owned()));
        assert!(circuit.admit(now + Duration::from_secs(299)).is_err());
        assert!(circuit.admit(now + Duration::from_secs(300)).is_ok());
    }

    #[test]
    fn it_rests_for_as_long_as_it_is_asked_to() {
        let (circuit, now) = (Circuit::default(), Instant::now());
        circuit.rest_until(now + Duration::from_secs(90), "status 429");
        assert!(circuit.admit(now + Duration::from_secs(89)).is_err());
        assert!(circuit.admit(now + Duration::from_secs(90)).is_ok());
    }
}
