//! JSON over HTTP to model services: bounded in time and size.
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// A service's address and credentials.
pub(crate) struct Service {
    client: reqwest::Client,
    url: String,
    api_key: SecretString,
    timeout: Duration,
}

impl Service {
    pub(crate) fn new(url: String, api_key: SecretString, timeout: Duration) -> Result<Self, String> {
        let client = reqwest::Client::builder().connect_timeout(timeout).build().map_err(|error| error.to_string())?;
        Ok(Self { client, url, api_key, timeout })
    }

    /// Posts `body` and reads a JSON answer of at most `limit` bytes.
    pub(crate) async fn post(&self, body: &Value, limit: usize) -> Result<Value, String> {
        let mut request = self.client.post(&self.url).timeout(self.timeout).json(body);
        if !self.api_key.expose_secret().is_empty() {
            request = request.bearer_auth(self.api_key.expose_secret());
        }
        // The address may hold a password; errors are told without it.
        let mut response = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("the service answered {status}"));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| error.without_url().to_string())? {
            if bytes.len() + chunk.len() > limit {
                return Err(format!("the service's answer is larger than {limit} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| format!("the service's answer is not the JSON expected: {error}"))
    }
}
