use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::Barrier;
use std::thread;

use recast_domain::{ErrorKind, TenantId};

use crate::testing::{TestStore, acme, draft, policy, tamper};
use crate::{ADAPTER_WEIGHTS, Cause, Event, PolicyStore, Scope};

#[test]
fn promotions_and_roll_backs_go_along_one_line_of_versions() {
    let test = TestStore::with(&["a", "b"]);
    let store = &test.store;
    assert_eq!(store.active(&acme()).unwrap().version, 0);
    assert_eq!(store.promote(&acme(), &policy("a"), 0, "better", 1).unwrap().version, 1);
    let second = store.promote(&acme(), &policy("b"), 1, "better still", 2).unwrap();
    assert_eq!(second.previous.unwrap().policy, policy("a"));
    assert_eq!(store.load_active(&acme()).unwrap().unwrap().manifest.policy, policy("b"));
    let back = store.roll_back(&acme(), 2, "worse", 3).unwrap();
    assert_eq!((back.version, test.current().as_deref()), (3, Some("a")));
    store.roll_back(&acme(), 3, "worse too", 4).unwrap();
    assert_eq!((test.current(), store.load_active(&acme()).unwrap()), (None, None));
    assert_eq!(store.roll_back(&acme(), 4, "again", 5).unwrap_err().kind(), ErrorKind::Conflict);
    let last = store.journal(&acme()).unwrap().pop().unwrap();
    let event = Event::Activated {
        version: 4,
        from: Some(policy("a")),
        to: None,
        cause: Cause::RollBack,
        reason: "worse too".to_owned(),
    };
    assert_eq!((last.at_ms, last.event), (4, event));
}

#[test]
fn who_saw_an_old_version_is_told_so() {
    let test = TestStore::with(&["a", "b"]);
    test.store.promote(&acme(), &policy("a"), 0, "better", 1).unwrap();
    for error in [
        test.store.promote(&acme(), &policy("b"), 0, "late", 2).unwrap_err(),
        test.store.roll_back(&acme(), 7, "early", 2).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("is at version 1"), "{error}");
    }
    let error = test.store.promote(&acme(), &policy("a"), 1, "again", 2).unwrap_err();
    assert!(error.to_string().contains("active for tenant acme already"), "{error}");
    assert_eq!(test.store.promote(&acme(), &policy("x"), 1, "unknown", 2).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(test.current().as_deref(), Some("a"));
}

#[test]
fn a_tenant_is_served_its_own_policy_else_everyones() {
    let test = TestStore::with(&["own"]);
    let tenant: TenantId = "acme".parse().unwrap();
    let served = || test.store.active_for(&tenant).unwrap().current.map(|active| active.policy.to_string());
    assert_eq!(served(), None);
    let mut common = draft("common", &test.adapter, 0);
    common.scope = Scope::Everyone;
    test.store.publish(&common).unwrap();
    test.store.promote(&Scope::Everyone, &policy("common"), 0, "for all", 1).unwrap();
    assert_eq!(served().as_deref(), Some("common"));
    test.store.promote(&acme(), &policy("own"), 0, "better here", 2).unwrap();
    assert_eq!(served().as_deref(), Some("own"));
    test.store.roll_back(&acme(), 1, "worse", 3).unwrap();
    assert_eq!(served().as_deref(), Some("common"));
}

