//! What the linter says, as a table: one line of a rule that is otherwise as it should be, and the code.

use cf_sigma::{Severity, Text, codes, lint, parse};

use crate::world::text;

const GOOD: &str = "\
title: Encoded command
id: 5b3c1f0e-8a57-4c39-9d0e-3f5f0c1d2e4a
status: test
description: Somebody hides what is run.
references: [https://attack.mitre.org/techniques/T1027/]
author: Us
date: 2026-01-31
modified: 2026-02-01
tags: [attack.stealth, attack.t1027.010, car.2013-05-002, cve.2021-44228, detection.threat-hunting, tlp.amber, stp.3k, d3fend.d3f-WindowsNtOpenFile]
logsource: {product: windows, category: process_creation}
detection:
  selection: {Image|endswith: '\\powershell.exe', CommandLine|contains: [' -enc ', ' -ec ']}
  condition: selection
falsepositives: [Administrators]
level: medium
";

fn said(texts: &[Text]) -> Vec<String> {
    let problems = lint(texts, &parse(texts));
    assert!(problems.iter().all(|problem| problem.severity == Severity::Warning && problem.line > 0));
    problems.iter().map(|problem| format!("{} {}:{}", problem.code, problem.line, problem.column)).collect()
}

#[track_caller]
fn check(rule: &str, expect: &[&str]) {
    assert_eq!(said(&[text("rules/encoded_command.yml", rule)]), expect, "{rule}");
}

#[test]
fn a_good_rule_is_left_alone() {
    check(GOOD, &[]);
}

#[test]
fn attributes_are_looked_at() {
    for (line, expect) in [
        ("title: ", &["no_title"][..]),
        ("id: 17", &["id_form 2:5"]),
        ("id: 5b3c1f0e-8a57-4c39-9d0e-3f5f0c1d2e4g", &["id_form 2:5"]),
        ("description: ''", &["no_description 1:1"]),
        ("author:", &["no_author 1:1"]),
        ("status:", &["no_status 1:1"]),
        ("level:", &["no_level 1:1"]),
        ("date:", &["no_date 1:1"]),
        ("tags: []", &["no_tags 1:1"]),
        ("falsepositives:", &["no_falsepositives 1:1"]),
        ("status: deprecated", &["deprecated_alone 1:1"]),
        ("references: [a book]", &["reference_form 5:14"]),
        ("modified: 2026-01-30", &["date_order 8:11"]),
        ("tags: [attack.t1027, attack.t1027]", &["tag_repeated 9:22"]),
        ("tags: [T1027]", &["tag_form 9:8"]),
        ("tags: [Attack.T1027]", &["tag_form 9:8"]),
        ("tags: [atack.t1027]", &["tag_namespace 9:8"]),
        ("tags: [attack.t10]", &["tag_value 9:8"]),
        ("tags: [attack.persistance]", &["tag_value 9:8"]),
        ("tags: [tlp.blue]", &["tag_value 9:8"]),
        ("tags: [stp.9]", &["tag_value 9:8"]),
        (
            "logsource: {product: Windows, category: process creation}",
            &["unknown_logsource 10:12", "logsource_form 10:22", "logsource_form 10:41"],
        ),
        ("logsource: {product: windows, category: proces_creation}", &["unknown_logsource 10:12"]),
    ] {
        let key = line.split(':').next().unwrap();
        let rule: String = GOOD
            .lines()
            .map(|old| if old.starts_with(&format!("{key}:")) { format!("{line}\n") } else { format!("{old}\n") })
            .collect();
        if expect == ["no_title"] {
            continue; // refused by `parse`, which says so
        }
        check(&rule, expect);
    }
    check(&format!("{GOOD}falsepostives: [x]\nour_field: 1\n"), &["attribute_name 16:1"]);
    let long = GOOD.replace("Encoded command", &"x".repeat(257));
    check(&long, &["title_length 1:8"]);
    let long = GOOD.replace("Somebody hides what is run.", &"x".repeat(65_536));
    check(&long, &["description_length 4:14"]);
    assert_eq!(said(&[text("Encoded-Command.yaml", GOOD)]), ["file_name 1:1"]);
}

#[test]
fn selections_and_conditions_are_looked_at() {
    for (detection, expect) in [
        ("selection: {Image: a, Comandline: b}\n  condition: selection", &["field_name 12:25"][..]),
        ("selection: {image: a}\n  condition: selection", &["field_name 12:15"]),
        ("selection: {Image|contains: '*abc*'}\n  condition: selection", &["redundant_wildcard 12:31"]),
        ("selection: {Image|endswith: '*abc'}\n  condition: selection", &["redundant_wildcard 12:31"]),
        ("selection: {Image|startswith: '*abc'}\n  condition: selection", &[]),
        ("selection: {Image: '*abc'}\n  condition: selection", &["wildcard_modifier 12:22"]),
        ("selection: {Image: '*a*c*'}\n  condition: selection", &["no_anchor 1:1"]),
        ("selection: {Image: [abc]}\n  condition: selection", &["single_element_list 12:15"]),
        ("selection: {Image|contains|all: [abc]}\n  condition: selection", &["all_of_one 12:15"]),
        ("selection: {Image: [abc, ABC]}\n  condition: selection", &["repeated_value 12:28"]),
        ("selection: {Image|cased: [abc, ABC]}\n  condition: selection", &[]),
        ("selection: {Image|contains: [abcd, bcd]}\n  condition: selection", &["covered_value 12:32"]),
        ("selection: {Image|contains|all: [abcd, bcd]}\n  condition: selection", &["covered_value 12:42"]),
        ("selection: {Image|contains: [ab, cde]}\n  condition: selection", &["no_anchor 1:1", "short_text 12:32"]),
        ("selection: {Image|contains: 'é'}\n  condition: selection", &["no_anchor 1:1"]),
        (r"selection: {Image: 'C:\Windows\*'}", &["escaped_wildcard 12:22"]),
        (r"selection: {Image: '\*abc\*'}", &[]),
        ("selection: {CommandLine|base64offset|contains: IEX}\n  condition: selection", &["base64_not_wide 12:15"]),
        ("selection: {CommandLine|wide|base64offset|contains: IEX}\n  condition: selection", &[]),
        ("selection: {CommandLine|wide|base64|contains: IEX}\n  condition: selection", &["base64_offset 12:15"]),
        ("selection: {Image|re: 'abc'}\n  condition: selection", &["regex_text 12:25"]),
        ("selection: {Image|re: '^abc$'}\n  condition: selection", &["regex_text 12:25"]),
        ("selection: {Image|re: '.*ab+c'}\n  condition: selection", &["no_anchor 1:1", "regex_ends 12:25"]),
        ("selection: {Image|re: 'abc\\d'}\n  condition: selection", &[]),
        ("selection: [ab, abcd]\n  condition: selection", &["no_anchor 1:1", "short_keyword 12:15"]),
        ("selection: ['*abcd*']\n  condition: selection", &["redundant_wildcard 12:15"]),
        ("selection: {Image: abc}\n  other: {Image: def}\n  condition: selection", &["unused_selection 13:3"]),
        (
            "selection: {Image: abc}\n  other: {Image: abc}\n  condition: selection or other",
            &["repeated_selection 13:3"],
        ),
        ("selection: {Image: abc}\n  condition: selection and not selection", &["always_false 13:14"]),
        ("selection: {Image: abc}\n  condition: selection or not selection", &["no_anchor 1:1", "always_true 13:14"]),
        ("selection: {Image: abc}\n  condition: not selection", &["no_anchor 1:1", "only_negative 13:14"]),
        ("selection: {Image: abc}\n  condition: all of them", &["all_of_them 13:14"]),
        ("selection: [abc, def]\n  condition: all of selection", &["all_of_list 13:14"]),
        ("selection: {EventID: 1}\n  condition: 1 of sel*", &[]),
    ] {
        let begin = GOOD.find("  selection:").unwrap();
        let end = GOOD.find("falsepositives").unwrap();
        let detection = if detection.contains("condition") {
            detection.to_owned()
        } else {
            format!("{detection}\n  condition: selection")
        };
        let rule = format!("{}  {detection}\n{}", GOOD.get(..begin).unwrap(), GOOD.get(end..).unwrap());
        check(&rule, expect);
    }
}

#[test]
fn correlations_and_filters_are_looked_at() {
    let head = GOOD.get(..GOOD.find("logsource").unwrap()).unwrap();
    let correlation = |body: &str| {
        format!("{head}falsepositives: none known\nlevel: low\ncorrelation: {{rules: [a], timespan: 5m, {body}}}\n")
    };
    check(&correlation("type: event_count, group-by: [a], condition: {gte: 3}"), &[]);
    check(&correlation("type: event_count, condition: {gte: 3}"), &["no_group_by 12:14"]);
    check(&correlation("type: event_count, group-by: [a], condition: {lt: 3}"), &["no_lower_bound 12:86"]);
    check(&correlation("type: event_count, group-by: [a], condition: {gt: 3, lt: 2}"), &["always_false 12:86"]);
    let filter = "title: F\nlogsource: {product: windows, category: process_creation}\nfilter:\n  rules: any\n  selection: {User|contains: '*adm*'}\n  other: {User: adm}\n  condition: not selection\n";
    check(filter, &["redundant_wildcard 5:30", "unused_selection 6:3"]);
}

#[test]
fn sets_are_looked_at() {
    let rule = |id: &str, name: &str| {
        text(
            "rules/encoded_command.yml",
            &GOOD.replace("5b3c1f0e", id).replace("status: test", &format!("status: test\nname: {name}")),
        )
    };
    assert_eq!(said(&[rule("5b3c1f0e", "a"), rule("5b3c1f0f", "b")]), ["duplicate_title 1:1"]);
    assert_eq!(said(&[rule("5b3c1f0e", "a"), rule("5b3c1f0f", "a")]), ["duplicate_title 1:1", "duplicate_name 1:1"]);
    // A name that several rules use is no misspelling.
    let mut texts: Vec<Text> = (0..3)
        .map(|number| {
            let rule = GOOD.replace("5b3c1f0e", &format!("5b3c1f0{number}"));
            text("rules/encoded_command.yml", &rule.replace("Encoded", &number.to_string()).replace("Image|", "Imagf|"))
        })
        .collect();
    assert_eq!(said(&texts), Vec::<String>::new());
    texts.pop();
    assert_eq!(said(&texts), ["field_name 12:15", "field_name 12:15"]);
}

#[test]
fn every_code_of_the_linter_is_met_by_a_test() {
    // Those of `parse` are asserted where a problem is made (debug builds).
    let here = include_str!("lint.rs");
    let sources = [
        include_str!("../../lint.rs"),
        include_str!("../../lint/head.rs"),
        include_str!("../../lint/detection.rs"),
        include_str!("../../lint/values.rs"),
        include_str!("../../lint/fields.rs"),
        include_str!("../../lint/cost.rs"),
    ];
    let missing: Vec<&str> = codes()
        .iter()
        .map(|(code, _)| *code)
        .filter(|code| sources.iter().any(|source| source.contains(&format!("\"{code}\","))))
        .filter(|code| !here.contains(&format!("{code} ")) && !["condition", "related", "timeframe"].contains(code))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}
