//! Judging and rewards: of live answers in the background, and of completions that a trainer sampled, on request.
//!
//! Nothing here is in the way of a reply. What is missing stays missing: a judge or a search that fails makes an
//! unscored sample, never a number.

mod books;
mod environment;
mod facts;
mod item;
mod judging;
mod outcome;
pub mod request;
mod rescore;
mod scorer;
mod snapshot;
mod worker;

use std::sync::Arc;

use recast_config::{JudgeKind, Settings};
use recast_domain::ErrorKind;
use recast_episodes::EpisodeStore;
use recast_judge::{Judge, JudgeError, open_judge};

use books::StoredBooks;
pub use environment::World;
pub use facts::{RewardFacts, SideFacts, StoredReward, whole};
pub use item::{Item, Items, NoItem};
pub use judging::judge_scores;
pub use outcome::{Outcome, Parts, Status};
pub use rescore::{Rescored, rescore};
pub use scorer::Scorer;
pub use worker::Judging;

use crate::error::GatewayError;
use crate::limits::Limits;

/// All that scoring needs, opened.
pub struct Scoring {
    /// Where items come from.
    pub items: Items,
    /// Scores completions.
    pub scorer: Arc<Scorer>,
    /// Judges live answers.
    pub judging: Arc<Judging>,
}

impl Scoring {
    /// Opens the judge of the settings, asks it one question, and starts the worker.
    ///
    /// # Errors
    /// When the judge cannot work as it is set up. One that does not answer now is no reason not to serve: it is asked
    /// again with the first answer.
    pub async fn open(
        settings: &Settings,
        parts: &crate::parts::Parts,
        episodes: Arc<EpisodeStore>,
        limits: Arc<Limits>,
    ) -> Result<Self, GatewayError> {
        let judge = probed(settings, &episodes).await?;
        let scorer = Arc::new(Scorer::new(settings, parts, judge, Arc::clone(&episodes), Arc::clone(&limits)));
        let items = Items::new(settings.tenants.dir.clone(), Arc::clone(&episodes));
        let judging = Arc::new(Judging::start(settings, Arc::clone(&scorer), episodes, limits));
        Ok(Self { items, scorer, judging })
    }
}

async fn probed(settings: &Settings, episodes: &Arc<EpisodeStore>) -> Result<Option<Arc<dyn Judge>>, JudgeError> {
    let Some(judge) = open_judge(&settings.judge, Some(Arc::new(StoredBooks(Arc::clone(episodes)))))? else {
        tracing::info!("judge: off");
        return Ok(None);
    };
    match judge.probe().await {
        Ok(()) => tracing::info!(judge = judge.id(), "the judge answers"),
        Err(error) if error.kind() == ErrorKind::Unavailable && settings.judge.kind == JudgeKind::Openai => {
            tracing::warn!(judge = judge.id(), %error, "the judge does not answer now; verdicts are missing until it does");
        }
        Err(error) => return Err(error),
    }
    Ok(Some(judge))
}
