//! Exports as jobs, and pages of the same rows. Needs a key with the scope admin; the key decides the tenant.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use recast_domain::{EpisodeId, PolicyId, TenantId};
use recast_episodes::export::{ExportFilter, FeedbackWanted, Format, TagWanted, page};
use recast_episodes::{EpisodeError, LIST_MAX};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use crate::app::App;
use crate::body::{BodyLimits, json_bytes};
use crate::exports::{NotBegun, Standing};
use crate::keys::Scope;
use crate::problem::Problem;

const BODY: BodyLimits = BodyLimits { bytes: 16 << 10, time: Duration::from_secs(10) };
/// How long a caller should wait where others export.
const WAIT: Duration = Duration::from_secs(30);
/// Rows of a page, unless another number is asked for.
const PAGE: usize = 100;
/// Bytes of a file that are read at once.
const CHUNK: usize = 256 << 10;
/// The header that holds the cursor of the next page.
const NEXT: HeaderName = HeaderName::from_static("x-next-cursor");

/// What to export.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportBody {
    /// parquet, jsonl, csv or xlsx.
    format: String,
    /// Created at this time or later, Unix milliseconds.
    from_ms: Option<i64>,
    /// Created before this time, Unix milliseconds.
    to_ms: Option<i64>,
    /// Only those of this experiment.
    experiment: Option<String>,
    /// Only those that this arm answered.
    arm: Option<String>,
    /// Only those whose query this policy wrote.
    #[schema(value_type = Option<String>)]
    policy: Option<PolicyId>,
    /// Only those where a stage failed or was late, or only the others.
    degraded: Option<bool>,
    /// Only those with this feedback: any, none, up or down.
    #[schema(value_type = Option<String>)]
    feedback: Option<FeedbackWanted>,
    /// Only those with this tag: a name, or name=value.
    #[schema(value_type = Option<String>)]
    tag: Option<TagWanted>,
}

/// Begins an export of the key's tenant.
#[utoipa::path(
    post, path = "/v1/exports", tag = "episodes", request_body = ExportBody, security(("key" = [])),
    responses(
        (status = 202, description = "it runs; `id` names it"),
        (status = 409, description = "the tenant has an export that runs"),
        (status = 422, description = "fields are wrong"),
        (status = 429, description = "exports of others run; see retry-after"),
    )
)]
pub async fn begin(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let tenant = app.caller(&head.headers, Scope::Admin)?.tenant;
    let bytes = json_bytes(&head.headers, body, BODY).await?;
    let wanted: ExportBody = serde_json::from_slice(&bytes).map_err(|error| {
        if error.is_data() { Problem::field("body", error.to_string()) } else { Problem::malformed(error.to_string()) }
    })?;
    if let (Some(from), Some(to)) = (wanted.from_ms, wanted.to_ms)
        && from >= to
    {
        return Err(Problem::field("to_ms", "must be after from_ms"));
    }
    let format: Format = serde_json::from_value(json!(wanted.format))
        .map_err(|_| Problem::field("format", "must be parquet, jsonl, csv or xlsx"))?;
    let filter = ExportFilter {
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        experiment: wanted.experiment,
        arm: wanted.arm,
        policy: wanted.policy,
        degraded: wanted.degraded,
        feedback: wanted.feedback,
        tag: wanted.tag,
    };
    let shared = Arc::clone(&app);
    // it looks at folders
    let begun =
        tokio::task::spawn_blocking(move || shared.exports.begin(shared.episodes.reader(), &tenant, format, filter));
    match begun.await.map_err(|_| Problem::internal())? {
        Ok(id) => {
            let location = HeaderValue::try_from(format!("/v1/exports/{id}")).map_err(|_| Problem::internal())?;
            let body = Json(json!({"id": id, "state": "running"}));
            Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], body).into_response())
        }
        Err(NotBegun::Busy(id)) => {
            let detail = format!("export {id} of this tenant runs: wait for it, or stop it");
            Err(Problem::new(StatusCode::CONFLICT, "export_running", detail))
        }
        Err(NotBegun::Full) => {
            let detail = "exports of others run: wait as long as retry-after says";
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail).retry_after(WAIT))
        }
        Err(NotBegun::Unavailable) => {
            let detail = "no export can begin now";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(WAIT))
        }
    }
}

fn unknown() -> Problem {
    Problem::not_found("there is no such export")
}

/// Says how far an export is.
#[utoipa::path(
    get, path = "/v1/exports/{id}", tag = "episodes", security(("key" = [])), params(("id" = String, Path)),
    responses(
        (status = 200, description = "`state` running with `rows` of at most `of`, done with its `manifest`, failed with a `reason`, stopped, or broken_off"),
        (status = 404, description = "no such export"),
    )
)]
pub async fn show(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (tenant, id) = named(&app, path, &headers)?;
    let shared = Arc::clone(&app);
    let standing = tokio::task::spawn_blocking(move || shared.exports.standing(&tenant, id)).await;
    let standing: Standing = standing.map_err(|_| Problem::internal())?.ok_or_else(unknown)?;
    let mut body = serde_json::to_value(standing).map_err(|_| Problem::internal())?;
    body["id"] = json!(id);
    Ok(Json(body).into_response())
}

/// Stops an export that runs; removes one that ended.
#[utoipa::path(
    delete, path = "/v1/exports/{id}", tag = "episodes", security(("key" = [])), params(("id" = String, Path)),
    responses((status = 204, description = "it is stopped or gone"), (status = 404, description = "no such export"))
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (tenant, id) = named(&app, path, &headers)?;
    let shared = Arc::clone(&app);
    let removed = tokio::task::spawn_blocking(move || shared.exports.remove(&tenant, id)).await;
    if removed.map_err(|_| Problem::internal())? { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(unknown()) }
}

