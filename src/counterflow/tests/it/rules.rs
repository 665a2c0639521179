//! `rules check | list | test | import | coverage` and `yara`: what people and CI see of rules.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::support::{lines, run, said};

const GOOD: &str = "\
title: Odd
id: 6f1d5d2e-0000-4000-8000-0000000000a1
status: test
description: Finds what is odd.
author: A. Writer
date: 2026-11-22
falsepositives: [Unknown]
level: high
tags: [attack.execution, attack.t1059.001]
logsource: {product: test}
detection: {a: {event: odd}, condition: a}
";

const YARA: &str = r#"
rule Loader : T1059 {
    meta:
        description = "A loader that runs what it carries"
        level = "critical"
    strings:
        $a = "Invoke-Loader" nocase
        $b = /FromBase64String\s*\(/
    condition:
        all of them
}
"#;

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn check_speaks_sarif_and_fails_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good_rule_of_ours.yml", GOOD);
    let doubtful = write(folder.path(), "doubt ful.yml", &GOOD.replace("00a1", "00a2").replace("level: high\n", ""));
    let bad =
        write(folder.path(), "bad.yml", &GOOD.replace("00a1", "00a3").replace("event: odd", "event|contain: odd"));
    let broken = write(folder.path(), "broken.yar", "rule A {\n  condition: nope\n}");
    for (arguments, code) in [
        (vec![good.as_str()], 0),
        (vec![&doubtful], 0),
        (vec![&doubtful, "--strict"], 1),
        (
            vec![
                &doubtful,
                "--strict",
                "--ignore",
                "no_level",
                "--ignore",
                "file_name",
                "--ignore",
                "unknown_logsource",
            ],
            0,
        ),
        (vec![&doubtful, "--strict", "--only", "no_level"], 1),
        (vec![&doubtful, "--strict", "--only", "no_status"], 0),
        (vec![&bad], 1),
        (vec![&bad, "--ignore", "unknown_modifier"], 0),
        (vec![&broken], 1),
        (vec![&good, "--ignore", "no_such_code"], 2),
        (vec!["/nowhere.yml"], 2),
    ] {
        let output = run(&[&["rules", "check"], arguments.as_slice()].concat(), b"");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    }

    let output = run(&["rules", "check", "--output", "sarif", text(folder.path())], b"");
    assert_eq!(output.status.code(), Some(1));
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&log["version"], log["runs"].as_array().unwrap().len()), (&json!("2.1.0"), 1));
    let driver = &log["runs"][0]["tool"]["driver"];
    let rules: Vec<_> = driver["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    let mut found: Vec<_> = Vec::new();
    for result in log["runs"][0]["results"].as_array().unwrap() {
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        assert!(uri.starts_with("file:///") && !uri.contains(' '), "{uri}");
        assert!(
            place["region"]["startLine"].as_u64().unwrap() > 0 && place["region"]["startColumn"].as_u64().unwrap() > 0
        );
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index], result["ruleId"]);
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        found.push((
            uri.rsplit('/').next().unwrap(),
            result["ruleId"].as_str().unwrap(),
            result["level"].as_str().unwrap(),
            place["region"]["startLine"].as_u64().unwrap(),
        ));
    }
    for wanted in [
        ("bad.yml", "unknown_modifier", "error", 11),
        ("broken.yar", "yara_rule", "error", 2),
        ("doubt%20ful.yml", "no_level", "warning", 1),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} is not in {found:?}");
    }
    let refused = run(&["rules", "list", "--output", "sarif", &good], b"");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
}

