//! Stops or kills a writer at every step: a policy is there as a whole or not at all, and one version is active.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use recast_domain::ErrorKind;

use crate::PolicyStore;
use crate::disk::Step;
use crate::pointer_tests::line_of_versions;
use crate::testing::{TestStore, acme, base, draft, policy};

/// Folder of the test that a child works in. Unset in an ordinary run, where the child's test does nothing.
const CHILD_DIR: &str = "RECAST_POLICIES_CRASH_DIR";
/// What the child does: the name of the step at which it waits to be killed, or `moves`.
const CHILD_ORDER: &str = "RECAST_POLICIES_CRASH_ORDER";

const PUBLISHING: [Step; 5] =
    [Step::FolderMade, Step::FileCopied, Step::ManifestWritten, Step::FolderSynced, Step::FolderNamed];
const MOVING: [Step; 3] = [Step::PointerWritten, Step::PointerMoved, Step::JournalWritten];

/// What is attempted when the crash comes: with policies `a`, `b`, `c` and `a` active, publish `new` and promote `b`.
fn attempt(store: &PolicyStore, adapter: &Path) -> crate::Result<()> {
    store.publish(&draft("new", adapter, 9))?;
    store.promote(&acme(), &policy("b"), 1, "better", 10)?;
    store.retain(&acme(), 1, 11).map(drop)
}

fn prepared() -> TestStore {
    let test = TestStore::with(&["a", "b", "c"]);
    test.store.promote(&acme(), &policy("a"), 0, "first", 4).unwrap();
    test
}

/// After a crash at `step`: nothing half visible, and the same work can be done to its end.
fn assert_sound_after(test: &TestStore, step: Step) {
    let named = !PUBLISHING[..4].contains(&step);
    let retired = step == Step::Retired;
    let expected: &[&str] = match (named, retired) {
        (false, _) => &["a", "b", "c"],
        (true, false) => &["a", "b", "c", "new"],
        (true, true) => &["a", "b", "new"],
    };
    assert_eq!(test.names(), expected, "after {step:?}");
    for name in expected {
        test.store.load(&acme(), &policy(name)).unwrap();
    }
    let moved = retired || MOVING[1..].contains(&step);
    assert_eq!(test.current().as_deref(), Some(if moved { "b" } else { "a" }), "after {step:?}");
    // reading the journal lets it catch up with the pointer
    line_of_versions(&test.store, if moved { 2 } else { 1 });

    match test.store.publish(&draft("new", &test.adapter, 9)) {
        Ok(_) => assert!(!named),
        Err(error) => assert!(named && error.kind() == ErrorKind::Conflict, "{error}"),
    }
    match test.store.promote(&acme(), &policy("b"), 1, "better", 10) {
        Ok(_) => assert!(!moved),
        Err(error) => assert!(moved && error.kind() == ErrorKind::Conflict, "{error}"),
    }
    line_of_versions(&test.store, 2);
    test.store.retain(&acme(), 1, 11).unwrap();
    test.publish("after", 12);
    assert_eq!(test.names(), ["a", "b", "new", "after"], "after {step:?}");
    let left = fs::read_dir(test.dir.path().join("policies/acme")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with('.')), "{step:?} left {left:?}");
}

fn all_steps() -> impl Iterator<Item = Step> {
    PUBLISHING.into_iter().chain(MOVING).chain([Step::Retired])
}

#[test]
fn an_error_at_any_step_leaves_nothing_half_visible() {
    for step in all_steps() {
        let test = prepared();
        let stop_at = move |reached| if reached == step { Err(io::Error::other("stopped here")) } else { Ok(()) };
        let failing = test.store.clone().with_hook(Arc::new(stop_at));
        let error = attempt(&failing, &test.adapter).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("stopped here"), "{step:?} was not reached: {error}");
        assert_sound_after(&test, step);
    }
}

/// The child: this test binary again, told to run only this.
#[test]
fn crash_child() {
    let (Some(dir), Some(order)) = (std::env::var_os(CHILD_DIR), std::env::var_os(CHILD_ORDER)) else { return };
    let (dir, order) = (Path::new(&dir), order.into_string().unwrap());
    let store = PolicyStore::open(&dir.join("policies"), base()).unwrap();
    if order == "moves" {
        return move_the_pointer(&store);
    }
    let wait_at = move |reached: Step| {
        if format!("{reached:?}") == order {
            io::stderr().write_all(b"reached\n")?;
            // the parent never writes: this ends when the process does
            io::stdin().read_to_end(&mut Vec::new())?;
        }
        Ok(())
    };
    attempt(&store.with_hook(Arc::new(wait_at)), &dir.join("adapter")).unwrap();
}

fn child(dir: &Path, order: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash_tests::crash_child", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_ORDER, order)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn sigkill_at_any_step_leaves_nothing_half_visible() {
    for step in all_steps() {
        let test = prepared();
        let mut child = child(test.dir.path(), &format!("{step:?}"));
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "reached\n", "at {step:?}");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "the child must have been killed at {step:?}");
        assert_sound_after(&test, step);
    }
}

/// Moves of the pointer that each contending process makes.
const MOVES: u64 = 15;

/// Promotes and rolls back until enough moves succeeded, whatever others do meanwhile.
fn move_the_pointer(store: &PolicyStore) {
    let (mut done, mut lost) = (0, 0);
    while done < MOVES {
        let active = store.active(&acme()).unwrap();
        let other = if active.current.is_some_and(|active| active.policy == policy("b")) { "c" } else { "b" };
        let result = if active.version % 3 == 2 {
            store.roll_back(&acme(), active.version, "worse", 1)
        } else {
            store.promote(&acme(), &policy(other), active.version, "better", 1)
        };
        match result {
            Ok(now) => {
                assert_eq!(now.version, active.version + 1);
                done += 1;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                lost += 1;
            }
        }
    }
    writeln!(io::stderr(), "moved, and lost {lost} races").unwrap();
}

#[test]
fn processes_that_promote_and_roll_back_at_once_make_one_history() {
    const PROCESSES: u64 = 3;
    let test = prepared();
    let children: Vec<Child> = (0..PROCESSES).map(|_| child(test.dir.path(), "moves")).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("moved"));
    }
    // every success counts once: none was overwritten
    line_of_versions(&test.store, 1 + PROCESSES * MOVES);
    test.store.load_active(&acme()).unwrap();
}
