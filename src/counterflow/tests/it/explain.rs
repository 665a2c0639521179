//! `explain`, incidents over a restart, reload: what the engine says of itself, and what it takes in while running.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Engine, get, lines, post, request, run, said, wait_until};

const NDJSON: &str = "application/x-ndjson";
const BEGIN: i64 = 1_767_621_600; // 2026-01-05T14:00:00Z

fn json_of(arguments: &[&str]) -> Value {
    let output = run(arguments, b"");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    lines(&output).into_iter().next().unwrap()
}

/// Replays the lab into a folder.
fn lab(data: &Path) -> Vec<Value> {
    let files = ["access.log", "auth.log", "cron.log"].map(|name| format!("tests/cases/lab/{name}"));
    let mut arguments = vec!["replay", "--rules", "rules", "--year", "2026", "--data", data.to_str().unwrap()];
    arguments.extend(files.iter().map(String::as_str));
    let output = run(&arguments, b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output)
}

#[test]
fn an_alert_leads_to_its_rule_and_all_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let alerts = lab(&data);
    let titled = |title: &str| alerts.iter().find(|alert| alert["title"] == title).unwrap();
    // A chained correlation: guessing is an episode of failed logins, then a login.
    let alert = titled("SSH Password Guessed");
    let id = alert["alert_id"].as_str().unwrap();
    let explained = json_of(&["explain", "alert", id, "--data", at, "--output", "json"]);
    assert_eq!(explained["rule"]["id"], alert["rule_id"]);
    assert_eq!(explained["rule"]["file"], "rules/ssh/ssh_guessed_password.yml");
    assert_eq!(explained["rule"]["text_hash"].as_str().unwrap().len(), 32);
    assert_eq!(explained["revisions"][0]["event"], "opened");
    assert_eq!(explained["below"].as_array().unwrap().len(), 1);
    let (guesses, logins) = (explained["below"][0]["count"].as_u64().unwrap(), 4);
    assert_eq!(explained["events_total"].as_u64(), Some(guesses + logins));
    // Each leads to a line, and the line is there.
    let first = &explained["first_events"][0];
    let text = std::fs::read_to_string(crate::support::root().join(first["origin"].as_str().unwrap())).unwrap();
    let line = usize::try_from(first["line"].as_u64().unwrap()).unwrap();
    assert!(text.lines().nth(line - 1).unwrap().contains("Failed password"), "{first}");
    assert_eq!(first["source"], "file");
    // The same events stand inline with the alert.
    let inline: Vec<&Value> = alert["events"].as_array().unwrap().iter().map(|event| &event["event_id"]).collect();
    let events = explained["first_events"].as_array().unwrap().iter().map(|event| &event["event_id"]);
    assert_eq!(inline, events.collect::<Vec<_>>());
    // For people; all events of a long one; none of none.
    let text = run(&["explain", "alert", id, "--data", at, "--output", "table"], b"");
    assert!(String::from_utf8_lossy(&text.stdout).contains("stands on"));
    let long = titled("Web Server Scanned")["alert_id"].as_str().unwrap();
    let some = json_of(&["explain", "alert", long, "--data", at, "--output", "json"]);
    let all = json_of(&["explain", "alert", long, "--data", at, "--all", "--output", "json"]);
    assert_eq!(some["first_events"].as_array().unwrap().len(), 20);
    assert_eq!(
        all["first_events"].as_array().unwrap().len(),
        usize::try_from(all["events_total"].as_u64().unwrap()).unwrap()
    );
    assert_eq!(run(&["explain", "alert", &"0".repeat(32), "--data", at], b"").status.code(), Some(1));
}

