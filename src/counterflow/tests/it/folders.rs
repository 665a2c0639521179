//! Data folders of earlier formats, and of later ones (OPS-07).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::support::{Engine, lines, post, root, run, said, wait_until};

/// Unpacks a folder of an earlier format.
pub(crate) fn folder_of(format: &str, into: &Path) -> PathBuf {
    let packed = std::fs::read(root().join(format!("tests/folders/{format}.tar.zst"))).unwrap();
    let unpacked = zstd::decode_all(packed.as_slice()).unwrap();
    tar::Archive::new(unpacked.as_slice()).unpack(into).unwrap();
    into.join("data")
}

/// The rules that the folder was made with.
pub(crate) fn rules_of_format_1(into: &Path) -> String {
    let rules = into.join("rules");
    std::fs::create_dir_all(&rules).unwrap();
    let plan = "multiple_failed_login_attempts.yml";
    std::fs::copy(root().join("rules/plan").join(plan), rules.join(plan)).unwrap();
    let extra = "title: An unusual program\nid: extra-1\nstatus: test\nlevel: low\nlogsource: {product: app}\n\
                 detection:\n  sel: {event_type: x}\n  condition: sel\n";
    std::fs::write(rules.join("extra.yml"), extra).unwrap();
    rules.to_str().unwrap().to_owned()
}

/// What must stay as it was: everything that the first version said, but the wall clock of the last change.
const KEPT: &[&str] = &[
    "alert_id",
    "rule_id",
    "title",
    "level",
    "state",
    "group",
    "count",
    "anchor",
    "last_cell",
    "score",
    "first",
    "last",
    "thread",
    "revision",
    "reason",
    "incident",
    "members",
];

fn shown(alerts: &[Value]) -> BTreeMap<String, Value> {
    let kept = |alert: &Value| KEPT.iter().map(|key| ((*key).to_owned(), alert[*key].clone())).collect();
    alerts.iter().map(|alert| (alert["alert_id"].as_str().unwrap().to_owned(), Value::Object(kept(alert)))).collect()
}

pub(crate) fn expected(format: &str) -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(root().join(format!("tests/folders/{format}.alerts.jsonl"))).unwrap();
    shown(&text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
}

pub(crate) fn alerts(data: &str) -> BTreeMap<String, Value> {
    let output = run(&["alerts", "--data", data], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    shown(&lines(&output))
}

fn events(data: &str) -> Value {
    let output = run(&["sql", "--data", data, "--format", "json", "select count(*) as n from events"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output)[0]["n"].clone()
}

#[test]
fn a_folder_of_format_1_opens_is_migrated_and_gives_the_same_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder_of("format-1", folder.path());
    let at = data.to_str().unwrap();
    let rules = rules_of_format_1(folder.path());
    let expected = expected("format-1");
    assert_eq!(expected.len(), 6);

    // Who only reads takes it as it is.
    assert_eq!(alerts(at), expected);
    let before = events(at);
    assert!(!data.join("format").exists() && !data.join("ledger.format-1.db").exists());

    // `run` migrates it: the state rebuilt from facts log and spool is the ledger's, and it goes on from there.
    let engine = Engine::start(&data, &rules, &["--block-for", "1h"]);
    assert!(data.join("format").is_file() && data.join("ledger.format-1.db").is_file());
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    // What was accepted before the kill and in no epoch yet is evaluated now, as the engine of then would have.
    let expected = self::expected("format-1.run");
    assert_eq!(expected.len(), 7);
    wait_until("the rest is evaluated", || alerts(at) == expected);
    let more: String = (0..3)
        .map(|i| {
            let event = json!({"event_id": format!("n{i}"), "timestamp": format!("2026-01-05T14:04:1{i}Z"), "source": "app",
                "event_type": "authentication_failed", "source_ip": "10.0.0.5"});
            format!("{event}\n")
        })
        .collect();
    assert_eq!(post(engine.http, "/api/v1/events", "application/x-ndjson", more.as_bytes()).unwrap().0, 202);
    let grown = |alerts: &BTreeMap<String, Value>| {
        alerts.values().find(|alert| alert["group"]["source_ip"] == "10.0.0.5").unwrap()["count"].clone()
    };
    wait_until("an alert of before grows", || grown(&alerts(at)) == grown(&expected).as_u64().unwrap() + 3);
    engine.stop();
    assert_eq!(alerts(at).len(), expected.len());
    // What was accepted before the kill and had not come to history is there now.
    assert_eq!(events(at), 48 + 3, "{before} before");
    let audit = run(&["audit", "verify", "--data", at], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[test]
fn a_folder_of_a_later_format_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder_of("format-1", folder.path());
    let at = data.to_str().unwrap();
    std::fs::write(data.join("format"), r#"{"format":9,"written_by":"4.2.0"}"#).unwrap();
    let backup = folder.path().join("backup");
    for arguments in [
        &["run", "--data", at, "--rules", "rules/plan", "--listen", "127.0.0.1:0"][..],
        &["alerts", "--data", at],
        &["sql", "--data", at, "select 1"],
        &["facts", "list", "--data", at],
        &["backup", "--data", at, backup.to_str().unwrap()],
    ] {
        let output = run(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let says = said(&output);
        assert!(says.contains("has format 9") && says.contains("start Counterflow 4.2.0"), "{arguments:?}: {says}");
    }
    assert!(!backup.exists());
}
