//! A fact that concerns more alerts than one epoch scores anew, through kills and stops (RSK-06).

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};

use crate::support::{Engine, counterflow, get, lines, post, run, said, site, wait_until};

const RULE: &str = "\
title: Visit
id: 6f1d5d2e-0000-4000-8000-0000000000d1
logsource: {product: test}
detection: {a: {event_type: visit}, condition: a}
level: medium
";
const ALERTS: u32 = 400;

struct Site {
    _folder: tempfile::TempDir,
    data: std::path::PathBuf,
    rules: std::path::PathBuf,
    config: std::path::PathBuf,
}

impl Site {
    /// So many alerts may be scored anew with one epoch; of more a tenth of it.
    fn new(at_once: u32) -> Site {
        let settings = format!("scoring: {{rescored_at_once: {at_once}}}\n");
        let (_folder, data, rules, config) = site("visit.yml", RULE, &settings);
        Site { _folder, data, rules, config }
    }

    fn more(&self) -> [&str; 2] {
        ["--config", self.config.to_str().unwrap()]
    }

    fn start(&self) -> Engine {
        Engine::start(&self.data, self.rules.to_str().unwrap(), &self.more())
    }

    /// Has many alerts, and a network of all their addresses that no epoch has taken yet.
    fn with_network_said(&self) {
        let engine = self.start();
        send(&engine, 0..ALERTS);
        wait_until("all alerts are there", || scores(&self.data).len() == usize::try_from(ALERTS).unwrap());
        engine.stop();
        let at = self.data.to_str().unwrap();
        let network = ["facts", "add", "asset", "10.0.0.0/8", "criticality=5", "exposure=external", "--data", at];
        let added = run(&network, b"");
        assert_eq!(added.status.code(), Some(0), "{}", said(&added));
    }
}

fn send(engine: &Engine, numbers: std::ops::Range<u32>) {
    let event = |n: u32| {
        let address = format!("10.0.{}.{}", n / 200, n % 200);
        json!({
            "event_id": format!("e{n}"), "timestamp": format!("2026-01-05T12:{:02}:{:02}Z", n / 60 % 60, n % 60),
            "product": "test", "event_type": "visit", "source_ip": address,
        })
    };
    let body: String = numbers.map(|n| format!("{}\n", event(n))).collect();
    let (status, answer) = post(engine.http, "/api/v1/events", "application/x-ndjson", body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

/// Scores by group.
fn scores(data: &Path) -> BTreeMap<String, String> {
    let alerts = lines(&run(&["alerts", "--data", data.to_str().unwrap()], b""));
    let of = |alert: &Value| (alert["group"].to_string(), alert["score"].to_string());
    alerts.iter().filter(|alert| alert["title"] == "Visit").map(of).collect()
}

/// How many alerts wait, as the metrics say.
fn waiting(engine: &Engine) -> u64 {
    let (_, text) = get(engine.http, "/metrics").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("counterflow_alerts_rescoring "));
    line.and_then(|number| number.parse().ok()).unwrap()
}

#[test]
fn slices_of_new_scores_go_on_after_kills_and_stops_and_end_as_if_at_once() {
    let whole = Site::new(10_000);
    whole.with_network_said();
    let before = scores(&whole.data);
    let engine = whole.start();
    send(&engine, ALERTS..ALERTS + 40);
    wait_until("all have the new score", || {
        let now = scores(&whole.data);
        now.len() == before.len() + 40 && before.iter().all(|(address, score)| now[address] != *score)
    });
    engine.stop();
    let expect = scores(&whole.data);

    // Two with each epoch: two hundred epochs. It dies in the first of them, stops, and dies once more.
    let site = Site::new(20);
    site.with_network_said();
    let die_after = |epochs: u32| {
        let mut command = counterflow();
        command.env("COUNTERFLOW_KILL_AT", format!("epoch.applied:{epochs}"));
        let mut engine = Engine::begin(command, &site.data, site.rules.to_str().unwrap(), &site.more());
        wait_until("it dies", || engine.ended().is_some());
        assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    };
    die_after(10);
    let changed = || scores(&site.data).iter().filter(|(address, score)| before[*address] != **score).count();
    let some = changed();
    assert!((2..=30).contains(&some), "{some} of two with each of ten epochs");
    let engine = site.start();
    wait_until("it goes on", || changed() > some);
    engine.stop();
    // Unless it was done by then.
    if changed() + 20 < before.len() {
        die_after(5);
    }
    let engine = site.start();
    // What comes meanwhile does not wait for the rest.
    send(&engine, ALERTS..ALERTS + 40);
    wait_until("none waits", || scores(&site.data).len() == expect.len() && waiting(&engine) == 0);
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    assert_eq!(scores(&site.data), expect);
    engine.stop();
}