/// Sends a file of a finished export.
#[utoipa::path(
    get, path = "/v1/exports/{id}/files/{path}", tag = "episodes", security(("key" = [])),
    params(("id" = String, Path), ("path" = String, Path, description = "as the manifest names it")),
    responses((status = 200, description = "the file"), (status = 404, description = "no such file"))
)]
pub async fn file(
    State(app): State<Arc<App>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = app.caller(&headers, Scope::Admin)?.tenant;
    let Path((id, name)) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    let id: Uuid = id.parse().map_err(|_| unknown())?;
    let shared = Arc::clone(&app);
    let found = tokio::task::spawn_blocking(move || shared.exports.file(&tenant, id, &name)).await;
    let (path, bytes) = found.map_err(|_| Problem::internal())?.ok_or_else(unknown)?;
    let file = tokio::fs::File::open(path).await.map_err(|_| unknown())?;
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok::<_, std::io::Error>((read > 0).then_some((chunk, file)))
    });
    let length = HeaderValue::from(bytes);
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind), (header::CONTENT_LENGTH, length)], Body::from_stream(chunks)).into_response())
}

fn named(
    app: &App,
    path: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
) -> Result<(TenantId, Uuid), Problem> {
    let tenant = app.caller(headers, Scope::Admin)?.tenant;
    let Path(id) = path.map_err(|error| Problem::malformed(error.body_text()))?;
    // An id that cannot be one names no export either.
    Ok((tenant, id.parse().map_err(|_| unknown())?))
}

/// Which rows a page shows.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsWanted {
    format: String,
    cursor: Option<String>,
    limit: Option<usize>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    experiment: Option<String>,
    arm: Option<String>,
    policy: Option<PolicyId>,
    degraded: Option<bool>,
    feedback: Option<FeedbackWanted>,
    tag: Option<TagWanted>,
}

/// A page of rows as JSON lines, oldest first: `GET /v1/episodes?format=jsonl`.
pub async fn rows(
    app: &App,
    tenant: TenantId,
    wanted: Result<Query<RowsWanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(wanted) = wanted.map_err(|error| Problem::malformed(error.body_text()))?;
    if wanted.format != "jsonl" {
        return Err(Problem::field("format", "must be json or jsonl; POST /v1/exports writes the other formats"));
    }
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, LIST_MAX);
    let filter = ExportFilter {
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        experiment: wanted.experiment,
        arm: wanted.arm,
        policy: wanted.policy,
        degraded: wanted.degraded,
        feedback: wanted.feedback,
        tag: wanted.tag,
    };
    let after = match wanted.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        Some(cursor) => Some(read_cursor(cursor, &tenant, &filter).ok_or_else(|| {
            Problem::field("cursor", "must be the x-next-cursor of a page of this tenant with the same filter")
        })?),
        None => None,
    };
    let (of, by) = (tenant.clone(), filter.clone());
    let page = app.episodes.read(move |reader| Ok::<_, EpisodeError>(page(reader, &of, &by, after, limit))).await;
    let page = page.map_err(|error| error.to_string()).and_then(|page| page.map_err(|error| error.to_string()));
    let page = page.map_err(|error| {
        tracing::warn!(error, "episodes could not be read");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "episodes cannot be read now")
    })?;
    let mut reply = page.lines.into_response();
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    if let Some(next) = page.next {
        let cursor = HeaderValue::try_from(cursor(next, &tenant, &filter)).map_err(|_| Problem::internal())?;
        reply.headers_mut().insert(NEXT, cursor);
    }
    Ok(reply)
}

/// Bytes of a cursor that bind it.
const SEAL: usize = 12;

/// Binds a place to whose rows they are and which of them: taken elsewhere, it would leave rows out in silence. It is
/// no secret; whose rows are shown is decided by the key alone.
fn seal(after: EpisodeId, tenant: &TenantId, filter: &ExportFilter) -> [u8; SEAL] {
    let bound = json!([tenant, filter, after]).to_string();
    let mut seal = [0; SEAL];
    seal.copy_from_slice(&blake3::hash(bound.as_bytes()).as_bytes()[..SEAL]);
    seal
}

fn cursor(after: EpisodeId, tenant: &TenantId, filter: &ExportFilter) -> String {
    let mut bytes = after.0.as_bytes().to_vec();
    bytes.extend(seal(after, tenant, filter));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str, tenant: &TenantId, filter: &ExportFilter) -> Option<EpisodeId> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
    let (id, sealed) = bytes.split_at_checked(16)?;
    let after = EpisodeId(Uuid::from_slice(id).ok()?);
    (sealed == seal(after, tenant, filter)).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_holds_for_its_tenant_and_filter_only() {
        let (alpha, beta): (TenantId, TenantId) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
        let (all, some) = (ExportFilter::default(), ExportFilter { degraded: Some(true), ..ExportFilter::default() });
        let id = EpisodeId::now();
        let text = cursor(id, &alpha, &all);
        assert_eq!(read_cursor(&text, &alpha, &all), Some(id));
        assert_eq!(read_cursor(&text, &beta, &all), None);
        assert_eq!(read_cursor(&text, &alpha, &some), None);
        for wrong in ["", "x", "!", &text[1..], &format!("{text}AAAA")] {
            assert_eq!(read_cursor(wrong, &alpha, &all), None, "{wrong:?}");
        }
    }
}
