//! What was tuned on validation data: `tuning.toml`.
use std::collections::BTreeMap;
use std::path::Path;

use recast_domain::TenantId;
use serde::{Deserialize, Serialize};

use crate::fuse::FusionWeights;
use crate::score::Calibration;
use crate::tokenize::TOKENIZER_VERSION;

/// The entry for tenants that have none of their own.
pub const DEFAULT_ENTRY: &str = "default";

/// What was tuned for one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantTuning {
    /// How much each leg counts.
    pub fusion: FusionWeights,
    /// How raw scores become probabilities.
    pub calibration: Calibration,
}

/// The file: which models it was tuned with, and the values by tenant.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Identity of the embedder; empty for none.
    pub embedder: String,
    /// Identity of the reranker; empty for none.
    pub reranker: String,
    /// [`TOKENIZER_VERSION`] at that time.
    pub tokenizer: u32,
    /// By tenant id; `default` for all others.
    pub tenants: BTreeMap<String, TenantTuning>,
}

impl Tuning {
    /// Reads `path`, or falls back to the documented defaults, with a warning, where the file is missing, malformed or
    /// was tuned with other models: figures of another model would only look calibrated.
    #[must_use]
    pub fn load(path: &Path, embedder: &str, reranker: &str) -> Self {
        match Self::read(path, embedder, reranker) {
            Ok(tuning) => tuning,
            Err(reason) => {
                tracing::warn!(path = %path.display(), reason, "tuning is not used; scores take their fallback coefficients");
                Self::default()
            }
        }
    }

    fn read(path: &Path, embedder: &str, reranker: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
        let tuning: Self = toml::from_str(&text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let mut differs = Vec::new();
        if tuning.embedder != embedder {
            differs.push("embedder");
        }
        if tuning.reranker != reranker {
            differs.push("reranker");
        }
        if tuning.tokenizer != TOKENIZER_VERSION {
            differs.push("tokenizer");
        }
        if differs.is_empty() {
            Ok(tuning)
        } else {
            Err(format!("it was tuned with another {}: tune again", differs.join(" and ")))
        }
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// What the file system or the serializer said.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let text = toml::to_string(self).map_err(std::io::Error::other)?;
        let temporary = path.with_extension("toml.new");
        std::fs::write(&temporary, text)?;
        std::fs::rename(temporary, path)
    }

    /// The values for `tenant`.
    #[must_use]
    pub fn tenant(&self, tenant: &TenantId) -> TenantTuning {
        self.tenants.get(tenant.as_str()).or_else(|| self.tenants.get(DEFAULT_ENTRY)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_file_is_read_back_and_belongs_to_its_models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tuning.toml");
        let mut shop = TenantTuning::default();
        shop.fusion.dense = 0.25;
        let tuning = Tuning {
            embedder: "e1".into(),
            reranker: "r1".into(),
            tokenizer: TOKENIZER_VERSION,
            tenants: [("shop".to_owned(), shop)].into(),
        };
        tuning.save(&path).unwrap();
        let loaded = Tuning::load(&path, "e1", "r1");
        assert_eq!(loaded, tuning);
        assert_eq!(loaded.tenant(&"shop".parse().unwrap()), shop);
        assert_eq!(loaded.tenant(&"other".parse().unwrap()), TenantTuning::default());
        assert_eq!(Tuning::load(&path, "e2", "r1"), Tuning::default());
        assert_eq!(Tuning::load(&folder.path().join("none.toml"), "e1", "r1"), Tuning::default());
    }
}
