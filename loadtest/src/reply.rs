//! What a reply of the gateway says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Wall time of each stage as the server reports it, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageTimes {
    /// Rewriting, queueing included.
    pub rewrite_us: u64,
    /// Embedding the query.
    pub embed_us: u64,
    /// Both legs and fusion.
    pub search_us: u64,
    /// Reranking.
    pub rerank_us: u64,
    /// From the parsed request to the finished list.
    pub total_us: u64,
}

impl StageTimes {
    /// The four stages, without what lies between and around them.
    #[must_use]
    pub fn stages_us(&self) -> u64 {
        self.rewrite_us + self.embed_us + self.search_us + self.rerank_us
    }

    /// Reads a `server-timing` header (`rewrite;dur=1.5, search;dur=0.3`, in milliseconds); unknown names are skipped.
    #[must_use]
    pub fn from_server_timing(header: &str) -> Option<Self> {
        let durations: BTreeMap<&str, u64> = header.split(',').filter_map(server_timing_entry).collect();
        let stage = |name: &str| durations.get(name).copied();
        let known = ["rewrite", "embed", "search", "rerank", "total"];
        known.iter().any(|name| durations.contains_key(name)).then(|| Self {
            rewrite_us: stage("rewrite").unwrap_or(0),
            embed_us: stage("embed").unwrap_or(0),
            search_us: stage("search").unwrap_or(0),
            rerank_us: stage("rerank").unwrap_or(0),
            total_us: stage("total").unwrap_or(0),
        })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be finite and not negative")]
fn server_timing_entry(entry: &str) -> Option<(&str, u64)> {
    let mut parts = entry.split(';').map(str::trim);
    let name = parts.next()?;
    let text = parts.find_map(|part| part.strip_prefix("dur="))?;
    let millis: f64 = text.trim_matches('"').parse().ok()?;
    (millis.is_finite() && millis >= 0.0).then(|| (name, (millis * 1e3).round() as u64))
}

/// A reply with status 200.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The episode that the server says it made.
    pub episode_id: Option<String>,
    /// Whether the server says that it is stored.
    pub episode_stored: bool,
    /// Whether a stage was replaced by a weaker one.
    pub degraded: bool,
    /// Wall time by stage, where the server gives it.
    pub stages: Option<StageTimes>,
}

#[derive(Deserialize)]
struct Body {
    episode_id: Option<String>,
    #[serde(default)]
    episode_stored: bool,
    #[serde(default)]
    degraded: Vec<serde::de::IgnoredAny>,
    timings: Option<StageTimes>,
}

impl Answer {
    /// Reads the body, and the `server-timing` header where the body has no timings. A body that is not of the
    /// gateway's shape (another server, the echo) is an answer that claims nothing.
    #[must_use]
    pub fn read(body: &[u8], server_timing: Option<&str>) -> Self {
        let from_header = || server_timing.and_then(StageTimes::from_server_timing);
        match serde_json::from_slice::<Body>(body) {
            Ok(body) => Self {
                episode_id: body.episode_id,
                episode_stored: body.episode_stored,
                degraded: !body.degraded.is_empty(),
                stages: body.timings.or_else(from_header),
            },
            Err(_) => Self { stages: from_header(), ..Self::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_reply_of_the_gateway() {
        let body = r#"{"data":{"recall":[{"score":0.9}]},"episode_id":"e-1","episode_stored":true,
            "degraded":["rerank_timeout"],"timings":{"rewrite_us":120,"search_us":30,"total_us":170,"new_us":1}}"#;
        let answer = Answer::read(body.as_bytes(), Some("rewrite;dur=9"));
        assert_eq!(answer.episode_id.as_deref(), Some("e-1"));
        assert!(answer.episode_stored && answer.degraded);
        let stages = answer.stages.unwrap();
        assert_eq!((stages.rewrite_us, stages.embed_us, stages.stages_us(), stages.total_us), (120, 0, 150, 170));
    }

    #[test]
    fn falls_back_to_the_header() {
        let answer = Answer::read(b"not json", Some("rewrite;dur=1.5, cache;desc=hit, total;desc=\"all\";dur=\"2\""));
        let stages = answer.stages.unwrap();
        assert_eq!((stages.rewrite_us, stages.total_us), (1500, 2000));
        assert_eq!(Answer::read(b"{}", Some("db;dur=1, rewrite;dur=-3")).stages, None);
    }
}
