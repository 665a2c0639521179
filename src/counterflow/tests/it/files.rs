//! `detect` and `replay` over files: positions, forms of JSON, bad input, and the same result in any order.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

use crate::support::{lines, run, said, shared};

const RULES: &str = "\
title: Failure
id: 6f1d5d2e-0000-4000-8000-0000000000f1
name: failure
logsource: {product: test}
detection: {a: {event: failure}, condition: a}
---
title: Success
id: 6f1d5d2e-0000-4000-8000-0000000000f2
name: success
logsource: {product: test}
detection: {a: {event: success}, condition: a}
---
title: Guessing
id: 6f1d5d2e-0000-4000-8000-0000000000f3
name: guessing
correlation:
  type: event_count
  rules: [failure]
  group-by: [source_ip]
  timespan: 5m
  condition: {gte: 3}
level: high
---
title: Guessed
id: 6f1d5d2e-0000-4000-8000-0000000000f4
correlation:
  type: temporal_ordered
  rules: [failure, success]
  group-by: [source_ip, user]
  timespan: 5m
level: critical
---
title: Odd
id: 6f1d5d2e-0000-4000-8000-0000000000f5
logsource: {product: test}
detection: {a: {event: odd}, condition: a}
";

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A small generator of its own: the same seed, the same events.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn events(dice: &mut Dice, count: u64) -> Vec<String> {
    let mut second = 0;
    (0..count)
        .map(|i| {
            second += dice.roll(40);
            let event = ["failure", "failure", "success", "odd", "noise"][usize::try_from(dice.roll(5)).unwrap()];
            let (ip, user) = (dice.roll(4), dice.roll(3));
            let time = cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(second).unwrap());
            json!({
                "event_id": format!("e{i}"), "timestamp": time, "product": "test", "event": event,
                "source_ip": format!("10.0.0.{ip}"), "user": format!("u{user}"),
            })
            .to_string()
        })
        .collect()
}

/// 10 % moved to far later in the file, 5 % given twice, then all shuffled within the file.
fn disturb(dice: &mut Dice, mut lines: Vec<String>) -> Vec<String> {
    let count = lines.len();
    for i in 0..count {
        if dice.roll(20) == 0 {
            lines.push(lines[i].clone());
        }
    }
    for i in (1..lines.len()).rev() {
        let j = usize::try_from(dice.roll(u64::try_from(i + 1).unwrap())).unwrap();
        lines.swap(i, j);
    }
    lines
}

#[test]
fn any_order_any_workers_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules.yml", RULES);
    let mut dice = Dice(7);
    let sorted = events(&mut dice, 5_000);
    let plain = write(folder.path(), "sorted.jsonl", &(sorted.join("\n") + "\n"));
    let wanted = run(&["replay", "--rules", &rules, "--no-positions", &plain], b"");
    assert!(lines(&wanted).len() > 100, "{}", said(&wanted));
    for round in 0..3 {
        let other = disturb(&mut dice, sorted.clone());
        let shuffled = write(folder.path(), &format!("shuffled{round}.jsonl"), &(other.join("\n") + "\n"));
        for workers in ["1", "2", "4"] {
            let found = run(&["replay", "--rules", &rules, "--no-positions", "--workers", workers, &shuffled], b"");
            assert!(found.stdout == wanted.stdout, "{workers} workers, round {round}: {}", said(&found));
        }
    }
}

/// The examples of `../shared/matching.md`, *Correlation under disorder*.
#[test]
fn disorder_is_judged_by_event_time() {
    #[track_caller]
    fn check(rule: &str, stream: &[(&str, i64)], alerts: &[(&str, u64)]) {
        let folder = tempfile::tempdir().unwrap();
        let rules = write(folder.path(), "rules.yml", RULES);
        let mut input = String::new();
        for (i, (event, second)) in stream.iter().enumerate() {
            let time = cf_types::Time::from_seconds(1_767_621_600 + second);
            let fields = json!({"event_id": i, "timestamp": time, "product": "test", "event": event,
                "source_ip": "10.0.0.1", "user": "u"});
            // event_id must be a string
            let mut fields = fields;
            fields["event_id"] = json!(format!("e{i}"));
            writeln!(input, "{fields}").unwrap();
        }
        let output = run(&["replay", "--rules", &rules, "-"], input.as_bytes());
        let found: Vec<_> =
            lines(&output).into_iter().filter(|alert| alert["rule_id"].as_str().unwrap().ends_with(rule)).collect();
        let mut shown: Vec<_> =
            found.iter().map(|a| (a["first"].as_str().unwrap().to_owned(), a["count"].as_u64().unwrap())).collect();
        shown.sort();
        let wanted: Vec<_> = alerts.iter().map(|(first, count)| ((*first).to_owned(), *count)).collect();
        assert_eq!(shown, wanted, "{}", said(&output));
    }
    let failures = |times: &[i64]| times.iter().map(|t| ("failure", *t)).collect::<Vec<_>>();
    check("f3", &failures(&[120, 400, 60]), &[]);
    check("f3", &failures(&[300, 590, 10]), &[]);
    check("f4", &[("success", 400), ("failure", 0)], &[]);
    check("f3", &failures(&[0, 10, 400, 20]), &[("2026-01-05T14:00:00Z", 3)]);
    check("f3", &failures(&[0, 60, 86_460, 120]), &[("2026-01-05T14:00:00Z", 3)]);
    check("f4", &[("failure", 0), ("success", 10), ("failure", 20), ("success", 30)], &[("2026-01-05T14:00:00Z", 4)]);
}

