//! The Postgres wire: answers, refusals, logins, and what it does with bytes that are no protocol.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use cf_queries::{SqlSettings, wire::Server};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};

use super::{asked, *};

/// A server over a small history on a runtime of its own; ended with it.
struct Served {
    address: SocketAddr,
    runtime: Runtime,
    _end: watch::Sender<bool>,
    _case: Case,
}

fn serve(change: impl Fn(&mut SqlSettings)) -> Served {
    let case = Case::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()
        .unwrap();
    let mut settings = SqlSettings { trust_loopback: true, query_s: 5, rows_max: 10_000, ..SqlSettings::default() };
    change(&mut settings);
    let session = Session::open(case._dir.path(), settings.options()).unwrap();
    let server = Server::new(&session, settings).unwrap();
    let (end, mut ending) = watch::channel(false);
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            async move { server.serve(listener, async move { drop(ending.wait_for(|end| *end).await) }).await },
        );
        address
    });
    Served { address, runtime, _end: end, _case: case }
}

/// A client of the simple query protocol, written from the protocol's description.
struct Client(TcpStream);

/// What a server says to a query: values by row, and the error's code if there was one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    rows: Vec<Vec<Option<String>>>,
    error: Option<String>,
}

impl Client {
    fn connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut client = Client(stream);
        let mut startup = Vec::new();
        startup.extend(196_608_u32.to_be_bytes());
        startup.extend(b"user\0tester\0database\0counterflow\0\0");
        let length = u32::try_from(startup.len() + 4).unwrap().to_be_bytes();
        client.0.write_all(&[length.as_slice(), &startup].concat())?;
        client.until_ready()?;
        Ok(client)
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [[kind].as_slice(), &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
    }

    fn next(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head[1..5].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        self.0.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    fn until_ready(&mut self) -> std::io::Result<Said> {
        let mut said = Said::default();
        loop {
            match self.next()? {
                (b'Z', _) => return Ok(said),
                (b'D', body) => said.rows.push(values(&body)),
                (b'E', body) => {
                    let code = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'));
                    said.error = code.map(|code| String::from_utf8_lossy(&code[1..]).into_owned());
                }
                _ => {}
            }
        }
    }

    fn query(&mut self, sql: &str) -> std::io::Result<Said> {
        self.0.write_all(&Client::message(b'Q', format!("{sql}\0").as_bytes()))?;
        self.until_ready()
    }

    #[track_caller]
    fn check(&mut self, sql: &str, expect: &str) {
        let said = self.query(sql).unwrap();
        let text = said
            .rows
            .iter()
            .map(|row| row.iter().map(|v| v.as_deref().unwrap_or("NULL")).collect::<Vec<_>>().join("|"));
        let found =
            said.error.clone().map_or_else(|| text.collect::<Vec<_>>().join("\n"), |code| format!("error {code}"));
        assert_eq!(found, expect, "{sql}");
    }
}

fn values(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
        rest = &rest[4..];
        let taken = usize::try_from(length).ok();
        values.push(taken.map(|n| String::from_utf8_lossy(&rest[..n]).into_owned()));
        rest = &rest[taken.unwrap_or(0)..];
    }
    values
}

