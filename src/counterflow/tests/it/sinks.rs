//! Kafka as a sink, against a real broker: who folds the topics by key has the ledger's state, whatever was killed; each
//! revision came, in order (ING-02). `COUNTERFLOW_KILLS` sets how often (3 here; more by `scripts/campaign kafka`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    broker::Broker,
    kill::batch,
    support::{Engine, counterflow, lines, post, request, run, said, wait_until},
};

const RULES: &str = "rules/plan";
const PARTITIONS: i32 = 3;

/// Makes three compacted topics, and settings of an engine that writes them.
fn settings(broker: &Broker, folder: &Path, prefix: &str, more: &str) -> String {
    for kind in ["alerts", "incidents", "actions"] {
        broker.create_with(&format!("{prefix}-{kind}"), PARTITIONS, &[("cleanup.policy", "compact")]);
    }
    write_settings(&broker.address(0), folder, prefix, more)
}

fn write_settings(address: &str, folder: &Path, prefix: &str, more: &str) -> String {
    let file = folder.join("settings.yaml");
    let topics = format!("{{ alerts: {prefix}-alerts, incidents: {prefix}-incidents, actions: {prefix}-actions }}");
    let text = format!("sinks:\n  out:\n    kafka:\n      brokers: [\"{address}\"]\n      topics: {topics}\n{more}");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[track_caller]
fn send(engine: &Engine, number: u64, seed: u64) {
    let (status, answer) =
        post(engine.http, "/api/v1/events", "application/x-ndjson", batch(number, seed).as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

#[track_caller]
fn listed(data: &str) -> Value {
    let output = run(&["sinks", "list", "--data", data], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output).remove(0)
}

/// The topics of a sink, folded by key as compaction does; every key stays in one partition.
fn folded(broker: &Broker, topic: &str) -> BTreeMap<String, Value> {
    let (mut state, mut homes) = (BTreeMap::new(), BTreeMap::new());
    for (partition, key, value) in broker.records(topic, PARTITIONS) {
        assert_eq!(*homes.entry(key.clone()).or_insert(partition), partition, "{key} has two partitions");
        match value {
            Some(value) => drop(state.insert(key, serde_json::from_str(&value).unwrap())),
            None => drop(state.remove(&key)),
        }
    }
    state
}

fn told(data: &str, what: &str) -> Vec<Value> {
    let output = run(&[what, "--data", data], b"");
    assert_eq!(output.status.code(), Some(0), "{what}: {}", said(&output));
    lines(&output)
}

/// The topics say what the ledger says, by the views that people have; gives how many alerts there are.
#[track_caller]
fn check(broker: &Broker, data: &str, prefix: &str, what: &str) -> usize {
    let topic = folded(broker, &format!("{prefix}-alerts"));
    let alerts = told(data, "alerts");
    assert_eq!(topic.len(), alerts.len(), "{what}");
    for alert in &alerts {
        let record = &topic[alert["alert_id"].as_str().unwrap()];
        let shown = ["state", "revision", "thread", "reason", "incident"].map(|field| &alert[field]);
        assert_eq!(["state", "revision", "thread", "reason", "incident"].map(|field| &record[field]), shown, "{what}");
        let shown = ["count", "last_cell", "anchor", "level", "score", "title"].map(|field| &alert[field]);
        let fields = ["count", "last_cell", "anchor", "level", "score", "title"];
        assert_eq!(fields.map(|field| &record["content"][field]), shown, "{what}");
        assert!(record["epoch"].as_u64().unwrap() > 0, "{record}");
    }
    let topic = folded(broker, &format!("{prefix}-incidents"));
    let incidents = told(data, "incidents");
    for incident in &incidents {
        let record = &topic[&incident["number"].to_string()];
        let fields = ["number", "state", "severity", "type", "entities", "tactics"];
        assert_eq!(fields.map(|field| &record[field]), fields.map(|field| &incident[field]), "{what}");
        let of_it = alerts.iter().filter(|alert| alert["incident"] == incident["number"]);
        let members: BTreeSet<String> = of_it.map(|alert| alert["alert_id"].to_string()).collect();
        let named = record["alerts"].as_array().unwrap().iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(named, members, "{what}");
    }
    let merged = topic.values().filter(|record| record["state"] == "merged").count();
    assert_eq!(topic.len() - merged, incidents.len(), "{what}");
    let topic = folded(broker, &format!("{prefix}-actions"));
    let actions = told(data, "actions");
    assert_eq!(topic.len(), actions.len(), "{what}");
    for action in &actions {
        let record = &topic[&action["id"].to_string()];
        let fields = ["action_id", "target", "state", "reason", "ttl_s", "alerts", "until", "ended_at"];
        assert_eq!(fields.map(|field| &record[field]), fields.map(|field| &action[field]), "{what}");
    }
    alerts.len()
}

/// Each revision that history has came, and each key's for the first time in order.
#[track_caller]
fn check_revisions(broker: &Broker, data: &str, prefix: &str, what: &str) {
    let mut by_key: BTreeMap<String, Vec<(u64, i64)>> = BTreeMap::new();
    for (_, key, value) in broker.records(&format!("{prefix}-alerts"), PARTITIONS) {
        let record: Value = serde_json::from_str(&value.unwrap()).unwrap();
        let at = (record["epoch"].as_u64().unwrap(), record["revision"].as_i64().unwrap());
        let seen = by_key.entry(key).or_default();
        if !seen.contains(&at) {
            seen.push(at);
        }
    }
    for (key, seen) in &by_key {
        assert!(seen.is_sorted(), "{what}: {key}: {seen:?}");
    }
    let statement =
        "select distinct alert_id, revision from alerts where state in ('provisional', 'open', 'withdrawn')";
    let revisions = lines(&run(&["sql", "--data", data, "--format", "json", statement], b""));
    assert!(!revisions.is_empty());
    for row in revisions {
        let seen = &by_key[row["alert_id"].as_str().unwrap()];
        assert!(seen.iter().any(|(_, revision)| row["revision"] == *revision), "{what}: {row} of {seen:?}");
    }
}

#[test]
fn a_compacted_topic_is_the_ledgers_state() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let config = settings(broker, folder.path(), "state", "");
    let tried = run(&["--config", &config, "sinks", "check"], b"");
    assert_eq!(tried.status.code(), Some(0), "{}", said(&tried));
    let tried = String::from_utf8(tried.stdout).unwrap();
    assert!(tried.contains("cleanup.policy compact") && tried.contains("transactional id was given"), "{tried}");

    let engine = Engine::start(&data, RULES, &["--config", &config, "--block-for", "1h"]);
    (0..4).for_each(|number| send(&engine, number, 1));
    wait_until("the alerts come", || told(at, "alerts").len() > 5);
    // What is withdrawn is a record, too.
    let address = told(at, "alerts")[0]["group"]["source_ip"].as_str().unwrap().to_owned();
    let allowed = run(&["facts", "add", "--data", at, "--reason", "a test", "allow", &address], b"");
    assert_eq!(allowed.status.code(), Some(0), "{}", said(&allowed));
    wait_until("it is withdrawn", || told(at, "alerts").iter().any(|alert| alert["state"] == "withdrawn"));
    wait_until("all is told", || listed(at)["behind"] == 0 && listed(at)["state"] == "current");
    let (status, answer) = request(engine.http, "GET", "/api/v1/sinks", &[], b"").unwrap();
    assert!(status == 200 && answer.contains("\"sink\":\"out\""), "{answer}");
    let (_, metrics) = crate::support::get(engine.http, "/metrics").unwrap();
    assert!(metrics.contains("counterflow_sink_behind{sink=\"out\"} "), "{metrics}");
    // At an orderly stop what is left is told.
    (4..8).for_each(|number| send(&engine, number, 1));
    engine.stop();
    assert!(check(broker, at, "state", "stopped") > 5);
    check_revisions(broker, at, "state", "stopped");
    assert!(folded(broker, "state-alerts").values().any(|record| record["state"] == "withdrawn"));
    assert!(!folded(broker, "state-actions").is_empty() && !folded(broker, "state-incidents").is_empty());
    // A topic that was made anew is filled again.
    for kind in ["alerts", "incidents", "actions"] {
        broker.delete(&format!("state-{kind}"));
    }
    let config = settings(broker, folder.path(), "state", "");
    let resent = run(&["sinks", "resend", "out", "--data", at], b"");
    assert_eq!(resent.status.code(), Some(0), "{}", said(&resent));
    let engine = Engine::start(&data, RULES, &["--config", &config, "--block-for", "1h"]);
    wait_until("all is told", || listed(at)["behind"] == 0);
    engine.stop();
    check(broker, at, "state", "anew");
}

#[test]
fn kills_of_engine_and_broker_lose_nothing_of_a_sink() {
    let Some(broker) = Broker::own() else { return };
    let kills: u64 = std::env::var("COUNTERFLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let seed: u64 = std::env::var("COUNTERFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    eprintln!("seed {seed}, {kills} kills");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let config = settings(&broker, folder.path(), "killed", "");
    let more = ["--config", &config, "--block-for", "1h"];
    let mut dice = seed;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut engine = Engine::start(&data, RULES, &more);
    for kill in 0..kills {
        (0..6).for_each(|number| send(&engine, kill * 6 + number, seed));
        std::thread::sleep(Duration::from_millis(roll(1_500)));
        let what = roll(3);
        if what != 0 {
            broker.kill();
        }
        if what != 1 {
            engine.kill();
            engine = Engine::start(&data, RULES, &more);
        }
        if what != 0 {
            // Nothing waits for the sink.
            send(&engine, kill * 6, seed);
            broker.start();
        }
    }
    wait_until("all is told", || listed(at)["behind"] == 0);
    engine.stop();
    assert!(check(&broker, at, "killed", &format!("seed {seed}")) > 5);
    check_revisions(&broker, at, "killed", &format!("seed {seed}"));
}

#[test]
fn sigkill_between_telling_and_noting_tells_again() {
    let Some(broker) = Broker::shared() else { return };
    for point in ["sink.delivered", "sink.advanced"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let config = settings(broker, folder.path(), &point.replace('.', "-"), "");
        let more = ["--config", &config];
        let mut command = counterflow();
        command.env("COUNTERFLOW_KILL_AT", format!("{point}:2"));
        let mut engine = Engine::begin(command, &data, RULES, &more);
        assert!(engine.is_ready_or_dead());
        for number in 0..50 {
            drop(post(engine.http, "/api/v1/events", "application/x-ndjson", batch(number % 10, 1).as_bytes()));
            if engine.ended().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(engine.ended().is_some(), "{point} is not passed");
        let engine = Engine::start(&data, RULES, &more);
        (0..10).for_each(|number| send(&engine, number, 1));
        engine.stop();
        let prefix = point.replace('.', "-");
        check(broker, data.to_str().unwrap(), &prefix, point);
        check_revisions(broker, data.to_str().unwrap(), &prefix, point);
    }
}

#[test]
fn a_cluster_that_is_away_holds_up_nothing_and_is_a_stated_condition() {
    let Some(broker) = Broker::own() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let config = settings(&broker, folder.path(), "away", "");
    broker.kill();
    let engine = Engine::start(&data, RULES, &["--config", &config, "--block-for", "1h"]);
    (0..6).for_each(|number| send(&engine, number, 1));
    wait_until("the alerts are there without it", || told(at, "alerts").len() > 5);
    wait_until("it is said", || listed(at)["state"] == "unreachable");
    assert!(listed(at)["behind"].as_u64().unwrap() > 5, "{}", listed(at));
    let (_, health) = crate::support::get(engine.http, "/api/v1/health").unwrap();
    assert!(health.contains("degraded") && health.contains("out: unreachable"), "{health}");
    let tried = run(&["--config", &config, "sinks", "check", "out"], b"");
    assert_eq!(tried.status.code(), Some(1), "{}", said(&tried));
    // Killed and stopped meanwhile: what waits, waits in the ledger.
    engine.kill();
    let engine = Engine::start(&data, RULES, &["--config", &config, "--block-for", "1h"]);
    send(&engine, 7, 1);
    engine.stop();
    broker.start();
    broker.delete("away-incidents");
    let engine = Engine::start(&data, RULES, &["--config", &config, "--block-for", "1h"]);
    wait_until("the topic is missed", || listed(at)["state"] == "topic_missing");
    broker.create("away-incidents", PARTITIONS);
    wait_until("all is told", || listed(at)["behind"] == 0 && listed(at)["state"] == "current");
    engine.stop();
    assert!(check(&broker, at, "away", "back") > 5);
    check_revisions(&broker, at, "away", "back");
}

#[test]
fn a_record_that_is_too_large_goes_without_its_content_and_is_a_reject() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    // By our limit, and by the topic's.
    let config = settings(broker, folder.path(), "large", "      record_bytes_max: 512\n");
    broker.delete("large-incidents");
    broker.create_with("large-incidents", PARTITIONS, &[("max.message.bytes", "600")]);
    let text = std::fs::read_to_string(&config).unwrap();
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    (0..6).for_each(|number| send(&engine, number, 1));
    wait_until("all is told", || listed(at)["behind"] == 0 && listed(at)["rejects"].as_u64().unwrap() > 0);
    let (_, answer) = request(engine.http, "GET", "/api/v1/sinks/rejects", &[], b"").unwrap();
    assert!(answer.contains("too_large"), "{answer}");
    engine.stop();
    let rejects = lines(&run(&["sinks", "rejects", "out", "--data", at], b""));
    let cut: BTreeSet<String> = rejects.iter().map(|reject| reject["id"].as_str().unwrap().to_owned()).collect();
    assert!(rejects.iter().all(|reject| reject["code"] == "too_large" && reject["bytes"].as_u64().unwrap() > 300));
    let alerts: BTreeMap<String, Value> =
        told(at, "alerts").into_iter().map(|alert| (alert["alert_id"].as_str().unwrap().to_owned(), alert)).collect();
    for (id, record) in folded(broker, "large-alerts") {
        assert_eq!(record["left_out_bytes"].is_u64(), cut.contains(&id), "{record}");
        assert_eq!(record["content"].is_object(), !cut.contains(&id), "{record}");
        assert_eq!([&record["state"], &record["revision"]], [&alerts[&id]["state"], &alerts[&id]["revision"]]);
    }
    assert!(rejects.iter().any(|reject| reject["reason"].as_str().unwrap().contains("record_bytes_max 512")));
    // With room for them, and told again: whole, and no rejects any more.
    std::fs::write(&config, text.replace("record_bytes_max: 512", "record_bytes_max: 1000000")).unwrap();
    broker.delete("large-incidents");
    broker.create("large-incidents", PARTITIONS);
    assert_eq!(run(&["sinks", "resend", "out", "--data", at], b"").status.code(), Some(0));
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_until("no rejects are left", || listed(at)["behind"] == 0 && listed(at)["rejects"] == 0);
    engine.stop();
    check(broker, at, "large", "whole");
}

#[test]
fn settings_of_sinks_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = run(&["--config", file.to_str().unwrap(), "sinks", "check"], b"");
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    assert!(check("sinks:\n  out: {}\n").contains("sinks.out says nowhere to"));
    let says = check("sinks:\n  out:\n    kafka:\n      brokers: [here]\n      topics: {}\n");
    assert!(says.contains("sinks.out.kafka.brokers: \"here\"") && says.contains("topics is empty"), "{says}");
    assert!(check("sinks:\n  out:\n    kafka:\n      topic: x\n").contains("topic"), "an unknown key");
    let output = run(&["sinks", "resend", "nobody", "--data", folder.path().to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(json!(said(&output).contains("ledger")), json!(true), "{}", said(&output));
}
