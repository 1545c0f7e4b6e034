//! Reading a request's body within bounds of size and time.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use crate::problem::Problem;

/// A body that is too large is still read up to this size: a client that is cut off while it writes sees a broken
/// connection instead of the 413.
const DISCARD_BYTES: usize = 8 << 20;

/// Bounds of a body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub bytes: usize,
    /// From the first byte asked for to the last.
    pub time: Duration,
}

/// Reads a JSON body.
///
/// # Errors
/// 415 for another content type, 413 over the limit, 408 when it does not arrive in time, 400 when it breaks off.
pub async fn json_bytes(headers: &HeaderMap, body: Body, limits: BodyLimits) -> Result<Vec<u8>, Problem> {
    if !is_json(headers) {
        let detail = "the body must be JSON: content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", detail));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > DISCARD_BYTES.max(limits.bytes) as u64) {
        return Err(too_large(limits.bytes));
    }
    match tokio::time::timeout(limits.time, collect(body, limits.bytes)).await {
        Ok(result) => result,
        Err(_) => {
            let detail = format!("the body did not arrive within {} ms", limits.time.as_millis());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
        }
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let mut discarded = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::malformed("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if discarded == 0 && bytes.len() + data.len() <= limit {
            bytes.extend_from_slice(&data);
            continue;
        }
        discarded += bytes.len() + data.len();
        bytes = Vec::new();
        if discarded > DISCARD_BYTES {
            break;
        }
    }
    if discarded == 0 { Ok(bytes) } else { Err(too_large(limit)) }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("the body has more than {limit} bytes"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence.is_char_boundary(essence.len() - 5))
            && essence[essence.len() - 5..].eq_ignore_ascii_case("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http::HeaderValue;

    const LIMITS: BodyLimits = BodyLimits { bytes: 10, time: Duration::from_millis(50) };

    fn json() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))])
    }

    async fn status(headers: HeaderMap, body: Body) -> u16 {
        json_bytes(&headers, body, LIMITS).await.map_or_else(|problem| problem.status().as_u16(), |_| 200)
    }

    #[tokio::test]
    async fn bounds_are_held() {
        assert_eq!(status(json(), Body::from("0123456789")).await, 200);
        assert_eq!(status(json(), Body::from("0123456789x")).await, 413);
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(65_536)));
        assert_eq!(status(json(), Body::from_stream(endless)).await, 413);
        let silent = stream::pending::<Result<String, std::io::Error>>();
        assert_eq!(status(json(), Body::from_stream(silent)).await, 408);
        let broken = stream::iter([Ok("x"), Err(std::io::Error::other("gone"))]);
        assert_eq!(status(json(), Body::from_stream(broken)).await, 400);
        assert_eq!(status(HeaderMap::new(), Body::from("{}")).await, 415);
    }
}
