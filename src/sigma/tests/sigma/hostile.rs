//! Texts that want time or memory.

use std::time::Duration;

use cf_sigma::{Options, ParseOptions, RuleSet, lint, parse, parse_with};

use crate::world::text;

/// A bad text is refused within a bound that a slow machine keeps too.
#[track_caller]
#[allow(clippy::disallowed_methods)] // only here: a bound on time is what is tested
fn check(what: &str, rule: &str, expect: &str) {
    let begin = std::time::Instant::now();
    let (rules, problems) = RuleSet::compile(parse(&[text("h.yml", rule)]), &Options::default());
    assert!(begin.elapsed() < Duration::from_secs(10), "{what}: {:?}", begin.elapsed());
    assert_eq!(rules.rules().len(), 0, "{what}");
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(all.iter().any(|problem| problem.contains(expect)), "{what}: {all:?}");
}

#[test]
fn hostile_texts_are_refused_in_bounded_time() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    check("aliases", &bomb, "nodes");
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1_000].join(", "));
    check("long aliases", &long, "nodes or");
    check("flow depth", &"[".repeat(1 << 20), "could not read");
    check(
        "map depth",
        &(0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth % 2_000))).collect::<String>(),
        "could not read",
    );
    check("size", &"#".repeat(5 << 20), "bytes");
    check("nodes", &format!("a: [{}]", "x, ".repeat(500_000)), "nodes");

    let rule = |detection: &str| format!("title: T\nid: i\nlogsource: {{product: p}}\ndetection:\n{detection}\n");
    check(
        "parentheses",
        &rule(&format!("  s: {{F: x}}\n  condition: '{}s{}'", "(".repeat(100_000), ")".repeat(100_000))),
        "nested deeper",
    );
    check(
        "all of all",
        &rule(&format!("  s: {{F: x}}\n  condition: {}s", "1 of them or ".repeat(100_000))),
        "selections",
    );
    check("expression", &rule("  s: {F|re: '((((a{100}){100}){100}){100}){100}'}\n  condition: s"), "needs more than");
    check(
        "expression depth",
        &rule(&format!("  s: {{F|re: '{}a{}'}}\n  condition: s", "(".repeat(10_000), ")".repeat(10_000))),
        "expression",
    );
    let words = |count: usize, word: &dyn Fn(usize) -> String| (0..count).map(word).collect::<Vec<_>>().join(", ");
    let dashes = words(2_000, &|number| format!("' -a{number} -b -c'"));
    check("dashes", &rule(&format!("  s: {{F|windash|contains: [{dashes}]}}\n  condition: s")), "values");
    let values = words(20_000, &|number| number.to_string());
    check("copies", &rule(&format!("  s: {{F: [{values}]}}\n  condition: s or s or s")), "values");
    let expressions = words(3_000, &|number| format!("'a{number}b'"));
    check("expressions", &rule(&format!("  s: {{F|re: [{expressions}]}}\n  condition: s")), "regular expressions");
    let selections: String = (0..5_000).map(|number| format!("  s{number}: {{F: x{number}}}\n")).collect();
    check("selections", &rule(&format!("{selections}  condition: 1 of s*")), "selections");
}

