//! `POST /v1/feedback`: what somebody thought of an answer. It may come late, twice, and before its episode.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use recast_domain::{Episode, EpisodeId, ErrorKind, Feedback, FeedbackSignal, Preferred, TenantId};
use recast_episodes::{EpisodeError, FeedbackStored, redact};
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::finishing::Finishing;
use crate::idempotency::key;
use crate::keys::{Scope, now_ms};
use crate::problem::{FieldError, Problem};

const BODY: BodyLimits = BodyLimits { bytes: 64 << 10, time: Duration::from_secs(10) };
const COMMENT_CHARS: usize = 4000;
const PASSAGE_CHARS: usize = 1000;

/// Thumbs.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Thumbs {
    /// Good.
    Up,
    /// Bad.
    Down,
}

/// Which of two answers is better.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The answer of `episode_id`.
    This,
    /// The one of `other`.
    Other,
    /// Neither.
    Neither,
}

/// One event: exactly one of `thumbs`, `score`, `comment`, `click` and `preferred`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedbackBody {
    /// The answer it is about.
    #[schema(value_type = String)]
    episode_id: Uuid,
    /// The event's own id: posting it again changes nothing. Without it, `Idempotency-Key` stands in for it.
    #[schema(value_type = Option<String>)]
    event_id: Option<Uuid>,
    /// Keep it although the episode is not known yet.
    #[serde(default)]
    deferred: bool,
    /// Thumbs.
    thumbs: Option<Thumbs>,
    /// 0 to 1.
    score: Option<f64>,
    /// Words.
    comment: Option<String>,
    /// Id of a passage of the answer that was opened.
    click: Option<String>,
    /// Which of two answers is better.
    preferred: Option<Better>,
    /// With `preferred`: the other answer.
    #[schema(value_type = Option<String>)]
    other: Option<Uuid>,
}

impl FeedbackBody {
    fn read(bytes: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(bytes).map_err(|error| {
            if error.is_data() {
                Problem::field("body", error.to_string())
            } else {
                Problem::malformed(format!("the body is not valid JSON: {error}"))
            }
        })
    }

    /// The one signal.
    fn signal(self) -> Result<FeedbackSignal, Problem> {
        let mut wrong = Vec::new();
        let mut check = |ok: bool, field: &str, message: &str| {
            if !ok {
                wrong.push(FieldError { field: field.to_owned(), message: message.to_owned() });
            }
        };
        let chars = |text: &Option<String>| text.as_ref().map(|text| text.chars().count());
        check(self.score.is_none_or(|score| (0.0..=1.0).contains(&score)), "score", "must be a number from 0 to 1");
        let comment = chars(&self.comment).is_none_or(|count| (1..=COMMENT_CHARS).contains(&count));
        check(comment, "comment", "must have 1 to 4000 characters");
        let click = chars(&self.click).is_none_or(|count| (1..=PASSAGE_CHARS).contains(&count));
        check(click, "click", "must be the id of a passage of the answer");
        check(self.other.is_none() || self.preferred.is_some(), "other", "goes with preferred only");
        let signals = [
            self.thumbs.map(|thumbs| FeedbackSignal::Thumbs { up: matches!(thumbs, Thumbs::Up) }),
            self.score.map(|value| FeedbackSignal::Score { value }),
            self.comment.map(|text| FeedbackSignal::Comment { text }),
            self.click.map(|passage| FeedbackSignal::Click { passage }),
            self.preferred.map(|better| FeedbackSignal::Preference {
                preferred: match better {
                    Better::This => Preferred::This,
                    Better::Other => Preferred::Other,
                    Better::Neither => Preferred::Neither,
                },
                other: self.other.map(EpisodeId),
            }),
        ];
        let mut given = signals.into_iter().flatten();
        let (first, second) = (given.next(), given.next());
        check(
            first.is_some() && second.is_none(),
            "body",
            "give exactly one of thumbs, score, comment, click, preferred",
        );
        match first {
            Some(signal) if wrong.is_empty() => Ok(signal),
            _ => Err(Problem::fields(wrong)),
        }
    }
}

