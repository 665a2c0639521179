//! The table of log sources against the public map, read independently, and against the public rules.

use std::collections::{BTreeMap, BTreeSet};

use cf_sigma::{LogSources, Scanner, rule::LogSourcePattern};
use serde::Deserialize;

use crate::world::{event, hits, log_source, public_rules, rules, shared};

#[derive(Deserialize)]
struct Map {
    logsources: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
struct Row {
    product: Option<String>,
    category: Option<String>,
    service: Option<String>,
    #[serde(default)]
    conditions: BTreeMap<String, OneOrMany>,
    rewrite: Option<Rewrite>,
    #[serde(default)]
    fieldmappings: BTreeMap<String, String>,
    #[serde(default)]
    sources: Vec<String>,
}

#[derive(Deserialize)]
struct Rewrite {
    product: String,
    service: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
    Word(String),
}

/// Channel, event id, further condition.
type Ways = BTreeSet<(String, u32, Vec<(String, String)>)>;

fn pattern(product: Option<&str>, category: Option<&str>, service: Option<&str>) -> LogSourcePattern {
    LogSourcePattern {
        product: product.map(Into::into),
        category: category.map(Into::into),
        service: service.map(Into::into),
    }
}

fn public_map() -> Option<Map> {
    let path = shared("sigma/logsources-windows.yml")?;
    Some(serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
}

fn channels(map: &Map, product: &str, service: &str) -> BTreeSet<String> {
    let of = |row: &&Row| row.product.as_deref() == Some(product) && row.service.as_deref() == Some(service);
    let sources = map.logsources.values().filter(of).flat_map(|row| &row.sources);
    sources.filter_map(|source| source.strip_prefix("WinEventLog:")).map(str::to_lowercase).collect()
}

#[test]
fn channels_and_event_ids_of_each_category_are_those_of_the_public_map() {
    let Some(map) = public_map() else { return };
    let table = LogSources::built_in();
    let mut wanted: BTreeMap<&str, Ways> = BTreeMap::new();
    for row in map.logsources.values() {
        let (Some(category), Some(rewrite)) = (&row.category, &row.rewrite) else { continue };
        let ids = match &row.conditions["EventID"] {
            OneOrMany::One(id) => vec![*id],
            OneOrMany::Many(ids) => ids.clone(),
            OneOrMany::Word(word) => panic!("{word}"),
        };
        let more: Vec<(String, String)> = row
            .conditions
            .iter()
            .filter(|(field, _)| *field != "EventID")
            .map(|(field, value)| match value {
                OneOrMany::Word(word) => (field.clone(), word.to_lowercase()),
                OneOrMany::One(_) | OneOrMany::Many(_) => panic!("{field}"),
            })
            .collect();
        for channel in channels(&map, &rewrite.product, &rewrite.service) {
            wanted.entry(category).or_default().extend(ids.iter().map(|id| (channel.clone(), *id, more.clone())));
        }
        for (rule, event) in &row.fieldmappings {
            let here = |(from, to): &(std::sync::Arc<str>, std::sync::Arc<str>)| **from == **rule && **to == **event;
            let entries = table.entries(&pattern(Some("windows"), Some(category), Some(&rewrite.service)));
            assert!(entries.iter().all(|entry| entry.category.unwrap().fields.iter().any(here)), "{category}: {rule}");
        }
    }
    assert_eq!(wanted.len(), 34); // with webserver, logfile and appliance, which have no channels, 37
    let mut found: BTreeMap<&str, Ways> = BTreeMap::new();
    for row in table.categories().iter().filter(|row| &*row.product == "windows") {
        let pattern = pattern(Some("windows"), Some(&row.category), Some(&row.service));
        for entry in table.entries(&pattern) {
            let mut more = vec![Vec::new()];
            for (field, values) in &row.when {
                let with = |value: &std::sync::Arc<str>| {
                    let condition = (field.to_string(), value.to_lowercase());
                    more.iter().map(|more| [more.clone(), vec![condition.clone()]].concat()).collect::<Vec<_>>()
                };
                more = values.iter().flat_map(with).collect();
            }
            let channel = entry.channel.to_lowercase();
            let ways = row.event_ids.iter().flat_map(|id| more.iter().map(|more| (channel.clone(), *id, more.clone())));
            found.entry(&row.category).or_default().extend(ways);
        }
    }
    assert_eq!(found, wanted);
}

/// Channels of ours that the public map does not have: services of its newer rules, and the real name of dns-client.
const MORE: [&str; 7] = [
    "dns server",
    "microsoft-servicebus-client/admin",
    "microsoft-servicebus-client/operational",
    "microsoft-windows-dns-client/operational",
    "microsoft-windows-dns-server/analytical",
    "microsoft-windows-dns-server/audit",
    "microsoft-windows-driverframeworks-usermode/operational",
];

#[test]
fn channels_of_each_service_are_those_of_the_public_map() {
    let Some(map) = public_map() else { return };
    let mut more = BTreeSet::new();
    let mut services = BTreeSet::new();
    for service in LogSources::built_in().services().iter().filter(|service| &*service.product == "windows") {
        let wanted = channels(&map, "windows", &service.service);
        let found: BTreeSet<String> = service.channels.iter().map(|channel| channel.to_lowercase()).collect();
        assert!(found.is_superset(&wanted), "{}", service.service);
        more.extend(found.difference(&wanted).cloned());
        services.insert(&*service.service);
    }
    assert_eq!(more.iter().map(String::as_str).collect::<Vec<_>>(), MORE);
    let windows = map.logsources.values().filter(|row| row.product.as_deref() == Some("windows"));
    let missing = |row: &&Row| row.service.as_deref().is_some_and(|service| !services.contains(service));
    assert_eq!(windows.filter(missing).count(), 0);
}

/// Reading of files comes only from the kernel's own event tracing, which no shipper of ours brings.
const NEVER_FED: [&str; 1] = ["windows/file_access/-: 13"];

#[test]
fn nearly_all_log_sources_of_the_public_rules_can_be_fed() {
    let Some(public) = public_rules() else { return };
    let table = LogSources::built_in();
    let mut sources = BTreeSet::new();
    let mut never: BTreeMap<String, usize> = BTreeMap::new();
    for rule in &public.parsed.rules {
        sources.insert(&rule.log_source);
        if table.known(&rule.log_source).is_nothing() {
            let LogSourcePattern { product, category, service } = &rule.log_source;
            let shown = [product, category, service].map(|part| part.as_deref().unwrap_or("-")).join("/");
            *never.entry(shown).or_default() += 1;
        }
    }
    assert_eq!(sources.len(), 138);
    let never: Vec<String> = never.iter().map(|(source, rules)| format!("{source}: {rules}")).collect();
    assert_eq!(never, NEVER_FED);
}

/// Found by random rules: the id's text was looked up with its case among ids without.
#[test]
fn an_event_id_that_is_no_number_is_compared_like_any_text() {
    let rule = "title: t\nid: r\nlogsource: {product: windows, service: security}\n\
                detection:\n  s:\n    EventID|neq: BA\n  condition: s\n";
    let mut scanner = Scanner::new(rules(&[rule]));
    for (id, met) in [("Ba", 0), ("ba", 0), ("4624", 1), ("c", 1)] {
        let fields = [("Channel", Some("Security")), ("EventID", Some(id))];
        assert_eq!(hits(&mut scanner, &event(log_source("windows", "", ""), &fields, "{}")).len(), met, "{id}");
    }
}

/// What is passed over by what its decoder declared is met by no rule, whatever its channel says.
#[test]
fn what_may_not_be_met_is_not_met() {
    let rule = |id: &str, log_source: &str| {
        format!("title: {id}\nid: {id}\nlogsource: {{{log_source}}}\ndetection:\n  s: {{Image: x}}\n  condition: s\n")
    };
    let sources = [
        "product: windows, category: process_creation",
        "product: windows, service: security",
        "product: windows",
        "product: linux, service: sshd",
        "category: webserver",
        "category: process_creation",
        "service: cloudtrail, product: aws",
    ];
    let declared = [
        ("windows", "", ""),
        ("linux", "", "sshd"),
        ("linux", "process_creation", ""),
        ("", "webserver", ""),
        ("aws", "", "cloudtrail"),
        ("", "", ""),
    ];
    let channels =
        [None, Some("Security"), Some("Microsoft-Windows-Sysmon/Operational"), Some("Linux-Sysmon/Operational")];
    let (mut met, mut passed_over) = (0, 0);
    for source in sources {
        let rules = rules(&[rule("a", source).as_str()]);
        let mut scanner = Scanner::new(std::sync::Arc::clone(&rules));
        for (product, category, service) in declared {
            let declared = log_source(product, category, service);
            let may = rules.may_meet(&declared);
            passed_over += u32::from(!may);
            for channel in channels {
                for event_id in ["1", "4688", "4624", "77"] {
                    let fields = [("Channel", channel), ("EventID", Some(event_id)), ("Image", Some("x"))];
                    let fields: Vec<_> = fields.into_iter().filter(|(_, value)| value.is_some()).collect();
                    let hit = !hits(&mut scanner, &event(declared.clone(), &fields, "{}")).is_empty();
                    met += u32::from(hit);
                    assert!(may || !hit, "{source} {product}/{category}/{service} {channel:?} {event_id}");
                }
            }
        }
    }
    assert!(met > 10 && passed_over > 10, "{met} {passed_over}");
}