#[test]
fn collections_filters_and_counts_do_not_multiply() {
    let values = |count: usize| (0..count).map(|number| format!("v{number}")).collect::<Vec<_>>().join(", ");
    let source = "logsource: {product: p}\n";
    // A large global, merged into each of many documents.
    let global =
        format!("action: global\ntitle: T\n{source}detection: {{s: {{F: [{}]}}, condition: t}}\n", values(20_000));
    check("collection", &format!("{global}{}", "---\nid: x\n".repeat(50_000)), "nodes");
    let keys: String = (0..60_000).map(|number| format!("k{number}: x\n")).collect();
    check("keys", &format!("action: global\n{keys}---\n{keys}"), "no `detection`");
    let nothing: String = (0..3_000).map(|number| format!("n{number}, ")).collect();
    let filter = format!("title: F\n{source}filter: {{rules: [{nothing}], s: {{F: x}}, condition: not s}}\n");
    check("references", &filter, "unknown rule");
    let selections: String = (0..64).map(|number| format!("  s{number}: {{F: x{number}}}\n")).collect();
    check(
        "choices",
        &format!("title: T\nid: i\n{source}detection:\n{selections}  condition: 32 of them\n"),
        "selections",
    );
    let aggregation = format!("s | count({}", "(".repeat(100_000));
    check(
        "aggregation",
        &format!("title: T\nid: i\n{source}detection:\n  s: {{F: x}}\n  condition: '{aggregation}'\n"),
        "of Sigma 1",
    );
    let nots = "not ".repeat(200_000);
    let condition = format!("title: T\nid: i\n{source}detection:\n  s: {{F: x}}\n  condition: {nots}t\n");
    check("negations", &condition, "which is not there");
}

#[test]
fn placeholders_do_not_multiply() {
    let values: Vec<String> = (0..1_000).map(|number| format!("v{number}")).collect();
    let options = ParseOptions { placeholders: [("p".to_owned(), values)].into(), ..ParseOptions::default() };
    let rule = |value: &str| {
        let rule = format!(
            "title: T\nid: i\nlogsource: {{product: p}}\ndetection:\n  s: {{F|expand: {value}}}\n  condition: s\n"
        );
        parse_with(&[text("h.yml", &rule)], &options)
    };
    assert_eq!(rule("'%p%'").rules.len(), 1);
    assert_eq!(rule("'%p%%p%%p%'").problems[0].code, "too_many_tests");
    assert_eq!(rule(&format!("[{}]", "'%p%', ".repeat(100))).problems[0].code, "too_many_tests");
}

/// A filter for all rules is copied into each: all copies together are bounded.
#[test]
fn filters_of_thousands_of_rules_are_bounded() {
    let values = (0..10_000).map(|number| format!("v{number}")).collect::<Vec<_>>().join(", ");
    let mut texts = vec![text(
        "f.yml",
        &format!(
            "title: F\nlogsource: {{product: p}}\nfilter: {{rules: any, s: {{F: [{values}]}}, condition: not s}}\n"
        ),
    )];
    texts.extend((0..200).map(|number| {
        let rule =
            format!("title: T\nid: i{number}\nlogsource: {{product: p}}\ndetection: {{s: {{F: x}}, condition: s}}\n");
        text(&format!("{number}.yml"), &rule)
    }));
    let (rules, problems) = RuleSet::compile(parse(&texts), &Options::default());
    assert_eq!((rules.rules().len(), problems[0].code), (200, "too_many_tests"));
}

/// Twice as much text takes about twice as long, not four times.
#[test]
#[allow(clippy::disallowed_methods)] // only here: a bound on time is what is tested
fn lint_takes_bounded_time() {
    let rule = |count: usize| {
        let values = (0..count).map(|number| format!("'a{number}*'")).collect::<Vec<_>>().join(", ");
        let selections: String = (0..count / 20).map(|number| format!("  s{number}: {{F: x{number}}}\n")).collect();
        text(
            "h.yml",
            &format!(
                "title: T\nid: i\nlogsource: {{product: windows}}\ndetection:\n  s: {{F|contains: [{values}]}}\n{selections}  condition: s\n"
            ),
        )
    };
    let texts = [rule(20_000)];
    let parsed = parse(&texts);
    let begin = std::time::Instant::now();
    let problems = lint(&texts, &parsed);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(problems.len() > 20_000);
}

#[test]
fn many_dashes_do_not_multiply() {
    let dashes = " -a".repeat(40);
    let rule = format!(
        "title: T\nid: i\nlogsource: {{product: p}}\ndetection:\n  s: {{F|windash|contains: '{dashes}'}}\n  condition: s\n"
    );
    let (rules, problems) = RuleSet::compile(parse(&[text("h.yml", &rule)]), &Options::default());
    assert_eq!((rules.rules().len(), problems.len()), (1, 0));
}
