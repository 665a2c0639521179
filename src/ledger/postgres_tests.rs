//! The ledger in PostgreSQL: all of the tests once more, and what only a server can do to us.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use cf_types::{EpochOutput, FactBody};
use tempfile::TempDir;

use super::{Alert, ControlLog, Ledger, LedgerError, Reader, World, alert, came, record, wall};
use crate::{
    Location,
    database::{self, Connection, Session},
    postgres_server::Server,
    read::AlertFilter,
    schema, server,
};

/// Where the tests find the server that the test below has started: then all ledgers are there.
const ADDRESS: &str = "COUNTERFLOW_TEST_POSTGRES";

/// Whether ledgers are in PostgreSQL.
pub(super) fn in_postgres() -> bool {
    std::env::var_os(ADDRESS).is_some()
}

/// A new data folder; its ledger, if in PostgreSQL, in a schema of its own.
pub(super) async fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    if let Ok(url) = std::env::var(ADDRESS) {
        place(&url).await.bind(dir.path()).unwrap();
    }
    dir
}

/// A new schema.
async fn place(url: &str) -> Location {
    static SCHEMAS: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}_{}", std::process::id(), SCHEMAS.fetch_add(1, Ordering::Relaxed));
    let all = Location::new(url, None);
    let mut connection = Connection::postgres(Session::connect(all.options().unwrap()).await.unwrap());
    connection.run(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"))).await.unwrap();
    Location::new(&format!("{url}&options[search_path]={name}"), None)
}

/// A connection to a folder's ledger, beside all others.
pub(super) async fn connection(dir: &Path) -> Connection<'static> {
    match Location::of(dir).unwrap() {
        Some(location) => server::beside(&location).await.unwrap(),
        None => schema::connect(dir, false).await.unwrap(),
    }
}

/// Every test of this package that opens a ledger, with the ledger in PostgreSQL: the same answers to the same questions.
#[test]
fn all_of_it_in_postgres_too() {
    if in_postgres() {
        return;
    }
    let Some(server) = Server::start(false) else { return };
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["tests::", "--skip", "all_of_it_in_postgres_too", "--test-threads", "4"])
        .env(ADDRESS, server.url())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    let passed = said.matches(" ... ok").count();
    assert!(passed > 40, "only {passed} tests ran:\n{said}");
    eprintln!("{passed} tests of the ledger passed in PostgreSQL");
}

/// A ledger of its own in a server that may be killed.
struct Site {
    server: Server,
    dir: TempDir,
    location: Location,
}

async fn site() -> Option<Site> {
    // Once is enough, and these start their own servers.
    if in_postgres() {
        return None;
    }
    let server = Server::start(true)?;
    let location = place(&server.url()).await;
    let dir = tempfile::tempdir().unwrap();
    location.bind(dir.path()).unwrap();
    Some(Site { server, dir, location })
}

fn epoch(number: u64, alerts: &[Alert]) -> EpochOutput {
    EpochOutput { epoch: number, rows: alerts.iter().map(came).collect(), ..EpochOutput::default() }
}

