//! Every sampled request ends as exactly one thing, whatever happens in whatever order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use recast_domain::{Episode, ShadowKind, ShadowOutcome, ShadowRun, TenantId};

use crate::record::encode;
use crate::test_site::{Site, on_both};
use crate::testing::{assignment, completed, dropped, ended, episode, failed, sampled};
use crate::write::{Write, commit};
use crate::{EpisodeError, EpisodeStore, RunCursor, ShadowEnd, accounting, pairs};

on_both!(
    async: a_sampled_episode_and_its_run_come_together_and_end_once, a_run_without_its_episode_leaves_no_row, pairs_come_by_episode_in_pages_without_gap_or_repeat
);
on_both!(the_first_transaction_ends_what_could_not_be_ended_at_the_start);

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

async fn a_sampled_episode_and_its_run_come_together_and_end_once(site: &Site) {
    let store = site.store();
    let (episode, run) = sampled("a", 1);
    store.append_sampled(episode.clone(), run.clone()).await.unwrap();
    let account = store.reader().shadow_accounting(&run.tenant, None).unwrap().remove(0);
    assert_eq!((account.sampled, account.pending, account.adds_up()), (1, 1, true));
    assert!(store.reader().pairs(&run.tenant, "x", None, None, 10).unwrap().is_empty());
    let whole = ended(&run, completed());
    assert_eq!(store.end_shadow(&whole).await.unwrap(), ShadowEnd::Stored);
    assert_eq!(store.end_shadow(&ended(&run, failed("late"))).await.unwrap(), ShadowEnd::AlreadyEnded);
    // sampling it again does not open it again
    store.append_sampled(episode.clone(), run.clone()).await.unwrap();
    assert_eq!(store.reader().pairs(&run.tenant, "x", Some(1), None, 10).unwrap(), [(episode, whole.clone())]);
    assert!(store.reader().pairs(&run.tenant, "x", Some(2), None, 10).unwrap().is_empty());
    assert_eq!(store.reader().shadow_run(&run.tenant, run.episode, ShadowKind::Treatment).unwrap(), Some(whole));
    assert_eq!(store.reader().shadow_run(&run.tenant, run.episode, ShadowKind::Control).unwrap(), None);
    assert!(store.reader().shadow_accounting(&tenant("b"), None).unwrap().is_empty());
    assert_eq!(store.health().stored, 2, "runs are no episodes");
}

async fn a_run_without_its_episode_leaves_no_row(site: &Site) {
    let store = site.store();
    let (_, run) = sampled("a", 1);
    assert_eq!(store.end_shadow(&ended(&run, completed())).await.unwrap(), ShadowEnd::NoEpisode);
    // an episode of this id is there, and it is another tenant's
    let other = Episode { id: run.episode, ..episode("b", 1) };
    store.append(other).await.unwrap();
    assert_eq!(store.end_shadow(&ended(&run, completed())).await.unwrap(), ShadowEnd::NoEpisode);
    assert!(store.reader().shadow_accounting(&run.tenant, None).unwrap().is_empty());
}

