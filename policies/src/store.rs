use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use recast_domain::PolicyId;
use serde_json::Value;
use uuid::Uuid;

use crate::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter};
use crate::base::BaseModel;
use crate::disk::{self, Hook, Lock, Step};
use crate::error::{PolicyError, Result};
use crate::journal::{Event, Record};
use crate::manifest::{DataRange, MANIFEST, Manifest, file_entry};
use crate::scope::Scope;

/// Names that mean something else: policies without an adapter, and the store's own files where case does not count.
const RESERVED: [&str; 7] = ["pass-through", "given", "remote", "base", "current", "lock", "publish-lock"];
/// Folders under construction, and retired ones that are being deleted.
const TEMPORARY: &str = ".tmp-";
const PUBLISH_LOCK: &str = "PUBLISH-LOCK";

/// An adapter that is about to become a policy.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// Whose policy it will be.
    pub scope: Scope,
    /// Its name, used once and never again.
    pub policy: PolicyId,
    /// The policy that the training started from; `None` for the base model itself.
    pub parent: Option<PolicyId>,
    /// Folder with the PEFT files; they are copied.
    pub adapter: &'a Path,
    /// What it learned from.
    pub data: DataRange,
    /// The settings of the training.
    pub config: Value,
    /// Figures of its evaluation, all finite.
    pub metrics: BTreeMap<String, f64>,
    /// Now, milliseconds since the Unix epoch, UTC.
    pub created_ms: i64,
}

/// A policy whose every byte was checked when this was made.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedPolicy {
    /// The PEFT folder, to be loaded.
    pub dir: PathBuf,
    /// Its facts.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest file, which stands for the whole policy: it holds the hash of every other file.
    pub identity: String,
}

/// The folder of policies: one folder for each scope, in it one for each policy.
///
/// Any number of processes may use it at once. Policies never change once published; what changes is the pointer to
/// the active one, which is replaced as a whole under a lock.
#[derive(Clone)]
pub struct PolicyStore {
    root: PathBuf,
    base: BaseModel,
    hook: Option<Hook>,
}

impl std::fmt::Debug for PolicyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyStore").field("root", &self.root).field("base", &self.base.hash).finish_non_exhaustive()
    }
}

