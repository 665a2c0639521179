//! The past met again: as one set, epoch by epoch, with other rules, and for a rule that is new.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Engine, lines, post, run, said, wait_until};

const NDJSON: &str = "application/x-ndjson";
const BEGIN: i64 = 1_767_621_600; // 2026-01-05T14:00:00Z

const LAB: [&str; 3] = ["tests/cases/lab/access.log", "tests/cases/lab/auth.log", "tests/cases/lab/cron.log"];

/// Standard output of a command that ends well.
#[track_caller]
fn out(arguments: &[&str]) -> String {
    let output = run(arguments, b"");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn sql(data: &Path, statement: &str) -> Vec<Value> {
    lines(&run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", statement], b""))
}

/// An event of a kind from an address.
fn event(id: &str, second: i64, kind: &str, address: &str) -> Value {
    json!({
        "event_id": id, "timestamp": cf_types::Time::from_seconds(BEGIN + second), "source": "app", "event_type": kind,
        "source_ip": address, "host": "web01",
    })
}

fn body(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// A rule of the plan over one kind; with `count` it wants so many from one address.
fn rule(id: &str, kind: &str, count: Option<u32>) -> String {
    let counted = count.map_or(String::new(), |count| {
        format!("    - {{field: source_ip, operator: count, threshold: {count}, timewindow: 5m}}\n")
    });
    format!(
        "rule:\n  id: {id}\n  name: {id}\n  severity: high\n  conditions:\n    - {{field: event_type, operator: equals, \
         value: {kind}}}\n{counted}"
    )
}

#[track_caller]
fn send(engine: &Engine, events: &[Value]) {
    let (status, answer) = post(engine.http, "/api/v1/events", NDJSON, body(events).as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

#[track_caller]
fn fact(data: &Path, words: &[&str]) {
    let output = run(&[&["facts"], words, &["--data", data.to_str().unwrap()]].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
}

/// How many members a rule's alerts in some state have.
fn count(data: &Path, rule: &str, state: &str) -> u64 {
    let output = run(&["alerts", "--data", data.to_str().unwrap()], b"");
    let of = |alert: &&Value| alert["rule_id"] == rule && alert["state"] == state;
    lines(&output).iter().filter(of).map(|alert| alert["count"].as_u64().unwrap()).sum()
}

#[test]
fn history_gives_the_alerts_that_its_files_gave() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let files = [&["replay", "--rules", "rules", "--year", "2026", "--data", at], &LAB[..]].concat();
    let told = out(&files);
    assert!(told.lines().count() > 3, "{told}");
    for workers in ["1", "2", "4"] {
        assert_eq!(out(&["replay", "--data", at, "--workers", workers]), told, "{workers} workers");
    }
    assert_eq!(out(&["replay", "--data", at, "--rules", "rules"]), told, "the same rules, named");
    assert_eq!(out(&["replay", "--data", at, "--mode", "lived"]), told, "nothing came late");

    // What is not in the span, or came later, is not there.
    assert_eq!(out(&["replay", "--data", at, "--to", "2020-01-01T00:00:00Z"]), "");
    let early = out(&["replay", "--data", at, "--as-of", "1"]);
    assert!(early.len() <= told.len());
    for (words, why) in [
        (&["--as-of", "never"][..], "neither the number of an epoch nor a time"),
        (&["--as-of", "0"], "history has no epoch as of 0"),
        (&["--speed", "10"], "for --mode lived"),
        (&["--horizon", "1h"], "are for files"),
        (&["--mode", "lived", "--rules", "rules"], "has the rules of then"),
    ] {
        let output = run(&[&["replay", "--data", at], words].concat(), b"");
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(said(&output).contains(why), "{words:?}: {}", said(&output));
    }
    let output = run(&["replay", "--rules", "rules", "--mode", "lived", LAB[0]], b"");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn a_span_of_history_gives_the_alerts_of_the_events_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let rules = folder.path().join("rules.yml");
    std::fs::write(&rules, rule("many", "fail", Some(3))).unwrap();
    let kinds = ["fail", "visit", "fail"];
    let events: Vec<Value> = (0..300_usize)
        .map(|i| {
            event(&format!("e{i}"), i64::try_from(i * 7 % 300).unwrap(), kinds[i % 3], &format!("10.0.0.{}", i % 5))
        })
        .collect();
    let within = |events: &[Value], from: i64, to: i64| -> Vec<Value> {
        let at = |event: &Value| event["timestamp"].as_str().unwrap().parse::<cf_types::Time>().unwrap().cell() - BEGIN;
        events.iter().filter(|event| (from..to).contains(&at(event))).cloned().collect()
    };
    let replay = |events: &[Value], more: &[&str]| {
        let words = [&["replay", "--rules", rules.to_str().unwrap(), "--no-positions"], more, &["-"]].concat();
        let output = run(&words, body(events).as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let all = replay(&events, &["--data", data.to_str().unwrap()]);
    let past = |from: i64, to: i64| {
        let (from, to) = (cf_types::Time::from_seconds(BEGIN + from), cf_types::Time::from_seconds(BEGIN + to));
        let (from, to) = (from.to_string(), to.to_string());
        out(&["replay", "--data", data.to_str().unwrap(), "--no-positions", "--from", &from, "--to", &to])
    };
    assert_eq!(past(0, 300), all);
    for (from, to) in [(0, 100), (17, 18), (100, 299), (299, 300), (300, 400)] {
        assert_eq!(past(from, to), replay(&within(&events, from, to), &[]), "{from} to {to}");
    }
}

/// A life with late events, facts that come and go, rules that change, an indicator that looks back and a restart.
fn live(data: &Path, rules: &Path) {
    std::fs::create_dir_all(rules).unwrap();
    std::fs::write(rules.join("a.yml"), rule("many", "fail", Some(3))).unwrap();
    let engine = Engine::start(data, rules.to_str().unwrap(), &["--workers", "2"]);
    let failures = |name: &str, from: i64, count: i64, address: &str| -> Vec<Value> {
        (0..count).map(|i| event(&format!("{name}{i}"), from + i, "fail", address)).collect()
    };
    send(&engine, &failures("a", 10, 4, "10.0.0.1"));
    send(&engine, &failures("b", 20, 5, "203.0.113.9"));
    wait_until("two alerts", || count(data, "many", "open") == 9);
    fact(data, &["add", "allow", "10.0.0.0/24"]);
    wait_until("one is allowed", || count(data, "many", "withdrawn") == 4);
    // Another rule, in the middle.
    std::fs::write(rules.join("b.yml"), rule("seen", "visit", None)).unwrap();
    send(&engine, &[event("v0", 30, "visit", "10.9.0.1")]);
    wait_until("the new rule is in force", || {
        send(&engine, &[event("v1", 31, "visit", "10.9.0.1")]);
        count(data, "seen", "open") > 0
    });
    // Late, and before the first: the alert gets another id.
    send(&engine, &failures("c", 5, 2, "203.0.113.9"));
    wait_until("late ones are counted", || count(data, "many", "open") == 7);
    wait_until("history has them", || sql(data, "select count(*) as n from events")[0]["n"].as_u64() >= Some(12));
    fact(data, &["add", "indicator", "203.0.113.9", "confidence=80", "source=feed"]);
    wait_until("the indicator finds what was before", || count(data, "indicator", "open") == 7);
    engine.stop();
    let engine = Engine::start(data, rules.to_str().unwrap(), &["--workers", "1"]);
    fact(data, &["remove", "allow", "10.0.0.0/24"]);
    wait_until("it may stand again", || count(data, "many", "open") == 11);
    std::fs::write(rules.join("a.yml"), rule("many", "fail", Some(6))).unwrap();
    wait_until("too few for the changed rule", || count(data, "many", "open") == 7);
    send(&engine, &failures("d", 40, 3, "10.0.0.1"));
    wait_until("and enough again", || count(data, "many", "open") == 14);
    engine.stop();
}

#[test]
fn a_lived_replay_equals_the_live_run_in_every_column() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    live(&data, &rules);
    let tables = [
        ("alerts", "epoch, alert_id, revision, event"),
        ("incidents", "epoch, incident, state, incident_id"),
        ("detections", "epoch, rule_id, id"),
        ("events", "epoch, event_id"),
    ];
    for workers in ["1", "2", "4"] {
        let again = folder.path().join(format!("again{workers}"));
        let at = (data.to_str().unwrap(), again.to_str().unwrap());
        let told = out(&["replay", "--data", at.0, "--mode", "lived", "--workers", workers, "--into", at.1]);
        for (table, order) in tables {
            let statement = format!("select * from {table} order by {order}");
            let (then, now) = (sql(&data, &statement), sql(&again, &statement));
            assert!(!then.is_empty(), "{table}");
            assert_eq!(then.len(), now.len(), "{table}, {workers} workers");
            for (then, now) in then.iter().zip(&now) {
                assert_eq!(then, now, "{table}, {workers} workers");
            }
        }
        // The ledgers say the same, and the printed alerts are those that stand.
        let stand = |data: &str| {
            let mut alerts = lines(&run(&["alerts", "--data", data], b""));
            alerts.sort_by_key(|alert| alert["alert_id"].to_string());
            alerts
        };
        assert_eq!(stand(at.0), stand(at.1), "{workers} workers");
        let ids = |alerts: &[Value]| -> Vec<(String, u64)> {
            let gone = |alert: &&Value| !["withdrawn", "superseded"].contains(&alert["state"].as_str().unwrap());
            let pair = |alert: &Value| (alert["alert_id"].to_string(), alert["count"].as_u64().unwrap());
            alerts.iter().filter(gone).map(pair).collect()
        };
        let printed: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(ids(&printed), ids(&stand(at.0)));
    }
    // As of an epoch in the middle, there is what was told by then.
    let middle = sql(&data, "select min(epoch) as epoch from alerts where event = 'withdrawn'")[0]["epoch"].to_string();
    let told = out(&["replay", "--data", data.to_str().unwrap(), "--mode", "lived", "--as-of", &middle]);
    let standing = format!(
        "select alert_id from (select alert_id, event, row_number() over (partition by alert_id order by epoch desc) as n
         from alerts where epoch <= {middle}) where n = 1 and event not in ('withdrawn', 'superseded') order by 1"
    );
    let expected: Vec<Value> = sql(&data, &standing).into_iter().map(|row| row["alert_id"].clone()).collect();
    let told: Vec<Value> =
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["alert_id"].clone()).collect();
    assert_eq!(told, expected);
}

/// What a backtest printed: differences of alerts as (kind, id, before, after), and the other lines by what they are about.
fn differences(output: &str) -> (Vec<(String, String, Value, Value)>, Vec<Value>) {
    let rows: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (alerts, others): (Vec<Value>, Vec<Value>) = rows.into_iter().partition(|row| row["what"] == "alert");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let mut alerts: Vec<_> = alerts
        .iter()
        .map(|row| (text(row, "kind"), text(row, "alert_id"), row["before"].clone(), row["after"].clone()))
        .collect();
    alerts.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    (alerts, others)
}

/// The oracle: two replays of the same lines, and the difference of what they print as sets.
fn of_two_replays(before: &Path, after: &Path, input: &[u8]) -> Vec<(String, String, Value, Value)> {
    let alerts = |rules: &Path| -> std::collections::BTreeMap<String, Value> {
        let output = run(&["replay", "--rules", rules.to_str().unwrap(), "-"], input);
        let content = |alert: &Value| {
            let mut content = json!({});
            for key in ["title", "level", "state", "group", "count", "score"] {
                content[key] = alert[key].clone();
            }
            content
        };
        let id = |alert: &Value| alert["alert_id"].as_str().unwrap().to_owned();
        lines(&output).iter().map(|alert| (id(alert), content(alert))).collect()
    };
    let (before, after) = (alerts(before), alerts(after));
    let mut all: Vec<_> = Vec::new();
    for id in before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (old, new) = (before.get(id), after.get(id));
        let kind = match (old, new) {
            (None, _) => "added",
            (_, None) => "removed",
            (old, new) if old != new => "amended",
            _ => continue,
        };
        let content = |alert: Option<&Value>| alert.cloned().unwrap_or(Value::Null);
        all.push((kind.to_owned(), id.clone(), content(old), content(new)));
    }
    all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    all
}

/// Only what `replay` prints, too.
fn comparable(mut changes: Vec<(String, String, Value, Value)>) -> Vec<(String, String, Value, Value)> {
    for (_, _, before, after) in &mut changes {
        for content in [before, after] {
            if let Some(content) = content.as_object_mut() {
                content.remove("first");
                content.remove("last");
            }
        }
    }
    changes
}

/// Random events of three kinds from some addresses, some of them late or twice.
fn random_events(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut random = |below: u64| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let mut events = Vec::new();
    for i in 0..count {
        let kind = ["fail", "visit", "change"][random(3) as usize];
        let address = format!("10.0.0.{}", random(6));
        let second = i64::try_from(random(7_200)).unwrap();
        let event = event(&format!("e{i}"), second, kind, &address);
        let copies = if random(10) == 0 { 2 } else { 1 };
        events.extend(std::iter::repeat_n(event, copies));
    }
    body(&events).into_bytes()
}

/// A rule set: by file what is in it.
fn write_rules(folder: &Path, files: &[(&str, String)]) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// So many changes of one address within a minute, as a correlation.
fn correlation(id: &str, count: u32) -> String {
    let over = format!(
        "title: {id}\nid: {id}\nlevel: high\ncorrelation: {{type: event_count, rules: [{id}-base], group-by: [source_ip], \
         timespan: 1m, condition: {{gte: {count}}}}}\n"
    );
    format!("{}---\n{over}", rule(&format!("{id}-base"), "change", None))
}

#[test]
fn a_backtest_is_the_difference_of_two_replays() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after, tried) =
        (folder.path().join("before"), folder.path().join("after"), folder.path().join("tried"));
    let old = [
        ("a.yml", rule("many", "fail", Some(4))),
        ("b.yml", rule("seen", "visit", None)),
        ("c.yml", correlation("chained", 2)),
        ("d.yml", rule("unchanged", "fail", None)),
    ];
    write_rules(&before, &old);
    // One changed by its threshold, one that finds others, one new, one taken away.
    let new = [
        ("many.yml", rule("many", "fail", Some(3))),
        ("seen.yml", rule("seen", "change", None)),
        ("new.yml", rule("new", "visit", Some(5))),
        ("off.yml", "disable: [unchanged]\n".to_owned()),
        ("chained.yml", correlation("chained", 3)),
    ];
    write_rules(&tried, &new);
    write_rules(&after, &new[..3]);
    write_rules(&after, &new[4..]);
    for seed in [1, 2] {
        let data = folder.path().join(format!("data{seed}"));
        let at = data.to_str().unwrap();
        let input = random_events(seed, 600);
        let output = run(&["replay", "--rules", before.to_str().unwrap(), "--data", at, "-"], &input);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let expected = of_two_replays(&before, &after, &input);
        assert!(expected.iter().any(|change| change.0 == "amended"), "{expected:?}");
        let backtest = |more: &[&str]| {
            let words = ["rules", "backtest", tried.to_str().unwrap(), "--data", at];
            let output = run(&[&words[..], more].concat(), b"");
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            (String::from_utf8(output.stdout.clone()).unwrap(), said(&output))
        };
        let (fresh, _) = backtest(&["--cache-bytes", "0"]);
        let (changes, others) = differences(&fresh);
        assert_eq!(comparable(changes), expected, "seed {seed}");
        assert!(!data.join("backtest").exists(), "nothing is kept");
        for workers in ["1", "2", "4"] {
            assert_eq!(backtest(&["--cache-bytes", "0", "--workers", workers]).0, fresh, "{workers} workers");
        }
        // What is kept gives the same; so does meeting only what is new.
        assert_eq!(backtest(&[]).0, fresh);
        let (again, said) = backtest(&[]);
        assert_eq!(again, fresh);
        assert!(said.contains("0 events met"), "{said}");
        assert!(!said.contains(", 0 known from before"), "{said}");
        // Nothing came late and nothing is forgotten: epoch by epoch it is the same.
        let (lived, _) = backtest(&["--mode", "lived"]);
        assert_eq!(differences(&lived).0, differences(&fresh).0);
        let of =
            |rule: &str| others.iter().find(|row| row["what"] == "rule" && row["rule_id"] == rule).unwrap().clone();
        assert_eq!(
            (of("new")["kind"].as_str(), of("unchanged")["kind"].as_str(), of("many")["kind"].as_str()),
            (Some("new"), Some("gone"), Some("changed"))
        );
        assert!(of("new")["top_values"].as_array().is_some_and(|values| !values.is_empty()), "{}", of("new"));
    }

    // After one more edit only that rule is met again, and the whole difference is as if all were met.
    let data = folder.path().join("data1");
    std::fs::write(tried.join("new.yml"), rule("new", "fail", Some(6))).unwrap();
    let words = ["rules", "backtest", tried.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let (kept, fresh) = (out(&words), out(&[&words[..], &["--cache-bytes", "0"]].concat()));
    assert_eq!(kept, fresh);

    // A damaged pack is not used; what is beyond the bound goes.
    let packs = || -> Vec<std::path::PathBuf> {
        let folders = std::fs::read_dir(data.join("backtest")).unwrap().map(|folder| folder.unwrap().path());
        folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|pack| pack.unwrap().path())).collect()
    };
    assert!(!packs().is_empty());
    for (number, pack) in packs().iter().enumerate() {
        let mut bytes = std::fs::read(pack).unwrap();
        let middle = bytes.len() / 2;
        if number % 2 == 0 {
            bytes.truncate(middle)
        } else {
            bytes[middle] ^= 1
        }
        std::fs::write(pack, bytes).unwrap();
    }
    assert_eq!(out(&words), fresh);
    assert_eq!(out(&[&words[..], &["--cache-bytes", "1"]].concat()), fresh);
    assert_eq!(packs(), Vec::<std::path::PathBuf>::new());

    // For CI: more alerts than allowed, a rule that does not load, wrong words.
    let code = |more: &[&str]| run(&[&words[..], more].concat(), b"").status.code();
    assert_eq!((code(&["--max-added", "0"]), code(&["--max-added", "100000"])), (Some(1), Some(0)));
    assert_eq!(code(&["--mode", "lived", "--from", "2026-01-05T14:00:00Z"]), Some(2));
    std::fs::write(tried.join("new.yml"), "title: [\n").unwrap();
    assert_eq!(code(&[]), Some(2));
    assert_eq!(run(&["rules", "backtest", "rules", "--data", "/nowhere"], b"").status.code(), Some(2));
}