#[test]
fn list_filters_and_shows_what_rules_met() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "rules/odd.yml", GOOD);
    let other =
        GOOD.replace("00a1", "00a2").replace("level: high", "level: low").replace("attack.t1059.001", "attack.t1110");
    write(folder.path(), "rules/other.yml", &other.replace("product: test", "category: no_such_category"));
    write(folder.path(), "rules/loader.yar", YARA);
    let rules = folder.path().join("rules");
    let ids = |more: &[&str]| -> String {
        let output = run(&[&["rules", "list", text(&rules)], more].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let ids = lines(&output)
            .into_iter()
            .map(|row| row["rule_id"].as_str().unwrap().rsplit('-').next().unwrap().to_owned());
        ids.collect::<Vec<_>>().join(" ")
    };
    // In the order of the files.
    assert_eq!(ids(&[]), "yara.Loader 0000000000a1 0000000000a2");
    assert_eq!(ids(&["--level", "high"]), "yara.Loader 0000000000a1");
    assert_eq!(ids(&["--tag", "attack.t1059"]), "yara.Loader 0000000000a1");
    assert_eq!(ids(&["--tag", "attack.T1110"]), "0000000000a2");
    assert_eq!(ids(&["--logsource", "test"]), "0000000000a1");
    assert_eq!(ids(&["--logsource", "-/no_such_category/-"]), "0000000000a2");
    assert!(ids(&["--unfed"]).ends_with("0000000000a2"), "{}", ids(&["--unfed"]));

    let data = folder.path().join("data");
    let event = |second: u32| {
        json!({"timestamp": format!("2026-01-05T14:00:{second:02}Z"), "product": "test", "event": "odd"}).to_string()
    };
    let input = [event(1), event(7), event(3)].join("\n");
    let done = run(&["replay", "--rules", text(&rules), "--data", text(&data), "-"], input.as_bytes());
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let rows = lines(&run(&["rules", "list", text(&rules), "--data", text(&data)], b""));
    let hits: BTreeMap<_, _> =
        rows.iter().map(|row| (row["title"].as_str().unwrap(), row["hits"].as_u64().unwrap())).collect();
    assert_eq!(hits["A loader that runs what it carries"], 0);
    let odd = rows.iter().find(|row| row["title"] == "Odd" && row["hits"] != 0).unwrap();
    assert_eq!(odd["hits"], 3);
    assert!(odd["last_hit"].as_str().unwrap().starts_with("2026-01-05T14:00:07"), "{odd}");

    let layer = folder.path().join("layer.json");
    let done = run(&["rules", "coverage", text(&rules), "--out", text(&layer), "--data", text(&data)], b"");
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let layer: Value = serde_json::from_slice(&fs::read(&layer).unwrap()).unwrap();
    let techniques: Vec<_> =
        layer["techniques"].as_array().unwrap().iter().map(|t| t["techniqueID"].as_str().unwrap()).collect();
    assert_eq!(techniques, ["T1059", "T1059.001", "T1110"]);
}

#[test]
fn cases_beside_rules_cover_yara_and_name_what_fired() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "loader.yar", YARA);
    let script = |text: &str| {
        json!({"timestamp": "2026-01-05T14:00:00Z", "product": "windows", "ScriptBlockText": text}).to_string()
    };
    let case =
        |fires: bool, why: &str, text: &str| json!({"fires": fires, "why": why, "lines": [script(text)]}).to_string();
    let yes = case(true, "the loader", "invoke-loader; [Convert]::FromBase64String($x)");
    let no = case(false, "half of it", "Invoke-Loader -WhatIf");
    write(folder.path(), "loader.test.jsonl", &format!("{yes}\n{no}\n"));
    let output = run(&["rules", "test", text(folder.path())], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("2 cases, 0 failed"), "{}", said(&output));

    let odd = GOOD.replace("{a: {event: odd}, condition: a}", "{a: {ScriptBlockText|contains: whatif}, condition: a}");
    let two = format!("{odd}---\n{}", GOOD.replace("00a1", "00a2"));
    write(folder.path(), "two.yml", &two.replace("product: test", "product: windows"));
    let named =
        |rule: &str| json!({"fires": true, "rule": rule, "lines": [script("Invoke-Loader -WhatIf")]}).to_string();
    let cases: Vec<_> =
        ["a1", "a2", "a9"].iter().map(|end| named(&format!("6f1d5d2e-0000-4000-8000-0000000000{end}"))).collect();
    write(folder.path(), "two.test.jsonl", &cases.join("\n"));
    let output = run(&["rules", "test", text(folder.path())], b"");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for says in [
        "5 cases, 2 failed",
        "two.test.jsonl:2: must fire and did not; others did: 6f1d5d2e-0000-4000-8000-0000000000a1",
        "has no rule",
    ] {
        assert!(said(&output).contains(says), "{says}: {}", said(&output));
    }
}

