//! Kafka as a source, against a real broker: the same alerts as a replay of the same lines, through kills of engine and
//! broker; conditions that are stated (ING-02, ING-04). `COUNTERFLOW_KILLS` sets how often (3 here; more by
//! `scripts/campaign kafka`).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    broker::Broker,
    support::{Engine, lines, run, said, wait_until},
};

const RULES: &str = "rules/plan";

/// Events of some sources; times are not in order.
fn events(from: u64, count: u64, seed: u64) -> Vec<String> {
    let event = |n: u64| {
        let x = (n ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let second = n / 4 + x % 60;
        let kind = if x.is_multiple_of(7) { "authentication_succeeded" } else { "authentication_failed" };
        let time = cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(second).unwrap());
        json!({
            "event_id": format!("k{n}"), "timestamp": time, "source": "app", "event_type": kind,
            "source_ip": format!("10.0.{}.{}", x % 3, (x >> 8) % 5),
        })
        .to_string()
    };
    (from..from + count).map(event).collect()
}

/// What must be equal: pure fields only.
fn pure(alerts: &[Value]) -> BTreeMap<String, Value> {
    let told = alerts.iter().filter(|alert| alert["state"] == "open" || alert["state"] == "sealed");
    told.map(|alert| {
        let fields = ["rule_id", "state", "group", "count", "first", "last"].map(|field| alert[field].clone());
        (alert["alert_id"].as_str().unwrap().to_owned(), json!(fields))
    })
    .collect()
}

