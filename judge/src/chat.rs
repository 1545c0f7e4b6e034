//! One question to a chat service: bounded, paid for, tried up to three times, and never asked in vain.
use std::sync::Arc;
use std::time::Duration;

use recast_domain::TenantId;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::budget::{Budget, Usage, estimated_tokens};
use crate::circuit::{Circuit, Outcome};
use crate::prompt::Prompt;
use crate::provider::{Capabilities, fix};
use crate::transport::{RawReply, Transport};
use crate::{JudgeError, VerdictFault};

const TRIES: u32 = 3;
const LEAST_WAIT: Duration = Duration::from_secs(1);
const MOST_WAIT: Duration = Duration::from_secs(8);
/// Characters of a service's own words that are kept.
const WORDS: usize = 300;

/// A client of one model at one service.
pub(crate) struct Chat {
    pub transport: Arc<dyn Transport>,
    pub model: String,
    pub capabilities: Capabilities,
    pub timeout: Duration,
    pub budget: Budget,
    circuit: Circuit,
    places: Semaphore,
}

/// A question and the form of its answer.
pub(crate) struct Question<'a> {
    pub prompt: &'a Prompt,
    pub schema: &'a Value,
    /// The visible reply may have this many tokens.
    pub reply_tokens: u32,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unanswered {
    pub fault: VerdictFault,
    /// What the service said instead, where it said something.
    pub reply: String,
}

impl From<VerdictFault> for Unanswered {
    fn from(fault: VerdictFault) -> Self {
        Self { fault, reply: String::new() }
    }
}

/// Why an attempt brought nothing.
#[derive(Debug)]
struct Failure {
    fault: VerdictFault,
    /// What came instead.
    reply: String,
    /// Whether another try may help, and how long the service asked to wait.
    again: Option<Option<Duration>>,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
struct Tokens {
    prompt_tokens: u32,
    completion_tokens: u32,
}

impl Chat {
    pub fn new(
        transport: Arc<dyn Transport>,
        model: String,
        capabilities: Capabilities,
        timeout: Duration,
        in_flight: usize,
        budget: Budget,
    ) -> Self {
        let (circuit, places) = (Circuit::default(), Semaphore::new(in_flight));
        Self { transport, model, capabilities, timeout, budget, circuit, places }
    }

    /// Asks until `read` understands the answer; gives what it read and the answer itself.
    pub async fn ask<T>(
        &self,
        tenant: &TenantId,
        question: &Question<'_>,
        deadline: Instant,
        read: impl Fn(&str) -> Result<T, VerdictFault> + Send + Sync,
    ) -> Result<(T, String), Unanswered>
    where
        T: Send,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let failure = match self.attempt(tenant, question, deadline, &read).await {
                Ok(answer) => {
                    metrics::counter!("recast_judge_calls_total", "outcome" => "ok").increment(1);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            metrics::counter!("recast_judge_calls_total", "outcome" => failure.fault.label()).increment(1);
            let Failure { fault, reply, again } = failure;
            let Some(asked) = again else { return Err(Unanswered { fault, reply }) };
            let asked = asked.map(|wait| wait.max(LEAST_WAIT));
            let wait = asked.unwrap_or_else(|| pause(tries));
            let late = Instant::now() + wait >= deadline;
            if let Some(wait) = asked.filter(|_| late) {
                self.circuit.rest_until(Instant::now() + wait, &fault.to_string());
            }
            if late || tries == TRIES {
                return Err(Unanswered { fault, reply });
            }
            sleep(wait).await;
        }
    }

    /// Sends a question once and says what is wrong with the settings.
    pub async fn probe(&self, question: &Question<'_>) -> Result<String, JudgeError> {
        let body = self.body(question);
        let posted = timeout_at(Instant::now() + self.timeout, self.transport.post(&body)).await;
        let reply = posted
            .map_err(|_| JudgeError::Unavailable(format!("no answer within {} ms", self.timeout.as_millis())))?
            .map_err(JudgeError::Unavailable)?;
        match reply.status {
            200 => content(&reply).map(|(content, _)| content).map_err(|fault| match fault {
                VerdictFault::Truncated => JudgeError::Setting {
                    field: "judge.reply_tokens",
                    reason: "the model's answer does not fit: raise it".to_owned(),
                },
                fault => JudgeError::Unavailable(fault.to_string()),
            }),
            401 | 403 => Err(JudgeError::Setting {
                field: "judge.api_key",
                reason: format!("the service refuses it (status {})", reply.status),
            }),
            400 | 404 | 422 => Err(refused(&reply)),
            status => Err(JudgeError::Unavailable(format!("status {status}"))),
        }
    }

    fn body(&self, question: &Question<'_>) -> Value {
        let Question { prompt, schema, reply_tokens } = question;
        self.capabilities.body(&self.model, &prompt.system, &prompt.user, *reply_tokens, schema)
    }

