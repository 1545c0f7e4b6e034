//! Definitions, feedback, verdicts, rewards, and the walk over episodes.

use std::ops::ControlFlow;

use recast_config::Durability;
use recast_domain::{Episode, EpisodeId, FeedbackSignal, TenantId};
use serde_json::json;

use crate::test_site::{Site, on_both};
use crate::testing::{assignment, completed, ended, episode, feedback, reward, sampled, settings, verdict};
use crate::{
    EpisodeError, EpisodeReader, EpisodeStore, ExperimentChange, FeedbackStored, PutCounts, ScanRange, Side,
    VerdictRecord, backup,
};

on_both!(
    async: definitions_have_versions_and_conflicts_are_named, of_two_changes_of_one_version_one_wins, feedback_is_stored_once_and_joined_when_its_episode_appears, a_verdict_stands_and_a_missing_one_may_be_filled_in, the_same_question_asked_again_finds_its_verdict_by_key_and_gets_a_row_of_its_own, rewards_are_replaced_under_the_same_weights_and_kept_beside_others, a_walk_shows_every_episode_of_the_range_once_and_goes_on_past_a_bad_one
);

fn change(definition: &str, expected_version: Option<u32>) -> ExperimentChange {
    ExperimentChange {
        id: "x".to_owned(),
        definition: definition.to_owned(),
        expected_version,
        created_ms: 7,
        author: "key-1".to_owned(),
        note: "比较".to_owned(),
    }
}

