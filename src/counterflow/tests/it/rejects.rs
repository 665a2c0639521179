//! What was refused goes through again after the decoder was mended, once, whatever happens in between (ING-05).

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Engine, lines, post, request, run, said, wait_until};

const NDJSON: &str = "application/x-ndjson";

/// A failed login whose details lie this deep.
fn event(number: u32, depth: usize) -> String {
    let details = (0..depth).fold(json!("x"), |inner, _| json!({ "in": inner }));
    let event = json!({
        "event_id": format!("e{number}"), "timestamp": format!("2026-01-05T14:00:{number:02}Z"), "source": "app",
        "event_type": "authentication_failed", "source_ip": "10.7.7.7", "details": details,
    });
    format!("{event}\n")
}

fn settings(path: &Path, depth_max: u32) {
    std::fs::write(path, format!("sources:\n  http:\n    depth_max: {depth_max}\n")).unwrap();
}

#[track_caller]
fn rejects(data: &str, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["rejects"];
    all.extend(arguments);
    all.extend(["--data", data]);
    let output = run(&all, b"");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    lines(&output)
}

fn count(data: &str) -> Value {
    let output = run(&["alerts", "--data", data], b"");
    lines(&output).iter().find(|alert| alert["state"] == "open").map_or(Value::Null, |alert| alert["count"].clone())
}

fn events(data: &str) -> (Value, Value) {
    let statement = "select count(*) as n, count(distinct event_id) as ids from events";
    let output = run(&["sql", "--data", data, "--format", "json", statement], b"");
    let row = lines(&output).remove(0);
    (row["n"].clone(), row["ids"].clone())
}

#[test]
fn what_was_refused_goes_through_again_once() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("counterflow.yml"));
    let at = data.to_str().unwrap();
    settings(&config, 4);
    let more = ["--config", config.to_str().unwrap()];
    let engine = Engine::start(&data, "rules/plan", &more);
    let body: String = (0..9).map(|i| event(i, if i < 3 { 1 } else { 8 })).collect();
    let (status, answer) = post(engine.http, "/api/v1/events", NDJSON, format!("{body}not json\n").as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
    wait_until("rejects are in history", || rejects(at, &["list"]).len() == 7);

    let counts = rejects(at, &["list", "--counts"]);
    assert_eq!(
        counts,
        [
            json!({"source": "http", "code": "damaged", "count": 1}),
            json!({"source": "http", "code": "too_deep", "count": 6})
        ]
    );
    let ask = |method: &str, path: &str, body: &[u8]| {
        let headers = [("content-type", "application/json")];
        let (status, answer) = request(engine.http, method, path, &headers, body).unwrap();
        (status, answer)
    };
    let (status, list) = ask("GET", "/api/v1/rejects?code=damaged", b"");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!((status, list["rejects"][0]["raw"].as_str()), (200, Some("not json")), "{list}");
    let id = list["rejects"][0]["id"].as_str().unwrap();
    assert_eq!(rejects(at, &["show", id])[0]["reason"], list["rejects"][0]["reason"]);
    assert_eq!(ask("GET", &format!("/api/v1/rejects/{id}"), b"").0, 200);
    assert_eq!(ask("GET", "/api/v1/rejects/1-0", b"").0, 404);
    assert!(rejects(at, &["list", "--source", "syslog"]).is_empty());
    assert!(rejects(at, &["list", "--to", "2020-01-01T00:00:00Z"]).is_empty());
    // Everything at once must be said.
    assert_eq!(run(&["rejects", "retry", "--data", at], b"").status.code(), Some(2));

    // The decoder is mended, and all go through again: by request, and what can be never comes back as a reject.
    settings(&config, 32);
    let (status, answer) = ask("POST", "/api/v1/reload", b"");
    assert_eq!(status, 200, "{answer}");
    let everything = br#"{"all":true,"author":"me","reason":"mended"}"#;
    let (status, done) = ask("POST", "/api/v1/rejects/retry", everything);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!((status, &done["retried"], &done["retried_before"]), (200, &json!(7), &json!(0)), "{done}");
    wait_until("the alert is there", || count(at) == 9);
    wait_until("what fails again says so", || {
        let again = rejects(at, &["list", "--reason", "again, asked for by control"]);
        again.len() == 1 && again[0]["raw"] == "not json" && again[0]["retried"].is_null()
    });
    assert!(rejects(at, &["list", "--code", "too_deep"]).iter().all(|reject| !reject["retried"].is_null()));

    // Asked for again: nothing of it doubles, beside the running engine and after it was killed.
    let again = rejects(at, &["retry", "--code", "too_deep"]);
    assert_eq!((&again[0]["retried"], &again[0]["control"]), (&json!(0), &json!([])), "{again:?}");
    let by_id: Vec<Value> = rejects(at, &["list", "--code", "too_deep"]);
    let again = rejects(at, &["retry", by_id[0]["id"].as_str().unwrap()]);
    assert_eq!((&again[0]["retried"], &again[0]["retried_before"]), (&json!(0), &json!(1)), "{again:?}");
    let unknown = run(&["rejects", "retry", "1-00", "--data", at], b"");
    assert_eq!((unknown.status.code(), &lines(&unknown)[0]["unknown"]), (Some(1), &json!(["1-00"])));
    engine.kill();
    assert_eq!(rejects(at, &["retry", "--code", "too_deep"])[0]["retried"], 0);
    // What failed again may be asked for once more, while nothing runs: the next start takes it.
    let once_more = rejects(at, &["retry", "--code", "invalid_json"]);
    assert_eq!((&once_more[0]["retried"], &once_more[0]["retried_before"]), (&json!(1), &json!(0)), "{once_more:?}");
    let engine = Engine::start(&data, "rules/plan", &more);
    wait_until("it failed once more", || rejects(at, &["list", "--code", "invalid_json"]).len() == 2);
    engine.stop();
    assert_eq!(count(at), 9);
    assert_eq!(events(at), (json!(9), json!(9)));
    let audit = run(&["audit", "verify", "--data", at], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[test]
fn what_only_a_correlation_refused_does_not_go_through_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules/plan", &[]);
    let far = event(1, 1).replace("2026-01-05", "2199-01-05");
    let long = format!("{{\"a\":\"{}\"", "x".repeat(100_000));
    for body in [far, long] {
        let status = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap().0;
        assert!([202, 400].contains(&status));
    }
    wait_until("both are in history", || rejects(at, &["list"]).len() == 2);
    let done = rejects(
        at,
        &[
            "retry",
            rejects(at, &["list"])[0]["id"].as_str().unwrap(),
            rejects(at, &["list"])[1]["id"].as_str().unwrap(),
        ],
    );
    assert_eq!((&done[0]["retried"], done[0]["cannot"].as_array().unwrap().len()), (&json!(0), 2), "{done:?}");
    engine.stop();
}
