//! `run`: what is accepted is on disk, alerts come and go with the facts, `sql` and `incidents` work beside it.

use std::{io::Write, net::TcpStream};

use serde_json::{Value, json};

use crate::support::{Engine, get, lines, post, run, said, wait_until};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn alerts(data: &str) -> Vec<Value> {
    let output = run(&["alerts", "--data", data], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output)
}

fn sql(data: &str, statement: &str) -> Vec<Value> {
    let output = run(&["sql", "--data", data, "--format", "json", statement], b"");
    assert_eq!(output.status.code(), Some(0), "{statement}: {}", said(&output));
    lines(&output)
}

fn failures(from: &str, count: u32) -> String {
    let line = |i| {
        json!({
            "event_id": format!("{from}-{i}"), "timestamp": format!("2026-01-05T14:00:{:02}Z", i % 60), "source": "app",
            "event_type": "authentication_failed", "source_ip": from,
        })
    };
    (0..count).map(|i| format!("{}\n", line(i))).collect()
}

#[test]
fn events_become_alerts_actions_and_history() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules/plan", &["--block-for", "1h", "--protect", "10.0.0.2"]);

    // Accepted and rejected are counted, and both can be asked for.
    let body = format!("{}{{\"event_id\": 7, \"event_type\": \"x\"}}\nnot json\n", failures("10.0.0.1", 6));
    let (status, answer) = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(
        answer["accepted"].as_u64().unwrap() >= 6 && !answer["rejected"].as_array().unwrap().is_empty(),
        "{answer}"
    );
    // The protected address is never touched, though the policy asks for it.
    let (status, _) = post(engine.http, "/api/v1/events", NDJSON, failures("10.0.0.2", 6).as_bytes()).unwrap();
    assert_eq!(status, 202);

    wait_until("two alerts", || alerts(at).iter().filter(|alert| alert["state"] == "open").count() == 2);
    let found = alerts(at);
    assert!(found.iter().all(|alert| alert["rule_id"] == "rule-001" && alert["count"] == 6), "{found:?}");
    wait_until("actions decided", || {
        let actions = lines(&run(&["actions", "--data", at], b""));
        let state = |target: &str| actions.iter().find(|a| a["target"] == target).map(|a| a["state"].clone());
        state("10.0.0.1") == Some("dry_run".into()) && state("10.0.0.2") == Some("refused".into())
    });
    let incidents = lines(&run(&["incidents", "--data", at], b""));
    assert_eq!(incidents.len(), 2, "no shared entity, no shared incident");

    // A second start on the same folder names who holds it.
    let second = run(&["run", "--data", at, "--rules", "rules/plan", "--listen", "127.0.0.1:0"], b"");
    assert_eq!(second.status.code(), Some(2));
    assert!(said(&second).contains(&engine.pid().to_string()), "{}", said(&second));
    // So does a second start on the same port.
    let taken = engine.http.to_string();
    let other = folder.path().join("other");
    let second = run(&["run", "--data", other.to_str().unwrap(), "--rules", "rules/plan", "--listen", &taken], b"");
    assert_eq!(second.status.code(), Some(2));
    assert!(said(&second).contains(&taken), "{}", said(&second));

    // An allow fact, added from outside while it runs, withdraws what rests on that address; removed, it comes back.
    let state_of = |address: &str| {
        alerts(at)
            .iter()
            .find(|alert| alert["group"]["source_ip"] == address)
            .map(|a| a["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(run(&["facts", "add", "allow", "10.0.0.1", "--data", at], b"").status.code(), Some(0));
    wait_until("the alert is withdrawn", || state_of("10.0.0.1").as_deref() == Some("withdrawn"));
    assert_eq!(state_of("10.0.0.2").as_deref(), Some("open"));
    assert_eq!(run(&["facts", "remove", "allow", "10.0.0.1", "--data", at], b"").status.code(), Some(0));
    wait_until("the alert is back", || state_of("10.0.0.1").as_deref() == Some("open"));

    // Health and metrics are for machines.
    let (status, health) = get(engine.http, "/api/v1/health").unwrap();
    assert_eq!(status, 200, "{health}");
    for path in ["/metrics", "/api/v1/metrics"] {
        let (status, metrics) = get(engine.http, path).unwrap();
        assert!(status == 200 && metrics.contains("counterflow_events_total 12"), "{metrics}");
        assert!(metrics.contains("counterflow_rule_candidates_total{rule_id="), "{metrics}");
        assert!(metrics.contains("counterflow_yara_scans_total 0"), "{metrics}");
    }

    // SQL beside the running engine, and the same after it stopped.
    wait_until("history has the events", || {
        std::path::Path::new(at).join("history/events/_delta_log").exists()
            && sql(at, "select count(*) as n from events")[0]["n"] == 12
    });
    engine.stop();
    assert_eq!(sql(at, "select count(*) as n from events where source = 'http' and raw is not null")[0]["n"], 12);
    assert!(sql(at, "select count(*) as n from rejects")[0]["n"].as_i64().unwrap() >= 2);
    assert_eq!(sql(at, "select distinct event_id from detections where event_id = '10.0.0.1-0'").len(), 1);
    assert_eq!(alerts(at).iter().filter(|alert| alert["state"] == "open").count(), 2);
    let audit = run(&["audit", "verify", "--data", at], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
    let changes = sql(at, "select event from alerts where rule_id = 'rule-001' order by epoch");
    assert!(changes.iter().any(|row| row["event"] == "withdrawn"), "{changes:?}");
}

#[test]
fn wrong_requests_are_answered_as_http_says() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"), "rules/plan", &[]);
    let send = |kind: &str, body: &[u8]| post(engine.http, "/api/v1/events", kind, body).unwrap().0;
    assert_eq!(send("text/html", b"{}"), 415);
    assert_eq!(send(JSON, b""), 400);
    assert_eq!(send(JSON, b"{"), 400);
    assert_eq!(send(JSON, &vec![b' '; 20 << 20]), 413);
    assert_eq!(send(JSON, b"{\"event_type\":\"x\"}"), 202);
    assert_eq!(get(engine.http, "/api/v1/nothing").unwrap().0, 404);
    assert_eq!(get(engine.http, "/api/v1/events").unwrap().0, 405);
    engine.stop();
}

#[test]
fn syslog_by_tcp_survives_bad_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules", &[]);
    let mut stream = TcpStream::connect(engine.syslog).unwrap();
    for second in 0..6 {
        let line = format!(
            "<38>Nov 22 05:24:{second:02} target sshd[105]: Failed password for root from 10.9.9.9 port 40000 ssh2\n"
        );
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"<38>\xff\xfe\x00 garbage\n").unwrap();
    }
    let mut huge = TcpStream::connect(engine.syslog).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        if huge.write_all(&chunk).is_err() {
            break; // refused in mid-line is right, too
        }
    }
    drop((stream, huge));
    wait_until("password guessing is told", || {
        alerts(at).iter().any(|alert| alert["group"]["source_ip"] == "10.9.9.9" && alert["state"] == "open")
    });
    let (_, metrics) = get(engine.http, "/metrics").unwrap();
    engine.stop();
    let rejects = sql(at, "select code, count(*) as n from rejects group by code");
    assert!(rejects.iter().any(|row| row["code"] == "too_long"), "{rejects:?} {metrics}");
    assert!(rejects.iter().any(|row| row["code"] == "invalid_utf8" && row["n"] == 6), "{rejects:?}");
}