#[test]
fn damaged_policies_are_neither_promoted_nor_rolled_back_to() {
    let test = TestStore::with(&["a", "b", "c"]);
    for (version, name) in (0..).zip(["a", "b", "c"]) {
        test.store.promote(&acme(), &policy(name), version, "better", 1).unwrap();
    }
    tamper(&test.policy_dir("b").join(ADAPTER_WEIGHTS), |bytes| bytes[20] ^= 1);
    let back = test.store.roll_back(&acme(), 3, "worse", 2).unwrap();
    assert_eq!(back.current.unwrap().policy, policy("a"));
    let Some(Event::Activated { reason, .. }) = test.store.journal(&acme()).unwrap().pop().map(|record| record.event)
    else {
        panic!("the roll-back is the last record")
    };
    assert!(reason.starts_with("worse; b was passed over") && reason.contains("BLAKE3"), "{reason}");
    assert_eq!(test.store.promote(&acme(), &policy("b"), 4, "again", 3).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(test.current().as_deref(), Some("a"));
}

#[test]
fn another_policy_under_the_promoted_name_is_not_served() {
    let test = TestStore::with(&["a"]);
    test.store.promote(&acme(), &policy("a"), 0, "better", 1).unwrap();
    fs::remove_dir_all(test.policy_dir("a")).unwrap();
    test.publish("a", 99);
    assert!(test.store.load(&acme(), &policy("a")).is_ok());
    let error = test.store.load_active(&acme()).unwrap_err();
    assert!(error.to_string().contains("another policy of the name"), "{error}");
}

#[test]
fn half_a_line_at_the_journals_end_is_cut_off() {
    let test = TestStore::with(&["a", "b"]);
    test.store.promote(&acme(), &policy("a"), 0, "better", 1).unwrap();
    let before = test.store.journal(&acme()).unwrap();
    let path = test.dir.path().join("policies/acme/JOURNAL.jsonl");
    // longer than the block in which the last line end is looked for
    for length in [1, 5_000] {
        let half = format!("{{\"at_ms\":{}", "1".repeat(length));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(half.as_bytes()).unwrap();
        assert_eq!(test.store.journal(&acme()).unwrap(), before);
    }
    test.store.promote(&acme(), &policy("b"), 1, "better", 2).unwrap();
    let after = test.store.journal(&acme()).unwrap();
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
}

#[test]
fn a_journal_shorter_than_the_pointer_knows_is_reported() {
    let test = TestStore::with(&["a", "b"]);
    test.store.promote(&acme(), &policy("a"), 0, "better", 1).unwrap();
    fs::write(test.dir.path().join("policies/acme/JOURNAL.jsonl"), "").unwrap();
    let error = test.store.promote(&acme(), &policy("b"), 1, "better", 2).unwrap_err();
    assert!(error.to_string().contains("JOURNAL.jsonl: its length is 0"), "{error}");
    assert_eq!(test.current().as_deref(), Some("a"), "what serves goes on serving");
}

#[test]
fn of_promotions_and_roll_backs_at_one_version_one_succeeds() {
    const THREADS: usize = 8;
    for round in 0..10 {
        let test = TestStore::with(&["a", "b", "c"]);
        test.store.promote(&acme(), &policy("a"), 0, "first", 0).unwrap();
        let start = Barrier::new(THREADS);
        let act = |n: usize| {
            start.wait();
            match n % 3 {
                0 => test.store.roll_back(&acme(), 1, "worse", 1),
                1 => test.store.promote(&acme(), &policy("b"), 1, "better", 1),
                _ => test.store.promote(&acme(), &policy("c"), 1, "better", 1),
            }
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || act(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|e| e.kind() == ErrorKind::Conflict));
        assert_eq!(test.store.active(&acme()).unwrap(), *winners[0]);
        line_of_versions(&test.store, 2);
    }
}

/// Asserts that the journal tells one history, without gaps, that ends at the pointer's version.
pub(crate) fn line_of_versions(store: &PolicyStore, expected: u64) {
    let (mut last, mut serving) = (0, None);
    for record in store.journal(&acme()).unwrap() {
        if let Event::Activated { version, from, to, .. } = record.event {
            assert_eq!((version, &from), (last + 1, &serving), "a gap in the history");
            (last, serving) = (version, to);
        }
    }
    let active = store.active(&acme()).unwrap();
    assert_eq!((active.version, active.current.map(|active| active.policy)), (last, serving));
    assert_eq!(last, expected);
}