#[track_caller]
fn replayed(lines_sent: &[String]) -> BTreeMap<String, Value> {
    let output = run(&["replay", "--rules", RULES, "-"], lines_sent.join("\n").as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pure(&lines(&output))
}

#[track_caller]
fn alerts(data: &str) -> BTreeMap<String, Value> {
    let output = run(&["alerts", "--data", data], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pure(&lines(&output))
}

#[track_caller]
fn sql(data: &str, statement: &str) -> Vec<Value> {
    let output = run(&["sql", "--data", data, "--format", "json", statement], b"");
    assert_eq!(output.status.code(), Some(0), "{statement}: {}", said(&output));
    lines(&output)
}

fn texts(lines: &[String]) -> impl Iterator<Item = &str> {
    lines.iter().map(String::as_str)
}

/// Waits until an engine has that many events in its counters.
#[track_caller]
fn wait_for_events(engine: &Engine, count: usize) {
    let wanted = format!("counterflow_events_total {count}\n");
    for _ in 0..1_200 {
        let metrics = crate::support::get(engine.http, "/metrics").map(|(_, text)| text).unwrap_or_default();
        if metrics.contains(&wanted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{count} events do not come: {}", engine.log());
}

/// The rows of the sources as the API has them.
fn rows(engine: &Engine) -> Vec<Value> {
    let (status, text) = crate::support::request(engine.http, "GET", "/api/v1/sources", &[], b"").unwrap();
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["sources"].as_array().unwrap().iter().filter(|row| row["kind"] == "kafka").cloned().collect()
}

/// Waits until all partitions together are read up to the sum of these offsets.
#[track_caller]
fn wait_for_next(engine: &Engine, sum: u64) {
    for _ in 0..1_200 {
        if rows(engine).iter().filter_map(|row| row["next"].as_u64()).sum::<u64>() == sum {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{sum} is not reached: {:?} {}", rows(engine), engine.log());
}

/// Waits until a partition is stopped, and gives what it says.
#[track_caller]
fn wait_for_stop(engine: &Engine) -> String {
    wait_until("the partition is stopped", || rows(engine).iter().any(|row| row["state"] == "stopped"));
    let (_, health) = crate::support::get(engine.http, "/api/v1/health").unwrap();
    assert!(health.contains("degraded") && health.contains("stopped"), "{health}");
    rows(engine)[0]["last_error"].as_str().unwrap().to_owned()
}

#[test]
fn kafka_gives_what_a_replay_gives_and_a_restart_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    broker.create("same", 3);
    let config = broker.settings(folder.path(), &["same"], "      group: watched\n");
    let sent = events(0, 900, 1);
    // Each form of compression, and one record after the other in three partitions.
    for (part, compression) in sent.chunks(180).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let values = part.iter().map(|line| Some(line.as_bytes()));
        broker.produce_with(&[("compression.type", compression)], "same", 3, values);
    }
    // A transaction's records are read, an aborted one's are not; its markers are gaps in the offsets.
    let more = events(900, 10, 1);
    broker.transact("same", 0, &texts(&more).collect::<Vec<_>>(), true);
    broker.transact("same", 1, &["{\"event_id\": \"never\", \"event_type\": \"x\"}"], false);

    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_events(&engine, 910);
    engine.kill();
    // Written while nobody reads, with repeats of before: producers try again.
    let last = events(910, 90, 1);
    broker.produce("same", 3, texts(&last));
    broker.produce("same", 3, texts(&sent[..30]));
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    let all: Vec<String> = [sent, more, last].concat();
    let wanted = replayed(&all);
    assert!(wanted.len() > 5);
    // 1,030 records, one aborted, two markers.
    wait_for_next(&engine, 1_033);
    wait_until("the alerts of a replay", || alerts(at) == wanted);
    engine.stop();
    assert_eq!(alerts(at), wanted);
    let listed = lines(&run(&["sources", "list", "--data", at], b""));
    assert_eq!(listed.iter().filter(|row| row["kind"] == "kafka" && row["class"] == "normal").count(), 3, "{listed:?}");
    let rows = sql(at, "select count(distinct event_id) as ids, count(*) as n from events where source = 'edge'");
    assert_eq!((&rows[0]["ids"], &rows[0]["n"]), (&json!(1_000), &json!(1_030)));
    let places = sql(at, "select distinct origin from events order by origin");
    let names: Vec<_> = places.iter().map(|row| row["origin"].as_str().unwrap()).collect();
    assert_eq!(names, ["kafka:edge:same/0", "kafka:edge:same/1", "kafka:edge:same/2"]);
}

#[test]
fn partitions_and_topics_that_come_later_are_read_from_their_beginning() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    broker.create("grows", 1);
    let config = broker.settings(folder.path(), &["grows", "later"], "      start: latest\n");
    broker.produce("grows", 1, ["{\"event_id\": \"before\", \"event_type\": \"x\"}"]);
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_until("the partition is bound", || engine.log().contains("kafka:edge:grows/0"));
    let sent = events(0, 60, 2);
    broker.produce("grows", 1, texts(&sent[..20]));
    wait_for_events(&engine, 20);
    broker.grow("grows", 3);
    broker.produce("grows", 3, texts(&sent[20..]));
    wait_for_events(&engine, 60);
    // A topic that was not there at the start, which is latest here: its first look decides.
    broker.create("later", 1);
    wait_until("the topic is bound", || engine.log().contains("kafka:edge:later/0"));
    broker.produce("later", 1, texts(&events(60, 5, 2)));
    wait_for_events(&engine, 65);
    engine.stop();
    assert_eq!(alerts(at), replayed(&[sent, events(60, 5, 2)].concat()));
    assert_eq!(sql(at, "select count(*) as n from events where event_id = 'before'")[0]["n"], 0);
}

#[test]
fn poison_is_rejected_with_its_place() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    broker.create("poison", 1);
    let config = broker.settings(folder.path(), &["poison"], "      format: json\n    record_bytes_max: 1000\n");
    let good = events(0, 1, 3);
    let long = format!("{{\"event_type\": \"{}\"}}", "x".repeat(5_000));
    let values: [Option<&[u8]>; 7] = [
        Some(b"not json"),
        None,
        Some(b"\0\0\0\0\x2aavro"),
        Some(long.as_bytes()),
        Some(b"\xff\xfe{}"),
        Some(b""),
        Some(good[0].as_bytes()),
    ];
    broker.produce_with(&[], "poison", 1, values);
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_events(&engine, 1);
    engine.stop();
    let rejects = sql(at, "select code, origin, record_offset, reason from rejects order by record_offset");
    let shown: Vec<_> =
        rejects.iter().map(|row| (row["code"].as_str().unwrap(), row["record_offset"].as_u64().unwrap())).collect();
    let wanted = [
        ("invalid_json", 0),
        ("empty", 1),
        ("unsupported_format", 2),
        ("too_long", 3),
        ("invalid_utf8", 4),
        ("empty", 5),
    ];
    assert_eq!(shown, wanted, "{rejects:?}");
    assert!(rejects.iter().all(|row| row["origin"] == "kafka:edge:poison/0"), "{rejects:?}");
    assert!(rejects[1]["reason"].as_str().unwrap().contains("tombstone"), "{rejects:?}");
    assert!(rejects[2]["reason"].as_str().unwrap().contains("schema 42"), "{rejects:?}");
}

#[test]
fn kills_of_engine_and_broker_change_nothing() {
    let Some(broker) = Broker::own() else { return };
    let kills: u64 = std::env::var("COUNTERFLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let seed: u64 = std::env::var("COUNTERFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    eprintln!("seed {seed}, {kills} kills");
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let told = folder.path().join("told.jsonl");
    broker.create("killed", 3);
    let config = broker.settings(folder.path(), &["killed"], "");
    let more = ["--config", &config, "--block-for", "1h", "--alerts-file", told.to_str().unwrap()];
    let mut dice = seed;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut sent: Vec<String> = Vec::new();
    let mut engine = Some(Engine::start(&data, RULES, &more));
    for kill in 0..kills {
        let batch = events(kill * 400, 400, seed);
        let wait = Duration::from_millis(roll(1_500));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for part in batch.chunks(40) {
                    broker.produce("killed", 3, texts(part));
                }
                // Some come twice.
                broker.produce("killed", 3, texts(&batch[..50]));
            });
            std::thread::sleep(wait);
            let what = roll(3);
            if what != 1 {
                engine.take().unwrap().kill();
            }
            if what != 0 {
                broker.kill();
                broker.start();
            }
        });
        sent.extend(batch);
        engine = Some(engine.take().unwrap_or_else(|| Engine::start(&data, RULES, &more)));
    }
    let wanted = replayed(&sent);
    assert!(wanted.len() > 5);
    wait_for_next(engine.as_ref().unwrap(), broker.end("killed", 3));
    wait_until("the alerts of a replay", || alerts(at) == wanted);
    engine.take().unwrap().stop();
    assert_eq!(alerts(at), wanted, "seed {seed}");
    let count = sql(at, "select count(distinct event_id) as ids from events");
    assert_eq!(count[0]["ids"], kills * 400, "seed {seed}");
    // No record is read twice: each place stands once in history.
    let twice =
        "select count(*) as n from (select origin, record_offset from events group by 1, 2 having count(*) > 1)";
    assert_eq!(sql(at, twice)[0]["n"], 0, "seed {seed}");
    let text = std::fs::read_to_string(&told).unwrap();
    let mut keys: Vec<String> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].to_string()).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "seed {seed}");
}

