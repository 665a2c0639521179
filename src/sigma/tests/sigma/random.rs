//! Random rules on random events: the matcher against the oracle.

use cf_oracle::{Event, Oracle};
use cf_sigma::{Options, RuleSet, Scanner, parse};
use proptest::prelude::*;

use crate::world::{event, hits, log_source, sources, text};

const FIELDS: [&str; 6] = ["A", "B", "Image", "CommandLine", "EventID", "EventType"];
const SOURCES: [&str; 7] = [
    "{product: windows, category: process_creation}",
    "{product: windows, service: security}",
    "{product: windows, category: registry_delete}",
    "{product: windows}",
    "{category: process_creation}",
    "{product: linux, service: auth}",
    "{product: windows, service: sysmon}",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abAB]{0,3}",
        4 => "(abcd|ABCE|wxyz|éÉ|ſsS|σςΣ|kK\u{212a}|ab){1,3}",
        1 => Just("1".to_owned()),
        1 => Just("12".to_owned()),
        1 => Just("4688".to_owned()),
        1 => Just("DeleteKey".to_owned()),
        1 => Just("10.0.0.1".to_owned()),
    ]
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![3 => value(), 1 => (value(), "[*?]{1,2}", value()).prop_map(|(left, wildcard, right)| left + &wildcard + &right)]
}

fn item() -> impl Strategy<Value = String> {
    let modifiers = prop_oneof![
        Just(""),
        Just("|contains"),
        Just("|startswith"),
        Just("|endswith"),
        Just("|contains|all"),
        Just("|cased"),
        Just("|contains|cased"),
        Just("|neq"),
        Just("|windash|contains"),
        Just("|base64offset|contains"),
        Just("|gt"),
        Just("|cidr"),
        Just("|exists"),
        Just("|fieldref"),
        Just("|re"),
        Just("|re|i"),
        Just("null"),
    ];
    (0..FIELDS.len(), modifiers, prop::collection::vec(pattern(), 1..10)).prop_map(|(field, modifiers, values)| {
        let field = FIELDS[field];
        let quoted = |value: &String| format!("'{}'", value.replace('\'', "''"));
        match modifiers {
            "|gt" => format!("{field}|gt: 11"),
            "|cidr" => format!("{field}|cidr: 10.0.0.0/24"),
            "|exists" => format!("{field}|exists: {}", values.len() % 2 == 0),
            "|fieldref" => format!("{field}|fieldref: A"),
            "null" => format!("{field}: null"),
            "|re" | "|re|i" => format!(
                "{field}{modifiers}: '{}'",
                regex::escape(&values[0]).replace("\\*", ".*").replace("\\?", "(a|bcd|é)")
            ),
            "|base64offset|contains" => format!("{field}{modifiers}: abc"),
            _ => format!("{field}{modifiers}: [{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", ")),
        }
    })
}

fn rule() -> impl Strategy<Value = String> {
    let selection = prop_oneof![
        4 => prop::collection::btree_map("x", item(), 1..2).prop_map(|items| items.into_values().collect::<Vec<_>>()),
        2 => prop::collection::vec(item(), 1..3),
    ];
    let keyword = prop_oneof![5 => Just(None), 1 => value().prop_map(Some)];
    let condition = prop_oneof![
        Just("s0"),
        Just("s0 and s1"),
        Just("s0 or s1"),
        Just("s0 and not s1"),
        Just("not s0"),
        Just("1 of s*"),
        Just("all of them"),
        Just("not (s0 and s1)"),
        Just("s0 and not (s1 or s2)"),
    ];
    (0..SOURCES.len(), prop::collection::vec(selection, 3), keyword, condition).prop_map(
        |(source, selections, keyword, condition)| {
            let mut text = format!("title: t\nlogsource: {}\ndetection:\n  condition: {condition}\n", SOURCES[source]);
            for (number, items) in selections.iter().enumerate() {
                text.push_str(&format!("  s{number}:\n"));
                match &keyword {
                    Some(keyword) if number == 0 => {
                        text.push_str(&format!("    - '{}'\n", keyword.replace('\'', "''")))
                    }
                    // A list of maps, because one map may not have a key twice.
                    _ => items.iter().for_each(|item| text.push_str(&format!("    - {item}\n"))),
                }
            }
            text
        },
    )
}

type Row = Vec<(usize, Option<String>)>;

fn row() -> impl Strategy<Value = (usize, usize, Row)> {
    let field = (0..FIELDS.len(), prop_oneof![9 => value().prop_map(Some), 1 => Just(None)]);
    (0..5usize, 0..5usize, prop::collection::vec(field, 0..8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_rules_meet_random_events_as_the_oracle_says(
        list in prop::collection::vec(rule(), 1..12),
        rows in prop::collection::vec(row(), 1..12),
    ) {
        let texts: Vec<_> = list.iter().enumerate().map(|(number, rule)| text(&format!("{number}.yml"), &format!("id: r{number:02}\n{rule}"))).collect();
        let (compiled, problems) = RuleSet::compile(parse(&texts), &Options::default());
        prop_assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
        let mut scanner = Scanner::new(compiled.into());
        let oracle = Oracle::new(texts.iter().map(|text| text.text.as_str()), sources());
        for (channel, declared, fields) in &rows {
            let mut pairs: Vec<(&str, Option<&str>)> = fields.iter().map(|(field, value)| (FIELDS[*field], value.as_deref())).collect();
            match channel {
                0 => pairs.push(("Channel", Some("Microsoft-Windows-Sysmon/Operational"))),
                1 => pairs.push(("Channel", Some("SECURITY"))),
                2 => pairs.push(("Provider_Name", Some("Microsoft-Windows-Sysmon"))),
                3 => pairs.push(("Channel", Some("Other"))),
                _ => {}
            }
            let declared = match declared {
                0 | 1 => log_source("windows", "", ""),
                2 => log_source("windows", "process_creation", "sysmon"),
                3 => log_source("linux", "", "sshd"),
                _ => log_source("", "", ""),
            };
            let event = event(declared, &pairs, if *channel == 4 { "a line with abcdé and wxyz" } else { "{}" });
            let found = hits(&mut scanner, &event);
            prop_assert_eq!(found, oracle.hits(&Event::of(&event)), "{:?} on {:?}", list, event);
        }
    }
}
