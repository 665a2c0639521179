//! Rules and facts that change while running.

use std::{collections::BTreeSet, sync::Arc};

use cf_types::{Fact, Level, Lineage};

use crate::{
    assert_same, oracle,
    site::{Input, Random, TestRules, accumulate, allow, bounded, event, policy, random_events, run},
};

/// Runs half of the events under one set of rules, the rest under another; the result is that of the other alone.
#[track_caller]
fn check(before: TestRules, after: TestRules) {
    for workers in [1, 2] {
        let mut random = Random(42);
        let events = random_events(&mut random, 200);
        let facts: BTreeSet<Fact> = [policy("block", Level::High, &[], 600)].into();
        let mut inputs = vec![Input::default(); 4];
        inputs[0].rules = Some(Arc::new(before.clone()));
        inputs[0].facts = facts.iter().map(|fact| (fact.clone(), 1)).collect();
        inputs[2].rules = Some(Arc::new(after.clone()));
        for (at, event) in events.iter().enumerate() {
            inputs[at % 4].events.push(event.clone());
        }
        let outputs = run(workers, &bounded(), &inputs);
        let expect = oracle::rows(&after, &events, &facts, bounded().incidents.window);
        assert_same(&accumulate(&outputs), &expect, &format!("{workers} workers"));
        assert!(!outputs[2].rows.is_empty());
    }
}

#[test]
fn a_new_title_is_told() {
    check(TestRules::new(), TestRules::new().with("scan", |rule| rule.title = "another".into()));
}

#[test]
fn a_new_level_changes_score_risk_and_wishes() {
    check(TestRules::new(), TestRules::new().with("scan", |rule| rule.level = Level::Critical));
}

#[test]
fn a_rule_that_falls_silent_still_feeds_others() {
    check(TestRules::new(), TestRules::new().with("taken", |rule| rule.alerts = false));
}

#[test]
fn a_rule_that_goes_takes_its_alerts_along() {
    check(TestRules::new(), TestRules::new().without("scan"));
    check(TestRules::new(), TestRules::new().without("again"));
}

#[test]
fn a_new_window_is_applied_to_what_was_counted_and_to_what_is_chained_to_it() {
    check(TestRules::new(), TestRules::new().with("brute", |rule| rule.timespan = 30));
}

#[test]
fn a_chained_rule_that_comes_later_knows_the_episodes_before_it() {
    check(TestRules::new().without("again"), TestRules::new());
}

#[test]
fn a_fact_withdraws_an_alert_once_and_its_end_brings_it_back() {
    let fact = allow("10.0.0.0/24");
    let steps = [1, 0, 1, -1, 0, -1, 1, -1]; // given twice, it is still one; it ends when the last goes
    let mut inputs: Vec<Input> =
        steps.iter().map(|diff| Input { facts: vec![(fact.clone(), *diff)], ..Input::default() }).collect();
    inputs.insert(0, Input { rules: Some(Arc::new(TestRules::new())), ..Input::default() });
    inputs[0].events = vec![event("s", 1, 0, "scan h u 10.0.0.1"), event("s", 2, 0, "scan h u 10.0.1.1")];
    let outputs = run(1, &bounded(), &inputs);
    let alerts: Vec<usize> = (1..=outputs.len())
        .map(|upto| accumulate(&outputs[..upto]).iter().filter(|row| matches!(row, cf_types::Row::Alert(_))).count())
        .collect();
    assert_eq!(alerts, [2, 1, 1, 1, 1, 1, 2, 1, 2]);
    let suppressed =
        |lineage: &&Lineage| matches!(lineage, Lineage::Suppressed { fact: because, .. } if *because == fact);
    let told: Vec<usize> = outputs.iter().map(|output| output.lineage.iter().filter(suppressed).count()).collect();
    assert_eq!(told, [0, 1, 0, 0, 0, 0, 0, 1, 0]);
}

#[test]
fn epochs_without_changes_are_given_out_too() {
    let outputs = run(2, &bounded(), &vec![Input::default(); 5]);
    let epochs: Vec<_> = outputs.iter().map(|output| output.epoch).collect();
    assert_eq!(epochs, [1, 2, 3, 4, 5]);
}