#[test]
fn retention_that_passes_us_stops_the_partition_until_somebody_says_where_to_go_on() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    broker.create("aged", 1);
    let config = broker.settings(folder.path(), &["aged"], "");
    let sent = events(0, 60, 4);
    broker.produce("aged", 1, texts(&sent[..30]));
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_next(&engine, 30);
    engine.stop();
    let before = alerts(at);
    assert_eq!(before, replayed(&sent[..30]));
    broker.produce("aged", 1, texts(&sent[30..]));
    broker.forget_before("aged", 0, 40);

    let engine = Engine::start(&data, RULES, &["--config", &config]);
    let says = wait_for_stop(&engine);
    assert!(says.contains("begins at offset 40, after 30") && says.contains("10 records are gone"), "{says}");
    // It stays so through a restart, and what was accepted stays.
    engine.kill();
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_stop(&engine);
    assert_eq!(alerts(at), before);
    let nonsense = run(&["--config", &config, "sources", "resume", "edge", "--from", "offset=7", "--data", at], b"");
    assert_eq!(nonsense.status.code(), Some(2));
    assert!(said(&nonsense).contains("no offset 7: it has 40 up to 60"), "{}", said(&nonsense));
    let resumed = run(&["--config", &config, "sources", "resume", "edge", "--from", "earliest", "--data", at], b"");
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    wait_for_next(&engine, 60);
    // The word is bound: a kill does not take it back.
    engine.kill();
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_next(&engine, 60);
    let wanted = replayed(&[&sent[..30], &sent[40..]].concat());
    wait_until("the alerts of what was read", || alerts(at) == wanted);
    engine.stop();
    assert_eq!(sql(at, "select count(*) as n from events")[0]["n"], 50);
}

