//! What each modifier and condition means, as tables.

use std::sync::Arc;

use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_sigma::Scanner;
use cf_types::{Framing, LogSource, Origin, Position, Record, Tenant, Time};

use crate::world::{event, hits, log_source, rules};

/// A rule of one selection `s`, and whether an event of these fields meets it.
#[track_caller]
fn check(selection: &str, fields: &[(&str, Option<&str>)], expect: bool) {
    check_detection(&format!("  s:\n    {}\n  condition: s", selection.replace('\n', "\n    ")), fields, expect);
}

#[track_caller]
fn check_detection(detection: &str, fields: &[(&str, Option<&str>)], expect: bool) {
    let rule = format!("title: t\nid: r\nlogsource:\n  product: p\ndetection:\n{detection}\n");
    let rules = rules(&[&rule]);
    let event = event(log_source("p", "", ""), fields, "{}");
    assert_eq!(!hits(&mut Scanner::new(rules), &event).is_empty(), expect, "{detection} on {fields:?}");
}

fn one<'a>(value: &'a str) -> Vec<(&'a str, Option<&'a str>)> {
    vec![("F", Some(value))]
}

#[test]
fn texts_match_without_case_and_with_wildcards() {
    for (selection, value, expect) in [
        ("F: abc", "ABC", true),
        ("F: abc", "abcd", false),
        ("F|cased: abc", "ABC", false),
        ("F|cased: abc", "abc", true),
        ("F: 'a*c'", "a---C", true),
        ("F: 'a?c'", "abbc", false),
        ("F: 'a?c'", "aäc", true),
        (r"F: 'a\*c'", "a*c", true),
        (r"F: 'a\*c'", "abc", false),
        (r"F: 'C:\Windows\\*'", r"c:\windows\x", true),
        ("F|contains: Straße", "die STRAẞE dort", true),
        ("F|contains: äöü", "ÄÖÜ", true),
        ("F|contains: k", "\u{212a}", true), // the Kelvin sign
        ("F|startswith: ab", "ABC", true),
        ("F|startswith: ab", "cab", false),
        ("F|endswith: .exe", "a.EXE", true),
        ("F|endswith: .exe", ".exe.txt", false),
        ("F|contains|cased: bC", "abCd", true),
        ("F|contains|cased: bC", "abcd", false),
        ("F|contains: 'a*b'", "xxaxxbxx", true),
        ("F|endswith:\n  - aa\n  - bb", "xbb", true),
        ("F|contains|all:\n  - aa\n  - bb", "xbb", false),
        ("F|contains|all:\n  - aa\n  - bb", "bbxaa", true),
        ("F: 3389", "3389", true),
        ("F: true", "True", true),
        ("F|neq: x", "y", true),
        ("F|neq: x", "X", false),
        ("F: '*'", "", true),
        ("F: '?*'", "", false),
        ("F:\n  - a1\n  - b1\n  - c1\n  - d1\n  - e1", "D1", true),
        ("F|contains:\n  - a1\n  - b1\n  - c1\n  - d1\n  - e1\n  - f1\n  - g1\n  - h1\n  - i1", "xxI1xx", true),
        ("F|contains:\n  - a1\n  - b1\n  - c1\n  - d1\n  - e1\n  - f1\n  - g1\n  - h1\n  - i1", "xxJ1xx", false),
    ] {
        check(selection, &one(value), expect);
    }
}

#[test]
fn null_empty_and_absent_differ() {
    for (selection, fields, expect) in [
        ("F: null", vec![], true),
        ("F: null", vec![("F", None)], true),
        ("F: null", vec![("F", Some(""))], false),
        ("F:", vec![], true),
        ("F: ''", vec![("F", Some(""))], true),
        ("F: ''", vec![], false),
        ("F: ''", vec![("F", None)], false),
        ("F:\n  - null\n  - x", vec![], true),
        ("F:\n  - null\n  - x", vec![("F", Some("x"))], true),
        ("F:\n  - null\n  - x", vec![("F", Some("y"))], false),
        ("F: 'null'", vec![], false),
        ("F: 'null'", vec![("F", Some("null"))], true),
        ("F|exists: true", vec![("F", None)], true),
        ("F|exists: true", vec![("F", Some(""))], true),
        ("F|exists: true", vec![], false),
        ("F|exists: false", vec![], true),
        ("F|exists: false", vec![("F", Some("x"))], false),
        ("F|contains: x", vec![], false),
        ("F|neq: x", vec![], true),
    ] {
        check(selection, &fields, expect);
    }
    // A filter on an absent field is false, so it filters nothing.
    check_detection("  s: {A: a}\n  filter: {F: x}\n  condition: s and not filter", &[("A", Some("a"))], true);
}

