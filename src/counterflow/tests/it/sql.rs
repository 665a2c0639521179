//! SQL of the binary: live tables against history, over HTTP, over the Postgres wire with the clients that people use.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::support::{Engine, free_address, lines, post, request, run, said, shared, wait_until};

/// Events of a few addresses, some of which fail to log in often.
fn events(from: u64, to: u64) -> String {
    let event = |n: u64| {
        let x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let kind = if x.is_multiple_of(5) { "authentication_succeeded" } else { "authentication_failed" };
        let time = cf_types::Time::from_seconds(1_767_621_600 + i64::try_from(n * 2 + x % 30).unwrap());
        json!({
            "event_id": format!("s{n}"), "timestamp": time, "source": "app", "event_type": kind,
            "source_ip": format!("10.0.0.{}", x % 4), "user": format!("u{}", x % 3),
        })
    };
    (from..to).map(|n| format!("{}\n", event(n))).collect()
}

fn settings(folder: &Path) -> String {
    let file = folder.join("settings.yaml");
    std::fs::write(&file, "sql:\n  trust_loopback: true\n  rows_max: 100000\n  query_s: 10\n").unwrap();
    file.to_str().unwrap().to_owned()
}

/// An engine with SQL on a port of its own.
fn start(folder: &Path, sql: SocketAddr) -> Engine {
    let more = ["--config", &settings(folder), "--sql-listen", &sql.to_string()];
    Engine::start(&folder.join("data"), "rules/plan", &more)
}

fn send(engine: &Engine, from: u64, to: u64) {
    let (status, answer) =
        post(engine.http, "/api/v1/events", "application/x-ndjson", events(from, to).as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
}

#[track_caller]
fn ask(data: &str, sql: &str) -> Vec<Value> {
    let output = run(&["sql", "--data", data, "--format", "json", sql], b"");
    assert!(output.status.success(), "{sql}: {}", said(&output));
    lines(&output)
}

/// The same questions of live tables and of history, for a folder whose history holds all epochs of the ledger.
#[track_caller]
fn live_is_history(data: &str) {
    let alert = "alert_id, thread, revision, state, rule_id, title, level, group_fields, tags";
    let newest = |table: &str, key: &str| {
        format!(
            "(SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY epoch DESC, revised_at DESC) AS place FROM {table})"
        )
    };
    let alerts = newest("alerts", "alert_id");
    for (live, history) in [
        (
            format!("SELECT {alert} FROM alerts_now ORDER BY alert_id"),
            format!("SELECT {alert} FROM {alerts} WHERE place = 1 ORDER BY alert_id"),
        ),
        (
            // A name may have come with an alert's revision, which is none of the incident.
            "SELECT incident, state, redirect, title IS NULL AS unnamed FROM incidents_now ORDER BY incident".to_owned(),
            format!(
                "SELECT incident, state, redirect, title IS NULL AS unnamed FROM {} WHERE place = 1 ORDER BY incident",
                newest("incidents", "incident")
            ),
        ),
        (
            "SELECT \"end\", epoch, cut_at FROM sources_now WHERE source = 'spool'".to_owned(),
            "SELECT json_get_int(ends, 'spool') AS \"end\", epoch, wall AS cut_at FROM epochs ORDER BY epoch DESC LIMIT 1".to_owned(),
        ),
        (
            "SELECT entity FROM risk_now ORDER BY entity".to_owned(),
            format!(
                "SELECT DISTINCT entity FROM (SELECT unnest(entities) AS entity FROM {alerts}
                 WHERE place = 1 AND state IN ('open', 'sealed') AND rule_id <> 'risk') ORDER BY entity"
            ),
        ),
    ] {
        let (live_rows, history_rows) = (ask(data, &live), ask(data, &history));
        assert!(!live_rows.is_empty(), "{live}");
        assert_eq!(live_rows, history_rows, "{live}");
    }
}

