//! Turns an answered request into an episode. A store that cannot write never stops an answer.

use std::borrow::Cow;

use recast_config::TenantProfile;
use recast_domain::{Conversation, Episode, EpisodeHit, EpisodeId, RequestFacts, Rewrite, TenantId};
use recast_episodes::{EpisodeError, EpisodeStore, redact, redact_conversation, redact_rewrite};

use crate::keys::now_ms;
use crate::pipeline::Run;

/// What may be kept of a conversation: the whole, or what is left without identifiers where the tenant asks for that.
pub struct Kept<'a> {
    /// The conversation.
    pub conversation: Cow<'a, Conversation>,
    /// Whether the tenant asks for it.
    redact: bool,
    /// Whether anything was taken out.
    changed: bool,
}

impl<'a> Kept<'a> {
    /// What a tenant lets be kept of a conversation.
    #[must_use]
    pub fn of(tenant: &TenantProfile, conversation: &'a Conversation) -> Self {
        if !tenant.redact {
            return Self { conversation: Cow::Borrowed(conversation), redact: false, changed: false };
        }
        let (without, changed) = redact_conversation(conversation);
        Self { conversation: Cow::Owned(without), redact: true, changed }
    }

    /// What may be kept of the request's tags.
    fn tags(&self, request: &mut RequestFacts) {
        if self.redact {
            let clean = |text: String| redact(&text).unwrap_or(text);
            let tags = std::mem::take(&mut request.tags);
            request.tags = tags.into_iter().map(|(name, value)| (clean(name), clean(value))).collect();
        }
    }

    /// What may be kept of a rewrite of it.
    #[must_use]
    pub fn rewrite(&self, rewrite: &Rewrite) -> Rewrite {
        let mut rewrite = rewrite.clone();
        if self.redact {
            redact_rewrite(&mut rewrite, self.changed);
        }
        rewrite
    }
}

/// The episode of a run.
#[must_use]
pub fn episode(id: EpisodeId, tenant: TenantId, kept: &Kept<'_>, mut request: RequestFacts, run: &Run) -> Episode {
    let trace = &run.trace;
    kept.tags(&mut request);
    let rewrite = kept.rewrite(&trace.rewrite);
    Episode {
        id,
        tenant,
        created_ms: i64::try_from(now_ms()).unwrap_or(i64::MAX),
        conversation: kept.conversation.clone().into_owned(),
        request,
        redacted: kept.changed || rewrite.text != trace.rewrite.text,
        rewrite,
        prompt_hash: run.prompt_hash.clone(),
        hits: trace.hits.iter().map(EpisodeHit::from).collect(),
        timings: trace.timings,
        degraded: trace.degraded.clone(),
        experiment: None,
        refused: None,
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