#[test]
fn a_list_matches_if_any_element_does() {
    let list = [("F", Some("aa")), ("F", Some("bb"))];
    check("F: bb", &list, true);
    check("F|contains|all:\n  - a\n  - b", &list, true);
    check("F: cc", &list, false);
    check("F|re: ^b+$", &list, true);
}

#[test]
fn encodings_and_dashes_are_found() {
    for (selection, value, expect) in [
        ("F|base64|contains: foobar", "xx Zm9vYmFy xx", true),
        ("F|base64offset|contains: /bin/bash", "L2Jpbi9iYXNo", true),
        ("F|base64offset|contains: /bin/bash", "IC9iaW4vYmFzaC", true), // one byte before it
        ("F|base64offset|contains: /bin/bash", "ICAvYmluL2Jhc2", true),
        ("F|wide|base64offset|contains: IEX", "SQBFAFgA", true),
        ("F|utf16le|base64|contains: IEX", "SQBFAFgA", true),
        ("F|utf16be|base64|contains: IEX", "AEkARQBY", true),
        ("F|utf16|base64|contains: IEX", "//5JAEUAWAA=", true),
        ("F|windash|contains: ' -f '", "a /f b", true),
        ("F|windash|contains: ' -f '", "a –F b", true),
        ("F|windash|contains: ' -f '", "a -f b", true),
        ("F|windash|contains: ' -f '", "a +f b", false),
        ("F|windash|contains: ' -f -g'", "a /f -G b", true),
        ("F|windash|contains: ' —f'", "a -f", true), // each of the five is read as any of them
        ("F|windash|contains: ' -a -b -c -d'", "x /a -b –c ―D y", true),
        ("F|windash|contains: ' -a -b -c -d'", "x /a -b +c -d", false),
        ("F|windash|endswith: '*.exe -a -b -c -d'", "C:/(x).EXE /a /b /c /d", true),
        ("F|windash|endswith: '*.exe -a -b -c -d'", "C:/(x).exe /a /b /c /d ", false),
        ("F|windash|startswith|cased: '-a -b -c -d'", "/A -b -c -d", false),
        ("F|windash|startswith|cased: '-a -b -c -d'", "/a -b -c -d.", true),
        ("F|contains|all|windash:\n  - ' -a'\n  - ' -b'", "x /a –b", true),
        ("F|contains|all|windash:\n  - ' -a'\n  - ' -b'", "x /a", false),
    ] {
        check(selection, &one(value), expect);
    }
}