#[test]
fn a_backtest_of_what_is_in_force_differs_in_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    live(&data, &rules);
    let at = data.to_str().unwrap();
    for mode in ["known", "lived"] {
        let told = out(&["rules", "backtest", rules.to_str().unwrap(), "--data", at, "--mode", mode]);
        let (alerts, _) = differences(&told);
        // In the rules of then the threshold was lower for a while: of that `lived` speaks, and only of that.
        if mode == "known" {
            assert_eq!(alerts, [], "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
    // Taken away, each alert of it that stands is removed, in what was lived, too.
    let off = folder.path().join("off.yml");
    std::fs::write(&off, "disable: [seen]\n").unwrap();
    let standing: Vec<Value> = lines(&run(&["alerts", "--data", at, "--rule", "seen"], b""));
    let told = out(&["rules", "backtest", off.to_str().unwrap(), "--data", at, "--mode", "lived"]);
    let removed: Vec<String> = differences(&told).0.into_iter().map(|(kind, id, ..)| format!("{kind} {id}")).collect();
    let expected: Vec<String> =
        standing.iter().map(|alert| format!("removed {}", alert["alert_id"].as_str().unwrap())).collect();
    assert_eq!(removed, expected);
}

#[test]
fn what_false_positives_have_in_common_is_offered_as_a_filter() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    write_rules(&rules, &[("a.yml", rule("many", "fail", Some(3)))]);
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    for (address, begin) in [("10.0.0.1", 0), ("10.0.0.2", 100), ("10.0.0.1", 2_000)] {
        let events: Vec<Value> =
            (0..4).map(|i| event(&format!("{address}-{begin}-{i}"), begin + i, "fail", address)).collect();
        send(&engine, &events);
    }
    wait_until("three alerts", || count(&data, "many", "open") == 12);
    for alert in lines(&run(&["alerts", "--data", data.to_str().unwrap(), "--rule", "many"], b"")) {
        let wrong = alert["group"]["source_ip"] == "10.0.0.1";
        let verdict = if wrong { "verdict=false_positive" } else { "verdict=true_positive" };
        fact(&data, &["add", "verdict", alert["alert_id"].as_str().unwrap(), verdict]);
    }
    engine.stop();
    let tried = folder.path().join("tried.yml");
    std::fs::write(&tried, rule("many", "fail", Some(2))).unwrap();
    let told = out(&["rules", "backtest", tried.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    let (_, others) = differences(&told);
    let many = others.iter().find(|row| row["what"] == "rule" && row["rule_id"] == "many").unwrap();
    let filter = json!([{
        "field": "source_ip", "value": "10.0.0.1", "false_positives": 2, "false_positives_total": 2, "alerts": 2,
    }]);
    assert_eq!(many["suggested_filters"], filter, "{many}");
}

/// What stands of an alert and is a function of events and rules alone.
fn pure(data: &Path) -> Vec<Value> {
    let mut alerts: Vec<Value> = lines(&run(&["alerts", "--data", data.to_str().unwrap()], b""))
        .into_iter()
        .filter(|alert| !["withdrawn", "superseded"].contains(&alert["state"].as_str().unwrap()))
        .map(|alert| {
            let mut pure = json!({});
            for key in ["alert_id", "rule_id", "state", "group", "count", "anchor", "last_cell", "score"] {
                pure[key] = alert[key].clone();
            }
            pure
        })
        .collect();
    alerts.sort_by_key(|alert| alert["alert_id"].to_string());
    alerts
}

/// A rule that comes while the engine runs, and is then met with what was before, comes to what it would have come to
/// had it been there from the start; what is old news is marked, and nobody is told of it.
#[test]
fn a_warm_start_comes_to_what_the_rule_would_have_come_to() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules, all) = (folder.path().join("data"), folder.path().join("rules"), folder.path().join("all"));
    let told = folder.path().join("told.jsonl");
    let first = ("a.yml", rule("many", "fail", Some(3)));
    let more = [
        ("b.yml", rule("seen", "visit", None)),
        ("c.yml", correlation("chained", 3)),
        ("d.yml", rule("counted", "visit", Some(2))),
    ];
    write_rules(&rules, std::slice::from_ref(&first));
    write_rules(&all, std::slice::from_ref(&first));
    write_rules(&all, &more);
    let input = |seed: u64, count: usize| -> Vec<Value> {
        let text = String::from_utf8(random_events(seed, count)).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let renamed = events.map(|mut event| {
            event["event_id"] = format!("{seed}-{}", event["event_id"].as_str().unwrap()).into();
            event
        });
        renamed.collect()
    };
    let (early, late) = (input(11, 150), input(12, 150));
    let events = |data: &Path| sql(data, "select count(*) as n from events")[0]["n"].as_u64().unwrap();

    let told_at = ["--alerts-file", told.to_str().unwrap()];
    let engine = Engine::start(&data, rules.to_str().unwrap(), &told_at);
    send(&engine, &early);
    wait_until("the early ones are in history", || events(&data) == early.len() as u64);
    write_rules(&rules, &more);
    // A rule is in force when it meets something; this event is part of neither oracle nor question.
    let probe = |i: u32| event(&format!("probe{i}"), 7_500, "visit", "192.0.2.1");
    let mut probes = Vec::new();
    wait_until("the new rules are in force", || {
        probes.push(probe(u32::try_from(probes.len()).unwrap()));
        send(&engine, &probes[probes.len() - 1..]);
        std::thread::sleep(std::time::Duration::from_millis(200));
        count(&data, "seen", "open") > 0
    });
    let at = data.to_str().unwrap();
    let asked = run(&["rules", "enable", "seen", "chained", "counted", "--data", at, "--backfill"], b"");
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));
    send(&engine, &late);
    wait_until("history was met", || engine.log().contains("rules were met with history"));
    // A restart in between changes nothing, and does not ask again.
    wait_until("all are in history", || events(&data) == (early.len() + late.len() + probes.len()) as u64);
    engine.stop();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &told_at);
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    engine.stop();

    let oracle = folder.path().join("oracle");
    let engine = Engine::start(&oracle, all.to_str().unwrap(), &[]);
    for part in [&early, &probes, &late] {
        send(&engine, part);
    }
    wait_until("all are in history", || events(&oracle) == events(&data));
    engine.stop();
    let (warm, cold) = (pure(&data), pure(&oracle));
    assert!(warm.len() > 10, "{warm:?}");
    assert_eq!(warm, cold);

    let alerts = lines(&run(&["alerts", "--data", at], b""));
    let marked: Vec<&Value> = alerts.iter().filter(|alert| alert["backfilled"] == true).collect();
    assert!(!marked.is_empty(), "{alerts:?}");
    assert!(marked.iter().all(|alert| alert["rule_id"] != "many"), "{marked:?}");
    let told = std::fs::read_to_string(&told).unwrap_or_default();
    for alert in &marked {
        let (id, thread) = (alert["alert_id"].as_str().unwrap(), alert["thread"].as_str().unwrap());
        assert!(!told.contains(id) && !told.contains(thread), "somebody was told of {alert}");
    }
    assert!(told.contains("\"many\""), "{told}");

    // Lived again it is the same, with what the question found.
    let again = folder.path().join("again");
    out(&["replay", "--data", at, "--mode", "lived", "--into", again.to_str().unwrap()]);
    assert_eq!(pure(&again), warm);
}

