use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::test_site::{Site, on_both};
use crate::testing::{episode, settings};

on_both!(
    async: what_64_appenders_are_told_is_what_is_there, a_repeated_episode_is_stored_once, closing_keeps_what_group_mode_queued_and_refuses_what_comes_later, below_the_low_water_mark_nothing_is_stored_until_there_is_room, a_full_queue_refuses_at_once
);

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

async fn ids(store: &EpisodeStore, name: &str) -> BTreeSet<EpisodeId> {
    let found = store.list(&EpisodeFilter::newest(tenant(name), 1000)).await.unwrap();
    found.iter().map(|episode| episode.id).collect()
}

async fn what_64_appenders_are_told_is_what_is_there(site: &Site) {
    let store = Arc::new(site.store());
    let tasks: Vec<_> = (0..64)
        .map(|client| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for round in 0..10 {
                    let episode = episode(["a", "b"][client % 2], round);
                    let (id, tenant) = (episode.id, episode.tenant.clone());
                    store.append(episode).await.unwrap();
                    // acknowledged means readable, at once and by another connection
                    assert_eq!(store.get(&tenant, id).await.unwrap().id, id);
                    acknowledged.push((tenant, id));
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = BTreeSet::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    for name in ["a", "b"] {
        let mine: BTreeSet<_> = acknowledged.iter().filter(|(of, _)| of.as_str() == name).map(|(_, id)| *id).collect();
        assert_eq!(ids(&store, name).await, mine);
    }
    let health = store.health();
    assert_eq!((health.stored, health.failed, health.queued, health.problem), (640, 0, 0, None));
}

async fn a_repeated_episode_is_stored_once(site: &Site) {
    let store = site.store();
    let first = episode("a", 1);
    store.append(first.clone()).await.unwrap();
    store.append(Episode { created_ms: 2, ..first.clone() }).await.unwrap();
    assert_eq!(store.list(&EpisodeFilter::newest(tenant("a"), 10)).await.unwrap(), [first]);
}

async fn closing_keeps_what_group_mode_queued_and_refuses_what_comes_later(site: &Site) {
    let store = site.open(Durability::Group);
    for ms in 0..200 {
        store.append(episode("a", ms)).await.unwrap();
    }
    store.close().await;
    store.close().await;
    assert!(matches!(store.append(episode("a", 0)).await, Err(EpisodeError::Closed)));
    assert_eq!(ids(&store, "a").await.len(), 200);
    let log = std::fs::metadata(site.folder().join("e.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "the log is folded in");
    assert!(EpisodeStore::open(site.place(), &settings(Durability::Group)).is_ok(), "the store is free again");
}

#[tokio::test]
async fn a_second_writer_is_refused_and_a_reader_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.db");
    let store = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap();
    let error = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap_err();
    assert!(error.to_string().contains("another process writes"), "{error}");
    let reader = EpisodeReader::open(&path).unwrap();
    let live = episode("a", 1);
    store.append(live.clone()).await.unwrap();
    assert_eq!(reader.get(&tenant("a"), live.id).unwrap(), live);
}

/// Caps the writer's file at its present size (as a full disk would), or frees it.
fn cap_pages(store: &EpisodeStore, capped: bool) {
    store.with_writer(move |connection| {
        let pages = connection.number("PRAGMA page_count", &[]).unwrap();
        let cap = if capped { pages } else { 1 << 30 };
        connection.number(&format!("PRAGMA max_page_count = {cap}"), &[]).unwrap();
    });
}

/// A store never fails an append for good: it stores again as soon as there is room, without being told.
async fn full_disk(durability: Durability) {
    let dir = tempfile::tempdir().unwrap();
    let store = EpisodeStore::open(dir.path().join("e.db"), &settings(durability)).unwrap();
    cap_pages(&store, true);
    let mut acknowledged = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for ms in 0..40 {
        if ms == 30 {
            // from here on group mode knows, too
            let noticed = async {
                while store.health().problem.is_none() {
                    tokio::task::yield_now().await
                }
            };
            tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("the cap must bite");
        }
        // each needs more pages than are free under the cap
        let mut episode = episode("a", ms);
        episode.hits[0].content = "长".repeat(50_000);
        let id = episode.id;
        match store.append(episode).await {
            Ok(()) => acknowledged.insert(id),
            Err(EpisodeError::NotStored(NotStored::DiskFull)) => refused.insert(id),
            Err(error) => panic!("{error}"),
        };
    }
    assert!(refused.len() >= 10, "only {} were refused", refused.len());
    assert_eq!(store.health().problem, Some(NotStored::DiskFull));
    cap_pages(&store, false);
    let after = episode("a", 99);
    acknowledged.insert(after.id);
    store.append(after).await.unwrap();
    assert_eq!(store.health().problem, None);
    store.close().await;
    let stored = ids(&store, "a").await;
    let health = store.health();
    assert_eq!(health.stored + health.failed, 41, "every episode is counted once");
    assert_eq!(health.stored, stored.len() as u64);
    assert!(stored.is_disjoint(&refused), "what was refused is not there");
    if durability == Durability::Strict {
        assert_eq!(stored, acknowledged);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_resumes_in_strict_mode() {
    full_disk(Durability::Strict).await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_resumes_in_group_mode() {
    full_disk(Durability::Group).await;
}

async fn below_the_low_water_mark_nothing_is_stored_until_there_is_room(site: &Site) {
    let free = Arc::new(AtomicU64::new(99));
    let seen = Arc::clone(&free);
    let probes = Probes { now_ms: Box::new(|| 0), free_bytes: Box::new(move || Some(seen.load(Ordering::SeqCst))) };
    let settings = EpisodeSettings { low_water_bytes: 100, ..settings(Durability::Strict) };
    let store = EpisodeStore::open_with(site.place(), &settings, probes).unwrap();
    let error = store.append(episode("a", 1)).await.unwrap_err();
    assert!(matches!(error, EpisodeError::NotStored(NotStored::LowWater { free: 99, wanted: 100 })), "{error}");
    free.store(100, Ordering::SeqCst);
    store.append(episode("a", 2)).await.unwrap();
    let health = store.health();
    assert_eq!((health.stored, health.failed, health.problem), (1, 1, None));
}

async fn a_full_queue_refuses_at_once(site: &Site) {
    let store = site.open(Durability::Group);
    let (release, held) = std::sync::mpsc::channel::<()>();
    store.with_writer(move |_| held.recv().unwrap_or_default());
    let mut outcome = Ok(());
    for ms in 0..1100 {
        outcome = store.append(episode("a", ms)).await;
        if outcome.is_err() {
            break;
        }
    }
    assert!(matches!(outcome, Err(EpisodeError::QueueFull { .. })), "{outcome:?}");
    release.send(()).unwrap();
    store.close().await;
    let health = store.health();
    assert_eq!((health.failed, health.queued), (1, 0));
    assert_eq!(ids(&store, "a").await.len() as u64, health.stored.min(1000));
}

/// `mount -t tmpfs -o size=16m tmpfs DIR`, then `RECAST_TEST_SMALL_DISK=DIR cargo test ... -- --ignored small_disk`.
#[tokio::test]
#[ignore = "needs a small disk of its own, which needs root"]
async fn a_really_full_small_disk_refuses_and_resumes() {
    let dir = PathBuf::from(std::env::var_os("RECAST_TEST_SMALL_DISK").expect("a folder on a small disk"));
    let (path, ballast) = (dir.join("e.db"), dir.join("ballast"));
    std::fs::write(&ballast, vec![1; 6 << 20]).unwrap();
    let store = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut causes = BTreeSet::new();
    for ms in 0..20_000 {
        let episode = episode("a", ms);
        let id = episode.id;
        match store.append(episode).await {
            Ok(()) => assert!(acknowledged.insert(id)),
            Err(error) => {
                causes.insert(error.to_string());
            }
        }
    }
    eprintln!("stored {} of 20000; refused because: {causes:?}", acknowledged.len());
    assert!(!causes.is_empty() && store.health().problem.is_some());
    std::fs::remove_file(&ballast).unwrap();
    let after = episode("a", 0);
    acknowledged.insert(after.id);
    store.append(after).await.unwrap();
    assert_eq!(store.health().problem, None);
    store.close().await;
    assert_eq!(crate::doctor(&path, &settings(Durability::Strict)).findings, []);
    let reader = EpisodeReader::open(&path).unwrap();
    for id in &acknowledged {
        reader.get(&tenant("a"), *id).unwrap();
    }
    assert_eq!(store.health().stored, acknowledged.len() as u64);
    for file in ["e.db", "e.db-wal", "e.db-shm", "e.db.lock"] {
        let _ = std::fs::remove_file(dir.join(file));
    }
}