#[test]
fn what_was_lacking_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    lab(&data);
    let ask = |rule: &str, entity: &str| {
        let at = data.to_str().unwrap();
        let to = if rule == "SSH Password Guessing" { "2026-11-22T09:54:46Z" } else { "2026-11-23T00:00:00Z" };
        let span = ["--from", "2026-11-22T00:00:00Z", "--to", to];
        let mut arguments = vec!["explain", "missing", rule, entity, "--data", at, "--output", "json"];
        arguments.extend(span);
        let missing = json_of(&arguments);
        let codes: Vec<String> =
            missing["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect();
        (missing, codes.join(" "))
    };
    assert_eq!(ask("SSH Password Guessed", "address:10.77.0.66").1, "alert_exists condition_met");
    assert_eq!(ask("no such rule", "10.77.0.66").1, "rule_unknown");
    assert_eq!(ask("SSH Password Guessed", "10.9.9.9").1, "reference_absent reference_absent no_events");
    // Looked at early, there were too few failures.
    let (missing, codes) = ask("SSH Password Guessing", "10.77.0.66");
    assert!(codes.contains("condition_unmet"), "{codes}");
    assert!(missing["referenced"][0]["detections"].as_u64().unwrap() > 0, "{missing}");
    assert!(missing["best_window"]["items"].as_u64().unwrap() > 0, "{missing}");
}

/// Failed logins of an address, a second apart; the engine's rule wants five in five minutes.
fn failures(from: &str, begin: i64, count: i64) -> String {
    let line = |i| {
        json!({
            "event_id": format!("{from}-{begin}-{i}"), "timestamp": cf_types::Time::from_seconds(BEGIN + begin + i),
            "source": "app", "event_type": "authentication_failed", "source_ip": from,
        })
    };
    (0..count).map(|i| format!("{}\n", line(i))).collect()
}

/// Refused items, facts in force, a rule that is disabled: what keeps an alert away though the events are there.
#[test]
fn what_keeps_an_alert_away_is_said_while_the_engine_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config, rules) =
        (folder.path().join("data"), folder.path().join("settings.yml"), folder.path().join("rules"));
    let at = data.to_str().unwrap();
    std::fs::create_dir(&rules).unwrap();
    let plan = std::fs::read_dir(crate::support::root().join("rules/plan")).unwrap().map(|entry| entry.unwrap().path());
    for file in plan.filter(|path| path.extension().is_some_and(|end| end == "yml")) {
        std::fs::copy(&file, rules.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::write(&config, "detection: {horizon_s: 60, alerts_per_rule_hour_max: 2}\n").unwrap();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &["--config", config.to_str().unwrap()]);
    let findings_of = |rule: &str, entity: &str| -> Vec<(String, String)> {
        let span = ["--from", "2026-01-05T13:00:00Z", "--to", "2026-01-05T16:00:00Z", "--output", "json"];
        let arguments = [&["explain", "missing", rule, entity, "--data", at][..], &span].concat();
        let found = json_of(&arguments)["findings"].as_array().unwrap().clone();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        found.iter().map(|finding| (text(finding, "code"), text(finding, "text"))).collect()
    };
    let says_of = |rule: &str, entity: &str, code: &str| {
        findings_of(rule, entity).into_iter().find(|(found, _)| found == code).map(|(_, text)| text)
    };
    let says = |entity: &str, code: &str| {
        findings_of("rule-001", entity).into_iter().find(|(found, _)| found == code).map(|(_, t)| t)
    };

    // Four addresses guess; the rule may have two alerts an hour.
    for last in 1..=4 {
        send(&engine, &failures(&format!("10.0.0.{last}"), 3_600 + last, 6));
    }
    let alerts = || lines(&run(&["alerts", "--data", at], b""));
    wait_until("the others are counted", || {
        alerts().iter().any(|alert| alert["group"]["over_budget"] == "alerts an hour" && alert["count"] == 2)
    });
    let (_, metrics) = get(engine.http, "/metrics").unwrap();
    assert!(metrics.contains("counterflow_rule_alerts_over_budget{rule_id=\"rule-001\"} 2"), "{metrics}");
    let (_, health) = get(engine.http, "/api/v1/health").unwrap();
    assert!(health.contains("2 alerts beyond their rules' budget of an hour (first rule-001)"), "{health}");

    // An hour late, with a horizon of a minute: refused for the rule.
    send(&engine, &failures("10.0.0.7", 0, 6));
    wait_until("what came too late is said", || says("10.0.0.7", "items_refused").is_some());
    assert!(says("10.0.0.7", "items_refused").unwrap().starts_with("6 events were refused"));
    assert_eq!(says("10.0.0.1", "items_refused").map(|text| text.contains("6 events")), None, "not of others");
    // A fact that forbids it is named with who said it, and the alert that went for it.
    assert!(says("10.0.0.1", "fact_in_force").is_none());
    assert_eq!(run(&["facts", "add", "allow", "10.0.0.1", "--data", at], b"").status.code(), Some(0));
    wait_until("the alert is gone", || says("10.0.0.1", "alert_gone").is_some());
    assert!(says("10.0.0.1", "fact_in_force").unwrap().contains("which is allowed: its alerts are withdrawn"));
    // An indicator that would have been needed, and one that does not hold then.
    assert_eq!(says_of("indicator", "10.0.0.1", "fact_lacking").unwrap(), "10.0.0.1: no indicator names it");
    let fact = ["facts", "add", "indicator", "10.0.0.0/24", "until=2026-01-01T00:00:00Z", "--data", at];
    assert_eq!(run(&fact, b"").status.code(), Some(0));
    assert!(says_of("indicator", "10.0.0.1", "fact_lacking").unwrap().ends_with("do not hold in this time"));
    assert_eq!(run(&["facts", "add", "indicator", "10.0.0.1", "source=b", "--data", at], b"").status.code(), Some(0));
    assert!(says_of("indicator", "address:10.0.0.1", "fact_in_force").unwrap().contains("hold in this time"));
    // A disabled rule finds nothing new.
    assert!(says("10.0.0.2", "rule_disabled").is_none());
    std::fs::write(rules.join("off.yml"), "disable: [rule-001]\n").unwrap();
    wait_until("the rule is disabled", || says("10.0.0.2", "rule_disabled").is_some());
    engine.stop();
}

