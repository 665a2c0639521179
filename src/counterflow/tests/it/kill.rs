//! SIGKILL at random moments under load: the same alerts as an uninterrupted replay, nothing accepted lost, nothing told
//! twice. `COUNTERFLOW_KILLS` sets how often (3 here, 25 by `scripts/campaign kill`).

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Engine, lines, post, run, said};

pub(crate) const PER_BATCH: u64 = 50;

pub(crate) fn batch(number: u64, seed: u64) -> String {
    let event = |i: u64| {
        let n = number * PER_BATCH + i;
        // A fixed scramble: addresses and times repeat, order of time is not order of sending.
        let x = (n ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let second = n / 4 + x % 90;
        let kind = if x.is_multiple_of(7) { "authentication_succeeded" } else { "authentication_failed" };
        json!({
            "event_id": format!("k{n}"), "timestamp": cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(second).unwrap()),
            "source": "app", "event_type": kind, "source_ip": format!("10.0.{}.{}", x % 3, (x >> 8) % 5),
        })
    };
    (0..PER_BATCH).map(|i| format!("{}\n", event(i))).collect()
}

/// What must be equal: pure fields only.
pub(crate) fn pure(alerts: &[Value]) -> BTreeMap<String, Value> {
    alerts
        .iter()
        .filter(|alert| alert["state"] == "open" || alert["state"] == "sealed")
        .map(|alert| {
            let fields = json!([
                alert["rule_id"],
                alert["state"],
                alert["group"],
                alert["count"],
                alert["first"],
                alert["last"]
            ]);
            (alert["alert_id"].as_str().unwrap().to_owned(), fields)
        })
        .collect()
}

#[test]
fn sigkill_changes_nothing() {
    let kills: u64 = std::env::var("COUNTERFLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let seed: u64 = std::env::var("COUNTERFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    eprintln!("seed {seed}, {kills} kills");
    // Enough that most kills fall into the load.
    let batches = kills.max(2) * 30;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let told = folder.path().join("told.jsonl");
    let more = ["--block-for", "1h", "--alerts-file", told.to_str().unwrap()];
    let mut engine = Engine::start(&data, "rules/plan", &more);

    let mut dice = seed;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let sent = AtomicU64::new(0);
    for _ in 0..kills {
        let wait = Duration::from_millis(roll(1_200));
        std::thread::scope(|scope| {
            // The sender goes on until it is refused: then the engine is dead, and it sends the same batch again later.
            scope.spawn(|| {
                while sent.load(Ordering::Acquire) < batches {
                    let number = sent.load(Ordering::Acquire);
                    match post(engine.http, "/api/v1/events", "application/x-ndjson", batch(number, seed).as_bytes()) {
                        Ok((202, _)) => sent.fetch_add(1, Ordering::AcqRel),
                        Ok((status, answer)) => panic!("{status}: {answer}"),
                        Err(_) => break,
                    };
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            scope.spawn(|| {
                std::thread::sleep(wait);
                let done =
                    std::process::Command::new("kill").args(["-KILL", &engine.pid().to_string()]).status().unwrap();
                assert!(done.success());
            });
        });
        engine.kill();
        engine = Engine::start(&data, "rules/plan", &more);
    }
    for number in sent.load(Ordering::Acquire)..batches {
        let (status, answer) =
            post(engine.http, "/api/v1/events", "application/x-ndjson", batch(number, seed).as_bytes()).unwrap();
        assert_eq!(status, 202, "{answer}");
    }
    engine.stop();

    check(&data, &told, batches, seed, &format!("seed {seed}"));
}

/// What must hold of a data folder and its channel's file after all batches were accepted, whatever happened meanwhile.
#[track_caller]
pub(crate) fn check(data: &std::path::Path, told: &std::path::Path, batches: u64, seed: u64, what: &str) {
    let at = data.to_str().unwrap();
    let all: String = (0..batches).map(|number| batch(number, seed)).collect();
    let wanted = run(&["replay", "--rules", "rules/plan", "-"], all.as_bytes());
    let found = run(&["alerts", "--data", at], b"");
    let (wanted, found) = (pure(&lines(&wanted)), pure(&lines(&found)));
    assert!(wanted.len() > 10);
    assert_eq!(found, wanted, "{what}");

    // Nothing accepted is lost: every event is in history, each epoch once.
    let events =
        run(&["sql", "--data", at, "--format", "json", "select count(distinct event_id) as n from events"], b"");
    assert_eq!(lines(&events)[0]["n"], batches * PER_BATCH, "{}", said(&events));
    let epochs = run(
        &[
            "sql",
            "--data",
            at,
            "--format",
            "json",
            "select count(*) - count(distinct epoch) as n, max(epoch) - count(*) as holes from epochs",
        ],
        b"",
    );
    assert_eq!((&lines(&epochs)[0]["n"], &lines(&epochs)[0]["holes"]), (&json!(0), &json!(0)), "{what}");

    // Nothing is told twice: each key stands once in the file.
    let text = std::fs::read_to_string(told).unwrap();
    let mut keys: Vec<_> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].clone()).collect();
    let count = keys.len();
    keys.sort_by_key(ToString::to_string);
    keys.dedup();
    assert_eq!(keys.len(), count, "{what}");
    assert!(count >= wanted.len());
    let audit = run(&["audit", "verify", "--data", at], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}