#[test]
fn queries_are_answered_and_writes_are_not() {
    let served = serve(|_| ());
    let mut client = Client::connect(served.address).unwrap();
    client.check(
        "SELECT count(*), min(time), max(user) FROM events WHERE source = 'file'",
        "4|2026-01-05 13:59:58.250000+00|root",
    );
    client.check("SELECT entities FROM detections LIMIT 1", "{host:web,user:root,address:203.0.113.9}");
    client.check("SELECT user FROM public.events WHERE user IS NOT NULL LIMIT 1", "root");
    client.check("SELECT user", "postgres");
    client.check("SELECT attack_tactic('T1110'), cidr_match('10.1.1.1', '10.0.0.0/8')", "credential-access|t");
    client.check("SHOW as_of; SET as_of = 1; SHOW as_of", "now\n1");
    client.check("SELECT count(*) FROM events", "4");
    client.check("SET as_of = now", "");
    client.check("SELECT count(*) FROM events", "7");
    client.check("", "");
    client.check("BEGIN", "");
    client.check("SELECT 1/0 FROM events", "error 42601");
    client.check("SELECT 1", "error 25P02");
    client.check("ROLLBACK", "");
    for (sql, code) in [
        ("INSERT INTO events SELECT * FROM events", "25006"),
        ("CREATE EXTERNAL TABLE a STORED AS CSV LOCATION '/etc/passwd'", "42601"),
        ("CREATE TABLE a AS SELECT 1", "25006"),
        ("DROP TABLE events", "25006"),
        ("COPY (SELECT 1) TO '/tmp/x'", "25006"),
        ("COPY events FROM STDIN", "25006"),
        ("EXPLAIN DELETE FROM events", "25006"),
        ("SET datafusion.runtime.memory_limit = '1000G'", "42704"),
        ("SELECT * FROM '/etc/passwd'", "42P01"),
        ("SELECT * FROM \"/etc/passwd\"", "42P01"),
        ("SELECT pg_read_file('/etc/passwd')", "42883"),
        ("SELECT * FROM evnts", "42P01"),
        ("SELECT nothing FROM events", "42703"),
        ("SELECT 1; SELECT 2", "0A000"),
        ("SELECT value FROM generate_series(1, 10001)", "54000"),
        (
            "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c",
            "57014",
        ),
    ] {
        let said = client.query(sql).unwrap();
        let expected = [Some(code.to_owned()), Some("42601".to_owned())];
        assert!(expected.contains(&said.error), "{sql}: {said:?}");
    }
    client.check("SELECT count(*) FROM events", "7");
}

#[test]
fn the_catalogue_has_our_tables() {
    let served = serve(|_| ());
    let mut client = Client::connect(served.address).unwrap();
    client.check(
        "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = 'public' ORDER BY 1 LIMIT 3",
        "actions\nalerts\ndetections",
    );
    client.check(
        "SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'epochs'::regclass AND a.attnum > 0 ORDER BY a.attnum LIMIT 3",
        "tenant\nday\nepoch",
    );
    client.check("SELECT current_setting('server_version_num')::int / 10000", "16");
    client.check("SELECT current_database(), current_schema()", "counterflow|public");
    client.check(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1 LIMIT 1",
        "actions",
    );
}

#[test]
fn what_grafana_and_metabase_ask_is_answered() {
    let served = serve(|_| ());
    for (who, queries) in [("Grafana", asked::GRAFANA), ("Metabase", asked::METABASE)] {
        let mut client = Client::connect(served.address).unwrap();
        let mut found = String::new();
        for query in queries {
            let said = client.query(query).unwrap();
            assert_eq!(said.error, None, "{who}: {query}");
            found.extend(said.rows.iter().flatten().flatten().map(|value| format!("{value} ")));
        }
        assert!(found.contains("events_distinct "), "{who} does not see our tables: {found}");
    }
}

#[test]
fn a_table_without_its_schema_has_columns_in_grafana() {
    let served = serve(|_| ());
    let mut client = Client::connect(served.address).unwrap();
    client.check(asked::COLUMNS_OF_A_BARE_TABLE, "begun|List(Utf8, field: 'element')\ncontrol|Int64");
}

