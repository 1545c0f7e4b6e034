//! Live answers to questions that are labelled: what sort of question it was, and how good the ranking is by its labels.

use std::collections::HashMap;
use std::path::Path;

use recast_domain::{Dialogue, Episode, EpisodeHit, QueryType, TenantId};
use recast_episodes::load_dialogues;
use recast_experiments::report::LabelFacts;
use recast_retrieval::eval::metrics::{Grades, ndcg, recall, success};

/// The labelled questions of some tenants.
///
/// An answer is to a labelled question where its request named the dialogue, as `conversation_id` or as `x-request-id`,
/// and asked what the dialogue asks. A name alone is not enough: conversations go on.
#[derive(Debug, Default)]
pub struct KnownQuestions(HashMap<TenantId, Named>);

/// Dialogues by their ids and by those of their conversations.
#[derive(Debug, Default)]
struct Named {
    dialogues: Vec<Dialogue>,
    places: HashMap<String, Vec<usize>>,
}

impl KnownQuestions {
    /// Those of these tenants, from `dialogues.jsonl` in their folders below `folder`. A tenant without the file has
    /// none; neither has one whose file cannot be read, which is logged: a report does not fail for it.
    pub fn read<'a>(folder: &Path, tenants: impl IntoIterator<Item = &'a TenantId>) -> Self {
        let mut known = Self::default();
        for tenant in tenants {
            let file = folder.join(tenant.as_str()).join("dialogues.jsonl");
            if !file.is_file() {
                continue;
            }
            match load_dialogues(&file) {
                Ok(dialogues) => drop(known.0.insert(tenant.clone(), Named::of(dialogues))),
                Err(error) => tracing::warn!(%error, "a report goes without the labels of {tenant}"),
            }
        }
        known
    }

    /// The labelled question that an episode answered.
    #[must_use]
    pub fn find(&self, episode: &Episode) -> Option<&Dialogue> {
        let Named { dialogues, places } = self.0.get(&episode.tenant)?;
        let names = [episode.request.conversation_id.as_deref(), Some(episode.request.request_id.as_str())];
        let named = names.into_iter().flatten().filter_map(|name| places.get(name)).flatten();
        let asked = &episode.conversation;
        let mut same =
            named.map(|place| &dialogues[*place]).filter(|one| one.query.trim() == asked.query.trim()).peekable();
        let first = same.peek().copied();
        // one conversation may ask the same again later on
        same.find(|one| one.history.len() == asked.history.len()).or(first)
    }
}

impl Named {
    fn of(dialogues: Vec<Dialogue>) -> Self {
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, one) in dialogues.iter().enumerate() {
            places.entry(one.id.clone()).or_default().push(place);
            if one.conversation_id != one.id {
                places.entry(one.conversation_id.clone()).or_default().push(place);
            }
        }
        Self { dialogues, places }
    }
}

/// The kind of a question in one word.
#[must_use]
pub fn query_type(dialogue: &Dialogue) -> &'static str {
    match dialogue.query_type {
        QueryType::General => "general",
        QueryType::Technical => "technical",
        QueryType::Compliance => "compliance",
    }
}

/// A ranking held against a question's labels.
#[must_use]
pub fn label_facts(hits: &[EpisodeHit], dialogue: &Dialogue) -> LabelFacts {
    let grades: Grades = dialogue.relevant.iter().map(|label| (label.id.clone(), label.grade)).collect();
    let ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
    // the gain of an empty ranking is a sum of nothing, -0.0
    LabelFacts {
        top1: success(&ids, &grades, 1),
        recall_at_5: recall(&ids, &grades, 5),
        ndcg_at_10: ndcg(&ids, &grades, 10) + 0.0,
    }
}
