//! Kills a writing process again and again: what it acknowledged must be there afterwards.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use recast_config::Durability;
use recast_domain::TenantId;

use crate::test_site::{Site, on_both, place_of};
use crate::testing::{episode, settings};
use crate::{EpisodeFilter, EpisodeStore, LIST_MAX, Place, doctor};

/// Tells the child which store to write to. Unset in an ordinary test run, where the child's test does nothing.
const CHILD_STORE: &str = "RECAST_EPISODES_CRASH_STORE";
/// More kills for a long run; CI takes the default.
const KILLS: Option<&str> = option_env!("RECAST_TEST_KILLS");

/// The child: this test binary again, told to run only this. Writes the id of each acknowledged episode to stderr.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_child() {
    let Some(address) = std::env::var_os(CHILD_STORE) else { return };
    let store =
        Arc::new(EpisodeStore::open(place_of(&address.to_string_lossy()), &settings(Durability::Strict)).unwrap());
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    let episode = episode("a", 1);
                    let line = format!("{}\n", episode.id);
                    store.append(episode).await.unwrap();
                    if std::io::stderr().write_all(line.as_bytes()).is_err() {
                        return; // the parent is gone
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Runs `test` of this binary as a child that writes to the store at `path`, lets it acknowledge `enough` lines, does
/// something with these `meanwhile`, kills it, and returns all the lines.
pub(crate) fn kill_child(
    test: &str,
    (variable, path): (&str, &Path),
    enough: usize,
    meanwhile: impl FnOnce(&[String]),
) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(variable, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut acknowledged: Vec<String> = lines.by_ref().take(enough).map(Result::unwrap).collect();
    meanwhile(&acknowledged);
    child.kill().unwrap();
    // what the pipe still holds was acknowledged before the kill
    acknowledged.extend(lines.map(Result::unwrap));
    assert!(!child.wait().unwrap().success(), "the child must have been killed: {acknowledged:?}");
    acknowledged
}

fn write_and_kill(site: &Site, enough: usize) -> Vec<String> {
    kill_child("crash_tests::crash_child", (CHILD_STORE, Path::new(site.address())), enough, |acknowledged| {
        // another process reads while this one writes
        let seen = stored(site);
        assert!(
            acknowledged.iter().all(|id| seen.contains(id)),
            "a reader beside the writer misses acknowledged episodes"
        );
    })
}

fn stored(site: &Site) -> BTreeSet<String> {
    let reader = site.reader();
    let tenant: TenantId = "a".parse().unwrap();
    let mut filter = EpisodeFilter::newest(tenant, LIST_MAX);
    let mut ids = BTreeSet::new();
    loop {
        let page = reader.list(&filter).unwrap();
        let Some(last) = page.last() else { return ids };
        filter.after = Some(last.id);
        ids.extend(page.iter().map(|episode| episode.id.to_string()));
    }
}

fn no_acknowledged_episode_is_lost_by_sigkill(site: &Site) {
    let kills = KILLS.and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut acknowledged = BTreeSet::new();
    for round in 0..kills {
        let ids = write_and_kill(site, 1 + round * 37 % 300);
        assert!(!ids.is_empty());
        for id in ids {
            assert!(id.len() == 36 && acknowledged.insert(id.clone()), "an id, and a fresh one: {id:?}");
        }
        let stored = stored(site);
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(lost.is_empty(), "kill {round} lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
        let report = doctor(site.place(), &settings(Durability::Strict));
        // a server notices a dead writer by its lease
        let running = report.writer_running && matches!(site.place(), Place::File(_));
        assert_eq!((report.findings, running), (vec![], false), "after kill {round}");
    }
    assert!(acknowledged.len() > kills);
}

on_both!(no_acknowledged_episode_is_lost_by_sigkill);
