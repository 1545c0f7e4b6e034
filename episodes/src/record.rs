//! An episode as a row: the columns that lists filter by, and the whole of it as JSON.

use recast_domain::{Assignment, Episode, EpisodeHit, Rewrite};
use serde::Serialize;

use crate::error::EpisodeError;

/// Version of the JSON body. Raise it when a field changes meaning; readers keep understanding older ones.
pub(crate) const RECORD_VERSION: u32 = 1;

/// A row, made on the caller's thread so that the writer only writes.
#[derive(Debug)]
pub(crate) struct Row {
    pub id: [u8; 16],
    pub tenant: String,
    pub created_ms: i64,
    pub policy: String,
    pub degraded: bool,
    pub user_id: Option<String>,
    pub conversation_id: Option<String>,
    pub experiment: Option<Assignment>,
    pub body: String,
}

#[derive(Serialize)]
struct Body<'a> {
    record_version: u32,
    #[serde(flatten)]
    episode: &'a Episode,
}

/// JSON has no infinities: such a number would be written as `null` and never read back. Names the first one.
fn not_finite(episode: &Episode) -> Option<String> {
    if !episode.request.score_threshold.is_finite() {
        return Some("request.score_threshold".to_owned());
    }
    answer_not_finite(&episode.rewrite, &episode.hits)
}

/// The same for what a run found, live or in the shadow.
pub(crate) fn answer_not_finite(rewrite: &Rewrite, hits: &[EpisodeHit]) -> Option<String> {
    if let Some(index) = rewrite.log_probs.iter().position(|log_prob| !log_prob.is_finite()) {
        return Some(format!("rewrite.log_probs[{index}]"));
    }
    if rewrite.sampling.is_some_and(|sampling| !(sampling.temperature.is_finite() && sampling.top_p.is_finite())) {
        return Some("rewrite.sampling".to_owned());
    }
    let hit_is_finite = |hit: &EpisodeHit| {
        let legs = [hit.legs.bm25, hit.legs.dense];
        hit.score.is_finite()
            && hit.reranker_score.is_none_or(f32::is_finite)
            && legs.iter().flatten().all(|leg| leg.score.is_finite())
    };
    hits.iter().position(|hit| !hit_is_finite(hit)).map(|index| format!("a score of hits[{index}]"))
}

/// # Errors
/// When a number is not finite.
pub(crate) fn encode(episode: &Episode) -> Result<Row, EpisodeError> {
    if let Some(field) = not_finite(episode) {
        return Err(EpisodeError::Invalid(format!("{field} is not a finite number")));
    }
    let body = serde_json::to_string(&Body { record_version: RECORD_VERSION, episode })
        .map_err(|error| EpisodeError::Invalid(error.to_string()))?;
    Ok(Row {
        id: *episode.id.0.as_bytes(),
        tenant: episode.tenant.as_str().to_owned(),
        created_ms: episode.created_ms,
        policy: episode.rewrite.policy.as_str().to_owned(),
        degraded: !episode.degraded.is_empty(),
        user_id: episode.request.user_id.clone(),
        conversation_id: episode.request.conversation_id.clone(),
        experiment: episode.experiment.clone(),
        body,
    })
}

/// # Errors
/// When the body is of a newer version, or not an episode.
pub(crate) fn decode(record_version: u32, body: &str) -> Result<Episode, String> {
    if record_version > RECORD_VERSION {
        return Err(format!("record version {record_version} is newer than {RECORD_VERSION}: update recast"));
    }
    serde_json::from_str(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::episode;

    #[test]
    fn a_body_says_its_version_and_reads_back() {
        let episode = episode("a", 1);
        let row = encode(&episode).unwrap();
        assert!(row.body.starts_with("{\"record_version\":1,"));
        assert_eq!(decode(1, &row.body).unwrap(), episode);
        assert!(decode(2, &row.body).unwrap_err().contains("newer"));
    }

    /// Version 1 as it was first written; this text must be readable for ever.
    #[test]
    fn version_1_stays_readable() {
        let body = include_str!("../tests/golden/record_v1.json");
        let episode = decode(1, body).unwrap();
        assert_eq!(episode.rewrite.text, "胶原蛋白肽 孕妇禁忌");
        assert_eq!(episode.hits[0].legs.bm25.map(|leg| leg.rank), Some(2));
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused_by_name() {
        let mut bad = episode("a", 1);
        bad.rewrite.log_probs[1] = f32::NEG_INFINITY;
        assert!(encode(&bad).unwrap_err().to_string().contains("rewrite.log_probs[1]"));
        let mut bad = episode("a", 1);
        bad.hits[0].score = f32::NAN;
        assert!(encode(&bad).unwrap_err().to_string().contains("hits[0]"));
    }
}
