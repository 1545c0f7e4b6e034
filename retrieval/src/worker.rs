//! A model on a thread of its own: callers send work and wait for the answer without holding up anything else.
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::oneshot;

type Job<M> = Box<dyn FnOnce(&mut M) + Send>;

struct State<M> {
    urgent: VecDeque<Job<M>>,
    patient: VecDeque<Job<M>>,
    closed: bool,
}

struct Queue<M> {
    state: Mutex<State<M>>,
    filled: Condvar,
}

impl<M> Queue<M> {
    fn next(&self) -> Option<Job<M>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.closed {
                return None;
            }
            let urgent = state.urgent.pop_front();
            if let Some(job) = urgent.or_else(|| state.patient.pop_front()) {
                return Some(job);
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Whether somebody waits for the answer of a query, or work can stand back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// A request waits.
    Urgent,
    /// Ingest and preparation: runs when no request waits.
    Patient,
}

/// A handle of the thread. The thread ends when the handle is dropped.
pub(crate) struct Worker<M> {
    queue: Arc<Queue<M>>,
}

impl<M: 'static> Worker<M> {
    /// Loads a model on a new thread and returns when it is ready.
    ///
    /// # Errors
    /// What `load` says, also where it panics.
    pub(crate) fn start(name: &str, load: impl FnOnce() -> Result<M, String> + Send + 'static) -> Result<Self, String> {
        let state = State { urgent: VecDeque::new(), patient: VecDeque::new(), closed: false };
        let queue = Arc::new(Queue { state: Mutex::new(state), filled: Condvar::new() });
        let (ready, loaded) = std::sync::mpsc::channel();
        let served = queue.clone();
        let serve = move || {
            let model = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err("loading panicked".to_owned()));
            let mut model = match model {
                Ok(model) => model,
                Err(message) => {
                    let _ = ready.send(Err(message));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            while let Some(job) = served.next() {
                // A panic drops the job's reply, which its caller sees as an error; the next job may work.
                if catch_unwind(AssertUnwindSafe(|| job(&mut model))).is_err() {
                    metrics::counter!("recast_model_panics_total").increment(1);
                }
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(serve).map_err(|error| error.to_string())?;
        loaded.recv().map_err(|_| "its thread ended".to_owned())??;
        Ok(Self { queue })
    }

    /// Runs `work` on the thread; it is skipped where the caller has gone meanwhile.
    ///
    /// # Errors
    /// Where `work` panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce(&mut M) -> T + Send + 'static,
    ) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let job: Job<M> = Box::new(move |model| {
            if !reply.is_closed() {
                let _ = reply.send(work(model));
            }
        });
        {
            let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
            match urgency {
                Urgency::Urgent => state.urgent.push_back(job),
                Urgency::Patient => state.patient.push_back(job),
            }
        }
        self.queue.filled.notify_one();
        answer.await.map_err(|_| "the model panicked".to_owned())
    }
}

impl<M> Drop for Worker<M> {
    fn drop(&mut self) {
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.queue.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_one_model_and_outlives_a_panic() {
        let worker = Worker::start("test", || Ok(0_u32)).unwrap();
        let add = |model: &mut u32| {
            *model += 1;
            *model
        };
        assert_eq!(worker.run(Urgency::Urgent, add).await, Ok(1));
        let panicked: Result<(), String> = worker.run(Urgency::Urgent, |_| panic!("told to")).await;
        assert!(panicked.is_err());
        assert_eq!(worker.run(Urgency::Patient, add).await, Ok(2));
    }

    #[tokio::test]
    async fn requests_go_before_patient_work() {
        let worker = Arc::new(Worker::start("test", || Ok(Vec::<u32>::new())).unwrap());
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let hold = worker.run(Urgency::Urgent, move |_| gate.recv().is_ok());
        let patient = worker.run(Urgency::Patient, |seen| seen.push(1));
        let urgent = worker.run(Urgency::Urgent, |seen| seen.push(2));
        let release = async move { open.send(()).is_ok() };
        let _ = tokio::join!(hold, patient, urgent, release);
        assert_eq!(worker.run(Urgency::Urgent, |seen| seen.clone()).await.unwrap(), [2, 1]);
    }

    #[test]
    fn a_model_that_does_not_load_says_why() {
        assert_eq!(Worker::<u32>::start("test", || Err("no file".to_owned())).err().unwrap(), "no file");
        assert!(Worker::<u32>::start("test", || panic!("told to")).is_err());
    }
}
