//! Partitions beside each other, against real brokers: a backlog gives what its events give in order, wherever it comes from
//! and whoever has it sooner; and when everybody is behind, each class has its share.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use crate::{
    broker::Broker,
    support::{Engine, lines, request, run, said, wait_until},
};

const RULES: &str = "rules/plan";

/// Events in order of time, one every so many seconds.
fn events(name: &str, count: u64, every_s: u64) -> Vec<String> {
    let event = |n: u64| {
        let x = (n ^ 7).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let time = cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(n * every_s).unwrap());
        json!({
            "event_id": format!("{name}{n}"), "timestamp": time, "source": "app",
            "event_type": if x.is_multiple_of(3) { "authentication_succeeded" } else { "authentication_failed" },
            "source_ip": format!("10.0.0.{}", x % 40),
        })
        .to_string()
    };
    (0..count).map(event).collect()
}

/// What must be equal: pure fields, but for whether they are sealed, since a replay seals nothing.
fn pure(alerts: &[Value]) -> BTreeMap<String, Value> {
    let told = alerts.iter().filter(|alert| alert["state"] == "open" || alert["state"] == "sealed");
    told.map(|alert| {
        // An alert on risk has no members; what it says of its time is not kept behind the horizon.
        let fields: &[&str] = match alert["rule_id"].as_str() {
            Some("risk") => &["rule_id", "group", "count"],
            _ => &["rule_id", "group", "count", "first", "last"],
        };
        let fields: Vec<&Value> = fields.iter().map(|field| &alert[*field]).collect();
        (alert["alert_id"].as_str().unwrap().to_owned(), json!(fields))
    })
    .collect()
}

#[track_caller]
fn replayed(sent: &[String]) -> BTreeMap<String, Value> {
    let output = run(&["replay", "--rules", RULES, "-"], sent.join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pure(&lines(&output))
}

fn sql(data: &str, statement: &str) -> Vec<Value> {
    let output = run(&["sql", "--data", data, "--format", "json", statement], b"");
    assert_eq!(output.status.code(), Some(0), "{statement}: {}", said(&output));
    lines(&output)
}

fn rows(engine: &Engine) -> Vec<Value> {
    let (_, text) = request(engine.http, "GET", "/api/v1/sources", &[], b"").unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["sources"].as_array().unwrap().iter().filter(|row| row["kind"] == "kafka").cloned().collect()
}

fn records_read(engine: &Engine) -> u64 {
    rows(engine).iter().filter_map(|row| row["next"].as_u64()).sum()
}

/// Waits as long as it goes on.
#[track_caller]
fn wait_for_records(engine: &Engine, count: u64) {
    let mut before = 0;
    while before < count {
        wait_until("it goes on", || records_read(engine) > before);
        before = records_read(engine);
    }
    assert_eq!(before, count);
}

#[track_caller]
fn check(data: &Path, wanted: &BTreeMap<String, Value>) {
    let at = data.to_str().unwrap();
    assert_eq!(sql(at, "select code, count(*) as n from rejects group by code"), Vec::<Value>::new());
    let alerts = run(&["alerts", "--data", at], b"");
    assert_eq!(pure(&lines(&alerts)), *wanted);
}

#[test]
fn a_fast_and_a_slow_partition_give_what_they_give_in_order() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    broker.create("drift", 2);
    // One is ten times as fast. More than what may be under way before it is known whose times are where.
    let (few, many) = (events("fast", 20_000, 20), events("slow", 20_000, 2));
    let text = |lines: &[String]| lines.iter().map(|line| Some(line.as_bytes().to_vec())).collect::<Vec<_>>();
    let both = text(&few).into_iter().chain(text(&many));
    broker.produce_by("drift", both.enumerate().map(|(n, value)| (i32::from(n >= few.len()), value.unwrap())));
    let more = "detection: { horizon_s: 300, disorder_s: 1, max_drift_s: 300, idle_after_s: 5 }\n";
    let config = broker.settings(folder.path(), &["drift"], more);
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_records(&engine, 40_000);
    // The fast one waited for the other, which never had to wait.
    let states = rows(&engine);
    let waited = |row: &Value| row["pauses"].as_u64().unwrap() > 0;
    assert!(states.iter().all(|row| waited(row) == (row["stream"] == "kafka:edge:drift/0")), "{states:?}");
    assert_eq!(states.len(), 2, "{states:?}");
    engine.stop();
    check(&data, &replayed(&[few, many].concat()));
}

