//! Whatever the text: no panic, problems with a place in it, and the same result each time.

use cf_sigma::{Options, ParseOptions, RuleSet, Scanner, Severity, Text, lint, parse_with};
use proptest::prelude::*;

use crate::world::{event, hits, log_source, text};

/// Reads, lints, compiles and meets an event. What is refused has an error, what is loaded has none that takes it down.
fn check(rule: &str) -> Result<(), TestCaseError> {
    let texts: Vec<Text> = vec![text("x.yml", rule)];
    let options = ParseOptions {
        placeholders: [("p".to_owned(), vec!["a*".to_owned(), "10.0.0.0/8".to_owned(), "(".to_owned()])].into(),
        ..ParseOptions::default()
    };
    let parsed = parse_with(&texts, &options);
    let linted = lint(&texts, &parsed);
    let (rules, problems) = RuleSet::compile(parsed.clone(), &Options::default());
    let lines = u32::try_from(rule.lines().count()).unwrap() + 1;
    for problem in problems.iter().chain(&linted) {
        prop_assert!((1..=lines).contains(&problem.line) && problem.column > 0, "{problem} of {rule:?}");
        prop_assert!(problem.message.len() < 2_000, "{problem}");
    }
    prop_assert!(linted.iter().all(|problem| problem.severity == Severity::Warning));
    prop_assert_eq!(lint(&texts, &parsed), linted);
    let event = event(log_source("p", "", ""), &[("F", Some("a b")), ("G", Some("2026-01-05T14:07:00Z"))], "{}");
    let hash = rules.hash().to_owned();
    let met = hits(&mut Scanner::new(rules.into()), &event);
    let (again, _) = RuleSet::compile(parse_with(&texts, &options), &Options::default());
    prop_assert_eq!(again.hash(), hash);
    prop_assert_eq!(hits(&mut Scanner::new(again.into()), &event), met);
    Ok(())
}

/// Words that mean something somewhere, and some that mean nothing.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "title",
        "id",
        "name",
        "related",
        "type",
        "taxonomy",
        "status",
        "level",
        "tags",
        "date",
        "logsource",
        "product",
        "category",
        "service",
        "detection",
        "condition",
        "timeframe",
        "correlation",
        "rules",
        "group-by",
        "timespan",
        "aliases",
        "generate",
        "field",
        "gte",
        "lt",
        "eq",
        "percentile",
        "filter",
        "selection",
        "any",
        "action",
        "global",
        "repeat",
        "reset",
        "rule",
        "conditions",
        "operator",
        "value",
        "threshold",
        "timewindow",
        "actions",
        "playbook",
        "disable",
        "event_count",
        "value_count",
        "temporal",
        "temporal_ordered",
        "value_sum",
        "5m",
        "1M",
        "0s",
        "s",
        "1",
        "-1",
        "1.5",
        "18446744073709551616",
        "true",
        "'null'",
        "~",
        "''",
        "p",
        "F",
        "G",
        "a",
        "2026-01-05",
        "them",
        "sel*",
        "1 of s*",
        "all of them",
        "3 of them",
        "not s",
        "s and t",
        "(s or t) and not s",
        "s | count() by F > 1",
        "s | near t and not u",
        "'%p%'",
        "'\\%p%%p%'",
        "10.0.0.0/8",
        "'fe80::/10'",
        "'*a*'",
        "'\\*'",
        "'a?'",
        "count",
        "distinct_count",
        "equals",
        "between",
        "cidr",
        "exists",
        "regex",
        "'(a|b)+'",
        "'['",
        "é",
        "\"\\u0000\"",
        "&x a",
        "'|all'",
        "'F|contains'",
        "'F|contains|all'",
        "'F|re'",
        "'F|re|i|m|s'",
        "'F|cidr|expand'",
        "'F|expand'",
        "'F|windash|contains'",
        "'F|base64offset|contains'",
        "'F|wide|base64'",
        "'F|utf16'",
        "'F|fieldref|endswith'",
        "'F|neq'",
        "'F|gt'",
        "'G|hour'",
        "'G|year|gte'",
        "'F|exists'",
        "'F|cased'",
        "'F|contians'",
        "'F|'",
        "'|'",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "[ -~]{0,8}".prop_map(|text| format!("'{}'", text.replace('\'', "''")))]
}

/// A tree of such words, as flow YAML.
fn tree() -> impl Strategy<Value = String> {
    word().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            3 => prop::collection::vec((word(), inner), 0..5).prop_map(|entries| {
                let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", entries.join(", "))
            }),
        ]
    })
}

/// Documents that look like rules, with something odd in each part.
fn document() -> impl Strategy<Value = String> {
    let detection = prop::collection::vec((prop::sample::select(vec!["s", "t", "_u", "sel_1", "rules"]), tree()), 0..4);
    let condition = prop_oneof![2 => Just("s".to_owned()), 1 => word(), 1 => tree()];
    let kind = prop::sample::select(vec!["detection", "detection", "filter", "correlation"]);
    let extra = prop::collection::vec((word(), tree()), 0..3);
    (kind, detection, condition, extra).prop_map(|(kind, selections, condition, extra)| {
        let mut text = format!("title: T\nlogsource: {{product: p}}\n{kind}:\n  condition: {condition}\n");
        selections.iter().for_each(|(name, value)| text.push_str(&format!("  {name}: {value}\n")));
        extra.iter().for_each(|(key, value)| text.push_str(&format!("{key}: {value}\n")));
        text
    })
}

const REAL: &str = "action: global\ntitle: T\nid: g\nlogsource: {product: p, category: c}\n---\ndetection:\n  s:\n    F|contains|all:\n      - 'a b'\n      - \"c\\n\"\n  t: [x, {G|re: '^a.*b$'}]\n  condition: s and not 1 of t*\nlevel: high\n---\naction: reset\n---\ntitle: C\nid: c\ncorrelation:\n  type: value_count\n  rules: [g]\n  group-by: [F]\n  timespan: 5m\n  condition: {field: F, gte: 3}\n---\ntitle: X\nlogsource: {product: p}\nfilter:\n  rules: any\n  s: {F|expand: '%p%'}\n  condition: not s\n---\nrule:\n  id: r\n  name: n\n  conditions:\n    - {field: F, operator: in, value: [a, b]}\n    - {field: G, operator: count, threshold: 5, timewindow: 5m}\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_is_read_or_refused(rule in any::<String>()) {
        check(&rule)?;
    }

    #[test]
    fn arbitrary_trees_are_read_or_refused(documents in prop::collection::vec(tree(), 1..4)) {
        check(&documents.join("\n---\n"))?;
    }

    #[test]
    fn odd_rules_are_read_or_refused(documents in prop::collection::vec(document(), 1..4)) {
        check(&documents.join("---\n"))?;
    }

    #[test]
    fn broken_rules_are_read_or_refused(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4usize, "[ -~\n\u{e9}]{0,3}"), 1..6),
    ) {
        let mut chars: Vec<char> = REAL.chars().collect();
        for (place, cut, put) in &edits {
            let begin = place.index(chars.len() + 1);
            let end = chars.len().min(begin + cut);
            chars.splice(begin..end, put.chars());
        }
        check(&chars.into_iter().collect::<String>())?;
    }
}