#[test]
fn pipelines_rewrite_rules_before_they_are_compiled() {
    let folder = tempfile::tempdir().unwrap();
    let rule = GOOD.replace("{a: {event: odd}", "{a: {CommandLine|contains: '%tool%'}").replace("|contains", "|expand");
    let rules = write(folder.path(), "odd.yml", &rule);
    let pipeline = "
name: shop
priority: 10
vars: {tool: 'mimikatz.exe'}
transformations:
- id: names
  type: field_name_mapping
  mapping: {CommandLine: process.args_text}
- type: value_placeholders
";
    let pipeline = write(folder.path(), "shop.yml.pipeline", pipeline);
    let event = json!({"timestamp": "2026-01-05T14:00:00Z", "product": "test",
        "process": {"args_text": "mimikatz.exe"}});
    let events = write(folder.path(), "events.jsonl", &format!("{event}\n"));
    let found = |more: &[&str]| lines(&run(&[&["detect", "--rules", &rules, &events], more].concat(), b"")).len();
    assert_eq!(found(&["--placeholder", "tool=mimikatz.exe"]), 0, "the field has another name");
    assert_eq!(found(&["--pipeline", &pipeline]), 1);
    assert_eq!(found(&["--pipeline", &pipeline, "--placeholder", "tool=other"]), 0, "what is said by hand goes first");

    let settings = write(folder.path(), "settings.yml", &format!("rules: {{pipelines: [{pipeline}]}}\n"));
    let printed = run(&["config", "check", "--config", &settings], b"");
    assert_eq!(printed.status.code(), Some(0), "{}", said(&printed));

    let broken = write(folder.path(), "broken.pipeline", "transformations: [{type: field_name_maping}]\n");
    let refused = run(&["rules", "check", "--pipeline", &broken, &rules], b"");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("field_name_maping"), "{}", said(&refused));
}

#[test]
fn a_rule_may_not_take_the_id_of_the_engines_own_alerts() {
    let folder = tempfile::tempdir().unwrap();
    for id in ["risk", "indicator"] {
        let rule = write(folder.path(), "own.yml", &GOOD.replace("6f1d5d2e-0000-4000-8000-0000000000a1", id));
        let refused = run(&["rules", "check", &rule], b"");
        assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
        let all = format!("{}{}", String::from_utf8_lossy(&refused.stdout), said(&refused));
        assert!(all.contains("engine's own alerts"), "{all}");
    }
}

#[test]
fn explain_shows_each_part_and_the_nearest_miss() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "odd.yml", GOOD);
    let event = |what: &str| json!({"timestamp": "2026-01-05T14:00:00Z", "product": "test", "event": what}).to_string();
    let events = write(folder.path(), "events.jsonl", &format!("{}\n{}\n", event("odd"), event("even")));
    let id = "6f1d5d2e-0000-4000-8000-0000000000a1";
    let explain = |place: &str| run(&["rules", "explain", "--rules", &rules, "--rule", id, place], b"");
    let all = explain(&events);
    let matched: Vec<_> =
        lines(&all).iter().map(|row| (row["line"].clone(), row["explanation"]["matched"].clone())).collect();
    assert_eq!(matched, [(json!(1), json!(true)), (json!(2), json!(false))], "{}", said(&all));
    assert_eq!((all.status.code(), explain(&format!("{events}:1")).status.code()), (Some(0), Some(0)));
    let second = explain(&format!("{events}:2"));
    let rows = lines(&second);
    assert_eq!((second.status.code(), rows.len()), (Some(1), 1), "{}", said(&second));
    assert!(!rows[0]["explanation"]["nearest_miss"].as_array().unwrap().is_empty());
    let tree = run(
        &["--output", "table", "rules", "explain", "--rules", &rules, "--rule", "odd", &format!("{events}:2")],
        b"",
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("does not match") && tree.contains("nearest miss") && tree.contains("even"), "{tree}");
    for wrong in [format!("{events}:9"), "/nowhere:1".to_owned()] {
        assert_eq!(explain(&wrong).status.code(), Some(2), "{wrong}");
    }
    let unknown = run(&["rules", "explain", "--rules", &rules, "--rule", "no such", &events], b"");
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn yara_rules_meet_events_and_files() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules/loader.yar", YARA);
    let event = json!({"timestamp": "2026-01-05T14:00:00Z", "product": "windows", "CommandLine": "x INVOKE-LOADER FromBase64String (1)"});
    let found = lines(&run(&["replay", "--rules", &rules, "-"], event.to_string().as_bytes()));
    assert_eq!((found.len(), &found[0]["rule_id"], &found[0]["level"]), (1, &json!("yara.Loader"), &json!("critical")));

    write(folder.path(), "files/deep/er/evil.ps1", "# a\nInvoke-Loader\nFromBase64String(\"x\")");
    write(folder.path(), "files/good.ps1", "Invoke-Loader");
    write(folder.path(), "outside/evil.ps1", "Invoke-Loader FromBase64String(");
    std::os::unix::fs::symlink(folder.path().join("outside"), folder.path().join("files/link")).unwrap();
    let files = folder.path().join("files");
    let output = run(&["yara", "--rules", &rules, text(&files)], b"");
    let rows = lines(&output);
    assert_eq!((output.status.code(), rows.len()), (Some(0), 1), "{}", said(&output));
    assert!(rows[0]["file"].as_str().unwrap().ends_with("deep/er/evil.ps1"));
    assert_eq!(rows[0]["strings"][0], json!({"name": "$a", "offset": 4, "text": "Invoke-Loader"}));
    assert!(said(&output).contains("2 files, 1 matches, 0 not scanned"), "{}", said(&output));

    let large = folder.path().join("files/large.bin");
    fs::File::create(&large).unwrap().set_len((1 << 20) + 1).unwrap();
    let output = run(&["yara", "--rules", &rules, "--size-max", "1", text(&files), "/nowhere"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("--size-max") && said(&output).contains("/nowhere"), "{}", said(&output));
    let none = run(&["yara", "--rules", text(&files), text(&files)], b"");
    assert_eq!(none.status.code(), Some(2));
}

