//! Hunts end to end: events in, history, a hunt finds, an alert comes of it; once, whatever dies between, and again from
//! the past (DET-09).

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Engine, counterflow, lines, post, request, run, said, wait_until};

const NDJSON: &str = "application/x-ndjson";
const BEGIN: i64 = 1_767_621_600; // 2026-01-05T14:00:00Z

/// Addresses with at least three failures on a host, asked every second.
const MANY: &str = "title: Many failures\nid: many\nname: many_failures\nlevel: high\nstatus: test\n\
    tags: [attack.credential-access, attack.t1110]\nhunt:\n  query: |\n    SELECT max(time) AS time, host, address, count(*) AS failures\n\
    \x20   FROM events\n    WHERE time >= $from AND time < $to AND json_get(raw, 'event_type') = 'fail'\n\
    \x20   GROUP BY host, address HAVING count(*) >= 3\n  window: 1h\n  every: 1s\n  key: [host, address]\n";

/// Four failures from an address, `second` after the begin.
fn failures(address: &str, second: i64) -> String {
    let line = |i: i64| {
        json!({
            "event_id": format!("{address}-{second}-{i}"), "timestamp": cf_types::Time::from_seconds(BEGIN + second + i),
            "source": "app", "event_type": "fail", "source_ip": address, "host": "web01",
        })
    };
    (0..4).map(|i| format!("{}\n", line(i))).collect()
}

