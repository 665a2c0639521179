//! YARA rules among the others: what they find in values, what is said of bad ones, and that hostile ones end.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::missing_docs_in_private_items)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cf_sigma::{
    Options, RuleSet, Scanner, Severity, Text, parse,
    rule::{Expr, Matcher, Rule, Test},
};
use cf_types::{Event, Fields, LogSource, Name, Origin, Position, Scalar, Tenant, Time, TimeBasis, record::Framing};
use cf_yara::{Limits, Read, read};

fn texts(files: &[&str]) -> Vec<Text> {
    let named = files.iter().enumerate();
    named.map(|(number, text)| Text { file: format!("{number}.yar").into(), text: (*text).to_owned() }).collect()
}

fn read_one(text: &str) -> Read {
    read(&texts(&[text]), &Limits::default())
}

/// Ids of the rules that an event of these fields meets.
fn met(files: &[&str], product: &str, fields: &[(&str, &str)]) -> String {
    let texts = texts(files);
    let read = read(&texts, &Limits::default());
    assert_eq!(read.problems, []);
    let mut parsed = parse(&[]);
    parsed.include(&texts, read.rules, read.problems);
    let (rules, problems) = RuleSet::compile(parsed, &Options::default());
    assert_eq!(problems, []);
    let mut list = Fields::default();
    for (name, value) in fields {
        list.push(Name::intern(name), value, Scalar::Text);
    }
    let event = Event {
        origin: Arc::new(Origin {
            tenant: Tenant::default(),
            source: "test".into(),
            received_at: Time::default(),
            year: None,
            framing: Framing::Record,
        }),
        position: Position::default(),
        declared_id: None,
        time: Time::from_seconds(0),
        time_basis: TimeBasis::Declared,
        log_source: Arc::new(LogSource { product: Some(product.into()), category: None, service: None }),
        entities: Vec::new(),
        fields: list,
        raw: Bytes::from_static(b"{}"),
    };
    let rules = Arc::new(rules);
    let mut hits = Vec::new();
    Scanner::new(Arc::clone(&rules)).scan(&event, &mut hits);
    hits.iter()
        .map(|hit| rules.rule(*hit).unwrap().id.trim_start_matches("yara.").to_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

const LOADER: &str = r#"
rule Loader {
    meta:
        description = "A loader that decodes and runs what it carries"
        level = "high"
        attack = "T1059.001"
    strings:
        $iex = /\bIEX\s*\(/ nocase
        $from = "FromBase64String" nocase wide ascii
    condition:
        all of them and filesize < 100KB
}
"#;

#[test]
fn script_blocks_and_command_lines_are_scanned() {
    let script = "iex ([Text.Encoding]::UTF8.GetString([Convert]::frombase64string($x)))";
    for (field, value, wanted) in [
        ("ScriptBlockText", script, "Loader"),
        ("CommandLine", script, "Loader"),
        ("message", script, "Loader"),
        ("ScriptBlockText", "IEX (Get-Date)", ""),
        ("ScriptBlockText", "[Convert]::FromBase64String('YQ==')", ""),
        // Not among the fields that are scanned unless a rule names them.
        ("Image", script, ""),
    ] {
        assert_eq!(met(&[LOADER], "windows", &[(field, value)]), wanted, "{field} {value}");
    }
}

#[test]
fn rules_choose_fields_and_log_sources() {
    let own = |meta: &str| format!("rule R {{ meta: {meta} strings: $a = \"needle\" condition: $a }}");
    for (meta, product, field, wanted) in [
        (r#"fields = "Image, Hash""#, "linux", "Hash", "R"),
        (r#"fields = "Image, Hash""#, "linux", "CommandLine", ""),
        (r#"fields = "*""#, "linux", "anything", "R"),
        (r#"logsource_product = "windows""#, "windows", "CommandLine", "R"),
        (r#"logsource_product = "windows""#, "linux", "CommandLine", ""),
    ] {
        assert_eq!(met(&[&own(meta)], product, &[(field, "a needle")]), wanted, "{meta} {product} {field}");
    }
}

#[test]
fn file_content_is_scanned_as_it_is_and_decoded() {
    let shell = r#"rule WebShell { strings: $a = "<?php" $b = "eval($_POST" condition: $a at 0 and $b }"#;
    let elf = r"rule Elf { condition: uint32(0) == 0x464c457f }";
    for (field, value, wanted) in [
        ("file_content", "<?php eval($_POST['x']); ?>", "WebShell"),
        ("file_content", "PD9waHAgZXZhbCgkX1BPU1RbJ3gnXSk7ID8+", "WebShell"),
        ("file.content", "f0VMRgIBAQAAAAAAAAAAAAMAPgABAAAA", "Elf"),
        // Another field's base64 is text.
        ("message", "PD9waHAgZXZhbCgkX1BPU1RbJ3gnXSk7ID8+", ""),
        ("file_content", "PD9waHAgZWNobyAxOyA/Pg==AAAAAAAA", ""),
    ] {
        assert_eq!(met(&[shell, elf], "linux", &[(field, value)]), wanted, "{field} {value}");
    }
}

#[test]
fn wide_strings_modules_and_references_hold() {
    let wide = r#"rule Wide { strings: $a = "secret" wide condition: $a }"#;
    assert_eq!(met(&[wide], "x", &[("message", "s\0e\0c\0r\0e\0t\0")]), "Wide");
    assert_eq!(met(&[wide], "x", &[("message", "secret")]), "");
    let hash = r#"import "hash" rule H { condition: hash.md5(0, filesize) == "900150983cd24fb0d6963f7d28e17f72" }"#;
    assert_eq!(met(&[hash], "x", &[("message", "abc")]), "H");
    assert_eq!(met(&[hash], "x", &[("message", "abd")]), "");
    let refer =
        r#"private rule Base { strings: $a = "base" condition: $a } rule Top { condition: Base and filesize > 5 }"#;
    assert_eq!(met(&[refer], "x", &[("message", "a base")]), "Top");
    // Names are of their file: the private rule of one is not seen by, and does not clash with, another's.
    let other = r#"private rule Base { condition: false } rule Other { condition: not Base }"#;
    assert_eq!(met(&[refer, other], "x", &[("message", "nothing")]), "Other");
    let global = r#"global rule Big { condition: filesize > 100 } rule Any { condition: true }"#;
    let free = "rule Free { condition: true }";
    assert_eq!(met(&[global, free], "x", &[("message", "small")]), "Free");
}

/// Code, line and column of each problem, then the rules that load.
#[track_caller]
fn check(text: &str, problems: &[(&str, u32, u32)], loaded: &str) {
    let read = read_one(text);
    let found: Vec<_> = read.problems.iter().map(|problem| (problem.code, problem.line, problem.column)).collect();
    assert_eq!(found, problems, "{:#?}", read.problems);
    let names: Vec<_> = read.rules.iter().map(|rule| rule.id.trim_start_matches("yara.")).collect();
    assert_eq!(names.join(" "), loaded);
    assert!(problems.iter().all(|(code, ..)| cf_yara::CODES.iter().any(|(known, _)| known == code)));
}

#[test]
fn problems_name_their_place_and_spare_the_other_rules() {
    check("rule A { condition: true }", &[], "A");
    check("rule A { condition: true }\nrule {", &[("yara_syntax", 2, 6)], "");
    check("rule A { condition: $b }\nrule B { condition: true }", &[("yara_rule", 1, 21)], "B");
    check(
        "rule A { condition: true }\n  // a } comment {\nrule B /* } */ { condition: true // }\n }\nrule C {\n condition: nope }",
        &[("yara_rule", 6, 13)],
        "A B",
    );
    check("rule A { condition: true } rule A { condition: false }", &[("yara_rule", 1, 33)], "A");
    check("import \"time\"\nrule A { condition: time.now() > 0 }", &[("yara_module", 1, 1), ("yara_rule", 2, 21)], "");
    check("include \"/etc/passwd\"\nrule A { condition: true }", &[("yara_include", 1, 1)], "A");
    check("rule A { meta: level = \"severe\" condition: true }", &[("yara_level", 1, 6)], "A");
    check("title: not YARA\ndetection: {}\n", &[("yara_syntax", 1, 1)], "");
    check("", &[], "");
    let found = read_one("rule A { strings: $a = \"x\" condition: $b }");
    assert_eq!((found.problems[0].severity, found.problems[0].rule.as_deref()), (Severity::Error, Some("A")));
}

#[test]
fn limits_are_said() {
    let many: String = (0..20).map(|n| format!("rule R{n} {{ condition: true }} ")).collect();
    let read_with = |limits| read(&texts(&[&many]), &limits);
    let few = read_with(Limits { rules_max: 5, ..Limits::default() });
    assert_eq!((few.rules.len(), few.problems.len(), few.problems[0].code), (5, 15, "yara_limit"));
    let short = read_with(Limits { text_bytes_max: 10, ..Limits::default() });
    assert_eq!((short.rules.len(), short.problems[0].code), (0, "yara_limit"));
}

#[test]
fn a_scan_says_where_and_when_it_was_cut_short() {
    let found = read_one("rule A { strings: $a = \"needle\" condition: $a }");
    let scan = found.engine.scan(b"a needle, a needle");
    assert_eq!(scan.found.len(), 1);
    let places: Vec<_> = scan.found[0].strings.iter().map(|string| (string.name.as_str(), string.offset)).collect();
    assert_eq!(places, [("a", 2), ("a", 12)]);

    let before = cf_yara::counters();
    let slow = "rule Slow { condition: for all i in (0..9223372036854775806) : ( i >= 0 ) }";
    let limits = Limits { scan_time: Duration::from_millis(50), ..Limits::default() };
    let scan = read(&texts(&[slow]), &limits).engine.scan(b"x");
    assert!(scan.timed_out && scan.found.is_empty());
    assert!(cf_yara::counters().timeouts_total > before.timeouts_total);
}

#[test]
fn values_are_scanned_up_to_the_limit_and_that_is_counted() {
    let limits = Limits { value_bytes_max: 100, ..Limits::default() };
    let found = read(&texts(&["rule A { strings: $a = \"needle\" condition: $a }"]), &limits);
    let before = cf_yara::counters().cut_total;
    assert!(fits(&found, &format!("{}needle", " ".repeat(94))));
    assert!(!fits(&found, &format!("{}needle", " ".repeat(95))));
    assert_eq!(cf_yara::counters().cut_total, before + 1);
}

/// Whether the first rule fits a value of its first field.
fn fits(read: &Read, value: &str) -> bool {
    let Some(Rule { condition: Expr::Any(tests), .. }) = read.rules.first() else { return false };
    match tests.first() {
        Some(Expr::Test(Test { matcher: Matcher::External(test), .. })) => test.fits(value),
        other => panic!("{other:?}"),
    }
}

/// Each is made to cost much; none may take longer than some seconds, read and scanned.
#[test]
fn hostile_rules_and_values_end() {
    let deep = format!("rule R {{ condition: {}true{} }}", "(".repeat(5_000), ")".repeat(5_000));
    let not = format!("rule R {{ condition: {}true }}", "not ".repeat(20_000));
    let group = format!("rule R {{ strings: $a = /{}a{}/ condition: $a }}", "(".repeat(3_000), ")".repeat(3_000));
    let hex = format!("rule R {{ strings: $a = {{ 41 {} 42 }} condition: $a }}", "?? ".repeat(20_000));
    let strings: String = (0..9_000).map(|n| format!("$a{n} = /x{n}[a-z]{{1,50}}y/ ")).collect();
    let many = format!("rule R {{ strings: {strings} condition: any of them }}");
    let value = "a".repeat(1 << 20);
    for text in [
        deep.as_str(),
        &not,
        &group,
        &hex,
        &many,
        "rule R { strings: $a = /(a{1,1000}){1,1000}b/ condition: $a }",
        "rule R { strings: $a = /((((a{1,50}){1,50}){1,50}){1,50})b/ condition: $a }",
        "rule R { strings: $a = /(a+)+$/ condition: $a }",
        "rule R { strings: $a = /a.*a.*a.*a.*b/s condition: #a > 5 }",
        "rule R { strings: $a = \"a\" condition: #a > 500000 }",
        "rule R { strings: $a = \"a\" condition: for all i in (1..#a) : ( for any j in (1..#a) : ( @a[i] < @a[j] ) ) }",
        "rule R { strings: $a = { 61 [0-5000] 61 [0-5000] 62 } condition: $a }",
        "rule R { strings: $a = \"a\" xor(0-255) condition: $a }",
        "\u{0}\u{feff}rule \u{fffd}",
    ] {
        let begin = Instant::now();
        let found = read_one(text);
        fits(&found, &value);
        let took = begin.elapsed();
        // Generous: tests share two cores, and the engine is not optimised here.
        assert!(took < Duration::from_secs(20), "{took:?}: {}", text.chars().take(80).collect::<String>());
    }
}
