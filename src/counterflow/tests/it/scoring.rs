//! Models that are asked about events: URLs and flows, as detections of built-in rules.

use std::{collections::BTreeMap, fmt::Write, fs};

use serde_json::{Value, json};

use crate::{
    served::sql,
    support::{Engine, lines, post, request, run, said, wait_until},
    triage::{NDJSON, Site},
};

/// Trains a task on made-up rows and promotes it; its version.
fn train(site: &Site, task: &str, rows: &str, columns: &str, more: &[&str]) -> String {
    train_as("always", site, task, rows, columns, more)
}

fn train_as(promote: &str, site: &Site, task: &str, rows: &str, columns: &str, more: &[&str]) -> String {
    let (input, spec) = (site.data.with_file_name(format!("{task}.csv")), site.data.with_file_name("only.yml"));
    fs::write(&input, rows).unwrap();
    fs::write(&spec, format!("only: [{columns}]\n")).unwrap();
    let place = ["--input", input.to_str().unwrap(), "--models", site.models.to_str().unwrap()];
    let fixed = ["train", "--task", task, "--label", "label", "--members", "boost", "--confidence", "0.9"];
    let features = ["--features", spec.to_str().unwrap(), "--promote", promote];
    let output = run(&[&fixed[..], &place, &features, more].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output).remove(0)["version"].as_str().unwrap().to_owned()
}

fn bad_url(number: u32) -> String {
    format!("http://paypal.secure-login{number}.verify-account{}.example/webscr?cmd=_login&id={number}", number * 7)
}

fn good_url(number: u32) -> String {
    format!("https://www.shop{number}.example/catalogue")
}

fn urls() -> String {
    let row = |number: u32| format!("{},phishing\n{},legitimate\n", bad_url(number), good_url(number));
    (0..150).fold("url,label\n".to_owned(), |text, number| text + &row(number))
}

fn event(number: u32, url: &str) -> String {
    let (minute, second) = (number / 60, number % 60);
    let line = json!({
        "event_id": format!("e{number}"), "timestamp": format!("2026-01-05T14:{minute:02}:{second:02}Z"), "source": "app",
        "event_type": "http_request", "host": format!("web{number}"), "url": url,
    });
    format!("{line}\n")
}

fn send(engine: &Engine, body: &str) {
    let (status, text) = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{text}");
}

/// Count and version by rule.
fn raised(site: &Site) -> BTreeMap<String, (u64, String)> {
    let alerts = site.alerts(&[]).into_iter().filter(|alert| alert["rule_id"].as_str().unwrap().starts_with("model-"));
    let mut raised = BTreeMap::new();
    for alert in alerts {
        let version = alert["group"]["model_version"].as_str().unwrap().to_owned();
        let entry = raised.entry(alert["rule_id"].as_str().unwrap().to_owned()).or_insert((0, version));
        entry.0 += alert["count"].as_u64().unwrap();
    }
    raised
}

fn count(site: &Site, rule: &str) -> u64 {
    raised(site).get(rule).map_or(0, |(count, _)| *count)
}

