//! The whole graph against a from-scratch oracle, and against itself with other workers and orders of arrival.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]
#![allow(unreachable_pub)] // modules of a test

mod blast;
mod changes;
mod expiry;
#[path = "../../incident/oracle.rs"]
mod from_scratch;
mod horizon;
mod oracle;
mod remembered;
mod site;
mod slices;
mod triage;

use std::{collections::BTreeSet, sync::Arc};

use cf_types::{Alert, EpochOutput, Event, Fact, Row, Suppressed};
use site::{Input, Random, TestRules, accumulate, all_facts, bounded, indicators, random_events, run};

const EPOCHS: usize = 8;

/// Epochs of these events in this order, with facts that come and go at random; and the facts there are after each.
fn inputs(
    random: &mut Random,
    rules: &Arc<TestRules>,
    events: &[Event],
    all_facts: &[Fact],
) -> (Vec<Input>, Vec<BTreeSet<Fact>>) {
    let mut inputs = vec![Input::default(); EPOCHS];
    for (at, event) in events.iter().enumerate() {
        inputs[at * EPOCHS / events.len()].events.push(event.clone());
    }
    inputs[0].rules = Some(Arc::clone(rules));
    let mut facts = BTreeSet::new();
    let mut present = Vec::new();
    for input in &mut inputs {
        for fact in all_facts.iter().cloned() {
            if random.below(3) == 0 {
                let diff = if facts.remove(&fact) { -1 } else { i64::from(facts.insert(fact.clone())) };
                input.facts.push((fact, diff));
            }
        }
        present.push(facts.clone());
    }
    (inputs, present)
}

#[test]
fn every_epoch_equals_the_oracle() {
    let rules = Arc::new(TestRules::new());
    let (mut alerts, mut suppressed, mut deep, mut indicated, mut moved, mut risky) = (0, 0, 0, 0, 0, 0);
    for seed in 0..10 {
        let mut random = Random(seed);
        let mut events = random_events(&mut random, 240);
        random.shuffle(&mut events);
        let (inputs, facts) = inputs(&mut random, &rules, &events, &[all_facts(), indicators()].concat());
        let outputs = run(1, &bounded(), &inputs);
        assert_eq!(outputs.len(), EPOCHS);
        let (mut seen, mut met) = (Vec::new(), Vec::new());
        for epoch in 0..EPOCHS {
            seen.extend(inputs[epoch].events.iter().cloned());
            // An indicator finds what comes from its epoch on; what was before is found by looking it up.
            met.extend(inputs[epoch].events.iter().flat_map(|event| oracle::candidates(event, &facts[epoch])));
            let got = accumulate(&outputs[..=epoch]);
            let expect = oracle::rows_with(&rules, &seen, &met, &facts[epoch], bounded().incidents.window);
            assert_same(&got, &expect, &format!("seed {seed}, epoch {epoch}"));
            let named = |alert: &Alert, rule: &str| &*alert.rule == rule;
            let of = |rule: &str| {
                let is = |row: &&Row| match row {
                    Row::Alert(alert) | Row::Suppressed(Suppressed { alert, .. }) => named(alert, rule),
                    _ => false,
                };
                got.iter().filter(is).count()
            };
            (alerts, deep) = (alerts + got.len(), deep + of("again"));
            indicated += of("indicator");
            let is_moved = |row: &&Row| matches!(row, Row::Assessment(one) if one.score != one.base);
            risky += of("risk");
            moved += got.iter().filter(is_moved).count();
        }
        suppressed += outputs.iter().map(|output| output.lineage.len()).sum::<usize>();
    }
    // Else the comparison would be of nothing with nothing.
    assert!(alerts > 2_000 && suppressed > 50 && deep > 20, "{alerts} rows, {suppressed} lineages, {deep} deep");
    assert!(indicated > 100 && moved > 300 && risky > 50, "{indicated} of indicators, {moved} moved, {risky} of risk");
}

#[test]
fn workers_order_and_repeats_do_not_matter() {
    let rules = Arc::new(TestRules::new());
    for seed in 100..104 {
        let mut random = Random(seed);
        let mut events = random_events(&mut random, 300);
        events.sort_by_key(|event| event.time);
        let (mut inputs, facts) = inputs(&mut random, &rules, &events, &all_facts());
        // Indicators hold from the first epoch on: what an event meets must not depend on when it comes.
        inputs[0].facts.extend(indicators().into_iter().map(|fact| (fact, 1)));
        let facts: BTreeSet<Fact> = facts.last().unwrap().iter().cloned().chain(indicators()).collect();
        let met: Vec<_> = events.iter().flat_map(|event| oracle::candidates(event, &facts)).collect();
        let expect = oracle::rows_with(&rules, &events, &met, &facts, bounded().incidents.window);
        let base = run(1, &bounded(), &inputs);
        assert_same(&accumulate(&base), &expect, &format!("seed {seed}"));

        for workers in [1, 2, 4] {
            // The same epochs: every output is the same, word for word.
            let same = run(workers, &bounded(), &inputs);
            for (got, expect) in same.iter().zip(&base) {
                assert_same(&got.rows, &expect.rows, &format!("seed {seed}, {workers} workers, epoch {}", got.epoch));
            }
            assert_eq!(text(&same), text(&base), "seed {seed}, {workers} workers");

            // Shuffled across epochs, 20 % given twice: what it adds up to is the same.
            let mut shuffled = events.clone();
            shuffled.extend(events.iter().filter(|_| random.below(5) == 0).map(|event| {
                let mut repeat = event.clone();
                repeat.position.offset += 1_000_000;
                repeat
            }));
            random.shuffle(&mut shuffled);
            let mut other = inputs.clone();
            other.iter_mut().for_each(|input| input.events.clear());
            for event in shuffled {
                other[random.below(EPOCHS)].events.push(event);
            }
            let outputs = run(workers, &bounded(), &other);
            assert_same(&accumulate(&outputs), &expect, &format!("seed {seed}, {workers} workers, shuffled"));
            let detections = outputs.iter().map(|output| output.detections.len()).sum::<usize>();
            assert_eq!(detections, events.len() + met.len(), "repeats are dropped");
        }
    }
}

/// Shows only what differs.
#[track_caller]
fn assert_same<T: PartialEq + std::fmt::Debug>(got: &[T], expect: &[T], what: &str) {
    let missing: Vec<_> = expect.iter().filter(|one| !got.contains(one)).collect();
    let extra: Vec<_> = got.iter().filter(|one| !expect.contains(one)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: missing {missing:#?}, extra {extra:#?}");
}

fn text(outputs: &[EpochOutput]) -> String {
    format!("{outputs:?}")
}
