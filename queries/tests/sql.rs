//! SQL over a small history on disk: answers, formats, refusals, errors, and what a query sees beside the engine.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use cf_history::{AlertRevision, EpochEntry, Options as HistoryOptions, Writer};
use cf_queries::{Options, QueryError, Session, named, write_csv, write_json_lines, write_table};
use cf_types::{
    Alert, AlertId, AlertState, Detection, Entity, EntityKind, Epoch, EpochRecord, Event, Fields, Framing, Group,
    Level, LogSource, Member, Name, Origin, Position, Reject, RejectCode, Scalar, Score, Tenant, Time, TimeBasis,
};
use expect_test::{Expect, expect};

#[path = "sql/asked.rs"]
mod asked;
#[path = "sql/limits.rs"]
mod limits;
#[path = "sql/past.rs"]
mod past;
#[path = "sql/training.rs"]
mod training;
#[path = "sql/training_events.rs"]
mod training_events;
#[path = "sql/wire.rs"]
mod wire;

/// One event: its time, its declared id if it has one, the record; `user@address` are its entities.
struct Made(u64, &'static str, Option<&'static str>, &'static str);

const SSHD: &[Made] = &[
    Made(0, "2026-01-05T13:59:58.25Z", None, "Jan  5 13:59:58 web sshd[1]: Failed password for root from 203.0.113.9"),
    Made(1, "2026-01-05T14:00:01Z", None, "Jan  5 14:00:01 web sshd[1]: Failed password for root from 203.0.113.9"),
    Made(2, "2026-01-05T14:00:02Z", None, "Jan  5 14:00:02 web sshd[2]: Accepted password for root from 203.0.113.9"),
    Made(2, "2026-01-05T14:00:02Z", None, "Jan  5 14:00:02 web sshd[2]: Accepted password for root from 203.0.113.9"),
];

const JSON: &[Made] = &[
    Made(0, "2026-01-06T00:00:00Z", Some("e1"), r#"{"id": "e1", "winlog": {"event_id": 4625}, "n": "7"}"#),
    Made(1, "2026-01-06T00:00:00Z", Some("e1"), r#"{"n":"7","winlog":{"event_id":4625},"id":"e1"}"#), // sent anew
    Made(2, "2026-01-06T00:00:00Z", Some("e1"), r#"{"id":"e1","winlog":{"event_id":4624}}"#),         // another's
];

fn time(text: &str) -> Time {
    text.parse().unwrap()
}

fn origin(source: &str) -> Arc<Origin> {
    Arc::new(Origin {
        tenant: Tenant::default(),
        source: Arc::from(source),
        received_at: time("2026-01-06T12:00:00Z"),
        year: Some(2026),
        framing: Framing::Record,
    })
}

fn event(source: &str, made: &Made) -> Event {
    let Made(offset, at, declared, raw) = made;
    let sshd = source == "file";
    let mut fields = Fields::default();
    let mut entities = Vec::new();
    if sshd {
        fields.push(Name::intern("user"), "root", Scalar::Text);
        entities.push(Entity::of(EntityKind::Host, "web").unwrap());
        entities.push(Entity::of(EntityKind::User, "root").unwrap());
        entities.push(Entity::of(EntityKind::Address, "203.0.113.9").unwrap());
    }
    Event {
        origin: origin(source),
        position: Position { origin: Arc::from("a.log"), offset: *offset, line: offset + 1, index: 0 },
        declared_id: declared.map(Box::from),
        time: time(at),
        time_basis: TimeBasis::Assumed,
        log_source: Arc::new(LogSource { service: sshd.then(|| Arc::from("sshd")), ..LogSource::default() }),
        fields,
        entities,
        raw: Bytes::from_static(raw.as_bytes()),
    }
}

fn detection(event: &Event) -> Detection {
    Detection {
        tenant: Tenant::default(),
        rule: Arc::from("guess"),
        member: Member { time: event.time, id: event.id(), declared_id: None, position: event.position.clone() },
        source: Arc::clone(&event.origin.source),
        entities: event.entities.clone(),
        items: vec![],
    }
}

fn revision(revision: u64, state: &str, count: u64) -> AlertRevision {
    let group = Group::new([(Arc::from("address"), Arc::from("203.0.113.9"))]);
    AlertRevision {
        alert: Alert {
            tenant: Tenant::default(),
            id: AlertId([1; 16]),
            rule: Arc::from("guess"),
            title: Arc::from("Password guessing"),
            level: Level::High,
            entities: group.entities(),
            group,
            state: AlertState::Open,
            anchor: time("2026-01-05T13:59:58Z").cell(),
            last_cell: time("2026-01-05T14:00:01Z").cell(),
            count,
            reference_counts: vec![count],
            peak: count,
            score: Score::of_level(Level::High),
            tags: Arc::from([Arc::from("attack.t1110")]),
        },
        thread: AlertId([1; 16]),
        revision,
        event: if revision == 1 { "opened" } else { "amended" }.to_owned(),
        state: state.to_owned(),
        reason: None,
        incident: None,
        members: None,
        superseded_by: None,
        assessment: None,
        revised_at: time("2026-01-06T12:00:00Z").plus_micros(i64::try_from(revision).unwrap()),
    }
}

fn reject() -> Reject {
    Reject {
        origin: origin("file"),
        position: Position::default(),
        code: RejectCode::InvalidUtf8,
        reason: "byte 1 is not UTF-8".to_owned(),
        time: None,
        raw: Bytes::from_static(b"a\xff\x1b[31mred"),
    }
}

fn entry(epoch: Epoch) -> EpochEntry {
    let record = EpochRecord {
        epoch,
        wall: time("2026-01-06T12:00:00Z"),
        generation: 1,
        ends: BTreeMap::new(),
        newest: BTreeMap::new(),
        starts: Default::default(),
        marks: Default::default(),
        idle: vec![],
        passed_ms: 0,
        control: 0,
        rules: "abc".to_owned(),
        begun: vec![],
        models: BTreeMap::new(),
        engine: "0.1.0".to_owned(),
    };
    EpochEntry { record, watermark: None }
}

/// Two complete epochs.
fn fill(history: &Path) -> Writer {
    let mut writer = Writer::open(history, HistoryOptions { encoders: 1 }).unwrap();
    let sshd: Vec<_> = SSHD.iter().map(|made| event("file", made)).collect();
    let json: Vec<_> = JSON.iter().map(|made| event("http", made)).collect();
    writer.write(1, &sshd).unwrap();
    writer.write(1, &[detection(&sshd[0]), detection(&sshd[1])]).unwrap();
    writer.write(1, &[revision(1, "open", 1)]).unwrap();
    writer.write(1, &[reject()]).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    writer.commit(1).unwrap();
    writer.write(2, &json).unwrap();
    writer.write(2, &[revision(2, "open", 2)]).unwrap();
    writer.write(2, &[entry(2)]).unwrap();
    writer.commit(2).unwrap();
    writer
}

enum Format {
    Json,
    Csv,
    Table(usize),
}

fn run(session: &Session, sql: &str, format: Format) -> Result<String, QueryError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut rows = session.query(sql).await?;
        let mut out = Vec::new();
        match format {
            Format::Json => write_json_lines(&mut rows, &mut out).await?,
            Format::Csv => write_csv(&mut rows, &mut out).await?,
            Format::Table(width) => write_table(&mut rows, &mut out, width).await?,
        };
        Ok(String::from_utf8(out).unwrap())
    })
}

/// A history of two epochs and a session over it.
struct Case {
    _dir: tempfile::TempDir,
    session: Session,
}

impl Case {
    fn new() -> Case {
        let dir = tempfile::tempdir().unwrap();
        drop(fill(dir.path()));
        let session = Session::open(dir.path(), Options::default()).unwrap();
        Case { _dir: dir, session }
    }

    #[track_caller]
    fn check(&self, sql: &str, expect: Expect) {
        expect.assert_eq(&run(&self.session, sql, Format::Json).unwrap_or_else(|error| error.to_string()));
    }

    #[track_caller]
    fn check_as(&self, format: Format, sql: &str, expect: Expect) {
        expect.assert_eq(&run(&self.session, sql, format).unwrap());
    }
}

#[test]
fn columns_are_reached_by_their_plain_names() {
    let case = Case::new();
    case.check(
        "SELECT event_id, id = event_id AS same, time, host, user, address, line, record_offset, record_index, fields, raw
         FROM events WHERE source = 'file' ORDER BY time LIMIT 1",
        expect![[r#"
            {"event_id":"cb44054c10c0cd3f05ca65e328efd67b","same":true,"time":"2026-01-05T13:59:58.250Z","host":"web","user":"root","address":"203.0.113.9","line":1,"record_offset":0,"record_index":0,"fields":"{\"user\":\"root\"}","raw":"Jan  5 13:59:58 web sshd[1]: Failed password for root from 203.0.113.9"}
        "#]],
    );
    case.check(
        "SELECT user, count(*) AS n FROM events WHERE user = 'root' GROUP BY user HAVING count(user) > 1 ORDER BY user",
        expect![[r#"
            {"user":"root","n":4}
        "#]],
    );
    case.check(
        "SELECT day, id, declared, winlog, n FROM (
            SELECT day, id, event_id AS declared, json_get(raw, 'winlog.event_id') AS winlog, json_number(raw, 'n') AS n,
                   record_offset FROM events WHERE source = 'http'
         ) ORDER BY record_offset",
        expect![[r#"
            {"day":"2026-01-06","id":null,"declared":"e1","winlog":"4625","n":7.0}
            {"day":"2026-01-06","id":null,"declared":"e1","winlog":"4625","n":7.0}
            {"day":"2026-01-06","id":null,"declared":"e1","winlog":"4624","n":null}
        "#]],
    );
    case.check(
        "SELECT entities, array_has(entities, 'user:root') AS root FROM detections LIMIT 1",
        expect![[r#"
        {"entities":["host:web","user:root","address:203.0.113.9"],"root":true}
    "#]],
    );
    case.check(
        "SELECT raw, raw_bytes, time FROM rejects",
        expect![[r#"
        {"raw":"a�\u001b[31mred","raw_bytes":"61ff1b5b33316d726564","time":null}
    "#]],
    );
    case.check("SELECT first, last, count, level, score, tags, group_fields FROM alerts ORDER BY epoch DESC LIMIT 1", expect![[r#"
        {"first":"2026-01-05T13:59:58Z","last":"2026-01-05T14:00:01Z","count":2,"level":"high","score":7.5,"tags":["attack.t1110"],"group_fields":"{\"address\":\"203.0.113.9\"}"}
    "#]]);
}

#[test]
fn functions_of_our_own_are_called_in_sql() {
    let case = Case::new();
    case.check(
        "SELECT attack_tactic('T1059.001') AS a, attack_tactic(tag) AS b, cidr_match('203.0.113.9', '203.0.113.0/24') AS c
         FROM (SELECT unnest(tags) AS tag FROM alerts LIMIT 1)",
        expect![[r#"
            {"a":"execution","b":"credential-access","c":true}
        "#]],
    );
    case.check(
        "SELECT time_bucket('5m', time) AS bucket, count(*) AS n FROM events
         WHERE array_has(entities, entity('host', 'WEB.')) AND cidr_match(address, '10.0.0.0/8,203.0.113.9')
         GROUP BY 1 ORDER BY 1",
        expect![[r#"
            {"bucket":"2026-01-05T13:55:00Z","n":1}
            {"bucket":"2026-01-05T14:00:00Z","n":3}
        "#]],
    );
    case.check(
        "SELECT json_get_int(raw, 'winlog.event_id') AS id, json_get_int(raw, 'n') AS n, json_get_bool('{\"a\":true}', 'a') AS b
         FROM events WHERE source = 'http' ORDER BY id, n NULLS LAST LIMIT 2",
        expect![[r#"
            {"id":4624,"n":null,"b":true}
            {"id":4625,"n":7,"b":true}
        "#]],
    );
    case.check(
        "SELECT entity('address', '::ffff:10.0.0.1') AS a, entity('thing', 'x') AS b, attack_tactic(NULL) AS c",
        expect![[r#"
            {"a":"address:10.0.0.1","b":null,"c":null}
        "#]],
    );
    case.check(
        "SELECT cidr_match(address, '10.0.0.0/64') FROM events",
        expect![[r#"cidr_match: "10.0.0.0/64" is no network; write 10.0.0.0/8 or fe80::/10"#]],
    );
    case.check(
        "SELECT time_bucket('fortnight', time) FROM events",
        expect![[r#"time_bucket: "fortnight" is no width; write a number and a unit: 30s, 5m, 1h, 1 day, 2 weeks"#]],
    );
    for function in cf_queries::FUNCTIONS {
        let arguments = function.arguments.split(", ").map(|_| "NULL").collect::<Vec<_>>().join(", ");
        let answer = run(&case.session, &format!("SELECT {}({arguments}) AS x", function.name), Format::Json);
        assert!(answer.is_ok(), "{}: {answer:?}", function.name);
    }
}

#[test]
fn times_compare_with_texts_in_utc() {
    let case = Case::new();
    let count = |condition: &str| {
        run(&case.session, &format!("SELECT count(*) AS n FROM events WHERE {condition}"), Format::Json).unwrap()
    };
    for (condition, n) in [
        ("time > '2020-01-01'", 7),
        ("time >= '2026-01-05T14:00:01Z'", 6),
        ("time > '2026-01-05T14:00:01Z'", 5),
        ("time >= '2026-01-05 15:00:01+01:00'", 6),
        ("time < '2026-01-05T13:59:58.250Z'", 0),
        ("time <= '2026-01-05T13:59:58.250Z'", 1),
        ("time BETWEEN '2026-01-05' AND '2026-01-06'", 7),
        ("day = '2026-01-06'", 3),
        ("day = DATE '2026-01-05' AND time >= '2026-01-05T14:00:00'", 3),
        ("epoch = 2", 3),
        ("time > now()", 0),
        ("date_trunc('hour', time) = '2026-01-05T13:00:00Z'", 1),
        ("time > TIMESTAMP '2026-01-05T23:00:00' + INTERVAL '30 minutes'", 3),
    ] {
        assert_eq!(count(condition), format!("{{\"n\":{n}}}\n"), "{condition}");
    }
}

#[test]
fn one_event_is_one_row_of_events_distinct() {
    let case = Case::new();
    case.check(
        "SELECT source, event_id, count(*) AS n, min(record_offset) AS first FROM events_distinct
         GROUP BY source, event_id ORDER BY source, first",
        expect![[r#"
            {"source":"file","event_id":"cb44054c10c0cd3f05ca65e328efd67b","n":1,"first":0}
            {"source":"file","event_id":"509b61fa565dfa7022b18d904a522a92","n":1,"first":1}
            {"source":"file","event_id":"6cdc8f1f14ebcc33454d1b2998d430f7","n":1,"first":2}
            {"source":"http","event_id":"e1","n":2,"first":0}
        "#]],
    );
    case.check(
        "SELECT count(*) AS deliveries, count(DISTINCT id) AS positions FROM events WHERE source = 'file'",
        expect![[r#"
            {"deliveries":4,"positions":3}
        "#]],
    );
    case.check("SELECT d.event_id = e.event_id AS same, d.id = e.id AS id FROM detections d JOIN events_distinct e ON d.id = e.id", expect![[r#"
        {"same":true,"id":true}
        {"same":true,"id":true}
    "#]]);
}

#[test]
fn named_queries_answer() {
    let case = Case::new();
    let all: String = named::QUERIES
        .iter()
        .map(|query| {
            let answer = run(&case.session, query.sql, Format::Table(200)).unwrap_or_else(|error| error.to_string());
            format!("== {}\n{answer}", query.name)
        })
        .collect();
    expect![[r#"
        == alert_timeline
        thread                            revision  epoch  revised_at                   event    state  reason  rule_id  count  group_fields
        --------------------------------  --------  -----  ---------------------------  -------  -----  ------  -------  -----  -------------------------
        01010101010101010101010101010101         1      1  2026-01-06T12:00:00.000001Z  opened   open           guess        1  {"address":"203.0.113.9"}
        01010101010101010101010101010101         2      2  2026-01-06T12:00:00.000002Z  amended  open           guess        2  {"address":"203.0.113.9"}
        (2 rows)
        == alerts_by_rule
        rule_id  title              level  state  alerts  members  score  first                 last
        -------  -----------------  -----  -----  ------  -------  -----  --------------------  --------------------
        guess    Password guessing  high   open        1        2    7.5  2026-01-05T13:59:58Z  2026-01-05T14:00:01Z
        (1 row)
        == alerts_by_tactic
        tactic             level  alerts  score
        -----------------  -----  ------  -----
        credential-access  high        1    7.5
        (1 row)
        == detections_by_rule
        rule_id  events  hosts  users  first                     last
        -------  ------  -----  -----  ------------------------  --------------------
        guess         2      1      1  2026-01-05T13:59:58.250Z  2026-01-05T14:00:01Z
        (1 row)
        == events_by_hour
        hour                  source  events
        --------------------  ------  ------
        2026-01-05T13:00:00Z  file         1
        2026-01-05T14:00:00Z  file         3
        2026-01-06T00:00:00Z  http         3
        (3 rows)
        == logins_by_address
        address      failed  accepted  users  first                     last
        -----------  ------  --------  -----  ------------------------  --------------------
        203.0.113.9       2         2      1  2026-01-05T13:59:58.250Z  2026-01-05T14:00:02Z
        (1 row)
        == rejects_by_reason
        source  code          records  first                 last                  example
        ------  ------------  -------  --------------------  --------------------  -------------------
        file    invalid_utf8        1  2026-01-06T12:00:00Z  2026-01-06T12:00:00Z  byte 1 is not UTF-8
        (1 row)
        == training_events
        event_id  time  model  alert_id  verdict  recipe  features
        --------  ----  -----  --------  -------  ------  --------
        (0 rows)
        == training_set
        alert_id  time  rule_id  signature  verdict  recipe  features
        --------  ----  -------  ---------  -------  ------  --------
        (0 rows)
    "#]].assert_eq(&all);
    assert!(named::find("events_by_hour").is_some() && named::find("none").is_none());
}

#[test]
fn named_queries_are_the_files_of_the_folder() {
    let folder = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten();
    let names = folder.map(|file| file.file_name().to_string_lossy().into_owned());
    let mut files: Vec<_> = names.filter_map(|name| name.strip_suffix(".sql").map(str::to_owned)).collect();
    files.sort();
    assert_eq!(files, named::QUERIES.iter().map(|query| query.name).collect::<Vec<_>>());
    assert!(named::QUERIES.iter().all(|query| query.sql.starts_with("-- ")));
}

#[test]
fn answers_come_as_table_and_csv() {
    let case = Case::new();
    let sql = "SELECT line, time, user, entities, raw FROM events WHERE source = 'file' ORDER BY time, line LIMIT 2";
    case.check_as(Format::Csv, sql, expect![[r#"
        line,time,user,entities,raw
        1,2026-01-05T13:59:58.250Z,root,"[""host:web"",""user:root"",""address:203.0.113.9""]",Jan  5 13:59:58 web sshd[1]: Failed password for root from 203.0.113.9
        2,2026-01-05T14:00:01Z,root,"[""host:web"",""user:root"",""address:203.0.113.9""]",Jan  5 14:00:01 web sshd[1]: Failed password for root from 203.0.113.9
    "#]]);
    case.check_as(
        Format::Table(78),
        sql,
        expect![[r#"
        line  time                   user  entities               raw
        ----  ---------------------  ----  ---------------------  --------------------
           1  2026-01-05T13:59:58.…  root  ["host:web","user:ro…  Jan  5 13:59:58 web…
           2  2026-01-05T14:00:01Z   root  ["host:web","user:ro…  Jan  5 14:00:01 web…
        (2 rows)
    "#]],
    );
    case.check_as(
        Format::Table(78),
        "SELECT raw AS \"a\nb\" FROM rejects",
        expect![[r#"
        a\nb
        ---------------
        a�\u{1b}[31mred
        (1 row)
    "#]],
    );
    case.check_as(
        Format::Csv,
        "SELECT 'a\"b' AS \"x,y\", NULL AS z, '' AS e, 1.5 AS f",
        expect![[r#"
        "x,y",z,e,f
        "a""b",,,1.5
    "#]],
    );
    case.check_as(Format::Table(20), "SELECT * FROM events WHERE false", expect![[r#"
        tenant  day  epoch  event…  id  time  time_…  recei…  source  origin  line  recor…  recor…  produ…  categ…  servi…  host  user  addre…  proce…  file_…  domain  entit…  fields  raw  frami…  year  urls  event…  event…  event…  proce…  proce…  proce…  proce…  proce…  user_…  user_…  sourc…  sourc…  desti…  desti…  desti…  dns_q…  file_…  dll_p…  regis…  url_o…  http_…  http_…  user_…
        ------  ---  -----  ------  --  ----  ------  ------  ------  ------  ----  ------  ------  ------  ------  ------  ----  ----  ------  ------  ------  ------  ------  ------  ---  ------  ----  ----  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------  ------
        (0 rows)
    "#]]);
    let long = run(&case.session, "SELECT value FROM generate_series(1, 20000)", Format::Table(80)).unwrap();
    assert!(long.ends_with("20000\n(20000 rows)\n"));
}

#[test]
fn the_catalogue_is_shown() {
    let case = Case::new();
    case.check(
        "SHOW TABLES",
        expect![[r#"
            {"table_name":"actions","table_type":"BASE TABLE"}
            {"table_name":"alerts","table_type":"BASE TABLE"}
            {"table_name":"detections","table_type":"BASE TABLE"}
            {"table_name":"epochs","table_type":"BASE TABLE"}
            {"table_name":"events","table_type":"BASE TABLE"}
            {"table_name":"events_distinct","table_type":"VIEW"}
            {"table_name":"facts","table_type":"BASE TABLE"}
            {"table_name":"features","table_type":"BASE TABLE"}
            {"table_name":"incidents","table_type":"BASE TABLE"}
            {"table_name":"predictions","table_type":"BASE TABLE"}
            {"table_name":"rejects","table_type":"BASE TABLE"}
            {"table_name":"risk","table_type":"BASE TABLE"}
            {"table_name":"verdicts","table_type":"BASE TABLE"}
        "#]],
    );
    case.check(
        "DESCRIBE epochs",
        expect![[r#"
            {"column_name":"tenant","data_type":"Utf8View","is_nullable":"NO"}
            {"column_name":"day","data_type":"Date32","is_nullable":"YES"}
            {"column_name":"epoch","data_type":"Int64","is_nullable":"NO"}
            {"column_name":"wall","data_type":"Timestamp(µs, \"UTC\")","is_nullable":"NO"}
            {"column_name":"generation","data_type":"Int64","is_nullable":"NO"}
            {"column_name":"ends","data_type":"Utf8View","is_nullable":"NO"}
            {"column_name":"idle","data_type":"List(Utf8View, field: 'element')","is_nullable":"NO"}
            {"column_name":"control","data_type":"Int64","is_nullable":"NO"}
            {"column_name":"rules","data_type":"Utf8View","is_nullable":"NO"}
            {"column_name":"engine","data_type":"Utf8View","is_nullable":"NO"}
            {"column_name":"watermark","data_type":"Timestamp(µs, \"UTC\")","is_nullable":"YES"}
            {"column_name":"newest","data_type":"Utf8View","is_nullable":"YES"}
            {"column_name":"begun","data_type":"List(Utf8View, field: 'element')","is_nullable":"YES"}
        "#]],
    );
    case.check(
        "SELECT count(*) > 20 AS many FROM information_schema.columns WHERE table_name = 'events'",
        expect![[r#"
        {"many":true}
    "#]],
    );
    assert!(run(&case.session, "EXPLAIN SELECT user FROM events", Format::Json).unwrap().contains("events"));
}

#[test]
fn errors_say_what_is_wrong_and_what_there_is() {
    let case = Case::new();
    case.check("SELECT usr FROM detections", expect!["No field named usr. Did you mean 'detections.user'? Valid fields are detections.tenant, detections.day, detections.epoch, detections.rule_id, detections.event_id, detections.id, detections.time, detections.source, detections.origin, detections.line, detections.record_offset, detections.record_index, detections.host, detections.user, detections.address, detections.entities, detections.items."]);
    case.check("SELECT * FROM evnts", expect![[r#"there is no table "evnts"; did you mean "events"?; tables: events, rejects, detections, alerts, incidents, actions, risk, facts, verdicts, features, predictions, epochs, events_distinct"#]]);
    case.check(
        "SELECT * FROM events WHERE time > 'yesterday'",
        expect!["Error parsing timestamp from 'yesterday': timestamp must contain at least 10 characters"],
    );
    case.check("SELECT no_such(raw) FROM events", expect!["Invalid function 'no_such'. Did you mean 'cosh'?"]);
    case.check("SELECT 1/0 AS x FROM events", expect!["Divide by zero error"]);
}

#[test]
fn nothing_is_written_and_no_file_is_read() {
    let case = Case::new();
    for sql in [
        "SELECT * INTO copy FROM events",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM read_parquet('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "EXPLAIN ANALYZE SELECT * INTO copy FROM events",
        "WITH x AS (INSERT INTO events SELECT * FROM events RETURNING 1) SELECT * FROM x",
    ] {
        let answer = run(&case.session, sql, Format::Json);
        assert!(answer.is_err(), "{sql}: {answer:?}");
    }
    case.check(
        "SELECT count(*) AS n FROM events",
        expect![[r#"
        {"n":7}
    "#]],
    );
}

#[test]
fn a_query_that_needs_too_much_memory_fails_alone() {
    let case = Case::new();
    let options = Options { memory_bytes: 4 << 20, spill_bytes: 1 << 20, ..Options::default() };
    let session = Session::open(case._dir.path(), options).unwrap();
    let greedy = "SELECT count(DISTINCT value) AS n FROM generate_series(1, 5000000)";
    let error = run(&session, greedy, Format::Json).unwrap_err();
    assert!(matches!(error, QueryError::Memory { mib: 4, .. }), "{error}");
    assert_eq!(run(&session, "SELECT count(*) AS n FROM events", Format::Json).unwrap(), "{\"n\":7}\n");
}

#[test]
fn a_history_that_is_not_there_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let session = Session::open(dir.path().join("none"), Options::default()).unwrap();
    for table in ["events", "rejects", "detections", "alerts", "incidents", "actions", "epochs", "events_distinct"] {
        let answer = run(&session, &format!("SELECT count(*) AS n FROM {table}"), Format::Json).unwrap();
        assert_eq!(answer, "{\"n\":0}\n", "{table}");
    }
    for query in named::QUERIES {
        assert_eq!(run(&session, query.sql, Format::Json).unwrap(), "", "{}", query.name);
    }
}

#[test]
fn a_query_sees_whole_epochs_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path());
    let session = Session::open(dir.path(), Options::default()).unwrap();
    let count = || run(&session, "SELECT count(*) AS n, max(epoch) AS last FROM events", Format::Json).unwrap();
    // As after a crash between two tables: events has epoch 3, `epochs` has not.
    writer.write(3, &[event("file", &SSHD[0])]).unwrap();
    writer.commit(3).unwrap();
    assert_eq!(count(), "{\"n\":7,\"last\":2}\n");
    writer.write(4, &[event("file", &SSHD[1])]).unwrap();
    writer.write(3, &[entry(3)]).unwrap();
    writer.write(4, &[entry(4)]).unwrap();
    writer.commit(4).unwrap();
    assert_eq!(count(), "{\"n\":9,\"last\":4}\n");
}

#[test]
fn queries_run_beside_a_writer_that_commits() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = fill(dir.path());
    let path = dir.path().to_owned();
    let reader = std::thread::spawn(move || {
        let session = Session::open(&path, Options::default()).unwrap();
        let mut last = 0;
        while last < 30 {
            let sql = "SELECT (SELECT max(epoch) FROM epochs) AS complete, (SELECT max(epoch) FROM events) AS seen";
            let answer: serde_json::Value = serde_json::from_str(&run(&session, sql, Format::Json).unwrap()).unwrap();
            assert_eq!(answer["complete"], answer["seen"]);
            last = answer["complete"].as_i64().unwrap();
        }
    });
    for epoch in 3..=30 {
        writer.write(epoch, &[event("file", &SSHD[0])]).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
    }
    reader.join().unwrap();
}