#[test]
fn a_bundle_gives_the_alerts_of_its_incident_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    out(&[&["replay", "--rules", "rules", "--year", "2026", "--data", at], &LAB[..]].concat());
    let incidents = lines(&run(&["incidents", "--data", at], b""));
    assert!(!incidents.is_empty());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for incident in &incidents {
        let number = incident["number"].to_string();
        let bundle = file(&format!("{number}.zst"));
        out(&["incidents", "export", &number, "--data", at, "--out", &bundle]);
        for workers in ["1", "2"] {
            let output = run(&["replay", "--bundle", &bundle, "--workers", workers], b"");
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(said(&output).contains("are as they were"), "{}", said(&output));
        }
        // What is there stays.
        let again = run(&["incidents", "export", &number, "--data", at, "--out", &bundle], b"");
        assert_eq!(again.status.code(), Some(2), "{}", said(&again));
    }
    // Without its events it does not come to them, and says so; what is no bundle is said.
    let number = incidents[0]["number"].to_string();
    let whole = zstd::decode_all(std::fs::read(file(&format!("{number}.zst"))).unwrap().as_slice()).unwrap();
    let whole = String::from_utf8(whole).unwrap();
    let rest: String =
        whole.lines().filter(|line| !line.starts_with("{\"event\"")).map(|line| format!("{line}\n")).collect();
    std::fs::write(file("rest.zst"), zstd::encode_all(rest.as_bytes(), 1).unwrap()).unwrap();
    let cut = whole.as_bytes()[..whole.len() - 20].to_vec();
    std::fs::write(file("cut.zst"), zstd::encode_all(cut.as_slice(), 1).unwrap()).unwrap();
    std::fs::write(file("none.zst"), b"nothing").unwrap();
    for (name, code) in [("rest.zst", 1), ("cut.zst", 2), ("none.zst", 2), ("absent.zst", 2)] {
        let output = run(&["replay", "--bundle", &file(name)], b"");
        assert_eq!(output.status.code(), Some(code), "{name}: {}", said(&output));
    }
    assert_eq!(run(&["incidents", "export", "999", "--data", at, "--out", &file("x")], b"").status.code(), Some(1));
}