fn send(engine: &Engine, body: &str) {
    let (status, answer) = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

fn incidents(data: &str) -> Vec<Value> {
    lines(&run(&["incidents", "--data", data], b""))
}

#[test]
fn sealed_alerts_count_on_in_incidents_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("settings.yml"));
    let at = data.to_str().unwrap();
    std::fs::write(&config, "detection: {horizon_s: 60}\n").unwrap();
    let more = ["--config", config.to_str().unwrap()];
    let engine = Engine::start(&data, "rules/plan", &more);
    send(&engine, &failures("10.0.0.1", 0, 6));
    send(&engine, &failures("10.0.0.9", 3_600, 1));
    let sealed = || lines(&run(&["alerts", "--state", "sealed", "--data", at], b"")).len();
    wait_until("the alert is sealed", || sealed() == 1);
    let first = incidents(at).remove(0);
    assert_eq!((&first["number"], &first["state"], &first["type"]), (&json!(1), &json!("open"), &json!("other")));
    engine.stop();

    // Another alert of the same address, within a day: it joins the incident of before.
    let engine = Engine::start(&data, "rules/plan", &more);
    send(&engine, &failures("10.0.0.1", 7_200, 6));
    wait_until("the incident grows", || incidents(at).iter().any(|one| one["number"] == 1 && one["alerts"] == 2));
    assert_eq!(incidents(at).len(), 1);
    let alerts = lines(&run(&["alerts", "--data", at], b""));
    assert!(alerts.iter().all(|alert| alert["incident"] == 1), "{alerts:?}");
    engine.stop();

    // Days later nothing can join it any more: it closes as a whole.
    let engine = Engine::start(&data, "rules/plan", &more);
    send(&engine, &failures("10.0.0.9", 4 * 86_400, 1));
    wait_until("its alerts are sealed", || sealed() == 2);
    // What an epoch brings is met with the limit of the one before.
    send(&engine, &failures("10.0.0.9", 4 * 86_400 + 100, 1));
    wait_until("the incident closes", || incidents(at).first().is_some_and(|one| one["state"] == "closed"));
    let story = json_of(&["incidents", "1", "--data", at]);
    assert_eq!(story["alert_list"].as_array().unwrap().len(), 2);
    engine.stop();
}