/// ML: URLs that look bad become detections with the model's version; kills in between lose and double nothing, and a
/// start without any model gives the same.
#[test]
fn urls_are_scored_beside_the_graph_and_become_detections_once() {
    let site = Site::new("  task:\n    triage: off\n  urls: on\n");
    let version = train(&site, "urls", &urls(), "url", &[]);
    let mut sent = 0;
    for round in 0..4_u32 {
        let engine = site.start(["1", "4", "2", "1"][round as usize]);
        if round == 0 {
            wait_until("the model is there", || engine.log().contains("a model answers about events"));
        }
        for number in round * 20..(round + 1) * 20 {
            let url = if number % 4 == 0 { bad_url(1_000 + number) } else { good_url(1_000 + number) };
            sent += u64::from(number % 4 == 0);
            send(&engine, &event(number, &url));
        }
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round) * 60));
        engine.kill();
    }
    let engine = site.start("2");
    wait_until("all bad ones are detections", || count(&site, "model-urls") >= sent);
    wait_until("history has them", || {
        sql(&site, &["SELECT count(*) AS n FROM predictions WHERE verdict = 'true'"])[0]["n"] == json!(sent)
    });
    assert_eq!(raised(&site)["model-urls"], (sent, version.clone()));
    // What was served is there, once an event, as a training would read it.
    let rows = sql(
        &site,
        &["SELECT f.subject, f.recipe, f.features, p.version, p.model, p.role FROM features f
         JOIN predictions p ON f.subject = p.subject WHERE p.verdict = 'true' ORDER BY f.seq"],
    );
    let mut seen: Vec<String> = Vec::new();
    for row in &rows {
        assert_eq!(
            (&row["recipe"], &row["model"], &row["role"]),
            (&json!("url-1"), &json!("urls"), &json!("champion"))
        );
        assert_eq!(row["version"], json!(version));
        let cells: Value = serde_json::from_str(row["features"].as_str().unwrap()).unwrap();
        seen.push(cells["url"].as_str().unwrap().to_owned());
    }
    seen.sort();
    let mut expect: Vec<String> = (0..80).filter(|number| number % 4 == 0).map(|n| bad_url(1_000 + n)).collect();
    expect.sort();
    assert_eq!(seen, expect);
    let health = request(engine.http, "GET", "/api/v1/health", &[], b"").unwrap().1;
    assert!(health.contains("events scored, 0 left out"), "{health}");
    engine.kill();

    // Nobody is asked again: without a registry the same alerts stand.
    fs::remove_dir_all(&site.models).unwrap();
    let engine = site.start("4");
    assert_eq!(raised(&site)["model-urls"], (sent, version));
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    engine.stop();
}

fn flow(number: u32, bad: bool) -> String {
    let (minute, second) = (number / 60, number % 60);
    let (state, sent, answered) = if bad { ("S0", 0, 0) } else { ("SF", 200 + number, 5_000 + number) };
    let line = json!({
        "_path": "conn", "ts": format!("2026-01-05T15:{minute:02}:{second:02}.000000Z"), "uid": format!("C{number}"),
        "id.orig_h": "10.0.0.7", "id.orig_p": 40_000 + number, "id.resp_h": "192.0.2.1", "id.resp_p": 80, "proto": "tcp",
        "service": "http", "duration": 0.5, "orig_bytes": sent, "resp_bytes": answered, "conn_state": state,
    });
    format!("{line}\n")
}

/// Flows of Zeek are scored by a model of NSL-KDD's columns; one that was trained on more than flow records say is refused
/// by name; in shadow nothing comes of an answer.
#[test]
fn flows_are_scored_and_a_model_of_other_columns_is_refused() {
    let mut rows = "duration,protocol_type,service,flag,src_bytes,dst_bytes,count,label\n".to_owned();
    for number in 0..300_u32 {
        let (is_odd, size) = (number % 2 == 1, number / 2);
        // Some labels are wrong: one column that says all would be refused as a leak.
        let label = if is_odd == number.is_multiple_of(29) { "normal" } else { "neptune" };
        let cells = if is_odd { "S0,0,0".to_owned() } else { format!("SF,{},{}", 200 + size, 5_000 + size) };
        writeln!(rows, "0.{size},tcp,http,{cells},{size},{label}").unwrap();
    }
    for mode in ["on", "shadow"] {
        let site = Site::new(&format!("  task:\n    triage: off\n  flows: {mode}\n"));
        let budget = ["--budget", "0.2"];
        train(&site, "flows", &rows, "count, flag", &budget);
        let engine = site.start("2");
        wait_until("the wrong model is told", || engine.log().contains("it needs column \\\"count\\\""));
        let version =
            train(&site, "flows", &rows, "duration, protocol_type, service, flag, src_bytes, dst_bytes", &budget);
        wait_until("the model is there", || engine.log().contains("a model answers about events"));
        send(&engine, &(0..20).map(|number| flow(number, number % 5 == 0)).collect::<String>());
        wait_until("answers are in history", || {
            sql(&site, &["SELECT count(*) AS n FROM predictions WHERE verdict = 'true'"])[0]["n"] == json!(4)
        });
        if mode == "on" {
            wait_until("they are detections", || count(&site, "model-flows") == 4);
            assert_eq!(raised(&site)["model-flows"], (4, version));
        } else {
            assert_eq!(raised(&site), BTreeMap::new());
        }
        engine.stop();
    }
}

