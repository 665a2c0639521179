//! Backup beside a running engine, restore, and what may go wrong on the way (OPS-08).

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Engine, counterflow, lines, post, run, said, wait_until};

const PER_BATCH: u64 = 40;

/// Some addresses guess passwords all the time, new ones join in.
fn batch(number: u64) -> String {
    let event = |i: u64| {
        let n = number * PER_BATCH + i;
        let time = cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(n / 8).unwrap());
        json!({"event_id": format!("b{n}"), "timestamp": time, "source": "app", "event_type": "authentication_failed",
            "source_ip": format!("10.1.{}.{}", number / 8, i % 4)})
    };
    (0..PER_BATCH).map(|i| format!("{}\n", event(i))).collect()
}

fn send(engine: &Engine, number: u64) {
    let (status, answer) =
        post(engine.http, "/api/v1/events", "application/x-ndjson", batch(number).as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

/// Pure fields of all alerts.
fn alerts(data: &Path) -> BTreeMap<String, Value> {
    let output = run(&["alerts", "--data", data.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let pure = |alert: &Value| {
        json!([alert["rule_id"], alert["state"], alert["group"], alert["count"], alert["anchor"], alert["last_cell"]])
    };
    lines(&output).iter().map(|alert| (alert["alert_id"].as_str().unwrap().to_owned(), pure(alert))).collect()
}

fn count(data: &Path, statement: &str) -> Value {
    let output = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", statement], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output)[0]["n"].clone()
}

/// The keys of all messages in a channel's file.
fn keys(told: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(told).unwrap_or_default();
    let key = |line: &str| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_owned();
    text.lines().map(key).collect()
}

fn wait_for_alerts(data: &Path, wanted: usize) {
    wait_until("the alerts are there", || alerts(data).len() == wanted);
}

#[test]
fn a_backup_under_load_gives_the_same_alerts_and_tells_nobody_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy, again) =
        (folder.path().join("data"), folder.path().join("copy"), folder.path().join("deep/again"));
    let told = folder.path().join("told.jsonl");
    let more = ["--block-for", "1h", "--alerts-file", told.to_str().unwrap()];
    let engine = Engine::start(&data, "rules/plan", &more);
    (0..8).for_each(|number| send(&engine, number));
    // History and facts log have gone to disk once: the backup is of all parts.
    wait_until("history is there", || count(&data, "select count(*) as n from epochs").as_u64().unwrap_or(0) > 0);

    // Two backups while events come in: one is killed in the middle, the other must be whole.
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(8));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                send(&engine, sent.fetch_add(1, Ordering::AcqRel));
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        let killed = folder.path().join("killed");
        let start = || {
            counterflow()
                .args(["backup", "--data", data.to_str().unwrap(), killed.to_str().unwrap()])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        for attempt in 0..20 {
            let mut child = start();
            std::thread::sleep(Duration::from_millis(10 + attempt * 7));
            drop(child.kill());
            drop(child.wait());
            if !killed.join("MANIFEST.json").exists() && killed.exists() {
                break;
            }
            drop(std::fs::remove_dir_all(&killed));
        }
        assert!(killed.exists(), "a backup was killed in the middle");
        let refused = run(&["restore", killed.to_str().unwrap(), "--data", again.to_str().unwrap()], b"");
        assert_eq!(refused.status.code(), Some(2));
        assert!(said(&refused).contains("is no whole backup"), "{}", said(&refused));

        let made = run(&["backup", "--data", data.to_str().unwrap(), copy.to_str().unwrap()], b"");
        assert_eq!(made.status.code(), Some(0), "{}", said(&made));
        stop.store(true, Ordering::Release);
    });
    // Not empty: refused, nothing is overwritten.
    let refused = run(&["backup", "--data", data.to_str().unwrap(), copy.to_str().unwrap()], b"");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));

    // The original goes on, and tells of what the backup does not know yet.
    let batches = sent.load(Ordering::Acquire) + 16;
    (sent.load(Ordering::Acquire)..batches).for_each(|number| send(&engine, number));
    let groups = usize::try_from(batches.div_ceil(8) * 4).unwrap();
    wait_for_alerts(&data, groups);
    wait_until("all are told", || keys(&told).len() >= groups);
    engine.kill();
    let (original, told_before) = (alerts(&data), keys(&told));

    let restored = run(&["restore", copy.to_str().unwrap(), "--data", again.to_str().unwrap()], b"");
    assert_eq!(restored.status.code(), Some(0), "{}", said(&restored));
    // The senders repeat everything: what the backup has is known by its ids, what it lacks comes in.
    let engine = Engine::start(&again, "rules/plan", &more);
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    (0..batches).for_each(|number| send(&engine, number));
    wait_for_alerts(&again, groups);
    wait_until("counts are whole", || alerts(&again) == original);
    engine.stop();
    assert_eq!(alerts(&again), original);
    assert_eq!(count(&again, "select count(distinct event_id) as n from events"), batches * PER_BATCH);
    let holes = "select count(*) - count(distinct epoch) + max(epoch) - count(*) as n from epochs";
    assert_eq!(count(&again, holes), 0);

    // Each thread was told of as opened once, by either; each key stands in the file once.
    let after = keys(&told);
    assert_eq!(after[..told_before.len()], told_before[..]);
    let mut distinct = after.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), after.len());
    let text = std::fs::read_to_string(&told).unwrap();
    let mut opened: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|message| message["event"] == "opened")
        .map(|message| message["thread"].to_string())
        .collect();
    opened.sort();
    let all = opened.len();
    opened.dedup();
    assert_eq!((opened.len(), all), (groups, groups));
    let audit = run(&["audit", "verify", "--data", again.to_str().unwrap()], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[test]
fn an_offline_backup_is_checked_file_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let engine = Engine::start(&data, "rules/plan", &[]);
    (0..8).for_each(|number| send(&engine, number));
    wait_for_alerts(&data, 4);
    engine.stop();
    let made = run(&["backup", "--data", data.to_str().unwrap(), copy.to_str().unwrap()], b"");
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let inside = run(&["backup", "--data", data.to_str().unwrap(), data.join("copy").to_str().unwrap()], b"");
    assert_eq!(inside.status.code(), Some(2));
    drop(std::fs::remove_dir(data.join("copy")));

    let restore = |to: &str| {
        let to = folder.path().join(to);
        (run(&["restore", copy.to_str().unwrap(), "--data", to.to_str().unwrap()], b""), to)
    };
    let (done, whole) = restore("whole");
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert_eq!(alerts(&whole), alerts(&data));
    let (refused, _) = restore("whole");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("is not empty"), "{}", said(&refused));

    // One flipped bit in any part is found, and nothing is left of the attempt.
    let manifest: Value = serde_json::from_slice(&std::fs::read(copy.join("MANIFEST.json")).unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap();
    for part in ["ledger.db", "spool/", "facts/", "history/events"] {
        let file = files.iter().map(|file| file["path"].as_str().unwrap()).find(|path| path.starts_with(part)).unwrap();
        let path = copy.join(file);
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let (refused, to) = restore("damaged");
        assert_eq!(refused.status.code(), Some(1), "{part}");
        assert!(said(&refused).contains("is damaged"), "{}", said(&refused));
        assert!(std::fs::read_dir(&to).unwrap().next().is_none());
        assert!(!folder.path().join(".damaged.restoring").exists());
        std::fs::write(&path, good).unwrap();
    }
}

/// A file system that is too small (OPS-08).
#[test]
fn a_full_disk_leaves_no_half_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (data, small) = (folder.path().join("data"), folder.path().join("small"));
    let Some(_mount) = crate::support::Tmpfs::mount(&small, "400k") else { return };
    let engine = Engine::start(&data, "rules/plan", &[]);
    (0..40).for_each(|number| send(&engine, number));
    wait_for_alerts(&data, 20);
    let copy = small.join("copy");
    let failed = run(&["backup", "--data", data.to_str().unwrap(), copy.to_str().unwrap()], b"");
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    let says = said(&failed);
    assert!(
        says.contains("nothing of it is left") && (says.contains("No space left") || says.contains("full")),
        "{says}"
    );
    assert!(std::fs::read_dir(&copy).unwrap().next().is_none());
    // The engine has seen nothing of it.
    send(&engine, 40);
    engine.stop();
}