#[track_caller]
fn send(engine: &Engine, body: &str) {
    let (status, answer) = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

#[track_caller]
fn ask(engine: &Engine, path: &str) -> Value {
    let (status, text) = request(engine.http, "GET", path, &[], b"").unwrap();
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Runs the hunt by hand, as soon as it does not run by itself.
#[track_caller]
fn run_now(engine: &Engine) -> Value {
    let mut answer = Value::Null;
    wait_until("the hunt is free", || {
        let (status, text) = request(engine.http, "POST", "/api/v1/hunts/many/run", &[], b"").unwrap();
        assert!(status == 200 || (status == 409 && text.contains("\"running\"")), "{status}: {text}");
        answer = serde_json::from_str(&text).unwrap();
        status == 200
    });
    answer
}

/// Groups of the hunt's alerts that stand, sorted.
fn alerts(data: &Path) -> Vec<String> {
    let alerts = lines(&run(&["alerts", "--data", data.to_str().unwrap(), "--rule", "many"], b""));
    let stands = |alert: &&Value| ["open", "sealed"].contains(&alert["state"].as_str().unwrap());
    let group = |alert: &Value| alert["group"]["address"].as_str().unwrap_or_default().to_owned();
    let mut groups: Vec<String> = alerts.iter().filter(stands).map(group).collect();
    groups.sort();
    groups
}

/// What stands and is a function of what was found and the rules alone.
fn pure(data: &Path) -> Vec<String> {
    let alerts = lines(&run(&["alerts", "--data", data.to_str().unwrap()], b""));
    let pure = |alert: &Value| {
        let of = |key: &str| alert[key].to_string();
        ["alert_id", "rule_id", "state", "group", "count", "anchor", "last_cell", "score"].map(of).join(" ")
    };
    let mut all: Vec<String> = alerts.iter().map(pure).collect();
    all.sort();
    all
}

/// How many rows hunts put into the control log, as the ledger says.
fn recorded(data: &Path) -> usize {
    let shown = run(&["hunts", "show", "many", "--data", data.to_str().unwrap(), "--output", "json"], b"");
    lines(&shown)[0]["found"].as_array().unwrap().len()
}

#[test]
fn what_a_hunt_finds_becomes_an_alert_once_and_is_lived_again() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(rules.join("many.yml"), MANY).unwrap();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    send(&engine, &failures("10.0.0.1", 0));
    wait_until("the hunt's alert", || alerts(&data) == ["10.0.0.1"]);

    // Asked again and again, and by hand: nothing new.
    let ran = run_now(&engine);
    assert_eq!((&ran["rows"], &ran["new"], &ran["error"]), (&json!(1), &json!(0), &Value::Null), "{ran}");
    let incidents = lines(&run(&["incidents", "--data", data.to_str().unwrap()], b""));
    assert_eq!(incidents.len(), 1, "the alert is of an incident, as any other: {incidents:?}");

    // Events that come late, long before the window: the next look goes back for them.
    send(&engine, &failures("10.0.0.2", -8 * 3_600));
    wait_until("the late one's alert", || alerts(&data) == ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(recorded(&data), 2);

    // A person beside the running engine, and the list.
    let at = data.to_str().unwrap();
    let output = run(&["hunts", "run", "many", "--data", at, "--output", "json"], b"");
    assert!(said(&output).contains(" 0 new"), "{}", said(&output));
    let listed = ask(&engine, "/api/v1/hunts");
    let row = &listed["hunts"][0];
    assert_eq!((&row["id"], &row["level"], &row["error_code"]), (&json!("many"), &json!("high"), &Value::Null));
    assert_eq!((&row["every_s"], &row["window_s"]), (&json!(1), &json!(3_600)), "{row}");

    // SIGKILL between: after it each row is known, and what comes then is found.
    engine.kill();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    send(&engine, &failures("10.0.0.3", 60));
    wait_until("the third alert", || alerts(&data) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(recorded(&data), 3);
    assert_eq!(run_now(&engine)["new"], json!(0));
    engine.stop();
    assert!(run(&["audit", "verify", "--data", at], b"").status.success());

    // The past is not asked again, and comes to the same; also as one set.
    let again = folder.path().join("again");
    let lived = run(&["replay", "--data", at, "--mode", "lived", "--into", again.to_str().unwrap()], b"");
    assert!(lived.status.success(), "{}", said(&lived));
    assert_eq!(pure(&again), pure(&data));
    for workers in ["1", "2", "4"] {
        let known = run(&["replay", "--data", at, "--workers", workers], b"");
        let mut found: Vec<Value> = lines(&known).iter().map(|alert| alert["group"]["address"].clone()).collect();
        found.sort_by_key(ToString::to_string);
        assert_eq!(found, [json!("10.0.0.1"), json!("10.0.0.2"), json!("10.0.0.3")], "{workers} workers");
    }

    // On another machine there is no history to ask: the bundle has what was found.
    let number = lines(&run(&["incidents", "--data", at], b""))[0]["number"].to_string();
    let bundle = folder.path().join("bundle.zst");
    let bundle = bundle.to_str().unwrap();
    let written = run(&["incidents", "export", &number, "--data", at, "--out", bundle], b"");
    assert!(written.status.success(), "{}", said(&written));
    let replayed = run(&["replay", "--bundle", bundle], b"");
    assert!(replayed.status.success() && said(&replayed).contains("are as they were"), "{}", said(&replayed));

    // SEC-10: who is erased is gone from what hunts found, from the control log and from what is in history of it.
    let erased = run(&["history", "erase", "--entity", "address:10.0.0.3", "--yes", "--data", at], b"");
    assert!(erased.status.success(), "{}", said(&erased));
    assert_eq!(lines(&erased)[0]["control_log"], json!(1), "{}", said(&erased));
    assert_eq!(recorded(&data), 2);
    let shown = run(&["hunts", "show", "many", "--data", at, "--output", "json"], b"");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("10.0.0.2") && !shown.contains("10.0.0.3"), "{shown}");
    assert!(run(&["audit", "verify", "--data", at], b"").status.success());
    let known = lines(&run(&["replay", "--data", at], b""));
    assert_eq!(known.len(), 2, "{known:?}");
}

/// Dies before and after the one transaction that records what a hunt found: each row is there once.
#[test]
fn a_row_is_found_once_wherever_the_engine_dies() {
    for point in ["hunt.before_commit", "hunt.committed"] {
        let folder = tempfile::tempdir().unwrap();
        let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
        std::fs::create_dir_all(&rules).unwrap();
        // Only by hand, so that the second passage is the one that finds something.
        std::fs::write(rules.join("many.yml"), MANY.replace("every: 1s", "every: 300d")).unwrap();
        let mut command = counterflow();
        command.env("COUNTERFLOW_KILL_AT", format!("{point}:2"));
        let mut engine = Engine::begin(command, &data, rules.to_str().unwrap(), &[]);
        engine.wait_ready();
        wait_until("the first run", || {
            let (_, text) = request(engine.http, "GET", "/api/v1/hunts", &[], b"").unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["hunts"][0]["last_run"] != Value::Null
        });
        send(&engine, &failures("10.0.0.1", 0));
        let at = data.to_str().unwrap();
        let count = ["sql", "--data", at, "--output", "json", "select count(*) as n from events"];
        wait_until("history has the events", || lines(&run(&count, b""))[0]["n"] == json!(4));
        // Nobody answers: it dies in the middle.
        let _cut_off = request(engine.http, "POST", "/api/v1/hunts/many/run", &[], b"");
        wait_until("it is dead", || engine.ended().is_some());

        let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
        let ran = run_now(&engine);
        let new = u64::from(point == "hunt.before_commit");
        assert_eq!((&ran["rows"], &ran["new"]), (&json!(1), &json!(new)), "{point}: {ran}");
        wait_until("the alert", || alerts(&data) == ["10.0.0.1"]);
        assert_eq!(recorded(&data), 1, "{point}");
        engine.stop();
    }
}

#[test]
fn a_hunt_that_meets_a_limit_says_so_and_goes_on_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir_all(&rules).unwrap();
    let broad = "title: Many failures\nid: many\nlevel: low\nhunt:\n  query: SELECT e.time, e.host, e.address, s.value AS n \
                 FROM events e, generate_series(1, 20000) AS s WHERE e.time >= $from\n  every: 1s\n  key: [n]\n";
    std::fs::write(rules.join("many.yml"), broad).unwrap();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    send(&engine, &failures("10.0.0.1", 0));
    let state = || ask(&engine, "/api/v1/hunts/many");
    wait_until("the limit is met", || state()["error_code"] == json!("row_limit"));
    let row = state();
    assert!(row["error"].as_str().unwrap().contains("more than 10000 rows"), "{row}");
    assert_eq!(row["found"], json!([]));
    wait_until("it is counted", || state()["failures"].as_u64().unwrap() >= 2);
    let (_, health) = request(engine.http, "GET", "/api/v1/health", &[], b"").unwrap();
    assert!(health.contains("came to nothing: Many failures"), "{health}");
    let metrics = || request(engine.http, "GET", "/metrics", &[], b"").unwrap().1;
    let page = metrics();
    let failing = "counterflow_hunt_failing{rule_id=\"many\",code=\"row_limit\"} ";
    assert!(page.contains(failing) && page.contains("counterflow_hunt_seconds_total{rule_id=\"many\"} "), "{page}");
    let output = run(&["hunts", "run", "many", "--data", data.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("row_limit"), "{}", said(&output));

    // A broken text does not take its place; a mended one does, at once, and looks at all that was missed.
    std::fs::write(rules.join("many.yml"), MANY.replace("SELECT max", "SELEC max")).unwrap();
    let (_, report) = request(engine.http, "POST", "/api/v1/reload", &[], b"").unwrap();
    assert!(report.contains("hunt_query") || report.contains("cannot be asked"), "{report}");
    assert_eq!(state()["error_code"], json!("row_limit"));
    std::fs::write(rules.join("many.yml"), MANY.replace("every: 1s", "every: 300d")).unwrap();
    wait_until("the mended one has found it", || alerts(&data) == ["10.0.0.1"]);
    assert_eq!((&state()["error"], &state()["failures"]), (&Value::Null, &json!(0)));
    wait_until("the metrics say so, too", || !metrics().contains(failing));
    let page = metrics();
    assert!(page.contains("counterflow_hunt_runs_total{rule_id=\"many\",result=\"ok\"} "), "{page}");
    assert!(page.contains("counterflow_hunt_new_rows_total{rule_id=\"many\"} 1\n"), "{page}");
    engine.stop();
}

#[test]
fn a_bad_hunt_is_refused_with_code_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hunt.yml");
    let check = |query: &str, rest: &str| {
        let text = format!("title: T\nid: t\nhunt:\n  window: 1h\n  query: {query}\n{rest}");
        std::fs::write(&file, text).unwrap();
        let output = run(&["hunts", "check", file.to_str().unwrap(), "--output", "json"], b"");
        let told: Vec<String> = lines(&output)
            .iter()
            .map(|row| {
                assert_eq!(row["file"], json!(file.to_str().unwrap()));
                let of = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                format!("{} {}:{} {}", of("severity"), of("code"), row["line"], of("message"))
            })
            .collect();
        assert_eq!(
            output.status.code(),
            Some(i32::from(told.iter().any(|line| line.starts_with("error")))),
            "{told:?}"
        );
        told.join("\n")
    };
    let key = "  key: [host]\n";
    for (query, rest, expect) in [
        ("SELECT time, host FROM events", key, ""),
        ("SELECT time, id FROM events_distinct WHERE time < $to", "", ""),
        ("SELEC time FROM events", key, "error hunt_query:5 the query cannot be asked: Expected: an SQL statement"),
        ("DROP TABLE events", key, "error hunt_query:5 the query cannot be asked: DROP is not allowed"),
        (
            "SELECT time, host FROM evnts",
            key,
            "error hunt_query:5 the query cannot be asked: there is no table \"evnts\"",
        ),
        ("SELECT time, host FROM alerts_now", key, "warning hunt_query:5 the query cannot be asked: No field named"),
        ("SELECT host FROM events", key, "error hunt_query:5 the query gives no column `time`"),
        (
            "SELECT time, user FROM events",
            key,
            "error hunt_query:5 the query gives no column `host`, which `key` names",
        ),
        ("SELECT time, host FROM events", "", "error hunt_query:5 nothing says what makes a row the same row"),
        (
            "SELECT time, logontype FROM events",
            "  key: [time]\n",
            "warning hunt_query:5 the query cannot be asked: No field",
        ),
        ("''", key, "error hunt:5 the hunt has no `query`"),
        ("SELECT 1", "  every: soon\n", "error timespan:6 "),
        ("SELECT 1", "  evry: 5m\n", "error unknown_key:6 `hunt` has no \"evry\""),
    ] {
        let told = check(query, rest);
        assert!(told.starts_with(expect) && (told.is_empty() == expect.is_empty()), "{query}: {told}");
    }
}
