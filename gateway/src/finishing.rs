//! Work that its caller may leave, but that is finished all the same.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::task::TaskTracker;

/// Runs a future in place; dropped half-way, it hands the rest to a task of its own.
///
/// Spawning every request would do too, but a task costs the wake-up of another thread, and hardly any client hangs up.
pub struct Finishing<F: Future + Send + 'static>
where
    F::Output: Send + 'static,
{
    rest: Option<Pin<Box<F>>>,
    tasks: TaskTracker,
}

impl<F: Future + Send + 'static> Finishing<F>
where
    F::Output: Send + 'static,
{
    /// Wraps `future`; what is left of it when this is dropped runs in `tasks`.
    pub fn new(future: F, tasks: &TaskTracker) -> Self {
        Self { rest: Some(Box::pin(future)), tasks: tasks.clone() }
    }
}

impl<F: Future + Send + 'static> Future for Finishing<F>
where
    F::Output: Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out while it runs: a future that panicked must not be polled again.
        let Some(mut rest) = self.rest.take() else { return Poll::Pending };
        let polled = rest.as_mut().poll(context);
        if polled.is_pending() {
            self.rest = Some(rest);
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Finishing<F>
where
    F::Output: Send + 'static,
{
    fn drop(&mut self) {
        if let (Some(rest), Ok(runtime)) = (self.rest.take(), tokio::runtime::Handle::try_current()) {
            self.tasks.spawn_on(rest, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_is_finished() {
        let tasks = TaskTracker::new();
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, finished) = (Arc::clone(&go), Arc::clone(&done));
        let mut work = Box::pin(Finishing::new(
            async move {
                wait.notified().await;
                finished.notify_one();
            },
            &tasks,
        ));
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn what_is_done_or_panicked_is_not_run_again() {
        let tasks = TaskTracker::new();
        assert_eq!(Finishing::new(async { 7 }, &tasks).await, 7);
        let panicking = Finishing::new(async { panic!("on purpose") }, &tasks);
        assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
        assert!(tasks.is_empty());
    }
}
