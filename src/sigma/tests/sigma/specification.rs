//! What the specification says of documents: collections, filters, placeholders, attributes, correlations; as tables.

use cf_sigma::{
    Options, ParseOptions, RuleSet, Scanner, Severity, Text, codes, parse, parse_with,
    rule::{Aggregate, CorrelationKind, TimeUnit, Timespan},
};
use expect_test::{Expect, expect};

use crate::world::{event, hits, log_source, text};

fn one(rule: &str) -> Vec<Text> {
    vec![text("x.yml", rule)]
}

fn rule(id: &str, detection: &str) -> String {
    format!("title: {id}\nid: {id}\nlogsource: {{product: p}}\ndetection: {detection}\n")
}

/// Problems, one a line, and ids of the rules that an event of these fields (`name=value, ...`) meets.
fn compiled(texts: &[Text], options: &ParseOptions, fields: &str) -> (Vec<String>, Vec<String>) {
    let (rules, problems) = RuleSet::compile(parse_with(texts, options), &Options::default());
    let pairs: Vec<(&str, Option<&str>)> =
        fields.split(", ").filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name, Some(value))).collect();
    let event = event(log_source("p", "", ""), &pairs, "{}");
    let problems = problems.iter().map(|problem| format!("{} {problem}", problem.code)).collect();
    (problems, hits(&mut Scanner::new(rules.into()), &event))
}

/// Which rules an event meets, where nothing may be wrong.
#[track_caller]
fn check_met(texts: &[Text], options: &ParseOptions, fields: &str, expect: &[&str]) {
    let (problems, met) = compiled(texts, options, fields);
    assert_eq!((problems, met), (Vec::<String>::new(), expect.iter().map(ToString::to_string).collect()), "{fields}");
}

/// What is said of one text.
#[track_caller]
fn check_problems(rule: &str, expect: &Expect) {
    let (problems, _) = compiled(&one(rule), &ParseOptions::default(), "");
    expect.assert_eq(&problems.join("\n"));
}

fn placeholders(values: &[(&str, &[&str])]) -> ParseOptions {
    let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect();
    let placeholders = values.iter().map(|(name, values)| ((*name).to_owned(), owned(values))).collect();
    ParseOptions { placeholders, ..ParseOptions::default() }
}

