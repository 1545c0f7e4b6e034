//! The 32B rewrite service over HTTP: `POST {url}/api/rewrite_query`.
use std::time::Duration;

use async_trait::async_trait;
use recast_config::RemoteRewriterSettings;
use recast_domain::{Conversation, PolicyId, Rewrite, RewriteSource, Role};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use crate::breaker::{Breaker, RetryBudget};
use crate::validate::checked_rewrite;
use crate::{Result, RewriteError, RewriteRequest, Rewriter};

/// Wait before the one second try, plus a drawn part of the same length.
const PAUSE_MS: u64 = 30;

/// Asks the 32B service.
pub struct RemoteRewriter {
    client: reqwest::Client,
    endpoint: reqwest::Url,
    api_key: SecretString,
    timeout: Duration,
    response_bytes: usize,
    breaker: Breaker,
    budget: RetryBudget,
}

#[derive(Serialize)]
struct Body<'a> {
    query: &'a str,
    history: String,
    thought: &'a str,
    tenant_id: &'a str,
    user_profile: &'a str,
    history_summary: &'a str,
}

#[derive(Deserialize)]
struct Reply {
    rewritten_query: String,
}

impl RemoteRewriter {
    /// A client of its own for the service in the settings; nothing is sent yet.
    ///
    /// # Errors
    /// When the address is no http or https URL, or a bound is zero.
    pub fn new(settings: &RemoteRewriterSettings) -> Result<Self> {
        let wrong = |field, reason: String| RewriteError::Setting { field, reason };
        let address = format!("{}/api/rewrite_query", settings.url.trim_end_matches('/'));
        let endpoint = reqwest::Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| wrong("rewriter.remote.url", format!("{:?} is no http or https address", settings.url)))?;
        for (field, value) in [
            ("rewriter.remote.timeout_ms", settings.timeout_ms),
            ("rewriter.remote.response_bytes", settings.response_bytes as u64),
        ] {
            if value == 0 {
                return Err(wrong(field, "must be at least 1".to_owned()));
            }
        }
        // a redirect would carry the conversation to an address that nobody configured
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| wrong("rewriter.remote", error.to_string()))?;
        Ok(Self {
            client,
            endpoint,
            api_key: settings.api_key.clone(),
            timeout: Duration::from_millis(settings.timeout_ms),
            response_bytes: settings.response_bytes,
            breaker: Breaker::new(Instant::now()),
            budget: RetryBudget::default(),
        })
    }

    /// Whether the service is left alone at this moment.
    #[must_use]
    pub fn breaker_open(&self) -> bool {
        self.breaker.is_open(Instant::now())
    }

    async fn ask(&self, body: &Body<'_>, deadline: Instant) -> Result<String> {
        self.budget.earn();
        let first = self.attempt(body, deadline).await;
        let Err(error) = &first else { return first };
        let Some(pause) = pause_before_retry(error) else { return first };
        if Instant::now() + pause >= deadline || !self.budget.spend() {
            return first;
        }
        metrics::counter!("recast_remote_rewrite_retries_total").increment(1);
        sleep(pause).await;
        self.attempt(body, deadline).await
    }

    async fn attempt(&self, body: &Body<'_>, deadline: Instant) -> Result<String> {
        let pass = self.breaker.admit(Instant::now()).ok_or(RewriteError::BreakerOpen)?;
        let answer = timeout_at(deadline, self.exchange(body)).await.unwrap_or(Err(RewriteError::Timeout));
        pass.tell(Instant::now(), !is_fault(&answer));
        answer
    }

    async fn exchange(&self, body: &Body<'_>) -> Result<String> {
        let mut post = self.client.post(self.endpoint.clone()).json(body);
        let key = self.api_key.expose_secret();
        if !key.is_empty() {
            post = post.bearer_auth(key);
        }
        let mut response = post.send().await.map_err(broken)?;
        if !response.status().is_success() {
            let seconds = response.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = seconds.and_then(|seconds| seconds.trim().parse().ok());
            return Err(RewriteError::Status { status: response.status().as_u16(), retry_after });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if bytes.len() + chunk.len() > self.response_bytes {
                return Err(RewriteError::Malformed(format!("its reply is longer than {} bytes", self.response_bytes)));
            }
            bytes.extend_from_slice(&chunk);
        }
        let reply: Reply = serde_json::from_slice(&bytes).map_err(|error| {
            RewriteError::Malformed(format!("its reply is not {{\"rewritten_query\": \"...\"}}: {error}"))
        })?;
        Ok(reply.rewritten_query)
    }
}

#[async_trait]
impl Rewriter for RemoteRewriter {
    fn policy(&self) -> PolicyId {
        PolicyId::remote()
    }

    async fn rewrite(&self, request: &RewriteRequest, deadline: Instant) -> Result<Rewrite> {
        let conversation = &request.conversation;
        let body = Body {
            query: &conversation.query,
            history: history_text(conversation),
            thought: &conversation.thought,
            tenant_id: request.tenant.id.as_str(),
            user_profile: &conversation.user_profile,
            history_summary: &conversation.history_summary,
        };
        let started = Instant::now();
        let answer = self.ask(&body, deadline.min(started + self.timeout)).await;
        let checked = answer.and_then(|text| Ok(checked_rewrite(&conversation.query, &text)?.to_owned()));
        let outcome = checked.as_ref().map_or_else(RewriteError::outcome, |_| "ok");
        metrics::counter!("recast_remote_rewrites_total", "outcome" => outcome).increment(1);
        metrics::histogram!("recast_remote_rewrite_seconds").record(started.elapsed());
        Ok(Rewrite::plain(checked?, RewriteSource::Remote, PolicyId::remote()))
    }
}

/// The history as the service reads it: one line a turn, `用户: ...` or `助手: ...`.
fn history_text(conversation: &Conversation) -> String {
    let line = |turn: &recast_domain::Turn| {
        let name = if turn.role == Role::User { "用户" } else { "助手" };
        format!("{name}: {}", turn.content)
    };
    conversation.history.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn broken(error: reqwest::Error) -> RewriteError {
    // the address may hold a password
    RewriteError::Unreachable(causes(&error.without_url()))
}

/// An error with what lies beneath it, which is where reqwest says what happened.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether the service is to blame, as the breaker counts it; an odd rewrite or a refused question is no fault.
fn is_fault(answer: &Result<String>) -> bool {
    match answer {
        Ok(_) => false,
        Err(RewriteError::Status { status, .. }) => *status >= 500 || *status == 429 || *status < 400,
        Err(_) => true,
    }
}

/// How long to wait before asking again, or `None` where that would not help.
fn pause_before_retry(error: &RewriteError) -> Option<Duration> {
    let asked = match error {
        RewriteError::Unreachable(_) => 0,
        RewriteError::Status { status, retry_after } if *status >= 500 || *status == 429 => retry_after.unwrap_or(0),
        _ => return None,
    };
    // longer than an hour is as good as never, and sums stay small
    Some(Duration::from_secs(asked.min(3600)) + Duration::from_millis(PAUSE_MS + rand::random_range(0..PAUSE_MS)))
}
