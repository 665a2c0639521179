//! Look-ups in history that take more than one slice: of what a new rule would remember, and of a new indicator's events.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use crate::support::{Engine, counterflow, lines, post, run, said, site, wait_until};

const LOGIN: &str = "\
title: Login
id: 6f1d5d2e-0000-4000-8000-0000000000b1
name: login
logsource: {product: test}
detection: {a: {event_type: login}, condition: a}
level: informational
";

const NEW_COUNTRY: &str = "\
title: New country
id: 6f1d5d2e-0000-4000-8000-0000000000b2
correlation:
  type: first_seen
  rules: [login]
  group-by: [user]
  timespan: 1h
  condition: {field: country, within: 30d, known: 2}
level: medium
";

/// A life whose horizon is a minute, and whose look-ups enter so many rows with an epoch.
struct Site {
    _folder: tempfile::TempDir,
    data: std::path::PathBuf,
    rules: std::path::PathBuf,
    config: std::path::PathBuf,
}

impl Site {
    fn new(slice: u32) -> Site {
        let settings = format!("detection: {{horizon_s: 60, disorder_s: 1, lookup_slice_max: {slice}}}\n");
        let (_folder, data, rules, config) = site("login.yml", LOGIN, &settings);
        Site { _folder, data, rules, config }
    }

    fn start(&self) -> Engine {
        Engine::start(&self.data, self.rules.to_str().unwrap(), &["--config", self.config.to_str().unwrap()])
    }

    /// Dies when it has written so many entries of the control log; gives back when it is dead.
    fn start_and_die(&self, entries: u32) {
        let mut command = counterflow();
        command.env("COUNTERFLOW_KILL_AT", format!("control.committed:{entries}"));
        let more = ["--config", self.config.to_str().unwrap()];
        let mut engine = Engine::begin(command, &self.data, self.rules.to_str().unwrap(), &more);
        wait_until("it dies", || engine.ended().is_some());
        assert!(engine.ended().is_some_and(|status| !status.success()), "{}", engine.log());
    }

    fn sql(&self, statement: &str) -> Vec<Value> {
        lines(&run(&["sql", "--data", self.data.to_str().unwrap(), "--format", "json", statement], b""))
    }

    fn wait_for_events(&self, count: u64) {
        wait_until("history has the events", || {
            self.sql("select count(*) as n from events")[0]["n"].as_u64() == Some(count)
        });
    }

    /// The bodies of the control log's entries of a kind.
    fn control(&self, kind: &str) -> Vec<Value> {
        let rows = self.sql(&format!("select body from facts where kind = '{kind}' order by seq"));
        rows.iter().map(|row| serde_json::from_str(row["body"].as_str().unwrap()).unwrap()).collect()
    }
}

