//! Erased episodes, taken out of the datasets that were built before.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use recast_domain::TenantId;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::sft::{ENVELOPE_END, envelope_start};
use crate::error::EpisodeError;
use crate::export::{ExportError, replace};
use crate::reader::EpisodeReader;

/// Folders of a dataset root, one a family of kinds.
const FAMILIES: [&str; 4] = ["sft", "rl", "verl", "trl"];

/// What was taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// Tombstones of the tenant.
    pub tombstones: u64,
    /// Files that were looked through.
    pub files: u64,
    /// Files that were written anew.
    pub changed: Vec<PathBuf>,
    /// Rows that are gone.
    pub rows: u64,
}

/// Takes the rows of erased episodes out of every dataset of `tenant` below `root`, and brings the manifests up to date
/// (`rows`, `bytes`, `sha256`, and `erased`: rows taken out so far). Each file is replaced as a whole; running it again
/// changes nothing more.
///
/// # Errors
/// When the store or a file cannot be read, a file is no dataset, or it cannot be replaced.
pub fn forget(reader: &EpisodeReader, tenant: &TenantId, root: &Path) -> Result<Forgotten, ExportError> {
    let erased = erased(reader, tenant)?;
    let mut done = Forgotten { tombstones: erased.len() as u64, ..Forgotten::default() };
    for family in FAMILIES {
        let folder = root.join(family).join(tenant.as_str());
        if !folder.is_dir() {
            continue;
        }
        let mut manifests = Vec::new();
        let mut changed = Vec::new();
        let mut paths = Vec::new();
        for entry in fs::read_dir(&folder).map_err(ExportError::io(&folder))? {
            let entry = entry.map_err(ExportError::io(&folder))?;
            // links and the work of a build that runs are not files
            if entry.file_type().map_err(ExportError::io(&folder))?.is_file() {
                paths.push(entry.path());
            }
        }
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_data = ["train_", "val_", "test_"].iter().any(|split| name.starts_with(split));
            if name.starts_with("manifest_") {
                manifests.push(path);
            } else if is_data {
                done.files += 1;
                if let Some(file) = without(&path, &erased)? {
                    done.rows += file.erased;
                    changed.push((name, file));
                    done.changed.push(path);
                }
            }
        }
        for manifest in manifests.iter().filter(|_| !changed.is_empty()) {
            amend(manifest, &changed)?;
        }
    }
    Ok(done)
}

fn erased(reader: &EpisodeReader, tenant: &TenantId) -> Result<HashSet<String>, EpisodeError> {
    let (mut all, mut last) = (HashSet::new(), None);
    loop {
        let page = reader.tombstones(tenant, i64::MIN, last)?;
        let Some(end) = page.last() else { return Ok(all) };
        last = Some(*end);
        all.extend(page.iter().map(|one| one.episode_id.to_string()));
    }
}

/// A file as it is now.
struct Rest {
    rows: u64,
    bytes: u64,
    sha256: String,
    erased: u64,
}

/// Writes the file without the rows of `erased`; `None` where it has none. Rows that stay keep their bytes.
fn without(path: &Path, erased: &HashSet<String>) -> Result<Option<Rest>, ExportError> {
    let text = fs::read_to_string(path).map_err(ExportError::io(path))?;
    let envelope = path.extension().is_some_and(|extension| extension == "json");
    let (mut kept, mut gone, mut head) = (Vec::new(), 0, None);
    for (index, line) in text.lines().enumerate() {
        if envelope && index == 0 {
            // the rest of the envelope's object follows on other lines
            head = Some(serde_json::from_str::<Value>(&format!("{line}]}}"))?);
            continue;
        }
        let row = if envelope { line.trim_end_matches(',') } else { line };
        if row.is_empty() || (envelope && row == "]}") {
            continue;
        }
        let value: Value = serde_json::from_str(row)?;
        let id = [&value["episode_id"], &value["extra_info"]["episode_id"]].into_iter().find_map(Value::as_str);
        if id.is_some_and(|id| erased.contains(id)) {
            gone += 1;
        } else {
            kept.push(row);
        }
    }
    if gone == 0 {
        return Ok(None);
    }
    let rows = kept.len() as u64;
    let fresh = match &head {
        Some(head) => {
            let word = |field: &str| head[field].as_str().unwrap_or_default();
            let start = envelope_start(word("dataset_name"), word("tenant_id"), head["created_at"].as_str(), rows);
            [&start, &kept.join(",\n"), ENVELOPE_END].concat()
        }
        None => kept.iter().flat_map(|row| [row, "\n"]).collect(),
    };
    replace(path, fresh.as_bytes())?;
    let sha256 = Sha256::digest(&fresh).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Rest { rows, bytes: fresh.len() as u64, sha256, erased: gone }))
}

