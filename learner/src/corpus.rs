//! The labelled data of all tenants, and the part of it that training may see.
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use recast_config::TenantProfile;
use recast_domain::{Dialogue, PassageRecord, Split};
use recast_episodes::load_tenant_folder;

use crate::error::{LearnError, Result};
use crate::mentions::{Mentions, Piece, entity_of};
use crate::swap::{SplitDialogue, SplitPassage};

/// One tenant's data, all splits.
#[derive(Debug, Clone)]
pub struct TenantData {
    /// Who it is.
    pub profile: TenantProfile,
    /// All passages.
    pub passages: Vec<PassageRecord>,
    /// All dialogues.
    pub dialogues: Vec<Dialogue>,
    /// The names of the passages' entities.
    pub mentions: Mentions,
}

/// The data of all tenants, in the order of their folders' names.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The tenants.
    pub tenants: Vec<TenantData>,
}

/// What a trainer may use of one tenant: train dialogues, and passages about entities that train dialogues know.
#[derive(Debug, Clone)]
pub struct TenantTraining {
    /// The tenant's id.
    pub id: String,
    /// The tenant's instructions, of the chat layout.
    pub system_prompt: String,
    /// The names of the tenant's entities.
    pub mentions: Mentions,
    /// Train dialogues, names found.
    pub(crate) dialogues: Vec<SplitDialogue>,
    /// Passages that training may see, names found.
    pub(crate) passages: Vec<SplitPassage>,
    /// Place in `passages` by passage id.
    pub(crate) by_id: HashMap<String, usize>,
    /// Entities that no train dialogue knows; their passages are not here.
    pub held_out: BTreeSet<String>,
}

/// What trainers may use of all tenants.
#[derive(Debug, Clone)]
pub struct TrainingData {
    /// The tenants.
    pub tenants: Vec<TenantTraining>,
}

/// A passage's text as it is searched, embedded and reranked: with its title, where it does not say it itself.
#[must_use]
pub fn searched_text(passage: &PassageRecord) -> String {
    if passage.title.is_empty() || passage.text.contains(&passage.title) {
        passage.text.clone()
    } else {
        format!("{}\n{}", passage.title, passage.text)
    }
}

impl Corpus {
    /// Reads every folder of `dir` that holds a `tenant.toml`.
    ///
    /// # Errors
    /// With every problem of a tenant's files, or where there is no tenant.
    pub fn load(dir: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(dir).map_err(LearnError::io(dir))?;
        let mut folders = Vec::new();
        for entry in entries {
            let path = entry.map_err(LearnError::io(dir))?.path();
            if path.join("tenant.toml").exists() {
                folders.push(path);
            }
        }
        folders.sort();
        if folders.is_empty() {
            return Err(LearnError::Data(format!("no folder with a tenant.toml in {}", dir.display())));
        }
        let load = |folder: &std::path::PathBuf| {
            let tenant = load_tenant_folder(folder).map_err(|error| LearnError::Data(error.to_string()))?;
            Ok(TenantData::new(tenant.profile, tenant.passages, tenant.dialogues))
        };
        Ok(Self { tenants: folders.iter().map(load).collect::<Result<_>>()? })
    }

    /// The part that trainers may use.
    ///
    /// # Errors
    /// Where a tenant has no train dialogue.
    pub fn training(&self) -> Result<TrainingData> {
        let tenants = self.tenants.iter().map(TenantData::training).collect::<Result<_>>()?;
        Ok(TrainingData { tenants })
    }
}

impl TenantData {
    /// A tenant's data with its names collected.
    #[must_use]
    pub fn new(profile: TenantProfile, passages: Vec<PassageRecord>, dialogues: Vec<Dialogue>) -> Self {
        let mentions = Mentions::of(&passages);
        Self { profile, passages, dialogues, mentions }
    }

    /// Dialogues of a split.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Dialogue> {
        self.dialogues.iter().filter(move |dialogue| dialogue.split == split)
    }

    pub(crate) fn training(&self) -> Result<TenantTraining> {
        let dialogues: Vec<SplitDialogue> =
            self.split(Split::Train).map(|dialogue| SplitDialogue::new(dialogue, &self.mentions)).collect();
        if dialogues.is_empty() {
            return Err(LearnError::Data(format!("tenant {} has no train dialogue", self.profile.id)));
        }
        let known = self.known_entities(&dialogues);
        let all = self.passages.iter().map(|passage| entity_of(passage).to_owned()).filter(|entity| !entity.is_empty());
        let held_out: BTreeSet<String> = all.filter(|entity| !known.contains(entity)).collect();
        let split = self.passages.iter().map(|passage| SplitPassage::new(passage, &self.mentions));
        let allowed = |passage: &SplitPassage| {
            let names = passage.text.0.iter().filter_map(|piece| match piece {
                Piece::Name(form) => Some(&self.mentions.form(*form).entity),
                Piece::Text(_) => None,
            });
            !held_out.contains(&passage.entity) && !names.into_iter().any(|entity| held_out.contains(entity))
        };
        let passages: Vec<SplitPassage> = split.filter(allowed).collect();
        let by_id = passages.iter().enumerate().map(|(place, passage)| (passage.id.clone(), place)).collect();
        Ok(TenantTraining {
            id: self.profile.id.to_string(),
            system_prompt: self.profile.system_prompt.clone(),
            mentions: self.mentions.clone(),
            dialogues,
            passages,
            by_id,
            held_out,
        })
    }

    /// Entities that train dialogues speak of or are answered by.
    fn known_entities(&self, dialogues: &[SplitDialogue]) -> HashSet<String> {
        let entities: HashMap<&str, &str> =
            self.passages.iter().map(|passage| (passage.id.as_str(), entity_of(passage))).collect();
        let answered = dialogues.iter().flat_map(|dialogue| &dialogue.relevant);
        let answered = answered.filter_map(|relevance| entities.get(relevance.id.as_str()));
        let spoken = dialogues.iter().flat_map(|dialogue| &dialogue.forms);
        let spoken = spoken.map(|form| self.mentions.form(*form).entity.as_str());
        answered.copied().chain(spoken).filter(|entity| !entity.is_empty()).map(str::to_owned).collect()
    }
}

impl TrainingData {
    /// Every text that training may see: what a tokenizer may learn from.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for tenant in &self.tenants {
            texts.push(tenant.id.clone());
            let parts = tenant.dialogues.iter().flat_map(SplitDialogue::texts);
            texts.extend(parts.map(|text| text.original(&tenant.mentions)));
            texts.extend(tenant.passages.iter().map(|passage| passage.text.original(&tenant.mentions)));
        }
        texts
    }

    /// Full names of the entities that training knows.
    #[must_use]
    pub fn entity_names(&self) -> BTreeSet<String> {
        let passages = self.tenants.iter().flat_map(|tenant| &tenant.passages);
        passages.map(|passage| passage.entity.clone()).filter(|entity| !entity.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swap::tests::tenant;

    #[test]
    fn what_training_gets_knows_no_other_split() {
        let tenant = tenant();
        let training = tenant.training().unwrap();
        assert_eq!(training.held_out.iter().map(String::as_str).collect::<Vec<_>>(), ["玫瑰饮", "秘密胶囊"]);
        assert_eq!(training.dialogues.len(), 10);
        let data = TrainingData { tenants: vec![training] };
        let texts = data.texts().join("\n");
        for secret in ["玫瑰", "秘密", "验证"] {
            assert!(!texts.contains(secret), "{secret} leaked");
        }
        assert!(texts.contains("胶原饮") && texts.contains("孕妇"));
        assert!(!data.entity_names().contains("秘密胶囊"));
    }
}
