//! What history held then, and what is now beside it.

use cf_history::schema::{Column, Kind};
use cf_queries::{AsOf, Live, LiveRows, LiveTable};
use serde_json::json;

use super::*;

const COLUMNS: &[Column] = &[
    Column { name: "name", kind: Kind::Word, nullable: false, meaning: "its name" },
    Column { name: "at", kind: Kind::Time, nullable: true, meaning: "when" },
    Column { name: "words", kind: Kind::Words, nullable: true, meaning: "some" },
    Column { name: "score", kind: Kind::Float, nullable: true, meaning: "how much" },
];

const TABLES: &[LiveTable] = &[
    LiveTable { name: "things_now", meaning: "things", columns: COLUMNS },
    LiveTable { name: "broken_now", meaning: "cannot be read", columns: COLUMNS },
];

struct Things;

impl Live for Things {
    fn tables(&self) -> &'static [LiveTable] {
        TABLES
    }

    fn rows(&self, table: &'static str) -> LiveRows<'_> {
        Box::pin(async move {
            if table == "broken_now" {
                return Err("the disk is gone".to_owned());
            }
            Ok(vec![
                json!({"name": "web", "at": "2026-01-05T13:59:58Z", "words": ["a", "b"], "score": 7.5}),
                json!({"name": "db"}),
            ])
        })
    }
}

fn as_of(session: &Session, sql: &str, at: &str) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let at: AsOf = at.parse().unwrap();
    runtime.block_on(async {
        let mut rows = match session.query_as_of(sql, Some(at)).await {
            Ok(rows) => rows,
            Err(error) => return error.to_string(),
        };
        let mut out = Vec::new();
        write_json_lines(&mut rows, &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    })
}

#[test]
fn live_tables_stand_beside_history() {
    let mut case = Case::new();
    case.session = case.session.clone().with_live(Arc::new(Things));
    case.check(
        "SELECT * FROM things_now ORDER BY name",
        expect![[r#"
            {"name":"db","at":null,"words":null,"score":null}
            {"name":"web","at":"2026-01-05T13:59:58Z","words":["a","b"],"score":7.5}
        "#]],
    );
    case.check(
        "SELECT t.name, count(*) AS n FROM things_now t JOIN events e ON e.host = t.name GROUP BY t.name",
        expect![[r#"
            {"name":"web","n":4}
        "#]],
    );
    case.check("SELECT * FROM broken_now", expect!["could not read the live table broken_now: the disk is gone"]);
    case.check("SELECT * FROM thing_now", expect![[r#"there is no table "thing_now"; did you mean "things_now"?; tables: events, rejects, detections, alerts, incidents, actions, risk, facts, verdicts, features, predictions, epochs, events_distinct, things_now, broken_now"#]]);
    let names: Vec<_> = case.session.catalogue().iter().map(|table| (table.name, table.kind)).collect();
    assert!(names.contains(&("things_now", "live")) && names.contains(&("events_distinct", "view")));
    assert_eq!(
        as_of(&case.session, "SELECT * FROM things_now", "1"),
        "things_now says what is now, it has no past; hint: ask the tables of history, e.g. alerts"
    );
}

#[test]
fn the_past_is_what_the_epochs_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path());
    let session = Session::open(dir.path(), Options::default()).unwrap();
    let counts = "SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM events_distinct) AS single,
                  (SELECT max(revision) FROM alerts) AS revision, (SELECT max(epoch) FROM epochs) AS epoch";
    let first = "{\"events\":4,\"single\":3,\"revision\":1,\"epoch\":1}\n";
    let second = "{\"events\":7,\"single\":5,\"revision\":2,\"epoch\":2}\n";
    assert_eq!(as_of(&session, counts, "0"), "{\"events\":0,\"single\":0,\"revision\":null,\"epoch\":null}\n");
    assert_eq!(as_of(&session, counts, "1"), first);
    assert_eq!(as_of(&session, counts, "2"), second);
    assert_eq!(as_of(&session, counts, "99"), second, "what is not there yet is not waited for");
    // What comes later changes nothing of it.
    writer.write(3, &[event("file", &SSHD[0])]).unwrap();
    let mut later = entry(3);
    later.record.wall = time("2026-01-06T13:00:00Z");
    writer.write(3, &[later]).unwrap();
    writer.commit(3).unwrap();
    assert_eq!(as_of(&session, counts, "1"), first);
    assert_eq!(as_of(&session, counts, "2"), second);
    assert_eq!(as_of(&session, "SELECT count(*) AS n FROM events", "3"), "{\"n\":8}\n");
    // By time: epochs 1 and 2 were cut at noon, 3 an hour later.
    assert_eq!(as_of(&session, counts, "2026-01-06T11:59:59Z").split(',').next(), Some("{\"events\":0"));
    assert_eq!(as_of(&session, counts, "2026-01-06T12:00:00Z"), second);
    assert_eq!(as_of(&session, counts, "2026-01-06T12:59:59Z"), second);
    assert_eq!(as_of(&session, "SELECT count(*) AS n FROM events", "2026-01-06T13:00:00Z"), "{\"n\":8}\n");
    assert_eq!(as_of(&session, "SELECT count(*) AS n FROM events", "2026-01-06"), "{\"n\":0}\n");
    assert!("yesterday".parse::<AsOf>().is_err());
}