fn send(engine: &Engine, events: &[Value]) {
    let body: String = events.iter().map(|event| format!("{event}\n")).collect();
    let (status, answer) = post(engine.http, "/api/v1/events", "application/x-ndjson", body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

/// A login of January 2026.
fn login(user: &str, country: &str, day: u32, second: u32) -> Value {
    let at = format!("2026-01-{day:02}T12:{:02}:{:02}Z", second / 60, second % 60);
    json!({
        "event_id": format!("{user}{country}{day}-{second}"), "timestamp": at, "product": "test",
        "event_type": "login", "user": user, "country": country,
    })
}

/// Alerts of the rule: user, begin, count.
fn new_countries(data: &Path) -> Vec<(String, String, u64)> {
    let alerts = lines(&run(&["alerts", "--data", data.to_str().unwrap()], b""));
    let alerts = alerts.iter().filter(|alert| alert["title"] == "New country" && alert["state"] == "open");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    alerts
        .map(|alert| (text(&alert["group"]["user"]), text(&alert["first"]), alert["count"].as_u64().unwrap()))
        .collect()
}

/// A rule that remembers thirty days knows them though it is new, and though the horizon is a minute; killed between two
/// slices it goes on.
#[test]
fn a_new_rule_remembers_what_was_before_the_horizon() {
    let site = Site::new(1);
    let engine = site.start();
    let before = [
        login("alice", "DE", 1, 0),
        login("alice", "FR", 2, 0),
        login("alice", "DE", 3, 0),
        login("bob", "US", 4, 0),
        login("bob", "DE", 5, 0),
        login("carol", "DE", 20, 0),
    ];
    send(&engine, &before);
    site.wait_for_events(6);
    engine.stop();

    std::fs::write(site.rules.join("new.yml"), NEW_COUNTRY).unwrap();
    site.start_and_die(2);
    let engine = site.start();
    let rows = || -> Vec<Value> {
        site.control("rule_memory").iter().flat_map(|slice| slice["found"].as_array().unwrap().clone()).collect()
    };
    wait_until("all is looked up", || site.control("rule_memory").last().is_some_and(|last| last["done"] == true));
    // Two values of alice, of which one was there twice, two of bob, one of carol: each once, whatever was killed.
    let all = rows();
    let distinct: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!((all.len(), distinct.len()), (5, 5), "{all:#?}");

    // A minute later than all of it: Germany and France are known, Italy is not; of carol too little is known.
    let now = [
        login("alice", "DE", 25, 0),
        login("carol", "IT", 25, 1),
        login("alice", "IT", 25, 2),
        login("alice", "FR", 25, 3),
        login("bob", "US", 25, 3),
        login("bob", "DE", 25, 60),
    ];
    send(&engine, &now);
    let italy = ("alice".to_owned(), "2026-01-25T12:00:02Z".to_owned(), 1);
    wait_until("one is new", || new_countries(&site.data) == [italy.clone()]);
    engine.kill();

    // After a restart it is known as it was.
    let engine = site.start();
    assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
    send(&engine, &[login("alice", "FR", 25, 61), login("alice", "ES", 25, 70), login("bob", "DE", 25, 200)]);
    let spain = (italy.0, italy.1, 4); // Italy, France twice, Spain
    wait_until("another is new", || new_countries(&site.data) == [spain.clone()]);
    assert_eq!(engine.log().matches("the time before a rule was looked up").count(), 2, "{}", engine.log());
    engine.stop();
    // A replay of the epochs as they were does not look again and finds the same.
    let into = site.data.with_file_name("again");
    let at = (site.data.to_str().unwrap(), into.to_str().unwrap());
    let config = site.config.to_str().unwrap();
    let replayed = run(&["replay", "--data", at.0, "--mode", "lived", "--into", at.1, "--config", config], b"");
    assert_eq!(replayed.status.code(), Some(0), "{}", said(&replayed));
    assert_eq!(new_countries(&into), [spain]);
}

const REPEATED: &str = "\
title: Repeated logins
id: 6f1d5d2e-0000-4000-8000-0000000000b3
name: repeated
correlation:
  type: event_count
  rules: [login]
  group-by: [user, country]
  timespan: 10m
  condition: {gte: 2}
level: informational
";

/// Both stand on a correlation; the second is of these alone.
const CHAINED: &str = "\
title: New country of repeated logins
id: 6f1d5d2e-0000-4000-8000-0000000000b4
correlation:
  type: first_seen
  rules: [repeated]
  group-by: [user]
  timespan: 1h
  condition: {field: country, within: 30d, known: 2}
level: medium
---
title: More repeated logins than usual
id: 6f1d5d2e-0000-4000-8000-0000000000b5
correlation:
  type: rate
  rules: [repeated]
  group-by: [user]
  timespan: 1h
  condition: {gte: 4, within: 7d, history: 2d, count: 2}
level: medium
";

/// Two logins of a user within a minute: one episode.
fn twice(user: &str, country: &str, day: u32, hour: u32, minute: u32) -> [Value; 2] {
    [0, 40].map(|second| {
        let at = format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
        json!({
            "event_id": format!("{user}{country}{at}"), "timestamp": at, "product": "test", "event_type": "login",
            "user": user, "country": country,
        })
    })
}

/// Alerts of the rules on correlations from the 25th on: title, user, begin, count.
fn chained(data: &Path) -> BTreeSet<(String, String, String, u64)> {
    let alerts = lines(&run(&["alerts", "--data", data.to_str().unwrap()], b""));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = alerts.iter().filter(|alert| CHAINED.contains(&format!("title: {}\n", text(&alert["title"]))));
    let shown = alerts.map(|alert| {
        (text(&alert["title"]), text(&alert["group"]["user"]), text(&alert["first"]), alert["count"].as_u64().unwrap())
    });
    shown.filter(|(_, _, first, _)| first.as_str() >= "2026-01-25").collect()
}

/// A rule on correlations remembers their episodes as if it had been there from the start (DET-08), be they of a correlation
/// that was there or of one that comes with it; a restart counts nothing twice, and nothing is forgotten.
#[test]
fn a_new_rule_on_correlations_remembers_their_episodes() {
    // Ten episodes of alice a day, two countries; bob has been in one only.
    let mut before = Vec::new();
    for day in 14..=24 {
        for at in 0..10 {
            before.extend(twice("alice", if at % 2 == 0 { "DE" } else { "FR" }, day, 2 * at + 2, 7 * (at % 3)));
        }
        before.extend(twice("bob", "DE", day, 23, 0));
    }
    let first =
        [twice("alice", "DE", 25, 3, 0), twice("alice", "IT", 25, 9, 0), twice("bob", "US", 25, 9, 30)].concat();
    let then = [
        twice("alice", "ES", 25, 12, 0),
        twice("alice", "FR", 25, 12, 20),
        twice("bob", "US", 25, 13, 0),
        twice("bob", "DE", 25, 13, 10),
        twice("bob", "FR", 25, 15, 0),
    ]
    .concat();
    let alerts = |there: &str, later: Option<&str>| {
        let site = Site::new(7);
        std::fs::write(site.rules.join("login.yml"), format!("{LOGIN}{there}")).unwrap();
        let mut engine = site.start();
        send(&engine, &before);
        site.wait_for_events(u64::try_from(before.len()).unwrap());
        if let Some(later) = later {
            engine.stop();
            std::fs::write(site.rules.join("later.yml"), later).unwrap();
            // Behind the one slice of the first rule, and between those of the second.
            site.start_and_die(1);
            site.start_and_die(4);
            engine = site.start();
            let is_done = |slice: &Value| slice["done"] == true;
            wait_until("all is looked up", || site.control("rule_memory").iter().filter(|s| is_done(s)).count() == 2);
        }
        send(&engine, &first);
        site.wait_for_events(u64::try_from(before.len() + first.len()).unwrap());
        engine.kill();
        let engine = site.start();
        assert!(!engine.log().contains("differs from the ledger"), "{}", engine.log());
        send(&engine, &then);
        site.wait_for_events(u64::try_from(before.len() + first.len() + then.len()).unwrap());
        engine.stop();
        chained(&site.data)
    };
    let all = format!("{REPEATED}---\n{CHAINED}");
    let from_the_start = alerts(&format!("---\n{all}"), None);
    let titles: BTreeSet<&String> = from_the_start.iter().map(|(title, ..)| title).collect();
    assert_eq!(titles.len(), 2, "{from_the_start:#?}");
    assert_eq!(alerts(&format!("---\n{REPEATED}"), Some(CHAINED)), from_the_start, "the correlation was there");
    assert_eq!(alerts("", Some(&all)), from_the_start, "the correlation comes with it");
}

/// More events than enter with one epoch, and than are found with one reading: all are found, each once, though the
/// engine is killed in between.
#[test]
fn a_look_up_of_many_events_goes_on_in_slices_until_it_is_done() {
    const EVENTS: u32 = 47;
    let site = Site::new(3);
    let engine = site.start();
    let event = |n: u32| {
        json!({
            "event_id": format!("e{n}"), "timestamp": format!("2026-01-05T12:00:{:02}Z", n / 2), "product": "test",
            "event_type": "visit", "host": "web01", "source_ip": "203.0.113.9",
        })
    };
    send(&engine, &(0..EVENTS).map(event).collect::<Vec<_>>());
    site.wait_for_events(u64::from(EVENTS));
    engine.stop();
    let at = site.data.to_str().unwrap();
    let added = run(&["facts", "add", "indicator", "203.0.113.9", "confidence=90", "--data", at], b"");
    assert_eq!(added.status.code(), Some(0), "{}", said(&added));
    // In the first reading, and in the second: a reading has ten slices.
    site.start_and_die(4);
    site.start_and_die(8);
    let engine = site.start();
    let entries = || site.control("indicator_lookup");
    wait_until("all is looked up", || entries().last().is_some_and(|last| last["upto"].as_i64() > Some(0)));
    let slices = entries();
    let found: Vec<String> = slices
        .iter()
        .flat_map(|slice| slice["found"].as_array().unwrap())
        .map(|detection| detection["member"]["id"].to_string())
        .collect();
    let distinct: BTreeSet<&String> = found.iter().collect();
    let events = usize::try_from(EVENTS).unwrap();
    assert_eq!((found.len(), distinct.len()), (events, events), "{} slices", slices.len());
    assert!(slices.len() >= 16 && slices.iter().all(|slice| slice["found"].as_array().unwrap().len() <= 3));
    let counted = || -> u64 {
        let alerts = lines(&run(&["alerts", "--data", at], b""));
        alerts.iter().filter(|alert| alert["rule_id"] == "indicator").filter_map(|alert| alert["count"].as_u64()).sum()
    };
    wait_until("all count", || counted() == u64::from(EVENTS));
    engine.stop();
    // What is answered is not asked again.
    let engine = site.start();
    assert_eq!(engine.log().matches("events of before were looked up").count(), 1, "{}", engine.log());
    engine.stop();
}
