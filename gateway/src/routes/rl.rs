//! Rewards for trainers: `POST /v1/rl/score`, and the shape of OpenRLHF, `POST /get_reward`. Needs a key with the scope
//! train or admin. Nothing that is sent here becomes an episode.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use recast_config::TenantProfile;
use serde_json::{Value, json};

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::keys::Scope;
use crate::problem::{FieldError, Problem};
use crate::scoring::request::{Sample, Wanted, openrlhf, read};
use crate::scoring::{Item, NoItem, Outcome, Status};

/// How long a caller that finds the queue full should wait.
const WAIT: Duration = Duration::from_secs(2);

/// Scores completions of a tenant's questions against each question's baseline.
///
/// One `{item_id, completion}`, a list of these, `{"samples": [...]}`, or `{item_id: [...], completion: [...]}`. The
/// completions of one item in one request are judged together.
#[utoipa::path(
    post, path = "/v1/rl/score", tag = "rl", request_body = Sample, security(("key" = [])),
    responses(
        (status = 200, description = "a result, or `results` in the order of the samples; each is scored or unscored, never made up", body = ResultBody),
        (status = 422, description = "fields are wrong; all are named"),
        (status = 429, description = "the queue is full; see retry-after"),
    )
)]
pub async fn score(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (profile, body) = admitted(&app, request).await?;
    let Wanted { samples, single } = read(&body, &app.settings)?;
    let outcomes = scored(&app, &profile, &samples).await?;
    let mut results: Vec<Value> =
        samples.iter().zip(&outcomes).map(|(sample, one)| result(&app, sample, one)).collect();
    if single && let Some(one) = results.pop() {
        return Ok(Json(one).into_response());
    }
    let unscored = outcomes.iter().filter(|outcome| outcome.status() == Status::Unscored).count();
    Ok(Json(json!({"results": results, "scored": outcomes.len() - unscored, "unscored": unscored})).into_response())
}

/// The reward route of OpenRLHF: `query` holds prompts with their completions, `labels` the item ids.
///
/// That program knows no missing reward. Where one completion of an item is unscored, all completions of that item in
/// the request get 0, which moves nothing under group normalisation; `extra_logs.scored` says 0 for each of them.
#[utoipa::path(
    post, path = "/get_reward", tag = "rl", security(("key" = []), ("basic" = [])),
    responses(
        (status = 200, description = "`rewards`, `scores` and `extra_logs`, each in the order of `query`"),
        (status = 422, description = "fields are wrong; all are named"),
        (status = 429, description = "the queue is full; see retry-after"),
    )
)]
pub async fn get_reward(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (mut head, body) = request.into_parts();
    basic_to_bearer(&mut head.headers);
    let (profile, body) = admitted(&app, Request::from_parts(head, body)).await?;
    let samples = openrlhf(&body, &app.settings)?;
    let outcomes = scored(&app, &profile, &samples).await?;
    let whole = |sample: &Sample| {
        let mut of_item = samples.iter().zip(&outcomes).filter(|(other, _)| other.item_id == sample.item_id);
        of_item.all(|(_, outcome)| outcome.reward.is_some())
    };
    let rewards: Vec<f64> = samples
        .iter()
        .zip(&outcomes)
        .map(|(sample, outcome)| outcome.reward.filter(|_| whole(sample)).unwrap_or(0.0))
        .collect();
    let scored: Vec<u8> = samples.iter().map(|sample| u8::from(whole(sample))).collect();
    let part = |part: fn(&Outcome) -> Option<f64>| -> Vec<f64> {
        outcomes.iter().map(|outcome| part(outcome).unwrap_or(0.0)).collect()
    };
    let logs = json!({
        "scored": scored,
        "judge": part(|outcome| outcome.parts.judge),
        "retrieval": part(|outcome| outcome.parts.retrieval),
        "format": part(|outcome| Some(outcome.parts.format)),
    });
    Ok(Json(json!({"rewards": rewards, "scores": rewards, "extra_logs": logs})).into_response())
}

async fn admitted(app: &App, request: Request) -> Result<(Arc<TenantProfile>, Vec<u8>), Problem> {
    let (head, body) = request.into_parts();
    let caller = app.caller(&head.headers, Scope::Train)?;
    let server = &app.settings.server;
    let limits = BodyLimits { bytes: server.body_limit_bytes, time: Duration::from_millis(server.body_timeout_ms) };
    let bytes = json_bytes(&head.headers, body, limits).await?;
    Ok((app.profile(&caller.tenant)?, bytes))
}

