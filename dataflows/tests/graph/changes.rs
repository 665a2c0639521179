//! Rules and facts that change while running.

use std::{collections::BTreeSet, sync::Arc};

use cf_dataflows::IndicatorTable;
use cf_types::{Fact, Level, Lineage, Member};

use crate::{
    assert_same, oracle,
    site::{Input, Random, TestRules, accumulate, allow, bounded, event, policy, random_events, run, said, silence},
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
fn a_chained_rule_that_what_was_kept_cannot_serve_is_given_the_episodes_anew() {
    let seen = cf_types::Predicate::FirstSeen { memory: 600, known_min: 1 };
    check(TestRules::new().with("again", |rule| rule.predicate = seen), TestRules::new());
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

#[test]
fn a_silence_holds_for_an_alert_whose_whole_extent_lies_inside() {
    let silence = silence("work", &["brute"], None, Level::Critical, (0, 20));
    let failures = |from: u64, at: &[i64]| -> Vec<cf_types::Event> {
        at.iter().zip(from..).map(|(at, id)| event("s", id, *at, "fail h u 10.0.0.1")).collect()
    };
    let rules = Some(Arc::new(TestRules::new().without("spray")));
    let inputs = [
        Input { rules, facts: vec![(silence.clone(), 1)], events: failures(1, &[0, 5, 19]), ..Input::default() },
        // One second more than the silence: now it is told, with all its events.
        Input { events: failures(10, &[20]), ..Input::default() },
        Input { facts: vec![(silence.clone(), -1)], ..Input::default() },
    ];
    for workers in [1, 2, 4] {
        let outputs = run(workers, &bounded(), &inputs);
        let shown: Vec<String> = (1..=3)
            .map(|upto| {
                let rows = accumulate(&outputs[..upto]);
                let show = |row: &cf_types::Row| match row {
                    cf_types::Row::Alert(alert) => Some(format!("told x{}", alert.count)),
                    cf_types::Row::Suppressed(held) => {
                        assert_eq!(held.fact, silence);
                        Some(format!("silent x{}", held.alert.count))
                    }
                    _ => None,
                };
                rows.iter().filter_map(show).collect::<Vec<_>>().join(", ")
            })
            .collect();
        assert_eq!(shown, ["silent x3", "told x4", "told x4"]);
    }
}

/// DET-04: an indicator that comes after the event finds it by a look-up, whose answer comes with a later epoch; what was
/// met both ways counts once, and revoking withdraws what rested on the indicator alone.
#[test]
fn what_is_looked_up_joins_what_was_met() {
    let indicator = said("indicator", r#"{"value":"10.0.0.9","confidence":80}"#);
    let events: Vec<cf_types::Event> =
        (1..=4u64).map(|id| event("s", id, i64::try_from(id).unwrap() * 10, "other h u 10.0.0.9")).collect();
    let mut table = IndicatorTable::default();
    table.change(&indicator, 1);
    let mut found = Vec::new();
    // The look-up goes a little too far: it finds one that was met by itself.
    for event in &events[..3] {
        let member = Member {
            time: event.time,
            id: event.id(),
            declared_id: event.declared_id.as_deref().map(Arc::from),
            position: event.position.clone(),
        };
        let of = (&event.origin.tenant, &event.origin.source);
        table.find(of, &member, event.entities.clone(), std::iter::empty(), &mut found);
    }
    let inputs = [
        Input { rules: Some(Arc::new(TestRules::new())), events: events[..2].to_vec(), ..Input::default() },
        Input { facts: vec![(indicator.clone(), 1)], events: events[2..].to_vec(), ..Input::default() },
        Input { found, ..Input::default() },
        Input { facts: vec![(indicator, -1)], ..Input::default() },
    ];
    for workers in [1, 2, 4] {
        let outputs = run(workers, &bounded(), &inputs);
        let counts = |upto: usize| -> Vec<u64> {
            let rows = accumulate(&outputs[..upto]);
            let of = |row: &cf_types::Row| match row {
                cf_types::Row::Alert(alert) if &*alert.rule == "indicator" => Some(alert.count),
                _ => None,
            };
            rows.iter().filter_map(of).collect()
        };
        assert_eq!([counts(1), counts(2), counts(3), counts(4)], [vec![], vec![2], vec![4], vec![]]);
        let given: usize = outputs[2].detections.iter().filter(|found| &*found.rule == "indicator").count();
        assert_eq!(given, 2, "what was looked up goes to the facts log and to history, once");
    }
}
