//! `POST /general_rag`: a question in, passages out, and an episode kept.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use recast_config::TenantProfile;
use recast_domain::{EpisodeId, ErrorKind, RequestFacts, RewriteSource, TenantId, Timings};
use recast_retrieval::LegChoice;

use crate::after_reply;
use crate::app::App;
use crate::arena::{Answered, Asker, Part, seed};
use crate::auth::same_tenant;
use crate::body::{BodyLimits, json_bytes};
use crate::dto::{RagReply, RagRequest, RawRequest};
use crate::finishing::Finishing;
use crate::idempotency::{Claim, Repeat};
use crate::keys::Scope;
use crate::limits::Allowance;
use crate::pipeline::{PipelineError, QuerySource, RunOptions};
use crate::policies::{Answered as Trial, Chosen, is_own};
use crate::problem::Problem;
use crate::recorder::{self, Kept};
use crate::request_id::RequestId;

const X_EPISODE_ID: HeaderName = HeaderName::from_static("x-episode-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const DEADLINE: &str = "x-request-deadline-ms";

/// Answers a question of a conversation with passages.
#[utoipa::path(
    post, path = "/general_rag", tag = "rag", request_body = RawRequest, security(("key" = [])),
    responses(
        (status = 200, description = "what was found", body = RagReply),
        (status = 401, description = "no valid key"), (status = 403, description = "the key is another tenant's"),
        (status = 422, description = "fields are wrong; all are named"),
        (status = 429, description = "too fast, or no place free; see retry-after"),
        (status = 503, description = "nothing can be searched; the body holds rewritten_query"),
    )
)]
pub async fn general_rag(
    State(app): State<Arc<App>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Response {
    let mut allowance = None;
    let answer = answer(app, request_id, request, &mut allowance).await;
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if let Some(allowance) = allowance {
        allowance.write(response.headers_mut());
    }
    response
}

async fn answer(
    app: Arc<App>,
    request_id: RequestId,
    request: Request,
    allowance: &mut Option<Allowance>,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = app.caller(&head.headers, Scope::Serve)?;
    let rate = app.limits.rate(&caller.tenant);
    *allowance = Some(*rate.as_ref().unwrap_or_else(|(_, none_left)| none_left));
    rate.map_err(|(problem, _)| problem)?;

    let server = &app.settings.server;
    let limits = BodyLimits { bytes: server.body_limit_bytes, time: Duration::from_millis(server.body_timeout_ms) };
    let bytes = json_bytes(&head.headers, body, limits).await?;
    let raw = RawRequest::read(&bytes)?;
    same_tenant(&caller, raw.tenant())?;
    let profile = app.profile(&caller.tenant)?;
    let wanted = raw.check(&app.settings.limits, &app.settings.retrieval)?;
    let budget = deadline(&head.headers)?;

    let claim = match app.idempotency.claim(&caller.tenant, &head.headers, &bytes)? {
        Some(Repeat::Replay(response)) => return Ok(response),
        Some(Repeat::First(claim)) => Some(claim),
        None => None,
    };
    let permit = app.limits.admit()?;
    let task = Task { app: Arc::clone(&app), profile, wanted, budget, request_id, claim };
    // A client that hangs up does not lose its episode.
    let answering = async move {
        let _permit = permit;
        task.run().await
    };
    Finishing::new(answering, &app.tasks).await
}

/// One admitted request.
struct Task {
    app: Arc<App>,
    profile: Arc<TenantProfile>,
    wanted: RagRequest,
    budget: Option<Duration>,
    request_id: RequestId,
    claim: Option<Claim>,
}

impl Task {
    async fn run(self) -> Result<Response, Problem> {
        let Self { app, profile, wanted, budget, request_id, claim } = self;
        let id = EpisodeId::now();
        let RagRequest { conversation, kb_name, top_k, score_threshold, rewritten_query, filters, .. } = wanted;
        let given = rewritten_query.is_some();
        let options = RunOptions {
            kb_name: kb_name.clone(),
            query: rewritten_query.map_or(QuerySource::Rewriter { cache: true }, QuerySource::Given),
            top_k: top_k as usize,
            score_threshold,
            filters,
            legs: LegChoice::Both,
            rerank: true,
            budget,
            seed: seed(id),
        };
        // Who brings a query of their own is part of no experiment: no arm would have written it.
        let asker = Asker { user: wanted.user_id.as_deref(), conversation: wanted.conversation_id.as_deref() };
        let part = if given { None } else { app.arena.part(&profile.id, id, asker) };
        // What the shadow will need of the request; nothing where nothing is sampled.
        let sampled = part.as_ref().and_then(Part::sample).map(|sample| {
            (sample, (Arc::clone(&profile), conversation.clone(), RunOptions { budget: None, ..options.clone() }))
        });
        // One version for the whole request, whatever is promoted meanwhile.
        let session = session(&asker, id);
        let Chosen { ladder, trial } = app.policies.choose(&profile.id, &session);
        // A request in an experiment says nothing about a candidate.
        let trial = trial.filter(|_| !given && part.is_none());
        let tried = trial.as_ref().map(|_| RunOptions { budget: None, ..options.clone() });
        let pipeline = app.parts.pipeline.with_ladder(ladder);
        let answered = match &part {
            None => pipeline.run(&profile, &conversation, options).await.map(Answered::plain),
            Some(part) => part.run(&pipeline, &profile, &conversation, options).await,
        };
        if let Some((scope, _, true)) = &trial {
            app.policies.trials().note(scope, answered.as_ref().ok().map(|answered| &answered.run.trace));
        }
        let mut answered = answered.map_err(|error| not_found_out(&error))?;
        let run = &answered.run;
        count(&run.trace.timings, &profile.id, !run.trace.degraded.is_empty());

        let facts = RequestFacts {
            kb_name,
            top_k,
            score_threshold,
            user_id: wanted.user_id,
            conversation_id: wanted.conversation_id,
            request_id: request_id.0.to_string(),
            tags: wanted.tags,
        };
        let kept = Kept::of(&profile, &conversation);
        let mut episode = recorder::episode(id, profile.id.clone(), &kept, facts, run);
        answered.mark(&mut episode);
        let (stored, ticket) = match (&part, sampled) {
            (Some(part), Some((sample, request))) => {
                let (outcome, ticket) = part.record(app.arena.shadow(), &app.episodes, episode, sample, request).await;
                (recorder::stored(id, outcome), ticket)
            }
            _ => {
                let rewrite = episode.rewrite.text.clone();
                let stored = recorder::record(&app.episodes, episode).await;
                if stored && answered.run.trace.rewrite.source != RewriteSource::Given {
                    app.scoring.judging.offer(&profile, id, &kept.conversation, &rewrite);
                }
                (stored, None)
            }
        };

        let run = &answered.run;
        if let (Some((scope, candidate, by_candidate)), Some(options)) = (trial, tried)
            && app.policies.trials().sampled(id)
        {
            let scores = || run.trace.hits.iter().map(|hit| f64::from(hit.relevance())).collect();
            app.policies.trials().offer(|| Trial {
                scope,
                candidate,
                by_candidate,
                tenant: Arc::clone(&profile),
                conversation: conversation.clone(),
                options,
                session,
                scores: is_own(&run.trace).then(scores),
            });
        }
        let reply = RagReply::new(&conversation, &run.trace, id, stored);
        let body = Bytes::from(serde_json::to_vec(&reply).map_err(|_| Problem::internal())?);
        let headers = headers(id, &run.trace.timings);
        if let Some(claim) = claim {
            claim.keep(headers.clone(), body.clone());
        }
        Ok(match ticket {
            None => (headers, body).into_response(),
            // The shadow starts when the reply has gone.
            Some(ticket) => (headers, after_reply::body(body, ticket)).into_response(),
        })
    }
}

/// What counts as one in the comparison of policies, and stays with one of them: the conversation, else the asker, else
/// the request.
fn session(asker: &Asker<'_>, id: EpisodeId) -> String {
    asker.conversation.or(asker.user).map_or_else(|| id.to_string(), str::to_owned)
}

/// The caller's own bound, below the server's.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(DEADLINE) else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|millis| *millis > 0);
    match millis {
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(Problem::malformed("x-request-deadline-ms must be a whole number of milliseconds above 0")),
    }
}

