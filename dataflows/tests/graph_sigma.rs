//! Sigma text through the whole graph: from rule files to alerts.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex, mpsc};

use cf_dataflows::{Batch, Graph, GraphOptions, Rules};
use cf_sigma::{Options, RuleSet, Text, parse};
use cf_types::{
    Entity, EntityKind, Event, Fields, LogSource, Name, Origin, Position, Row, Scalar, Tenant, Time, TimeBasis,
    record::Framing,
};
use expect_test::{Expect, expect};

const RULES: &str = "\
title: Failed login
id: 11111111-1111-4111-8111-111111111111
name: failed
logsource: {product: linux, service: sshd}
detection:
  selection: {outcome: failure}
  condition: selection
level: low
---
title: Login
id: 22222222-2222-4222-8222-222222222222
name: login
logsource: {product: linux, service: sshd}
detection:
  selection: {outcome: success}
  condition: selection
level: informational
---
title: Root shell
id: 33333333-3333-4333-8333-333333333333
logsource: {product: linux, service: sshd}
detection:
  selection: {user: root}
  condition: selection
level: medium
---
title: Guessing
id: 44444444-4444-4444-8444-444444444444
name: guessing
correlation:
  type: event_count
  rules: [failed]
  group-by: [address]
  timespan: 1m
  condition: {gte: 3}
level: high
---
title: Guessed
id: 55555555-5555-4555-8555-555555555555
correlation:
  type: temporal_ordered
  rules: [guessing, login]
  group-by: [address]
  timespan: 5m
  generate: true
level: critical
";

/// `at outcome user address`, one event per line.
fn events(text: &str) -> Vec<Event> {
    let names = Name::intern_all(["outcome", "user", "address"]);
    let origin = Arc::new(Origin {
        tenant: Tenant::default(),
        source: "ssh".into(),
        received_at: Time::from_seconds(0),
        year: None,
        framing: Framing::Record,
    });
    let log_source =
        Arc::new(LogSource { product: Some("linux".into()), category: None, service: Some("sshd".into()) });
    let event = |(line, text): (usize, &str)| {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut fields = Fields::default();
        names.iter().zip(&words[1..]).for_each(|(name, word)| fields.push(*name, word, Scalar::Text));
        Event {
            origin: origin.clone(),
            position: Position {
                origin: "log".into(),
                offset: line.try_into().unwrap(),
                line: line.try_into().unwrap(),
                index: 0,
            },
            declared_id: None,
            time: Time::from_seconds(words[0].parse().unwrap()),
            time_basis: TimeBasis::Declared,
            log_source: log_source.clone(),
            fields,
            entities: [(EntityKind::User, words[2]), (EntityKind::Address, words[3])]
                .into_iter()
                .filter_map(|(kind, value)| Entity::of(kind, value))
                .collect(),
            raw: text.to_owned().into(),
        }
    };
    text.lines().enumerate().map(event).collect()
}

/// The alerts of all events in one epoch. Scores: the address is one of the site, so the vector is adjacent: × 0.972.
#[track_caller]
fn check(input: &str, expect: Expect) {
    expect.assert_eq(&alerts(RULES, events(input)));
}

