//! What is said of bad rules.

use cf_sigma::{Options, RuleSet, parse};
use expect_test::{Expect, expect};

use crate::world::text;

/// Problems of one text, one a line.
#[track_caller]
fn check(rule: &str, expect: &Expect) {
    let (_, problems) = RuleSet::compile(parse(&[text("x.yml", rule)]), &Options::default());
    let lines: Vec<String> = problems.iter().map(|problem| format!("{} {problem}", problem.code)).collect();
    expect.assert_eq(&lines.join("\n"));
}

fn detection(detection: &str) -> String {
    format!("title: T\nid: i\nlogsource: {{product: p}}\ndetection:\n{detection}\n")
}

#[test]
fn mistakes_in_selections_are_told_with_a_hint() {
    check(
        &detection("  s: {F|contain: x}\n  condition: s"),
        &expect![[r#"unknown_modifier rule "T" (x.yml:5): unknown modifier "contain"; did you mean "contains"?"#]],
    );
    check(
        &detection("  s: {F|re: '(?<=a)b'}\n  condition: s"),
        &expect![[
            r#"regex rule "T" (x.yml:5): could not compile the regular expression "(?<=a)b": look-around, including look-ahead and look-behind, is not supported; they cannot be matched in linear time; say it with several fields or a filter"#
        ]],
    );
    check(
        &detection("  s: {F|re: 'a{1000}{1000}'}\n  condition: s"),
        &expect![[
            r#"regex rule "T" (x.yml:5): could not compile the regular expression "a{1000}{1000}": it needs more than 10485760 bytes"#
        ]],
    );
    check(
        &detection("  s: {F|cidr: 10.0.0/8}\n  condition: s"),
        &expect![[r#"value rule "T" (x.yml:5): the value "10.0.0/8" of "F" is no network (`10.0.0.0/8`)"#]],
    );
    check(
        &detection("  s: {F|re|contains: x}\n  condition: s"),
        &expect![[r#"modifiers rule "T" (x.yml:5): the modifiers of "F" cannot stand together"#]],
    );
    check(
        &detection("  s: {F|expand: '%servers%'}\n  condition: s"),
        &expect![[
            r#"placeholder rule "T" (x.yml:5): the placeholder in "%servers%" has no value; give values for "servers", or write them into the rule in its place"#
        ]],
    );
    check(
        &detection("  s: {F: {a: b}}\n  condition: s"),
        &expect![[r#"value rule "T" (x.yml:5): the value of "F" is a map"#]],
    );
    check(
        &detection("  s: {F: a, F: b}\n  condition: s"),
        &expect![[r#"repeated_key rule "T" (x.yml:5): the key "F" is given twice"#]],
    );
    check(
        &detection("  s: []\n  condition: s"),
        &expect![[r#"empty_selection rule "T" (x.yml:5): the selection "s" is empty"#]],
    );
    check(
        &detection("  s: {F|base64: 'a*'}\n  condition: s"),
        &expect![[
            r#"encoded_wildcard rule "T" (x.yml:5): a value with wildcards cannot be encoded; escape them as \* or \?"#
        ]],
    );
}

#[test]
fn mistakes_in_conditions_are_told() {
    let condition = |condition: &str| detection(&format!("  selection: {{F: x}}\n  condition: {condition}"));
    check(
        &condition("selecton"),
        &expect![[
            r#"unknown_selection rule "T" (x.yml:6): the condition names the selection "selecton", which is not there; did you mean "selection"?"#
        ]],
    );
    check(
        &condition("1 of sel_*"),
        &expect![[
            r#"unknown_selection rule "T" (x.yml:6): the condition asks for "sel_*", which no selection is called"#
        ]],
    );
    check(
        &condition("selection | count() > 5"),
        &expect![[
            r#"aggregation rule "T" (x.yml:6): aggregations in conditions are of Sigma 1; write `correlation: {type: event_count, rules: [i], timespan: 5m, condition: {gt: 5}}`"#
        ]],
    );
    check(
        &condition("(selection"),
        &expect![[r#"condition rule "T" (x.yml:6): the condition lacks a closing parenthesis"#]],
    );
    check(
        &condition("selection selection"),
        &expect![[r#"condition rule "T" (x.yml:6): the condition has "selection" where it could end"#]],
    );
    check(&condition("selection and"), &expect![[r#"condition rule "T" (x.yml:6): the condition ends too early"#]]);
    check(
        &condition("2 of them"),
        &expect![[
            r#"quantifier rule "T" (x.yml:6): the condition wants 2 of "them", which are 1; write `1 of` or `all of`"#
        ]],
    );
}

#[test]
fn mistakes_in_documents_are_told() {
    check(
        "title: T\nid: i\ndetections:\n  s: {F: x}\n",
        &expect![[
            r#"no_detection rule "T" (x.yml:1): the document has no `detection`; there is `detections`; did you mean "detection"?"#
        ]],
    );
    check(
        "action: globl\ntitle: T\n",
        &expect![[r#"collection_action x.yml:1: unknown action "globl"; did you mean "global"?"#]],
    );
    check(
        "title: T\nid: i\nlevel: hihg\nlogsource: {product: p}\ndetection: {s: {F: x}, condition: s}\n",
        &expect![[r#"unknown_level rule "T" (x.yml:3): unknown level "hihg"; "medium" is used; did you mean "high"?"#]],
    );
    check(
        "title: T\nid: i\nstatus: tset\nlogsource: {product: p, catgory: x}\ndetection: {s: {F: x}, condition: s}\n",
        &expect![[r#"
        unknown_status rule "T" (x.yml:3): unknown status "tset"; did you mean "test"?
        unknown_logsource_part rule "T" (x.yml:4): unknown part of `logsource`: "catgory"; did you mean "category"?"#]],
    );
    check("- a\n- b\n", &expect!["not_a_map x.yml:1: a rule is a map, this document is a list"]);
    check("title: [unclosed\n", &expect!["yaml x.yml:1: could not read the text as YAML: unclosed bracket '['"]);
    check("", &expect![""]);
}

#[test]
fn good_documents_of_a_text_stay_when_others_are_bad() {
    let good = |id: &str| {
        format!("title: {id}\nid: {id}\nlogsource: {{product: p}}\ndetection: {{s: {{F: x}}, condition: s}}\n")
    };
    let texts = format!("{}---\ntitle: bad\n---\n{}---\n{}", good("a"), good("b"), good("a"));
    let (rules, problems) = RuleSet::compile(parse(&[text("x.yml", &texts)]), &Options::default());
    let ids: Vec<&str> = rules.rules().iter().map(|rule| &*rule.id).collect();
    assert_eq!(ids, ["a", "b"]);
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "rule \"bad\" (x.yml:6): the document has no `detection`",
            "rule \"a\" (x.yml:13): the id \"a\" is taken by the rule at x.yml:1; give it an id of its own",
        ]
    );
}

#[test]
fn rules_without_an_id_get_a_stable_one() {
    let rule = "title: T\nlogsource: {product: p}\ndetection: {s: {F: x}, condition: s}\n";
    let id = |file: &str, rule: &str| {
        let parsed = parse(&[text(file, rule)]);
        assert_eq!(parsed.problems[0].code, "no_id");
        parsed.rules[0].id.clone()
    };
    assert_eq!(id("a.yml", rule), id("a.yml", rule));
    assert_ne!(id("a.yml", rule), id("b.yml", rule));
    assert_eq!(id("a.yml", rule).len(), 32);
    assert_eq!(&*id("a.yml", &format!("name: called\n{rule}")), "called");
}