/// A file of a tar archive: name, kind, content (for links: where to).
type Member<'a> = (&'a str, tar::EntryType, &'a [u8]);

fn tar_of(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        // As an attacker does: the name goes in unchecked.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if kind.is_symlink() || kind.is_hard_link() {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content);
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        } else {
            header.set_size(u64::try_from(content.len()).unwrap());
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn zip_of(members: &[(&str, Option<u32>, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in members {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        if mode.is_some() {
            writer.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap();
        } else {
            writer.start_file(*name, options).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

/// Everything below a folder, by path; links are not followed.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, base: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                walk(&path, base, found);
            } else {
                found.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    if folder.exists() {
        walk(folder, folder, &mut found);
    }
    found.sort();
    found
}

/// Imports bytes as a source of this name; the exit code, what is told by file, and what is said.
#[track_caller]
fn import(folder: &Path, name: &str, bytes: &[u8], more: &[&str]) -> (Option<i32>, BTreeMap<String, String>, String) {
    let source = folder.join(name);
    fs::write(&source, bytes).unwrap();
    import_path(folder, &source, more)
}

fn import_path(folder: &Path, source: &Path, more: &[&str]) -> (Option<i32>, BTreeMap<String, String>, String) {
    let into = folder.join("into");
    let output = run(&[&["rules", "import", text(source), "--into", text(&into)], more].concat(), b"");
    let what = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let told = lines(&output).iter().map(|row| (what(row, "file"), what(row, "what"))).collect();
    (output.status.code(), told, said(&output))
}

#[test]
fn archives_of_all_kinds_come_in_with_their_origin() {
    use tar::EntryType::{Directory, Regular};
    let plain = tar_of(&[
        ("set/", Directory, b""),
        ("set/LICENSE", Regular, b"Detection Rule License 1.1"),
        ("set/rules/odd.yml", Regular, GOOD.as_bytes()),
        ("set/rules/loader.yar", Regular, YARA.as_bytes()),
        ("set/tool.py", Regular, b"import os"),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zip = zip_of(&[
        ("set/LICENSE", None, b"Detection Rule License 1.1"),
        ("set/rules/odd.yml", None, GOOD.as_bytes()),
        ("set/rules/loader.yar", None, YARA.as_bytes()),
        ("set/tool.py", None, b"import os"),
    ]);
    for (name, bytes) in [
        ("a.tar", plain.clone()),
        ("a.tar.gz", gzip.finish().unwrap()),
        ("a.tar.zst", zstd::encode_all(plain.as_slice(), 1).unwrap()),
        ("a.zip", zip),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, told, said) = import(folder.path(), name, &bytes, &["--from", "Example rules 1.0"]);
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(said.contains("3 new, 0 changed") && said.contains("2 rules load"), "{name}: {said}");
        assert_eq!(told.len(), 3);
        let into = folder.path().join("into");
        assert_eq!(
            tree(&into),
            [".source.json", "SOURCES.md", "set/LICENSE", "set/rules/loader.yar", "set/rules/odd.yml"],
            "{name}"
        );
        let attribution = fs::read_to_string(into.join("SOURCES.md")).unwrap();
        for says in ["Example rules 1.0", "set/LICENSE", "A. Writer", "Rule files: 2"] {
            assert!(attribution.contains(says), "{says}: {attribution}");
        }
        assert_eq!(fs::read(into.join("set/rules/odd.yml")).unwrap(), GOOD.as_bytes());
        // The same again changes nothing.
        let (code, told, said) = import_path(folder.path(), &folder.path().join(name), &[]);
        assert_eq!((code, told.len()), (Some(0), 0), "{said}");
    }
}

#[test]
fn what_changed_is_kept_until_one_says_replace() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write(&source, "odd.yml", GOOD);
    write(&source, "gone.yml", &GOOD.replace("00a1", "00a2"));
    assert_eq!(import_path(folder.path(), &source, &[]).0, Some(0));
    let into = folder.path().join("into");
    write(&into, "own.yml", &GOOD.replace("00a1", "00a9"));
    write(&source, "odd.yml", &GOOD.replace("level: high", "level: low"));
    write(&source, "new.yml", &GOOD.replace("00a1", "00a3"));
    fs::remove_file(source.join("gone.yml")).unwrap();

    let (code, told, said) = import_path(folder.path(), &source, &[]);
    let told: Vec<_> = told.iter().map(|(file, what)| format!("{file} {what}")).collect();
    assert_eq!((code, told.join(", ").as_str()), (Some(1), "gone.yml kept, new.yml new, odd.yml kept"), "{said}");
    assert_eq!(fs::read_to_string(into.join("odd.yml")).unwrap(), GOOD);
}

#[test]
fn replace_overwrites_and_removes_only_what_an_import_brought() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write(&source, "odd.yml", GOOD);
    write(&source, "gone.yml", &GOOD.replace("00a1", "00a2"));
    assert_eq!(import_path(folder.path(), &source, &[]).0, Some(0));
    let into = folder.path().join("into");
    write(&into, "own.yml", &GOOD.replace("00a1", "00a9"));
    write(&source, "odd.yml", &GOOD.replace("level: high", "level: low"));
    fs::remove_file(source.join("gone.yml")).unwrap();
    let (code, told, said) = import_path(folder.path(), &source, &["--replace"]);
    let told: Vec<_> = told.iter().map(|(file, what)| format!("{file} {what}")).collect();
    assert_eq!((code, told.join(", ").as_str()), (Some(0), "gone.yml removed, odd.yml changed"), "{said}");
    assert!(fs::read_to_string(into.join("odd.yml")).unwrap().contains("level: low"));
    assert_eq!(tree(&into), [".source.json", "SOURCES.md", "odd.yml", "own.yml"]);
}

#[test]
fn nothing_leaves_the_target() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    let good = GOOD.as_bytes();
    let archives: [(&str, Vec<u8>); 2] = [
        (
            "evil.tar",
            tar_of(&[
                ("good.yml", Regular, good),
                ("../escaped.yml", Regular, good),
                ("a/../../escaped.yml", Regular, good),
                ("/tmp/counterflow-escaped.yml", Regular, good),
                ("link.yml", Symlink, b"/etc/passwd"),
                ("dir", Symlink, b".."),
                ("dir/through.yml", Regular, good),
                ("hard.yml", Link, b"/etc/passwd"),
                ("device.yml", Char, b""),
                ("pipe.yml", Fifo, b""),
                ("good.yml", Regular, b"second"),
                ("a\\..\\..\\b.yml", Regular, good),
            ]),
        ),
        (
            "evil.zip",
            zip_of(&[
                ("good.yml", None, good),
                ("../escaped.yml", None, good),
                ("a/../../escaped.yml", None, good),
                ("/tmp/counterflow-escaped.yml", None, good),
                ("link.yml", Some(0o120_777), b"/etc/passwd"),
                ("dir", Some(0o120_777), b".."),
                ("dir/through.yml", None, good),
            ]),
        ),
    ];
    for (name, bytes) in archives {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("x/y");
        fs::create_dir_all(&inner).unwrap();
        let (code, told, said) = import(&inner, name, &bytes, &[]);
        assert_eq!(code, Some(1), "{name}: {said}");
        let refused = told.values().filter(|what| *what == "refused").count();
        assert!(refused >= 5, "{name}: {told:?}");
        // `dir` is no link here: the file in it is a file like any other, below the target. Its rule is a repeated id.
        assert_eq!(tree(&inner.join("into")), [".source.json", "SOURCES.md", "dir/through.yml", "good.yml"], "{name}");
        assert_eq!(fs::read(inner.join("into/good.yml")).unwrap(), good);
        assert_eq!(tree(folder.path()).len(), 5, "{name}: {:?}", tree(folder.path()));
        assert!(!PathBuf::from("/tmp/counterflow-escaped.yml").exists());
    }
}

#[test]
fn links_in_the_target_or_the_source_are_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write(&source, "sub/odd.yml", GOOD);
    write(&source, "top.yml", &GOOD.replace("00a1", "00a2"));
    let outside = write(folder.path(), "outside/secret.yml", "secret");
    std::os::unix::fs::symlink(folder.path().join("outside"), source.join("linked")).unwrap();
    std::os::unix::fs::symlink(&outside, source.join("secret.yml")).unwrap();
    let into = folder.path().join("into");
    fs::create_dir(&into).unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside"), into.join("sub")).unwrap();
    std::os::unix::fs::symlink(&outside, into.join("top.yml")).unwrap();
    let (code, told, said) = import_path(folder.path(), &source, &["--replace"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(told.len() == 4 && told.values().all(|what| what == "refused"), "{told:?}");
    assert_eq!(tree(&folder.path().join("outside")), ["secret.yml"]);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
}

#[test]
fn bombs_and_wrong_files_import_nothing() {
    use tar::EntryType::Regular;
    let folder = tempfile::tempdir().unwrap();
    // 201 MB of zeros in a few kilobytes, in a file that nobody wants and in a rule file.
    let zeros = vec![0_u8; 201 << 20];
    for name in ["zeros.bin", "zeros.yml"] {
        let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packed.write_all(&tar_of(&[("good.yml", Regular, GOOD.as_bytes()), (name, Regular, &zeros)])).unwrap();
        let (code, told, said) = import(folder.path(), "bomb.tar.zst", &packed.finish().unwrap(), &[]);
        assert_eq!((code, told.len()), (Some(1), 0), "{said}");
        assert!(said.contains("more than 200 MB"), "{said}");
        let (code, _, said) = import(folder.path(), "bomb.zip", &zip_of(&[(name, None, &zeros)]), &[]);
        assert_eq!(code, Some(1), "{said}");
    }
    let many: Vec<_> = (0..100_001).map(|n| format!("{n}.txt")).collect();
    let members: Vec<Member<'_>> = many.iter().map(|name| (name.as_str(), Regular, &b""[..])).collect();
    let (code, _, said) = import(folder.path(), "many.tar", &tar_of(&members), &[]);
    assert!(code == Some(1) && said.contains("100000 entries"), "{said}");
    for (name, bytes) in [
        ("cut.tar.gz", &b"\x1f\x8b\x08\x00broken"[..]),
        ("cut.zip", b"PK\x03\x04broken"),
        ("cut.tar.zst", b"\x28\xb5\x2f\xfdbroken"),
        ("text.txt", b"hello"),
        ("empty.tar", &[0; 1024]),
    ] {
        let (code, told, said) = import(folder.path(), name, bytes, &[]);
        assert!(matches!(code, Some(1 | 2)) && told.is_empty(), "{name}: {said}");
    }
    assert_eq!(tree(&folder.path().join("into")), Vec::<String>::new());
}
