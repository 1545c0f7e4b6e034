//! The tenants in force. Changed files are picked up without a restart; a broken edit keeps the last good profile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use recast_config::{TenantError, TenantProfile};
use recast_domain::TenantId;

/// All tenants by id; a snapshot that never changes.
pub type TenantMap = HashMap<TenantId, Arc<TenantProfile>>;

type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// The tenants of a folder.
#[derive(Debug)]
pub struct Tenants {
    dir: PathBuf,
    current: ArcSwap<TenantMap>,
    seen: Mutex<Stamp>,
}

impl Tenants {
    /// Reads all tenants of `dir`.
    ///
    /// # Errors
    /// When the folder cannot be listed, or any tenant is broken: a start with half the tenants would go unnoticed.
    pub fn open(dir: &Path) -> Result<Self, TenantError> {
        let seen = stamp(dir);
        let profiles = TenantProfile::load_all(dir)?;
        let map = profiles.into_iter().map(|profile| (profile.id.clone(), Arc::new(profile))).collect();
        Ok(Self { dir: dir.to_owned(), current: ArcSwap::from_pointee(map), seen: Mutex::new(seen) })
    }

    /// The tenants as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<TenantMap> {
        self.current.load_full()
    }

    /// One tenant as it is now.
    #[must_use]
    pub fn get(&self, tenant: &TenantId) -> Option<Arc<TenantProfile>> {
        self.current.load().get(tenant).map(Arc::clone)
    }

    /// Looks for changes; returns the new snapshot where there are any.
    pub fn reload(&self) -> Option<Arc<TenantMap>> {
        let now = stamp(&self.dir);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now || now.is_empty() {
            return None;
        }
        let old = self.snapshot();
        let mut fresh = TenantMap::new();
        for (file, ..) in &now {
            let folder = file.parent().unwrap_or(&self.dir);
            match TenantProfile::load(folder) {
                Ok(profile) => {
                    fresh.insert(profile.id.clone(), Arc::new(profile));
                }
                Err(error) => {
                    metrics::counter!("recast_tenant_reload_failures_total").increment(1);
                    tracing::error!(%error, "a changed tenant is broken; its last good profile stays in force");
                    let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                    if let Some((id, profile)) = name.and_then(|id: TenantId| old.get_key_value(&id)) {
                        fresh.insert(id.clone(), Arc::clone(profile));
                    }
                }
            }
        }
        *seen = now;
        if fresh == *old {
            return None;
        }
        let fresh = Arc::new(fresh);
        self.current.store(Arc::clone(&fresh));
        tracing::info!(tenants = fresh.len(), "tenants reloaded");
        Some(fresh)
    }
}

/// Modification time and size of each `tenant.toml`; empty where the folder cannot be listed.
fn stamp(dir: &Path) -> Stamp {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path().join("tenant.toml");
        let meta = std::fs::metadata(&path).ok()?;
        Some((path, meta.modified().ok(), meta.len()))
    };
    let mut files: Stamp = entries.filter_map(file).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, id: &str, text: &str) {
        std::fs::create_dir_all(root.join(id)).unwrap();
        std::fs::write(root.join(id).join("tenant.toml"), text).unwrap();
    }

    fn profile(id: &str, prompt: &str) -> String {
        format!("id = \"{id}\"\nname = \"{id}\"\nsystem_prompt = \"{prompt}\"\n")
    }

    #[test]
    fn changes_are_seen_and_a_broken_edit_keeps_the_last_good() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a", &profile("a", "one"));
        let tenants = Tenants::open(root.path()).unwrap();
        let id: TenantId = "a".parse().unwrap();
        assert!(tenants.reload().is_none());

        write(root.path(), "a", &profile("a", "second"));
        write(root.path(), "b", &profile("b", "other"));
        assert_eq!(tenants.reload().unwrap().len(), 2);
        assert_eq!(tenants.get(&id).unwrap().system_prompt, "second");

        write(root.path(), "a", "id = ");
        assert!(tenants.reload().is_none());
        assert_eq!(tenants.get(&id).unwrap().system_prompt, "second");

        std::fs::remove_dir_all(root.path().join("b")).unwrap();
        assert_eq!(tenants.reload().unwrap().len(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_at_start_and_ignored_later() {
        let root = tempfile::tempdir().unwrap();
        assert!(Tenants::open(&root.path().join("nowhere")).is_err());
        write(root.path(), "a", &profile("a", "one"));
        let tenants = Tenants::open(root.path()).unwrap();
        std::fs::remove_dir_all(root.path()).unwrap();
        assert!(tenants.reload().is_none());
        assert_eq!(tenants.snapshot().len(), 1);
    }
}
