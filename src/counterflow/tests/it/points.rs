//! SIGKILL at each named point between two durable steps (`cf_fail`): the same alerts, nothing accepted lost, nothing
//! told twice. Four points here, chosen by `COUNTERFLOW_SEED`; all of them with `COUNTERFLOW_POINTS=all`, as
//! `scripts/campaign points` does.

use std::{path::Path, time::Duration};

use cf_fail::POINTS;
use serde_json::{Value, json};

use crate::{
    folders,
    kill::{batch, check},
    support::{Engine, counterflow, lines, post, run, said, wait_until},
};

const BATCHES: u64 = 24;
/// Points that only other commands, or other folders, pass: tests of their own.
const ELSEWHERE: &[&str] = &[
    "start.ledger_copied",
    "start.ledger_migrated",
    "hunt.before_commit",
    "hunt.committed",
    "sink.delivered",
    "sink.advanced",
    "backup.copied",
    "restore.filled",
];
/// Passed when hours of event time leave the horizon, or a segment of the spool is full and needless: by a load of days.
const LONG: &[&str] = &["facts.hours_expired", "spool.segment_removed"];

fn armed(point: &str, nth: u64) -> std::process::Command {
    let mut command = counterflow();
    command.env("COUNTERFLOW_KILL_AT", format!("{point}:{nth}"));
    command
}

