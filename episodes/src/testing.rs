//! What the tests of this crate share.

use recast_config::{Durability, EpisodeSettings};
use recast_domain::{
    Conversation, Degradation, Episode, EpisodeHit, EpisodeId, LegRank, Legs, PolicyId, RequestFacts, Rewrite,
    RewriteSource, Sampling, Timings,
};

use crate::record::encode;
use crate::write::{Write, commit};

pub(crate) fn settings(durability: Durability) -> EpisodeSettings {
    EpisodeSettings { durability, batch_max: 64, retention_days: 0, max_bytes: u64::MAX, low_water_bytes: 0 }
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
        experiment: None,
    }
}

/// The same with a stage that failed.
pub(crate) fn degraded(tenant: &str, created_ms: i64) -> Episode {
    Episode { degraded: vec![Degradation::RerankTimeout], ..episode(tenant, created_ms) }
}

/// Writes `episodes` as the writer would.
pub(crate) fn insert(connection: &mut rusqlite::Connection, episodes: &[Episode]) {
    let writes: Vec<_> = episodes.iter().map(|episode| Write::Episode(encode(episode).unwrap())).collect();
    let applied = commit(connection, writes.iter(), false).unwrap();
    assert!(applied.iter().all(Result::is_ok), "{applied:?}");
}