#[test]
fn a_topic_that_was_made_anew_is_told_from_the_one_before() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    broker.create("anew", 1);
    let config = broker.settings(folder.path(), &["anew"], "");
    let sent = events(0, 90, 5);
    broker.produce("anew", 1, texts(&sent[..30]));
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    wait_for_next(&engine, 30);
    engine.stop();
    // Longer than the one before: its offsets say nothing.
    broker.delete("anew");
    broker.create("anew", 1);
    broker.produce("anew", 1, texts(&sent[30..70]));
    let engine = Engine::start(&data, RULES, &["--config", &config]);
    let says = wait_for_stop(&engine);
    assert!(says.contains("made anew"), "{says}");
    let (status, answer) = crate::support::request(
        engine.http,
        "POST",
        "/api/v1/sources/edge/resume",
        &[("content-type", "application/json")],
        b"{\"from\": \"earliest\"}",
    )
    .unwrap();
    assert_eq!(status, 200, "{answer}");
    wait_for_next(&engine, 40);
    // And while it is read.
    broker.delete("anew");
    wait_until("the topic is missing", || rows(&engine).iter().any(|row| row["state"] == "topic_missing"));
    broker.create("anew", 1);
    broker.produce("anew", 1, texts(&sent[70..]));
    let says = wait_for_stop(&engine);
    assert!(says.contains("made anew"), "{says}");
    let resumed = run(&["--config", &config, "sources", "resume", "edge", "--from", "earliest", "--data", at], b"");
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));
    wait_for_next(&engine, 20);
    let wanted = replayed(&sent);
    wait_until("the alerts of all three", || alerts(at) == wanted);
    engine.stop();
}

#[test]
fn logins_and_certificates_are_tried_and_told() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    broker.create("login", 1);
    broker.produce("login", 1, texts(&events(0, 5, 6)));
    let (login, both, tls) = (broker.address(2), broker.address(4), broker.tls());
    let settings = |name: &str, address: &str, security: &str| {
        let file = folder.path().join(name);
        let text = format!(
            "sources:\n  edge:\n    kafka:\n      brokers: [\"{address}\"]\n      topics: [login]\n      security: {security}\n"
        );
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let check = |config: &str| {
        let output = run(&["--config", config, "sources", "check"], b"");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let wrong = settings("wrong.yaml", &login, "{ sasl: { mechanism: plain, user: plain, password: wrong } }");
    let (code, says) = check(&wrong);
    assert!(code == Some(1) && says.contains("refused") && says.contains("uthentication failed"), "{says}");
    let plain = settings("plain.yaml", &login, "{ sasl: { mechanism: plain, user: plain, password: secret } }");
    assert_eq!(check(&plain).0, Some(0), "{}", check(&plain).1);
    let strange = settings("strange.yaml", &both, "{ tls: true, sasl: { user: plain, password: secret } }");
    let (code, says) = check(&strange);
    assert!(code == Some(1) && says.contains("certificate"), "{says}");
    let ca = tls.join("ca.pem");
    let scram = format!(
        "{{ tls: true, ca: {}, sasl: {{ mechanism: scram_sha_512, user: scram, password: \"${{file:{}}}\" }} }}",
        ca.display(),
        folder.path().join("password").display()
    );
    std::fs::write(folder.path().join("password"), "secret\n").unwrap();
    let scram = settings("scram.yaml", &both, &scram);
    assert_eq!(check(&scram).0, Some(0), "{}", check(&scram).1);
    let shown = run(&["--config", &scram, "config", "show"], b"");
    assert!(!String::from_utf8_lossy(&shown.stdout).contains("secret\""), "a password is shown");
    let engine = Engine::start(&folder.path().join("data"), RULES, &["--config", &scram]);
    wait_for_events(&engine, 5);
    engine.stop();
    // Refused, it says so, and tries on.
    let engine = Engine::start(&folder.path().join("other"), RULES, &["--config", &wrong]);
    wait_until("it is refused", || rows(&engine).iter().any(|row| row["state"] == "refused"));
    engine.stop();
}