#[test]
fn cursors_are_fetched_in_parts() {
    let served = serve(|_| ());
    let mut client = Client::connect(served.address).unwrap();
    let declare = |name: &str, more: &str, rows: u64| {
        format!("DECLARE {name} CURSOR {more} FOR SELECT value FROM generate_series(1, {rows}) ORDER BY value")
    };
    client.check(&declare("parts", "", 5), "error 25P01");
    client.check("BEGIN", "");
    client.check(&declare("parts", "", 5), "");
    client.check("FETCH 2 FROM parts", "1\n2");
    client.check("FETCH NEXT FROM PARTS", "3");
    client.check("FETCH FORWARD 1 IN parts; SELECT 7; FETCH ALL FROM parts", "4\n7\n5");
    client.check("FETCH 10 FROM parts", "");
    client.check("CLOSE parts", "");
    client.check("FETCH 1 FROM parts", "error 34000");
    client.check("ROLLBACK", "");
    // Over several batches, which fetches cut anywhere.
    client.check("BEGIN", "");
    client.check(&declare("\"Long\"", "", 9_999), "");
    let mut fetched = Vec::new();
    loop {
        let said = client.query("FETCH 700 FROM \"Long\"").unwrap();
        assert_eq!(said.error, None);
        assert!(said.rows.len() <= 700);
        if said.rows.is_empty() {
            break;
        }
        fetched.extend(said.rows.into_iter().map(|row| row[0].clone().unwrap()));
    }
    assert_eq!(fetched, (1..=9_999).map(|n| n.to_string()).collect::<Vec<_>>());
    client.check("COMMIT", "");
    for (sql, code) in [
        ("DECLARE a SCROLL CURSOR FOR SELECT 1", "42601"),
        ("DECLARE a CURSOR WITH HOLD FOR SELECT * FROM evnts", "42P01"),
        ("FETCH BACKWARD 1 FROM \"Long\"", "42601"),
        ("FETCH 1 FROM \"Long\"", "34000"),
        ("CLOSE \"Long\"", "34000"),
    ] {
        assert_eq!(client.query(sql).unwrap().error.as_deref(), Some(code), "{sql}");
    }
}

#[test]
fn cursors_end_with_their_transaction_and_are_few() {
    let served = serve(|settings| settings.queries_max = 3);
    let mut client = Client::connect(served.address).unwrap();
    let declare =
        |name: &str, more: &str| format!("DECLARE {name} CURSOR {more} FOR SELECT line FROM events ORDER BY line");
    client.check("BEGIN", "");
    client.check(&declare("held", "WITH HOLD"), "");
    client.check(&declare("brief", ""), "");
    client.check(&declare("third", ""), "error 53400");
    client.check("FETCH 1 FROM held", "error 25P02");
    client.check("COMMIT", "");
    client.check("FETCH 1 FROM held", "error 34000");
    // A cursor that is held outlives what is committed, another one does not; the past it was declared in is its own.
    client.check("BEGIN; SET as_of = 1", "");
    client.check(&declare("held", "WITH HOLD").replace("line FROM", "count(*) FROM").replace(" ORDER BY line", ""), "");
    client.check(&declare("brief", ""), "");
    client.check(&declare("held", ""), "error 42P03");
    client.check("ROLLBACK", "");
    client.check(&declare("held", "WITH HOLD").replace("line FROM", "count(*) FROM").replace(" ORDER BY line", ""), "");
    client.check("BEGIN", "");
    client.check(&declare("brief", ""), "");
    client.check("COMMIT; SET as_of = now", "");
    client.check("FETCH ALL FROM brief", "error 34000");
    client.check("FETCH ALL FROM held", "4");
    client.check("CLOSE ALL", "");
    // Places are given back: more than there are, one after the other, by connections that leave theirs open.
    for _ in 0..6 {
        let mut other = Client::connect(served.address).unwrap();
        other.check("BEGIN", "");
        other.check(&declare("left", ""), "");
    }
    client.check("SELECT count(*) FROM events", "7");
}

/// The extended protocol by hand: parse, bind, describe and execute with as many rows as a 32 bit number says.
#[test]
fn a_client_that_wants_two_thousand_million_rows_gets_what_there_is() {
    let served = serve(|_| ());
    let mut client = Client::connect(served.address).unwrap();
    for (sql, rows) in [("SELECT value FROM generate_series(1, 9000)", 9_000), ("SHOW timezone", 1)] {
        for most in [i32::MAX, -1, 0] {
            let execute = [b"\0".as_slice(), &most.to_be_bytes()].concat();
            for message in [
                Client::message(b'P', format!("\0{sql}\0\0\0").as_bytes()),
                Client::message(b'B', b"\0\0\0\0\0\0\0\0"),
                Client::message(b'E', &execute),
                Client::message(b'S', b""),
            ] {
                client.0.write_all(&message).unwrap();
            }
            let said = client.until_ready().unwrap();
            assert_eq!((said.error, said.rows.len()), (None, rows), "{sql} {most}");
        }
    }
}

