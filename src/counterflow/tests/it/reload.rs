//! Rules that change while `run` is on: by file and by request, with nothing lost, and the same after a crash.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Engine, get, lines, post, request, run, said, wait_until};

const JSON: &str = "application/json";

/// A rule of the plan over one field; with `count` it wants so many from one address.
fn rule(id: &str, event_type: &str, count: Option<u32>) -> String {
    let counted = count.map_or(String::new(), |count| {
        format!("    - {{field: source_ip, operator: count, threshold: {count}, timewindow: 5m}}\n")
    });
    format!(
        "rule:\n  id: {id}\n  name: {id}\n  severity: high\n  conditions:\n    - {{field: event_type, operator: equals, \
         value: {event_type}}}\n{counted}"
    )
}

fn event(number: u64, event_type: &str, address: &str) -> String {
    let time = cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(number % 200).unwrap());
    let line = json!({
        "event_id": format!("{event_type}-{number}"), "timestamp": time, "source": "app", "event_type": event_type,
        "source_ip": address,
    });
    format!("{line}\n")
}

#[track_caller]
fn send(engine: &Engine, body: &str) {
    let (status, answer) = post(engine.http, "/api/v1/events", "application/x-ndjson", body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

/// The number of members of a rule's alerts in some state.
fn count(data: &Path, rule: &str, state: &str) -> u64 {
    let output = run(&["alerts", "--data", data.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let of = |alert: &&Value| alert["rule_id"] == rule && alert["state"] == state;
    lines(&output).iter().filter(of).map(|alert| alert["count"].as_u64().unwrap()).sum()
}

fn metric(engine: &Engine, name: &str) -> String {
    let (_, page) = get(engine.http, "/metrics").unwrap();
    let prefix = format!("{name} ");
    page.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("absent").to_owned()
}

fn ask(engine: &Engine, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let (status, answer) = request(engine.http, method, path, headers, body).unwrap();
    (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

fn ask_json(engine: &Engine, method: &str, path: &str, body: &Value) -> (u16, Value) {
    ask(engine, method, path, &[("Content-Type", JSON)], body.to_string().as_bytes())
}

fn hang_up(engine: &Engine) {
    let done = std::process::Command::new("kill").args(["-HUP", &engine.pid().to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn files_change_while_events_flow() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("a.yml"), rule("a", "alpha", None)).unwrap();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    let (sent, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let number = sent.fetch_add(1, Ordering::AcqRel);
                send(&engine, &(event(number, "alpha", "10.0.0.1") + &event(number, "beta", "10.0.0.1")));
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        // The thread must end also when something here fails.
        let ends = scope_end(&done);
        wait_until("the first rule alerts", || count(&data, "a", "open") > 0);
        assert_eq!(count(&data, "b", "open"), 0);

        // A new file is in force without a word; what came before it is not met again.
        std::fs::write(rules.join("b.yml"), rule("b", "beta", None)).unwrap();
        wait_until("the new rule alerts", || count(&data, "b", "open") > 0);
        assert!(count(&data, "b", "open") < sent.load(Ordering::Acquire));

        // A broken one keeps what it said, and says so.
        std::fs::write(rules.join("a.yml"), "title: [\n").unwrap();
        hang_up(&engine);
        wait_until("the broken file is told", || metric(&engine, "counterflow_rules_held") == "1");
        assert_eq!(metric(&engine, "counterflow_rules_problems"), "1");
        let (_, health) = get(engine.http, "/api/v1/health").unwrap();
        assert!(health.contains("old versions hold"), "{health}");
        let (_, listed) = ask(&engine, "GET", "/api/v1/rules", &[], b"");
        assert_eq!(listed["problems"][0]["code"], "yaml", "{listed}");
        assert!(listed["held"][0].as_str().unwrap().ends_with("a.yml"), "{listed}");
        let before = count(&data, "a", "open");
        wait_until("its old version goes on", || count(&data, "a", "open") > before + 10);

        // A file that goes takes its open alerts along; the other's stay.
        std::fs::remove_file(rules.join("b.yml")).unwrap();
        wait_until("the alert of a removed rule is withdrawn", || count(&data, "b", "withdrawn") > 0);
        std::fs::write(rules.join("a.yml"), rule("a", "alpha", None)).unwrap();
        wait_until("nothing is held", || metric(&engine, "counterflow_rules_held") == "0");
        drop(ends);
    });
    let sent = sent.load(Ordering::Acquire);
    assert!(engine.log().contains("its old version stays in force"));
    wait_until("all are counted", || count(&data, "a", "open") == sent);
    engine.stop();
    let statement = "select count(*) as n, count(distinct event_id) as ids from events";
    let events = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", statement], b"");
    assert_eq!(lines(&events)[0], json!({"n": 2 * sent, "ids": 2 * sent}), "nothing is lost, nothing is double");
    assert_eq!(count(&data, "a", "open"), sent, "each event counts once through all changes");
}

/// What comes is learnt from: anchors are chosen anew without an epoch's or an alert's notice, and a rule that waits for a
/// field that never comes is named, also after a restart.
#[test]
fn what_came_is_learnt_and_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("a.yml"), rule("a", "alpha", None)).unwrap();
    let vain = rule("vain", "alpha", None).replace("{field: event_type,", "{field: no_such_field,");
    std::fs::write(rules.join("vain.yml"), vain).unwrap();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    let waiting = |engine: &Engine| {
        let (_, listed) = ask(engine, "GET", "/api/v1/rules?unseen=true", &[], b"");
        listed["rules"].as_array().unwrap().iter().map(|rule| rule["fields_unseen"].to_string()).collect::<Vec<_>>()
    };
    assert!(waiting(&engine).is_empty(), "nothing came: nothing is said");
    let batch = |from: u64, kind: &str| (from..from + 7_000).map(|i| event(i, kind, "10.0.0.1")).collect::<String>();
    (0..10).for_each(|i| send(&engine, &batch(i * 7_000, "beta")));
    send(&engine, &batch(0, "alpha"));
    wait_until("the rule has met all", || count(&data, "a", "open") == 7_000);
    let (_, before) = ask(&engine, "GET", "/api/v1/rules", &[], b"");
    assert_eq!(waiting(&engine), ["[\"no_such_field\"]"]);
    assert_eq!(metric(&engine, "counterflow_rules_fields_unseen"), "1");

    let (status, _) = ask(&engine, "POST", "/api/v1/reload", &[], b"");
    assert_eq!(status, 200);
    wait_until("anchors are chosen anew", || engine.log().contains("anchors were chosen anew by what came"));
    send(&engine, &batch(7_000, "alpha"));
    wait_until("the rule goes on", || count(&data, "a", "open") == 14_000);
    let (_, after) = ask(&engine, "GET", "/api/v1/rules", &[], b"");
    for same in ["rule_set", "since_epoch"] {
        assert_eq!(before[same], after[same], "the same rules are in force since then");
    }
    let candidates = |listed: &Value| listed["rules"][0]["candidates"].as_u64().unwrap();
    assert!(candidates(&after) > candidates(&before), "counts go on: {after}");
    engine.stop();

    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    assert_eq!(waiting(&engine), ["[\"no_such_field\"]"], "known before anything comes");
    engine.stop();
    let (rules, data) = (rules.to_str().unwrap(), data.to_str().unwrap());
    let rows = lines(&run(&["rules", "list", rules, "--data", data, "--unseen"], b""));
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&row["rule_id"], &row["fields_unseen"]), (&json!("vain"), &json!(["no_such_field"])));
    let rows = lines(&run(&["rules", "list", rules, "--data", data], b""));
    assert!(rows[0]["candidates"].as_u64().unwrap() >= candidates(&after), "{rows:?}");
}

/// Sets the flag when it goes.
fn scope_end(done: &AtomicBool) -> impl Drop {
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    End(done)
}

#[test]
fn rules_are_made_changed_and_removed_by_request() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("a.yml"), rule("a", "alpha", None)).unwrap();
    let start = || Engine::start(&data, rules.to_str().unwrap(), &[]);
    let engine = start();

    // Made, and in force within a second: from the request to the alert.
    let begin = Instant::now();
    let body = json!({"text": rule("b", "beta", None), "reason": "exercise"});
    let (status, made) = ask_json(&engine, "POST", "/api/v1/rules", &body);
    assert_eq!((status, &made["id"]), (201, &json!("b")), "{made}");
    assert!(made["epoch"].as_u64().is_some(), "{made}");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    send(&engine, &event(1, "beta", "10.0.0.1"));
    wait_until("the made rule alerts", || count(&data, "b", "open") == 1);

    let posts = |body: &Value| {
        let (status, answer) = ask_json(&engine, "POST", "/api/v1/rules", body);
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let sigma =
        "title: S\nid: s1\nlogsource: {product: linux}\ndetection:\n  s:\n    Image|contain: x\n  condition: s\n";
    for (body, status, code) in [
        (json!({"text": rule("b", "beta", None)}), 409, "exists"),
        (json!({"text": rule("a", "alpha", None)}), 409, "exists"),
        (json!({"text": sigma}), 422, "rule_refused"),
        (json!({"text": "title: ["}), 422, "rule_refused"),
        (json!({"text": ""}), 422, "rule_refused"),
        (json!({"text": sigma.replace("id: s1\n", "").replace("contain:", "contains:")}), 422, "rule_refused"),
        (json!({"text": 7}), 422, "invalid"),
        (json!({"texts": "x"}), 422, "invalid"),
        (json!({}), 422, "invalid"),
        (json!({"text": "x", "reason": "x".repeat(2_000)}), 422, "invalid"),
        (json!({"text": "x".repeat(1 << 20)}), 413, "too_large"),
    ] {
        assert_eq!(
            posts(&body),
            (status, code.to_owned()),
            "{}",
            body.to_string().chars().take(200).collect::<String>()
        );
    }
    // What is wrong is told by place.
    let (_, refused) = ask_json(&engine, "POST", "/api/v1/rules", &json!({"text": sigma}));
    let problem = &refused["error"]["problems"][0];
    assert_eq!(
        (&problem["code"], &problem["line"], &problem["column"]),
        (&json!("unknown_modifier"), &json!(6), &json!(5)),
        "{refused}"
    );
    assert!(problem["hint"].as_str().unwrap().contains("contains"), "{refused}");
    let kinds = [("text/html", 415), ("application/yaml", 422)];
    for (kind, expect) in kinds {
        let (status, answer) = ask(&engine, "POST", "/api/v1/rules", &[("Content-Type", kind)], b"title: [");
        assert_eq!(status, expect, "{answer}");
    }
    assert_eq!(ask_json(&engine, "POST", "/api/v1/rules", &json!("x")).0, 422);
    let (status, _) = ask(&engine, "POST", "/api/v1/rules", &[("Content-Type", JSON)], b"{");
    assert_eq!(status, 400);
    let yaml = rule("c", "gamma", Some(3));
    let (status, made) =
        ask(&engine, "POST", "/api/v1/rules", &[("Content-Type", "application/yaml")], yaml.as_bytes());
    assert_eq!((status, &made["id"]), (201, &json!("c")), "{made}");

    // Shown, with numbers.
    let (_, shown) = ask(&engine, "GET", "/api/v1/rules/b", &[], b"");
    assert_eq!(
        (&shown["source"], &shown["hits"], &shown["enabled"], &shown["level"]),
        (&json!("api"), &json!(1), &json!(true), &json!("high")),
        "{shown}"
    );
    assert!(shown["text"].as_str().unwrap().contains("beta") && shown["last_hit"].is_string(), "{shown}");
    assert_eq!(metric(&engine, "counterflow_rule_hits_total{rule_id=\"b\"}"), "1");
    assert_eq!(metric(&engine, "counterflow_rule_hits_total{rule_id=\"a\"}"), "absent");
    let listed = |query: &str| {
        let (status, answer) = ask(&engine, "GET", &format!("/api/v1/rules{query}"), &[], b"");
        let ids = answer["rules"].as_array().into_iter().flatten().map(|rule| rule["id"].as_str().unwrap());
        (status, ids.collect::<Vec<_>>().join(" "))
    };
    for (query, ids) in [
        ("", "a b c#conditions c"),
        ("?source=api", "b c#conditions c"),
        ("?hit=true", "b"),
        ("?q=C", "c#conditions c"),
        ("?sort=hits&limit=1", "b"),
        ("?offset=1&limit=2", "b c#conditions"),
        ("?level=low", ""),
    ] {
        assert_eq!(listed(query), (200, ids.to_owned()), "{query}");
    }
    for query in ["?limit=0", "?limit=x", "?nothing=1", "?sort=nothing"] {
        assert_eq!(listed(query).0, 400, "{query}");
    }

    // Changed, if it still is what was looked at.
    let tag = shown["etag"].as_str().unwrap().to_owned();
    let change = |path: &str, tag: &str, body: &Value| {
        let headers = [("Content-Type", JSON), ("If-Match", tag)];
        let (status, answer) = ask(&engine, "PUT", path, &headers, body.to_string().as_bytes());
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let now = json!({"text": rule("b", "delta", None)});
    for (path, tag, body, status, code) in [
        ("/api/v1/rules/b", "\"other\"", &now, 412, "stale"),
        ("/api/v1/rules/b", &*format!("\"{tag}\""), &now, 200, ""),
        ("/api/v1/rules/b", &*format!("\"{tag}\""), &now, 412, "stale"),
        ("/api/v1/rules/b", "*", &json!({"text": sigma}), 422, "rule_refused"),
        ("/api/v1/rules/b", "*", &json!({"text": rule("other", "x", None)}), 422, "rule_refused"),
        ("/api/v1/rules/b", "*", &json!({}), 422, "invalid"),
        ("/api/v1/rules/nothing", "*", &now, 404, "not_found"),
        ("/api/v1/rules/a", "*", &json!({"text": rule("a", "x", None)}), 409, "not_ours"),
        ("/api/v1/rules/a", "*", &json!({"enabled": false}), 200, ""),
    ] {
        assert_eq!(change(path, tag, body), (status, code.to_owned()), "{path} {body}");
    }
    // The changed rule meets other events, the disabled one none; what they found stays.
    send(&engine, &(event(2, "beta", "10.0.0.1") + &event(3, "delta", "10.0.0.1") + &event(4, "alpha", "10.0.0.1")));
    wait_until("the changed rule counts", || count(&data, "b", "open") == 2);
    assert_eq!(count(&data, "a", "open"), 0);

    let removed = |path: &str| ask(&engine, "DELETE", path, &[], b"").0;
    assert_eq!(
        [removed("/api/v1/rules/a"), removed("/api/v1/rules/nothing"), removed("/api/v1/rules/c")],
        [409, 404, 200]
    );
    assert_eq!(ask(&engine, "GET", "/api/v1/rules/c", &[], b"").0, 404);

    // All of it survives a crash, and the audit knows it.
    engine.kill();
    let engine = start();
    let state = |id: &str| {
        let (status, rule) = ask(&engine, "GET", &format!("/api/v1/rules/{id}"), &[], b"");
        (status, rule["enabled"].as_bool(), rule["text"].as_str().is_some_and(|text| text.contains("delta")))
    };
    assert_eq!(
        [state("a"), state("b"), state("c")],
        [(200, Some(false), false), (200, Some(true), true), (404, None, false)]
    );
    assert_eq!(metric(&engine, "counterflow_ledger_differences"), "0");
    let (status, _) = ask_json(&engine, "PUT", "/api/v1/rules/a", &json!({"enabled": true}));
    assert_eq!(status, 200);
    send(&engine, &event(5, "alpha", "10.0.0.1"));
    wait_until("the enabled rule alerts", || count(&data, "a", "open") == 1);
    engine.stop();
    let audit = run(&["audit", "verify", "--data", data.to_str().unwrap()], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[test]
fn a_rule_that_comes_back_begins_empty_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir(&rules).unwrap();
    let file = rules.join("a.yml");
    std::fs::write(rules.join("z.yml"), rule("z", "zeta", None)).unwrap();
    std::fs::write(&file, rule("a", "alpha", Some(2))).unwrap();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    send(&engine, &(0..5).map(|number| event(number, "alpha", "10.0.0.1")).collect::<String>());
    wait_until("it alerts", || count(&data, "a", "open") == 5);
    std::fs::remove_file(&file).unwrap();
    hang_up(&engine);
    wait_until("its alert is withdrawn", || count(&data, "a", "withdrawn") == 5);
    std::fs::write(&file, rule("a", "alpha", Some(2))).unwrap();
    hang_up(&engine);
    wait_until("it is back", || metric(&engine, "counterflow_rules") == "3");
    send(&engine, &(10..13).map(|number| event(number, "alpha", "10.0.0.1")).collect::<String>());
    wait_until("it counts from then on", || count(&data, "a", "open") == 3);
    // An orderly stop leaves everything to the facts log: all is recalled, nothing replayed.
    engine.stop();
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    assert_eq!(metric(&engine, "counterflow_ledger_differences"), "0", "{}", engine.log());
    assert_eq!(count(&data, "a", "open"), 3);
    send(&engine, &event(20, "alpha", "10.0.0.1"));
    wait_until("it goes on", || count(&data, "a", "open") == 4);
    engine.stop();
}

/// Random changes of rules under load, with SIGKILL in between: after each restart the rebuilt state is the ledger's, and
/// the rule that nobody touched has the alerts of an uninterrupted replay. `COUNTERFLOW_KILLS` sets how often.
#[test]
fn sigkill_during_changes_changes_nothing() {
    let kills: u64 = std::env::var("COUNTERFLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let seed: u64 = std::env::var("COUNTERFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    eprintln!("seed {seed}, {kills} kills");
    let folder = tempfile::tempdir().unwrap();
    let (data, rules) = (folder.path().join("data"), folder.path().join("rules"));
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("a.yml"), rule("a", "alpha", Some(3))).unwrap();
    let mut dice = seed;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let kinds = ["alpha", "beta", "gamma"];
    let batch = |number: u64| -> String {
        (0..20)
            .map(|i| event(number * 20 + i, kinds[usize::try_from(i % 3).unwrap()], &format!("10.0.0.{}", i % 4)))
            .collect()
    };
    let mut engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    let sent = AtomicU64::new(0);
    for _ in 0..kills {
        let until = Instant::now() + Duration::from_millis(1_000 + roll(2_500));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Until it is refused: then the engine is dead, and the same batch is sent again later.
                while let Ok((status, answer)) = post(
                    engine.http,
                    "/api/v1/events",
                    "application/x-ndjson",
                    batch(sent.load(Ordering::Acquire)).as_bytes(),
                ) {
                    assert_eq!(status, 202, "{answer}");
                    sent.fetch_add(1, Ordering::AcqRel);
                    std::thread::sleep(Duration::from_millis(15));
                }
            });
            while Instant::now() < until {
                let (file, threshold) = (rules.join("b.yml"), u32::try_from(1 + roll(4)).unwrap());
                let kind = if roll(2) == 0 { "beta" } else { "gamma" };
                // Any answer will do: rules may exist or not, and the engine may be about to die.
                let text = json!({"text": rule("hand", kind, Some(threshold))}).to_string();
                let by_hand = |method: &str, path: &str| {
                    drop(request(engine.http, method, path, &[("Content-Type", JSON)], text.as_bytes()));
                };
                match roll(6) {
                    0 => drop(std::fs::remove_file(&file)),
                    1 => std::fs::write(&file, "title: [\n").unwrap(),
                    2 => by_hand("POST", "/api/v1/rules"),
                    3 => by_hand("PUT", "/api/v1/rules/hand"),
                    4 => drop(request(engine.http, "DELETE", "/api/v1/rules/hand", &[], b"")),
                    _ => std::fs::write(&file, rule("file", kind, (roll(2) == 0).then_some(threshold))).unwrap(),
                }
                hang_up(&engine);
                std::thread::sleep(Duration::from_millis(roll(200)));
            }
            let done = std::process::Command::new("kill").args(["-KILL", &engine.pid().to_string()]).status().unwrap();
            assert!(done.success());
        });
        engine.kill();
        engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
        assert_eq!(metric(&engine, "counterflow_ledger_differences"), "0", "seed {seed}: {}", engine.log());
    }
    let sent = sent.load(Ordering::Acquire) + 1;
    send(&engine, &batch(sent - 1));
    engine.stop();
    // Once more: everything from the facts log.
    let engine = Engine::start(&data, rules.to_str().unwrap(), &[]);
    assert_eq!(metric(&engine, "counterflow_ledger_differences"), "0", "seed {seed}: {}", engine.log());
    engine.stop();

    let all: String = (0..sent).map(batch).collect();
    let wanted = run(&["replay", "--rules", rules.join("a.yml").to_str().unwrap(), "-"], all.as_bytes());
    let found = run(&["alerts", "--data", data.to_str().unwrap()], b"");
    let of_a = |alerts: &[Value]| {
        let mut shown: Vec<String> = alerts
            .iter()
            .filter(|alert| alert["rule_id"] == "a" && ["open", "sealed"].contains(&alert["state"].as_str().unwrap()))
            .map(|alert| {
                json!([alert["alert_id"], alert["group"], alert["count"], alert["first"], alert["last"]]).to_string()
            })
            .collect();
        shown.sort();
        shown
    };
    let wanted = of_a(&lines(&wanted));
    assert!(!wanted.is_empty());
    assert_eq!(of_a(&lines(&found)), wanted, "seed {seed}");
}
