//! What was served is what is trained on: decisions in history, and the training set that is made of them.

use std::collections::{BTreeMap, BTreeSet};

use cf_ledger::Reader;
use cf_models::{registry::Registry, served};
use cf_types::{AlertId, Decision, FactBody};
use serde_json::{Value, json};

use crate::{
    support::{Engine, lines, post, request, run, said, wait_until},
    triage::{NDJSON, Site, failures, health},
};

/// Every third is from outside, and an attack.
fn from(number: u32) -> String {
    if number.is_multiple_of(3) { format!("203.0.113.{number}") } else { format!("10.0.0.{number}") }
}

fn send(engine: &Engine, numbers: std::ops::Range<u32>) {
    let body: Vec<u8> = numbers.flat_map(|number| failures(&from(number), number)).collect();
    let (status, text) = post(engine.http, "/api/v1/events", NDJSON, &body).unwrap();
    assert_eq!(status, 202, "{text}");
}

pub(crate) fn sql(site: &Site, statement: &[&str]) -> Vec<Value> {
    lines(&run(&[&["sql", "--data", site.data.to_str().unwrap()], statement, &["--format", "json"]].concat(), b""))
}

/// The control log, read as it lies: decisions with their positions, and what was judged.
fn recorded(site: &Site) -> (Vec<(i64, Decision)>, BTreeMap<AlertId, (i64, String)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let reader = Reader::open(&site.data).await.unwrap();
        let (mut decisions, mut labels) = (Vec::new(), BTreeMap::new());
        let mut last = 0;
        loop {
            let entries = reader.control_since(last).await.unwrap();
            let Some(end) = entries.last().map(|entry| entry.seq) else { return (decisions, labels) };
            for entry in entries {
                decisions.extend(entry.decision().unwrap().map(|decision| (entry.seq, decision)));
                if let Some((fact, 1)) = entry.fact().unwrap()
                    && let FactBody::Verdict(verdict) = fact.body
                {
                    labels.insert(verdict.alert, (entry.seq, verdict.judgement.as_str().to_owned()));
                }
            }
            last = end;
        }
    })
}

fn judge_all(site: &Site, engine: &Engine) {
    for alert in site.alerts(&[]) {
        let is_attack = alert["group"]["source_ip"].as_str().unwrap().starts_with("203.");
        let verdict = if is_attack { "true_positive" } else { "benign" };
        let body = json!({"value": alert["alert_id"], "verdict": verdict, "author": "alice"}).to_string();
        let json = [("content-type", "application/json")];
        assert_eq!(request(engine.http, "POST", "/api/v1/facts/verdict", &json, body.as_bytes()).unwrap().0, 201);
    }
}

fn decided(site: &Site) -> usize {
    recorded(site).0.iter().map(|(_, decision)| decision.alert).collect::<BTreeSet<_>>().len()
}