#[test]
fn only_users_come_in() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "alice:secret\n").unwrap();
    let served = serve(|settings| {
        settings.trust_loopback = false;
        settings.users_file = Some(users.clone());
    });
    // This client has no password to say: it is asked for one, and is not let in.
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let startup = [b"\0\0\0\x25\0\x03\0\0".as_slice(), b"user\0alice\0database\0public\0\0"].concat();
    let startup = [u32::try_from(startup.len()).unwrap().to_be_bytes().as_slice(), &startup[4..]].concat();
    stream.write_all(&startup).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!((head[0], u32::from_be_bytes(head[5..9].try_into().unwrap())), (b'R', 10), "SASL is asked for");
    // A query instead of a password is not answered.
    stream.write_all(&Client::message(b'Q', b"SELECT 1\0")).unwrap();
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    drop(stream.read_to_end(&mut rest));
    assert!(!rest.windows(6).any(|part| part == b"SELECT"), "{rest:?}");
}

#[test]
fn connections_are_counted() {
    let served = serve(|settings| settings.connections_max = 2);
    let (first, _second) = (Client::connect(served.address).unwrap(), Client::connect(served.address).unwrap());
    let mut third = TcpStream::connect(served.address).unwrap();
    let mut said = Vec::new();
    third.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    third.read_to_end(&mut said).unwrap();
    assert!(said.windows(5).any(|part| part == b"53300"), "{said:?}");
    drop(first);
    for _ in 0..200 {
        if Client::connect(served.address).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("a place that became free is not given again");
}

/// Panics that threads of the server had.
static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn bytes_that_are_no_protocol_harm_nobody() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        before(panic);
    }));
    let served = serve(|settings| settings.connections_max = 512);
    let mut good = Client::connect(served.address).unwrap();
    // Connections that begin and say nothing more, or hardly.
    let half_open: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(served.address).unwrap()).collect();
    for (at, mut stream) in half_open.iter().enumerate() {
        drop(stream.write_all(&b"\0\0\0\x20\0\x03\0\0user"[..at % 12]));
    }
    let mut dice = 42_u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let session: Vec<Vec<u8>> = vec![
        Client::message(b'Q', b"SELECT count(*) FROM events\0"),
        Client::message(b'P', b"s1\0SELECT line FROM events WHERE line = $1 AND user = $2\0\0\0"),
        Client::message(b'B', b"p1\0s1\0\0\x01\0\0\0\x02\0\0\0\x011\0\0\0\x04root\0\0"),
        Client::message(b'B', b"\0s1\0\0\x03\0\0\0\x01\0\x01\0\x02\0\0\0\x011\0\0\0\x04root\0\x02\0\x01\0\x01"),
        Client::message(b'D', b"Ss1\0"),
        Client::message(b'D', b"Pp1\0"),
        Client::message(b'E', b"p1\0\0\0\0\x01"),
        Client::message(b'C', b"Ss1\0"),
        Client::message(b'S', b""),
        Client::message(b'd', b"copy"),
        Client::message(b'p', b"password\0"),
    ];
    for round in 0..300 {
        let stream = Client::connect(served.address);
        let Ok(Client(mut stream)) = stream else { panic!("round {round}: not let in any more") };
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        for _ in 0..4 {
            let mut bytes = session[roll(session.len() as u64) as usize].clone();
            match roll(4) {
                0 => {
                    for _ in 0..=roll(4) {
                        let at = roll(bytes.len() as u64) as usize;
                        bytes[at] = roll(256) as u8;
                    }
                }
                1 => bytes.truncate(roll(bytes.len() as u64) as usize),
                2 => bytes = (0..roll(200)).map(|_| roll(256) as u8).collect(),
                _ => {}
            }
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
        drop(stream.read(&mut [0; 4096]));
        if round % 100 == 0 {
            good.check("SELECT count(*) FROM events", "7");
        }
    }
    // A message that claims a gigabyte is not waited for with memory.
    let Client(mut greedy) = Client::connect(served.address).unwrap();
    greedy.write_all(b"Q\x3f\xff\xff\xf0").unwrap();
    let megabyte = vec![b' '; 1 << 20];
    let sent = (0..64).take_while(|_| greedy.write_all(&megabyte).is_ok()).count();
    assert!(sent < 64, "all of it was taken");
    good.check("SELECT count(*) FROM events", "7");
    drop(half_open);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    drop(served.runtime);
}
