//! The questions that completions are scored on, and where they come from.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use recast_config::TenantProfile;
use recast_domain::{Conversation, Dialogue, EpisodeId, ErrorKind, KbName, Relevance, TenantId};
use recast_episodes::{EpisodeStore, load_dialogues};

/// A question of one tenant, with the rewrite that completions are compared with.
#[derive(Debug, Clone)]
pub struct Item {
    /// As the caller names it.
    pub id: String,
    /// Whose question it is.
    pub tenant: Arc<TenantProfile>,
    /// The question and its context.
    pub conversation: Conversation,
    /// The knowledge base to search.
    pub kb_name: KbName,
    /// The passages that answer it, where that is known.
    pub labels: Vec<Relevance>,
    /// The rewrite to compare with.
    pub baseline: String,
    /// The episode it is, where it is one; verdicts and rewards are stored with it.
    pub episode: Option<EpisodeId>,
}

impl Item {
    /// A hash of everything above: items that differ in any of it share nothing.
    #[must_use]
    pub fn key(&self) -> blake3::Hash {
        let Self { id, tenant, conversation, kb_name, labels, baseline, episode: _ } = self;
        let all = serde_json::to_vec(&(tenant.id.as_str(), id, conversation, kb_name, labels, baseline));
        blake3::hash(&all.unwrap_or_default())
    }
}

/// Why there is no such item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoItem {
    /// Neither a dialogue nor an episode of the tenant has this id.
    Unknown,
    /// The dialogues or the episodes cannot be read now.
    Unreadable,
}

/// When a file was written, and its length.
type Stamp = (SystemTime, u64);
/// The dialogues of a tenant by id.
type ById = Arc<HashMap<String, Dialogue>>;

/// Finds items by their ids: first among the dialogues in the tenants' folders, then among the episodes.
pub struct Items {
    folder: PathBuf,
    episodes: Arc<EpisodeStore>,
    read: Arc<Mutex<HashMap<TenantId, (Stamp, ById)>>>,
}

impl Items {
    /// Over the folder of tenants and the episode store.
    pub fn new(folder: PathBuf, episodes: Arc<EpisodeStore>) -> Self {
        Self { folder, episodes, read: Arc::default() }
    }

    /// The item of this tenant with this id.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub async fn find(&self, tenant: &Arc<TenantProfile>, id: &str) -> Result<Item, NoItem> {
        if let Some(dialogue) = self.dialogues(&tenant.id).await?.get(id) {
            return Ok(Item {
                id: id.to_owned(),
                tenant: Arc::clone(tenant),
                conversation: dialogue.conversation(),
                kb_name: KbName::default(),
                labels: dialogue.relevant.clone(),
                baseline: dialogue.query.clone(),
                episode: None,
            });
        }
        let episode: EpisodeId = id.parse().map_err(|_| NoItem::Unknown)?;
        let episode = self.episodes.get(&tenant.id, episode).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => NoItem::Unknown,
            _ => {
                tracing::warn!(%error, "an episode cannot be read to score a completion of it");
                NoItem::Unreadable
            }
        })?;
        Ok(Item {
            id: id.to_owned(),
            tenant: Arc::clone(tenant),
            kb_name: episode.request.kb_name,
            labels: Vec::new(),
            baseline: episode.rewrite.text,
            conversation: episode.conversation,
            episode: Some(episode.id),
        })
    }

    /// The dialogues of a tenant; read again when the file has changed. A tenant without the file has none.
    async fn dialogues(&self, tenant: &TenantId) -> Result<ById, NoItem> {
        let file = self.folder.join(tenant.as_str()).join("dialogues.jsonl");
        let (kept, tenant) = (Arc::clone(&self.read), tenant.clone());
        let read = tokio::task::spawn_blocking(move || {
            let Ok(meta) = file.metadata() else { return Some(ById::default()) };
            let stamp = (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len());
            let lock = || kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, dialogues)) = lock().get(&tenant).filter(|(then, _)| *then == stamp) {
                return Some(Arc::clone(dialogues));
            }
            match load_dialogues(&file) {
                Ok(dialogues) => {
                    let by_id = dialogues.into_iter().map(|dialogue| (dialogue.id.clone(), dialogue));
                    let by_id: ById = Arc::new(by_id.collect());
                    lock().insert(tenant, (stamp, Arc::clone(&by_id)));
                    Some(by_id)
                }
                Err(error) => {
                    tracing::warn!(%error, "the dialogues of a tenant cannot be read");
                    None
                }
            }
        });
        read.await.ok().flatten().ok_or(NoItem::Unreadable)
    }
}
