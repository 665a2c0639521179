//! Exit codes, error texts, settings: what a user meets before any event.

use expect_test::{Expect, expect};

use crate::support::{lines, root, run, said};

#[track_caller]
fn check(arguments: &[&str], code: i32, says: &str) {
    let output = run(arguments, b"");
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    assert!(said(&output).contains(says), "{arguments:?} should say {says:?}, says {:?}", said(&output));
}

#[test]
fn wrong_use_is_2_and_says_why() {
    check(&["detect"], 2, "--rules");
    check(&["detect", "--rules", "/nowhere", "-"], 2, "/nowhere");
    check(&["replay", "--rules", "rules", "--workers", "0", "-"], 2, "workers");
    check(&["replay", "--rules", "rules", "--horizon", "soon", "-"], 2, "90s, 15m, 24h or 7d");
    check(&["run", "--rules", "rules"], 2, "data");
    check(&["run", "--data", "/proc/nope", "--rules", "rules", "--listen", "127.0.0.1:0"], 2, "/proc/nope");
    check(&["run", "--data", "d", "--rules", "rules", "--listen", "0.0.0.0:80"], 2, "no tokens yet");
    check(&["facts", "list", "--data", "/nowhere"], 2, "/nowhere");
    check(&["sql", "--data", "/nowhere", "select 1"], 2, "/nowhere");
    check(&["incidents", "--data", "/nowhere"], 2, "/nowhere");
    check(&["--config", "/nowhere.yaml", "config", "check"], 2, "/nowhere.yaml");
}

#[test]
fn an_unreadable_file_is_said_and_the_others_are_read() {
    let line = br#"{"product":"linux","service":"sshd","timestamp":"2026-01-05T14:00:00Z","message":"x"}"#;
    let output = run(&["detect", "--rules", "rules", "/nowhere.log", "-"], line);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("/nowhere.log") && said(&output).contains("1 events"), "{}", said(&output));
}

#[test]
fn a_bad_rule_does_not_take_the_good_ones_down() {
    let folder = tempfile::tempdir().unwrap();
    let good = "title: Good\nid: 6f1d5d2e-0000-4000-8000-000000000001\nlogsource: {product: test}\n\
                detection: {a: {x: '1'}, condition: a}\n";
    std::fs::write(folder.path().join("good.yml"), good).unwrap();
    std::fs::write(folder.path().join("bad.yml"), good.replace("x:", "x|contain:").replace("0001", "0002")).unwrap();
    let rules = folder.path().to_str().unwrap();
    let event = br#"{"product":"test","timestamp":"2026-01-05T14:00:00Z","x":1}"#;

    let output = run(&["detect", "--rules", rules, "-"], event);
    assert_eq!((output.status.code(), lines(&output).len()), (Some(0), 1), "{}", said(&output));
    assert!(said(&output).contains("contain") && said(&output).contains("contains"), "{}", said(&output));

    assert_eq!(run(&["detect", "--strict", "--rules", rules, "-"], event).status.code(), Some(1));
    let output = run(&["rules", "check", rules], b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines(&output)[0]["line"], 4);
    assert_eq!(run(&["rules", "check", "rules"], b"").status.code(), Some(0));
}

#[track_caller]
fn check_settings(text: &str, code: i32, expect: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    std::fs::write(&file, text).unwrap();
    let output = run(&["--config", file.to_str().unwrap(), "config", "check"], b"");
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    expect.assert_eq(&said(&output).replace(file.to_str().unwrap(), "FILE"));
}

#[test]
fn settings_errors_name_line_and_suggestion() {
    check_settings(
        "detection:\n  horizon: 3\n",
        2,
        expect![[r#"
            error: settings FILE are not valid:
              line 2: unknown key "horizon" in detection; did you mean "horizon_s"?
        "#]],
    );
    check_settings(
        "listen:\n  http: 127.0.0.1:8080\n",
        0,
        expect![[r#"
        the settings are right
    "#]],
    );
}

/// `../shared/formats.md`, 8.1: the plan's file loads unmodified, with one warning for each key without meaning here.
#[test]
fn the_plans_settings_load_with_one_warning_each() {
    let text = "app:\n  name: incident-response-agent\n  version: 1.0.0\n  environment: production\n\n\
        database:\n  host: localhost\n  port: 5432\n  name: incident_db\n  pool_size: 20\n\n\
        redis:\n  host: localhost\n  port: 6379\n  db: 0\n\n\
        detection:\n  rule_scan_interval: 60\n  max_concurrent_scans: 10\n  correlation_window: 300\n\n\
        orchestration:\n  max_concurrent_playbooks: 5\n  playbook_timeout: 3600\n  retry_attempts: 3\n\n\
        integrations:\n  claude:\n    api_key: ${CLAUDE_API_KEY}\n    model: claude-sonnet-4-5\n  \
        slack:\n    webhook_url: ${SLACK_WEBHOOK}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    std::fs::write(&file, text).unwrap();
    let output = crate::support::counterflow()
        .args(["--config", file.to_str().unwrap(), "config", "print"])
        .env("CLAUDE_API_KEY", "k")
        .env("SLACK_WEBHOOK", "http://127.0.0.1/s3cret")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output).matches("warning: ").count(), 14, "{}", said(&output));
    let shown = lines(&output);
    let origin = |name: &str| shown.iter().find(|row| row["setting"] == name).unwrap()["origin"].clone();
    assert_eq!((origin("app.name"), origin("spool.bytes_max")), ("file, line 2".into(), "default".into()));
    assert!(!said(&output).contains("s3cret"));
}

#[test]
fn the_template_loads() {
    let output = run(&["config", "template"], b"");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.yaml");
    std::fs::write(&file, &output.stdout).unwrap();
    assert_eq!(run(&["--config", file.to_str().unwrap(), "config", "check"], b"").status.code(), Some(0));
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell], b"").stdout.len() > 1_000);
    }
}

/// `../shared/formats.md`, 5.2: fires at the fifth failure within five minutes from one address (DET-06).
#[test]
fn the_plans_rule_fires_at_the_fifth_failure() {
    let folder = root().join("rules/plan");
    let events = |count: u32| -> Vec<u8> {
        let line = |i| {
            format!(
                "{{\"event_id\":\"e{i}\",\"timestamp\":\"2026-01-05T14:00:{:02}Z\",\"source\":\"app\",\
                 \"event_type\":\"authentication_failed\",\"source_ip\":\"10.0.0.9\"}}\n",
                i * 10
            )
        };
        (0..count).map(line).collect::<String>().into_bytes()
    };
    let alerts = |count| lines(&run(&["replay", "--rules", folder.to_str().unwrap(), "-"], &events(count)));
    assert!(alerts(4).is_empty());
    let found = alerts(5);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["rule_id"], &found[0]["count"]), (&"rule-001".into(), &5.into()));
    assert_eq!(found[0]["group"], serde_json::json!({"source_ip": "10.0.0.9"}));
}
