//! Correlations and the plan's rules: what the graph gets of them.

use cf_sigma::{Options, RuleSet, Scanner, Severity, parse};
use cf_types::{Condition, Predicate};
use expect_test::{Expect, expect};

use crate::world::{event, log_source, rules, text};

const BASE: &str = "title: Failed\nname: failed\nid: 11111111-0000-0000-0000-000000000001\nlogsource: {product: p}\ndetection:\n  s: {event: failed}\n  condition: s\n";
const OTHER: &str = "title: Passed\nname: passed\nid: 11111111-0000-0000-0000-000000000002\nlogsource: {product: p}\ndetection:\n  s: {event: passed}\n  condition: s\n";

fn correlation(id: &str, body: &str) -> String {
    format!("title: C {id}\nid: {id}\nlevel: high\ncorrelation:\n  {}\n", body.trim().replace('\n', "\n  "))
}

/// Episode rules, one a line.
#[track_caller]
fn check(texts: &[&str], expect: &Expect) {
    let texts: Vec<_> = texts.iter().map(|rule| text("c.yml", rule)).collect();
    let (rules, problems) = RuleSet::compile(parse(&texts), &Options::default());
    let mut lines: Vec<String> = rules
        .episode_rules()
        .iter()
        .map(|rule| {
            let short = |id: &str| id.trim_start_matches("11111111-0000-0000-0000-0000000000").to_owned();
            let references: Vec<String> = rule.references.iter().map(|id| short(id)).collect();
            let predicate = match &rule.predicate {
                Predicate::EventCount(Condition { gte: Some(n), .. }) => format!("event_count>={n}"),
                Predicate::ValueCount(Condition { gt: Some(n), .. }) => format!("value_count>{n}"),
                other => format!("{other:?}"),
            };
            format!(
                "{} of {} {}s {} alerts={}",
                short(&rule.id),
                references.join(","),
                rule.timespan,
                predicate,
                rule.alerts
            )
        })
        .collect();
    lines.extend(problems.iter().map(|problem| format!("{:?} {problem}", problem.severity)));
    expect.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn rules_that_are_referred_to_do_not_alert_unless_generated() {
    let count = "type: event_count\nrules: [failed]\ngroup-by: [user]\ntimespan: 5m\ncondition: {gte: 3}";
    check(
        &[BASE, OTHER, &correlation("c", count)],
        &expect![[r#"
        c of 01 300s event_count>=3 alerts=true
        02 of 02 3600s event_count>=1 alerts=true
    "#]],
    );
    check(
        &[BASE, &correlation("c", &format!("{count}\ngenerate: true"))],
        &expect![[r#"
        c of 01 300s event_count>=3 alerts=true
        01 of 01 3600s event_count>=1 alerts=true
    "#]],
    );
}

#[test]
fn all_types_and_spans_are_read() {
    let values = "type: value_count\nrules: [11111111-0000-0000-0000-000000000001]\ngroup-by: [user]\ntimespan: 2h\ncondition: {field: host, gt: 4}";
    let ordered = "type: temporal_ordered\nrules: [failed, passed]\ngroup-by: [user]\ntimespan: 1d";
    let temporal = "type: temporal\nrules: [failed, passed]\ntimespan: 30s\ncondition: {gte: 2}";
    check(
        &[BASE, OTHER, &correlation("v", values), &correlation("o", ordered), &correlation("t", temporal)],
        &expect![[r#"
        v of 01 7200s value_count>4 alerts=true
        o of 01,02 86400s TemporalOrdered alerts=true
        t of 01,02 30s Temporal alerts=true
    "#]],
    );
}

#[test]
fn correlations_chain() {
    let inner = "type: event_count\nrules: [failed]\ngroup-by: [user]\ntimespan: 5m\ncondition: {gte: 3}";
    let outer = "type: temporal_ordered\nrules: [inner, passed]\ngroup-by: [user]\ntimespan: 10m";
    check(
        &[BASE, OTHER, &correlation("inner", inner), &correlation("outer", outer)],
        &expect![[r#"
        inner of 01 300s event_count>=3 alerts=false
        outer of inner,02 600s TemporalOrdered alerts=true
    "#]],
    );
}

#[test]
fn bad_references_are_refused_and_take_down_only_what_needs_them() {
    let to = |rules: &str| format!("type: event_count\nrules: [{rules}]\ntimespan: 5m\ncondition: {{gte: 3}}");
    check(
        &[
            BASE,
            &correlation("a", &to("faild")),
            &correlation("b", &to("a")),
            &correlation("x", &to("y")),
            &correlation("y", &to("x")),
            &correlation("z", &to("z")),
        ],
        &expect![[r#"
            01 of 01 3600s event_count>=1 alerts=true
            Error rule "C x" (c.yml:1): the correlation refers to itself through others
            Error rule "C y" (c.yml:1): the correlation refers to itself through others
            Error rule "C a" (c.yml:6): unknown rule "faild"; did you mean "failed"?
            Error rule "C z" (c.yml:6): the correlation refers to itself
            Error rule "C b" (c.yml:6): unknown rule "a"
        "#]],
    );
}

#[test]
fn figures_over_values_are_read() {
    let of = |kind: &str, condition: &str| {
        format!("type: {kind}\nrules: [failed]\ngroup-by: [user]\ntimespan: 5m\ncondition: {{field: n, {condition}}}")
    };
    check(
        &[
            BASE,
            &correlation("s", &of("value_sum", "gt: 1.5e3, lte: 2000")),
            &correlation("a", &of("value_avg", "lt: 0.5")),
            &correlation("m", &of("value_median", "gte: 3")),
            &correlation("p", &of("value_percentile", "percentile: 95, gte: 3")),
        ],
        &expect![[r#"
            s of 01 300s Sum(Condition { gte: None, gt: Some(Fixed(1500000000000)), lte: Some(Fixed(2000000000000)), lt: None, eq: None, neq: None }) alerts=true
            a of 01 300s Average(Condition { gte: None, gt: None, lte: None, lt: Some(Fixed(500000000)), eq: None, neq: None }) alerts=true
            m of 01 300s Percentile { percent: 50, condition: Condition { gte: Some(Fixed(3000000000)), gt: None, lte: None, lt: None, eq: None, neq: None } } alerts=true
            p of 01 300s Percentile { percent: 95, condition: Condition { gte: Some(Fixed(3000000000)), gt: None, lte: None, lt: None, eq: None, neq: None } } alerts=true
        "#]],
    );
}

#[test]
fn types_of_our_own_are_read() {
    let absence = "type: absence\nrules: [failed, passed]\ngroup-by: [user]\ntimespan: 5m";
    let seen = "type: first_seen\nrules: [passed]\ngroup-by: [user]\ntimespan: 1h\ncondition: {field: country, within: 30d, known: 2}";
    let rate = "type: rate\nrules: [failed]\ngroup-by: [user]\ntimespan: 10m\ncondition: {gte: 2.5, within: 7d, history: 2d, count: 20}";
    check(
        &[BASE, OTHER, &correlation("a", absence), &correlation("f", seen), &correlation("r", rate)],
        &expect![[r#"
            a of 01,02 300s Absence alerts=true
            f of 02 3600s FirstSeen { memory: 2592000, known_min: 2 } alerts=true
            r of 01 600s Rate { memory: 604800, grid: 3600, age_min: 172800, count_min: 20, times: Condition { gte: Some(Fixed(2500000000)), gt: None, lte: None, lt: None, eq: None, neq: None } } alerts=true
        "#]],
    );
}

#[test]
fn mistakes_in_types_of_our_own_are_told() {
    let of = |body: &str| correlation("c", &format!("{body}\ngroup-by: [user]\ntimespan: 1h"));
    for (body, expect) in [
        ("type: absence\nrules: [failed]", "absence"),
        ("type: absence\nrules: [failed, passed]\ncondition: {gte: 1}", "absence"),
        ("type: first_seen\nrules: [failed]\ncondition: {field: F}", "memory"),
        ("type: first_seen\nrules: [failed]\ncondition: {field: F, within: 30d, gte: 3}", "memory"),
        ("type: first_seen\nrules: [failed]\ncondition: {field: F, within: 30m}", "memory"),
        ("type: first_seen\nrules: [failed]\ncondition: {within: 30d}", "no_field"),
        ("type: first_seen\nrules: [failed]\ncondition: {field: F, within: soon}", "timespan"),
        ("type: rate\nrules: [failed]\ncondition: {gte: 5}", "memory"),
        ("type: rate\nrules: [failed]\ncondition: {within: 7d}", "no_condition"),
        ("type: rate\nrules: [failed]\ncondition: {gte: 5, within: 7d, history: 8d}", "memory"),
        ("type: rate\nrules: [failed]\ncondition: {gte: 5, within: 7d, field: F}", "field"),
        ("type: rate\nrules: [failed]\ncondition: {gte: 5, within: 7d, count: few}", "bound"),
        ("type: event_count\nrules: [failed]\ncondition: {gte: 5, within: 7d}", "unknown_key"),
        ("type: value_sum\nrules: [failed]\ncondition: {field: n, gte: 1e16}", "bound"),
        ("type: value_percentile\nrules: [failed]\ncondition: {field: n, gte: 1}", "percentile"),
    ] {
        let texts = [text("c.yml", BASE), text("c.yml", OTHER), text("d.yml", &of(body))];
        let (_, problems) = RuleSet::compile(parse(&texts), &Options::default());
        let codes: Vec<&str> =
            problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| problem.code).collect();
        assert_eq!(codes, [expect], "{body}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    check(
        &[
            BASE,
            OTHER,
            &correlation("m", "type: event_count\nrules: [failed]\ntimespan: 2M\ncondition: {gte: 3}"),
            &correlation("e", "type: event_cuont\nrules: [failed]\ntimespan: 2m\ncondition: {gte: 3}"),
            &correlation("b", "type: event_count\nrules: [failed]\ntimespan: 2m\ncondition: {gte: many}"),
            &correlation("t", "type: temporal\nrules: [failed]\ntimespan: 2m\ncondition: not failed"),
            &correlation("o", "type: temporal_ordered\nrules: [failed, passed]\ntimespan: 2m\ncondition: {gte: 1}"),
            &correlation("v", "type: value_count\nrules: [failed]\ntimespan: 2m\ncondition: {gte: 2}"),
        ],
        &expect![[r#"
            01 of 01 3600s event_count>=1 alerts=true
            02 of 02 3600s event_count>=1 alerts=true
            Error rule "C m" (c.yml:1): months and years are no time span: they have no fixed length; give days, as `30d`
            Error rule "C t" (c.yml:1): the condition can hold by what is absent alone: no event would be its reason; for what does not follow, write `type: absence`
            Error rule "C o" (c.yml:1): `temporal_ordered` is of all its rules, in their order; take the condition out, or write `type: temporal`
            Error rule "C e" (c.yml:5): unknown correlation type "event_cuont"; did you mean "event_count"?
            Error rule "C v" (c.yml:8): `value_count` needs the field whose values are counted; add `field:` to `condition`
            Error rule "C b" (c.yml:8): the bound "gte" is no number
        "#]],
    );
}

#[test]
fn chained_correlations_take_fields_of_the_group_below_also_by_an_alias() {
    let inner = "type: event_count\nrules: [failed]\ngroup-by: [source_ip, user]\ntimespan: 5m\ncondition: {gte: 3}";
    let outer = |body: &str| format!("rules: [inner, passed]\ntimespan: 10m\n{body}");
    let chained = |body: &str| {
        let texts = [BASE, OTHER, &correlation("inner", inner), &correlation("outer", &outer(body))];
        let texts: Vec<_> = texts.iter().map(|rule| text("c.yml", rule)).collect();
        let (rules, problems) = RuleSet::compile(parse(&texts), &Options::default());
        let found = rules.episode_rules().iter().find(|rule| &*rule.id == "outer");
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        found.map_or_else(|| problems.join(", "), |rule| format!("{:?}", rule.chained))
    };
    for (body, expect) in [
        ("type: temporal\ngroup-by: [user]", r#"[Some(ChainedFields { group: [("user", "user")], value: [] }), None]"#),
        (
            "type: temporal_ordered\ngroup-by: [address]\naliases: {address: {inner: source_ip, passed: IpAddress}}",
            r#"[Some(ChainedFields { group: [("address", "source_ip")], value: [] }), None]"#,
        ),
        (
            "type: value_count\ngroup-by: [source_ip]\ncondition: {field: user, gte: 2}",
            r#"[Some(ChainedFields { group: [("source_ip", "source_ip")], value: ["user"] }), None]"#,
        ),
        (
            "type: temporal\ngroup-by: [host]",
            r#"rule "C outer" (c.yml:5): "host" is none of the fields that the correlation "C inner", which it refers to, groups by; group by source_ip, user"#,
        ),
        (
            "type: value_sum\ngroup-by: [user]\ncondition: {field: n, gt: 2}",
            r#"rule "C outer" (c.yml:5): an episode has no numbers: sums, averages and percentiles are of events"#,
        ),
    ] {
        assert_eq!(chained(body), expect, "{body}");
    }
}

/// Items of the first rule that the event meets: `rule#reference group value`.
#[track_caller]
fn check_items(texts: &[&str], fields: &[(&str, Option<&str>)], expect: &[&str]) {
    let rules = rules(texts);
    let event = event(log_source("p", "", ""), fields, "{}");
    let mut hits = Vec::new();
    Scanner::new(rules.clone()).scan(&event, &mut hits);
    let detection = rules.detection(hits[0], &event);
    let items: Vec<String> = detection
        .items
        .iter()
        .map(|item| {
            format!(
                "{}#{} {} {}",
                item.rule,
                item.reference,
                item.group.to_json(),
                item.value.as_deref().unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(items, expect);
}

#[test]
fn items_have_all_group_fields_or_are_none() {
    let count = correlation(
        "c",
        "type: event_count\nrules: [failed]\ngroup-by: [user, source_ip]\ntimespan: 5m\ncondition: {gte: 3}\ngenerate: true",
    );
    let failed = ("event", Some("failed"));
    let (user, ip) = (("user", Some("eve")), ("source_ip", Some("192.0.2.1")));
    let plain = r#"11111111-0000-0000-0000-000000000001#0 {"address":"192.0.2.1","user":"eve"} -"#;
    check_items(&[BASE, &count], &[failed, user, ip], &[r#"c#0 {"source_ip":"192.0.2.1","user":"eve"} -"#, plain]);
    check_items(&[BASE, &count], &[failed, user], &[r#"11111111-0000-0000-0000-000000000001#0 {"user":"eve"} -"#]);
}

#[test]
fn aliases_name_each_rules_own_field() {
    let aliased = correlation(
        "c",
        "type: temporal\nrules: [failed, passed]\ngroup-by: [address]\ntimespan: 5m\naliases:\n  address:\n    failed: source_ip\n    passed: IpAddress",
    );
    check_items(
        &[BASE, OTHER, &aliased],
        &[("event", Some("failed")), ("source_ip", Some("192.0.2.1"))],
        &[r#"c#0 {"address":"192.0.2.1"} -"#],
    );
    check_items(
        &[BASE, OTHER, &aliased],
        &[("event", Some("passed")), ("IpAddress", Some("192.0.2.2"))],
        &[r#"c#1 {"address":"192.0.2.2"} -"#],
    );
    check_items(&[BASE, OTHER, &aliased], &[("event", Some("passed")), ("source_ip", Some("192.0.2.2"))], &[]);
}

#[test]
fn values_are_counted_by_field() {
    let values = correlation(
        "v",
        "type: value_count\nrules: [failed]\ngroup-by: [user]\ntimespan: 5m\ncondition: {field: host, gte: 3}",
    );
    let (failed, user) = (("event", Some("failed")), ("user", Some("eve")));
    check_items(&[BASE, &values], &[failed, user, ("host", Some("h1"))], &[r#"v#0 {"user":"eve"} h1"#]);
    check_items(&[BASE, &values], &[failed, user], &[]);
}

/// The plan's own example, word for word (formats.md 5.2, DET-06).
const PLAN: &str = r#"rule:
  id: rule-001
  name: "Multiple Failed Login Attempts"
  description: "Detects brute force login attempts"
  severity: high
  
  conditions:
    - field: event_type
      operator: equals
      value: "authentication_failed"
    - field: source_ip
      operator: count
      threshold: 5
      timewindow: 5m
  
  actions:
    - type: create_incident
      priority: high
    - type: execute_playbook
      playbook: "account-lockout"
    - type: notify
      channels: ["slack", "pagerduty"]
"#;

#[test]
fn the_plans_rule_loads_unmodified() {
    check(
        &[PLAN],
        &expect![[r#"
            rule-001 of rule-001#conditions 300s event_count>=5 alerts=true
            Warning rule "Multiple Failed Login Attempts" (c.yml:19): the playbook "account-lockout" is not there; the rule is loaded, the suggestion does nothing
            Warning rule "Multiple Failed Login Attempts" (c.yml:21): the channels "slack", "pagerduty" are not there; the rule is loaded, this action does nothing
        "#]],
    );
    check_items(
        &[PLAN],
        &[("event_type", Some("authentication_failed")), ("source_ip", Some("192.0.2.7"))],
        &[r#"rule-001#0 {"source_ip":"192.0.2.7"} -"#],
    );
}

#[test]
fn the_plans_operators_are_those_of_a_table() {
    for (operator, value, met, not_met) in [
        ("equals", "abc", "ABC", "abcd"),
        ("not_equals", "abc", "x", "abc"),
        ("contains", "b", "abc", "ac"),
        ("startswith", "ab", "abc", "cab"),
        ("starts_with", "ab", "abc", "cab"),
        ("endswith", "bc", "abc", "bca"),
        ("ends_with", "bc", "abc", "bca"),
        ("regex", "'^a.c$'", "abc", "abbc"),
        ("in", "[x, abc]", "abc", "y"),
        ("gt", "5", "6", "5"),
        ("gte", "5", "5", "4"),
        ("lt", "5", "4", "5"),
        ("lte", "5", "5", "6"),
        ("not_contains", "b", "ac", "abc"),
        ("not_starts_with", "ab", "cab", "abc"),
        ("not_ends_with", "bc", "bca", "abc"),
        ("not_regex", "'^a.c$'", "abbc", "abc"),
        ("matches", "'^a.c$'", "abc", "abbc"),
        ("not_in", "[x, abc]", "y", "X"),
        ("greater_than", "5", "6", "5"),
        ("greater_than_or_equal", "5", "5", "4"),
        ("less_than", "5", "4", "5"),
        ("less_than_or_equal", "5", "5", "6"),
        ("between", "[5, 7]", "7", "8"),
        ("cidr", "[10.0.0.0/8, 'fe80::/10']", "10.1.2.3", "11.1.2.3"),
        ("cidr", "[10.0.0.0/8, 'fe80::/10']", "fe80::1", "::1"),
        ("not_cidr", "10.0.0.0/8", "11.1.2.3", "10.1.2.3"),
        ("EQUALS", "abc", "ABC", "abcd"),
        ("equals", "'a*'", "a*", "ab"), // no wildcards here
    ] {
        let rule = format!(
            "rule:\n  id: r\n  name: n\n  conditions:\n    - {{field: F, operator: {operator}, value: {value}}}\n"
        );
        let rules = rules(&[&rule]);
        let mut scanner = Scanner::new(rules);
        for (text, expect) in [(met, true), (not_met, false)] {
            let event = event(log_source("", "", ""), &[("F", Some(text))], "{}");
            assert_eq!(!crate::world::hits(&mut scanner, &event).is_empty(), expect, "{operator} {value} on {text}");
        }
    }
    for (condition, there, expect) in [
        ("{field: F, operator: exists}", true, true),
        ("{field: F, operator: exists}", false, false),
        ("{field: F, operator: exists, value: false}", false, true),
        ("{field: F, operator: not_exists}", false, true),
        ("{field: F, operator: not_exists}", true, false),
        ("{any: [{field: F, operator: equals, value: no}, {field: F, operator: exists}]}", true, true),
        ("{all: [{field: F, operator: equals, value: no}, {field: F, operator: exists}]}", true, false),
        ("{not: [{field: F, operator: equals, value: no}]}", true, true),
        ("{not: {any: [{field: F, operator: equals, value: x}]}}", true, false),
    ] {
        let rules = rules(&[&format!("rule:\n  id: r\n  name: n\n  conditions:\n    - {condition}\n")]);
        let fields = [("F", Some("x"))];
        let event = event(log_source("", "", ""), if there { &fields } else { &[] }, "{}");
        assert_eq!(!crate::world::hits(&mut Scanner::new(rules), &event).is_empty(), expect, "{condition} {there}");
    }
}

#[test]
fn the_plans_rules_count_events_and_values() {
    let counting = |count: &str| {
        format!(
            "rule:\n  id: r\n  name: n\n  conditions:\n    - {{field: event, operator: equals, value: failed}}\n    - {{{count}, threshold: 3, timewindow: 5m}}\n"
        )
    };
    let fields = [("event", Some("failed")), ("ip", Some("192.0.2.7")), ("user", Some("eve"))];
    for (count, item) in [
        ("field: ip, operator: count", r#"r#0 {"ip":"192.0.2.7"} -"#),
        ("field: ip, operator: count, group_by: [user]", r#"r#0 {"ip":"192.0.2.7","user":"eve"} -"#),
        ("field: user, operator: distinct_count, group_by: [ip]", r#"r#0 {"ip":"192.0.2.7"} eve"#),
        ("field: user, operator: distinct_count", r#"r#0 {} eve"#),
    ] {
        check_items(&[&counting(count)], &fields, &[item]);
    }
    check(
        &[&counting("field: user, operator: distinct_count, group_by: ip").replace("threshold: 3", "threshold: 0")],
        &expect![[r#"
            Error rule "n" (c.yml:6): a count needs a `threshold` from 1
        "#]],
    );
}

#[test]
fn mistakes_in_the_plans_rules_are_told() {
    for (condition, expect) in [
        ("field: F, operator: equal, value: x", r#"unknown operator "equal"; did you mean "equals"?"#),
        ("field: F, operater: equals, value: x", r#"unknown key of a condition: "operater"; did you mean "operator"?"#),
        ("field: F, operator: cidr, value: x", r#"the value "x" is no network (`10.0.0.0/8`)"#),
        ("field: F, operator: gt, value: x", r#"the value "x" is no number"#),
        (
            "field: F, operator: between, value: 1",
            "`between` needs two numbers; as `value: [1, 10]`; both belong to it",
        ),
        ("field: F, operator: contains", "`contains` needs a `value`"),
        ("operator: contains, value: x", "a condition has no `field`"),
        ("any: []", "`any` has no conditions"),
        (
            "any: [{field: F, operator: count, threshold: 1, timewindow: 5m}]",
            "a count cannot stand within `any`, `all` or `not`; put it beside them",
        ),
    ] {
        let rule = format!("rule:\n  id: r\n  name: n\n  conditions:\n    - {{{condition}}}\n");
        let parsed = parse(&[text("p.yml", &rule)]);
        assert_eq!(parsed.problems[0].to_string(), format!("rule \"n\" (p.yml:5): {expect}"));
        assert_eq!(parsed.problems[0].severity, Severity::Error);
        assert_eq!(parsed.rules.len(), 0);
    }
}
