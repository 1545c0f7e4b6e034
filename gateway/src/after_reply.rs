//! Work that starts once a reply has been handed over.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// A body of these bytes that lets go of `then` after they were taken, or when nobody wants them any more: what is to
/// happen after the reply is done in the drop of `then`.
pub fn body<T: Unpin + Send + 'static>(bytes: Bytes, then: T) -> Body {
    Body::new(AfterReply { bytes: Some(bytes), _then: then })
}

struct AfterReply<T> {
    bytes: Option<Bytes>,
    _then: T,
}

impl<T: Unpin> HttpBody for AfterReply<T> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn what_follows_waits_for_the_bytes_and_needs_no_reader() {
        let then = Arc::new(());
        let read = body(Bytes::from_static(b"reply"), Arc::clone(&then));
        assert_eq!((read.size_hint().exact(), Arc::strong_count(&then)), (Some(5), 2));
        assert_eq!(axum::body::to_bytes(read, 100).await.unwrap(), "reply");
        assert_eq!(Arc::strong_count(&then), 1);
        drop(body(Bytes::new(), Arc::clone(&then)));
        assert_eq!(Arc::strong_count(&then), 1);
    }
}