/// Brings what a manifest says of these files up to date.
fn amend(manifest: &Path, changed: &[(String, Rest)]) -> Result<(), ExportError> {
    let text = fs::read_to_string(manifest).map_err(ExportError::io(manifest))?;
    let mut value: Value = serde_json::from_str(&text)?;
    let mut erased = 0;
    for file in value["files"].as_array_mut().into_iter().flatten() {
        let Some((_, rest)) = changed.iter().find(|(name, _)| file["path"] == *name) else { continue };
        (file["rows"], file["bytes"], file["sha256"]) =
            (rest.rows.into(), rest.bytes.into(), rest.sha256.as_str().into());
        erased += rest.erased;
    }
    if erased > 0 {
        value["erased"] = (value["erased"].as_u64().unwrap_or(0) + erased).into();
        let mut text = serde_json::to_vec_pretty(&value)?;
        text.push(b'\n');
        replace(manifest, &text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use recast_config::Durability;

    use super::*;
    use crate::EpisodeStore;
    use crate::datasets::Kind;
    use crate::datasets::tests::{NOW, made, rows, store};
    use crate::testing::settings;

    #[tokio::test]
    async fn rows_of_an_erased_user_leave_every_kind_of_dataset_and_the_rest_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let reader = store(dir.path(), 60);
        let out = dir.path().join("out");
        let built = [Kind::Sft, Kind::Messages, Kind::Verl].map(|kind| made(&reader, &out, kind, NOW));
        drop(reader);
        let tenant: TenantId = "fivedoctors".parse().unwrap();
        let store = EpisodeStore::open(&*dir.path().join("e.db"), &settings(Durability::Strict)).unwrap();
        let nothing = forget(&store.reader(), &tenant, &out).unwrap();
        assert_eq!((nothing.rows, nothing.changed.len()), (0, 0), "nobody was erased");
        let all = rows(&built[1].0, &built[1].1);
        let gone = all[0].1["episode_id"].as_str().unwrap().to_owned();
        // one episode of the many that the user has here: the others by another name
        let erasure = crate::erase::one(&tenant, gone.parse().unwrap(), 5);
        store.write(erasure).await.unwrap();
        let done = forget(&store.reader(), &tenant, &out).unwrap();
        assert_eq!(done.tombstones, 1);
        assert!(done.rows >= 3, "at least one row of each kind: {done:?}");
        for (mut manifest, folder) in built {
            let name = format!("manifest_{}_{}.json", manifest.kind, manifest.timestamp);
            let now: Value = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
            assert!(now["erased"].as_u64().unwrap() >= 1, "{now}");
            for (file, now) in manifest.files.iter_mut().zip(now["files"].as_array().unwrap()) {
                let bytes = fs::read(folder.join(&file.path)).unwrap();
                assert_eq!(now["bytes"].as_u64(), Some(bytes.len() as u64));
                let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(now["sha256"], sha256);
                assert!(!String::from_utf8(bytes).unwrap().contains(&gone));
                file.rows = now["rows"].as_u64().unwrap();
            }
            // and it can be read as before
            rows(&manifest, &folder);
        }
        let again = forget(&store.reader(), &tenant, &out).unwrap();
        assert_eq!(again.rows, 0);
        store.close().await;
    }
}
