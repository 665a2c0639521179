use std::sync::Arc;

use super::{Pipeline, Pipelines};
use crate::{
    Options, ParseOptions, RuleSet, Severity, Text,
    outline::shown,
    parse::{parse, parse_with},
    rule::{Correlation, CorrelationKind, Expr, Matcher, Rule, Test},
};

fn text(file: &str, text: &str) -> Text {
    Text { file: file.into(), text: text.to_owned() }
}

#[track_caller]
fn pipelines(texts: &[&str]) -> Pipelines {
    let one = |yaml: &&str| match Pipeline::parse(&text("p.yml", yaml)) {
        Ok((pipeline, _)) => pipeline,
        Err(problems) => panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    Pipelines::new(texts.iter().map(one).collect())
}

/// `A=x & (B=y | !C|re=z)`.
fn written(expr: &Expr, outer: bool) -> String {
    let joined = |list: &[Expr], by: &str| {
        let list: Vec<String> = list.iter().map(|expr| written(expr, false)).collect();
        if outer { list.join(by) } else { format!("({})", list.join(by)) }
    };
    match expr {
        Expr::All(list) => joined(list, " & "),
        Expr::Any(list) => joined(list, " | "),
        Expr::Not(inner) => format!("!{}", written(inner, false)),
        Expr::Test(Test { field, matcher }) => {
            let field = field.as_deref().unwrap_or("any");
            let kind = match matcher {
                Matcher::Text { cased: false, .. } => "",
                Matcher::Text { .. } => "|cased",
                Matcher::Field { .. } => "|fieldref",
                Matcher::Null => "|null",
                _ => "|other",
            };
            format!("{field}{kind}={}", shown(matcher))
        }
    }
}

const HEAD: &str = "title: t\nid: r\ntags: [attack.t1059]\nlevel: high\nfields: [Image, Other]\nstatus: test\nteam: blue\n\
                    logsource: {product: windows, category: process_creation}\n";

#[track_caller]
fn applied(steps: &str, detection: &str) -> Result<Arc<Rule>, String> {
    let pipelines = pipelines(&[&format!("name: mine\ntransformations:\n{steps}")]);
    let options = ParseOptions { placeholders: pipelines.placeholders(), ..ParseOptions::default() };
    let mut parsed = parse_with(&[text("r.yml", &format!("{HEAD}detection:\n{detection}\n"))], &options);
    let errors = parsed.problems.iter().filter(|problem| problem.severity == Severity::Error);
    assert_eq!(errors.map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    let problems = pipelines.apply(&mut parsed.rules, &mut parsed.correlations);
    match problems.first() {
        Some(problem) => Err(problem.message.clone()),
        None => Ok(parsed.rules.remove(0)),
    }
}

/// Steps as flow maps, one a line; a detection of one selection `s`; the condition that follows.
#[track_caller]
fn check(steps: &[&str], selection: &str, condition: &str) {
    let steps: String = steps.iter().map(|step| format!("  - {step}\n")).collect();
    let rule = applied(&steps, &format!("  s: {selection}\n  condition: s"));
    let found = rule.map_or_else(|message| format!("refused: {message}"), |rule| written(&rule.condition, true));
    assert_eq!(found, condition, "{steps}");
}

#[test]
fn fields_get_other_names() {
    for (step, selection, condition) in [
        ("{type: field_name_mapping, mapping: {A: b}}", "{A: x, C: y}", "b=x & C=y"),
        ("{type: field_name_mapping, mapping: {A: [b, c]}}", "{A|contains: x, C: y}", "(b=*x* | c=*x*) & C=y"),
        ("{type: field_name_mapping, mapping: {A: b}}", "{C|fieldref: A}", "C|fieldref=b"),
        ("{type: field_name_mapping, mapping: {null: msg}}", "[x, y]", "msg=*x* | msg=*y*"),
        ("{type: field_name_prefix_mapping, mapping: {win.: windows.}}", "{win.a: x, b: y}", "windows.a=x & b=y"),
        ("{type: field_name_prefix_mapping, mapping: {a.: [b., c.]}}", "{a.x: 1}", "b.x=1 | c.x=1"),
        ("{type: field_name_prefix, prefix: p.}", "{A: x}", "p.A=x"),
        ("{type: field_name_suffix, suffix: .keyword}", "{A: x}", "A.keyword=x"),
        ("{type: field_name_suffix, suffix: .keyword}", "[x]", "any=*x*"),
        ("{type: field_name_transform, transform_func: lower}", "{CommandLine: x}", "commandline=x"),
        (
            "{type: field_name_transform, transform_func: snake_case, mapping: {Hash: h}}",
            "{ParentImage: x, Hash: y}",
            "parent_image=x & h=y",
        ),
    ] {
        check(&[step], selection, condition);
    }
}

#[test]
fn values_become_others() {
    for (step, selection, condition) in [
        ("{type: replace_string, regex: b+, replacement: c}", "{A: abba}", "A=aca"),
        (r"{type: replace_string, regex: '(\w+)@(\w+)', replacement: '\2/\1'}", "{A: me@home}", "A=home/me"),
        (r"{type: replace_string, regex: '\\', replacement: /}", r"{A|endswith: '\x\y.exe'}", "A=*/x/y.exe"),
        ("{type: replace_string, regex: '^\\*', replacement: ''}", "{A|endswith: x}", "A=x"),
        ("{type: replace_string, regex: x, replacement: '*'}", "{A: axb}", "A=a*b"),
        ("{type: replace_string, regex: x, replacement: '*', skip_special: true}", "{A: axb}", r"A=a\*b"),
        (
            "{type: replace_string, regex: x, replacement: '*', skip_special: true, interpret_special: true}",
            "{A: axb}",
            "A=a*b",
        ),
        (r"{type: replace_string, regex: none, replacement: y}", r"{A: 'a\*\\*'}", r"A=a\*\\*"),
        (r"{type: replace_string, regex: a, replacement: b}", r"{A: 'a\*\\*'}", r"A=b\*\\*"),
        ("{type: map_string, mapping: {x: y, z: [p, q]}}", "{A: [x, z, k]}", "A=y | A=p | A=q | A=k"),
        ("{type: map_string, mapping: {z: [p, q]}}", "{A|all: [k, z]}", "A=k & (A=p | A=q)"),
        ("{type: set_value, value: v}", "{A|contains: x}", "A=v"),
        ("{type: set_value, value: null}", "{A: x}", "A|null=null"),
        ("{type: set_value, value: 5}", "{A|neq: x}", "!A=5"),
        ("{type: convert_type, target_type: num}", "{A: '5'}", "A=5"),
        ("{type: regex}", "{A: x}", "A=x"),
        ("{type: regex, method: plain}", "{A: x*}", "A|cased=x*"),
        ("{type: case, method: upper}", "{A|contains: xé}", "A=*XÉ*"),
        ("{type: case, method: lower}", "{A|re: X}", "A|other=X"),
        (
            "{type: hashes_fields, valid_hash_algos: [MD5, SHA1], field_prefix: File}",
            "{Hashes: ['SHA1=5F1C', MD5=987B, IMPHASH=0], B: 1}",
            "(FileMD5=987B | FileSHA1=5F1C) & B=1",
        ),
    ] {
        let step = if step.contains("hashes_fields") {
            step.replace('}', ", field_name_conditions: [{type: include_fields, fields: [Hashes]}]}")
        } else {
            step.to_owned()
        };
        check(&[&step], selection, condition);
    }
    check(
        &["{type: hashes_fields, valid_hash_algos: [MD5], drop_algo_prefix: true, field_prefix: hash}"],
        "{Hashes: 987b65cd9b9f4e9a1afd8f8b48cf64a7}",
        "hash=987b65cd9b9f4e9a1afd8f8b48cf64a7",
    );
    check(
        &["{type: hashes_fields, valid_hash_algos: [MD5]}"],
        "{Hashes: SHA1=1}",
        "refused: pipeline \"mine\": \"Hashes\" has no hash of MD5",
    );
}

#[test]
fn items_are_dropped_and_what_is_left_is_asked() {
    let drop = "{type: drop_detection_item, field_name_conditions: [{type: include_fields, fields: [A]}]}";
    for (detection, condition) in [
        ("  s: {A: x, B: y}\n  condition: s", "B=y"),
        ("  s: {A: x}\n  t: {B: y}\n  condition: s and t", "B=y"),
        ("  s: {A: x}\n  t: {B: y}\n  condition: t and not s", "B=y"),
        ("  s: {A: x}\n  t: {B: y}\n  condition: 1 of them", "B=y"),
        ("  s: [{A: x}, {B: y}]\n  condition: s", "B=y"),
        ("  s: {A: x}\n  condition: s", "refused: the pipelines leave nothing of the rule's condition"),
    ] {
        let rule = applied(&format!("  - {drop}\n"), detection);
        let found = rule.map_or_else(|message| format!("refused: {message}"), |rule| written(&rule.condition, true));
        assert_eq!(found, condition, "{detection}");
    }
}

#[test]
fn conditions_are_added_to_each_condition() {
    for (step, condition) in [
        ("{type: add_condition, conditions: {index: [a, b]}}", "(index=a | index=b) & A=x"),
        ("{type: add_condition, conditions: {index: a}, negated: true}", "!index=a & A=x"),
        (
            "{type: add_condition, template: true, conditions: {source: '$product-${category}'}}",
            "source=windows-process_creation & A=x",
        ),
        ("{type: add_condition, conditions: {F|startswith: a}}", "F=a* & A=x"),
    ] {
        check(&[step], "{A: x}", condition);
        check(&[step], "{A: x}", condition);
    }
    let twice = "{type: add_condition, name: n, conditions: {i: a}}";
    check(&[twice, twice], "{A: x}", "i=a & (i=a & A=x)");
}

#[test]
fn steps_are_applied_where_their_conditions_hold() {
    let rename = |conditions: &str| format!("{{type: field_name_mapping, mapping: {{A: b, C: d}}, {conditions}}}");
    for (conditions, condition) in [
        ("rule_conditions: [{type: logsource, product: windows}]", "b=x & d=y"),
        ("rule_conditions: [{type: logsource, product: windows, service: sysmon}]", "A=x & C=y"),
        ("rule_conditions: [{type: logsource, product: linux}], rule_cond_not: true", "b=x & d=y"),
        ("rule_conditions: [{type: logsource, product: linux}, {type: is_sigma_rule}], rule_cond_op: or", "b=x & d=y"),
        ("rule_conditions: [{type: logsource, product: linux}, {type: is_sigma_rule}]", "A=x & C=y"),
        (
            "rule_conditions: {a: {type: logsource, product: linux}, b: {type: is_sigma_rule}}, rule_cond_expr: b and not a",
            "b=x & d=y",
        ),
        ("rule_conditions: [{type: is_sigma_correlation_rule}]", "A=x & C=y"),
        ("rule_conditions: [{type: contains_detection_item, field: A, value: x}]", "b=x & d=y"),
        ("rule_conditions: [{type: contains_detection_item, field: A, value: y}]", "A=x & C=y"),
        ("rule_conditions: [{type: contains_field, field: C}]", "b=x & d=y"),
        ("rule_conditions: [{type: contains_field, field: Z}]", "A=x & C=y"),
        ("rule_conditions: [{type: tag, tag: attack.t1059}]", "b=x & d=y"),
        ("rule_conditions: [{type: tag, tag: attack.t1060}]", "A=x & C=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: level, op: gte, value: medium}]", "b=x & d=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: level, op: gt, value: high}]", "A=x & C=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: status, op: lt, value: stable}]", "b=x & d=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: title, value: t}]", "b=x & d=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: tags, op: in, value: attack.t1059}]", "b=x & d=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: team, value: blue}]", "b=x & d=y"),
        ("rule_conditions: [{type: rule_attribute, attribute: nothing, value: blue}]", "A=x & C=y"),
        ("field_name_conditions: [{type: include_fields, fields: [A]}]", "b=x & C=y"),
        ("field_name_conditions: [{type: exclude_fields, fields: [A]}]", "A=x & d=y"),
        ("field_name_conditions: [{type: include_fields, fields: ['[AB]'], mode: re}]", "b=x & C=y"),
        ("detection_item_conditions: [{type: match_string, cond: any, pattern: x}]", "b=x & C=y"),
        ("detection_item_conditions: [{type: match_string, cond: all, pattern: x, negate: true}]", "A=x & d=y"),
        ("detection_item_conditions: [{type: match_value, cond: any, value: y}]", "A=x & d=y"),
        ("detection_item_conditions: [{type: is_null, cond: any}]", "A=x & C=y"),
        ("detection_item_conditions: [{type: contains_wildcard}]", "A=x & C=y"),
    ] {
        check(&[&rename(conditions)], "{A: x, C: y}", condition);
    }
}

#[test]
fn what_was_applied_and_the_state_are_remembered() {
    let first = "{id: one, type: field_name_mapping, mapping: {A: b}}";
    let state = "{id: two, type: set_state, key: k, val: 3}";
    for (second, condition) in [
        (
            "{type: field_name_suffix, suffix: .s, rule_conditions: [{type: processing_item_applied, processing_item_id: one}]}",
            "b.s=x & C.s=y",
        ),
        (
            "{type: field_name_suffix, suffix: .s, rule_conditions: [{type: processing_item_applied, processing_item_id: none}]}",
            "b=x & C=y",
        ),
        (
            "{type: field_name_suffix, suffix: .s, detection_item_conditions: [{type: processing_item_applied, processing_item_id: one}]}",
            "b.s=x & C=y",
        ),
        (
            "{type: field_name_suffix, suffix: .s, field_name_conditions: [{type: processing_item_applied, processing_item_id: one}], field_name_cond_not: true}",
            "b=x & C.s=y",
        ),
        (
            "{type: field_name_suffix, suffix: .s, rule_conditions: [{type: processing_state, key: k, val: 2, op: gt}]}",
            "b.s=x & C.s=y",
        ),
        (
            "{type: field_name_suffix, suffix: .s, rule_conditions: [{type: processing_state, key: k, val: 2}]}",
            "b=x & C=y",
        ),
        (
            "{type: nest, items: [{type: field_name_prefix, prefix: p.}, {type: field_name_suffix, suffix: .s}], rule_conditions: [{type: logsource, product: windows}]}",
            "p.b.s=x & p.C.s=y",
        ),
        ("{type: strict_field_mapping_failure}", "refused: pipeline \"mine\": the field \"C\" has no mapping"),
        ("{id: no, type: rule_failure, message: not here}", "refused: pipeline \"mine\": step \"no\": not here"),
        (
            "{type: detection_item_failure, message: no x, detection_item_conditions: [{type: match_string, pattern: x}]}",
            "refused: pipeline \"mine\": no x",
        ),
        (
            "{type: detection_item_failure, message: no z, detection_item_conditions: [{type: match_string, pattern: z}]}",
            "b=x & C=y",
        ),
    ] {
        check(&[first, state, second], "{A: x, C: y}", condition);
    }
}

#[test]
fn the_rule_itself_changes() {
    let rule = applied(
        "  - {type: change_logsource, category: Endpoint}\n  - {type: add_field, field: [New]}\n  \
         - {type: remove_field, field: Other}\n  - {type: field_name_mapping, mapping: {Image: process.executable}}\n  \
         - {type: set_custom_attribute, attribute: index, value: main}\n",
        "  s: {A: x}\n  condition: s",
    )
    .ok()
    .unwrap();
    assert_eq!(rule.log_source.category.as_deref(), Some("endpoint"));
    assert_eq!(rule.log_source.product, None);
    assert_eq!(rule.meta.fields.iter().map(|field| &**field).collect::<Vec<_>>(), ["process.executable", "New"]);
    assert_eq!(rule.meta.custom("index"), Some(&crate::rule::Value::Text(Arc::from("main"))));
}

#[test]
fn placeholders_get_the_values_of_variables() {
    let with = |steps: &str| format!("vars: {{admins: [root, 'adm*'], one: 1}}\ntransformations:\n{steps}");
    for (steps, placeholders) in [
        ("  - {type: value_placeholders}\n", r#"{"admins": ["root", "adm*"], "one": ["1"]}"#),
        ("  - {type: value_placeholders, include: [one]}\n", r#"{"one": ["1"]}"#),
        ("  - {type: value_placeholders, exclude: [one]}\n", r#"{"admins": ["root", "adm*"]}"#),
        (
            "  - {type: value_placeholders, include: [one]}\n  - {type: wildcard_placeholders}\n",
            r#"{"*": ["*"], "one": ["1"]}"#,
        ),
        ("  []\n", "{}"),
    ] {
        assert_eq!(format!("{:?}", pipelines(&[&with(steps)]).placeholders()), placeholders);
    }
    let rule =
        applied("  - {type: wildcard_placeholders}\n", "  s: {A|expand: '%who%-x'}\n  condition: s").ok().unwrap();
    assert_eq!(written(&rule.condition, true), "A=*-x");
}

#[test]
fn correlations_follow_the_names_of_their_rules() {
    let pipelines =
        pipelines(&["transformations:\n  - type: field_name_mapping\n    mapping: {TargetUserName: user.name, \
        IpAddress: source.ip, Two: [a, b]}\n    rule_conditions: [{type: logsource, product: windows}]\n"]);
    let base = format!("{HEAD}name: base\ndetection:\n  s: {{A: x}}\n  condition: s\n");
    let of = |fields: &str, counted: &str| {
        let rule = format!(
            "title: c\nid: c\ncorrelation:\n  type: value_count\n  rules: [base]\n  group-by: [{fields}]\n  \
             aliases: {{who: {{base: TargetUserName}}}}\n  timespan: 5m\n  condition: {{gte: 3, field: {counted}}}\n"
        );
        let mut parsed = parse(&[text("b.yml", &base), text("c.yml", &rule)]);
        let problems = pipelines.apply(&mut parsed.rules, &mut parsed.correlations);
        match (problems.first(), parsed.correlations.pop()) {
            (None, Some(Correlation { group_by, aliases, kind: CorrelationKind::ValueCount { fields, .. }, .. })) => {
                format!("{} {} {}", group_by.join(","), aliases[0].1[0].1, fields.join(","))
            }
            (problem, _) => problem.unwrap().message.clone(),
        }
    };
    assert_eq!(of("IpAddress, who, Z", "TargetUserName"), "source.ip,who,Z user.name user.name");
    assert_eq!(of("Two", "X"), "a,b user.name X");
    assert_eq!(of("Z", "Two"), "pipeline \"p.yml\": the counted field \"Two\" would have several names or none");
}

#[test]
fn pipelines_run_by_priority() {
    let step = |name: &str, priority: i64, suffix: &str| {
        format!("name: {name}\npriority: {priority}\ntransformations: [{{type: field_name_suffix, suffix: {suffix}}}]")
    };
    let pipelines = pipelines(&[&step("late", 60, ".3"), &step("first", 10, ".1"), &step("same", 10, ".2")]);
    let names: Vec<&str> = pipelines.list().iter().map(Pipeline::name).collect();
    assert_eq!(names, ["first", "same", "late"]);
    let mut parsed = parse(&[text("r.yml", &format!("{HEAD}detection:\n  s: {{A: x}}\n  condition: s\n"))]);
    assert!(pipelines.apply(&mut parsed.rules, &mut parsed.correlations).is_empty());
    assert_eq!(written(&parsed.rules[0].condition, true), "A.1.2.3=x");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (yaml, said) in [
        (
            "transformations: [{type: field_name_maping}]",
            r#"p.yml:1: unknown transformation "field_name_maping"; did you mean "field_name_mapping"?"#,
        ),
        (
            "transformation: []",
            r#"p.yml:1: unknown key of a pipeline "transformation"; did you mean "transformations"?"#,
        ),
        (
            "transformations:\n  - type: field_name_mapping\n    maping: {}",
            r#"p.yml:3: unknown key of the transformation "maping"; did you mean "mapping"?"#,
        ),
        ("transformations: [{type: field_name_mapping}]", "p.yml:1: the transformation has no `mapping`"),
        (
            "transformations: [{type: field_name_mapping, mapping: {A: []}}]",
            "p.yml:1: \"A\" is mapped to no text and no list of at most 64 texts",
        ),
        ("transformations: [{id: x}]", "p.yml:1: a transformation has no `type`"),
        ("transformations: [{type: rule_failure}]", "p.yml:1: `rule_failure` has no `message`"),
        ("transformations: [{type: nest}]", "p.yml:1: `nest` has no `items`"),
        ("transformations: {}", "p.yml:1: `transformations` is a map, not a list"),
        ("priority: high", "p.yml:1: `priority` is no whole number"),
        ("- a", "p.yml:1: a pipeline is a list, not a map"),
        ("", "p.yml:1: a pipeline is one document, here are 0"),
        (
            "transformations: [{type: set_state, key: a, val: 1, rule_conditions: [{type: logsourc}]}]",
            r#"p.yml:1: unknown rule condition "logsourc"; did you mean "logsource"?"#,
        ),
        (
            "transformations: [{type: set_state, key: a, val: 1, rule_conditions: {a: {type: is_sigma_rule}}, rule_cond_expr: a and c}]",
            "p.yml:1: unknown condition \"c\"",
        ),
        (
            "transformations: [{type: replace_string, regex: '(?<=a)b', replacement: c}]",
            "p.yml:1: the regular expression \"(?<=a)b\" cannot be used: error: look-around, including look-ahead and look-behind, is not supported; look-around and back references are not understood",
        ),
        (
            "transformations: [{type: query_expression_placeholders, expression: x}]",
            "p.yml:1: `query_expression_placeholders` makes parts of a query, which rules here do not become; give the values as `vars` and use `value_placeholders`",
        ),
        (
            "transformations: [{type: add_condition, conditions: {A|contain: x}}]",
            "p.yml:1: unknown modifier \"contain\"",
        ),
    ] {
        let problems = Pipeline::parse(&text("p.yml", yaml)).unwrap_err();
        assert_eq!(problems[0].to_string(), said, "{yaml}");
    }
    let ignored = "finalizers: [{type: concat}]\npostprocessing: []\nallowed_backends: [splunk]";
    let (_, problems) = Pipeline::parse(&text("p.yml", ignored)).unwrap();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["pipeline_ignored"; 2]);
}

#[test]
fn a_rule_that_a_pipeline_refuses_leaves_the_others() {
    let steps =
        "transformations: [{type: rule_failure, message: no, rule_conditions: [{type: logsource, product: linux}]}]";
    let options = Options { pipelines: Arc::new(pipelines(&[steps])), ..Options::default() };
    let rule = |id: &str, product: &str| {
        text(
            "r.yml",
            &format!(
                "title: t\nid: {id}\nlogsource: {{product: {product}}}\ndetection:\n  s: {{A: x}}\n  condition: s\n"
            ),
        )
    };
    let (rules, problems) = RuleSet::compile(parse(&[rule("a", "linux"), rule("b", "windows")]), &options);
    assert_eq!(rules.rules().iter().map(|rule| &*rule.id).collect::<Vec<_>>(), ["b"]);
    let failed = problems.iter().find(|problem| problem.code == "pipeline_failure").unwrap();
    assert_eq!(failed.message, "pipeline \"p.yml\": no");
    let (plain, _) = RuleSet::compile(parse(&[rule("b", "windows")]), &Options::default());
    let (same, _) = RuleSet::compile(parse(&[rule("b", "windows")]), &options);
    assert_ne!(plain.hash(), same.hash());
}