impl PolicyStore {
    /// Opens the store, creating its folder.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn open(root: &Path, base: BaseModel) -> Result<Self> {
        disk::create_folder(root)?;
        Ok(Self { root: root.to_owned(), base, hook: None })
    }

    /// The same store with something to do at every step of a write.
    #[cfg(test)]
    pub(crate) fn with_hook(self, hook: Hook) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// Checks an adapter and adds it to the store. It is there as a whole, durable, or not at all.
    ///
    /// # Errors
    /// The name is reserved or taken, the parent is unknown, a metric is not finite, the adapter is not sound
    /// ([`check_adapter`]), or the folder cannot be written.
    pub fn publish(&self, draft: &Draft<'_>) -> Result<VerifiedPolicy> {
        self.check_draft(draft)?;
        let facts = check_adapter(draft.adapter, &self.base)?;
        let scope_dir = self.scope_dir(&draft.scope);
        disk::create_folder(&scope_dir)?;
        // One publisher at a time, so that whatever temporary folder lies there belongs to nobody any more.
        let _lock = Lock::take(&scope_dir.join(PUBLISH_LOCK))?;
        sweep(&scope_dir)?;

        let target = scope_dir.join(draft.policy.as_str());
        let exists = || PolicyError::Exists { scope: draft.scope.clone(), policy: draft.policy.clone() };
        if fs::symlink_metadata(&target).is_ok() {
            return Err(exists());
        }
        let temporary = scope_dir.join(format!("{TEMPORARY}{}", Uuid::new_v4()));
        fs::create_dir(&temporary).map_err(PolicyError::io(&temporary))?;
        self.step(&temporary, Step::FolderMade)?;

        let mut manifest = Manifest::new(facts, self.base.hash.clone(), draft);
        for name in [ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
            let (from, to) = (draft.adapter.join(name), temporary.join(name));
            fs::copy(&from, &to).map_err(PolicyError::io(&from))?;
            seal(&to)?;
            manifest.files.insert(name.to_owned(), file_entry(&to)?);
            self.step(&to, Step::FileCopied)?;
        }
        // The copy is what counts: the source may have changed since it was checked.
        check_adapter(&temporary, &self.base)?;
        let path = temporary.join(MANIFEST);
        disk::write_synced(&path, &manifest.to_bytes(&path)?)?;
        seal(&path)?;
        self.step(&path, Step::ManifestWritten)?;
        disk::sync_folder(&temporary)?;
        self.step(&temporary, Step::FolderSynced)?;
        match fs::rename(&temporary, &target) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Err(exists()),
            other => other.map_err(PolicyError::io(&target))?,
        }
        self.step(&target, Step::FolderNamed)?;
        disk::sync_folder(&scope_dir)?;

        let published = self.load(&draft.scope, &draft.policy)?;
        let event = Event::Published { policy: draft.policy.clone(), identity: published.identity.clone() };
        self.record(&draft.scope, &Record { at_ms: draft.created_ms, event })?;
        Ok(published)
    }

    fn check_draft(&self, draft: &Draft<'_>) -> Result<()> {
        if RESERVED.contains(&draft.policy.as_str()) || draft.policy.as_str().ends_with(".jsonl") {
            return Err(PolicyError::Reserved(draft.policy.clone()));
        }
        if let Some((name, _)) = draft.metrics.iter().find(|(_, value)| !value.is_finite()) {
            let reason = format!("metric {name} is not finite");
            return Err(PolicyError::refused(draft.adapter, reason, "leave out what was not measured"));
        }
        if let Some(parent) = &draft.parent {
            let known =
                [&draft.scope, &Scope::Everyone].into_iter().any(|scope| self.policy_dir(scope, parent).is_dir());
            if !known {
                return Err(PolicyError::NotFound { scope: draft.scope.clone(), policy: parent.clone() });
            }
        }
        Ok(())
    }

    /// Reads a policy and checks all of it: hashes, base, settings, shapes, numbers.
    ///
    /// # Errors
    /// There is no such policy, it belongs to another base, or anything differs from what was published.
    pub fn load(&self, scope: &Scope, policy: &PolicyId) -> Result<VerifiedPolicy> {
        let (manifest, identity) = self.read_manifest(scope, policy)?;
        let dir = self.policy_dir(scope, policy);
        manifest.check_files(&dir)?;
        if manifest.base != self.base.hash {
            let path = dir.join(MANIFEST);
            return Err(PolicyError::ForeignBase { path, expected: manifest.base, found: self.base.hash.clone() });
        }
        if !check_adapter(&dir, &self.base)?.matches(&manifest.adapter) {
            return Err(PolicyError::damaged(&dir.join(MANIFEST), "describes another adapter than the one beside it"));
        }
        Ok(VerifiedPolicy { dir, manifest, identity })
    }

    /// The facts of a policy, without checking its files.
    ///
    /// # Errors
    /// There is no such policy, or its manifest cannot be read.
    pub fn show(&self, scope: &Scope, policy: &PolicyId) -> Result<Manifest> {
        self.read_manifest(scope, policy).map(|(manifest, _)| manifest)
    }

    fn read_manifest(&self, scope: &Scope, policy: &PolicyId) -> Result<(Manifest, String)> {
        let dir = self.policy_dir(scope, policy);
        match fs::symlink_metadata(&dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(PolicyError::damaged(&dir, "is a link or a file, not a folder")),
            Err(_) => return Err(PolicyError::NotFound { scope: scope.clone(), policy: policy.clone() }),
        }
        let path = dir.join(MANIFEST);
        file_entry(&path)?;
        let bytes = fs::read(&path).map_err(PolicyError::io(&path))?;
        let manifest = Manifest::parse(&path, &bytes, scope, policy)?;
        Ok((manifest, blake3::hash(&bytes).to_hex().to_string()))
    }

    /// The facts of all policies of a scope, oldest first.
    ///
    /// # Errors
    /// The folder or a manifest cannot be read.
    pub fn list(&self, scope: &Scope) -> Result<Vec<Manifest>> {
        let names = names(&self.scope_dir(scope))?;
        let policies = names.iter().filter_map(|name| name.parse().ok());
        let mut manifests: Vec<Manifest> = policies.map(|policy| self.show(scope, &policy)).collect::<Result<_>>()?;
        manifests.sort_by(|a, b| (a.created_ms, &a.policy).cmp(&(b.created_ms, &b.policy)));
        Ok(manifests)
    }

    /// The scopes that have a folder.
    ///
    /// # Errors
    /// The store's folder cannot be read.
    pub fn scopes(&self) -> Result<Vec<Scope>> {
        Ok(names(&self.root)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The base that policies are checked against.
    #[must_use]
    pub fn base(&self) -> &BaseModel {
        &self.base
    }

    pub(crate) fn scope_dir(&self, scope: &Scope) -> PathBuf {
        self.root.join(scope.as_str())
    }

    pub(crate) fn policy_dir(&self, scope: &Scope, policy: &PolicyId) -> PathBuf {
        self.scope_dir(scope).join(policy.as_str())
    }

    pub(crate) fn step(&self, path: &Path, step: Step) -> Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(step)).map_err(PolicyError::io(path))
    }

    /// Takes a policy's name away, then its files. Whoever loads it meanwhile finds it missing, never half there.
    pub(crate) fn retire(&self, scope: &Scope, policy: &PolicyId) -> Result<()> {
        let scope_dir = self.scope_dir(scope);
        let from = self.policy_dir(scope, policy);
        let to = scope_dir.join(format!("{TEMPORARY}{}", Uuid::new_v4()));
        fs::rename(&from, &to).map_err(PolicyError::io(&from))?;
        disk::sync_folder(&scope_dir)?;
        self.step(&to, Step::Retired)?;
        fs::remove_dir_all(&to).map_err(PolicyError::io(&to))
    }

    /// Held while policies come or go.
    pub(crate) fn publish_lock(&self, scope: &Scope) -> Result<Lock> {
        let dir = self.scope_dir(scope);
        disk::create_folder(&dir)?;
        Lock::take(&dir.join(PUBLISH_LOCK))
    }
}

/// Names of the folders right below one, in order; none where it does not exist.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(PolicyError::io(dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(PolicyError::io(dir))?;
        if entry.file_type().map_err(PolicyError::io(dir))?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

/// Waits until a file is on the disk, and takes away the right to change it.
fn seal(path: &Path) -> Result<()> {
    let seal = || {
        let file = fs::File::open(path)?;
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        file.set_permissions(permissions)?;
        file.sync_all()
    };
    seal().map_err(PolicyError::io(path))
}

/// Deletes what a crash left under construction or half deleted. The caller holds the publishers' lock.
fn sweep(scope_dir: &Path) -> Result<()> {
    for name in names(scope_dir)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        let path = scope_dir.join(name);
        fs::remove_dir_all(&path).map_err(PolicyError::io(&path))?;
    }
    Ok(())
}
