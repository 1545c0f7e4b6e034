//! What the tests of this crate share.

use recast_config::{Durability, EpisodeSettings};
use recast_domain::{
    Assignment, Conversation, Degradation, Episode, EpisodeHit, EpisodeId, Feedback, FeedbackSignal, LegRank, Legs,
    PolicyId, RequestFacts, Rewrite, RewriteSource, Sampling, ShadowAnswer, ShadowKind, ShadowOutcome, ShadowRun,
    Timings,
};

use crate::labels::{LabelRecord, LabelValue};
use crate::record::encode;
use crate::scores::{RewardRecord, Side, VerdictRecord};
use crate::write::{Write, commit};
use crate::{feedback as events, ledger};

pub(crate) fn settings(durability: Durability) -> EpisodeSettings {
    EpisodeSettings {
        url: String::new().into(),
        durability,
        batch_max: 64,
        retention_days: 0,
        max_bytes: u64::MAX,
        low_water_bytes: 0,
    }
}

/// An episode of `tenant` created at `created_ms`, with something in every field.
pub(crate) fn episode(tenant: &str, created_ms: i64) -> Episode {
    let hit = EpisodeHit {
        id: "p1".to_owned(),
        doc_id: "d1".to_owned(),
        content: "孕期服用前请先咨询医生。".repeat(10),
        rank: 1,
        score: 0.83,
        reranker_score: Some(0.91),
        legs: Legs { bm25: Some(LegRank { rank: 2, score: 11.7 }), dense: None },
        team: None,
    };
    Episode {
        id: EpisodeId::now(),
        tenant: tenant.parse().unwrap(),
        created_ms,
        conversation: Conversation { query: "孕妇能喝吗".to_owned(), ..Conversation::default() },
        request: RequestFacts {
            kb_name: "default".parse().unwrap(),
            top_k: 5,
            score_threshold: 0.5,
            user_id: Some("u-1".to_owned()),
            conversation_id: None,
            request_id: "r-1".to_owned(),
            tags: Default::default(),
        },
        rewrite: Rewrite {
            text: "胶原蛋白肽 孕妇禁忌".to_owned(),
            source: RewriteSource::Local,
            policy: PolicyId::pass_through(),
            token_ids: vec![17, 4, 2],
            log_probs: vec![-0.25, -0.1, -0.003],
            prompt_tokens: 41,
            sampling: Some(Sampling { temperature: 0.7, top_p: 0.9, seed: 7, max_new_tokens: 40 }),
        },
        prompt_hash: "h".to_owned(),
        hits: vec![hit],
        timings: Timings::default(),
        degraded: Vec::new(),
        redacted: false,
        experiment: None,
        refused: None,
    }
}

/// The same with a stage that failed.
pub(crate) fn degraded(tenant: &str, created_ms: i64) -> Episode {
    Episode { degraded: vec![Degradation::RerankTimeout], ..episode(tenant, created_ms) }
}

/// Writes `episodes` as the writer would.
pub(crate) fn insert(connection: &crate::db::Connection, episodes: &[Episode]) {
    let writes: Vec<_> = episodes.iter().map(|episode| Write::Episode(encode(episode).unwrap())).collect();
    let applied = commit(connection, writes.iter(), false).unwrap();
    assert!(applied.iter().all(Result::is_ok), "{applied:?}");
}

/// Version 1 of the experiment `x` with `arm`.
pub(crate) fn assignment(arm: &str) -> Assignment {
    Assignment { experiment: "x".to_owned(), version: 1, arm: arm.to_owned() }
}

/// An episode of the control arm of `x`, and the run of the other arm that it was sampled for.
pub(crate) fn sampled(tenant: &str, created_ms: i64) -> (Episode, ShadowRun) {
    let episode = Episode { experiment: Some(assignment("control")), ..episode(tenant, created_ms) };
    let run = ShadowRun {
        episode: episode.id,
        tenant: episode.tenant.clone(),
        assignment: assignment("treatment"),
        kind: ShadowKind::Treatment,
        sampled_ms: created_ms,
        outcome: None,
    };
    (episode, run)
}

pub(crate) fn completed() -> ShadowOutcome {
    let episode = episode("a", 0);
    let answer = ShadowAnswer {
        rewrite: episode.rewrite,
        prompt_hash: "g".to_owned(),
        hits: episode.hits,
        timings: Timings::default(),
        degraded: Vec::new(),
    };
    ShadowOutcome::Completed { answer: Box::new(answer) }
}

pub(crate) fn failed(reason: &str) -> ShadowOutcome {
    ShadowOutcome::Failed { reason: reason.to_owned() }
}

pub(crate) fn dropped(reason: &str) -> ShadowOutcome {
    ShadowOutcome::Dropped { reason: reason.to_owned() }
}

pub(crate) fn ended(run: &ShadowRun, outcome: ShadowOutcome) -> ShadowRun {
    ShadowRun { outcome: Some(outcome), ..run.clone() }
}

/// A thumb up for `episode`, received at `created_ms`.
pub(crate) fn feedback(episode: &Episode, created_ms: i64) -> Feedback {
    Feedback {
        id: uuid::Uuid::now_v7(),
        tenant: episode.tenant.clone(),
        episode: episode.id,
        created_ms,
        signal: FeedbackSignal::Thumbs { up: true },
    }
}

/// A verdict about the live side of `episode` under the key that `key` fills.
pub(crate) fn verdict(episode: &Episode, key: u8, scores: Option<serde_json::Value>) -> VerdictRecord {
    VerdictRecord {
        tenant: episode.tenant.clone(),
        episode: episode.id,
        side: Side::Live,
        judge: "heuristic-1".to_owned(),
        prompt_version: "p1".to_owned(),
        schema_version: 1,
        key: [key; 32],
        scores,
        reason: "清楚".to_owned(),
        raw: "{}".to_owned(),
        created_ms: 5,
    }
}

/// A reward of the live side of `episode`.
pub(crate) fn reward(episode: &Episode, weights_hash: &str, total: f64) -> RewardRecord {
    RewardRecord {
        tenant: episode.tenant.clone(),
        episode: episode.id,
        side: Side::Live,
        reward_version: 1,
        weights_hash: weights_hash.to_owned(),
        parts: serde_json::json!({ "total": total }),
        created_ms: 6,
    }
}

/// What somebody says about `episode`.
pub(crate) fn label(episode: &Episode, value: LabelValue) -> LabelRecord {
    LabelRecord { tenant: episode.tenant.clone(), episode: episode.id, author: "li".to_owned(), value, created_ms: 7 }
}

/// The writes of an episode with one of everything that can hang on it.
pub(crate) fn everything(episode: &mut Episode) -> [Write; 5] {
    let (sampled, run) = sampled(episode.tenant.as_str(), episode.created_ms);
    let run = ended(&ShadowRun { episode: episode.id, ..run }, completed());
    episode.experiment = sampled.experiment;
    [
        Write::Sampled(encode(episode).unwrap(), Box::new(ledger::encode(&run).unwrap())),
        Write::Feedback(Box::new(events::encode(&feedback(episode, episode.created_ms)).unwrap())),
        Write::Verdicts(vec![verdict(episode, 1, None)]),
        Write::Rewards(vec![reward(episode, "w", 0.5)]),
        Write::Labels(vec![label(episode, LabelValue::GoldRewrite("胶原蛋白肽 孕妇 禁忌".to_owned()))]),
    ]
}