async fn definitions_have_versions_and_conflicts_are_named(site: &Site) {
    let store = site.store();
    assert_eq!(store.save_experiment(change("{\"rate\":1}", Some(0))).await.unwrap(), 1);
    let error = store.save_experiment(change("{}", Some(0))).await.unwrap_err();
    assert!(matches!(error, EpisodeError::VersionConflict { expected: 0, found: 1, .. }), "{error}");
    assert_eq!(error.kind(), recast_domain::ErrorKind::Conflict);
    assert_eq!(store.save_experiment(change("{\"rate\":2}", Some(1))).await.unwrap(), 2);
    assert_eq!(store.save_experiment(change("{\"rate\":3}", None)).await.unwrap(), 3);
    assert_eq!(store.save_experiment(ExperimentChange { id: "a".to_owned(), ..change("{}", None) }).await.unwrap(), 1);
    let latest = store.reader().experiments().unwrap();
    let latest: Vec<_> = latest.iter().map(|one| (one.id.as_str(), one.version, one.definition.as_str())).collect();
    assert_eq!(latest, [("a", 1, "{}"), ("x", 3, "{\"rate\":3}")]);
    let versions = store.reader().experiment_versions("x").unwrap();
    assert_eq!(versions.iter().map(|one| one.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((versions[0].author.as_str(), versions[0].note.as_str()), ("key-1", "比较"));
    assert!(store.reader().experiment_versions("none").unwrap().is_empty());
}

async fn of_two_changes_of_one_version_one_wins(site: &Site) {
    let store = site.store();
    store.save_experiment(change("{}", Some(0))).await.unwrap();
    let (one, other) =
        tokio::join!(store.save_experiment(change("1", Some(1))), store.save_experiment(change("2", Some(1))));
    assert_eq!([&one, &other].iter().filter(|saved| saved.is_ok()).count(), 1, "{one:?} {other:?}");
    assert_eq!(store.reader().experiment_versions("x").unwrap().len(), 2);
}

async fn feedback_is_stored_once_and_joined_when_its_episode_appears(site: &Site) {
    let store = site.store();
    let late = Episode { experiment: Some(assignment("control")), ..episode("a", 1) };
    let mut first = feedback(&late, 3);
    first.signal = FeedbackSignal::Comment { text: "很好".to_owned() };
    let second = feedback(&late, 2);
    let reader = store.reader();
    assert!(!reader.has(&late.tenant, late.id).unwrap());
    assert_eq!(store.put_feedback(&first).await.unwrap(), FeedbackStored::Stored);
    assert_eq!(store.put_feedback(&second).await.unwrap(), FeedbackStored::Stored);
    let mut again = first.clone();
    again.signal = FeedbackSignal::Thumbs { up: false };
    assert_eq!(store.put_feedback(&again).await.unwrap(), FeedbackStored::Duplicate);
    assert_eq!(reader.feedback(&late.tenant, late.id).unwrap(), [second, first.clone()]);
    assert!(reader.feedback_by_experiment(&late.tenant, "x").unwrap().is_empty(), "no episode yet");
    store.append(late.clone()).await.unwrap();
    assert!(reader.has(&late.tenant, late.id).unwrap());
    let joined = reader.feedback_by_experiment(&late.tenant, "x").unwrap();
    assert_eq!(joined.len(), 2);
    assert_eq!((joined[1].episode, joined[1].arm.as_str(), &joined[1].signal), (late.id, "control", &first.signal));
    let other: TenantId = "b".parse().unwrap();
    assert!(reader.feedback(&other, late.id).unwrap().is_empty() && !reader.has(&other, late.id).unwrap());
    assert!(reader.feedback_by_experiment(&other, "x").unwrap().is_empty());
    let mut bad = feedback(&late, 4);
    bad.signal = FeedbackSignal::Score { value: f64::NAN };
    assert!(matches!(store.put_feedback(&bad).await, Err(EpisodeError::Invalid(_))));
}

async fn a_verdict_stands_and_a_missing_one_may_be_filled_in(site: &Site) {
    let store = site.store();
    let mine = episode("a", 1);
    store.append(mine.clone()).await.unwrap();
    let missing = verdict(&mine, 1, None);
    let scored = verdict(&mine, 1, Some(json!([4, 4, 5, 3])));
    let completion = VerdictRecord { side: Side::Completion("ab12".to_owned()), ..verdict(&mine, 2, Some(json!(1))) };
    let lost = verdict(&episode("a", 2), 3, None);
    let counts = store.put_verdicts(vec![missing.clone(), completion.clone(), lost]).await.unwrap();
    assert_eq!(counts, PutCounts { stored: 2, known: 0, no_episode: 1 });
    let reader = store.reader();
    assert_eq!(reader.verdict_by_key(&mine.tenant, &[1; 32]).unwrap(), Some(missing));
    let other = verdict(&mine, 1, Some(json!([1, 1, 1, 1])));
    let counts = store.put_verdicts(vec![scored.clone(), other]).await.unwrap();
    assert_eq!(counts, PutCounts { stored: 1, known: 1, no_episode: 0 });
    assert_eq!(reader.verdicts(&mine.tenant, mine.id).unwrap(), [completion, scored.clone()]);
    assert_eq!(reader.verdict_by_key(&mine.tenant, &[1; 32]).unwrap(), Some(scored));
    assert_eq!(reader.verdict_by_key(&"b".parse().unwrap(), &[1; 32]).unwrap(), None);
}

async fn the_same_question_asked_again_finds_its_verdict_by_key_and_gets_a_row_of_its_own(site: &Site) {
    let store = site.store();
    let (one, two) = (episode("a", 1), episode("a", 2));
    for episode in [&one, &two] {
        store.append(episode.clone()).await.unwrap();
    }
    let first = verdict(&one, 1, Some(json!(4)));
    store.put_verdicts(vec![verdict(&two, 1, None), first.clone()]).await.unwrap();
    let reader = store.reader();
    assert_eq!(reader.verdict_by_key(&one.tenant, &[1; 32]).unwrap(), Some(first), "one with scores comes first");
    assert_eq!(reader.verdicts(&two.tenant, two.id).unwrap().len(), 1);
}

async fn rewards_are_replaced_under_the_same_weights_and_kept_beside_others(site: &Site) {
    let store = site.store();
    let mine = episode("a", 1);
    store.append(mine.clone()).await.unwrap();
    let newer = reward(&mine, "w1", 0.75);
    let beside = reward(&mine, "w2", -1.0);
    store.put_rewards(vec![reward(&mine, "w1", 0.5), beside.clone()]).await.unwrap();
    assert_eq!(store.put_rewards(vec![newer.clone()]).await.unwrap().stored, 1);
    assert_eq!(store.reader().rewards(&mine.tenant, mine.id).unwrap(), [newer, beside]);
    assert!(store.reader().rewards(&"b".parse().unwrap(), mine.id).unwrap().is_empty());
    let many: Vec<_> = (0..600).map(|n| reward(&mine, &format!("many-{n}"), 0.0)).collect();
    assert_eq!(store.put_rewards(many).await.unwrap(), PutCounts { stored: 600, known: 0, no_episode: 0 });
}

fn walk(reader: &EpisodeReader, range: ScanRange) -> Vec<Result<i64, String>> {
    let mut seen = Vec::new();
    let shown = reader.scan(&"a".parse().unwrap(), range, |episode| {
        seen.push(episode.map(|episode| episode.created_ms).map_err(|error| error.to_string()));
        ControlFlow::Continue(())
    });
    assert_eq!(shown.unwrap() as usize, seen.len());
    seen
}

async fn a_walk_shows_every_episode_of_the_range_once_and_goes_on_past_a_bad_one(site: &Site) {
    let store = site.store();
    let ids: Vec<EpisodeId> = (0..300).map(|_| EpisodeId::now()).collect();
    let writes = ids.iter().zip(0..).map(|(id, ms)| Episode { id: *id, ..episode("a", ms) });
    for episode in writes {
        store.append(episode).await.unwrap();
    }
    store.append(episode("b", 999)).await.unwrap();
    let reader = store.reader();
    assert_eq!(walk(&reader, ScanRange::default()), (0..300).map(Ok).collect::<Vec<_>>());
    let range = ScanRange { after: Some(ids[9]), until: Some(ids[12]) };
    assert_eq!(walk(&reader, range), [Ok(10), Ok(11), Ok(12)]);
    let mut shown = 0;
    let walked = reader.scan(&"a".parse().unwrap(), ScanRange::default(), |_| {
        shown += 1;
        if shown == 200 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(walked.unwrap(), 200);
    let bad = ids[11];
    store.with_writer(move |connection| {
        let sql = "UPDATE episodes SET record_version = 99 WHERE id = ?1";
        connection.execute(sql, &[bad.0.as_bytes().into()]).unwrap();
    });
    store.append(episode("b", 0)).await.unwrap();
    let walked = walk(&reader, range);
    assert!(walked[0].is_ok() && walked[2].is_ok() && walked[1].as_ref().unwrap_err().contains("newer"), "{walked:?}");
}

#[tokio::test]
async fn a_backup_holds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = EpisodeStore::open(dir.path().join("e.db"), &settings(Durability::Strict)).unwrap();
    let (mine, run) = sampled("a", 1);
    store.append_sampled(mine.clone(), run.clone()).await.unwrap();
    store.end_shadow(&ended(&run, completed())).await.unwrap();
    store.save_experiment(change("{}", None)).await.unwrap();
    store.put_feedback(&feedback(&mine, 2)).await.unwrap();
    store.put_verdicts(vec![verdict(&mine, 1, None)]).await.unwrap();
    store.put_rewards(vec![reward(&mine, "w", 0.0)]).await.unwrap();
    let copy = dir.path().join("copy.db");
    backup(&dir.path().join("e.db"), &copy).unwrap();
    let (live, copy) = (store.reader(), EpisodeReader::open(&copy).unwrap());
    let everything = |reader: &EpisodeReader| {
        let (tenant, id) = (&mine.tenant, mine.id);
        (
            reader.pairs(tenant, "x", None, None, 9).unwrap(),
            reader.experiments().unwrap(),
            reader.feedback(tenant, id).unwrap(),
            reader.verdicts(tenant, id).unwrap(),
            reader.rewards(tenant, id).unwrap(),
        )
    };
    let there = everything(&copy);
    assert_eq!(there, everything(&live));
    assert_eq!([there.0.len(), there.1.len(), there.2.len(), there.3.len(), there.4.len()], [1; 5]);
}