/// What the control log says of events that were called positive: time, whose host, what the model was given; by time.
fn recorded(site: &Site) -> Vec<(cf_types::Time, String, cf_types::scored::Cells)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let entries = runtime.block_on(async {
        let reader = cf_ledger::Reader::open(&site.data).await.unwrap();
        let (mut all, mut last) = (Vec::new(), 0);
        loop {
            let entries = reader.control_since(last).await.unwrap();
            let Some(end) = entries.last().map(|entry| entry.seq) else { return all };
            all.extend(entries);
            last = end;
        }
    });
    let of_events = entries.into_iter().filter(|entry| entry.kind == "event_score");
    let mut events = Vec::new();
    for entry in of_events {
        let scored: cf_types::scored::Scored = serde_json::from_str(&entry.body).unwrap();
        for event in scored.events.into_iter().filter(|event| event.is_positive()) {
            let host = event.entities.iter().find(|entity| entity.kind == cf_types::EntityKind::Host).unwrap();
            events.push((event.member.time, host.value.to_string(), event.cells));
        }
    }
    events.sort_by_key(|event| event.0);
    events
}

fn judge(engine: &Engine, alert: &Value, verdict: &str) {
    let body = json!({"value": alert["alert_id"], "verdict": verdict, "author": "alice"}).to_string();
    let json = [("content-type", "application/json")];
    assert_eq!(request(engine.http, "POST", "/api/v1/facts/verdict", &json, body.as_bytes()).unwrap().0, 201);
}

fn of_model(site: &Site, rule: &str) -> Vec<Value> {
    site.alerts(&[]).into_iter().filter(|alert| alert["rule_id"] == rule).collect()
}

/// ML-11: verdicts on alerts that came of a model's answers label what the model was given; a training learns from exactly
/// that, and is not promoted by itself while no ordinary events judge it.
#[test]
fn urls_are_trained_on_what_was_served_and_judged() {
    let site = Site::new("  task:\n    triage: off\n  urls: on\n");
    train(&site, "urls", &urls(), "url", &[]);
    let engine = site.start("2");
    wait_until("the model is there", || engine.log().contains("a model answers about events"));
    let (data, models) = (site.data.to_str().unwrap(), site.models.to_str().unwrap());
    let retrain = ["train", "--task", "urls", "--data", data, "--models", models, "--members", "boost"];
    for number in 0..60 {
        send(&engine, &event(2 * number, &bad_url(2_000 + number)));
        send(&engine, &event(2 * number + 1, &good_url(2_000 + number)));
    }
    wait_until("all bad ones are detections", || count(&site, "model-urls") == 60);
    let alerts = of_model(&site, "model-urls");
    assert_eq!(alerts.len(), 60, "a host, an alert");
    let few = run(&retrain, b"");
    assert!(said(&few).contains("there are 0 judged events that a model of urls called positive"), "{}", said(&few));
    let label = |host: &str| {
        let digits: String = host.chars().filter(char::is_ascii_digit).collect();
        if digits.parse::<u64>().unwrap() % 3 == 0 { "true_positive" } else { "false_positive" }
    };
    for alert in &alerts {
        let host = alert["group"]["host"].as_str().unwrap();
        // Said first otherwise: the last counts.
        judge(&engine, alert, "benign");
        judge(&engine, alert, label(host));
    }
    wait_until("history has all verdicts", || {
        let rows = sql(&site, &["--named", "training_events"]);
        rows.len() == 60 && rows.iter().all(|row| row["verdict"] != "benign")
    });

    let by_host: BTreeMap<&str, &str> =
        alerts.iter().map(|a| (a["group"]["host"].as_str().unwrap(), a["alert_id"].as_str().unwrap())).collect();
    let expect: Vec<cf_models::served::LabelledEvent> = recorded(&site)
        .into_iter()
        .map(|(_, host, cells)| cf_models::served::LabelledEvent {
            group: by_host[host.as_str()].to_owned(),
            label: label(&host).to_owned(),
            cells,
        })
        .collect();
    assert_eq!(expect.len(), 60);
    let output = run(&retrain, b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("it is not promoted by itself: 0 ordinary events judge"), "{}", said(&output));
    let trained = lines(&output).remove(0);
    assert_eq!(trained["promoted"], json!(false));
    let version = trained["version"].as_str().unwrap();
    let manifest = cf_models::registry::Registry::new(&site.models).manifest("urls", version).unwrap();
    let table = cf_models::served::event_training_table("urls", &expect);
    assert_eq!((manifest.data_rows, &manifest.data_sha256), (60, &table.sha256));
    // What it learns from is what it is served with: it can answer.
    cf_models::served::Serving::load(&cf_models::registry::Registry::new(&site.models), "urls", version).unwrap();
    engine.stop();
}

