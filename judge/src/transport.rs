//! The network below the judge's client: one POST. Behind a trait, so that tests can play a service without sockets
//! and with a clock that stands still.
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::JudgeError;

/// A longer reply is cut off and counts as broken.
const REPLY_BYTES: usize = 1 << 20;

/// What a service sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReply {
    /// The HTTP status.
    pub status: u16,
    /// How long the service asks to wait before the next try.
    pub retry_after: Option<Duration>,
    /// The body as text.
    pub body: String,
}

/// Sends one chat request.
#[async_trait]
pub trait Transport: Send + Sync {
    /// The reply, whatever its status; `Err` says in words why there is none.
    async fn post(&self, body: &Value) -> Result<RawReply, String>;
}

/// HTTP to `{judge.url}/chat/completions`.
pub(crate) struct HttpTransport {
    client: reqwest::Client,
    endpoint: reqwest::Url,
    api_key: SecretString,
}

impl HttpTransport {
    pub fn new(url: &str, api_key: SecretString) -> Result<Self, JudgeError> {
        let wrong = |field, reason: String| JudgeError::Setting { field, reason };
        // checked as it stands: with a path added, "http://" would name a host
        let base = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let endpoint = base
            .and_then(|base| format!("{}/chat/completions", base.as_str().trim_end_matches('/')).parse().ok())
            .ok_or_else(|| wrong("judge.url", format!("{url:?} is no http or https address")))?;
        // a redirect would carry the conversation to an address that nobody configured
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| wrong("judge", error.to_string()))?;
        Ok(Self { client, endpoint, api_key })
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn post(&self, body: &Value) -> Result<RawReply, String> {
        let mut post = self.client.post(self.endpoint.clone()).json(body);
        let key = self.api_key.expose_secret();
        if !key.is_empty() {
            post = post.bearer_auth(key);
        }
        let mut response = post.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if bytes.len() + chunk.len() > REPLY_BYTES {
                return Err(format!("its reply is longer than {REPLY_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = String::from_utf8(bytes).map_err(|_| "its reply is no UTF-8".to_owned())?;
        Ok(RawReply { status, retry_after, body })
    }
}

/// `retry-after-ms`, or `retry-after` in seconds; a date is not read.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms").map(|ms| ms / 1000.0).or_else(|| number("retry-after"))?;
    // longer than an hour is as good as never
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(3600.0)))
}

/// A network error with what lies beneath it, without the address, which may hold a password.
fn broken(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
