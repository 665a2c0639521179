//! `counterflow history`, and what the tables hold against what the ledger says.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Engine, lines, root, run, said};

const EVENTS: &str = r#"{"event_id":"1","timestamp":"2026-11-22T10:00:00Z","user":"bob","src_ip":"10.0.0.1","EventID":4625,"LogonType":3}
{"event_id":"2","timestamp":"2026-11-22T10:00:01Z","user":"ann","src_ip":"10.0.0.2","EventID":4624,"LogonType":10}
{"event_id":"3","timestamp":
"#;

fn sql(data: &Path, statement: &str) -> Vec<Value> {
    let output = run(&["sql", "--data", data.to_str().unwrap(), statement, "--output", "json"], b"");
    assert!(output.status.success(), "{}", said(&output));
    lines(&output)
}

#[track_caller]
fn history(words: &[&str], data: &Path) -> (Vec<Value>, String) {
    let output = run(&[&["history"], words, &["--data", data.to_str().unwrap(), "--output", "json"]].concat(), b"");
    assert!(output.status.success(), "{}", said(&output));
    (lines(&output), said(&output))
}

#[test]
fn an_archive_is_imported_once_and_exported_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("a.jsonl"));
    fs::write(&file, EVENTS).unwrap();
    let file = file.to_str().unwrap();
    let (_, said) = history(&["import", file, "--rules", "rules"], &data);
    assert!(said.contains("2 events, 1 rejects"), "{said}");
    let (_, said) = history(&["import", file], &data);
    assert!(said.contains("is in history already"), "{said}");
    let found = sql(&data, "select event_id, event_code, \"source_ip\", epoch from events order by event_id");
    assert_eq!(
        found,
        [
            json!({"event_id": "1", "event_code": "4625", "source_ip": "10.0.0.1", "epoch": 0}),
            json!({"event_id": "2", "event_code": "4624", "source_ip": "10.0.0.2", "epoch": 0}),
        ]
    );
    let out = dir.path().join("out.csv");
    let out = out.to_str().unwrap();
    let (_, said) =
        history(&["export", "events", "--from", "2026-11-22T10:00:01Z", "--as", "csv", "--out", out], &data);
    assert!(said.contains("1 rows of events written"), "{said}");
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 2);
    let parquet = dir.path().join("out.parquet");
    let (_, said) = history(&["export", "rejects", "--as", "parquet", "--out", parquet.to_str().unwrap()], &data);
    assert!(said.contains("1 rows of rejects written") && fs::metadata(parquet).unwrap().len() > 100, "{said}");
}

/// SEC-10: erasure, and what is left says nothing of whom.
#[test]
fn what_is_erased_is_gone_and_the_audit_says_so_without_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("a.jsonl"));
    fs::write(&file, EVENTS).unwrap();
    history(&["import", file.to_str().unwrap()], &data);
    let (rows, said) = history(&["erase", "--entity", "user:bob"], &data);
    assert_eq!((&rows[0]["erased"], &rows[0]["rows"]["events"]), (&json!(false), &json!(1)), "{said}");
    assert_eq!(sql(&data, "select count(*) as n from events"), [json!({"n": 2})]);
    // What backtests keep names people, too.
    fs::create_dir_all(data.join("backtest/kept")).unwrap();
    let (rows, said) = history(&["erase", "--entity", "user:bob", "--yes"], &data);
    assert!(!data.join("backtest").exists());
    assert_eq!(rows[0]["erased"], json!(true));
    assert!(said.contains("Not erased: the ledger"), "{said}");
    assert_eq!(sql(&data, "select event_id from events"), [json!({"event_id": "2"})]);
    let output = run(&["audit", "verify", "--data", data.to_str().unwrap()], b"");
    assert!(output.status.success());
    let ledger = fs::read(data.join("ledger.db")).unwrap();
    assert!(!ledger.windows(8).any(|window| window == b"user:bob"));
}

/// What the ledger and the engine hold equals what history says, before files are joined and after.
#[test]
fn history_equals_the_ledger_before_and_after_files_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let rules = root().join("rules");
    let logs: Vec<String> = ["auth.log", "access.log"].iter().map(|name| format!("tests/cases/lab/{name}")).collect();
    let words = ["--data", data.to_str().unwrap(), "--rules", rules.to_str().unwrap()];
    let output = run(&[&["replay"], &words[..], &[&logs[0], &logs[1]]].concat(), b"");
    assert!(output.status.success(), "{}", said(&output));
    let alerts = |of: &str| {
        sql(&data, &format!("select alert_id, risk_level is not null as assessed from ({of}) order by alert_id"))
    };
    let newest = "select * from (select *, row_number() over (partition by alert_id order by epoch desc, revision desc)
                  as n from alerts) where n = 1 and state not in ('withdrawn', 'superseded')";
    let before = alerts(newest);
    let output = run(&["alerts", "--data", data.to_str().unwrap(), "--output", "json"], b"");
    let ledger = lines(&output);
    let mut ids: Vec<_> = ledger
        .iter()
        .filter(|alert| !["withdrawn", "superseded"].contains(&alert["state"].as_str().unwrap()))
        // Alerts on risk rest on alerts that are assessed; they are not assessed themselves.
        .map(|alert| json!({"alert_id": alert["alert_id"], "assessed": alert["rule_id"] != "risk"}))
        .collect();
    ids.sort_by_key(|alert| alert["alert_id"].to_string());
    assert!(!ids.is_empty());
    assert_eq!(before, ids);
    let counts = || {
        sql(
            &data,
            "select 'events' as t, count(*) as n from events union all select 'detections', count(*) from detections
                    union all select 'risk', count(*) from risk union all select 'incidents', count(*) from incidents
                    where type is not null and severity is not null order by t",
        )
    };
    let all = counts();
    assert!(all.iter().all(|row| row["n"].as_u64().unwrap() > 0), "{all:?}");
    let (_, said) = history(&["compact", "--drop-versions"], &data);
    assert!(said.contains("files became"), "{said}");
    assert_eq!((alerts(newest), counts()), (before, all));
    let (rows, said) = history(&["status"], &data);
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().all(|row| row["replaced_bytes"] == 0), "{rows:?}");
    assert!(said.contains("complete up to epoch"), "{said}");
}

/// A verdict and what else is said while the engine runs are rows; the engine that holds a folder keeps others out.
#[test]
fn facts_are_rows_and_a_running_engine_keeps_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let engine = Engine::start(&data, "rules", &[]);
    let output = run(&["facts", "add", "allow", "10.0.0.7", "--data", data.to_str().unwrap()], b"");
    assert!(output.status.success(), "{}", said(&output));
    let mut found = Vec::new();
    for _ in 0..600 {
        found = sql(&data, "select fact, kind from facts where kind = 'fact_add'");
        if !found.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(found, [json!({"fact": "allow", "kind": "fact_add"})]);
    let output = run(&["history", "compact", "--data", data.to_str().unwrap()], b"");
    assert!(!output.status.success() && said(&output).contains("must be stopped"), "{}", said(&output));
    drop(engine);
}