#[tokio::test]
async fn a_second_engine_is_refused_and_a_taken_ledger_is_not_written() {
    let Some(Site { server, dir, location }) = site().await else { return };
    let first = Ledger::open(dir.path()).await.unwrap();
    let generation = first.begin_generation(wall(0)).await.unwrap();
    let routes = crate::Routes::default();
    first.apply(&record(1, generation), &epoch(1, &[alert("a", 1)]), &routes, &|_| None).await.unwrap();

    // Another folder that says it belongs to the same ledger: a copy, on another machine.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("ledger.location"), copy.path().join("ledger.location")).unwrap();
    let refused = Ledger::open(copy.path()).await.unwrap_err().to_string();
    assert!(refused.contains("is held by another engine (counterflow "), "{refused}");

    // The first one's connection is ended by name, and before it says anything again the second one has the ledger.
    let mut by_hand = connection(dir.path()).await;
    by_hand
        .run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
        .await
        .unwrap();
    let second = Ledger::open(copy.path()).await.unwrap();
    assert_eq!(second.begin_generation(wall(1)).await.unwrap(), generation + 1);
    let taken = first.apply(&record(2, generation), &epoch(2, &[]), &routes, &|_| None).await.unwrap_err();
    assert!(taken.is_fenced() && taken.to_string().contains("another engine has taken the ledger"), "{taken}");
    let taken = first.control_append("kind", "{}", "me", "", wall(1)).await.unwrap_err();
    assert!(taken.is_fenced(), "{taken}");
    second.apply(&record(2, generation + 1), &epoch(2, &[alert("b", 2)]), &routes, &|_| None).await.unwrap();
    assert_eq!(second.audit_verify().await.unwrap(), None);

    // A folder that has nothing of these epochs does not get the ledger by its address alone.
    drop((first, second));
    let stranger = tempfile::tempdir().unwrap();
    location.bind(stranger.path()).unwrap();
    let refused = Ledger::open(stranger.path()).await.unwrap_err().to_string();
    assert!(refused.contains("has 2 epochs, of another data folder"), "{refused}");
    drop(server);
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_gone_on_with() {
    let Some(Site { server, dir, .. }) = site().await else { return };
    let ledger = Ledger::open(dir.path()).await.unwrap();
    let generation = ledger.begin_generation(wall(0)).await.unwrap();
    let routes = crate::Routes::default();
    for number in 1..=6u64 {
        if number.is_multiple_of(2) {
            server.kill();
            server.begin();
        }
        let alerts = [alert(&format!("u{number}"), i64::try_from(number).unwrap())];
        ledger.apply(&record(number, generation), &epoch(number, &alerts), &routes, &|_| None).await.unwrap();
        assert_eq!(ledger.engine().await.unwrap().upper, number + 1);
    }
    // Between two statements that only read, too; and for readers.
    let reader = ledger.reader().await.unwrap();
    server.kill();
    server.begin();
    assert_eq!(ledger.engine().await.unwrap().upper, 7);
    assert_eq!(reader.alerts(&AlertFilter::default()).await.unwrap().len(), 6);
    assert_eq!(ledger.audit_verify().await.unwrap(), None);
    let shown = reader.epochs(10).await.unwrap();
    assert_eq!(shown.iter().map(|(record, _)| record.epoch).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
}

/// The answer to a commit is lost, once after it was done and once before: the ledger says which.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let Some(Site { server, dir, .. }) = site().await else { return };
    let ledger = Ledger::open(dir.path()).await.unwrap();
    ledger.begin_generation(wall(0)).await.unwrap();
    for was_done in [true, false] {
        let mut writer = ledger.writer().await;
        let mut transaction = writer.begin().await.unwrap();
        let insert = "INSERT INTO meta VALUES ('test', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        database::query(insert).bind(was_done.to_string()).execute(&mut *transaction).await.unwrap();
        if was_done {
            // As the server does it before it answers; that it is no transaction any more, the client is not told.
            transaction.run("COMMIT").await.unwrap();
        }
        server.kill();
        server.begin();
        assert_eq!(transaction.commit().await.is_ok(), was_done);
        let found: String =
            database::query_scalar("SELECT value FROM meta WHERE key = 'test'").fetch_one(&mut *writer).await.unwrap();
        assert_eq!(found, "true");
    }
}

/// What an attacker writes into an event may hold U+0000, which PostgreSQL cannot store in a text.
#[tokio::test]
async fn a_nul_in_an_alert_stops_nothing() {
    let mut world = World::new().await;
    let hostile = Alert { title: "a\0b".into(), ..alert("u\0\\u0000", 1) };
    world.epoch(vec![came(&hostile)], vec![]).await;
    let counted = world.ledger.reader().await.unwrap().counts().await.unwrap();
    assert_eq!(counted.alerts, [("open".to_owned(), 1)]);
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    log.append("kind", "{\"hunt\":\"\\u0000\"}", "m\0e", "wh\0y", wall(1)).await.unwrap();
    assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
    let views = world.ledger.reader().await.unwrap().alerts(&AlertFilter::default()).await.unwrap();
    assert_eq!(views[0].content["title"], "a\0b", "the content is kept as it is");
    world.epoch(vec![(cf_types::Row::Alert(hostile), -1)], vec![]).await;
}

#[tokio::test]
async fn what_is_no_address_of_a_ledger_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let why = |url: &str| Location::new(url, None).bind(dir.path()).unwrap_err().to_string();
    assert!(why("mysql://x/y").contains("it begins with postgres://"));
    assert!(why("postgres://me:secret@localhost/db").contains("has a password in it"));
    assert!(why("postgres://me@localhost/db?password=secret").contains("has a password in it"));
    assert!(why("postgres://me@db.example/db?sslrootcert=ca.pem").contains("must be an absolute path"));
    assert!(!dir.path().join("ledger.location").exists());
    Location::new("postgres://me@db.example/db?sslmode=disable", None).bind(dir.path()).unwrap();
    Location::new("postgres://me@127.0.0.1:5433/db", None).bind(dir.path()).unwrap();

    // A folder with a ledger of its own keeps it; one that does not say where is refused, not begun anew.
    let own = tempfile::tempdir().unwrap();
    drop(Ledger::open(own.path()).await.unwrap());
    let refused = Location::new("postgres://me@localhost/db", None).bind(own.path()).unwrap_err().to_string();
    assert!(refused.contains("has a ledger of its own"), "{refused}");
    std::fs::write(dir.path().join("ledger.location"), "nonsense").unwrap();
    for refused in [
        Ledger::open(dir.path()).await.unwrap_err(),
        Reader::open(dir.path()).await.unwrap_err(),
        ControlLog::open(dir.path()).await.unwrap_err(),
    ] {
        assert!(matches!(refused, LedgerError::Location { .. }), "{refused}");
    }
}

/// Facts go in beside the engine, from several connections at once, and none twice.
#[tokio::test]
async fn writers_beside_the_engine_wait_for_each_other() {
    let world = World::new().await;
    let dir = world.dir.path().to_path_buf();
    let fact = super::allow("10.9.9.9/32");
    assert!(matches!(fact.body, FactBody::Allow { .. }));
    let add = async |_: u32| {
        let mut log = ControlLog::open(&dir).await.unwrap();
        log.fact_add(&fact, "me", "why", wall(1)).await.unwrap()
    };
    let (a, b, c, d) = tokio::join!(add(1), add(2), add(3), add(4));
    assert_eq!([a, b, c, d].into_iter().flatten().count(), 1);
    assert_eq!(world.ledger.control_since(0).await.unwrap().len(), 1);
}