#[test]
fn placeholders_stand_for_their_values() {
    // `%Servers%` is replaced with the pattern `srv*` (specification 2.1, *Placeholders*).
    let options =
        placeholders(&[("Servers", &["srv*", "dc01"]), ("nets", &["10.0.0.0/8", "192.0.2.1"]), ("n", &["a.c"])]);
    for (item, fields, met) in [
        ("F|expand: '%Servers%'", "F=SRV17", true),
        ("F|expand: '%Servers%'", "F=dc01", true),
        ("F|expand: '%Servers%'", "F=dc02", false),
        (r"F|expand: '\%plain%Servers%'", "F=%plainsrv9", true), // an escaped percent sign is a percent sign
        ("F: '%Servers%'", "F=%Servers%", true),                 // without `expand` it is text
        ("F: '%Servers%'", "F=srv1", false),
        ("F|expand: '100% sure'", "F=100% sure", true),
        ("F|expand|contains: 'x-%Servers%-%Servers%'", "F=..x-dc01-srv9", true),
        ("F|expand|contains|all: ['%Servers%', b]", "F=dc01b", true),
        ("F|expand|contains|all: ['%Servers%', b]", "F=dc01", false),
        ("F|cidr|expand: '%nets%'", "F=10.2.3.4", true),
        ("F|cidr|expand: '%nets%'", "F=192.0.2.2", false),
        ("F|re|expand: '^%n%$'", "F=abc", false), // values are texts, within an expression too
        ("F|re|expand: '^%n%$'", "F=a.c", true),
    ] {
        let texts = one(&rule("r", &format!("{{s: {{{item}}}, condition: s}}")));
        check_met(&texts, &options, fields, if met { &["r"] } else { &[] });
    }
    let (problems, _) = compiled(&one(&rule("r", "{s: {F|expand: '%servers%'}, condition: s}")), &options, "F=x");
    assert_eq!(
        problems,
        [r#"placeholder rule "r" (x.yml:4): the placeholder in "%servers%" has no value; did you mean "Servers"?"#]
    );
    let hash = |options| RuleSet::compile(parse_with(&[], options), &Options::default()).0.hash().to_owned();
    assert_ne!(hash(&options), hash(&ParseOptions::default()));
}

#[test]
fn parts_of_times_compare() {
    for (item, value, met) in [
        ("F|hour|gte: 18", "2026-01-05T18:00:00Z", true),
        ("F|hour|gte: 18", "2026-01-05T17:59:59Z", false),
        ("F|month|lt: 3", "2026-02-05", true),
        ("F|year|gt: 2025", "2026-02-05", true),
        ("F|minute: [1, 2]", "2026-01-05T18:02:00Z", true),
        ("F|day|neq: 5", "2026-01-05", false),
    ] {
        let texts = one(&rule("r", &format!("{{s: {{{item}}}, condition: s}}")));
        check_met(&texts, &ParseOptions::default(), &format!("F={value}"), if met { &["r"] } else { &[] });
    }
    check_problems(
        &rule("r", "{s: {F|hour: 24}, condition: s}"),
        &expect![[r#"value rule "r" (x.yml:4): the value "24" of "F" is not from 0 to 23"#]],
    );
    check_problems(
        &rule("r", "{s: {F|month|gt: 12}, condition: s}"),
        &expect![[r#"value rule "r" (x.yml:4): the value "12" of "F" is a bound that no time keeps"#]],
    );
}

#[test]
fn some_of_several_selections_are_enough() {
    let detection = "{sel_a: {A: a}, sel_b: {B: b}, sel_c: {C: c}, condition: 2 of sel_*}";
    for (fields, met) in
        [("A=a", false), ("A=a, B=b", true), ("A=a, C=c", true), ("B=b, C=c", true), ("A=a, B=b, C=c", true)]
    {
        check_met(&one(&rule("r", detection)), &ParseOptions::default(), fields, if met { &["r"] } else { &[] });
    }
    let all = detection.replace("2 of", "3 of");
    check_met(&one(&rule("r", &all)), &ParseOptions::default(), "A=a, B=b", &[]);
    check_met(&one(&rule("r", &all)), &ParseOptions::default(), "A=a, B=b, C=c", &["r"]);
    let many: String = (0..40).map(|number| format!("s{number}: {{F: x{number}}}, ")).collect();
    check_problems(
        &rule("r", &format!("{{{many}condition: 20 of s*}}")),
        &expect![[
            r#"too_many_tests rule "r" (x.yml:4): the condition uses more than 4096 selections or 50000 values"#
        ]],
    );
}

/// The example of specification 1.0.2, *Rule Collections*, and what may stand around it.
#[test]
fn collections_of_sigma_1_become_rules() {
    let global = "action: global\ntitle: Created\nid: g\nlogsource: {product: p}\ndetection:\n  selection: {Image: a}\n  condition: selection\n";
    let first = "detection:\n  selection: {EventID: 4688}\n";
    let second = "id: own\ndetection:\n  selection: {EventID: 1}\n";
    let repeat = "action: repeat\ndetection:\n  selection: {EventID: 3}\n";
    let texts = one(&format!("{global}---\n{first}---\n{second}---\n{repeat}"));
    let (problems, met) = compiled(&texts, &ParseOptions::default(), "Image=a, EventID=1");
    assert_eq!(
        problems,
        [
            r##"inherited_id rule "Created" (x.yml:16): the rule has no `id` of its own; "own#2" is used; give each rule of the collection an id of its own"##
        ]
    );
    assert_eq!(met, ["own"]);
    for (event_id, expect) in [("4688", &["g"][..]), ("3", &["own#2"]), ("2", &[])] {
        let (_, met) = compiled(&texts, &ParseOptions::default(), &format!("Image=a, EventID={event_id}"));
        assert_eq!(met, expect, "{event_id}");
    }
    // Globals accumulate, a reset ends them, and what is more special wins.
    let more = "action: global\nlevel: high\n";
    let parsed = parse(&one(&format!(
        "{global}---\n{more}---\n{first}level: low\n---\n{second}---\naction: reset\n---\n{second}"
    )));
    let levels: Vec<String> = parsed.rules.iter().map(|rule| format!("{} {}", rule.id, rule.level.as_str())).collect();
    assert_eq!(levels, ["g low", "own high"]);
    let errors: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["x.yml:22: the rule has no `title`"]);
    check_problems(
        "action: repeat\ntitle: T\n",
        &expect!["collection_action x.yml:1: there is no rule before it that could be repeated"],
    );
}

const RULES: [(&str, &str); 3] = [("a", "{product: p}"), ("b", "{product: p, category: c}"), ("c", "{product: q}")];

fn filtered(filter: &str) -> Vec<Text> {
    let mut texts: Vec<Text> = RULES
        .iter()
        .map(|(id, source)| {
            let rule = format!("title: {id}\nid: {id}\nname: name_{id}\nlogsource: {source}\ndetection: {{s: {{F: x}}, condition: s}}\n");
            text(id, &rule)
        })
        .collect();
    texts.push(text("f.yml", &format!("title: Adm\nlogsource: {{product: p}}\nfilter:\n{filter}\n")));
    texts
}

#[test]
fn filters_suppress_in_the_rules_they_name() {
    let selection = "  selection: {User|startswith: adm_}\n";
    for (filter, fields, met) in [
        (format!("  rules: [a]\n{selection}  condition: not selection"), "F=x, User=adm_1", vec![]),
        (format!("  rules: [a]\n{selection}  condition: not selection"), "F=x, User=eve", vec!["a"]),
        (format!("  rules: [a]\n{selection}  condition: not selection"), "F=x", vec!["a"]),
        (format!("  rules: [name_a]\n{selection}  condition: not selection"), "F=x, User=adm_1", vec![]),
        (format!("  rules: any\n{selection}  condition: not selection"), "F=x, User=adm_1", vec![]),
        (format!("  rules: any\n{selection}  condition: not 1 of selection*"), "F=x, User=eve", vec!["a"]),
    ] {
        check_met(&filtered(&filter), &ParseOptions::default(), fields, &met);
    }
    // The specification's own example says what to suppress.
    let (problems, met) = compiled(
        &filtered(&format!("  rules: [a]\n{selection}  condition: selection")),
        &ParseOptions::default(),
        "F=x, User=adm_1",
    );
    assert_eq!(met, Vec::<String>::new());
    assert_eq!(
        problems,
        [
            r#"filter_condition rule "Adm" (f.yml:6): the filter's condition is read as what to suppress; write `not selection`, which every tool reads alike"#
        ]
    );
    for (filter, expect) in [
        (
            "  rules: [a, nobody]\n  s: {F: x}\n  condition: not s",
            expect![[r#"unknown_reference rule "Adm" (f.yml:4): unknown rule "nobody""#]],
        ),
        (
            "  rules: [c]\n  s: {F: x}\n  condition: not s",
            expect![[
                r#"filter_logsource rule "Adm" (f.yml:4): the filter is of another log source than the rule "c"; it does not concern the rule; give both the same `logsource`"#
            ]],
        ),
        (
            "  s: {F: x}\n  condition: not s",
            expect![[
                r#"no_references rule "Adm" (f.yml:4): the filter refers to no `rules`; list ids or names, or write `rules: any`"#
            ]],
        ),
        (
            "  rules: any\n  s: {F: x}\n  condition: not t",
            expect![[
                r#"unknown_selection rule "Adm" (f.yml:6): the condition names the selection "t", which is not there"#
            ]],
        ),
    ] {
        // A filter that is refused suppresses nothing.
        let (problems, met) = compiled(&filtered(filter), &ParseOptions::default(), "F=x");
        expect.assert_eq(&problems.join("\n"));
        assert_eq!(met, ["a"]);
    }
}

#[test]
fn attributes_are_kept() {
    let parsed = parse(&one(
        "title: T\nid: i\nname: n\nrelated: [{id: o, type: derived}]\ntaxonomy: sigma\nstatus: test\nlicense: MIT\nauthor: A, B\n\
         references: [https://a.example]\ndate: 2026-01-31\nmodified: 2026/02/01\n\
         logsource: {product: p, definition: turn it on}\ndetection: {s: {F: x}, condition: s}\n\
         fields: [F]\nfalsepositives: none known\nscope: [server]\nplaybook: block\n\
         custom: {deep: [1, 'two', 1.5, true, 'true', null]}\n",
    ));
    let meta = &parsed.rules[0].meta;
    assert_eq!(meta.playbook(), Some("block"));
    expect![[r#"
        Meta {
            taxonomy: Some(
                "sigma",
            ),
            license: Some(
                "MIT",
            ),
            author: Some(
                "A, B",
            ),
            date: Some(
                "2026-01-31",
            ),
            modified: Some(
                "2026/02/01",
            ),
            definition: Some(
                "turn it on",
            ),
            references: [
                "https://a.example",
            ],
            falsepositives: [
                "none known",
            ],
            fields: [
                "F",
            ],
            scope: [
                "server",
            ],
            related: [
                Related {
                    id: "o",
                    kind: "derived",
                },
            ],
            custom: [
                (
                    "playbook",
                    Text(
                        "block",
                    ),
                ),
                (
                    "custom",
                    Map(
                        [
                            (
                                "deep",
                                List(
                                    [
                                        Whole(
                                            1,
                                        ),
                                        Text(
                                            "two",
                                        ),
                                        Text(
                                            "1.5",
                                        ),
                                        Truth(
                                            true,
                                        ),
                                        Text(
                                            "true",
                                        ),
                                        Null,
                                    ],
                                ),
                            ),
                        ],
                    ),
                ),
            ],
        }
    "#]]
    .assert_debug_eq(meta);
    let (rules, _) = RuleSet::compile(parsed, &Options::default());
    assert_eq!(rules.rules()[0].meta.playbook(), Some("block"));
}

#[test]
fn what_attributes_should_be_is_said() {
    let base = rule("r", "{s: {F: x}, condition: s}");
    for (attribute, expect) in [
        (
            "date: 2026-13-01",
            expect![[r#"date rule "r" (x.yml:5): `date` is no date: "2026-13-01"; write it as YYYY-MM-DD"#]],
        ),
        (
            "date: yesterday",
            expect![[r#"date rule "r" (x.yml:5): `date` is no date: "yesterday"; write it as YYYY-MM-DD"#]],
        ),
        (
            "modified: 2026-02-30",
            expect![[r#"date rule "r" (x.yml:5): `modified` is no date: "2026-02-30"; write it as YYYY-MM-DD"#]],
        ),
        (
            "related: [{id: o, type: derivd}]",
            expect![[r#"related rule "r" (x.yml:5): unknown kind of relation "derivd"; did you mean "derived"?"#]],
        ),
        (
            "related: [o]",
            expect![[
                r#"related rule "r" (x.yml:5): a related rule needs `id` and `type`; as `related: [{id: ..., type: derived}]`"#
            ]],
        ),
        (
            "references: {a: b}",
            expect![[
                r#"attribute rule "r" (x.yml:5): `references` holds a map, which is left out; it is a list of texts"#
            ]],
        ),
        ("author: [A]", expect![[r#"attribute rule "r" (x.yml:5): `author` is a list, not a text; it is left out"#]]),
        ("taxonomy: sgma", expect![[r#"taxonomy rule "r" (x.yml:5): unknown taxonomy "sgma"; did you mean "sigma"?"#]]),
        (
            "taxonomy: ecs",
            expect![[
                r#"taxonomy rule "r" (x.yml:5): unknown taxonomy "ecs"; write it with the names of the taxonomy "sigma", which is the default"#
            ]],
        ),
        (
            "playbook: block",
            expect![[
                r#"unknown_playbook rule "r" (x.yml:5): the playbook "block" is not there; the rule is loaded, the suggestion does nothing"#
            ]],
        ),
        ("whatever: it is", expect![[""]]),
    ] {
        check_problems(&format!("{base}{attribute}\n"), &expect);
    }
    let options = ParseOptions {
        taxonomies: ["ecs".to_owned()].into(),
        playbooks: ["block".to_owned()].into(),
        ..ParseOptions::default()
    };
    check_met(&one(&format!("{base}taxonomy: ecs\nplaybook: block\n")), &options, "F=x", &["r"]);
}

#[test]
fn every_type_of_correlation_is_read() {
    let kind = |body: &str| {
        let parsed = parse(&one(&format!("title: C\nid: c\ncorrelation: {{rules: [a, b], timespan: 24h, {body}}}\n")));
        let problems: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, Vec::<String>::new());
        parsed.correlations[0].clone()
    };
    // The examples of specification 2.1, *Correlation Types*.
    for (body, expect) in [
        (
            "type: event_count, condition: {gt: 100, lte: 200}",
            expect![
                "EventCount(Condition { gte: None, gt: Some(100), lte: Some(200), lt: None, eq: None, neq: None })"
            ],
        ),
        (
            "type: value_count, condition: {field: [User, Host], gte: 100}",
            expect![[
                r#"ValueCount { fields: ["User", "Host"], condition: Condition { gte: Some(100), gt: None, lte: None, lt: None, eq: None, neq: None } }"#
            ]],
        ),
        (
            "type: value_sum, condition: {field: bytes_sent, gt: 1000000}",
            expect![[
                r#"Value { aggregate: Sum, field: "bytes_sent", percentile: None, condition: Condition { gte: None, gt: Some(Fixed(1000000000000000)), lte: None, lt: None, eq: None, neq: None } }"#
            ]],
        ),
        (
            "type: value_avg, condition: {field: bytes, gt: 0.5}",
            expect![[
                r#"Value { aggregate: Average, field: "bytes", percentile: None, condition: Condition { gte: None, gt: Some(Fixed(500000000)), lte: None, lt: None, eq: None, neq: None } }"#
            ]],
        ),
        (
            "type: value_percentile, condition: {field: image, lte: 1}",
            expect![[
                r#"Value { aggregate: Percentile, field: "image", percentile: None, condition: Condition { gte: None, gt: None, lte: Some(Fixed(1000000000)), lt: None, eq: None, neq: None } }"#
            ]],
        ),
        ("type: temporal", expect!["Temporal { ordered: false, condition: All }"]),
        (
            "type: temporal_ordered, condition: a AND b",
            expect![[r#"Temporal { ordered: true, condition: Formula(All([Name("a"), Name("b")])) }"#]],
        ),
    ] {
        expect.assert_eq(&format!("{:?}", kind(body).kind));
    }
    let percentile = kind("type: value_percentile, condition: {field: n, percentile: 95, gte: 3}").kind;
    assert!(matches!(
        percentile,
        CorrelationKind::Value { aggregate: Aggregate::Percentile, percentile: Some(95), .. }
    ));
    let spans: Vec<Option<i64>> =
        [TimeUnit::Second, TimeUnit::Week, TimeUnit::Month].map(|unit| Timespan { count: 2, unit }.seconds()).into();
    assert_eq!(spans, [Some(2), Some(14 * 86_400), None]);
}

#[test]
fn mistakes_in_correlations_are_told() {
    for (body, expect) in [
        (
            "type: event_count, condition: {field: F, gte: 3}",
            expect![[
                r#"field rule "C" (x.yml:3): `event_count` counts events and has no `field`; use `value_count` to count values"#
            ]],
        ),
        (
            "type: value_sum, condition: {field: [a, b], gte: 3}",
            expect![[r#"field rule "C" (x.yml:3): `value_sum` is of one field"#]],
        ),
        (
            "type: value_percentile, condition: {field: F, percentile: 101, gte: 3}",
            expect![[r#"bound rule "C" (x.yml:3): `percentile` is no whole number from 0 to 100"#]],
        ),
        (
            "type: event_count, condition: {gte: 1.5}",
            expect![[r#"bound rule "C" (x.yml:3): a bound on a count is no whole number from 0"#]],
        ),
        (
            "type: event_count, condition: {gte: -1}",
            expect![[r#"bound rule "C" (x.yml:3): a bound on a count is no whole number from 0"#]],
        ),
        (
            "type: event_count, condition: {get: 1}",
            expect![[r#"unknown_key rule "C" (x.yml:3): unknown key of `condition`: "get"; did you mean "gte"?"#]],
        ),
        (
            "type: temporal, condition: a and bb",
            expect![[
                r#"unknown_selection rule "C" (x.yml:3): the condition names the rule "bb", which is not among `rules`"#
            ]],
        ),
        (
            "type: temporal, condition: a and",
            expect![[r#"condition rule "C" (x.yml:3): the condition ends too early"#]],
        ),
        (
            "type: temporal, aliases: [x]",
            expect![[
                r#"aliases rule "C" (x.yml:3): `aliases` is a list, not a map; as `aliases: {address: {rule_a: source_ip, rule_b: IpAddress}}`"#
            ]],
        ),
        (
            "type: temporal, group_by: [x]",
            expect![[
                r#"unknown_key rule "C" (x.yml:3): unknown key of `correlation`: "group_by"; did you mean "group-by"?"#
            ]],
        ),
    ] {
        let parsed = parse(&one(&format!("title: C\nid: c\ncorrelation: {{rules: [a, b], timespan: 24h, {body}}}\n")));
        let problems: Vec<String> =
            parsed.problems.iter().map(|problem| format!("{} {problem}", problem.code)).collect();
        expect.assert_eq(&problems.join("\n"));
        assert_eq!(parsed.correlations.len(), 0);
    }
}

#[test]
fn aggregations_of_sigma_1_are_shown_as_correlations() {
    for (aggregation, expect) in [
        (
            "count() by User > 10",
            "write `correlation: {type: event_count, rules: [r], group-by: [User], timespan: 30s, condition: {gt: 10}}`",
        ),
        (
            "count(User) by Host, Domain >= 3",
            "write `correlation: {type: value_count, rules: [r], group-by: [Host, Domain], timespan: 30s, condition: {field: User, gte: 3}}`",
        ),
        (
            "count(UserName) by SourceWorkstation>3",
            "write `correlation: {type: value_count, rules: [r], group-by: [SourceWorkstation], timespan: 30s, condition: {field: UserName, gt: 3}}`",
        ),
        (
            "sum(bytes) > 10",
            "write `correlation: {type: value_sum, rules: [r], timespan: 30s, condition: {field: bytes, gt: 10}}`",
        ),
        (
            "near other",
            "make a rule of each search and write `correlation: {type: temporal, rules: [r, other], group-by: [...], timespan: 30s}`",
        ),
        ("min(x) > 3", "write it as a correlation (`correlation:` with `type: event_count`)"),
        ("", "write it as a correlation (`correlation:` with `type: event_count`)"),
    ] {
        let parsed =
            parse(&one(&rule("r", &format!("{{s: {{F: x}}, timeframe: 30s, condition: 's | {aggregation}'}}"))));
        let hints: Vec<&str> = parsed.problems.iter().filter_map(|problem| problem.hint.as_deref()).collect();
        assert_eq!(hints, [expect], "{aggregation}");
    }
}

#[test]
fn temporal_correlations_may_want_some_of_their_rules() {
    let rules: String =
        ["a", "b", "c"].map(|id| format!("{}---\n", rule(id, &format!("{{s: {{F: {id}}}, condition: s}}")))).concat();
    for (condition, expect) in [
        ("", "Temporal"),
        (", condition: {gte: 3}", "Temporal"),
        (", condition: {gt: 2}", "Temporal"),
        (", condition: a and b and c", "Temporal"),
        (", condition: all of them", "Temporal"),
        (
            ", condition: {gte: 2}",
            "Presence(Count(Condition { gte: Some(2), gt: None, lte: None, lt: None, eq: None, neq: None }, [0, 1, 2]))",
        ),
        (
            ", condition: 2 of them",
            "Presence(Count(Condition { gte: Some(2), gt: None, lte: None, lt: None, eq: None, neq: None }, [0, 1, 2]))",
        ),
        (
            ", condition: {gte: 1, lte: 2}",
            "Presence(Count(Condition { gte: Some(1), gt: None, lte: Some(2), lt: None, eq: None, neq: None }, [0, 1, 2]))",
        ),
        (
            ", condition: a or b or c",
            "EventCount(Condition { gte: Some(1), gt: None, lte: None, lt: None, eq: None, neq: None })",
        ),
        (", condition: a and not b", "Presence(All([Reference(0), Not(Reference(1))]))"),
        (", condition: (a or b) and c", "Presence(All([Any([Reference(0), Reference(1)]), Reference(2)]))"),
        (", condition: not a and not b", "condition"),
    ] {
        let text = format!(
            "{rules}title: C\nid: t\ncorrelation: {{type: temporal, rules: [a, b, c], timespan: 1m{condition}}}\n"
        );
        let (set, problems) = RuleSet::compile(parse(&one(&text)), &Options::default());
        let set = std::sync::Arc::new(set);
        let found = set.episode_rules().iter().find(|rule| &*rule.id == "t").map_or_else(
            || problems[0].code.to_owned(),
            |rule| {
                let event = event(log_source("p", "", ""), &[("F", Some("a"))], "{}");
                let mut hits = Vec::new();
                Scanner::new(set.clone()).scan(&event, &mut hits);
                let items = set.detection(hits[0], &event).items;
                let value = items.iter().find(|item| &*item.rule == "t").and_then(|item| item.value.clone());
                format!("{:?} {}", rule.predicate, value.as_deref().unwrap_or_default()).trim().to_owned()
            },
        );
        assert_eq!(found, expect, "{condition}");
    }
}

#[test]
fn codes_have_words_for_what_to_do() {
    for (code, about) in codes() {
        assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{code}");
        assert!(about.ends_with('.') && about.len() > 16, "{code}: {about}");
    }
    let severity = |rule: &str| parse(&one(rule)).problems[0].severity;
    assert_eq!(severity(&rule("r", "{s: {F|nope: x}, condition: s}")), Severity::Error);
    assert_eq!(severity(&format!("{}level: hgh\n", rule("r", "{s: {F: x}, condition: s}"))), Severity::Warning);
}
