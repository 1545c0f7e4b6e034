//! Notices request bodies that nobody read to their end.
//!
//! A reply that leaves early (401, 415, 429) may leave a body on the wire. The server then closes the connection, and a
//! client that was not told would send its next request into it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// Says whether a body was read to its end.
pub struct Leftover(Option<Arc<AtomicBool>>);

impl Leftover {
    /// Whether something of the body may still be on the wire.
    pub fn remains(&self) -> bool {
        self.0.as_ref().is_some_and(|finished| !finished.load(Ordering::Relaxed))
    }
}

/// Watches the body of `request`; an empty one costs nothing.
pub fn watch(request: Request) -> (Request, Leftover) {
    if request.body().is_end_stream() {
        return (request, Leftover(None));
    }
    let finished = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&finished);
    let request = request.map(|body| Body::new(Watched { body, finished: flag }));
    (request, Leftover(Some(finished)))
}

struct Watched {
    body: Body,
    finished: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.finished.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