/// Sends until all is accepted or nobody is there any more; gives how many were accepted.
fn send(engine: &Engine, from: u64, seed: u64) -> u64 {
    let mut number = from;
    while number < BATCHES {
        match post(engine.http, "/api/v1/events", "application/x-ndjson", batch(number, seed).as_bytes()) {
            Ok((202, _)) => number += 1,
            Ok((status, answer)) => panic!("{status}: {answer}"),
            Err(_) => return number,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    number
}

/// Kills at the n-th passage of a point; gives whether it was passed that often.
fn kill_at(point: &str, nth: u64, seed: u64) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (data, told) = (folder.path().join("data"), folder.path().join("told.jsonl"));
    let more = ["--block-for", "1h", "--alerts-file", told.to_str().unwrap()];
    let mut engine = Engine::begin(armed(point, nth), &data, "rules/plan", &more);
    let mut sent = if engine.is_ready_or_dead() { send(&engine, 0, seed) } else { 0 };
    // Some steps are done every few seconds, one at the end.
    for _ in 0..120 {
        if engine.ended().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if engine.ended().is_none() {
        engine.signal("TERM");
    }
    let status = loop {
        match engine.ended() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    assert!(killed || status.success(), "{point}: {status}: {}", engine.log());

    let engine = Engine::start(&data, "rules/plan", &more);
    assert!(!engine.log().contains("differs from the ledger"), "{point}: {}", engine.log());
    sent = send(&engine, sent, seed);
    assert_eq!(sent, BATCHES, "{point}");
    // What is planned at a stop waits for the next start: let all be told.
    let at = data.to_str().unwrap();
    wait_until("all are told", || {
        let told = std::fs::read_to_string(&told).unwrap_or_default().lines().count();
        // One that was superseded is told of under the thread of the one that took its place.
        let alerts =
            lines(&run(&["alerts", "--data", at], b"")).iter().filter(|alert| alert["state"] == "open").count();
        alerts > 10 && told >= alerts
    });
    engine.stop();
    check(&data, &told, BATCHES, seed, &format!("{point}:{nth}, seed {seed}"));
    killed
}

#[test]
fn sigkill_between_durable_steps_changes_nothing() {
    let seed: u64 = std::env::var("COUNTERFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let points: Vec<_> =
        POINTS.iter().copied().filter(|point| !ELSEWHERE.contains(point) && !LONG.contains(point)).collect();
    let wanted = std::env::var("COUNTERFLOW_POINTS").unwrap_or_default();
    let chosen: Vec<_> = match wanted.as_str() {
        "all" => points,
        "" => {
            let first = usize::try_from(seed).unwrap() * 7;
            (0..4).map(|i| points[(first + i * 9) % points.len()]).collect()
        }
        some => some.split(',').collect(),
    };
    for point in chosen {
        // At the start a point is passed once or twice; later at each record.
        let nth = if point.starts_with("start.") || point.starts_with("stop.") { 1 } else { 1 + seed % 3 };
        let killed = kill_at(point, nth, seed) || (nth > 1 && kill_at(point, 1, seed));
        println!("{point}:{nth} {}", if killed { "killed" } else { "not passed" });
        assert!(killed, "{point} was never passed");
    }
}

/// Failures from six addresses within a minute, six hours after those before; records are long, so that segments fill.
fn burst(number: u64) -> String {
    let event = |i: u64| {
        let second = i64::try_from(number * 6 * 3_600 + i).unwrap();
        json!({
            "event_id": format!("d{number}-{i}"), "timestamp": cf_types::Time::from_seconds(1_767_621_600 + second),
            "source": "app", "event_type": "authentication_failed", "source_ip": format!("10.1.0.{}", i % 6),
            "padding": "x".repeat(20_000),
        })
    };
    (0..60).map(|i| format!("{}\n", event(i))).collect()
}

/// Pure fields, but for whether an alert is sealed: a replay seals nothing.
fn unsealed(alerts: &[Value]) -> std::collections::BTreeMap<String, Value> {
    let bare = |alert: &Value| json!(["rule_id", "group", "count", "first", "last"].map(|field| &alert[field]));
    alerts.iter().map(|alert| (alert["alert_id"].as_str().unwrap().to_owned(), bare(alert))).collect()
}

#[test]
fn sigkill_where_hours_and_segments_leave_changes_nothing() {
    // Nine days: an episode reaches back two days, what lies behind that and the horizon goes.
    const BURSTS: u64 = 36;
    let all: String = (0..BURSTS).map(burst).collect();
    let wanted = unsealed(&lines(&run(&["replay", "--rules", "rules/plan", "-"], all.as_bytes())));
    assert!(wanted.len() > 100);
    for point in LONG {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let at = data.to_str().unwrap();
        let config = folder.path().join("settings.yaml");
        std::fs::write(&config, "detection: { horizon_s: 600 }\nspool: { bytes_max: 134217728 }\n").unwrap();
        let more = ["--config", config.to_str().unwrap()];
        let mut engine = Engine::begin(armed(point, 1), &data, "rules/plan", &more);
        assert!(engine.is_ready_or_dead(), "{point}");
        let sent = std::cell::Cell::new(0);
        let send = |engine: &Engine| {
            while sent.get() < BURSTS {
                match post(engine.http, "/api/v1/events", "application/x-ndjson", burst(sent.get()).as_bytes()) {
                    Ok((202, _)) => sent.set(sent.get() + 1),
                    Ok((status, answer)) => panic!("{status}: {answer}"),
                    Err(_) => return,
                }
            }
        };
        send(&engine);
        wait_until("the engine dies there", || engine.ended().is_some());
        let signal = std::os::unix::process::ExitStatusExt::signal(&engine.ended().unwrap());
        assert_eq!(signal, Some(9), "{point}: {}", engine.log());
        println!("{point}:1 killed");
        let engine = Engine::start(&data, "rules/plan", &more);
        assert!(!engine.log().contains("differs from the ledger"), "{point}: {}", engine.log());
        send(&engine);
        assert_eq!(sent.get(), BURSTS, "{point}");
        engine.stop();
        // Once more: what was taken away is missed by nobody.
        Engine::start(&data, "rules/plan", &more).stop();
        assert_eq!(unsealed(&lines(&run(&["alerts", "--data", at], b""))), wanted, "{point}");
        let statement = "select count(distinct event_id) as n from events";
        let events = lines(&run(&["sql", "--data", at, "--format", "json", statement], b""));
        assert_eq!(events[0]["n"], BURSTS * 60, "{point}");
    }
}

#[test]
fn sigkill_in_a_migration_is_taken_up_again() {
    for point in ["start.ledger_copied", "start.ledger_migrated"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folders::folder_of("format-1", folder.path());
        let rules = folders::rules_of_format_1(folder.path());
        let mut engine = Engine::begin(armed(point, 1), &data, &rules, &[]);
        assert!(!engine.is_ready_or_dead(), "{point}");
        assert!(!data.join("format").exists());
        assert!(data.join("ledger.format-1.db").is_file());
        let engine = Engine::start(&data, &rules, &["--block-for", "1h"]);
        assert!(data.join("format").is_file());
        engine.stop();
        assert_eq!(folders::alerts(data.to_str().unwrap()), folders::expected("format-1.run"), "{point}");
    }
}

#[test]
fn sigkill_of_a_backup_or_a_restore_leaves_nothing_that_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy, again) = (folder.path().join("data"), folder.path().join("copy"), folder.path().join("again"));
    let engine = Engine::start(&data, "rules/plan", &[]);
    send(&engine, BATCHES - 4, 1);
    let command = |point: Option<&str>, arguments: &[&str]| {
        let mut command = point.map_or_else(counterflow, |point| armed(point, 1));
        command.args(arguments).output().unwrap()
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (from, to) = (path(&data), path(&copy));
    let killed = command(Some("backup.copied"), &["backup", "--data", &from, &to]);
    assert!(!killed.status.success() && copy.join("ledger.db").exists() && !copy.join("MANIFEST.json").exists());
    std::fs::remove_dir_all(&copy).unwrap();
    // The lock that a killed backup held is gone: the engine goes on trimming, the next backup works.
    let made = command(None, &["backup", "--data", &from, &to]);
    assert!(made.status.success(), "{}", said(&made));
    let killed = command(Some("restore.filled"), &["restore", &to, "--data", &path(&again)]);
    assert!(!killed.status.success() && std::fs::read_dir(&again).unwrap().next().is_none());
    let restored = command(None, &["restore", &to, "--data", &path(&again)]);
    assert!(restored.status.success(), "{}", said(&restored));
    engine.stop();
    let ids = |data: &Path| -> Vec<Value> {
        lines(&run(&["alerts", "--data", &path(data)], b"")).iter().map(|alert| alert["alert_id"].clone()).collect()
    };
    let engine = Engine::start(&again, "rules/plan", &[]);
    engine.stop();
    let (mut one, mut other) = (ids(&data), ids(&again));
    one.sort_by_key(ToString::to_string);
    other.sort_by_key(ToString::to_string);
    assert_eq!(one, other);
}
