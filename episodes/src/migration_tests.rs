//! Stores that earlier versions wrote, opened by this version.

use std::path::PathBuf;

use recast_config::Durability;
use recast_domain::TenantId;

use crate::testing::{sampled, settings};
use crate::{EpisodeError, EpisodeFilter, EpisodeReader, EpisodeStore, backup, doctor, restore};

/// Three episodes of two tenants; the file is as the first version left it, and never changes.
const STORE_V1: &[u8] = include_bytes!("../tests/golden/store_v1.db");

/// An episode with everything that hangs on one, and two without; as the second version left it.
const STORE_V2: &[u8] = include_bytes!("../tests/golden/store_v2.db");

fn store_v1(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("e.db");
    std::fs::write(&path, STORE_V1).unwrap();
    path
}

fn created(reader: &EpisodeReader, tenant: &TenantId) -> Vec<i64> {
    let found = reader.list(&EpisodeFilter::newest(tenant.clone(), 10)).unwrap();
    found.iter().map(|episode| episode.created_ms).collect()
}

#[tokio::test]
async fn a_store_of_version_1_is_brought_up_to_date_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_v1(&dir);
    let tenant: TenantId = "fivedoctors".parse().unwrap();
    let error = EpisodeReader::open(&path).unwrap_err();
    assert!(matches!(error, EpisodeError::Schema { found: 1, known: 4, .. }), "{error}");
    assert!(error.to_string().ends_with("start the gateway once, it brings the store up to date"), "{error}");
    let store = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap();
    let reader = EpisodeReader::open(&path).unwrap();
    assert_eq!(created(&reader, &tenant), [1_763_690_000_001, 1_763_690_000_000]);
    assert_eq!(created(&reader, &"mydy".parse().unwrap()), [1_763_690_000_002]);
    let old = reader.list(&EpisodeFilter::newest(tenant.clone(), 1)).unwrap().remove(0);
    assert_eq!((old.rewrite.text.as_str(), old.experiment), ("胶原蛋白肽 孕妇禁忌", None));
    let (episode, run) = sampled("fivedoctors", 1_763_690_000_003);
    store.append_sampled(episode, run).await.unwrap();
    assert_eq!(reader.shadow_accounting(&tenant, Some("x")).unwrap()[0].pending, 1);
    assert_eq!(created(&reader, &tenant).len(), 3);
    store.close().await;
    assert_eq!(doctor(&path, &settings(Durability::Strict)).episodes, 4);
    EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap().close().await;
    assert_eq!(created(&reader, &tenant).len(), 3, "opening again changes nothing");
}

#[tokio::test]
async fn a_backup_of_version_1_can_be_taken_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy, back) = (store_v1(&dir), dir.path().join("copy.db"), dir.path().join("back.db"));
    assert_eq!(backup(&path, &copy).unwrap().episodes, 3);
    assert_eq!(restore(&copy, &back, false).unwrap().episodes, 3);
    let store = EpisodeStore::open(&back, &settings(Durability::Strict)).unwrap();
    let tenant: TenantId = "fivedoctors".parse().unwrap();
    assert_eq!(created(&store.reader(), &tenant).len(), 2);
    store.close().await;
}

#[tokio::test]
async fn a_store_of_version_2_keeps_what_it_has_and_takes_a_judges_books() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.db");
    std::fs::write(&path, STORE_V2).unwrap();
    let tenant: TenantId = "fivedoctors".parse().unwrap();
    let error = EpisodeReader::open(&path).unwrap_err();
    assert!(matches!(error, EpisodeError::Schema { found: 2, known: 4, .. }), "{error}");
    let store = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap();
    let reader = store.reader();
    assert_eq!(created(&reader, &tenant), [1_763_690_000_001, 1_763_690_000_000]);
    let old = reader.list(&EpisodeFilter::newest(tenant.clone(), 2)).unwrap().remove(1);
    assert_eq!(reader.verdicts(&tenant, old.id).unwrap()[0].reason, "清楚");
    assert_eq!(reader.rewards(&tenant, old.id).unwrap()[0].parts["total"], 0.5);
    assert_eq!(reader.shadow_accounting(&tenant, Some("x")).unwrap()[0].completed, 1);
    store.add_judge_cost(&tenant, 20_413, 0.5).await.unwrap();
    assert_eq!(reader.judge_cost(&tenant, 20_413).unwrap(), 0.5);
    store.close().await;
    assert_eq!(doctor(&path, &settings(Durability::Strict)).findings, []);
}
