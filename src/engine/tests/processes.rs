//! Random input in two processes of two workers, over loopback, against one worker: the same outputs, epoch by epoch.
//! `COUNTERFLOW_CASES` sets how many streams (20 here, 100 and more in a campaign).

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::as_conversions)]

use std::{net::TcpListener, sync::Arc, thread, time::Duration};

use cf_engine::{Cluster, Engine, EngineOptions, EpochInput, cluster::Runs};
use cf_sigma::RuleSet;
use cf_types::{EpochOutput, Record, Row, random::Random};

const RULES: &str = r#"
rule:
  id: guessing
  name: Password guessing
  severity: high
  conditions:
    - {field: event_type, operator: equals, value: authentication_failed}
    - {field: source_ip, operator: count, threshold: 3, timewindow: 1m}
---
rule:
  id: login
  name: Login
  severity: low
  conditions:
    - {field: event_type, operator: equals, value: authentication_succeeded}
"#;

/// Epochs of records: late, repeated, in any order.
fn epochs(seed: u64) -> Vec<Vec<Record>> {
    let mut random = Random(seed);
    let line = |random: &mut Random| {
        let kind = if random.number(5) == 0 { "authentication_succeeded" } else { "authentication_failed" };
        let (second, address) = (random.number(600), random.number(4));
        // Some ids come twice, with the same and with other content.
        let id = random.number(400);
        format!(
            r#"{{"event_id":"{id}","timestamp":"2026-01-05T14:{:02}:{:02}Z","event_type":"{kind}","source_ip":"10.0.0.{address}"}}"#,
            second / 60,
            second % 60
        )
    };
    let epoch = |random: &mut Random| {
        let lines: Vec<String> = (0..random.number(60)).map(|_| line(random)).collect();
        cf_engine::lines("app", &lines.iter().map(String::as_str).collect::<Vec<_>>())
    };
    (0..6).map(|_| epoch(&mut random)).collect()
}

fn run(options: EngineOptions, rules: &Arc<RuleSet>, epochs: &[Vec<Record>]) -> Vec<EpochOutput> {
    let mut engine = Engine::start(options).unwrap();
    let outputs = engine.subscribe();
    for (epoch, records) in (1..).zip(epochs) {
        let rules = (epoch == 1).then(|| Arc::clone(rules));
        engine.feed(EpochInput { epoch, rules, records: records.clone(), ..EpochInput::default() }).unwrap();
    }
    engine.stop().unwrap();
    outputs.collect()
}

#[test]
fn two_processes_give_what_one_gives() {
    let cases: u64 = std::env::var("COUNTERFLOW_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(20);
    let rules = cf_engine::rules("rules.yml", RULES).unwrap();
    let mut alerts = 0;
    for seed in 0..cases {
        let epochs = epochs(seed);
        let one = run(EngineOptions::bounded(1), &rules, &epochs);
        let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<String> = listeners.iter().map(|one| one.local_addr().unwrap().to_string()).collect();
        drop(listeners);
        let both: Vec<_> = (0..2)
            .map(|process| {
                let (rules, epochs, addresses) = (Arc::clone(&rules), epochs.clone(), addresses.clone());
                let runs = Runs { rules: rules.hash().to_owned(), ..Runs::default() };
                let secret = Some(b"of all the processes".to_vec());
                let cluster = Cluster { addresses, process, secret, wait: Duration::from_secs(30), dealt: false, runs };
                let options = EngineOptions { cluster: Some(cluster), ..EngineOptions::bounded(2) };
                thread::spawn(move || run(options, &rules, &epochs))
            })
            .collect();
        let both: Vec<Vec<EpochOutput>> = both.into_iter().map(|process| process.join().unwrap()).collect();
        for (got, expect) in both[0].iter().zip(&one) {
            assert_eq!(format!("{got:?}"), format!("{expect:?}"), "seed {seed}");
        }
        assert_eq!((both[0].len(), both[1].len()), (one.len(), one.len()), "seed {seed}");
        assert!(both[1].iter().all(|output| output.rows.is_empty()), "the first process has all");
        alerts += one.iter().flat_map(|output| &output.rows).filter(|(row, _)| matches!(row, Row::Alert(_))).count();
    }
    assert!(alerts > usize::try_from(cases).unwrap() * 5, "{alerts} changes of alerts in {cases} streams");
}
