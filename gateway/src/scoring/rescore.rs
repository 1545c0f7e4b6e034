//! Rewards of stored episodes, computed again under other weights.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use recast_domain::{EpisodeId, TenantId};
use recast_episodes::{EpisodeError, EpisodeReader, RewardRecord, ScanRange, Side};
use recast_judge::{REWARD_VERSION, RewardWeights};

use crate::scoring::facts::StoredReward;

/// What a walk over episodes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Rescored {
    /// Episodes that were looked at.
    pub episodes: u64,
    /// Rewards that were computed again.
    pub rewards: u64,
    /// Those of them without a number, because a verdict or a search is missing.
    pub missing: u64,
    /// Episodes or rewards that cannot be read.
    pub unreadable: u64,
}

/// Computes the rewards of a range of episodes again, from the facts that are stored with them, and shows each to
/// `visit`; oldest episode first, then by side. The same store and weights give the same rewards in the same order.
/// Memory does not grow with the range.
///
/// # Errors
/// When the store itself cannot be read, or `visit` fails.
pub fn rescore<E: From<EpisodeError>>(
    reader: &EpisodeReader,
    tenant: &TenantId,
    range: ScanRange,
    weights: &RewardWeights,
    mut visit: impl FnMut(RewardRecord, &StoredReward) -> Result<(), E>,
) -> Result<Rescored, E> {
    let hash = weights.hash();
    let mut done = Rescored::default();
    let mut failed = None;
    done.episodes = reader.scan(tenant, range, |episode| {
        let facts = episode.and_then(|episode| Ok((episode.id, facts(reader, tenant, episode.id)?)));
        let (id, facts) = match facts {
            Ok(facts) => facts,
            Err(_) => {
                done.unreadable += 1;
                return ControlFlow::Continue(());
            }
        };
        for (side, (stored, created_ms)) in facts {
            let Some(stored) = stored else {
                done.unreadable += 1;
                continue;
            };
            let again = StoredReward { reward: stored.facts.reward(weights), facts: stored.facts };
            done.rewards += 1;
            done.missing += u64::from(matches!(again.reward, recast_judge::Reward::Missing { .. }));
            let record = RewardRecord {
                tenant: tenant.clone(),
                episode: id,
                side,
                reward_version: REWARD_VERSION,
                weights_hash: hash.clone(),
                parts: serde_json::to_value(&again).unwrap_or_default(),
                created_ms,
            };
            if let Err(error) = visit(record, &again) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(done),
    }
}

/// The facts of each side, from its oldest reward: rewards under other weights hold the same.
fn facts(
    reader: &EpisodeReader,
    tenant: &TenantId,
    episode: EpisodeId,
) -> Result<BTreeMap<Side, (Option<StoredReward>, i64)>, EpisodeError> {
    let mut rows = reader.rewards(tenant, episode)?;
    rows.sort_by(|a, b| (a.created_ms, &a.weights_hash).cmp(&(b.created_ms, &b.weights_hash)));
    let mut sides = BTreeMap::new();
    for row in rows {
        let RewardRecord { side, parts, created_ms, .. } = row;
        sides.entry(side).or_insert_with(|| (serde_json::from_value(parts).ok(), created_ms));
    }
    Ok(sides)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use recast_config::{Durability, EpisodeSettings};
    use recast_domain::{Conversation, Episode, KbName, PolicyId, RequestFacts, Rewrite, RewriteSource, Timings};
    use recast_episodes::EpisodeStore;
    use recast_judge::{Judged, Retrieved, Reward, VerdictFault};

    use super::*;
    use crate::scoring::facts::{RewardFacts, SideFacts};

    fn tenant() -> TenantId {
        "alpha".parse().unwrap()
    }

    fn episode(number: u32) -> Episode {
        Episode {
            id: EpisodeId(uuid::Uuid::from_u128(1 + u128::from(number))),
            tenant: tenant(),
            created_ms: 1,
            conversation: Conversation { query: format!("问题 {number}"), ..Conversation::default() },
            request: RequestFacts {
                kb_name: KbName::default(),
                top_k: 5,
                score_threshold: 0.0,
                user_id: None,
                conversation_id: None,
                request_id: String::new(),
                tags: Default::default(),
            },
            rewrite: Rewrite::plain("改写", RewriteSource::PassThrough, PolicyId::pass_through()),
            prompt_hash: String::new(),
            hits: Vec::new(),
            timings: Timings::default(),
            degraded: Vec::new(),
            redacted: false,
            experiment: None,
            refused: None,
        }
    }

    fn reward(number: u32) -> RewardRecord {
        let judged = |overall: f64| Judged::Scored { overall, orders: Vec::new(), reason: String::new() };
        let missing = Judged::Missing { fault: VerdictFault::Late };
        let score = f64::from(number % 97) / 97.0;
        let side = |judged, score: f64| SideFacts {
            text: "改写".to_owned(),
            judged,
            retrieved: Retrieved { scores: Some(vec![score, score / 3.0]), labels: None },
        };
        let facts = RewardFacts {
            judge: "test-1".to_owned(),
            retriever_snapshot: "s".to_owned(),
            student: side(if number % 10 == 9 { missing } else { judged(4.0 + score / 2.0) }, score),
            baseline: side(judged(4.0), 0.5),
        };
        let weights = RewardWeights::default();
        RewardRecord {
            tenant: tenant(),
            episode: episode(number).id,
            side: Side::Live,
            reward_version: REWARD_VERSION,
            weights_hash: weights.hash(),
            parts: serde_json::to_value(StoredReward { reward: facts.reward(&weights), facts }).unwrap(),
            created_ms: 1,
        }
    }

    async fn store(folder: &std::path::Path, episodes: u32) -> EpisodeStore {
        let settings = EpisodeSettings {
            url: String::new().into(),
            durability: Durability::Strict,
            batch_max: 512,
            retention_days: 0,
            max_bytes: u64::MAX,
            low_water_bytes: 0,
        };
        let store = EpisodeStore::open(folder.join("episodes.sqlite"), &settings).unwrap();
        for first in (0..episodes).step_by(500) {
            let some = first..(first + 500).min(episodes);
            let appended = futures::future::join_all(some.clone().map(|number| store.append(episode(number)))).await;
            appended.into_iter().for_each(|one| one.unwrap());
            store.put_rewards(some.map(reward).collect()).await.unwrap();
        }
        store
    }

    fn bytes(store: &EpisodeStore, range: ScanRange, weights: &RewardWeights) -> (Vec<u8>, Rescored) {
        let mut bytes = Vec::new();
        let done = rescore(&store.reader(), &tenant(), range, weights, |record, _| {
            bytes.extend(record.parts.to_string().into_bytes());
            Ok::<_, EpisodeError>(())
        });
        (bytes, done.unwrap())
    }

    #[tokio::test]
    async fn the_same_store_and_weights_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), 300).await;
        let plan = RewardWeights::default();
        let (first, done) = bytes(&store, ScanRange::default(), &plan);
        assert_eq!(done, Rescored { episodes: 300, rewards: 300, missing: 30, unreadable: 0 });
        assert_eq!(bytes(&store, ScanRange::default(), &plan).0, first);
        let other = RewardWeights { judge: 0.9, ..plan.clone() };
        assert_ne!(bytes(&store, ScanRange::default(), &other).0, first);

        // rewards that are stored again under other weights change nothing
        let mut again = Vec::new();
        let keep = |mut record: RewardRecord, stored: &StoredReward| {
            assert!(!matches!(stored.reward, Reward::Invalid { .. }));
            record.created_ms = 2;
            again.push(record);
            Ok::<_, EpisodeError>(())
        };
        rescore(&store.reader(), &tenant(), ScanRange::default(), &other, keep).unwrap();
        assert_eq!(store.put_rewards(again).await.unwrap().stored, 300);
        assert_eq!(bytes(&store, ScanRange::default(), &plan).0, first);

        let some = ScanRange { after: Some(episode(9).id), until: Some(episode(19).id) };
        assert_eq!(bytes(&store, some, &plan).1.rewards, 10);
        let nobody = rescore(&store.reader(), &"beta".parse().unwrap(), ScanRange::default(), &plan, |_, _| {
            Ok::<_, EpisodeError>(())
        });
        assert_eq!(nobody.unwrap(), Rescored::default());
    }

    /// A measurement: `cargo test -p recast-gateway --lib -- --ignored --nocapture rescoring_speed`.
    #[tokio::test]
    #[ignore = "a measurement, to be run alone"]
    #[expect(clippy::print_stdout, reason = "a measurement is printed")]
    async fn rescoring_speed() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), 100_000).await;
        let start = Instant::now();
        let (first, done) = bytes(&store, ScanRange::default(), &RewardWeights::default());
        let seconds = start.elapsed().as_secs_f64();
        println!("{done:?} in {seconds:.2} s: {:.0} episodes a second", done.episodes as f64 / seconds);
        assert_eq!(done.rewards, 100_000);
        assert_eq!(bytes(&store, ScanRange::default(), &RewardWeights::default()).0, first);
    }
}