/// The alerts of rules on events, all in one epoch that is the last.
fn alerts(rules: &str, events: Vec<Event>) -> String {
    let parsed = parse(&[Text { file: "rules.yml".into(), text: rules.to_owned() }]);
    let (rules, problems) = RuleSet::compile(parsed, &Options::default());
    assert!(problems.is_empty(), "{problems:?}");
    let (sender, outputs) = mpsc::channel();
    timely::execute_directly(move |worker| {
        let options = GraphOptions { horizon_s: None, ..GraphOptions::default() };
        let mut graph = Graph::build(worker, &options, Some(sender));
        graph.feed(Batch { epoch: 1, rules: Some(Arc::new(rules)), events, ended: true, ..Batch::default() });
        graph.advance_to(2);
        while !graph.done(1) {
            worker.step_or_park(None);
        }
    });
    let shown = outputs.iter().flat_map(|output| output.rows).filter_map(|(row, _)| match row {
        Row::Alert(alert) => Some(format!(
            "{} {} {}..{} x{} {}\n",
            alert.title,
            alert.group.iter().map(|(field, value)| format!("{field}={value}")).collect::<Vec<_>>().join(" "),
            alert.anchor,
            alert.last_cell,
            alert.count,
            alert.score
        )),
        _ => None,
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    shown.concat()
}

/// `at outcome key=value ...`, one event per line.
fn events_with_fields(text: &str) -> Vec<Event> {
    let event = |line: &str| {
        let mut words = line.split(' ');
        let (at, outcome) = (words.next().unwrap(), words.next().unwrap());
        let [mut event] = <[Event; 1]>::try_from(events(&format!("{at} {outcome} - -"))).unwrap();
        event.fields = Fields::default();
        event.fields.push(Name::intern("outcome"), outcome, Scalar::Text);
        for (field, value) in words.map(|word| word.split_once('=').unwrap()) {
            event.fields.push(Name::intern(field), value, Scalar::Text);
        }
        event.position.line = 0;
        event.raw = line.to_owned().into();
        event
    };
    let events: Vec<Event> = text.lines().map(event).collect();
    let numbered = events.into_iter().zip(0..).map(|(mut event, offset)| {
        event.position.offset = offset;
        event
    });
    numbered.collect()
}

#[test]
fn the_examples_of_the_documentation_do_what_they_say() {
    let plain = ["backup_begun", "backup_ended", "login", "failed_login"].map(|outcome| {
        format!(
            "title: {outcome}\nname: {outcome}\nid: {outcome}\nlogsource: {{product: linux}}\n\
             detection:\n  s: {{outcome: {outcome}}}\n  condition: s\n"
        )
    });
    let page = include_str!("../../docs/correlations.md");
    let examples = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let rules: Vec<String> = plain.into_iter().chain(examples).collect();
    assert_eq!(rules.len(), 7);

    let day = 86_400;
    let mut input = "0 backup_begun host=a\n0 backup_begun host=b\n7200 backup_ended host=b\n".to_owned();
    for (days, country) in [(0, "de"), (1, "fr"), (2, "it"), (3, "de")] {
        input += &format!("{} login user=eve country={country}\n", days * day);
    }
    (0..72).for_each(|hour| input += &format!("{} failed_login source_ip=10.0.0.9\n", hour * 3_600));
    (0..25).for_each(|n| input += &format!("{} failed_login source_ip=10.0.0.9\n", 3 * day + n * 10));
    expect![[r#"
        Backup begun and not ended host=a 0..7200 x1 5.0
        Login from a country that the account never came from user=eve 172800..172800 x1 5.0
        Ten times the usual number of failed logins source_ip=10.0.0.9 259200..259440 x25 4.9
    "#]]
    .assert_eq(&alerts(&rules.join("---\n"), events_with_fields(&input)));
}

#[test]
fn guessing_that_ends_in_a_login_is_told_with_its_parts() {
    check(
        "10 failure root 10.0.0.9\n\
         11 failure root 10.0.0.9\n\
         12 failure eve 10.0.0.9\n\
         13 failure eve 10.0.0.8\n\
         99 success root 10.0.0.9",
        expect![[r#"
            Guessed address=10.0.0.9 12..99 x2 9.2
            Guessing address=10.0.0.9 10..12 x3 7.3
            Login address=10.0.0.9 user=root 99..99 x1 1.0
            Root shell address=10.0.0.9 user=root 10..99 x3 4.9
        "#]],
    );
}

#[test]
fn a_login_before_the_guessing_is_none_that_was_guessed() {
    check(
        "9 success eve 10.0.0.9\n\
         10 failure eve 10.0.0.9\n\
         11 failure eve 10.0.0.9\n\
         12 failure eve 10.0.0.9",
        expect![[r#"
            Guessing address=10.0.0.9 10..12 x3 7.3
            Login address=10.0.0.9 user=eve 9..9 x1 1.0
        "#]],
    );
}

/// A rule over the outcome, and one over the user that another set has.
fn rule(id: &str, field: &str, value: &str) -> Text {
    let text = format!(
        "title: {id}\nid: {id}\nlogsource: {{product: linux}}\ndetection:\n  s: {{{field}: {value}}}\n  condition: s\n"
    );
    Text { file: format!("{id}.yml").into(), text }
}

/// Feeds an event per second, four to an epoch; `sets` name epochs with the rule set from then on. Shown is per epoch
/// which rule met how many events, and which alerts came and went.
fn swapped(workers: usize, sets: &[(u64, Arc<RuleSet>)]) -> String {
    let lines: String = (0..24)
        .map(|at| format!("{at} {} {} 10.0.0.9\n", ["failure", "success"][at % 2], ["root", "eve", "bob"][at % 3]))
        .collect();
    let (sender, outputs) = mpsc::channel();
    let (sender, events, sets) = (Mutex::new(Some(sender)), events(&lines), sets.to_vec());
    timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let options = GraphOptions { horizon_s: None, ..GraphOptions::default() };
        let mut graph = Graph::build(worker, &options, sender.lock().unwrap().take_if(|_| index == 0));
        for (epoch, events) in (1..).zip(events.chunks(4)) {
            let rules =
                sets.iter().find(|(from, _)| *from == epoch).map(|(_, rules)| Arc::clone(rules) as Arc<dyn Rules>);
            let mine = events.iter().enumerate().filter(|(at, _)| at % peers == index).map(|(_, event)| event.clone());
            graph.feed(Batch { epoch, rules, events: mine.collect(), ..Batch::default() });
            graph.advance_to(epoch + 1);
            // All epochs in flight at once, so that a set waits behind events of the one before.
            worker.step();
        }
        while !graph.done(6) {
            worker.step_or_park(None);
        }
    })
    .unwrap();
    let mut shown = String::new();
    for output in outputs {
        let mut met = std::collections::BTreeMap::new();
        output.detections.iter().for_each(|detection| *met.entry(detection.rule.to_string()).or_insert(0) += 1);
        let mut alerts: Vec<_> = output
            .rows
            .iter()
            .filter_map(|(row, diff)| match row {
                Row::Alert(alert) => Some(format!("{diff:+} {}x{}", alert.rule, alert.count)),
                _ => None,
            })
            .collect();
        alerts.sort();
        shown += &format!("{}: {met:?} {}\n", output.epoch, alerts.join(" "));
    }
    shown
}

#[test]
fn every_worker_changes_the_rules_at_the_same_epoch() {
    let (first, problems) = RuleSet::compile(parse(&[rule("failed", "outcome", "failure")]), &Options::default());
    assert!(problems.is_empty(), "{problems:?}");
    let both = first.changed(vec![rule("bob", "user", "bob")], &[]).0;
    let last = both.changed(vec![rule("failed", "outcome", "success")], &["bob.yml".into()]).0;
    let sets = [(1, Arc::new(first)), (3, Arc::new(both)), (5, Arc::new(last))];
    let expect = expect![[r#"
        1: {"failed": 2} +1 failedx1 +1 failedx1
        2: {"failed": 2} +1 failedx1 +1 failedx2 -1 failedx1
        3: {"bob": 2, "failed": 2} +1 bobx2 +1 failedx2 +1 failedx2 -1 failedx1 -1 failedx1
        4: {"bob": 1, "failed": 2} +1 bobx3 +1 failedx3 +1 failedx3 -1 bobx2 -1 failedx2 -1 failedx2
        5: {"failed": 2} +1 failedx3 +1 failedx4 -1 bobx3 -1 failedx2 -1 failedx3
        6: {"failed": 2} +1 failedx4 +1 failedx5 -1 failedx3 -1 failedx4
    "#]];
    let one = swapped(1, &sets);
    expect.assert_eq(&one);
    for workers in [2, 4] {
        assert_eq!(swapped(workers, &sets), one, "{workers} workers");
    }
    // What the scanners of the sets counted is all there, for each of the three runs.
    let hits: u64 = sets.iter().flat_map(|(_, set)| set.stats()).map(|stats| stats.hits).sum();
    assert_eq!(hits, 3 * (12 + 3));
}