fn not_found_out(error: &PipelineError) -> Problem {
    tracing::warn!(%error, "nothing could be searched");
    metrics::counter!("recast_retrieval_failures_total", "kind" => error.kind().label()).increment(1);
    let problem = match &error.source {
        // The caller's own fault may be said in full.
        source if matches!(source.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
            Problem::from_kind(source.kind(), source.to_string())
        }
        _ => {
            let detail = "the knowledge base cannot be searched now; rewritten_query may be searched elsewhere";
            let status = http::StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "retrieval_unavailable", detail).retry_after(Duration::from_secs(1))
        }
    };
    problem.with("rewritten_query", error.rewrite.text.as_str())
}

fn headers(id: EpisodeId, timings: &Timings) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut buffer = uuid::Uuid::encode_buffer();
    if let Ok(value) = HeaderValue::from_str(id.0.as_hyphenated().encode_lower(&mut buffer)) {
        headers.insert(X_EPISODE_ID, value);
    }
    #[expect(clippy::cast_precision_loss, reason = "durations of requests are far below 2^52 microseconds")]
    let ms = |micros: u64| micros as f64 / 1000.0;
    let text = format!(
        "rewrite;dur={:.3}, embed;dur={:.3}, search;dur={:.3}, rerank;dur={:.3}, total;dur={:.3}",
        ms(timings.rewrite_us),
        ms(timings.embed_us),
        ms(timings.search_us),
        ms(timings.rerank_us),
        ms(timings.total_us)
    );
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(SERVER_TIMING, value);
    }
    headers
}

fn count(timings: &Timings, tenant: &TenantId, degraded: bool) {
    let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
    for (stage, micros) in [
        ("rewrite", timings.rewrite_us),
        ("embed", timings.embed_us),
        ("search", timings.search_us),
        ("rerank", timings.rerank_us),
        ("total", timings.total_us),
    ] {
        metrics::histogram!("recast_stage_seconds", "stage" => stage).record(seconds(micros));
    }
    let tenant = tenant.as_str().to_owned();
    metrics::counter!("recast_answers_total", "tenant" => tenant.clone()).increment(1);
    if degraded {
        metrics::counter!("recast_degraded_total", "tenant" => tenant).increment(1);
    }
}