    async fn attempt<T>(
        &self,
        tenant: &TenantId,
        question: &Question<'_>,
        deadline: Instant,
        read: &(impl Fn(&str) -> Result<T, VerdictFault> + Send + Sync),
    ) -> Result<(T, String), Failure> {
        let stop = |fault| Failure { fault, reply: String::new(), again: None };
        let place = timeout_at(deadline, self.places.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or_else(|| stop(VerdictFault::Late))?;
        // refused before it is paid for
        let pass = self.circuit.admit(Instant::now()).map_err(|cause| stop(VerdictFault::Unavailable(cause)))?;
        let Prompt { system, user } = question.prompt;
        let sent = estimated_tokens(system).saturating_add(estimated_tokens(user));
        let estimate = Usage { sent, received: self.capabilities.total_tokens(question.reply_tokens) };
        let taken = self.budget.take(tenant, estimate, deadline).await.map_err(stop)?;

        let body = self.body(question);
        let end = deadline.min(Instant::now() + self.timeout);
        let started = Instant::now();
        let posted = timeout_at(end, self.transport.post(&body)).await;
        metrics::histogram!("recast_judge_call_seconds").record(started.elapsed());
        let reply = match posted {
            Ok(Ok(reply)) => reply,
            Ok(Err(cause)) => {
                self.budget.settle(tenant, taken, Usage { received: 0, ..estimate }).await;
                pass.tell(Instant::now(), Outcome::Failed(cause.clone()));
                return Err(Failure { again: Some(None), ..stop(VerdictFault::Unavailable(cause)) });
            }
            // it may well have been answered, and charged: the estimate stands
            Err(_) => {
                pass.tell(Instant::now(), Outcome::Failed("no answer in time".to_owned()));
                let late = Instant::now() >= deadline;
                let fault =
                    if late { VerdictFault::Late } else { VerdictFault::Unavailable("no answer in time".into()) };
                return Err(Failure { again: (!late).then_some(None), ..stop(fault) });
            }
        };
        if reply.status != 200 {
            self.budget.settle(tenant, taken, Usage { sent: 0, received: 0 }).await;
            let cause = format!("status {}", reply.status);
            let fault = VerdictFault::Unavailable(cause.clone());
            if matches!(reply.status, 408 | 409 | 429 | 500..) {
                // too many requests is no sign of a broken service
                let outcome = if reply.status == 429 { Outcome::Good } else { Outcome::Failed(cause) };
                pass.tell(Instant::now(), outcome);
                return Err(Failure { fault, reply: short(&reply.body), again: Some(reply.retry_after) });
            }
            tracing::error!(status = reply.status, reason = %refused(&reply), "the judge's service refuses our requests");
            pass.tell(Instant::now(), Outcome::Refused(cause));
            return Err(Failure { reply: short(&reply.body), ..stop(fault) });
        }
        let answer = content(&reply);
        let usage = match &answer {
            Ok((_, Some(tokens))) => Usage { sent: tokens.prompt_tokens, received: tokens.completion_tokens },
            Ok((content, None)) => Usage { received: estimated_tokens(content), ..estimate },
            Err(_) => estimate,
        };
        self.budget.settle(tenant, taken, usage).await;
        let outcome = match &answer {
            Err(VerdictFault::Unavailable(cause)) => Outcome::Failed(cause.clone()),
            _ => Outcome::Good,
        };
        pass.tell(Instant::now(), outcome);
        let (content, _) = answer.map_err(|fault| {
            let for_good = matches!(fault, VerdictFault::Refused(_) | VerdictFault::Truncated);
            Failure { fault, reply: short(&reply.body), again: (!for_good).then_some(None) }
        })?;
        match read(&content) {
            Ok(value) => Ok((value, content)),
            Err(fault) => Err(Failure { fault, reply: content, again: Some(None) }),
        }
    }
}

/// The text of a good reply, and its tokens where the service counts them.
fn content(reply: &RawReply) -> Result<(String, Option<Tokens>), VerdictFault> {
    let broken = |what: String| VerdictFault::Unavailable(format!("its reply is no chat completion: {what}"));
    let completion: Completion = serde_json::from_str(&reply.body).map_err(|error| broken(error.to_string()))?;
    let choice = completion.choices.into_iter().next().ok_or_else(|| broken("it has no choice".to_owned()))?;
    let finish = choice.finish_reason.as_deref().unwrap_or_default();
    let refusal = choice.message.refusal.unwrap_or_default();
    if !refusal.is_empty() || finish == "content_filter" {
        return Err(VerdictFault::Refused(short(&refusal)));
    }
    if finish == "length" {
        return Err(VerdictFault::Truncated);
    }
    match choice.message.content {
        Some(content) if !content.trim().is_empty() => Ok((content, completion.usage)),
        _ => Err(VerdictFault::Blank),
    }
}

/// What a service says against a request, with the fix.
fn refused(reply: &RawReply) -> JudgeError {
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    let error = if body["error"].is_object() { &body["error"] } else { &body };
    let parameter = error["param"].as_str().unwrap_or_default().to_owned();
    let message = error["message"].as_str().map_or_else(|| short(&reply.body), short);
    let fix = fix(&parameter, &message);
    JudgeError::Parameter { status: reply.status, parameter, message, fix }
}

fn short(text: &str) -> String {
    text.chars().take(WORDS).collect()
}

/// 1 to 2 s, 2 to 4 s, 4 to 8 s: drawn, so that many clients do not come back together.
fn pause(tries: u32) -> Duration {
    let base = LEAST_WAIT * 2_u32.pow(tries.min(3) - 1);
    base.mul_f64(rand::random_range(1.0..2.0)).min(MOST_WAIT)
}
