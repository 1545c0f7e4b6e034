//! Verdicts on their way into metrics and into the store.

use std::collections::{BTreeMap, HashMap};

use recast_domain::{EpisodeId, TenantId};
use recast_episodes::{EpisodeError, EpisodeReader, EpisodeStore, RewardRecord, Side, VerdictRecord};
use recast_judge::{GroupVerdict, Judged, PROMPT_VERSION, SCHEMA_VERSION, VerdictFault, VerdictKey};
use serde_json::{Value, json};

use crate::keys::now_ms;

/// Counts what a judge said, and above all what it did not say.
pub fn count(judged: &Judged) {
    let Judged::Missing { fault } = judged else { return };
    metrics::counter!("recast_judge_unscored_total", "reason" => fault.label()).increment(1);
    match fault {
        VerdictFault::BudgetSpent => metrics::counter!("recast_judge_budget_spent_total").increment(1),
        VerdictFault::CanaryScored => metrics::counter!("recast_judge_canary_scored_total").increment(1),
        _ => {}
    }
}

/// Now, milliseconds since the Unix epoch.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

/// The rows of one question to a judge, one a side; an invalid rewrite has none, because nobody was asked.
#[must_use]
pub fn rows(
    tenant: &TenantId,
    episode: EpisodeId,
    verdict: &GroupVerdict,
    sides: &[(Side, &str, &Judged)],
) -> Vec<VerdictRecord> {
    let texts = sides.iter().map(|(_, text, _)| *text);
    let id = episode.to_string();
    let parts: Vec<&str> = [verdict.judge.as_str(), tenant.as_str(), id.as_str()].into_iter().chain(texts).collect();
    let key = VerdictKey::of(&parts).0;
    let raw = match verdict.replies.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        many => json!(many).to_string(),
    };
    let created_ms = now();
    let row = |(side, _, judged): &(Side, &str, &Judged)| {
        let (scores, reason) = match judged {
            Judged::Scored { overall, orders, reason } => {
                (Some(json!({"overall": overall, "orders": orders})), reason.clone())
            }
            Judged::Missing { fault } => (None, fault.to_string()),
            Judged::Invalid { .. } => return None,
        };
        Some(VerdictRecord {
            tenant: tenant.clone(),
            episode,
            side: side.clone(),
            judge: verdict.judge.clone(),
            prompt_version: PROMPT_VERSION.to_string(),
            schema_version: SCHEMA_VERSION,
            key,
            scores,
            reason,
            raw: raw.clone(),
            created_ms,
        })
    };
    sides.iter().filter_map(row).collect()
}

/// A judge's overall scores of the answers to one request, 1 to 5; `None` where there is no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PairScores {
    /// The one that the asker got.
    pub live: Option<f64>,
    /// The other arm's.
    pub shadow: Option<f64>,
    /// That of the same arm once more.
    pub control: Option<f64>,
}

/// What one judge said about some episodes.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeScores {
    /// The judge's id.
    pub judge: String,
    /// Episodes that it did not judge are not there.
    pub scores: HashMap<(TenantId, EpisodeId), PairScores>,
}

type ByEpisode = HashMap<(TenantId, EpisodeId), PairScores>;

/// What one judge said about these episodes, for a comparison of arms: the judge named, or else the one that spoke
/// last. Scores of two judges are never mixed. `None` where no judge said anything.
///
/// # Errors
/// When the store cannot be read.
pub fn judge_scores(
    reader: &EpisodeReader,
    episodes: &[(TenantId, EpisodeId)],
    judge: Option<&str>,
) -> Result<Option<JudgeScores>, EpisodeError> {
    // by judge, so that what lies in the store is walked once and its words are not kept
    let mut said: BTreeMap<String, (i64, ByEpisode)> = BTreeMap::new();
    for (tenant, episode) in episodes {
        for row in reader.verdicts(tenant, *episode)? {
            let overall = row.scores.as_ref().and_then(|scores| scores.get("overall")).and_then(Value::as_f64);
            let (Some(overall), true) = (overall, judge.is_none_or(|judge| judge == row.judge)) else { continue };
            if let Side::Completion(_) = row.side {
                continue;
            }
            let (last, scores) = said.entry(row.judge).or_default();
            *last = row.created_ms.max(*last);
            let of = scores.entry((tenant.clone(), *episode)).or_default();
            match row.side {
                Side::Live => of.live = Some(overall),
                Side::Shadow => of.shadow = Some(overall),
                Side::Control => of.control = Some(overall),
                Side::Completion(_) => {}
            }
        }
    }
    let last = said.into_iter().max_by_key(|(_, (last, _))| *last);
    Ok(last.map(|(judge, (_, scores))| JudgeScores { judge, scores }))
}

/// Writes verdicts and rewards; a store that cannot write costs the record, never the score.
pub async fn store(episodes: &EpisodeStore, verdicts: Vec<VerdictRecord>, rewards: Vec<RewardRecord>) {
    if let Err(error) = episodes.put_verdicts(verdicts).await {
        metrics::counter!("recast_judge_not_stored_total").increment(1);
        tracing::warn!(%error, "verdicts are not stored");
    }
    if let Err(error) = episodes.put_rewards(rewards).await {
        metrics::counter!("recast_judge_not_stored_total").increment(1);
        tracing::warn!(%error, "rewards are not stored");
    }
}