#[test]
fn events_of_other_log_sources_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    out(&[&["replay", "--rules", "rules", "--year", "2026", "--data", at], &LAB[..]].concat());
    let tried = folder.path().join("tried.yml");
    let text =
        "title: gets\nid: gets\nlevel: low\nlogsource: {category: webserver}\ndetection:\n  k: [GET]\n  condition: k\n";
    std::fs::write(&tried, text).unwrap();
    let words = ["rules", "backtest", tried.to_str().unwrap(), "--data", at];
    let first = out(&words);
    assert!(differences(&first).0.iter().any(|change| change.0 == "added"), "{first}");
    // Edited, it is met with what a web server wrote, and with nothing else.
    std::fs::write(&tried, format!("{text}# another word\n")).unwrap();
    let again = run(&words, b"");
    assert_eq!(String::from_utf8(again.stdout.clone()).unwrap(), first);
    let counted = |what: &str| -> u64 {
        let text = said(&again);
        let before = text.split(what).next().unwrap().trim_end().rsplit([' ', '\n']).next().unwrap().to_owned();
        before.parse().unwrap_or_else(|_| panic!("{what}: {text}"))
    };
    let kinds = sql(&data, "select count(*) filter (where category = 'webserver') as web, count(*) as n from events");
    assert_eq!(counted("events met"), kinds[0]["web"].as_u64().unwrap());
    assert_eq!(counted("passed over"), kinds[0]["n"].as_u64().unwrap() - kinds[0]["web"].as_u64().unwrap());
    assert!(counted("passed over") > 0);
}
