//! The program itself, against its own echo server.
#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use recast_loadtest::overhead::EchoProcess;

/// The program beside the folder of this test. `env!("CARGO_BIN_EXE_recast-loadtest")` would not do: the compiler is
/// called through a shell script here, and some shells drop variables with a hyphen in their name.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows itself");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    profile.join("recast-loadtest")
}

#[tokio::test]
async fn a_run_prints_a_table_and_writes_the_whole_histogram() {
    let echo = EchoProcess::start(&program()).await.expect("the echo server starts");
    let folder = tempfile::tempdir().expect("a folder");
    let tenant = folder.path().join("fivedoctors");
    std::fs::create_dir(&tenant).expect("a folder");
    let dialogue = r#"{"id":"d","conversation_id":"c","split":"test","history":[],"query":"q","gold_rewrites":["g"]}"#;
    std::fs::write(tenant.join("dialogues.jsonl"), dialogue).expect("a file");
    let json = folder.path().join("report.json");
    let pid = echo.pid().expect("it runs").to_string();

    let output = Command::new(program())
        .args(["overhead", "--url", &echo.url, "--pid", &pid, "--pairs", "2", "--count", "200", "--no-parity"])
        .arg("--data")
        .arg(folder.path())
        .args(["--with-gold", "--split", "test", "--json"])
        .arg(&json)
        .output()
        .expect("the program runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("median [range] of 2 interleaved pairs"), "{printed}");

    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("the report")).expect("it is JSON");
    assert_eq!(report["runs"].as_array().expect("runs").len(), 2);
    let buckets = report["runs"][0]["histogram_us"].as_array().expect("buckets").clone();
    assert_eq!(buckets.iter().filter_map(|bucket| bucket[1].as_u64()).sum::<u64>(), 200);
}

#[test]
fn a_run_that_cannot_start_says_why() {
    let output = Command::new(program())
        .args(["closed", "--url", "http://127.0.0.1:1", "--no-parity"])
        .output()
        .expect("the program runs");
    assert!(!output.status.success());
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("no request is left to send"), "{complaint}");
}