#[test]
fn alerts_lead_to_their_events_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules.yml", RULES);
    let event = |second: u32| json!({"timestamp": format!("2026-01-05T14:00:{second:02}Z"), "product": "test", "event": "failure", "source_ip": "10.0.0.1"});
    // Equal lines without an id are two events.
    let text = format!("{}\n\n{}\n{}\n", event(1), event(2), event(2));
    let file = write(folder.path(), "a.jsonl", &text);
    let output = run(&["replay", "--rules", &rules, &file], b"");
    let alerts = lines(&output);
    assert_eq!(alerts.len(), 1, "{}", said(&output));
    assert_eq!((&alerts[0]["count"], &alerts[0]["state"]), (&json!(3), &json!("open")));
    let places: Vec<_> =
        alerts[0]["events"].as_array().unwrap().iter().map(|e| (e["file"].clone(), e["line"].clone())).collect();
    let mut at: Vec<_> = places.iter().map(|(_, line)| line.as_u64().unwrap()).collect();
    at.sort_unstable();
    assert_eq!(at, [1, 3, 4]);
    assert!(places.iter().all(|(name, _)| *name == json!(file)));
}

#[test]
fn json_may_be_lines_documents_or_an_array() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules.yml", RULES);
    let one = json!({"timestamp": "2026-01-05T14:00:00Z", "product": "test", "event": "odd"});
    let pretty = serde_json::to_string_pretty(&one).unwrap();
    for text in [
        format!("{one}\n{one}\n"),
        format!("{one}{one}"),
        format!("{pretty}\n{pretty}"),
        format!("[{one},\n{pretty}]"),
        format!("\u{feff}{one}\r\n{one}\r\n"),
    ] {
        let output = run(&["detect", "--rules", &rules, "-"], text.as_bytes());
        assert_eq!(lines(&output).len(), 2, "{text}: {}", said(&output));
    }
}

#[test]
fn bad_input_is_rejected_and_the_rest_unharmed() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules.yml", RULES);
    let good = json!({"timestamp": "2026-01-05T14:00:00Z", "product": "test", "event": "odd"}).to_string();
    let bomb = "[".repeat(100_000);
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(3 << 20));
    let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    let future = good.replace("2026", "9998");
    let mut bytes = Vec::new();
    for bad in [
        b"{\"a\": tru".as_slice(),
        b"{\"a\":\"\xff\xfe\"}",
        huge.as_bytes(),
        deep.as_bytes(),
        b"{\"timestamp\":\"soon\",\"product\":\"test\"}",
        b"{\"timestamp\":\"2026-01-05T14:00:00Z\",\"event_id\":[1],\"event_type\":\"x\"}",
    ] {
        bytes.extend_from_slice(bad);
        bytes.push(b'\n');
        bytes.extend_from_slice(good.as_bytes());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(future.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(bomb.as_bytes());
    let output = run(&["detect", "--rules", &rules, "-"], &bytes);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(lines(&output).len(), 7, "{}", said(&output));
    let rejects: u64 = said(&output)
        .lines()
        .find_map(|l| l.split(", ").find_map(|p| p.strip_suffix(" rejects")?.parse().ok()))
        .unwrap();
    assert!(rejects >= 6, "{}", said(&output));
    for nothing in [&b""[..], b"\n\n", b"{", b"["] {
        let output = run(&["replay", "--rules", &rules, "-"], nothing);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{}", said(&output));
    }
}

#[test]
fn the_horizon_seals_and_wants_sorted_input() {
    let folder = tempfile::tempdir().unwrap();
    let rules = write(folder.path(), "rules.yml", RULES);
    let event = |time: &str| json!({"timestamp": time, "product": "test", "event": "odd", "user": "u"}).to_string();
    let day = |day: u32| event(&format!("2026-01-{day:02}T14:00:00Z"));
    let sorted = (1..9).map(day).collect::<Vec<_>>().join("\n");
    let unsorted = format!("{sorted}\n{}\n", day(1));
    let file = write(folder.path(), "u.jsonl", &unsorted);
    assert_eq!(run(&["replay", "--rules", &rules, "--horizon", "24h", &file], b"").status.code(), Some(2));
}

/// SigmaHQ's own regression cases (132 here): each fires its rule, with all rules loaded (DET-01).
#[test]
fn the_public_regression_cases_fire() {
    let Some(sigma) = shared("data/sigma") else { return };
    let folder = tempfile::tempdir().unwrap();
    for archive in ["sigmahq-rules.tar.zst", "regression.tar.zst"] {
        let done = std::process::Command::new("tar")
            .arg("--zstd")
            .arg("-xf")
            .arg(sigma.join(archive))
            .current_dir(&folder)
            .status();
        assert!(done.unwrap().success());
    }
    let table = fs::read_to_string(sigma.join("regression.tsv")).unwrap();
    let cases: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    let files: Vec<String> =
        cases.iter().map(|case| folder.path().join(case[2]).to_str().unwrap().to_owned()).collect();
    let rules: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("rules"))
        .collect();
    let mut arguments = vec!["detect"];
    for path in &rules {
        arguments.extend(["--rules", path.to_str().unwrap()]);
    }
    arguments.extend(files.iter().map(String::as_str));
    let output = run(&arguments, b"");
    let pairs = lines(&output);
    let silent: Vec<_> = cases
        .iter()
        .zip(&files)
        .filter(|(case, file)| !pairs.iter().any(|pair: &Value| pair["rule_id"] == case[0] && pair["file"] == **file))
        .map(|(case, _)| case[1])
        .collect();
    assert_eq!((cases.len(), silent), (132, Vec::<&str>::new()), "{}", said(&output));
}
