use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use recast_domain::PolicyId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterFacts};
use crate::error::{PolicyError, Result};
use crate::scope::Scope;

/// Name of the manifest in a policy's folder.
pub const MANIFEST: &str = "manifest.json";
/// The only form of manifest there is yet.
const FORMAT: u32 = 1;

/// What a policy learned from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRange {
    /// Episodes or examples used.
    pub examples: u64,
    /// Time of the first episode, milliseconds since the Unix epoch, UTC.
    pub from_ms: Option<i64>,
    /// Time of the last episode.
    pub to_ms: Option<i64>,
    /// Names of the data sets, with their hashes where they have one.
    pub sources: Vec<String>,
}

/// A file of a policy as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, 64 hex digits.
    pub blake3: String,
}

/// The facts about a policy. Written once, with the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Form of this file.
    pub format: u32,
    /// Whose policy it is.
    pub scope: Scope,
    /// Its name, which is also its folder's.
    pub policy: PolicyId,
    /// The policy that the training started from; `None` for the base model itself.
    pub parent: Option<PolicyId>,
    /// [`BaseModel::hash`](crate::BaseModel) of the model it belongs to.
    pub base: String,
    /// Rank, scale and reach.
    pub adapter: AdapterFacts,
    /// What it learned from.
    pub data: DataRange,
    /// The settings of the training, as the trainer writes them.
    pub config: Value,
    /// Figures of its evaluation, by name.
    pub metrics: BTreeMap<String, f64>,
    /// When it was published, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
    /// Its files by name.
    pub files: BTreeMap<String, FileEntry>,
}

impl Manifest {
    pub(crate) fn new(facts: AdapterFacts, base: String, draft: &crate::Draft<'_>) -> Self {
        Self {
            format: FORMAT,
            scope: draft.scope.clone(),
            policy: draft.policy.clone(),
            parent: draft.parent.clone(),
            base,
            adapter: facts,
            data: draft.data.clone(),
            config: draft.config.clone(),
            metrics: draft.metrics.clone(),
            created_ms: draft.created_ms,
            files: BTreeMap::new(),
        }
    }

    /// The manifest as it lies on disk.
    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| PolicyError::refused(path, error.to_string(), "give values that JSON has"))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a manifest; it must be the one of the folder it lies in.
    pub(crate) fn parse(path: &Path, bytes: &[u8], scope: &Scope, policy: &PolicyId) -> Result<Self> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| PolicyError::damaged(path, error.to_string()))?;
        if manifest.format != FORMAT {
            let reason = format!("format {}, this recast knows {FORMAT}", manifest.format);
            return Err(PolicyError::damaged(path, reason));
        }
        if (&manifest.scope, &manifest.policy) != (scope, policy) {
            let reason = format!("describes {} of {}", manifest.policy, manifest.scope);
            return Err(PolicyError::damaged(path, reason));
        }
        Ok(manifest)
    }

    /// Holds the files of a folder against the manifest: all of them there, none beside them, each byte as published.
    pub(crate) fn check_files(&self, dir: &Path) -> Result<()> {
        let manifest = dir.join(MANIFEST);
        for name in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
            if !self.files.contains_key(name) {
                return Err(PolicyError::damaged(&manifest, format!("does not list {name}")));
            }
        }
        for (name, entry) in &self.files {
            // A name that leads elsewhere would be hashed, and later loaded, from outside the store.
            if !is_plain(name) {
                return Err(PolicyError::damaged(&manifest, format!("lists {name:?}, which leads out of the folder")));
            }
            let path = dir.join(name);
            let found = file_entry(&path)?;
            if found != *entry {
                let reason = format!(
                    "{} bytes with BLAKE3 {}, the manifest says {} and {}",
                    found.bytes, found.blake3, entry.bytes, entry.blake3
                );
                return Err(PolicyError::damaged(&path, reason));
            }
        }
        for entry in fs::read_dir(dir).map_err(PolicyError::io(dir))? {
            let entry = entry.map_err(PolicyError::io(dir))?;
            let name = entry.file_name();
            let listed = name.to_str().is_some_and(|name| name == MANIFEST || self.files.contains_key(name));
            if !listed {
                return Err(PolicyError::damaged(&entry.path(), "is not in the manifest"));
            }
        }
        Ok(())
    }
}

/// Whether a name is that of a file right in the folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// Length and hash of a regular file; a link is none, wherever it leads.
pub(crate) fn file_entry(path: &Path) -> Result<FileEntry> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(PolicyError::damaged(path, "is missing"));
        }
        other => other.map_err(PolicyError::io(path))?,
    };
    if !metadata.is_file() {
        return Err(PolicyError::damaged(path, "is a link or a folder, not a file"));
    }
    let mut hasher = blake3::Hasher::new();
    File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ())).map_err(PolicyError::io(path))?;
    Ok(FileEntry { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}
