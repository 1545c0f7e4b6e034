//! A world behind HTTP: the gateway scores, so that a learner in another process, or on another machine, sees what
//! users see, and no second owner of the vector store is needed.
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use recast_domain::{Environment, RolloutItem, Scored, TenantId};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::error::{LearnError, Result};

/// Completions in one request; a gateway takes 256 at once unless it is told otherwise.
const TOGETHER: usize = 128;
/// How long to wait where the gateway does not say it.
const PAUSE: Duration = Duration::from_secs(2);
const MOST_PAUSE: Duration = Duration::from_secs(30);

/// An [`Environment`] that asks a gateway's `/v1/rl/score`. Questions are named `tenant/item`.
pub struct RemoteWorld {
    runtime: Runtime,
    client: Client,
    url: String,
    keys: BTreeMap<TenantId, SecretString>,
    patience: Duration,
}

#[derive(Serialize)]
struct Sample<'a> {
    item_id: &'a str,
    completion: &'a str,
}

#[derive(Deserialize)]
struct Reply {
    results: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    reward: Option<f64>,
    #[serde(default)]
    parts: Parts,
    #[serde(default)]
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    judge: Option<f64>,
    retrieval: Option<f64>,
    bonus: Option<f64>,
    format: f64,
    judge_student: Option<f64>,
    judge_baseline: Option<f64>,
    quality_student: Option<f64>,
    quality_baseline: Option<f64>,
    top1: Option<f64>,
    win: Option<f64>,
}

/// Why a request brought no scores.
enum Fault {
    /// It may work later.
    Later(Duration, String),
    /// It will not.
    Never(String),
}

impl RemoteWorld {
    /// A world at a gateway, with a key of the scope train for each tenant. What has no score after `patience` stays
    /// without.
    ///
    /// # Errors
    /// Where no client can be made.
    pub fn new(url: &str, keys: BTreeMap<TenantId, SecretString>, patience: Duration) -> Result<Self> {
        let failed = |reason: String| LearnError::Setting(format!("the client of {url} cannot be made: {reason}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(e.to_string()))?;
        let client = Client::builder().timeout(patience).build().map_err(|e| failed(e.to_string()))?;
        let url = format!("{}/v1/rl/score", url.trim_end_matches('/'));
        Ok(Self { runtime, client, url, keys, patience })
    }

    async fn ask(&self, tenant: &TenantId, samples: &[Sample<'_>]) -> Vec<Option<Scored>> {
        let end = Instant::now() + self.patience;
        loop {
            let (pause, why) = match self.post(tenant, samples).await {
                Ok(answers) if answers.len() == samples.len() => return answers.into_iter().map(scored).collect(),
                Ok(answers) => (PAUSE, format!("{} answers for {} samples", answers.len(), samples.len())),
                Err(Fault::Later(pause, why)) => (pause, why),
                Err(Fault::Never(why)) => {
                    tracing::error!(%tenant, why, "the gateway refuses to score");
                    break;
                }
            };
            if Instant::now() + pause >= end {
                tracing::warn!(%tenant, why, "no scores: patience is over");
                break;
            }
            tokio::time::sleep(pause).await;
        }
        vec![None; samples.len()]
    }

    async fn post(&self, tenant: &TenantId, samples: &[Sample<'_>]) -> std::result::Result<Vec<Answer>, Fault> {
        let Some(key) = self.keys.get(tenant) else {
            return Err(Fault::Never(format!("there is no key for the tenant {tenant}")));
        };
        let later = |error: reqwest::Error| Fault::Later(PAUSE, error.without_url().to_string());
        let request = self.client.post(&self.url).bearer_auth(key.expose_secret()).json(&samples);
        let response = request.send().await.map_err(later)?;
        let status = response.status();
        if status.is_success() {
            let reply: Reply = response.json().await.map_err(later)?;
            return Ok(reply.results);
        }
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let pause = seconds.map_or(PAUSE, Duration::from_secs).min(MOST_PAUSE);
        let said: String = response.text().await.unwrap_or_default().chars().take(300).collect();
        let why = format!("HTTP {status}: {said}");
        let passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        Err(if passing { Fault::Later(pause, why) } else { Fault::Never(why) })
    }
}

fn scored(answer: Answer) -> Option<Scored> {
    let Answer { reward, parts, reason } = answer;
    let Some(reward) = reward else {
        tracing::debug!(reason, "a completion has no score");
        return None;
    };
    let named = [
        ("judge", parts.judge),
        ("retrieval", parts.retrieval),
        ("bonus", parts.bonus),
        ("judge_score", parts.judge_student),
        ("quality", parts.quality_student),
        ("judge_baseline", parts.judge_baseline),
        ("quality_baseline", parts.quality_baseline),
        ("top1", parts.top1),
        ("win", parts.win),
    ];
    let valid = parts.format >= 0.0;
    let parts = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    Some(Scored { reward, parts, valid, ..Scored::default() })
}

impl Environment for RemoteWorld {
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
        let mut by_tenant: BTreeMap<TenantId, Vec<(usize, Sample<'_>)>> = BTreeMap::new();
        for (place, item) in items.iter().enumerate() {
            let parts = item.question.split_once('/').and_then(|(tenant, id)| Some((tenant.parse().ok()?, id)));
            if let Some((tenant, item_id)) = parts {
                by_tenant.entry(tenant).or_default().push((place, Sample { item_id, completion: &item.text }));
            }
        }
        let mut scores = vec![None; items.len()];
        for (tenant, samples) in by_tenant {
            for part in samples.chunks(TOGETHER) {
                let asked: Vec<Sample<'_>> = part.iter().map(|(_, s)| Sample { ..*s }).collect();
                let answers = self.runtime.block_on(self.ask(&tenant, &asked));
                for ((place, _), answer) in part.iter().zip(answers) {
                    scores[*place] = answer;
                }
            }
        }
        scores
    }
}
