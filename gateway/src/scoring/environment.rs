//! The world of a learner in this process: completions are searched for by the one pipeline, judged and rewarded as
//! `/v1/rl/score` does it.

use std::collections::HashMap;
use std::sync::Arc;

use recast_config::{Settings, TenantProfile};
use recast_domain::{Conversation, Dialogue, Environment, EpisodeId, KbName, RolloutItem, Scored};
use recast_episodes::EpisodeStore;
use tokio::runtime::Handle;

use crate::error::GatewayError;
use crate::limits::Limits;
use crate::parts::Parts;
use crate::scoring::outcome::Outcome;
use crate::scoring::{Item, Scorer, probed};

/// Questions by id, and what scores completions of them. Nothing that is scored here becomes an episode.
pub struct World {
    runtime: Handle,
    scorer: Scorer,
    items: HashMap<String, Arc<Item>>,
}

impl World {
    /// A world without questions. Must be called within a runtime, whose threads do the work.
    ///
    /// # Errors
    /// When the judge's settings cannot work.
    pub async fn open(settings: &Settings, parts: &Parts, episodes: Arc<EpisodeStore>) -> Result<Self, GatewayError> {
        let judge = probed(settings, &episodes).await?;
        let limits = Arc::new(Limits::new(&settings.admission));
        let scorer = Scorer::new(settings, parts, judge, episodes, limits);
        Ok(Self { runtime: Handle::current(), scorer, items: HashMap::new() })
    }

    /// Adds a labelled question, whose completions are compared with `baseline`, such as the rewrite of a larger model.
    pub fn add_dialogue(&mut self, id: &str, tenant: &Arc<TenantProfile>, dialogue: &Dialogue, baseline: &str) {
        self.add(Item {
            id: id.to_owned(),
            tenant: Arc::clone(tenant),
            conversation: dialogue.conversation(),
            kb_name: KbName::default(),
            labels: dialogue.relevant.clone(),
            baseline: baseline.to_owned(),
            episode: None,
        });
    }

    /// Adds a question that somebody asked, whose completions are compared with `baseline`. Verdicts and rewards are
    /// kept beside the episode, in the store that this world was opened with.
    pub fn add_episode(
        &mut self,
        id: EpisodeId,
        tenant: &Arc<TenantProfile>,
        (conversation, kb_name): (&Conversation, &KbName),
        baseline: &str,
    ) {
        self.add(Item {
            id: id.to_string(),
            tenant: Arc::clone(tenant),
            conversation: conversation.clone(),
            kb_name: kb_name.clone(),
            labels: Vec::new(),
            baseline: baseline.to_owned(),
            episode: Some(id),
        });
    }

    fn add(&mut self, item: Item) {
        self.items.insert(item.id.clone(), Arc::new(item));
    }

    /// Who judges here; `off` without a judge.
    #[must_use]
    pub fn judge(&self) -> String {
        self.scorer.judge_version()
    }

    /// What is searched with, as one hash: rewards under two of them do not compare.
    #[must_use]
    pub fn snapshot(&self) -> &str {
        self.scorer.snapshot()
    }
}

impl Environment for World {
    fn score(&self, items: &[RolloutItem]) -> Vec<Option<Scored>> {
        let known = items.iter().enumerate().filter_map(|(place, item)| Some((place, self.items.get(&item.question)?)));
        let (places, samples): (Vec<usize>, Vec<(Arc<Item>, String)>) =
            known.map(|(place, item)| (place, (Arc::clone(item), items[place].text.clone()))).unzip();
        let outcomes = self.runtime.block_on(self.scorer.score(&samples));
        let mut scored = vec![None; items.len()];
        for (place, (outcome, (item, text))) in places.into_iter().zip(outcomes.iter().zip(&samples)) {
            scored[place] = of(outcome, text == &item.conversation.query);
        }
        scored
    }
}

fn of(outcome: &Outcome, copied: bool) -> Option<Scored> {
    let reward = outcome.reward?;
    let parts = &outcome.parts;
    let named = [
        ("judge", parts.judge),
        ("retrieval", parts.retrieval),
        ("bonus", parts.bonus),
        ("judge_score", parts.judge_student),
        ("quality", parts.quality_student),
        ("top1", parts.top1),
        ("win", parts.win()),
    ];
    let parts = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    let valid = outcome.parts.format >= 0.0;
    Some(Scored { reward, parts, valid, copied })
}