#[tokio::test]
async fn only_ends_of_runs_do_not_wait_for_the_disk() {
    let site = Site::file();
    let store = site.store();
    let (sender, seen) = std::sync::mpsc::channel();
    let how = |store: &EpisodeStore| {
        let sender = sender.clone();
        store.with_writer(move |connection| {
            sender.send(connection.number("PRAGMA synchronous", &[]).unwrap()).unwrap();
        });
        seen.recv().unwrap()
    };
    let (episode, run) = sampled("a", 1);
    store.append_sampled(episode, run.clone()).await.unwrap();
    assert_eq!(how(&store), 2, "FULL");
    assert_eq!(store.end_shadow(&ended(&run, completed())).await.unwrap(), ShadowEnd::Stored);
    assert_eq!(how(&store), 2, "FULL again, for the next episode");
    store.close().await;
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_whole() {
    let site = Site::file();
    let store = site.store();
    let (mine, run) = sampled("a", 1);
    let (_, of_another) = sampled("a", 2);
    for wrong in [of_another, ShadowRun { tenant: tenant("b"), ..run.clone() }] {
        let error = store.append_sampled(mine.clone(), wrong).await.unwrap_err();
        assert!(matches!(error, EpisodeError::Invalid(_)), "{error}");
    }
    let mut broken = completed();
    if let ShadowOutcome::Completed { answer } = &mut broken {
        answer.hits[0].score = f32::NAN;
    }
    let error = store.append_sampled(mine.clone(), ended(&run, broken)).await.unwrap_err().to_string();
    assert!(error.contains("shadow") && error.contains("hits[0]"), "{error}");
    assert!(matches!(store.end_shadow(&run).await, Err(EpisodeError::Invalid(_))), "it has no outcome");
    // SQLite refuses the run here, after it took the episode
    store.with_writer(|connection| {
        let refuse = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON main.shadow_runs
            BEGIN SELECT RAISE(ABORT, 'refused'); END";
        connection.execute(refuse, &[]).unwrap();
    });
    assert!(store.append_sampled(mine.clone(), run).await.is_err());
    assert!(!store.reader().has(&mine.tenant, mine.id).unwrap(), "both or neither");
    let health = store.health();
    assert_eq!((health.stored, health.failed, health.problem), (0, 4, None));
}

async fn pairs_come_by_episode_in_pages_without_gap_or_repeat(site: &Site) {
    let store = site.store();
    let mut expected = Vec::new();
    for ms in 0..12 {
        let (episode, run) = sampled("a", ms);
        let outcome = if ms % 4 == 3 { failed("breaker_open") } else { completed() };
        let control = ShadowRun { kind: ShadowKind::Control, assignment: assignment("control"), ..run.clone() };
        store.append_sampled(episode, ended(&run, outcome)).await.unwrap();
        // a second run of the same episode, entered when it has ended
        assert_eq!(store.end_shadow(&ended(&control, completed())).await.unwrap(), ShadowEnd::Stored);
        expected.push((ms, ShadowKind::Control));
        if ms % 4 != 3 {
            expected.push((ms, ShadowKind::Treatment));
        }
    }
    let (elsewhere, run) = sampled("a", 99);
    let run = ShadowRun { assignment: assignment("y"), ..ended(&run, completed()) };
    let run =
        ShadowRun { assignment: recast_domain::Assignment { experiment: "y".to_owned(), ..run.assignment }, ..run };
    store.append_sampled(elsewhere, run).await.unwrap();
    let (mut seen, mut after): (Vec<_>, Option<RunCursor>) = (Vec::new(), None);
    loop {
        let page = store.reader().pairs(&tenant("a"), "x", None, after.as_ref(), 5).unwrap();
        let Some((_, last)) = page.last() else { break };
        after = Some(last.into());
        seen.extend(page.iter().map(|(episode, run)| {
            assert_eq!(episode.id, run.episode);
            (episode.created_ms, run.kind)
        }));
    }
    assert_eq!(seen, expected);
    assert_eq!(store.reader().shadow_runs(&tenant("a"), "x", None, None, 100).unwrap().len(), 24);
    assert_eq!(store.reader().shadow_accounting(&tenant("a"), None).unwrap().len(), 3);
    let arms = store.reader().arm_counts(&tenant("a"), "x").unwrap();
    assert_eq!((arms.len(), arms[0].arm.as_str(), arms[0].episodes, arms[0].degraded), (1, "control", 13, 0));
    assert_eq!(store.reader().experiment_episodes(&tenant("a"), "x", None, 100).unwrap().len(), 13);
    assert!(store.reader().experiment_episodes(&tenant("b"), "x", None, 100).unwrap().is_empty());
}

/// Reports read every pair of an experiment and count every run: none of it may walk a table.
#[tokio::test]
async fn no_report_walks_a_table() {
    let site = Site::file();
    let store = site.store();
    let (_, run) = sampled("a", 1);
    let cursor = RunCursor::from(&run);
    let pairs = pairs::query(" AND s.state = 'completed'", (&run.tenant, "x"), Some(1), Some(&cursor), 9).sql;
    let counts = [accounting::COUNTS, " AND experiment = ?2", accounting::BY_OUTCOME].concat();
    let fixed = [accounting::ARM_COUNTS, pairs::MEMBERS, crate::feedback::BY_EXPERIMENT].map(str::to_owned);
    let queries: Vec<_> = [pairs, counts].into_iter().chain(fixed).collect();
    let (sender, plans) = std::sync::mpsc::channel();
    store.with_writer(move |connection| {
        for sql in queries {
            let mut statement = connection.file().unwrap().prepare(&["EXPLAIN QUERY PLAN ", &sql].concat()).unwrap();
            // what is bound does not change the plan, so nothing is
            let mut rows = statement.raw_query();
            let mut plan = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                plan.push(row.get::<_, String>(3).unwrap());
            }
            sender.send(plan).unwrap();
        }
    });
    for _ in 0..5 {
        let plan = plans.recv().unwrap();
        let searches: Vec<_> = plan.iter().filter(|step| !step.starts_with("USE TEMP B-TREE")).collect();
        assert!(searches.iter().all(|step| step.contains("tenant=?")), "{plan:?}");
        assert!(plan[0].contains("experiment=?"), "{plan:?}");
    }
}

