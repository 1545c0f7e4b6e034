//! Kills a process that samples again and again: afterwards every stored episode has one run, and every run has ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use recast_config::Durability;
use recast_domain::{ShadowOutcome, ShadowRun, TenantId};

use crate::crash_tests::kill_child;
use crate::testing::{completed, dropped, ended, failed, sampled, settings};
use crate::{EpisodeStore, RunCursor, ScanRange, doctor};

/// Tells the child which store to write to. Unset in an ordinary test run, where the child's test does nothing.
const CHILD_STORE: &str = "RECAST_EPISODES_SHADOW_CRASH_STORE";
const KILLS: usize = 8;

/// The child: samples, and ends what it samples in turn in each way, or not at all. Writes to stderr what was
/// acknowledged: an id and `sampled`, or an id and how its run ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadow_crash_child() {
    let Some(path) = std::env::var_os(CHILD_STORE) else { return };
    let store = Arc::new(EpisodeStore::open(Path::new(&path), &settings(Durability::Strict)).unwrap());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for round in 0.. {
                    let (episode, run) = sampled("a", 1);
                    let id = episode.id;
                    store.append_sampled(episode, run.clone()).await.unwrap();
                    if !say(&format!("{id} sampled\n")) {
                        return;
                    }
                    let outcome = match round % 5 {
                        0 => completed(),
                        1 => failed("rewriter_failed"),
                        2 => ShadowOutcome::TimedOut,
                        3 => dropped("queue_full"),
                        _ => continue,
                    };
                    let label = outcome.label();
                    store.end_shadow(&ended(&run, outcome)).await.unwrap();
                    if !say(&format!("{id} {label}\n")) {
                        return;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// `false` when the parent is gone.
fn say(line: &str) -> bool {
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).is_ok()
}

fn runs(store: &EpisodeStore, tenant: &TenantId) -> Vec<ShadowRun> {
    let (mut all, mut after): (Vec<ShadowRun>, Option<RunCursor>) = (Vec::new(), None);
    loop {
        let page = store.reader().shadow_runs(tenant, "x", None, after.as_ref(), 1000).unwrap();
        let Some((_, last)) = page.last() else { return all };
        after = Some(last.into());
        all.extend(page.into_iter().map(|(_, run)| run));
    }
}

#[tokio::test]
async fn after_a_sigkill_every_sampled_request_has_ended_as_exactly_one_thing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e.db");
    let tenant: TenantId = "a".parse().unwrap();
    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    let mut left_behind = 0;
    for round in 0..KILLS {
        let test = "shadow_crash_tests::shadow_crash_child";
        for line in kill_child(test, (CHILD_STORE, &path), 20 + round * 53 % 300, |_| {}) {
            let (id, what) = line.split_once(' ').unwrap();
            acknowledged.insert(id.to_owned(), what.to_owned());
        }
        let before = doctor(&path, &settings(Durability::Strict));
        left_behind += before.shadow_pending;
        let store = EpisodeStore::open(&path, &settings(Durability::Strict)).unwrap();
        let ended: BTreeMap<String, ShadowOutcome> =
            runs(&store, &tenant).into_iter().map(|run| (run.episode.to_string(), run.outcome.unwrap())).collect();
        for (id, what) in &acknowledged {
            let outcome = ended.get(id).unwrap_or_else(|| panic!("kill {round} lost the run of {id}"));
            // a run that was not acknowledged as ended may have ended all the same
            assert!(what == "sampled" || what == outcome.label(), "{id} was {what} and is {outcome:?}");
        }
        let account = store.reader().shadow_accounting(&tenant, Some("x")).unwrap().remove(0);
        assert!(account.adds_up() && account.pending == 0, "{account:?}");
        let episodes = store.reader().scan(&tenant, ScanRange::default(), |_| std::ops::ControlFlow::Continue(()));
        assert_eq!((account.sampled, ended.len() as u64), (episodes.unwrap(), account.sampled));
        store.close().await;
        assert_eq!(doctor(&path, &settings(Durability::Strict)).findings, [], "after kill {round}");
    }
    assert!(left_behind > 0 && acknowledged.len() > KILLS, "the kills came while runs were pending");
}
