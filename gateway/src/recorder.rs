//! Turns an answered request into an episode. A store that cannot write never stops an answer.

use recast_domain::{Conversation, Episode, EpisodeHit, EpisodeId, RequestFacts, TenantId};
use recast_episodes::{EpisodeError, EpisodeStore};

use crate::keys::now_ms;
use crate::pipeline::Run;

/// The episode of a run.
#[must_use]
pub fn episode(
    id: EpisodeId,
    tenant: TenantId,
    conversation: &Conversation,
    request: RequestFacts,
    run: &Run,
) -> Episode {
    let trace = &run.trace;
    Episode {
        id,
        tenant,
        created_ms: i64::try_from(now_ms()).unwrap_or(i64::MAX),
        conversation: conversation.clone(),
        request,
        rewrite: trace.rewrite.clone(),
        prompt_hash: run.prompt_hash.clone(),
        hits: trace.hits.iter().map(EpisodeHit::from).collect(),
        timings: trace.timings,
        degraded: trace.degraded.clone(),
        experiment: None,
    }
}

/// Appends; `false` where the store could not promise it. The store's own patience bounds the wait.
pub async fn record(store: &EpisodeStore, episode: Episode) -> bool {
    let id = episode.id;
    stored(id, store.append(episode).await)
}

/// Whether the store promised it; says and counts where it did not.
pub fn stored(id: EpisodeId, outcome: Result<(), EpisodeError>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(error) => {
            metrics::counter!("recast_episodes_not_stored_total").increment(1);
            tracing::warn!(episode = %id, %error, "an answer went out without its episode");
            false
        }
    }
}