/// ML: after kills, each decision is in history once, as it was recorded, and a training learns from exactly that.
#[test]
fn what_was_served_is_what_is_trained_on_also_after_kills() {
    let site = Site::new("");
    let engine = site.start("1");
    send(&engine, 0..20);
    engine.kill();
    site.train(1, "always");
    let engine = site.start("4");
    wait_until("a model answers", || health(&engine).contains(" answers"));
    send(&engine, 20..40);
    wait_until("some are decided about", || decided(&site) >= 30);
    engine.kill();
    let engine = site.start("2");
    send(&engine, 40..60);
    wait_until("all are decided about", || decided(&site) == 60);
    judge_all(&site, &engine);
    wait_until("history has all verdicts", || sql(&site, &["--named", "training_set"]).len() == 60);

    // Features and answers stand in history exactly as the control log has them.
    let (decisions, labels) = recorded(&site);
    let names = cf_models::features::alert::feature_names();
    let features = sql(&site, &["SELECT seq, subject, recipe, features FROM features ORDER BY seq"]);
    assert_eq!(features.len(), decisions.len());
    for (row, (seq, decision)) in features.iter().zip(&decisions) {
        assert_eq!((&row["seq"], &row["subject"]), (&json!(seq), &json!(decision.alert.to_string())));
        let named: BTreeMap<String, i64> = serde_json::from_str(row["features"].as_str().unwrap()).unwrap();
        let served = names.iter().zip(&decision.features).filter_map(|(name, number)| Some((name.clone(), (*number)?)));
        assert_eq!((named, &row["recipe"]), (served.collect(), &json!("alert-1")));
    }
    let answers = sql(&site, &["SELECT seq, version, role, score, verdict, detail FROM predictions ORDER BY seq"]);
    let expect: Vec<Value> = decisions
        .iter()
        .flat_map(|(seq, decision)| decision.answers.iter().map(move |answer| (seq, answer)))
        .map(|(seq, answer)| {
            assert!(!answer.reasons.is_empty());
            let score = f64::from(answer.probability_ppm) / 1e6;
            let detail = json!({"set": answer.set, "reasons": answer.reasons}).to_string();
            json!({
                "seq": seq, "version": &*answer.model, "role": answer.role.as_str(), "score": score,
                "verdict": answer.verdict.as_str(), "detail": detail,
            })
        })
        .collect();
    assert!(expect.len() >= 40, "{}", expect.len());
    assert_eq!(answers, expect);

    // What a training learned from, made here from the control log without SQL: the same cells, hence the same hash.
    let mut last: BTreeMap<AlertId, Decision> = BTreeMap::new();
    for (seq, decision) in decisions {
        if seq < labels[&decision.alert].0 {
            last.insert(decision.alert, decision);
        }
    }
    let mut rows: Vec<served::Labelled> = last
        .into_values()
        .map(|decision| served::Labelled {
            alert: decision.alert.to_string(),
            cell: decision.cell,
            group: format!("{:016x}", decision.signature),
            label: labels[&decision.alert].1.clone(),
            features: decision.features,
        })
        .collect();
    rows.sort_by(|a, b| (a.cell, &a.alert).cmp(&(b.cell, &b.alert)));
    let (data, models) = (site.data.to_str().unwrap(), site.models.to_str().unwrap());
    let output = run(&["train", "--task", "triage", "--data", data, "--models", models, "--promote", "never"], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let version = lines(&output).remove(0)["version"].as_str().unwrap().to_owned();
    let manifest = Registry::new(&site.models).manifest("triage", &version).unwrap();
    assert_eq!((manifest.data_rows, &manifest.data_sha256), (60, &served::training_table(&rows).sha256));
    engine.stop();
}

/// The same events in one epoch, in another order and on more workers, are served the same features.
#[test]
fn features_do_not_depend_on_workers_or_order() {
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for (workers, step) in [("1", 1), ("4", 1), ("4", 7), ("1", 119)] {
        // An epoch may close between the records of one request: then it is sent to another folder.
        let rows = (0..10).find_map(|_| {
            let site = Site::new("");
            let engine = site.start(workers);
            let records: Vec<Vec<u8>> = (0..30)
                .flat_map(|number| {
                    let text = String::from_utf8(failures(&from(number), number % 7)).unwrap();
                    text.lines().map(|line| format!("{line}\n").into_bytes()).collect::<Vec<_>>()
                })
                .collect();
            let count = records.len();
            let body: Vec<u8> = (0..count).flat_map(|at| records[at * step % count].clone()).collect();
            assert_eq!(post(engine.http, "/api/v1/events", NDJSON, &body).unwrap().0, 202);
            wait_until("all are decided about", || decided(&site) == 30);
            engine.stop();
            // What was decided last is taken into an epoch by the next start at the latest.
            let engine = site.start(workers);
            let count = "SELECT count(*) AS n FROM features";
            wait_until("history has them", || sql(&site, &[count])[0]["n"].as_u64() >= Some(30));
            engine.stop();
            let epochs = sql(&site, &["SELECT count(DISTINCT epoch) AS n FROM events"])[0]["n"].as_u64();
            let rows =
                sql(&site, &["SELECT subject, time, recipe, signature, features FROM features ORDER BY subject"]);
            (epochs == Some(1)).then_some(rows)
        });
        seen.push(rows.expect("one of ten requests is one epoch"));
    }
    assert_eq!(seen[0].len(), 30);
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
}

/// Alerts from before there was a model get their answer when one arrives, the oldest first, each once.
#[test]
fn alerts_from_before_a_model_are_answered_when_it_arrives() {
    let site = Site::new("");
    let engine = site.start("2");
    for part in 0..3 {
        send(&engine, part * 10..(part + 1) * 10);
        wait_until("they are decided about", || decided(&site) == 10 * (part as usize + 1));
    }
    // Ten at a time were raised, and nobody answered.
    let raised: BTreeMap<AlertId, usize> =
        recorded(&site).0.iter().enumerate().map(|(at, (_, decision))| (decision.alert, at / 10)).collect();
    assert!(recorded(&site).0.iter().all(|(_, decision)| decision.answers.is_empty()));
    let version = site.train(1, "evidence");
    let judged = || site.alerts(&[]).iter().filter(|alert| alert["triage"]["model"] == json!(version)).count();
    wait_until("all are judged", || judged() == 30);
    let answered = |site: &Site| -> Vec<AlertId> {
        let with = |(_, decision): (i64, Decision)| (!decision.answers.is_empty()).then_some(decision.alert);
        recorded(site).0.into_iter().filter_map(with).collect()
    };
    let order = answered(&site);
    assert_eq!((order.len(), order.iter().collect::<BTreeSet<_>>().len()), (30, 30));
    assert!(order.windows(2).all(|two| raised[&two[0]] <= raised[&two[1]]), "{order:?} {raised:?}");
    engine.kill();
    // Nothing is asked again after a restart.
    let engine = site.start("1");
    send(&engine, 50..51);
    wait_until("the new one is judged", || judged() == 31);
    assert_eq!(answered(&site).len(), 31);
    engine.stop();
}