/// The champion of urls, by the registry.
fn champion(site: &Site) -> String {
    let state = cf_models::registry::Registry::new(&site.models).state("urls").unwrap();
    state.champion.unwrap()
}

/// ML-09, ML-05: a challenger of urls is recorded beside the champion; in a comparison each entity meets one of the two, verdicts
/// end it, and the one that won is taken back when it is wrong too often.
#[test]
fn models_of_urls_are_compared_and_taken_back() {
    let site = Site::new(
        "  task:\n    triage: off\n  urls: on\n  challenger: ab\n  rollback: {precision_min_percent: 90, verdicts_min: 15}\n",
    );
    let first = train(&site, "urls", &urls(), "url", &[]);
    let second = train_as("never", &site, "urls", &urls(), "url", &["--seed", "2"]);
    let place = ["--task", "urls", "--models", site.models.to_str().unwrap()];
    let output = run(&[&["models", "challenge", &second][..], &place].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let engine = site.start("2");
    wait_until("both are there", || engine.log().contains(&format!("\"challenger\":\"{second}\"")));

    for number in 0..60 {
        send(&engine, &event(number, &bad_url(3_000 + number)));
    }
    wait_until("all are detections", || count(&site, "model-urls") == 60);
    let alerts = of_model(&site, "model-urls");
    assert_eq!(alerts.len(), 60, "a host, an alert, of one of the two");
    // Each event has both answers, of which the one serves that raised the alert.
    wait_until("history has the answers", || {
        sql(&site, &["SELECT count(*) AS n FROM predictions WHERE verdict = 'true'"])[0]["n"] == json!(120)
    });
    let roles = sql(
        &site,
        &[
            "SELECT version, role, count(*) AS n, count(DISTINCT subject) AS events FROM predictions GROUP BY 1, 2 ORDER BY 2",
        ],
    );
    let of = |version: &str, role: &str| {
        let row = roles.iter().find(|row| row["version"] == version && row["role"] == role);
        row.map_or(0, |row| row["n"].as_u64().unwrap())
    };
    let (a, b) = (of(&first, "a"), of(&second, "b"));
    assert_eq!((a + b, of(&first, "shadow"), of(&second, "shadow")), (60, b, a), "{roles:?}");
    assert!(a > 15 && b > 15, "{roles:?}");
    let raised_by = |version: &str| alerts.iter().filter(|alert| alert["group"]["model_version"] == version).count();
    assert_eq!((raised_by(&first) as u64, raised_by(&second) as u64), (a, b));
    let features = sql(&site, &["SELECT count(*) AS n, count(DISTINCT subject) AS events FROM features"]).remove(0);
    assert_eq!(features["n"], features["events"], "features once, whoever answered");

    // What the challenger raised is right, what the champion raised is not.
    for alert in alerts.iter().take(40) {
        let is_challengers = alert["group"]["model_version"] == second.as_str();
        judge(&engine, alert, if is_challengers { "true_positive" } else { "false_positive" });
    }
    wait_until("the challenger has won", || champion(&site) == second);
    let state = cf_models::registry::Registry::new(&site.models).state("urls").unwrap();
    assert_eq!((state.challenger, &state.before), (None, &vec![first.clone()]));
    let why = &state.happened.last().unwrap().why;
    assert!(why.contains(&second) && why.contains("evidence"), "{why}");

    // Then people change their minds.
    for alert in alerts.iter().take(40) {
        judge(&engine, alert, "benign");
    }
    wait_until("the first is taken back", || champion(&site) == first);
    let state = fs::read_to_string(site.models.join("urls").join("state.json")).unwrap();
    assert!(state.contains("rolled back") && state.contains("were attacks, 90 % are asked for"), "{state}");
    engine.stop();
}