/// Takes one feedback event.
#[utoipa::path(
    post, path = "/v1/feedback", tag = "feedback", request_body = FeedbackBody, security(("key" = [])),
    responses(
        (status = 200, description = "kept, or there already: `duplicate` says which"),
        (status = 202, description = "kept until its episode appears"),
        (status = 404, description = "no such episode; `deferred: true` keeps it all the same"),
        (status = 422, description = "fields are wrong, or the passage is not one of the answer"),
    )
)]
pub async fn post(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = app.caller(&head.headers, Scope::Serve)?;
    app.limits.rate(&caller.tenant).map_err(|(problem, _)| problem)?;
    let body = FeedbackBody::read(&json_bytes(&head.headers, body, BODY).await?)?;
    let (episode, deferred) = (EpisodeId(body.episode_id), body.deferred);
    let id = event_id(&caller.tenant, body.event_id, &head.headers)?;
    let mut signal = body.signal()?;
    if let FeedbackSignal::Comment { text } = &mut signal
        && app.profile(&caller.tenant)?.redact
        && let Some(without) = redact(text)
    {
        *text = without;
    }
    let created_ms = i64::try_from(now_ms()).unwrap_or(i64::MAX);
    let feedback = Feedback { id, tenant: caller.tenant, episode, created_ms, signal };
    // A client that hangs up does not lose its feedback.
    let tasks = app.tasks.clone();
    Finishing::new(async move { keep(&app, feedback, deferred).await }, &tasks).await
}

async fn keep(app: &App, feedback: Feedback, deferred: bool) -> Result<Response, Problem> {
    let about = match app.episodes.get(&feedback.tenant, feedback.episode).await {
        Ok(episode) => Some(episode),
        Err(EpisodeError::NotFound(_)) if deferred => None,
        Err(error) => return Err(problem(&error)),
    };
    if let Some(episode) = &about {
        belongs(app, episode, &feedback.signal).await?;
    }
    let stored = app.episodes.put_feedback(&feedback).await.map_err(|error| problem(&error))?;
    let duplicate = stored == FeedbackStored::Duplicate;
    if !duplicate {
        count(&feedback, about.as_ref());
    }
    let status = if about.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let reply = json!({"feedback_id": feedback.id, "duplicate": duplicate, "deferred": about.is_none()});
    Ok((status, Json(reply)).into_response())
}

/// Whether what the signal names belongs to the answer.
async fn belongs(app: &App, episode: &Episode, signal: &FeedbackSignal) -> Result<(), Problem> {
    match signal {
        FeedbackSignal::Click { passage } if !episode.hits.iter().any(|hit| hit.id == *passage) => {
            Err(Problem::field("click", "is not the id of a passage of this answer"))
        }
        FeedbackSignal::Preference { other: Some(other), .. } => {
            match app.episodes.get(&episode.tenant, *other).await {
                Ok(_) => Ok(()),
                Err(EpisodeError::NotFound(_)) => Err(Problem::field("other", "is not an episode")),
                Err(error) => Err(problem(&error)),
            }
        }
        _ => Ok(()),
    }
}

/// The event's id: the caller's, or one made of its idempotency key, or a fresh one.
fn event_id(tenant: &TenantId, given: Option<Uuid>, headers: &HeaderMap) -> Result<Uuid, Problem> {
    if let Some(id) = given {
        return Ok(id);
    }
    let Some(key) = key(headers)? else { return Ok(Uuid::now_v7()) };
    Ok(Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("recast feedback/{tenant}/{key}").as_bytes()))
}

fn count(feedback: &Feedback, about: Option<&Episode>) {
    let kind = match &feedback.signal {
        FeedbackSignal::Thumbs { up: true } => "thumbs_up",
        FeedbackSignal::Thumbs { up: false } => "thumbs_down",
        FeedbackSignal::Score { .. } => "score",
        FeedbackSignal::Comment { .. } => "comment",
        FeedbackSignal::Click { .. } => "click",
        FeedbackSignal::Preference { .. } => "preference",
    };
    let part = about.and_then(|episode| episode.experiment.as_ref());
    let (experiment, arm) = part.map_or(("", ""), |part| (part.experiment.as_str(), part.arm.as_str()));
    metrics::counter!(
        "recast_feedback_total",
        "tenant" => feedback.tenant.as_str().to_owned(),
        "kind" => kind,
        "experiment" => experiment.to_owned(),
        "arm" => arm.to_owned(),
    )
    .increment(1);
}

fn problem(error: &EpisodeError) -> Problem {
    match error.kind() {
        ErrorKind::NotFound => Problem::not_found("there is no such episode; deferred: true keeps it until there is"),
        kind => {
            tracing::warn!(%error, "feedback was not kept");
            Problem::from_kind(kind, "feedback cannot be kept now: send it again").retry_after(Duration::from_secs(1))
        }
    }
}
