//! What came until now: plans made of it, and fields that no event had.

use std::sync::Arc;

use cf_sigma::{RuleSet, Scanner};
use cf_types::Event;

use crate::world::{event, hits, log_source, rules};

const RULE: &str = "
title: t
id: r
logsource: {product: linux}
detection:
  s:
    CommandLine|contains|all: [rather-long-and-rare-by-its-length, zq7x]
  condition: s
";

fn event_with(line: &str) -> Event {
    event(log_source("linux", "", ""), &[("CommandLine", Some(line))], "{}")
}

/// Traffic in which the text that looks rare is in every event: (hits, candidates) of 100 events.
fn met(rules: &Arc<RuleSet>) -> (usize, u64) {
    let mut scanner = Scanner::new(Arc::clone(rules));
    let lines =
        (0..100).map(|i| format!("{i} rather-long-and-rare-by-its-length {}", if i % 10 == 0 { "zq7x" } else { "" }));
    let found = lines.map(|line| hits(&mut scanner, &event_with(&line)).len()).sum();
    let candidates = scanner.stats().iter().map(|stats| stats.candidates).sum();
    (found, candidates)
}

/// DET: anchors follow the traffic that comes; what is found does not.
#[test]
fn anchors_are_planned_anew_by_what_came() {
    let before = rules(&[RULE]);
    assert_eq!(met(&before), (10, 100), "the longer text is expected to be the rarer one");
    assert!(before.replanned().is_none(), "nothing has come yet that would be worth a plan");

    let mut scanner = Scanner::new(Arc::clone(&before));
    for i in 0..64 * 1_000 {
        let _found = hits(&mut scanner, &event_with(&format!("{i} rather-long-and-rare-by-its-length")));
    }
    assert!(before.replanned().is_none(), "a scanner tells when it rests");
    scanner.publish();
    let after = Arc::new(before.replanned().unwrap());
    assert_eq!(after.hash(), before.hash());
    assert_eq!(met(&after), (10, 10));
    assert!(after.replanned().is_none(), "the same sample gives the same plan");

    // A set that follows has learnt what this one has, also where it is compiled as a whole.
    let (next, problems) = after.changed(vec![crate::world::text("other.yml", &RULE.replace("id: r", "id: q"))], &[]);
    assert_eq!((problems.len(), met(&Arc::new(next))), (0, (20, 20)));
}

#[test]
fn fields_that_no_event_ever_had_are_told_by_rule() {
    let texts = [
        "title: a\nid: a\nlogsource: {product: linux}\ndetection: {s: {CommandLine: x, Nobody: y}, condition: s}\n",
        "title: b\nid: b\nlogsource: {product: linux}\ndetection: {s: {CommandLine: x}, condition: s}\n",
        "title: c\nid: c\nlogsource: {product: linux}\ndetection: {keywords: [z], f: {Never: 1}, condition: keywords and not f}\n",
    ];
    let set = rules(&texts);
    let unseen = |set: &RuleSet| {
        let shown = set
            .fields_unseen()
            .into_iter()
            .map(|(rule, fields)| format!("{}:{}", set.rule(rule).unwrap().id, fields.join(",")));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(unseen(&set), "", "nothing came: nothing is said");
    let mut scanner = Scanner::new(Arc::clone(&set));
    let _found = hits(&mut scanner, &event_with("x"));
    scanner.publish();
    assert_eq!(unseen(&set), "a:Nobody c:Never");
    // What was seen by another set, or another process, was seen.
    let (next, _) = set.changed(Vec::new(), &[]);
    next.have_seen([Arc::from("Never")]);
    assert_eq!(unseen(&next), "a:Nobody");
    assert_eq!(next.fields_seen().iter().map(|field| &**field).collect::<Vec<_>>(), ["CommandLine", "Never"]);
}

/// A field that a log source has under another name was seen under that.
#[test]
fn a_field_is_seen_under_the_name_that_its_log_source_gives_it() {
    let set = rules(&[
        "title: a\nid: a\nlogsource: {product: windows, category: process_creation}\ndetection: {s: {Image: x, Nobody: y}, condition: s}\n",
    ]);
    let fields = [("Channel", Some("Security")), ("EventID", Some("4688")), ("NewProcessName", Some("x"))];
    let mut scanner = Scanner::new(Arc::clone(&set));
    let _found = hits(&mut scanner, &event(log_source("windows", "", ""), &fields, "{}"));
    drop(scanner);
    let unseen: Vec<_> = set.fields_unseen().into_values().flatten().collect();
    assert_eq!(unseen.iter().map(|field| &**field).collect::<Vec<_>>(), ["Nobody"]);
}
