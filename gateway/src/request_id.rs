//! The outermost layer: request ids, caught panics, rendered problems, and the count of what was answered.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::watch;
use uuid::Uuid;

use crate::leftover;
use crate::problem::{Problem, rendered};
use crate::serve::Phase;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one exchange: the caller's, where it sent a usable one, else a fresh one.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let given = headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
        match given.filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(legal)) {
            Some(id) => Self(id.into()),
            None => Self(Uuid::now_v7().as_simple().to_string().into()),
        }
    }
}

/// Wraps every route.
pub async fn envelope(State(phase): State<watch::Receiver<Phase>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = RequestId::of(request.headers());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).map(str::to_owned);
    request.extensions_mut().insert(id.clone());
    let (request, leftover) = leftover::watch(request);
    // A panic in a handler ends one request, never the connection's other ones.
    let caught = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let response = caught.unwrap_or_else(|_| {
        tracing::error!(request_id = %id.0, "a handler panicked");
        Problem::internal().into_response()
    });
    let mut response = rendered(response, &id.0);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert(X_REQUEST_ID, value);
    }
    let open = *phase.borrow() == Phase::Open;
    if !open || leftover.remains() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    if status.is_server_error() {
        tracing::warn!(request_id = %id.0, status = status.as_u16(), "a request failed");
    }
    let route = route.unwrap_or_else(|| "none".to_owned());
    metrics::histogram!("recast_http_request_seconds", "route" => route.clone()).record(start.elapsed().as_secs_f64());
    metrics::counter!("recast_http_requests_total", "route" => route, "status" => status.as_str().to_owned())
        .increment(1);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_is_kept_and_another_replaced() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(X_REQUEST_ID, HeaderValue::from_str(text).unwrap())]);
            RequestId::of(&headers).0.to_string()
        };
        assert_eq!(of("abc-1_2.3"), "abc-1_2.3");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_eq!(of(bad).len(), 32, "{bad:?}");
        }
    }
}