#[test]
fn a_cluster_that_comes_later_is_not_late() {
    let (Some(near), Some(far)) = (Broker::shared(), Broker::own()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    near.create("near", 1);
    far.create("far", 1);
    let (here, there) = (events("here", 300, 60), events("there", 300, 60));
    near.produce("near", 1, here.iter().map(String::as_str));
    far.produce("far", 1, there.iter().map(String::as_str));
    far.kill();
    let file = folder.path().join("settings.yaml");
    let kafka = |name: &str, broker: &Broker| {
        format!("  {name}:\n    kafka:\n      brokers: [\"{}\"]\n      topics: [{name}]\n", broker.address(0))
    };
    let detection = "detection: { horizon_s: 300, disorder_s: 1, idle_after_s: 60 }\n";
    std::fs::write(&file, format!("sources:\n{}{}{detection}", kafka("near", near), kafka("far", &far))).unwrap();
    let engine = Engine::start(&data, RULES, &["--config", file.to_str().unwrap()]);
    // What is here could be read by now, and would have moved the watermark on by hours.
    wait_until("what is here is found", || {
        rows(&engine).iter().any(|row| row["source"] == "near" && row["end"] == 300)
    });
    far.start();
    wait_until("both are read", || records_read(&engine) == 600);
    engine.stop();
    check(&data, &replayed(&[here, there].concat()));
}

#[test]
fn when_all_are_behind_each_class_has_its_share() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    const EACH: u64 = 20_000;
    broker.create("urgent", 1);
    broker.create("classes", 2);
    for (topic, partition, name) in [("urgent", 0, "u"), ("classes", 0, "n"), ("classes", 1, "l")] {
        let sent = events(name, EACH, 1);
        broker.produce_by(topic, sent.into_iter().map(|line| (partition, line.into_bytes())));
    }
    // By the topic, the source, the partition.
    let classes = "      classes: { urgent: high, classes/1: low }\n      class: normal\n";
    let config = broker.settings(folder.path(), &["urgent", "classes"], classes);
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    let of_classes: Vec<String> =
        rows(&engine).iter().map(|row| row["class"].as_str().unwrap_or_default().to_owned()).collect();
    wait_for_records(&engine, 3 * EACH);
    engine.stop();
    assert!(of_classes.iter().all(|class| ["high", "normal", "low"].contains(&class.as_str())), "{of_classes:?}");
    let statement = "select epoch, origin, count(*) as n from events group by epoch, origin order by epoch, origin";
    let mut read: BTreeMap<String, u64> = BTreeMap::new();
    // Up to the epoch in which somebody has no more, without those that were gathered while the engine had nothing to do: by
    // counts, so that the machine's speed is no matter.
    let table = sql(at, statement);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for (index, epoch) in table.chunk_by(|a, b| a["epoch"] == b["epoch"]).enumerate() {
        for row in epoch {
            *seen.entry(row["origin"].as_str().unwrap().to_owned()).or_default() += row["n"].as_u64().unwrap();
        }
        if seen.values().any(|count| *count == EACH) {
            break;
        }
        if index < 3 {
            continue;
        }
        let mut then = read.clone();
        for row in epoch {
            *then.entry(row["origin"].as_str().unwrap().to_owned()).or_default() += row["n"].as_u64().unwrap();
        }
        read = then;
    }
    let all: u64 = read.values().sum();
    let share = |stream: &str| read.get(stream).copied().unwrap_or(0) * 100 / all;
    let shares = ["kafka:edge:urgent/0", "kafka:edge:classes/0", "kafka:edge:classes/1"].map(share);
    println!("shares of high, normal and low: {shares:?} of {all}");
    assert!(shares[0] >= 40 && shares[0] > shares[1] && shares[1] >= shares[2] && shares[2] >= 5, "{shares:?}");
}