#[test]
fn live_tables_say_what_history_says() {
    let folder = tempfile::tempdir().unwrap();
    let sql = free_address();
    let engine = start(folder.path(), sql);
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    send(&engine, 0, 300);
    wait_until("the ledger has alerts", || {
        ask_http(&engine, "SELECT count(*) AS n FROM alerts_now").first().is_some_and(|row| row["n"].as_i64() > Some(0))
    });
    engine.stop();
    live_is_history(at);
    // Killed in the middle, started again, stopped in order.
    let engine = start(folder.path(), sql);
    send(&engine, 300, 600);
    engine.kill();
    // Beside a dead engine as well: what the ledger has.
    assert!(!ask(at, "SELECT * FROM alerts_now").is_empty());
    let engine = start(folder.path(), sql);
    send(&engine, 600, 900);
    engine.stop();
    live_is_history(at);
    // As of an epoch in the middle there was less.
    let count = |more: &[&str]| {
        let mut arguments = vec!["sql", "--data", at, "--format", "json"];
        arguments.extend(more);
        arguments.push("SELECT count(*) AS n FROM events");
        lines(&run(&arguments, b""))[0]["n"].as_u64().unwrap()
    };
    assert_eq!((count(&[]), count(&["--as-of", "0"])), (900, 0));
    let middle = ask(at, "SELECT min(epoch) AS e FROM events")[0]["e"].to_string();
    assert!((1..900).contains(&count(&["--as-of", &middle])));
}

#[track_caller]
fn ask_http(engine: &Engine, sql: &str) -> Vec<Value> {
    let body = json!({ "sql": sql }).to_string();
    let headers = [("content-type", "application/json")];
    let (status, answer) = request(engine.http, "POST", "/api/v1/sql", &headers, body.as_bytes()).unwrap();
    assert_eq!(status, 200, "{answer}");
    answer.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn sql_over_http_reads_within_limits() {
    let folder = tempfile::tempdir().unwrap();
    let engine = start(folder.path(), free_address());
    let asked = |body: Value, accept: &str| {
        let headers = [("content-type", "application/json"), ("accept", accept)];
        request(engine.http, "POST", "/api/v1/sql", &headers, body.to_string().as_bytes()).unwrap()
    };
    let (status, answer) = asked(json!({"sql": "SELECT 1 AS a, 'x' AS b"}), "text/csv");
    assert!(status == 200 && answer.contains("a,b") && answer.contains("1,x"), "{answer}");
    let (status, answer) = asked(json!({"sql": "SELECT 1 AS a", "format": "json"}), "*/*");
    assert!(status == 200 && answer.contains("{\"a\":1}"), "{answer}");
    let (status, answer) = asked(json!({"sql": "SELECT value FROM generate_series(1, 50000)", "format": "csv"}), "*/*");
    assert!(status == 200 && answer.contains("50000"), "{status}");
    let (status, _) = asked(json!({"sql": "SELECT 1 AS a"}), "application/vnd.apache.arrow.stream");
    assert_eq!(status, 200);
    for (body, expect, code) in [
        (json!({"sql": "DROP TABLE events"}), 403, "read_only"),
        (json!({"sql": "SELECT * FROM evnts"}), 422, "no_table"),
        (json!({"sql": "SELEC 1"}), 422, "invalid_sql"),
        (json!({"sql": "SELECT * FROM alerts_now", "as_of": 1}), 422, "invalid_sql"),
        (
            json!({"sql": "SELECT value FROM generate_series(1, 100001) ORDER BY value", "format": "csv"}),
            422,
            "row_limit",
        ),
        (
            json!({"sql": "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c"}),
            422,
            "time_limit",
        ),
        (json!({"sql": format!("SELECT 1{}", "+1".repeat(100_000))}), 422, "too_complex"),
        (json!({"sql": "SELECT 1", "format": "xml"}), 400, "bad_request"),
        (json!({"sql": "SELECT 1", "as_of": "yesterday"}), 400, "bad_request"),
        (json!({"statement": "SELECT 1"}), 400, "bad_request"),
    ] {
        let (status, answer) = asked(body.clone(), "*/*");
        // More rows than are allowed may be told before the first of them, or cut the answer off.
        if code == "row_limit" && status == 200 {
            continue;
        }
        let told: Value = serde_json::from_str(&answer).unwrap_or_default();
        assert_eq!((status, &told["error"]["code"]), (expect, &json!(code)), "{body}: {answer}");
    }
    let (status, _) = asked(json!({"sql": "SELECT 1"}), "image/png");
    assert_eq!(status, 406);
    // The engine has taken no harm.
    send(&engine, 0, 50);
    engine.stop();
}

/// What the public rules say of each technique: tactics of rules that name no other technique.
fn tactics_of_rules(archive: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let bytes = zstd::decode_all(std::fs::File::open(archive).unwrap()).unwrap();
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let (mut entry, mut text) = (entry.unwrap(), String::new());
        if entry.path().unwrap().extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        entry.read_to_string(&mut text).unwrap();
        let tags = text.lines().filter_map(|line| line.trim().strip_prefix("- attack."));
        let (mut techniques, mut tactics) = (BTreeSet::new(), BTreeSet::new());
        for tag in tags {
            match tag.strip_prefix('t').map(|number| number.split('.').next().unwrap()) {
                Some(number) if number.parse::<u16>().is_ok() => drop(techniques.insert(format!("t{number}"))),
                // Groups and software stand beside.
                _ if tag.contains(|c: char| c.is_ascii_digit()) => {}
                _ => drop(tactics.insert(tag.replace('_', "-"))),
            }
        }
        let alone = techniques.len() == 1;
        for technique in techniques {
            said.entry(technique).or_default().extend(if alone { tactics.clone() } else { BTreeSet::new() });
        }
    }
    said
}

