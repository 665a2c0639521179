//! Blast radius against a search over all edges, while edges, assets and alerts come and go (RSK-03).

use std::{collections::BTreeSet, sync::Arc};

use cf_types::{Alert, BlastRadius, Fact, Row};

use crate::{
    assert_same, oracle,
    site::{Input, Random, TestRules, accumulate, allow, bounded, event, run, said},
};

fn edge(from: usize, to: usize) -> Fact {
    said("edge", &format!(r#"{{"value":"host:n{from}->host:n{to}"}}"#))
}

fn radii(rows: &[Row]) -> Vec<BlastRadius> {
    rows.iter().filter_map(|row| if let Row::Blast(radius) = row { Some(radius.clone()) } else { None }).collect()
}

fn alerts(rows: &[Row]) -> Vec<Alert> {
    rows.iter().filter_map(|row| if let Row::Alert(alert) = row { Some(alert.clone()) } else { None }).collect()
}

#[test]
fn every_epoch_equals_a_search_over_all_edges() {
    let (mut reached, mut cut) = (0, 0);
    for (seed, workers) in (0..6).zip([1, 2, 4].into_iter().cycle()) {
        let mut random = Random(seed);
        // A hub with more edges than are followed, circles, chains longer than are followed.
        let mut pool: Vec<Fact> = (0..140).map(|to| edge(2, 100 + to)).collect();
        pool.extend(
            (0..120).map(|_| (random.below(40), random.below(40))).filter(|(a, b)| a != b).map(|(a, b)| edge(a, b)),
        );
        pool.extend((0..20).map(|at| {
            let criticality = random.below(5) + 1;
            said("asset", &format!(r#"{{"value":"host:n{}","criticality":{criticality}}}"#, at * 2))
        }));
        pool.push(allow("10.0.0.1/32"));
        let mut facts = BTreeSet::new();
        let mut inputs = vec![Input::default(); 12];
        inputs[0].rules = Some(Arc::new(TestRules::new()));
        let mut present = Vec::new();
        let often = 1 + random.below(4);
        for (at, input) in inputs.iter_mut().enumerate() {
            // Alerts by `sudo` are of host and user; the allowed address takes none of them away, only scans.
            input.events = (0..2u64)
                .map(|n| {
                    let text = format!("sudo n{} u 10.0.0.2", random.below(40));
                    event("s", u64::try_from(at).unwrap() * 2 + n, i64::try_from(at).unwrap() * 9_000, &text)
                })
                .collect();
            for fact in &pool {
                if random.below(if at == 0 { 2 } else { 5 * often }) == 0 {
                    let diff = if facts.remove(fact) { -1 } else { i64::from(facts.insert(fact.clone())) };
                    input.facts.push((fact.clone(), diff));
                }
            }
            present.push(facts.clone());
        }
        let outputs = run(workers, &bounded(), &inputs);
        for (epoch, facts) in present.iter().enumerate() {
            let rows = accumulate(&outputs[..=epoch]);
            let got = radii(&rows);
            assert_same(&got, &oracle::blast(&alerts(&rows), facts), &format!("seed {seed}, epoch {epoch}"));
            reached += got.iter().map(BlastRadius::reached).sum::<u64>();
            cut += got.iter().map(|radius| radius.and_more.len()).sum::<usize>();
        }
    }
    assert!(reached > 5_000 && cut > 20, "{reached} reached, {cut} cut");
}

#[test]
fn a_sealed_or_withdrawn_alert_is_no_root() {
    let rules = Some(Arc::new(TestRules::new()));
    let facts = vec![(edge(1, 2), 1)];
    let events = vec![event("s", 1, 0, "scan n1 u 10.0.0.1"), event("s", 2, 0, "sudo n1 u 10.0.0.1")];
    let by_user = said("edge", r#"{"value":"address:10.0.0.1->host:n9"}"#);
    let inputs = [
        Input { rules, facts: [facts, vec![(by_user, 1)]].concat(), events, ..Input::default() },
        Input { facts: vec![(allow("10.0.0.1/32"), 1)], ..Input::default() },
    ];
    let outputs = run(2, &bounded(), &inputs);
    let roots = |upto: usize| -> Vec<String> {
        radii(&accumulate(&outputs[..upto])).iter().map(|radius| radius.root.to_string()).collect()
    };
    assert_eq!(roots(1), ["host:n1", "address:10.0.0.1"]);
    assert_eq!(roots(2), ["host:n1"]);
}
