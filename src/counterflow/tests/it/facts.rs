//! Facts by command and by request: what they say, what they do, what is refused.

use serde_json::{Value, json};

use crate::support::{Engine, lines, post, request, run, said, wait_until};

const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

fn failures(from: &str, count: u32) -> String {
    let line = |i| {
        json!({
            "event_id": format!("{from}-{i}"), "timestamp": format!("2026-01-05T14:00:{:02}Z", i % 60), "source": "app",
            "event_type": "authentication_failed", "source_ip": from,
        })
    };
    (0..count).map(|i| format!("{}\n", line(i))).collect()
}

fn ask(engine: &Engine, path: &str) -> Value {
    let (status, text) = request(engine.http, "GET", path, &[], b"").unwrap();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn facts_of_every_kind_are_said_listed_imported_and_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules/plan", &[]);
    let import = b"{\"value\":\"host:db01\",\"criticality\":5,\"reason\":\"inventory\",\"author\":\"cmdb\"}\n\n\
                   {\"value\":\"host:db02\",\"criticality\":7}\nnonsense\n{\"value\":\"host:db01\",\"criticality\":5}\n";
    let output = run(&["facts", "import", "--data", at, "asset", "-"], import);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for text in
        ["-:3: criticality is a number from 1 to 5", "-:4: expected", "1 facts added, 1 held already, 2 refused"]
    {
        assert!(said(&output).contains(text), "{text}: {}", said(&output));
    }
    for words in [
        &["indicator", "evil.example", "confidence=90", "source=feed"][..],
        &["edge", "user:alice->host:db01", "access=admin"],
        &["identity", "alice", "privileged=true"],
        &["silence", "night work", "rules=rule-001", "from=2026-01-05T13:00:00Z", "until=2026-01-05T15:00:00Z"],
    ] {
        let output = run(&[&["facts", "add", "--data", at, "--reason", "a test"], words].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
    }
    let listed = lines(&run(&["facts", "list", "--data", at], b""));
    let mut kinds: Vec<_> = listed.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    kinds.retain(|kind| *kind != "policy");
    kinds.sort_unstable();
    assert_eq!(kinds, ["asset", "edge", "identity", "indicator", "silence"]);
    assert_eq!(lines(&run(&["facts", "list", "--data", at, "asset"], b""))[0]["author"], "cmdb");

    // An alert that lies inside the silence is not told, and not lost.
    let (status, _) = post(engine.http, "/api/v1/events", NDJSON, failures("10.0.0.1", 6).as_bytes()).unwrap();
    assert_eq!(status, 202);
    wait_until("the alert is silent", || {
        !ask(&engine, "/api/v1/suppressed")["suppressed"].as_array().unwrap().is_empty()
    });
    let silent = ask(&engine, "/api/v1/suppressed")["suppressed"][0].clone();
    assert_eq!((silent["reason"].as_str(), &silent["content"]["count"]), (Some("silenced by night work"), &json!(6)));
    assert_eq!(lines(&run(&["alerts", "--data", at], b"")), Vec::<Value>::new());
    assert_eq!(run(&["facts", "remove", "--data", at, "silence", "night work"], b"").status.code(), Some(0));
    wait_until("the alert is told", || lines(&run(&["alerts", "--data", at], b"")).len() == 1);

    // A verdict is on an alert that there is.
    let alert = lines(&run(&["alerts", "--data", at], b""))[0]["alert_id"].as_str().unwrap().to_owned();
    let say = |alert: &str| {
        let body = json!({"value": alert, "verdict": "true_positive", "author": "alice"}).to_string();
        {
            let json = [("content-type", JSON)];
            request(engine.http, "POST", "/api/v1/facts/verdict", &json, body.as_bytes()).unwrap().0
        }
    };
    assert_eq!((say(&alert), say(&alert), say(&"0".repeat(32))), (201, 200, 422));
    assert_eq!(ask(&engine, "/api/v1/facts/verdict")["facts"][0]["fact"]["verdict"]["rule"], "rule-001");
    engine.stop();
}

fn event(id: &str, second: u32, address: &str) -> Vec<u8> {
    let event = json!({
        "event_id": id, "timestamp": format!("2026-01-05T14:00:{second:02}Z"), "source": "app", "event_type": "visit",
        "source_ip": address, "host": "web01",
    });
    format!("{event}\n").into_bytes()
}

/// DET-04: by URLs, and by hosts that stand in nothing but a URL.
#[test]
fn an_indicator_of_a_url_finds_what_was_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules/plan", &[]);
    let urls = ["HTTP://Evil.example/a?b=1#c", "http://other.example/x", "https://203.0.113.77/y", "no url"];
    let line = |(second, url): (usize, &&str)| {
        let time = format!("2026-01-05T14:00:{second:02}Z");
        format!("{}\n", json!({"event_id": format!("u{second}"), "timestamp": time, "source": "app", "url": url}))
    };
    let body: String = urls.iter().enumerate().map(line).collect();
    let (status, text) = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{text}");
    wait_until("the events are in history", || {
        lines(&run(&["sql", "--data", at, "--format", "json", "select event_id from events"], b"")).len() == urls.len()
    });
    let titles = || -> Vec<String> {
        let alerts = lines(&run(&["alerts", "--data", at, "--rule", "indicator"], b""));
        let mut titles: Vec<String> = alerts.iter().map(|alert| alert["title"].as_str().unwrap().to_owned()).collect();
        titles.sort();
        titles
    };
    let fact = |value: &str| {
        let output = run(&["facts", "add", "indicator", value, "confidence=90", "--data", at], b"");
        assert_eq!(output.status.code(), Some(0), "{value}: {}", said(&output));
    };
    fact("http://evil.example/a?b=1");
    wait_until("the URL of before is found", || titles().len() == 1);
    fact("203.0.113.77");
    fact("other.example");
    wait_until("the hosts of before are found", || titles().len() == 3);
    let expect = ["address:203.0.113.77", "domain:other.example", "url:http://evil.example/a?b=1"];
    assert_eq!(titles(), expect.map(|what| format!("Indicator seen: {what}")));
    engine.stop();
}

