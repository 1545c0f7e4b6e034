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
