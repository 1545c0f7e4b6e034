//! The table of who may import whom, held against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate -> the workspace crates it may import. An edge that is not here is a design decision: change
/// `docs/ARCHITECTURE.md` with it.
const MAY_IMPORT: [(&str, &[&str]); 13] = [
    ("recast-domain", &[]),
    ("recast-experiments", &[]),
    ("recast-config", &["recast-domain"]),
    ("recast-model", &["recast-domain"]),
    ("recast-rewriter", &["recast-config", "recast-domain", "recast-model"]),
    ("recast-retrieval", &["recast-config", "recast-domain", "recast-experiments", "recast-model"]),
    ("recast-judge", &["recast-config", "recast-domain", "recast-experiments"]),
    ("recast-episodes", &["recast-config", "recast-domain", "recast-experiments"]),
    ("recast-policies", &["recast-config", "recast-domain", "recast-experiments"]),
    (
        "recast-learner",
        &["recast-config", "recast-domain", "recast-experiments", "recast-model", "recast-episodes", "recast-policies"],
    ),
    (
        "recast-gateway",
        &[
            "recast-config",
            "recast-domain",
            "recast-experiments",
            "recast-rewriter",
            "recast-retrieval",
            "recast-judge",
            "recast-episodes",
            "recast-policies",
        ],
    ),
    (
        "recast",
        &[
            "recast-config",
            "recast-domain",
            "recast-experiments",
            "recast-model",
            "recast-rewriter",
            "recast-retrieval",
            "recast-judge",
            "recast-episodes",
            "recast-policies",
            "recast-learner",
            "recast-gateway",
        ],
    ),
    ("recast-loadtest", &[]),
];

/// Crates that only the named rooms may use: heavy ones, and those that would tie a room to a neighbour's job.
const OWNERS: [(&str, &[&str]); 8] = [
    ("mistralrs", &["recast-rewriter"]),
    ("qdrant-edge", &["recast-retrieval"]),
    ("qdrant-client", &["recast-retrieval"]),
    ("fastembed", &["recast-retrieval"]),
    ("rusqlite", &["recast-episodes"]),
    ("tokio-postgres", &["recast-episodes"]),
    ("axum", &["recast-gateway", "recast-loadtest"]),
    ("candle-nn", &["recast-model", "recast-learner"]),
];

fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
            let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
            (name(package), normal.map(name).collect())
        })
        .collect()
}

#[test]
fn imports_follow_the_table() {
    let graph = normal_dependencies();
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let known: Vec<&str> = graph.keys().map(String::as_str).collect();
    assert_eq!(known, table.keys().copied().collect::<Vec<_>>(), "the table names every crate of the workspace");
    for (package, dependencies) in &graph {
        for dependency in dependencies.iter().filter(|name| graph.contains_key(*name)) {
            assert!(
                table[package.as_str()].contains(&dependency.as_str()),
                "{package} imports {dependency}, which the table does not allow"
            );
        }
    }
}

#[test]
fn heavy_crates_stay_in_their_rooms() {
    for (package, dependencies) in normal_dependencies() {
        for (heavy, owners) in OWNERS {
            assert!(
                !dependencies.contains(heavy) || owners.contains(&package.as_str()),
                "{package} uses {heavy}; only {owners:?} may"
            );
        }
    }
}
