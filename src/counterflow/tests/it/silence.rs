//! What happens while nobody sends anything: event time goes on, and what waits for it comes true.

use serde_json::{Value, json};

use crate::support::{Engine, lines, post, run, said, wait_until};

const RULES: &str = "\
title: Begun
id: 6f1d5d2e-0000-4000-8000-0000000000a1
name: begun
logsource: {product: test}
detection: {a: {event_type: begun}, condition: a}
---
title: Ended
id: 6f1d5d2e-0000-4000-8000-0000000000a2
name: ended
logsource: {product: test}
detection: {a: {event_type: ended}, condition: a}
---
title: Begun and not ended
id: 6f1d5d2e-0000-4000-8000-0000000000a3
correlation:
  type: absence
  rules: [begun, ended]
  group-by: [host]
  timespan: 2s
level: high
";

/// The alert of the absence: state and count.
fn alert(data: &str) -> Option<(String, u64)> {
    let alerts: Vec<Value> = lines(&run(&["alerts", "--data", data], b""));
    let alert = alerts.iter().find(|alert| alert["title"] == "Begun and not ended")?;
    Some((alert["state"].as_str()?.to_owned(), alert["count"].as_u64()?))
}

/// Nothing follows, and no event says so. The event is of January: its year does not matter.
#[test]
fn a_provisional_alert_opens_without_a_further_event_and_a_replay_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let (rules, config) = (folder.path().join("rules.yml"), folder.path().join("config.yaml"));
    std::fs::write(&rules, RULES).unwrap();
    std::fs::write(&config, "detection: {idle_after_s: 1, disorder_s: 1}\n").unwrap();
    let start = || Engine::start(&data, rules.to_str().unwrap(), &["--config", config.to_str().unwrap()]);
    let engine = start();
    let event = json!({
        "event_id": "1", "timestamp": "2026-01-05T14:00:00Z", "product": "test", "event_type": "begun", "host": "h",
    });
    let (status, answer) =
        post(engine.http, "/api/v1/events", "application/json", event.to_string().as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
    wait_until("the alert opens", || alert(at) == Some(("open".to_owned(), 1)));
    let told = run(&["alerts", "--data", at], b"");

    // What the epochs' records say is all that a restart needs.
    engine.kill();
    let engine = start();
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    assert_eq!(run(&["alerts", "--data", at], b"").stdout, told.stdout, "{}", said(&told));
    let late = json!({
        "event_id": "2", "timestamp": "2026-01-05T14:00:01Z", "product": "test", "event_type": "ended", "host": "h",
    });
    let (status, answer) =
        post(engine.http, "/api/v1/events", "application/json", late.to_string().as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
    wait_until("what comes late corrects it", || alert(at).is_some_and(|(state, _)| state == "withdrawn"));
    engine.stop();
    let epochs = run(&["sql", "--data", at, "--format", "json", "select count(*) as n from epochs"], b"");
    // One for the event, one for time, one for what came late, one or two for rules and policies of each start.
    let count = lines(&epochs)[0]["n"].as_u64().unwrap();
    assert!(count <= 9, "{count} epochs: time alone cuts none for nothing");
}
