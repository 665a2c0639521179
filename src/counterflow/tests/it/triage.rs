//! Models that answer while alerts come in: decisions, the queue, a change of model, damage, kills.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::served::sql;
use crate::support::{Engine, lines, post, request, run, said, wait_until};

pub(crate) const NDJSON: &str = "application/x-ndjson";

/// A data folder, a registry and settings that name it.
pub(crate) struct Site {
    _folder: tempfile::TempDir,
    pub(crate) data: PathBuf,
    pub(crate) models: PathBuf,
    settings: PathBuf,
}

impl Site {
    pub(crate) fn new(more: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let (data, models) = (folder.path().join("data"), folder.path().join("models"));
        let settings = folder.path().join("settings.yml");
        fs::write(&settings, format!("models:\n  dir: {}\n{more}", models.display())).unwrap();
        Site { _folder: folder, data, models, settings }
    }

    pub(crate) fn start(&self, workers: &str) -> Engine {
        Engine::start(&self.data, "rules/plan", &["--config", self.settings.to_str().unwrap(), "--workers", workers])
    }

    pub(crate) fn alerts(&self, more: &[&str]) -> Vec<Value> {
        lines(&run(&[&["alerts", "--data", self.data.to_str().unwrap()], more].concat(), b""))
    }

    fn models(&self, words: &[&str]) -> String {
        let place = ["--task", "triage", "--models", self.models.to_str().unwrap()];
        let output = run(&[&["models"], words, &place].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// A model that knows one thing: addresses from outside are attacks. Its version.
    pub(crate) fn train(&self, seed: u64, promote: &str) -> String {
        let input = self.data.with_file_name(format!("rows{seed}.csv"));
        let mut text = "outside address,count,entities,label\n".to_owned();
        for row in 0..400_u64 {
            let noise = (row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) ^ seed;
            let (outside, odd) = (row % 2, noise.is_multiple_of(29));
            let label = if (outside == 1) != odd { "attack" } else { "benign" };
            writeln!(text, "{outside},{},{},{label}", noise % 9, 1 + noise % 3).unwrap();
        }
        fs::write(&input, text).unwrap();
        let fixed = ["train", "--task", "triage", "--label", "label", "--members", "boost", "--budget", "0.2"];
        let fixed = [&fixed[..], &["--confidence", "0.9"]].concat();
        let place = ["--input", input.to_str().unwrap(), "--models", self.models.to_str().unwrap()];
        let output = run(&[&fixed[..], &place, &["--promote", promote]].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        lines(&output).remove(0)["version"].as_str().unwrap().to_owned()
    }
}

/// Failed logins from an address in a minute of the hour: six of them are an alert.
pub(crate) fn failures(from: &str, minute: u32) -> Vec<u8> {
    let line = |i: u32| {
        json!({
            "event_id": format!("{from}-{i}"), "timestamp": format!("2026-01-05T14:{minute:02}:{i:02}Z"), "source": "app",
            "event_type": "authentication_failed", "source_ip": from,
        })
    };
    (0..6).map(|i| format!("{}\n", line(i))).collect::<String>().into_bytes()
}

fn send(engine: &Engine, from: &str) {
    let (status, text) = post(engine.http, "/api/v1/events", NDJSON, &failures(from, 0)).unwrap();
    assert_eq!(status, 202, "{text}");
}

/// The alert about an address, once a model has judged it.
fn judged(site: &Site, from: &str) -> Option<Value> {
    site.alerts(&[]).into_iter().find(|row| row["group"]["source_ip"] == from && !row["triage"].is_null())
}

#[track_caller]
fn wait_judged(site: &Site, from: &str) -> Value {
    wait_until(&format!("{from} is judged"), || judged(site, from).is_some());
    judged(site, from).unwrap()
}

pub(crate) fn health(engine: &Engine) -> String {
    request(engine.http, "GET", "/api/v1/health", &[], b"").unwrap().1
}

/// What a model may not touch.
fn without_model(rows: &[Value]) -> Vec<String> {
    let keep = ["alert_id", "rule_id", "title", "level", "state", "group", "count", "score", "thread"];
    let mut texts: Vec<String> = rows.iter().map(|row| keep.map(|key| row[key].to_string()).join(" ")).collect();
    texts.sort();
    texts
}

/// ML: an alert gets an answer, the queue follows it, nothing is hidden, no score moves, a restart knows it all.
#[test]
fn alerts_are_judged_and_ranked_and_nothing_else_changes() {
    for workers in ["1", "4"] {
        let site = Site::new("");
        let engine = site.start(workers);
        send(&engine, "10.0.0.9");
        wait_until("the alert is there", || site.alerts(&[]).len() == 1);
        // Without a model it is told as ever.
        let before = site.alerts(&[]).remove(0);
        assert_eq!((&before["triage"], &before["state"]), (&Value::Null, &json!("open")));
        let version = site.train(1, "evidence");
        wait_until("the model is seen", || health(&engine).contains(&format!("model {version} answers")));
        // What was there before the model is asked about now.
        assert_eq!(wait_judged(&site, "10.0.0.9")["triage"]["model"], json!(version));
        send(&engine, "10.0.0.1");
        send(&engine, "203.0.113.5");
        let (inside, outside) = (wait_judged(&site, "10.0.0.1"), wait_judged(&site, "203.0.113.5"));
        assert_eq!((&outside["triage"]["verdict"], &inside["triage"]["verdict"]), (&json!(true), &json!(false)));
        assert_eq!(outside["triage"]["model"], json!(version));
        assert!(outside["priority"].as_u64() > inside["priority"].as_u64(), "{outside} {inside}");
        assert_eq!((&outside["revision"], &inside["revision"]), (&json!(1), &json!(1)), "nobody is told twice");
        let queue: Vec<Value> = site.alerts(&["--queue"]);
        assert_eq!(queue.len(), 3, "nothing is hidden");
        assert_eq!(queue[0]["alert_id"], outside["alert_id"]);
        assert_eq!(site.alerts(&[]).len(), 3);
        let path = format!("/api/v1/assessments/{}", outside["alert_id"].as_str().unwrap());
        let assessed: Value = serde_json::from_str(&request(engine.http, "GET", &path, &[], b"").unwrap().1).unwrap();
        assert_eq!(assessed["assessment"]["factors"][9]["factor"], "triage");
        assert_eq!(assessed["assessment"]["factors"][9]["weight_permille"], 1_000);
        let listed = request(engine.http, "GET", "/api/v1/alerts?queue=true", &[], b"").unwrap().1;
        assert!(listed.contains("\"probability\""), "{listed}");

        engine.stop();
        let engine = site.start(workers);
        let again = site.alerts(&[]);
        assert_eq!(judged(&site, "203.0.113.5").unwrap()["triage"], outside["triage"]);
        assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
        engine.stop();

        // The same events without any model: the same alerts.
        let plain = Site::new("  task:\n    triage: off\n");
        let engine = plain.start(workers);
        ["10.0.0.9", "10.0.0.1", "203.0.113.5"].iter().for_each(|from| send(&engine, from));
        wait_until("all are there", || plain.alerts(&[]).len() == 3);
        assert_eq!(without_model(&plain.alerts(&[])), without_model(&again));
        engine.stop();
    }
}

/// A promotion and a rollback are seen while running; a challenger in shadow shows nothing; a damaged one changes nothing.
#[test]
fn models_change_while_running_and_a_broken_one_changes_nothing() {
    let site = Site::new("");
    let first = site.train(1, "evidence");
    let engine = site.start("2");
    let answers = |version: &str| {
        let text = format!("model {version} answers");
        wait_until(&text, || health(&engine).contains(&text));
    };
    answers(&first);
    send(&engine, "203.0.113.1");
    assert_eq!(wait_judged(&site, "203.0.113.1")["triage"]["model"], json!(first));

    let second = site.train(2, "never");
    site.models(&["challenge", &second]);
    wait_until("the challenger is loaded", || engine.log().contains(&format!("\"challenger\":\"{second}\"")));
    send(&engine, "203.0.113.2");
    assert_eq!(wait_judged(&site, "203.0.113.2")["triage"]["model"], json!(first), "a shadow shows nothing");

    site.models(&["promote", &second, "--reason", "it is better"]);
    answers(&second);
    send(&engine, "203.0.113.3");
    assert_eq!(wait_judged(&site, "203.0.113.3")["triage"]["model"], json!(second));
    assert_eq!(judged(&site, "203.0.113.1").unwrap()["triage"]["model"], json!(first), "what was said stays said");

    site.models(&["rollback", "--reason", "it is not"]);
    answers(&first);

    // Somebody promotes a version whose file is damaged, past the checks of `models promote`.
    let third = site.train(3, "never");
    let folder = site.models.join("triage");
    fs::write(folder.join("versions").join(&third).join("model.bin"), b"CFMODEL\x01damaged").unwrap();
    let mut state: Value = serde_json::from_slice(&fs::read(folder.join("state.json")).unwrap()).unwrap();
    state["champion"] = json!(third);
    fs::write(folder.join("state.json"), state.to_string()).unwrap();
    wait_until("the damage is told", || health(&engine).contains("what was promoted since cannot be used"));
    send(&engine, "203.0.113.4");
    assert_eq!(wait_judged(&site, "203.0.113.4")["triage"]["model"], json!(first));
    assert_eq!(engine.log().matches("a model cannot be used").count(), 1, "{}", engine.log());
    engine.stop();

    // Also at a start.
    let engine = site.start("2");
    wait_until("the one of before answers", || health(&engine).contains(&format!("model {first} answers")));
    engine.stop();
}

/// SIGKILL at any moment between an alert, its decision and the epoch that takes it in: each open alert is judged once
/// the engine is up again, and the state is the ledger's.
#[test]
fn a_kill_between_alert_decision_and_epoch_loses_no_answer() {
    let site = Site::new("");
    site.train(1, "evidence");
    let mut sent = Vec::new();
    for round in 0..5_u64 {
        let engine = site.start(["1", "2", "4"][usize::try_from(round % 3).unwrap()]);
        for host in 0..8 {
            let from = format!("198.51.{round}.{host}");
            send(&engine, &from);
            sent.push(from);
        }
        std::thread::sleep(std::time::Duration::from_millis(40 * round));
        engine.kill();
    }
    let engine = site.start("1");
    for from in &sent {
        wait_judged(&site, from);
    }
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    engine.stop();
    let engine = site.start("4");
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    assert_eq!(site.alerts(&["--queue"]).len(), sent.len());
    engine.stop();
}

/// The whole loop: alerts are asked about before there is a model, people judge them, a training learns from what was
/// served, and the next alerts have its answers.
#[test]
fn verdicts_on_what_was_served_teach_the_next_model() {
    let site = Site::new("");
    let at = site.data.to_str().unwrap();
    let engine = site.start("2");
    // Every third is from outside, and an attack.
    let from = |i: u32| if i.is_multiple_of(3) { format!("203.0.113.{i}") } else { format!("10.0.0.{i}") };
    for i in 0..60 {
        let (status, text) = post(engine.http, "/api/v1/events", NDJSON, &failures(&from(i), i)).unwrap();
        assert_eq!(status, 202, "{text}");
    }
    let metrics = || request(engine.http, "GET", "/metrics", &[], b"").unwrap().1;
    wait_until("all are decided about", || metrics().contains("counterflow_triage_decisions_total 60"));
    let train = |more: &[&str]| {
        let fixed = ["train", "--task", "triage", "--data", at, "--models", site.models.to_str().unwrap()];
        run(&[&fixed[..], more].concat(), b"")
    };
    let in_history = |rows: usize| {
        wait_until("history has the verdicts", || sql(&site, &["--named", "training_set"]).len() == rows);
    };
    let alerts = site.alerts(&[]);
    let judge = |alert: &Value, verdict: &str, author: &str| {
        let body = json!({"value": alert["alert_id"], "verdict": verdict, "author": author}).to_string();
        let json = [("content-type", "application/json")];
        request(engine.http, "POST", "/api/v1/facts/verdict", &json, body.as_bytes()).unwrap().0
    };
    for (number, alert) in alerts.iter().enumerate() {
        if number == 40 {
            in_history(40);
            let output = train(&[]);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(said(&output).contains("there are 40 judged alerts"), "{}", said(&output));
        }
        let is_attack = alert["group"]["source_ip"].as_str().unwrap().starts_with("203.");
        assert_eq!(judge(alert, if is_attack { "true_positive" } else { "benign" }, "alice"), 201);
    }
    in_history(60);
    let output = train(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let trained = lines(&output).remove(0);
    assert_eq!((&trained["promoted"], &trained["rows"].as_u64().is_some()), (&json!(true), &true), "{trained}");
    let version = trained["version"].as_str().unwrap();
    // The same verdicts are the same version.
    let again = lines(&train(&["--promote", "never"])).remove(0);
    assert_eq!(again["version"], version);

    wait_until("the model is seen", || health(&engine).contains(&format!("model {version} answers")));
    let (status, _) = post(engine.http, "/api/v1/events", NDJSON, &failures("203.0.113.200", 59)).unwrap();
    assert_eq!(status, 202);
    let (status, _) = post(engine.http, "/api/v1/events", NDJSON, &failures("10.0.0.200", 59)).unwrap();
    assert_eq!(status, 202);
    let (outside, inside) = (wait_judged(&site, "203.0.113.200"), wait_judged(&site, "10.0.0.200"));
    assert!(outside["triage"]["probability"].as_f64() > inside["triage"]["probability"].as_f64(), "{outside} {inside}");
    assert_eq!(site.alerts(&["--queue"]).len(), 62, "nothing is hidden");
    engine.stop();
}

/// A champion that is wrong too often goes by itself; the control log says why.
#[test]
fn a_champion_that_is_wrong_too_often_is_taken_back() {
    let site = Site::new("  rollback: {precision_min_percent: 90, verdicts_min: 5}\n");
    let first = site.train(1, "evidence");
    let second = site.train(2, "always");
    let engine = site.start("1");
    wait_until("the second answers", || health(&engine).contains(&format!("model {second} answers")));
    for i in 0..12 {
        send(&engine, &format!("203.0.113.{i}"));
    }
    for i in 0..12 {
        let alert = wait_judged(&site, &format!("203.0.113.{i}"));
        assert_eq!(alert["triage"]["verdict"], json!(true));
        let body = json!({"value": alert["alert_id"], "verdict": "benign"}).to_string();
        let json = [("content-type", "application/json")];
        assert_eq!(request(engine.http, "POST", "/api/v1/facts/verdict", &json, body.as_bytes()).unwrap().0, 201);
    }
    wait_until("the first answers again", || health(&engine).contains(&format!("model {first} answers")));
    let state = fs::read_to_string(site.models.join("triage").join("state.json")).unwrap();
    assert!(state.contains("rolled back") && state.contains("were attacks, 90 % are asked for"), "{state}");
    engine.stop();
}

/// The words of a version that is not there, and of a task that nothing is served for.
#[test]
fn what_cannot_be_learned_is_said() {
    let site = Site::new("");
    let at = |words: &[&str]| {
        let output = run(&[words, &["--models", site.models.to_str().unwrap()]].concat(), b"");
        (output.status.code(), said(&output))
    };
    let data = Path::new(&site.data).display().to_string();
    site.start("1").stop();
    let (code, text) = at(&["train", "--task", "other", "--data", &data]);
    assert!(code != Some(0) && text.contains("--data is for tasks triage, urls and flows"), "{text}");
    let (code, text) = at(&["train", "--task", "flows", "--data", &data]);
    assert!(code != Some(0) && text.contains("there are 0 judged events that a model of flows"), "{text}");
    let (code, text) = at(&["train", "--task", "triage", "--data", &data]);
    assert!(code != Some(0) && text.contains("there are 0 judged alerts"), "{text}");
}
