//! Processing pipelines of the published shapes make rules meet the events they are for, and explanations follow.

use std::sync::Arc;

use cf_sigma::{Options, Pipeline, Pipelines, RuleSet, Scanner, parse};
use expect_test::expect;

use crate::world::{event, hits, log_source, text};

/// As of a shipper that writes ECS: fields by the Elastic Common Schema, log sources left as they are.
const ECS: &str = "\
name: Windows events in ECS
priority: 20
transformations:
  - id: ecs_fields
    type: field_name_mapping
    mapping:
      Image: process.executable
      ParentImage: process.parent.executable
      CommandLine: process.command_line
      User: user.name
      EventID: winlog.event_id
      DestinationIp: [destination.ip, destination.nat.ip]
    rule_conditions: [{type: logsource, product: windows}]
  - id: ecs_rest
    type: field_name_prefix
    prefix: winlog.event_data.
    field_name_conditions: [{type: processing_item_applied, processing_item_id: ecs_fields}]
    field_name_cond_not: true
    rule_conditions: [{type: logsource, product: windows}]
";

/// As of pySigma's Sysmon pipeline: generic categories become Sysmon's events.
const SYSMON: &str = "\
name: Generic log sources to Sysmon
priority: 10
transformations:
  - type: add_condition
    conditions: {EventID: 3}
    rule_conditions: [{type: logsource, category: network_connection, product: windows}]
  - type: change_logsource
    product: windows
    service: sysmon
    rule_conditions: [{type: logsource, category: network_connection, product: windows}]
";

fn compiled(pipelines: &[&str], rules: &[&str]) -> Arc<RuleSet> {
    let one = |yaml: &&str| Pipeline::parse(&text("p.yml", yaml)).unwrap().0;
    let pipelines = Arc::new(Pipelines::new(pipelines.iter().map(one).collect()));
    let texts: Vec<_> = rules.iter().map(|rule| text("r.yml", rule)).collect();
    let (rules, problems) = RuleSet::compile(parse(&texts), &Options { pipelines, ..Options::default() });
    let errors: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
    Arc::new(rules)
}

const SHELL: &str = "title: Shell\nid: shell\nlogsource: {product: windows, category: process_creation}\ndetection:\n  \
                     s:\n    Image|endswith: '\\cmd.exe'\n    Hashes|contains: 'MD5=1'\n  f: {User: SYSTEM}\n  \
                     condition: s and not f\n";
const CALL: &str = "title: Call\nid: call\nlogsource: {product: windows, category: network_connection}\ndetection:\n  \
                    s: {DestinationIp|cidr: 10.0.0.0/8}\n  condition: s\n";

#[test]
fn rules_meet_events_of_ecs() {
    let rules = compiled(&[ECS], &[SHELL, CALL]);
    let mut scanner = Scanner::new(Arc::clone(&rules));
    for (category, fields, met) in [
        (
            "process_creation",
            &[("process.executable", r"C:\x\cmd.exe"), ("winlog.event_data.Hashes", "MD5=1"), ("user.name", "bob")][..],
            &["shell"][..],
        ),
        (
            "process_creation",
            &[("process.executable", r"C:\x\cmd.exe"), ("winlog.event_data.Hashes", "MD5=1"), ("user.name", "system")],
            &[],
        ),
        ("process_creation", &[("Image", r"C:\x\cmd.exe"), ("Hashes", "MD5=1")], &[]),
        ("network_connection", &[("destination.ip", "10.1.2.3")], &["call"]),
        ("network_connection", &[("destination.ip", "8.8.8.8"), ("destination.nat.ip", "10.1.2.3")], &["call"]),
        ("network_connection", &[("destination.ip", "8.8.8.8")], &[]),
    ] {
        let fields: Vec<(&str, Option<&str>)> = fields.iter().map(|(name, value)| (*name, Some(*value))).collect();
        let event = event(log_source("windows", category, ""), &fields, "{}");
        assert_eq!(hits(&mut scanner, &event), met, "{fields:?}");
        for index in rules.indexes() {
            let explanation = rules.explain(index, &event);
            assert_eq!(explanation.matched, met.contains(&&*explanation.rule), "{explanation}");
        }
    }
}

#[test]
fn pipelines_follow_each_other_and_explanations_speak_of_what_is_asked() {
    let rules = compiled(&[ECS, SYSMON], &[CALL]);
    let mut scanner = Scanner::new(Arc::clone(&rules));
    let fields = [
        ("Channel", Some("Microsoft-Windows-Sysmon/Operational")),
        ("EventID", Some("3")),
        ("winlog.event_id", Some("3")),
        ("destination.ip", Some("10.1.2.3")),
    ];
    let event = event(log_source("windows", "", ""), &fields, "{}");
    assert_eq!(hits(&mut scanner, &event), ["call"]);
    let index = rules.indexes().next().unwrap();
    expect![[r#"
        rule "Call" (call) matches
        ✓ log source windows/-/sysmon: channel Microsoft-Windows-Sysmon/Operational
        ✓ all of
          ✓ _cond_1
            ✓ winlog.event_id has "3": saw "3"
          ✓ s
            ✓ any of
              ✓ destination.ip|cidr has "10.0.0.0/8": saw "10.1.2.3"
              ✗ destination.nat.ip|cidr wants "10.0.0.0/8": no such field
    "#]]
    .assert_eq(&rules.explain(index, &event).to_string());
}