/// The table of `attack_tactic` against the rules that it is from: each technique that they name has a tactic, one of those
/// that rules about it alone name.
#[test]
fn attack_tactics_are_those_of_the_rules() {
    let Some(archive) = shared("data/sigma/sigmahq-rules.tar.zst") else { return };
    let said_by = tactics_of_rules(&archive);
    assert!(said_by.len() > 150, "{}", said_by.len());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let replayed = run(&["replay", "--data", at, "--rules", "rules/plan", "-"], events(0, 3).as_bytes());
    assert!(replayed.status.success(), "{}", said(&replayed));
    let values: Vec<String> = said_by.keys().map(|technique| format!("('{technique}')")).collect();
    let sql = format!("SELECT t.tag, attack_tactic(t.tag) AS tactic FROM (VALUES {}) AS t(tag)", values.join(", "));
    let given: Vec<Value> = ask(at, &sql);
    assert_eq!(given.len(), said_by.len());
    for row in given {
        let (tag, tactic) = (row["tag"].as_str().unwrap(), row["tactic"].as_str());
        // ATT&CK 19 parts one tactic in two; here it is one.
        let one = |word: &String| match word.as_str() {
            "stealth" | "defense-impairment" => "defense-evasion".to_owned(),
            word => word.to_owned(),
        };
        let named: BTreeSet<String> = said_by[tag].iter().map(one).collect();
        let tactic = tactic.unwrap_or_else(|| panic!("{tag} has no tactic; rules name {named:?}"));
        assert!(named.is_empty() || named.contains(tactic), "{tag} is {tactic}; rules name {named:?}");
    }
}

fn psql(sql: SocketAddr, command: &str) -> Output {
    Command::new("psql")
        .env("PGCONNECT_TIMEOUT", "20")
        .args(["-X", "-A", "-t", "-h", &sql.ip().to_string(), "-p", &sql.port().to_string(), "-U", "tester"])
        .args(["-d", "counterflow", "-v", "ON_ERROR_STOP=1", "-c", command])
        .output()
        .unwrap()
}

fn is_there(program: &str, arguments: &[&str]) -> bool {
    let found = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: {program} {} does not run here", arguments.join(" "));
    }
    found
}