fn the_first_transaction_ends_what_could_not_be_ended_at_the_start(site: &Site) {
    let connection = site.connection();
    let write = |ms| {
        let (episode, run) = sampled("a", ms);
        Write::Sampled(encode(&episode).unwrap(), Box::new(crate::ledger::encode(&run).unwrap()))
    };
    commit(&connection, [write(1)].iter(), false).unwrap();
    // on a server the writer of the first one must be gone for longer than its lease
    site.command("UPDATE shadow_runs SET owner = 1");
    commit(&connection, [write(2)].iter(), true).unwrap();
    let reader = site.reader();
    let account = reader.shadow_accounting(&tenant("a"), None).unwrap().remove(0);
    assert_eq!((account.dropped.get("restart"), account.pending), (Some(&1), 1), "only what an earlier process left");
}

/// What may happen to a store that samples.
#[derive(Debug, Clone)]
enum Step {
    /// A request is sampled; its run waits, or ended at once.
    Sample { control: bool, at_once: bool },
    /// The run of an earlier sample ends, perhaps not for the first time.
    End { which: usize, outcome: usize },
    /// A run ends whose episode was never stored.
    EndOfNothing,
    /// The process ends without closing the store, and another one starts.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(control, at_once)| Step::Sample { control, at_once }),
        5 => (any::<usize>(), 0..5_usize).prop_map(|(which, outcome)| Step::End { which, outcome }),
        1 => Just(Step::EndOfNothing),
        1 => Just(Step::Restart),
    ]
}

fn outcome(index: usize) -> ShadowOutcome {
    match index {
        0 => completed(),
        1 => failed("rewriter_failed"),
        2 => failed("breaker_open"),
        3 => ShadowOutcome::TimedOut,
        _ => dropped("queue_full"),
    }
}

/// Label and reason by kind and tenant: how many runs are so.
type Sums = BTreeMap<(String, bool, String), u64>;

fn sums(store: &EpisodeStore) -> Sums {
    let mut sums = Sums::new();
    for name in ["a", "b"] {
        for account in store.reader().shadow_accounting(&tenant(name), Some("x")).unwrap() {
            assert!(account.adds_up(), "{account:?}");
            let mut count = |label: &str, count: u64| {
                if count > 0 {
                    sums.insert((name.to_owned(), account.kind == ShadowKind::Control, label.to_owned()), count);
                }
            };
            count("completed", account.completed);
            count("timed_out", account.timed_out);
            count("pending", account.pending);
            account.failed.iter().for_each(|(reason, failed)| count(&format!("failed {reason}"), *failed));
            account.dropped.iter().for_each(|(reason, dropped)| count(&format!("dropped {reason}"), *dropped));
        }
    }
    sums
}

async fn play(site: &Site, steps: Vec<Step>) {
    let mut store = site.store();
    // what should be there: each run with its label, `pending` first
    let mut model: Vec<(ShadowRun, String)> = Vec::new();
    let label = |outcome: &ShadowOutcome| format!("{} {}", outcome.label(), outcome.reason()).trim_end().to_owned();
    for step in steps {
        match step {
            Step::Sample { control, at_once } => {
                let (episode, mut run) = sampled(["a", "b"][model.len() % 2], 1);
                if control {
                    run.kind = ShadowKind::Control;
                }
                let first = if at_once { ended(&run, dropped("queue_full")) } else { run.clone() };
                store.append_sampled(episode, first.clone()).await.unwrap();
                model.push((run, first.outcome.as_ref().map_or("pending".to_owned(), label)));
            }
            Step::End { which, outcome: index } if !model.is_empty() => {
                let place = which % model.len();
                let (run, now) = &mut model[place];
                let outcome = outcome(index);
                let end = store.end_shadow(&ended(run, outcome.clone())).await.unwrap();
                assert_eq!(end == ShadowEnd::Stored, now == "pending", "{end:?}, {now}");
                if now == "pending" {
                    *now = label(&outcome);
                }
            }
            Step::End { .. } | Step::EndOfNothing => {
                let (_, run) = sampled("a", 1);
                assert_eq!(store.end_shadow(&ended(&run, completed())).await.unwrap(), ShadowEnd::NoEpisode);
            }
            Step::Restart => {
                store.close().await;
                store = site.store();
                for (_, now) in model.iter_mut().filter(|(_, now)| now == "pending") {
                    *now = "dropped restart".to_owned();
                }
            }
        }
        let mut expected = Sums::new();
        for (run, now) in &model {
            let key = (run.tenant.as_str().to_owned(), run.kind == ShadowKind::Control, now.clone());
            *expected.entry(key).or_default() += 1;
        }
        assert_eq!(sums(&store), expected);
    }
    for name in ["a", "b"] {
        let pairs = store.reader().pairs(&tenant(name), "x", None, None, 1000).unwrap();
        let complete = model.iter().filter(|(run, now)| run.tenant.as_str() == name && now == "completed").count();
        assert_eq!(pairs.len(), complete);
    }
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sampled_is_completed_and_failed_and_timed_out_and_dropped_and_pending(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for site in [Some(Site::file()), Site::server()].into_iter().flatten() {
            runtime.block_on(play(&site, steps.clone()));
        }
    }
}
