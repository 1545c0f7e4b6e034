//! Exports that are killed, stopped, and go on.

use std::io::Write as _;

use super::*;
use crate::crash_tests::kill_child;

on_both!(it_makes_no_difference_where_an_export_stops, what_changed_between_the_parts_is_said);

const CHILD: &str = "RECAST_EXPORT_CRASH_FOLDER";
const ROWS: u64 = 3000;

fn hashes(manifest: &Manifest) -> Vec<(String, u64, String)> {
    manifest.files.iter().map(|file| (file.path.clone(), file.rows, file.sha256.clone())).collect()
}

fn in_parts(folder: &Path, format: Format) -> ExportRequest {
    ExportRequest {
        rows_per_file: Some(400),
        resume: true,
        ..request(folder.join(format.ending()), format, &["a", "b"])
    }
}

/// The child: goes on with each format in turn, says so every few hundred rows, and waits for its death in the middle.
#[test]
fn export_child() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let (folder, name) = Path::new(&folder).to_str().unwrap().rsplit_once('@').unwrap();
    let folder = Path::new(folder);
    let format = FORMATS.into_iter().find(|format| format.ending() == name).unwrap();
    let reader = EpisodeReader::open(folder.join("episodes.db")).unwrap();
    let mut steps = 0;
    export(&reader, &in_parts(folder, format), |progress| {
        steps += 1;
        std::io::stderr().write_all(format!("{}\n", progress.rows).as_bytes()).unwrap();
        if steps == 7 {
            // a park may end by itself; this child ends by a kill
            loop {
                std::thread::park();
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
}

#[test]
fn an_export_that_is_killed_twice_holds_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (writer, reader) = store(dir.path(), &["a", "b"], ROWS);
    for format in FORMATS {
        let whole = ExportRequest {
            resume: false,
            folder: dir.path().join("whole").join(format.ending()),
            ..in_parts(dir.path(), format)
        };
        let expected = export(&reader, &whole, go_on).unwrap();
        assert_eq!(expected.rows, 2 * ROWS);

        let child = format!("{}@{}", dir.path().display(), format.ending());
        let name = "export::tests::killed::export_child";
        let first = kill_child(name, (CHILD, Path::new(&child)), 7, |_| {});
        assert!(dir.path().join(format.ending()).join("export.state.json").exists());
        assert!(!dir.path().join(format.ending()).join("manifest.json").exists());
        // what comes meanwhile belongs to a later export
        let late: Vec<Write> = writes("a", 1_000_000 + u64::from(format == Format::Csv));
        commit(&writer, late.iter(), false).unwrap();
        let second = kill_child(name, (CHILD, Path::new(&child)), 7, |_| {});
        let rows = |lines: &[String]| lines.last().unwrap().parse::<u64>().unwrap();
        assert!(rows(&first) < rows(&second) && rows(&second) < 2 * ROWS, "{first:?} {second:?}");

        let resumed = export(&reader, &in_parts(dir.path(), format), go_on).unwrap();
        assert_eq!(resumed.resumed, 2);
        assert_eq!(resumed.drift, Default::default());
        assert_eq!(hashes(&resumed), hashes(&expected), "{format:?}");
        let left: Vec<String> = files(&dir.path().join(format.ending()));
        assert_eq!(left.len(), expected.files.len() + 1, "only the files and the manifest are left: {left:?}");
        commit_delete(&writer);
    }
}

/// Takes the late episodes out again, so that each format is compared with the same store.
fn commit_delete(writer: &Connection) {
    writer.execute("DELETE FROM episodes WHERE id > ?1", &[id(ROWS).0.as_bytes().into()]).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path.display().to_string()) }
    }
    all
}

/// Stops at every step in turn, without a process each: whatever was finished when is never in the bytes.
fn it_makes_no_difference_where_an_export_stops(site: &Site) {
    let (_writer, reader) = store_at(site, &["a", "b"], 700);
    let whole =
        ExportRequest { resume: false, folder: site.folder().join("whole"), ..in_parts(site.folder(), Format::Jsonl) };
    let expected = hashes(&export(&reader, &whole, go_on).unwrap());
    for stop in 1..=5 {
        let parts = ExportRequest {
            folder: site.folder().join(format!("parts-{stop}")),
            ..in_parts(site.folder(), Format::Jsonl)
        };
        let mut steps = 0;
        let stopped = export(&reader, &parts, |_| {
            steps += 1;
            if steps == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(ExportError::Stopped)) || stop == 5, "{stopped:?}");
        if stopped.is_err() {
            assert_eq!(hashes(&export(&reader, &parts, go_on).unwrap()), expected, "stopped at {stop}");
        }
    }
}

fn what_changed_between_the_parts_is_said(site: &Site) {
    let (writer, reader) = store_at(site, &["a", "b"], 700);
    let parts = in_parts(site.folder(), Format::Csv);
    let stopped = export(&reader, &parts, |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(ExportError::Stopped)));
    let one = nth("a", 2);
    let later = crate::RewardRecord { created_ms: i64::MAX / 2, ..reward(&one, "w1", 0.1) };
    commit(&writer, [Write::Rewards(vec![later])].iter(), false).unwrap();
    assert_eq!(export(&reader, &parts, go_on).unwrap().drift.replaced, 1);
}

#[test]
fn folders_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, reader) = store(dir.path(), &["a"], 600);
    let refused = |request: &ExportRequest, why: &str| {
        let error = export(&reader, request, go_on).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    // the store's own folder is not empty
    refused(&request(dir.path().to_owned(), Format::Csv, &["a"]), "not empty");
    let out = request(dir.path().join("out"), Format::Csv, &["a"]);
    assert!(export(&reader, &out, |_| ControlFlow::Break(())).is_err());
    refused(&out, "resume it");
    let resume = ExportRequest { resume: true, ..out };
    refused(&ExportRequest { format: Format::Jsonl, ..resume.clone() }, "asked for something else");
    refused(&ExportRequest { tenants: vec!["b".parse().unwrap()], ..resume.clone() }, "asked for something else");
    let mut inner = None;
    export(&reader, &resume, |_| {
        inner.get_or_insert_with(|| export(&reader, &resume, go_on).unwrap_err().to_string());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(inner.unwrap().contains("another export writes here"));
    refused(&resume, "a finished export");
    refused(
        &ExportRequest { rows_per_file: Some(2_000_000), ..request(dir.path().join("big"), Format::Xlsx, &["a"]) },
        "1048575",
    );
}
