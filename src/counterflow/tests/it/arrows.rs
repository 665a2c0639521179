//! The dependency arrows of docs/architecture.md, and the fixed top level.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Package, and the packages of ours and of others with weight that it may use. What is not named is forbidden.
const MAY_USE: &[(&str, &[&str])] = &[
    ("cf-types", &[]),
    ("cf-sigma", &["cf-types"]),
    ("cf-yara", &["cf-types", "cf-sigma", "boreal"]),
    ("cf-fail", &[]),
    ("cf-spool", &["cf-types", "cf-fail"]),
    ("cf-ingest", &["cf-types", "cf-spool", "tokio"]),
    ("cf-kafka", &["cf-types", "rdkafka", "tokio"]),
    ("cf-dataflows", &["cf-types", "cf-sigma", "timely", "differential-dataflow"]),
    ("cf-engine", &["cf-types", "cf-sigma", "cf-ingest", "cf-dataflows", "timely"]),
    ("cf-history", &["cf-types", "cf-fail", "arrow", "parquet", "deltalake", "tokio"]),
    ("cf-ledger", &["cf-types", "cf-fail", "cf-spool", "sqlx", "tokio"]),
    ("cf-response", &["cf-types", "cf-fail", "cf-ledger", "reqwest", "tokio"]),
    ("cf-settings", &[]),
    ("cf-api", &["cf-types", "cf-fail", "cf-ledger", "cf-ingest", "cf-spool", "axum", "tokio"]),
    ("cf-oracle", &["cf-types"]),
    ("cf-queries", &["cf-types", "cf-history", "arrow", "datafusion", "datafusion-postgres", "deltalake", "tokio"]),
    ("cf-models", &["cf-types", "arrow", "parquet", "linfa"]),
];

/// Packages with weight: who may use them is an invariant.
const HEAVY: &[&str] = &[
    "boreal",
    "timely",
    "differential-dataflow",
    "arrow",
    "parquet",
    "deltalake",
    "datafusion",
    "datafusion-postgres",
    "sqlx",
    "axum",
    "reqwest",
    "tokio",
    "rdkafka",
    "linfa",
];

#[test]
fn crates_use_only_what_the_map_allows() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(super::support::root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<_, BTreeSet<_>> =
        MAY_USE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let package_name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(package_name) else {
            let known = ["counterflow", "cf-benches", "cf-graph-benches"].contains(&package_name);
            assert!(known, "{package_name} has no place on the map: add it to MAY_USE and docs/architecture.md");
            continue;
        };
        // Normal dependencies have no kind; tests and build scripts may use what they like.
        for dependency in package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null()) {
            let name = dependency["name"].as_str().unwrap();
            if (name.starts_with("cf-") || HEAVY.contains(&name)) && !allowed.contains(name) {
                wrong.push(format!("{package_name} must not use {name}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_top_level_is_as_agreed() {
    let root = super::support::root();
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "dataflows",
        "queries",
        "models",
        "benches",
        "scripts",
        "README.md",
        "rules",
        "playbooks",
        "tests",
        "docs",
        "deploy",
        "target",
    ];
    for entry in std::fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with('.') || allowed.contains(&&*name), "{name} does not belong at the top level");
    }
}