/// DET-04, RSK-06: what happened before an indicator is found too; facts move its score; what rested on it goes with it.
#[test]
fn an_indicator_finds_what_was_before_it_and_its_end_withdraws_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules/plan", &[]);
    let send = |engine: &Engine, id: &str, second: u32| {
        let (status, text) = post(engine.http, "/api/v1/events", NDJSON, &event(id, second, "203.0.113.9")).unwrap();
        assert_eq!(status, 202, "{text}");
    };
    let fact = |words: &[&str]| {
        let output = run(&[&["facts"], words, &["--data", at]].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
    };
    let seen = || -> Vec<Value> {
        lines(&run(&["alerts", "--data", at], b"")).into_iter().filter(|row| row["rule_id"] == "indicator").collect()
    };
    let counted = |count: u64, state: &str| {
        let alerts = seen();
        alerts.len() == 1 && alerts[0]["count"] == count && alerts[0]["state"] == state
    };
    send(&engine, "before", 1);
    wait_until("the event is in history", || {
        lines(&run(&["sql", "--data", at, "--format", "json", "select event_id from events"], b"")).len() == 1
    });
    fact(&["add", "indicator", "203.0.113.9", "confidence=90", "source=feed"]);
    wait_until("the event of before is found", || counted(1, "open"));
    send(&engine, "after", 9);
    wait_until("the event after it is met", || counted(2, "open"));

    // 7.5 × 1.160 for a confidence of 90 %; an outside address is a network vector.
    let alert = seen()[0].clone();
    assert_eq!(alert["title"], "Indicator seen: address:203.0.113.9");
    let path = format!("/api/v1/assessments/{}", alert["alert_id"].as_str().unwrap());
    let assessed = ask(&engine, &path);
    assert_eq!(
        (&assessed["assessment"]["score"], &assessed["assessment"]["confidence_percent"]),
        (&json!(8.7), &json!(90))
    );
    assert_eq!(assessed["assessment"]["factors"].as_array().unwrap().len(), 9);
    fact(&["add", "asset", "host:web01", "criticality=1"]);
    fact(&["add", "edge", "host:web01->host:db01"]);
    wait_until("the asset moves the score", || ask(&engine, &path)["assessment"]["score"] == json!(6.5));
    assert_eq!(ask(&engine, &path)["before"][0]["score"], json!(8.7));
    let reaches = |row: &Value| row["blast_radius"]["hops"] == json!([1, 0, 0, 0]);
    wait_until("its radius is there", || ask(&engine, &path)["entities"].as_array().unwrap().iter().any(reaches));
    let risk = ask(&engine, "/api/v1/risk?entity=host:web01");
    assert_eq!((&risk["contributions"][0]["rule"], &risk["level"]), (&json!("indicator"), &json!("medium")), "{risk}");
    let all = lines(&run(&["risk", "--data", at], b""));
    assert!(all.iter().any(|row| row["entity"] == "address:203.0.113.9" && row["score"] == json!(6.5)), "{all:?}");
    assert_eq!(run(&["assess", "--data", at, alert["alert_id"].as_str().unwrap()], b"").status.code(), Some(0));

    // A restart knows it all, and does not look again.
    engine.stop();
    let engine = Engine::start(&data, "rules/plan", &[]);
    assert!(counted(2, "open"), "{:?}", seen());
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    fact(&["remove", "indicator", "203.0.113.9", "source=feed"]);
    wait_until("it is withdrawn", || counted(2, "withdrawn"));
    assert_eq!(engine.log().matches("events of before were looked up").count(), 1, "{}", engine.log());
    engine.stop();
}
