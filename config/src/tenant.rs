use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use recast_domain::{ErrorKind, TenantId};
use serde::Deserialize;

/// What recast knows of a tenant: a `tenant.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantProfile {
    /// The tenant's id; also the name of its folder.
    pub id: TenantId,
    /// For people.
    pub name: String,
    /// What the tenant sells or answers for; part of the rewriter's prompt.
    #[serde(default)]
    pub domain: String,
    /// The rewriter's system prompt.
    pub system_prompt: String,
    /// Word -> words of the same meaning, for data augmentation.
    #[serde(default)]
    pub synonyms: BTreeMap<String, Vec<String>>,
    /// Asker's word -> the knowledge base's words, added to lexical queries at reduced weight.
    #[serde(default)]
    pub term_expansion: BTreeMap<String, Vec<String>>,
    /// Words that must never be split or replaced.
    #[serde(default)]
    pub protected_terms: Vec<String>,
    /// Whether phone numbers, e-mail addresses, identity and bank cards and WeChat ids are taken out of everything that
    /// is stored or shown to a judge.
    #[serde(default)]
    pub redact: bool,
    /// Days that its episodes are kept; 0: without end; absent: as `episodes.retention_days` says.
    #[serde(default)]
    pub retention_days: Option<u32>,
}

/// Why a tenant's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// The file is missing or cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file says something that cannot be.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the key.
        message: String,
    },
}

impl TenantError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable { .. } => ErrorKind::NotFound,
            Self::Invalid { .. } => ErrorKind::Invalid,
        }
    }
}

impl TenantProfile {
    /// Reads `dir/tenant.toml`.
    ///
    /// # Errors
    /// When the file is missing, malformed, has unknown keys, or names another tenant than its folder.
    pub fn load(dir: &Path) -> Result<Self, TenantError> {
        let path = dir.join("tenant.toml");
        let text =
            std::fs::read_to_string(&path).map_err(|source| TenantError::Unreadable { path: path.clone(), source })?;
        let invalid = |message: String| TenantError::Invalid { path: path.clone(), message };
        let profile: Self = toml::from_str(&text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
        let folder = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if folder != profile.id.as_str() {
            return Err(invalid(format!(
                "id is {:?}, but the folder is named {folder:?}: they must agree",
                profile.id.as_str()
            )));
        }
        if profile.system_prompt.trim().is_empty() {
            return Err(invalid("system_prompt is empty".to_owned()));
        }
        Ok(profile)
    }

    /// Reads every folder below `dir` that holds a `tenant.toml`, in the order of their names.
    ///
    /// # Errors
    /// When `dir` cannot be listed, or the first tenant that cannot be read.
    pub fn load_all(dir: &Path) -> Result<Vec<Self>, TenantError> {
        let unreadable = |source| TenantError::Unreadable { path: dir.to_owned(), source };
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.join("tenant.toml").is_file() {
                folders.push(path);
            }
        }
        folders.sort();
        folders.iter().map(|folder| Self::load(folder)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(folder: &str, text: &str) -> Result<TenantProfile, TenantError> {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(folder);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("tenant.toml"), text).unwrap();
        TenantProfile::load(&dir)
    }

    #[test]
    fn a_tenant_is_read() {
        let text =
            "id = \"shop\"\nname = \"Shop\"\nsystem_prompt = \"改写\"\n[term_expansion]\n\"养老金\" = [\"super\"]\n";
        assert_eq!(tenant("shop", text).unwrap().term_expansion["养老金"], ["super"]);
    }

    #[test]
    fn a_wrong_folder_and_an_unknown_key_are_refused() {
        let text = "id = \"shop\"\nname = \"Shop\"\nsystem_prompt = \"改写\"\n";
        assert!(tenant("other", text).unwrap_err().to_string().contains("must agree"));
        let error = tenant("shop", &format!("{text}colour = 1\n")).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }
}