#[test]
fn clients_read() {
    let folder = tempfile::tempdir().unwrap();
    let sql = free_address();
    let engine = start(folder.path(), sql);
    send(&engine, 0, 100);
    let count = "SELECT count(*) FROM events";
    wait_until("history has the events", || ask_http(&engine, "SELECT count(*) AS n FROM events")[0]["n"] == 100);
    if is_there("psql", &["--version"]) {
        for (command, expect) in [
            (count, "100\n"),
            (
                "SELECT user, count(*) FROM events WHERE cidr_match(address, '10.0.0.0/30') GROUP BY 1 ORDER BY 1 LIMIT 1",
                "u0|",
            ),
            ("\\dt", "alerts_now"),
            ("\\d", "events_distinct"),
            ("\\d events", "received_at"),
            ("SELECT count(*) > 0 FROM sources_now", "t\n"),
        ] {
            let output = psql(sql, command);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.contains(expect), "{command}: {text} {}", said(&output));
        }
        let refused = psql(sql, "DELETE FROM events");
        assert!(!refused.status.success() && said(&refused).contains("read-only"), "{}", said(&refused));
    }
    let python = std::env::var("COUNTERFLOW_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if is_there(&python, &["-c", "import psycopg"]) {
        let script = super::support::root().join("scripts/lib/clients/psycopg_reads.py");
        let output =
            Command::new(&python).arg(script).args([sql.ip().to_string(), sql.port().to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    // Those that are fetched from their registries: `scripts/campaign clients`.
    if std::env::var_os("COUNTERFLOW_CLIENTS").is_some() {
        let all = super::support::root().join("scripts/lib/clients/all");
        let output = Command::new(all).args([sql.ip().to_string(), sql.port().to_string()]).output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", said(&output));
    }
    engine.stop();
}

/// A certificate of its own for 127.0.0.1, and users; as settings.
fn guarded(folder: &Path) -> String {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", &at("key.pem"), "-out", &at("cert.pem")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
    std::fs::write(at("users"), "grafana:s3cret phrase\nother:else\n").unwrap();
    let text =
        format!("sql:\n  users_file: {}\n  tls_cert: {}\n  tls_key: {}\n", at("users"), at("cert.pem"), at("key.pem"));
    std::fs::write(at("guarded.yaml"), text).unwrap();
    at("guarded.yaml")
}

/// SCRAM and TLS as libpq speaks them: who has the password comes in, over an encrypted connection if he asks for one; who
/// has not does not.
#[test]
fn psql_comes_in_by_password_and_over_tls() {
    if !is_there("psql", &["--version"]) || !is_there("openssl", &["version"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (settings, sql) = (guarded(folder.path()), free_address());
    let more = ["--config", &settings, "--sql-listen", &sql.to_string()];
    let engine = Engine::start(&folder.path().join("data"), "rules/plan", &more);
    send(&engine, 0, 10);
    wait_until("history has the events", || ask_http(&engine, "SELECT count(*) AS n FROM events")[0]["n"] == 10);
    let psql = |user: &str, password: &str, more: &str, command: &str| {
        let to = format!("host=127.0.0.1 port={} user={user} dbname=counterflow connect_timeout=20 {more}", sql.port());
        let mut psql = Command::new("psql");
        psql.env("PGPASSWORD", password).args(["-X", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-c", command, &to]);
        psql.output().unwrap()
    };
    let count = "SELECT count(*) FROM events";
    let root = format!("sslmode=verify-full sslrootcert={}", folder.path().join("cert.pem").display());
    for more in ["sslmode=disable", "sslmode=require", "sslmode=require channel_binding=disable", &root] {
        let output = psql("grafana", "s3cret phrase", more, count);
        assert!(output.status.success(), "{more}: {}", said(&output));
        assert_eq!(output.stdout, b"10\n", "{more}");
    }
    let about = psql("grafana", "s3cret phrase", "sslmode=require", "\\conninfo");
    assert!(String::from_utf8_lossy(&about.stdout).contains("SSL connection (protocol: TLSv1.3"), "{about:?}");
    for (user, password) in
        [("grafana", "else"), ("nobody", "s3cret phrase"), ("other", "s3cret phrase"), ("grafana", "")]
    {
        for more in ["sslmode=disable", "sslmode=require"] {
            let output = psql(user, password, more, count);
            assert!(!output.status.success() && output.stdout.is_empty(), "{user} {password} {more}");
            assert!(said(&output).contains("password"), "{user} {password} {more}: {}", said(&output));
        }
    }
    engine.stop();
}

#[test]
fn named_queries_and_files_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at = data.to_str().unwrap();
    let replayed = run(&["replay", "--data", at, "--rules", "rules/plan", "-"], events(0, 200).as_bytes());
    assert!(replayed.status.success(), "{}", said(&replayed));
    for query in cf_queries::named::QUERIES {
        let output = run(&["sql", "--data", at, "--named", query.name, "--format", "json"], b"");
        assert!(output.status.success(), "{}: {}", query.name, said(&output));
    }
    let unknown = run(&["sql", "--data", at, "--named", "none"], b"");
    assert!(said(&unknown).contains("alerts_by_rule"), "{}", said(&unknown));
    let file = folder.path().join("two.sql");
    std::fs::write(&file, "-- two\nSELECT 1 AS a;\nSELECT ';' AS b;\n").unwrap();
    let output = run(&["sql", "--data", at, "--file", file.to_str().unwrap(), "--format", "json"], b"");
    assert_eq!(lines(&output), [json!({"a": 1}), json!({"b": ";"})]);
    let piped = run(&["sql", "--data", at, "--format", "json", "-"], b"SELECT count(*) AS n FROM events;");
    assert_eq!(lines(&piped), [json!({"n": 200})]);
}