/// Finds the items, takes places in the queue, scores.
async fn scored(app: &App, tenant: &Arc<TenantProfile>, samples: &[Sample]) -> Result<Vec<Outcome>, Problem> {
    let scorer = &app.scoring.scorer;
    if samples.len() > scorer.queue() {
        return Err(Problem::field("samples", format!("are more than {}: scoring.queue", scorer.queue())));
    }
    let places = scorer.admit(samples.len()).ok_or_else(|| {
        metrics::counter!("recast_refused_total", "reason" => "scoring_queue").increment(1);
        let detail = "too many completions wait to be scored: wait as long as retry-after says";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail).retry_after(WAIT)
    })?;
    let mut found: Vec<(Arc<Item>, String)> = Vec::with_capacity(samples.len());
    let mut wrong = Vec::new();
    for (place, sample) in samples.iter().enumerate() {
        let same = |other: &Sample| other.item_id == sample.item_id && other.context == sample.context;
        let known = samples[..place].iter().position(same).and_then(|at| found.get(at));
        let item = match (known, &sample.context) {
            (Some((item, _)), _) if wrong.is_empty() => Arc::clone(item),
            (_, Some(context)) => Arc::new(context.item(&sample.item_id, tenant)),
            (_, None) => match app.scoring.items.find(tenant, &sample.item_id).await {
                Ok(item) => Arc::new(item),
                Err(NoItem::Unknown) => {
                    let message =
                        "names neither a dialogue nor an episode of this tenant: send the question as context";
                    wrong.push(FieldError { field: format!("samples[{place}].item_id"), message: message.to_owned() });
                    continue;
                }
                Err(NoItem::Unreadable) => {
                    let detail = "the tenant's dialogues or episodes cannot be read now";
                    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "items_unavailable", detail);
                    return Err(problem.retry_after(WAIT));
                }
            },
        };
        found.push((item, sample.completion.clone()));
    }
    if !wrong.is_empty() {
        return Err(Problem::fields(wrong));
    }
    let outcomes = scorer.score(&found).await;
    drop(places);
    Ok(outcomes)
}

/// One completion's result.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[schema(as = ScoreResult)]
pub struct ResultBody<'a> {
    /// As sent.
    item_id: &'a str,
    /// As sent.
    sample_id: Option<&'a Value>,
    /// As sent.
    group_id: Option<&'a Value>,
    /// As sent.
    policy_version: Option<&'a Value>,
    /// Whether there is a reward.
    status: Status,
    /// R, -1 to 1; null where the sample is unscored.
    reward: Option<f64>,
    /// What R is made of.
    parts: crate::scoring::Parts,
    /// The judge's reason, or why there is no reward.
    reason: &'a str,
    /// The judge's id; rewards of two judges are not compared.
    judge_version: String,
    /// What was searched with; rewards of two snapshots are not compared.
    retriever_snapshot: &'a str,
    /// Version of the formulas.
    reward_version: u32,
    /// Hash of the weights.
    weights_hash: &'a str,
}

fn result(app: &App, sample: &Sample, outcome: &Outcome) -> Value {
    let scorer = &app.scoring.scorer;
    let body = ResultBody {
        item_id: &sample.item_id,
        sample_id: sample.sample_id.as_ref(),
        group_id: sample.group_id.as_ref(),
        policy_version: sample.policy_version.as_ref(),
        status: outcome.status(),
        reward: outcome.reward,
        parts: outcome.parts,
        reason: &outcome.reason,
        judge_version: scorer.judge_version(),
        retriever_snapshot: scorer.snapshot(),
        reward_version: recast_judge::REWARD_VERSION,
        weights_hash: scorer.weights_hash(),
    };
    serde_json::to_value(body).unwrap_or_default()
}

/// A program that can only be given an address sends the key as the password in it: `http://key:rk_...@host/get_reward`.
fn basic_to_bearer(headers: &mut HeaderMap) {
    let basic = || {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, coded) = value.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(coded.trim()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (_, key) = text.split_once(':')?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
        bearer.set_sensitive(true);
        Some(bearer)
    };
    if let Some(bearer) = basic() {
        headers.insert(header::AUTHORIZATION, bearer);
    }
}
