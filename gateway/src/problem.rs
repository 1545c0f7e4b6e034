//! What a caller is told when a request fails: RFC 9457 problem details, in one shape on every route.

use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use recast_domain::ErrorKind;
use serde::Serialize;
use serde_json::{Map, Value};

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Path of the field (`history[2].role`).
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A failed request, as the caller sees it. Texts of dependencies never get in here.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    /// Boxed, so that a result that may be a problem stays small.
    more: Box<Map<String, Value>>,
}

impl Problem {
    /// A problem with its stable code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), retry_after: None, more: Box::default() }
    }

    /// Malformed input: 400.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// Well-formed input with wrong fields: 422, all of them named.
    #[must_use]
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.field, one.message),
            many => format!("{} fields are wrong", many.len()),
        };
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", detail) }
    }

    /// One wrong field: 422.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// No such thing, or not for this caller: 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// A defect of ours: 500. The cause is in the log, under the request id.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong; the log has it under this instance",
        )
    }

    /// The answer to an error of a room below, by its kind.
    pub fn from_kind(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let status = match kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Overloaded | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Internal => return Self::internal(),
        };
        Self::new(status, kind.label(), detail)
    }

    /// Adds `Retry-After`, rounded up to whole seconds.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a member of our own to the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The fields that are wrong.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    fn render(&self, instance: &str) -> Response {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            code: &'a str,
            detail: &'a str,
            instance: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldError],
            #[serde(flatten)]
            more: &'a Map<String, Value>,
        }
        let body = Body {
            r#type: format!("urn:recast:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            instance,
            errors: &self.errors,
            more: &self.more,
        };
        let bytes = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Rounded up, at least 1: a caller that waits this long finds what it waited for.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for Problem {
    /// Leaves the problem in the extensions: the outermost layer renders it, because it knows the request id.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Renders the problem that a handler left, if it left one.
#[must_use]
pub fn rendered(mut response: Response, request_id: &str) -> Response {
    match response.extensions_mut().remove::<Arc<Problem>>() {
        None => response,
        Some(problem) => {
            let mut full = problem.render(request_id);
            for (name, value) in response.headers() {
                if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
                    full.headers_mut().append(name, value.clone());
                }
            }
            full
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(problem: Problem) -> (http::HeaderMap, Value) {
        let response = rendered(problem.into_response(), "r-1");
        let headers = response.headers().clone();
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        (headers, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn a_problem_names_every_field_and_the_request() {
        let errors = ["a", "b"].map(|name| FieldError { field: name.into(), message: "is wrong".into() }).to_vec();
        let (headers, body) = body(Problem::fields(errors).with("rewritten_query", "x")).await;
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(body["status"], 422);
        assert_eq!(body["instance"], "r-1");
        assert_eq!(body["errors"][1]["field"], "b");
        assert_eq!(body["rewritten_query"], "x");
    }

    #[tokio::test]
    async fn retry_after_is_rounded_up() {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "x", "y").retry_after(Duration::from_millis(1200));
        assert_eq!(body(problem).await.0["retry-after"], "2");
    }

    #[test]
    fn an_internal_error_keeps_its_text_to_itself() {
        let problem = Problem::from_kind(ErrorKind::Internal, "password=1");
        assert!(!problem.detail.contains("password"));
    }
}
