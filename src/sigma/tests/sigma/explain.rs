//! Explanations: their verdict is the scanner's, and they say what the event has.

use std::{collections::BTreeMap, sync::Arc};

use cf_sigma::{LogSources, Parsed, RuleIndex, RuleSet, Scanner};
use cf_types::{Event, LogSource, Name};
use expect_test::{Expect, expect};

use crate::world::{Public, event, events, log_source, public_rules, regression_dir, rules, shared};

/// What is explained, with an event of these fields. Rules are compiled first, so that their fields have names.
#[track_caller]
fn check(texts: &[&str], which: usize, (source, fields, raw): (LogSource, Fields<'_>, &str), expect: &Expect) {
    let rules = rules(texts);
    let index = rules.indexes().nth(which).unwrap();
    expect.assert_eq(&rules.explain(index, &event(source, fields, raw)).to_string());
}

type Fields<'f> = &'f [(&'f str, Option<&'f str>)];

const RULE: &str = "\
title: Shell by office
id: r
logsource: {product: windows, category: process_creation}
detection:
  selection:
    ParentImage|endswith: ['\\winword.exe', '\\excel.exe']
    Image|endswith: '\\cmd.exe'
  selection_cli:
    CommandLine|contains|all: ['/c', 'echo', 'whoami']
  filter_main_one:
    User: SYSTEM
  filter_main_two:
    - CommandLine|re: 'safe\\d+'
    - IntegrityLevel: null
  unused:
    Image: x
  condition: all of selection* and not 1 of filter_main_*
";

fn windows(fields: Fields<'_>) -> (LogSource, Fields<'_>, &'static str) {
    (log_source("windows", "", ""), fields, "{}")
}

#[test]
fn a_match_shows_each_part_with_the_value_it_saw() {
    let event = windows(&[
        ("Channel", Some("Security")),
        ("EventID", Some("4688")),
        ("NewProcessName", Some(r"C:\Windows\System32\CMD.exe")),
        ("ParentProcessName", Some(r"C:\Office\WINWORD.EXE")),
        ("CommandLine", Some("cmd /c echo whoami")),
        ("SubjectUserName", Some("bob")),
        ("MandatoryLabel", Some("S-1-16-8192")),
    ]);
    check(
        &[RULE],
        0,
        event,
        &expect![[r#"
            rule "Shell by office" (r) matches
            ✓ log source windows/process_creation/-: channel Security, event 4688
            ✓ all of
              ✓ all of selection*
                ✓ selection
                  ✓ ParentImage|endswith has "\winword.exe" (here ParentProcessName): saw "C:\Office\WINWORD.EXE"
                  ✓ Image|endswith has "\cmd.exe" (here NewProcessName): saw "C:\Windows\System32\CMD.exe"
                ✓ selection_cli
                  ✓ CommandLine|contains|all has "/c", "echo", "whoami": saw "cmd /c echo whoami"
              ✓ not
                ✗ 1 of filter_main_*
                  ✗ filter_main_one
                    ✗ User wants "SYSTEM" (here SubjectUserName): saw "bob"
                  ✗ filter_main_two
                    ✗ any of
                      ✗ CommandLine|re wants "safe\d+": saw "cmd /c echo whoami"
                      ✗ IntegrityLevel wants "null" (here MandatoryLabel): saw "S-1-16-8192"
              · unused
                ✗ Image wants "x" (here NewProcessName): saw "C:\Windows\System32\CMD.exe"
        "#]],
    );
}

#[test]
fn a_silent_rule_has_a_nearest_miss() {
    let event = windows(&[
        ("Channel", Some("Microsoft-Windows-Sysmon/Operational")),
        ("EventID", Some("1")),
        ("Image", Some(r"C:\Windows\System32\cmd.exe")),
        ("ParentImage", Some(r"C:\Windows\explorer.exe")),
        ("CommandLine", Some("cmd /c echo whoami")),
        ("User", Some("SYSTEM")),
        ("IntegrityLevel", Some("High")),
    ]);
    check(
        &[RULE],
        0,
        event,
        &expect![[r#"
        rule "Shell by office" (r) does not match
        ✓ log source windows/process_creation/-: channel Microsoft-Windows-Sysmon/Operational, event 1
        ✗ all of
          ✗ all of selection*
            ✗ selection
              ✗ ParentImage|endswith wants "\winword.exe", "\excel.exe": saw "C:\Windows\explorer.exe"
              ✓ Image|endswith has "\cmd.exe": saw "C:\Windows\System32\cmd.exe"
            ✓ selection_cli
              ✓ CommandLine|contains|all has "/c", "echo", "whoami": saw "cmd /c echo whoami"
          ✗ not
            ✓ 1 of filter_main_*
              ✓ filter_main_one
                ✓ User has "SYSTEM": saw "SYSTEM"
              ✗ filter_main_two
                ✗ any of
                  ✗ CommandLine|re wants "safe\d+": saw "cmd /c echo whoami"
                  ✗ IntegrityLevel wants "null": saw "High"
          · unused
            ✗ Image wants "x": saw "C:\Windows\System32\cmd.exe"
        nearest miss, 2 parts:
          selection: ParentImage|endswith would have to hold
          filter_main_one: User must not hold
    "#]],
    );
}

#[test]
fn an_event_of_another_log_source_is_told_by_which_way_it_fails() {
    let event = windows(&[("Channel", Some("Security")), ("EventID", Some("4624"))]);
    let rule = "title: t\nid: r\nlogsource: {product: windows, category: registry_add}\n\
                detection:\n  s: {EventType: CreateKey}\n  condition: s\n";
    check(
        &[rule],
        0,
        event,
        &expect![[r#"
        rule "t" (r) does not match
        ✗ log source windows/registry_add/-
          ✗ declared: the event is declared windows/-/-
          ✗ channel Microsoft-Windows-Sysmon/Operational, event 12: its channel is Security
        ✗ s
          ✗ EventType wants "CreateKey": no such field
        nearest miss, 2 parts:
          log source would have to hold
          s: EventType would have to hold
    "#]],
    );
    let event = windows(&[
        ("Provider_Name", Some("Microsoft-Windows-Sysmon")),
        ("EventID", Some("12")),
        ("EventType", Some("DeleteKey")),
    ]);
    check(
        &[rule],
        0,
        event,
        &expect![[r#"
        rule "t" (r) does not match
        ✗ log source windows/registry_add/-
          ✗ declared: the event is declared windows/-/-
          ✗ channel Microsoft-Windows-Sysmon/Operational, event 12: its EventType is DeleteKey, not CreateKey
        ✗ s
          ✗ EventType wants "CreateKey": saw "DeleteKey"
        nearest miss, 2 parts:
          log source would have to hold
          s: EventType would have to hold
    "#]],
    );
}

#[test]
fn keywords_and_filters_are_shown_in_the_words_of_their_texts() {
    let rule = "title: t\nid: r\nlogsource: {product: linux, service: sshd}\n\
                detection:\n  keywords: [Failed, Invalid]\n  condition: keywords\n";
    let filter = "title: Our scanner\nid: f\nlogsource: {product: linux, service: sshd}\n\
                  filter:\n  rules: [r]\n  ours: {source_ip: 10.0.0.7}\n  condition: not ours\n";
    let fields = [("source_ip", Some("10.0.0.7"))];
    let event = (log_source("linux", "", "sshd"), &fields[..], "Failed password for root");
    check(
        &[rule, filter],
        0,
        event,
        &expect![[r#"
        rule "t" (r) does not match
        ✓ log source linux/-/sshd: declared
        ✗ all of these
          ✓ keywords
            ✓ any of
              ✓ keyword has "Failed"
              ✗ keyword wants "Invalid"
          ✗ filter "Our scanner"
            ✗ not
              ✓ ours
                ✓ source_ip has "10.0.0.7": saw "10.0.0.7"
        nearest miss, 1 part:
          ours: source_ip must not hold
    "#]],
    );
}

#[test]
fn a_correlation_says_for_which_of_its_rules_the_event_counts() {
    let texts = [
        "title: Failed\nid: base\nname: failed\nlogsource: {product: linux, service: sshd}\n\
         detection:\n  s: {event_type: failed}\n  condition: s\n",
        "title: Many failed\nid: many\ncorrelation:\n  type: value_count\n  rules: [failed]\n  group-by: [source_ip]\n  \
         timespan: 5m\n  condition: {gte: 3, field: user}\n",
    ];
    let fields = [("event_type", Some("failed")), ("user", Some("root"))];
    check(
        &texts,
        1,
        (log_source("linux", "", "sshd"), &fields, "{}"),
        &expect![[r#"
            rule "Many failed" (many) does not match
            ✗ does not count; grouped by or counting source_ip, which the event does not have, user "root"
              rule "Failed" (base) matches
              ✓ log source linux/-/sshd: declared
              ✓ s
                ✓ event_type has "failed": saw "failed"
        "#]],
    );
}

#[test]
fn an_explanation_is_json() {
    let rules = rules(&["title: t\nid: r\nlogsource: {product: linux}\ndetection:\n  s: {A: b}\n  condition: s\n"]);
    let event = event(log_source("linux", "", ""), &[("A", Some("c"))], "{}");
    let explanation = rules.explain(rules.indexes().next().unwrap(), &event);
    expect![[r#"
        {
          "rule": "r",
          "title": "t",
          "file": "test.yml",
          "line": 1,
          "matched": false,
          "disabled": false,
          "log_source": {
            "wanted": "linux/-/-",
            "declared": "linux/-/-",
            "fits": true,
            "by": "declared",
            "ways": [
              {
                "by": "declared",
                "fits": true
              },
              {
                "by": "any channel of linux",
                "fits": false,
                "why": "the event has no channel that is known"
              }
            ]
          },
          "condition": {
            "what": "selection",
            "text": "s",
            "holds": false,
            "parts": [
              {
                "what": "field",
                "text": "A",
                "holds": false,
                "wanted": [
                  "b"
                ],
                "saw": [
                  "c"
                ]
              }
            ]
          },
          "nearest_miss": [
            {
              "selection": "s",
              "part": "A",
              "must_hold": true,
              "wanted": [
                "b"
              ],
              "saw": [
                "c"
              ]
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&explanation).unwrap());
}

/// A small linear congruential generator: the same choice on every run.
struct Choice(u64);

impl Choice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// By channel and event id (none: any): plain rules that its events belong to.
fn by_route(parsed: &Parsed, rules: &RuleSet) -> BTreeMap<(String, Option<String>), Vec<RuleIndex>> {
    let mut routes: BTreeMap<_, Vec<RuleIndex>> = BTreeMap::new();
    for (rule, index) in parsed.rules.iter().zip(rules.indexes()) {
        for entry in LogSources::built_in().entries(&rule.log_source) {
            let channel = entry.channel.to_lowercase();
            match entry.category {
                Some(row) => row
                    .event_ids
                    .iter()
                    .for_each(|id| routes.entry((channel.clone(), Some(id.to_string()))).or_default().push(index)),
                None => routes.entry((channel, None)).or_default().push(index),
            }
        }
    }
    routes
}

/// For every event all rules that the scanner met, and some of its log sources that it did not: explain says the same.
#[track_caller]
fn check_verdicts(public: &Public, events: &[Event], others: usize) {
    let rules = &public.rules;
    let routes = by_route(&public.parsed, rules);
    let mut scanner = Scanner::new(Arc::clone(rules));
    let all: Vec<RuleIndex> = rules.indexes().filter(|index| !rules.rule(*index).unwrap().correlation).collect();
    let (mut choice, mut hits, mut asked) = (Choice(7), Vec::new(), [0_usize; 3]);
    for event in events {
        hits.clear();
        scanner.scan(event, &mut hits);
        let value = |field: &str| event.fields.first(Name::intern(field)).unwrap_or_default().to_lowercase();
        let ids = [Some(value("EventID")), None];
        let own = ids.into_iter().filter_map(|id| routes.get(&(value("Channel"), id))).flatten();
        let own: Vec<RuleIndex> = own.copied().collect();
        let mut chosen: Vec<RuleIndex> = (0..others / 4).map(|_| all[choice.below(all.len())]).collect();
        if !own.is_empty() {
            chosen.extend((0..others).map(|_| own[choice.below(own.len())]));
        }
        for rule in hits.iter().chain(&chosen) {
            let explanation = rules.explain(*rule, event);
            let met = hits.contains(rule);
            assert_eq!(explanation.matched, met, "{explanation}\n{}", String::from_utf8_lossy(&event.raw));
            assert!(met || !explanation.nearest_miss.is_empty(), "{explanation}");
            asked[if met { 2 } else { usize::from(explanation.log_source.unwrap().fits) }] += 1;
        }
    }
    eprintln!("{} events: {} matches, {} others, {} of other log sources", events.len(), asked[2], asked[1], asked[0]);
    assert!(asked.iter().all(|count| *count > 0));
}

#[test]
fn verdicts_on_the_regression_cases_are_the_scanners() {
    let (Some(public), Some(dir), Some(table)) = (public_rules(), regression_dir(), shared("sigma/regression.tsv"))
    else {
        return;
    };
    let table = std::fs::read_to_string(table).unwrap();
    let mut all = Vec::new();
    for line in table.lines().skip(1) {
        all.extend(events(&dir.join(line.split('\t').nth(2).unwrap().replace(".evtx", ".json")), 1));
    }
    check_verdicts(public, &all, 12);
}

#[test]
fn verdicts_on_background_are_the_scanners() {
    let (Some(public), Some(path)) = (public_rules(), shared("events/otrf_windows_400k.jsonl.zst")) else { return };
    // 20,000 events with COUNTERFLOW_ALL_PAIRS=1, with 200 rules each.
    let all = std::env::var("COUNTERFLOW_ALL_PAIRS").is_ok();
    check_verdicts(public, &events(&path, if all { 20 } else { 1_999 }), if all { 200 } else { 30 });
}
