//! Labelled questions of the tenants, and the rooms opened for offline runs over them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use recast_config::{DeadlineSettings, Settings, TenantProfile};
use recast_domain::{Dialogue, KbName, Split};
use recast_episodes::{TenantFolder, load_dialogues, load_tenant_folder};
pub use recast_gateway::query_type;
use recast_gateway::{Parts, Pipeline};
use recast_retrieval::eval::metrics::Grades;

use crate::ingest;

/// A tenant with its labelled questions.
pub struct LabelledTenant {
    /// Who it is.
    pub profile: Arc<TenantProfile>,
    /// Everything in its folder.
    pub folder: TenantFolder,
    passages_file: PathBuf,
}

impl LabelledTenant {
    /// The dialogues of a split, at most `limit`.
    pub fn split(&self, split: Split, limit: Option<usize>) -> impl Iterator<Item = &Dialogue> {
        let chosen = self.folder.dialogues.iter().filter(move |dialogue| dialogue.split == split);
        chosen.take(limit.unwrap_or(usize::MAX))
    }

    /// Dialogues about a document that no train dialogue is about: names that training never saw.
    pub fn has_unseen_name(&self, dialogue: &Dialogue, trained: &HashSet<&str>) -> bool {
        let documents = self.documents();
        let best = dialogue.relevant.iter().max_by_key(|relevance| relevance.grade);
        best.and_then(|relevance| documents.get(relevance.id.as_str())).is_some_and(|doc| !trained.contains(doc))
    }

    /// Documents that train dialogues are about.
    pub fn trained_documents(&self) -> HashSet<&str> {
        let documents = self.documents();
        let train = self.split(Split::Train, None).flat_map(|dialogue| &dialogue.relevant);
        train.filter_map(|relevance| documents.get(relevance.id.as_str()).copied()).collect()
    }

    fn documents(&self) -> HashMap<&str, &str> {
        self.folder.passages.iter().map(|passage| (passage.id.as_str(), passage.doc_id.as_str())).collect()
    }
}

/// Grades by passage id.
pub fn grades(dialogue: &Dialogue) -> Grades {
    dialogue.relevant.iter().map(|relevance| (relevance.id.clone(), relevance.grade)).collect()
}

/// The gold rewrite that a question is asked in. Writers differ; each question is asked in the words of one of them,
/// drawn by its id.
pub fn one_gold(dialogue: &Dialogue) -> &str {
    let drawn = dialogue.id.bytes().map(usize::from).sum::<usize>() % dialogue.gold_rewrites.len().max(1);
    dialogue.gold_rewrites.get(drawn).map_or("", String::as_str)
}

/// Reads the dialogues of one file: those of the tenant whose folder it is in, or else of the tenant that `only` names
/// below `tenants_dir`.
pub fn load_file(file: &Path, tenants_dir: &Path, only: Option<&str>) -> anyhow::Result<Vec<LabelledTenant>> {
    let beside = file.parent().filter(|folder| folder.join("tenant.toml").is_file()).map(Path::to_owned);
    let folder = beside.or_else(|| only.map(|tenant| tenants_dir.join(tenant))).with_context(|| {
        format!("{}: no tenant.toml beside it: say whose dialogues these are with --tenant", file.display())
    })?;
    let dialogues = load_dialogues(file)?;
    let mut tenants = load(&folder, only)?;
    if let [tenant] = tenants.as_mut_slice() {
        let known: HashSet<&str> = tenant.folder.passages.iter().map(|passage| passage.id.as_str()).collect();
        let mut labels = dialogues.iter().flat_map(|dialogue| dialogue.relevant.iter().map(move |one| (dialogue, one)));
        if let Some((dialogue, unknown)) = labels.find(|(_, one)| !known.contains(one.id.as_str())) {
            let (id, passage, folder) = (&dialogue.id, &unknown.id, folder.display());
            bail!("{}: dialogue {id}: relevant {passage:?} is no passage of {folder}", file.display());
        }
        tenant.folder.dialogues = dialogues;
    }
    Ok(tenants)
}

/// Reads one tenant folder, or every tenant folder below `data`.
pub fn load(data: &Path, only: Option<&str>) -> anyhow::Result<Vec<LabelledTenant>> {
    let mut folders = Vec::new();
    if data.join("tenant.toml").is_file() {
        folders.push(data.to_owned());
    } else {
        for entry in std::fs::read_dir(data).with_context(|| data.display().to_string())? {
            folders.push(entry?.path());
        }
        folders.retain(|folder| folder.join("tenant.toml").is_file() && folder.join("dialogues.jsonl").is_file());
        folders.sort();
    }
    let mut tenants = Vec::new();
    for folder in folders {
        let loaded = load_tenant_folder(&folder)?;
        if only.is_none_or(|only| loaded.profile.id.as_str() == only) {
            let passages_file = folder.join("passages.jsonl");
            tenants.push(LabelledTenant { profile: Arc::new(loaded.profile.clone()), folder: loaded, passages_file });
        }
    }
    if tenants.is_empty() {
        bail!(
            "{}: no tenant folder with tenant.toml and dialogues.jsonl{}",
            data.display(),
            match only {
                Some(only) => format!(" has the id {only}"),
                None => String::new(),
            }
        );
    }
    Ok(tenants)
}

/// Opens the rooms over a store of its own below the state folder, so that a running gateway is not disturbed, and
/// ingests the tenants' passages there.
pub async fn open(settings: &Settings, tenants: &[LabelledTenant]) -> anyhow::Result<(Parts, Pipeline)> {
    let mut settings = settings.clone();
    settings.state.dir = settings.state.dir.join("offline");
    let parts = Parts::open(&settings).await?;
    for tenant in tenants {
        let files = std::slice::from_ref(&tenant.passages_file);
        ingest::into_store(parts.pipeline.retriever(), &tenant.profile.id, &KbName::default(), files).await?;
    }
    let profiles = tenants.iter().map(|tenant| (tenant.profile.id.clone(), Arc::clone(&tenant.profile))).collect();
    parts.pipeline.retriever().set_tenants(&profiles);
    parts.pipeline.retriever().warm_up().await?;
    let pipeline = parts.pipeline.with_deadlines(patient());
    Ok((parts, pipeline))
}

/// Deadlines of runs that nobody waits for.
pub fn patient() -> DeadlineSettings {
    DeadlineSettings {
        request_ms: 120_000,
        rewrite_ms: 60_000,
        remote_rewrite_ms: 60_000,
        retrieval_ms: 30_000,
        rerank_ms: 30_000,
    }
}
