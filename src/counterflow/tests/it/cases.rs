//! The given logs of web servers and sshd with known answers: the pack names whom it must.
//!
//! Each case is a log with the sources that a leaky-bucket engine reports for it. What counts is that an alert of our
//! rules names each of them, not by which rule: ours are general where theirs are one a vulnerability.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{lines, root, run, said, shared};

/// Cases whose every source must be named, in a hundred.
const PERCENT_MIN: usize = 85;

/// Those that are not named, with the reason.
const KNOWN_MISSES: &[(&str, &str)] = &[
    ("http-generic-test", "a path that the other engine answers to test itself: it attacks nothing"),
    (
        "sshd-impossible-travel",
        "two logins from places far apart: the pack has no map of addresses. It reports the account that came from two \
         addresses at once, and an alert speaks of its group: the account and the host, not the addresses",
    ),
];

struct Case {
    name: String,
    sources: BTreeSet<String>,
    logs: Vec<std::path::PathBuf>,
}

#[test]
fn the_pack_names_the_sources_of_the_given_logs() {
    let Some(archive) = shared("data/events/web_and_linux_cases.tar.zst") else { return };
    let folder = tempfile::tempdir().unwrap();
    unpack(&archive, folder.path());
    let cases = cases(folder.path());
    assert!(cases.len() >= 34, "{} cases", cases.len());
    let mut named = 0;
    for case in &cases {
        let by = alerts_by_name(case);
        let missing: Vec<&String> = case.sources.iter().filter(|source| !by.contains_key(*source)).collect();
        let rules: BTreeSet<&String> = case.sources.iter().filter_map(|source| by.get(source)).flatten().collect();
        println!(
            "{:36} {}",
            case.name,
            if missing.is_empty() { format!("{rules:?}") } else { format!("misses {missing:?}") }
        );
        let known = KNOWN_MISSES.iter().find(|(name, _)| *name == case.name);
        match known {
            Some((_, why)) if !missing.is_empty() => println!("{:36} known: {why}", ""),
            _ => assert!(missing.is_empty(), "{}: no alert names {missing:?}", case.name),
        }
        named += usize::from(missing.is_empty());
    }
    println!("{named} of {} cases", cases.len());
    assert!(named * 100 >= PERCENT_MIN * cases.len());
}

fn unpack(archive: &std::path::Path, into: &std::path::Path) {
    let file = std::fs::File::open(archive).unwrap();
    let mut tar = tar::Archive::new(zstd::stream::read::Decoder::new(file).unwrap());
    tar.set_preserve_permissions(false);
    tar.unpack(into).unwrap();
}

/// Of nginx and Apache, and what sshd wrote.
fn cases(folder: &std::path::Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(expected) = std::fs::read_to_string(folder.join("expected.json")) else { continue };
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let mut logs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        logs.retain(|path| path.extension().is_none_or(|extension| extension != "json"));
        logs.sort();
        let of_sshd = || logs.iter().any(|log| String::from_utf8_lossy(&std::fs::read(log).unwrap()).contains("sshd["));
        let log_type = expected["log_type"].as_str().unwrap();
        if !(matches!(log_type, "nginx" | "apache2") || (log_type == "syslog" && of_sshd())) {
            continue;
        }
        let results = expected["results"].as_array().unwrap().iter();
        let sources = results.flat_map(|result| result["sources"].as_array().unwrap());
        let sources = sources.map(|source| source.as_str().unwrap().to_owned()).collect();
        cases.push(Case { name: folder.file_name().unwrap().to_string_lossy().into_owned(), sources, logs });
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

/// Titles of the rules whose alerts name a value.
fn alerts_by_name(case: &Case) -> BTreeMap<String, BTreeSet<String>> {
    let rules = root().join("rules");
    let mut arguments = vec!["replay", "--output", "json", "--year", "2024", "--rules", rules.to_str().unwrap()];
    arguments.extend(case.logs.iter().map(|log| log.to_str().unwrap()));
    let output = run(&arguments, b"");
    assert!(output.status.success(), "{}: {}", case.name, said(&output));
    let mut by: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for alert in lines(&output).iter().filter(|line| line.get("rule_id").is_some()) {
        let rule = alert["title"].as_str().unwrap_or("?");
        let group = &alert["group"];
        let pairs = group.as_array().into_iter().flatten().map(|pair| &pair[1]);
        for value in group.as_object().into_iter().flat_map(|map| map.values()).chain(pairs) {
            by.entry(value.as_str().unwrap().to_owned()).or_default().insert(rule.to_owned());
        }
    }
    by
}
