//! Facts that concern very many alerts: scored in slices, in the end as if at once (RSK-06).

use std::{collections::BTreeSet, sync::Arc};

use cf_dataflows::GraphOptions;
use cf_types::{Assessment, EpochOutput, Event, Fact, Row, fact::Judgement};

use crate::{
    assert_same, oracle,
    site::{Input, TestRules, accumulate, bounded, event, run, said, verdict},
    text,
};

/// Twenty at once, so two with each epoch.
const AT_ONCE: usize = 20;
const ALERTS: u64 = 120;

fn scan(id: u64) -> Event {
    event("s", id, i64::try_from(id).unwrap() * 40, &format!("scan h{id} u 10.1.{}.{}", id / 200, id % 200))
}

/// Many alerts, then a network of all their addresses, a verdict of their rule that moves its precision, and all the
/// while a new alert with each epoch.
fn inputs(epochs: u64) -> (Vec<Input>, Vec<Event>, BTreeSet<Fact>) {
    let mut inputs: Vec<Input> =
        (0..epochs).map(|at| Input { events: vec![scan(ALERTS + at)], ..Input::default() }).collect();
    inputs[0].rules = Some(Arc::new(TestRules::new()));
    inputs[0].events.extend((0..ALERTS).map(scan));
    let network = said("asset", r#"{"value":"10.0.0.0/8","criticality":5,"exposure":"external"}"#);
    let verdicts = (0..12).map(|at| verdict("scan", at, Judgement::FalsePositive));
    let facts: BTreeSet<Fact> = verdicts.chain([network.clone()]).collect();
    inputs[2].facts.push((network, 1));
    inputs[20].facts.extend(
        facts.iter().filter(|fact| matches!(fact.body, cf_types::FactBody::Verdict(_))).map(|fact| (fact.clone(), 1)),
    );
    let events = inputs.iter().flat_map(|input| input.events.clone()).collect();
    (inputs, events, facts)
}

fn options() -> GraphOptions {
    GraphOptions { rescored_at_once: AT_ONCE, ..bounded() }
}

fn came(output: &EpochOutput) -> Vec<&Assessment> {
    let came = output.rows.iter().filter(|(_, diff)| *diff > 0);
    came.filter_map(|(row, _)| if let Row::Assessment(one) = row { Some(one) } else { None }).collect()
}

#[test]
fn what_concerns_very_many_alerts_is_applied_in_slices_and_ends_as_if_at_once() {
    let (inputs, events, facts) = inputs(150);
    let base = run(1, &options(), &inputs);
    let rules = TestRules::new();
    let expect = oracle::rows(&rules, &events, &facts, bounded().incidents.window);
    assert_same(&accumulate(&base), &expect, "in slices");
    let unsliced = run(1, &bounded(), &inputs);
    assert_same(&accumulate(&unsliced), &expect, "at once");

    // From the network on two of those that wait with each epoch; the verdicts touch all again, so who waits stays in its place.
    let waiting: Vec<u64> = base.iter().map(|output| output.rescoring).collect();
    assert_eq!(waiting[1..5], [0, 120, 118, 116], "{waiting:?}");
    assert!(waiting[20] > waiting[19] && waiting[149] == 0, "{waiting:?}");
    assert!(unsliced.iter().all(|output| output.rescoring == 0));
    assert!(came(&unsliced[2]).len() > 100);
    let network: BTreeSet<Fact> = facts.iter().filter(|fact| fact.body.kind() == "asset").cloned().collect();
    for (at, output) in base.iter().enumerate().skip(1) {
        // A slice, and what is new: it waits for nobody, and has all facts at once.
        let came = came(output);
        assert!(came.len() <= AT_ONCE / 10 + 1, "epoch {at}: {}", came.len());
        let facts = if at < 2 {
            &BTreeSet::new()
        } else if at < 20 {
            &network
        } else {
            &facts
        };
        let new = oracle::rows(&rules, &inputs[at].events, facts, bounded().incidents.window);
        let new: Vec<_> = new.iter().filter(|row| matches!(row, Row::Assessment(_))).collect();
        assert!(!new.is_empty() && new.iter().all(|row| output.rows.contains(&((*row).clone(), 1))), "epoch {at}");
    }

    for workers in [2, 4] {
        let same = run(workers, &options(), &inputs);
        assert_eq!(text(&same), text(&base), "{workers} workers");
    }
}

#[test]
fn at_the_end_of_the_input_and_for_what_is_recalled_nothing_waits() {
    let (mut inputs, events, facts) = inputs(30);
    inputs[29].ended = true;
    let outputs = run(2, &options(), &inputs);
    assert!(outputs[28].rescoring > 50 && outputs[29].rescoring == 0);
    let expect = oracle::rows(&TestRules::new(), &events, &facts, bounded().incidents.window);
    assert_same(&accumulate(&outputs), &expect, "at the end");

    inputs[2].sealed = Some(Default::default());
    let outputs = run(2, &options(), &inputs[..10]);
    assert_eq!(outputs.iter().map(|output| output.rescoring).sum::<u64>(), 0);
}