#[test]
fn settings_and_rules_are_read_anew_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (data, config, rules) =
        (folder.path().join("data"), folder.path().join("settings.yml"), folder.path().join("rules"));
    let at = data.to_str().unwrap();
    std::fs::create_dir(&rules).unwrap();
    let rule = std::fs::read_dir(crate::support::root().join("rules/plan")).unwrap().map(|entry| entry.unwrap().path());
    for file in rule.filter(|path| path.extension().is_some_and(|end| end == "yml")) {
        std::fs::copy(&file, rules.join(file.file_name().unwrap())).unwrap();
    }
    let settings = |text: &str| std::fs::write(&config, format!("detection: {{rule_watch_s: 0, {text}")).unwrap();
    settings("idle_after_s: 30}\n");
    let engine = Engine::start(&data, rules.to_str().unwrap(), &["--config", config.to_str().unwrap()]);
    let reload = || {
        let (status, body) = request(engine.http, "POST", "/api/v1/reload", &[], b"").unwrap();
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, report) = reload();
    assert_eq!((status, &report["changed"], &report["needs_restart"]), (200, &json!([]), &json!([])), "{report}");

    // A policy is a fact from now on; what cannot change while running is named.
    settings("idle_after_s: 7, workers: 2}\npolicies: [{name: block, level_min: low, ttl_s: 60}]\n");
    let (status, report) = reload();
    assert_eq!(status, 200);
    assert_eq!(report["changed"], json!(["detection.idle_after_s", "policies"]), "{report}");
    assert_eq!(report["needs_restart"], json!(["detection.workers"]));
    let facts = lines(&run(&["facts", "list", "--data", at], b""));
    assert!(facts.iter().any(|fact| fact["kind"] == "policy"), "{facts:?}");

    // Settings that are not right change nothing, also not the rules beside them.
    let one = std::fs::read_dir(&rules).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read_to_string(&one).unwrap();
    std::fs::write(&one, "title: [\n").unwrap();
    settings("idle_after_s: soon}\npolicies: []\n");
    let (status, refused) = reload();
    assert_eq!((status, &refused["error"]["code"]), (422, &json!("invalid_settings")), "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("nothing was changed") && message.contains("idle_after_s"), "{message}");
    assert_eq!(lines(&run(&["facts", "list", "--data", at], b"")), facts);

    // A rule file that is broken keeps its old text, and is named.
    settings("idle_after_s: 7}\npolicies: [{name: block, level_min: low, ttl_s: 60}]\n");
    let (status, report) = reload();
    assert_eq!((status, report["rules"]["held"].as_array().unwrap().len()), (200, 1), "{report}");
    send(&engine, &failures("10.0.0.1", 0, 6));
    wait_until("the old rule holds", || !lines(&run(&["alerts", "--data", at], b"")).is_empty());

    // By signal, too; nothing is lost, and the alert explains itself over HTTP.
    std::fs::write(&one, good).unwrap();
    let done = std::process::Command::new("kill").args(["-HUP", &engine.pid().to_string()]).status().unwrap();
    assert!(done.success());
    wait_until("the file is mended", || {
        get(engine.http, "/api/v1/health").is_ok_and(|(_, body)| !body.contains("files are broken"))
    });
    let alert = lines(&run(&["alerts", "--data", at], b"")).remove(0);
    let path = format!("/api/v1/alerts/{}/explain", alert["alert_id"].as_str().unwrap());
    wait_until("history has the events", || {
        let (status, body) = request(engine.http, "GET", &path, &[], b"").unwrap();
        assert_eq!(status, 200, "{body}");
        let explained: Value = serde_json::from_str(&body).unwrap();
        explained["events_total"] == 6 && explained["facts"][0]["effect"] == "wants block_address 10.0.0.1"
    });
    let none = format!("/api/v1/alerts/{}/explain", "0".repeat(32));
    assert_eq!(request(engine.http, "GET", &none, &[], b"").unwrap().0, 404);
    engine.stop();
}