#[test]
fn expressions_networks_and_numbers_compare() {
    for (selection, value, expect) in [
        ("F|re: 'a.c'", "xxabcxx", true),
        ("F|re: 'a.c'", "ABC", false),
        ("F|re|i: 'a.c'", "ABC", true),
        ("F|re|s: 'a.c'", "a\nc", true),
        ("F|re: 'a.c'", "a\nc", false),
        ("F|re|m: '^b$'", "a\nb\nc", true),
        ("F|re: '^b$'", "a\nb\nc", false),
        ("F|cidr: 10.0.0.0/8", "10.1.2.3", true),
        ("F|cidr: 10.0.0.0/8", "11.1.2.3", false),
        ("F|cidr: 10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("F|cidr: 10.0.0.0/8", "not an address", false),
        ("F|cidr: 'fe80::/10'", "fe80::1%eth0", true),
        ("F|cidr:\n  - '::1/128'\n  - 127.0.0.0/8", "127.0.0.1", true),
        ("F|gt: 5", "6", true),
        ("F|gt: 5", "5", false),
        ("F|gte: 5", "5.0", true),
        ("F|lt: 9007199254740993", "9007199254740992", true),
        ("F|lte: 5", "text", false),
        ("F|hour: 14", "2026-01-05T14:00:00Z", true),
        ("F|month: 1", "2026-01-05 14:00:00", true),
        ("F|week: 2", "2026-01-05", true),
        ("F|year: 2026", "2026-01-05", true),
        ("F|minute: 7", "2026-01-05T14:07", true),
        ("F|day: 6", "2026-01-05", false),
    ] {
        check(selection, &one(value), expect);
    }
}

#[test]
fn fields_are_compared_with_fields() {
    for (selection, f, g, expect) in [
        ("F|fieldref: G", "abc", "ABC", true),
        ("F|fieldref|cased: G", "abc", "ABC", false),
        ("F|fieldref|startswith: G", "abc", "ab", true),
        ("F|fieldref|endswith: G", "abc", "bc", true),
        ("F|fieldref|contains: G", "abc", "b", true),
        ("F|fieldref: G", "abc", "x", false),
        ("F|fieldref|neq: G", "abc", "x", true),
    ] {
        check(selection, &[("F", Some(f)), ("G", Some(g))], expect);
    }
    check("F|fieldref: G", &[("F", Some("a"))], false);
}

#[test]
fn conditions_join_selections() {
    let detection = |condition: &str| {
        format!(
            "  sel_a: {{A: a}}\n  sel_b: {{B: b}}\n  other: {{C: c}}\n  _hidden: {{D: d}}\n  condition: {condition}"
        )
    };
    for (condition, fields, expect) in [
        ("sel_a and sel_b", "A", false),
        ("sel_a and sel_b", "AB", true),
        ("sel_a or sel_b and other", "A", true),
        ("(sel_a or sel_b) and other", "A", false),
        ("not sel_a", "B", true),
        ("not (sel_a or sel_b) and other", "C", true),
        ("1 of sel_*", "B", true),
        ("any of sel_*", "B", true),
        ("all of sel_*", "B", false),
        ("all of sel_*", "AB", true),
        ("1 of them", "D", false), // `them` leaves out names with an underscore before
        ("all of them", "ABC", true),
        ("1 of *", "D", true),
        ("sel_a and not 1 of sel_b*", "A", true),
        ("sel_a OR sel_b", "B", true),
        ("not not sel_a", "A", true),
    ] {
        let values: Vec<(String, String)> =
            fields.chars().map(|c| (c.to_string(), c.to_lowercase().to_string())).collect();
        let fields: Vec<(&str, Option<&str>)> =
            values.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
        check_detection(&detection(condition), &fields, expect);
    }
    check_detection("  a: {A: a}\n  b: {B: b}\n  condition:\n    - a\n    - b", &[("B", Some("b"))], true);
    check_detection("  s:\n    - A: a\n      B: b\n    - C: c\n  condition: s", &[("C", Some("c"))], true);
    check_detection("  s:\n    - A: a\n      B: b\n    - C: c\n  condition: s", &[("A", Some("a"))], false);
}

#[test]
fn keywords_are_sought_in_all_values() {
    let any = [("Unasked", Some("some Mimikatz text"))];
    check_detection("  k:\n    - mimikatz\n    - other\n  condition: k", &any, true);
    check_detection("  k: mimikatz\n  condition: k", &any, true);
    check_detection("  k:\n    '|all':\n      - mimikatz\n      - text\n  condition: k", &any, true);
    check_detection("  k:\n    '|all':\n      - mimikatz\n      - else\n  condition: k", &any, false);
    check_detection("  k:\n    '|re': 'M.m'\n  condition: k", &any, true);
    check_detection("  k:\n    - ik\n  condition: k", &any, true);
    check_detection("  k:\n    - 'mimi*text'\n  condition: k", &any, true);
    check_detection("  k:\n    - absent\n    - F: x\n  condition: k", &one("x"), true);
}

#[test]
fn keywords_are_found_however_a_record_writes_its_values() {
    let rules = rules(&[
        "title: t\nid: r\nlogsource: {product: p}\ndetection:\n  k: ['evil\\tool', Mäuse, kk]\n  condition: k\n",
    ]);
    let mut scanner = Scanner::new(rules);
    let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
    for (value, expect) in [
        (r"an EVIL\\Tool", true),
        (r"\t\u0065vil\\tool", true),
        (r"\tevil\\tool", true),
        (r"\tevil\\\\tool", false),
        ("MÄUSE", true),
        (r"M\u00c4USE", true),
        ("xK\u{212a}x", true),
        (r"x\u212akx", true),
        ("", false),
    ] {
        // Beside values of every kind; the field itself is asked for by nobody.
        for other in [r#""x""#, r#""ü""#, r#""\n""#, r#""a\\b""#, "1", "null", "1.50"] {
            let text = format!(r#"{{"product":"p","Unasked":"{value}","F":{other}}}"#);
            let origin = Origin {
                tenant: Tenant::default(),
                source: "test".into(),
                received_at: Time::from_seconds(1_760_000_000),
                year: None,
                framing: Framing::Http,
            };
            let bytes = Bytes::from(text.clone());
            let record = Record { origin: Arc::new(origin), position: Position::default(), bytes };
            let mut decoded = Decoded::default();
            decoder.decode(&record, &mut decoded);
            let event = decoded.events.first().unwrap();
            assert_eq!(!hits(&mut scanner, event).is_empty(), expect, "{text}");
        }
    }
}

#[test]
fn text_lines_are_sought_as_a_whole() {
    let rules = rules(&[
        "title: t\nid: r\nlogsource: {product: linux, service: sshd}\ndetection:\n  k: [unexpected internal error]\n  condition: k\n",
    ]);
    let line = "Jan 1 00:00:00 h sshd[1]: Unexpected internal error";
    assert_eq!(hits(&mut Scanner::new(rules), &event(log_source("linux", "", "sshd"), &[], line)), ["r"]);
}

/// Which of these log sources' rules an event meets.
#[track_caller]
fn check_sources(declared: LogSource, fields: &[(&str, Option<&str>)], expect: &[&str]) {
    let sources = [
        ("windows", "product: windows"),
        ("sysmon", "{product: windows, service: sysmon}"),
        ("security", "{product: windows, service: security}"),
        ("process_creation", "{product: windows, category: process_creation}"),
        ("any_process_creation", "{category: process_creation}"),
        ("registry_event", "{product: windows, category: registry_event}"),
        ("registry_add", "{product: windows, category: registry_add}"),
        ("registry_delete", "{product: windows, category: registry_delete}"),
        ("registry_set", "{product: windows, category: registry_set}"),
        ("linux_process_creation", "{product: linux, category: process_creation}"),
        ("antivirus", "{category: antivirus}"),
        ("auth", "{product: linux, service: auth}"),
        ("sshd", "{product: linux, service: sshd}"),
        ("linux", "product: linux"),
        ("webserver", "{category: webserver}"),
        ("nginx", "{service: nginx}"),
    ];
    let texts: Vec<String> = sources
        .iter()
        .map(|(id, source)| {
            let source =
                source.strip_prefix("product").map_or((*source).to_owned(), |rest| format!("{{product{rest}}}"));
            format!(
                "title: {id}\nid: {id}\nlogsource: {source}\ndetection:\n  s: {{Image|contains: a}}\n  condition: s\n"
            )
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let rules = rules(&texts); // first: events know only names that rules ask for
    let event = event(declared, fields, "{}");
    let mut found = hits(&mut Scanner::new(rules), &event);
    found.sort();
    let mut expect: Vec<String> = expect.iter().map(ToString::to_string).collect();
    expect.sort();
    assert_eq!(found, expect, "{fields:?}");
}

#[test]
fn one_event_belongs_to_several_log_sources() {
    let windows = || log_source("windows", "", "");
    let sysmon = ("Channel", Some("Microsoft-Windows-Sysmon/Operational"));
    let image = ("Image", Some("a.exe"));
    let id = |id: &'static str| ("EventID", Some(id));
    check_sources(
        windows(),
        &[sysmon, id("1"), image],
        &["windows", "sysmon", "process_creation", "any_process_creation"],
    );
    let registry = |kind: &'static str| vec![sysmon, id("12"), ("EventType", Some(kind)), image];
    check_sources(windows(), &registry("CreateKey"), &["windows", "sysmon", "registry_event", "registry_add"]);
    check_sources(windows(), &registry("DeleteValue"), &["windows", "sysmon", "registry_event", "registry_delete"]);
    check_sources(windows(), &[sysmon, id("13"), image], &["windows", "sysmon", "registry_event", "registry_set"]);
    check_sources(windows(), &[sysmon, id("999"), image], &["windows", "sysmon"]);
    check_sources(windows(), &[sysmon, image], &["windows", "sysmon"]);
    // 4688 is a process_creation whose Image is called NewProcessName.
    let created = [("Channel", Some("security")), id("4688"), ("NewProcessName", Some("a.exe"))];
    check_sources(windows(), &created, &["process_creation", "any_process_creation"]);
    check_sources(windows(), &[("Channel", Some("Security")), id("4624"), image], &["windows", "security"]);
    // No decoder said that it is of Windows, but it has a channel of it.
    check_sources(
        LogSource::default(),
        &[sysmon, id("13"), image],
        &["windows", "sysmon", "registry_event", "registry_set"],
    );
    // Another product's field of that name routes nothing.
    check_sources(log_source("linux", "", ""), &[sysmon, id("1"), image], &["linux"]);
}

#[test]
fn events_without_a_channel_go_by_provider_or_declaration() {
    let image = ("Image", Some("a.exe"));
    let provider = ("Provider_Name", Some("Microsoft-Windows-Sysmon"));
    let one = ("EventID", Some("1"));
    check_sources(
        log_source("windows", "", ""),
        &[provider, one, image],
        &["windows", "sysmon", "process_creation", "any_process_creation"],
    );
    check_sources(
        log_source("windows", "", ""),
        &[("Provider_Name", Some("Microsoft-Windows-RPC")), one, image],
        &["windows"],
    );
    check_sources(
        log_source("windows", "process_creation", ""),
        &[image],
        &["windows", "process_creation", "any_process_creation"],
    );
}

#[test]
fn declared_log_sources_meet_rules_that_say_less() {
    let image = [("Image", Some("a"))];
    check_sources(log_source("linux", "", "sshd"), &image, &["linux", "sshd", "auth"]);
    check_sources(log_source("nginx", "webserver", "nginx"), &image, &["webserver", "nginx"]);
    check_sources(
        log_source("linux", "process_creation", ""),
        &image,
        &["linux", "linux_process_creation", "any_process_creation"],
    );
}
