//! `run` with its ledger in PostgreSQL: the same alerts as with SQLite, through kills of either; one engine per ledger.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    kill::{batch, check},
    postgres_server::Server,
    support::{Engine, counterflow, lines, post, run, said, wait_until},
};

const SEED: u64 = 7;

struct Site {
    server: Server,
    folder: tempfile::TempDir,
    data: PathBuf,
    told: PathBuf,
}

impl Site {
    fn new() -> Option<Site> {
        let server = Server::start(true)?;
        let folder = tempfile::tempdir().unwrap();
        let (data, told) = (folder.path().join("data"), folder.path().join("told.jsonl"));
        std::fs::write(folder.path().join("settings.yml"), format!("ledger:\n  url: {}\n", server.url())).unwrap();
        Some(Site { server, folder, data, told })
    }

    /// Starts `run` on a data folder of this ledger.
    fn begin(&self, data: &Path) -> Engine {
        let mut command = counterflow();
        command.arg("--config").arg(self.folder.path().join("settings.yml"));
        Engine::begin(command, data, "rules/plan", &["--block-for", "1h", "--alerts-file", self.told.to_str().unwrap()])
    }

    fn start(&self) -> Engine {
        let mut engine = self.begin(&self.data);
        engine.wait_ready();
        engine
    }

    fn at(&self) -> &str {
        self.data.to_str().unwrap()
    }

    /// How many epochs are committed.
    fn epochs(&self) -> usize {
        let found = run(&["sql", "--data", self.at(), "--format", "json", "select max(epoch) as n from epochs"], b"");
        lines(&found).first().and_then(|row| row["n"].as_u64()).and_then(|n| n.try_into().ok()).unwrap_or(0)
    }
}

#[track_caller]
fn send(engine: &Engine, batches: std::ops::Range<u64>) {
    for number in batches {
        let body = batch(number, SEED);
        let (status, answer) = post(engine.http, "/api/v1/events", "application/x-ndjson", body.as_bytes()).unwrap();
        assert_eq!(status, 202, "{answer}");
    }
}

#[test]
fn the_engine_and_the_server_are_killed_and_nothing_changes() {
    let Some(site) = Site::new() else { return };
    let engine = site.start();
    assert!(!site.data.join("ledger.db").exists() && site.data.join("ledger.location").exists());
    send(&engine, 0..20);
    engine.kill();
    let engine = site.start();
    send(&engine, 20..40);
    // The server is killed under load: what is accepted meanwhile waits in the spool.
    site.server.kill();
    send(&engine, 40..50);
    site.server.begin();
    send(&engine, 50..60);
    wait_until("epochs go on", || {
        let before = site.epochs();
        before > 0 && engine.log().contains("the connection to the ledger is there again")
    });
    engine.kill();
    // And while nobody has it.
    site.server.kill();
    site.server.begin();
    let engine = site.start();
    send(&engine, 60..70);
    engine.stop();
    check(&site.data, &site.told, 70, SEED, "with the ledger in PostgreSQL");

    // What opens a ledger finds it by the folder alone; what cannot says so.
    let at = site.at();
    for command in [
        vec!["incidents", "--data", at],
        vec!["actions", "--data", at],
        vec!["audit", "verify", "--data", at],
        vec!["facts", "list", "--data", at],
        vec!["facts", "add", "--data", at, "--reason", "ours", "allow", "10.1.1.1"],
        vec!["sql", "--data", at, "select count(*) from alerts_now"],
    ] {
        let output = run(&command, b"");
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", said(&output));
    }
    let alerts = lines(&run(&["alerts", "--data", at], b""));
    let id = alerts.iter().find_map(|alert| alert["alert_id"].as_str()).unwrap();
    let explained = run(&["explain", "alert", id, "--data", at], b"");
    assert_eq!(explained.status.code(), Some(0), "{}", said(&explained));
    let copy = site.folder.path().join("copy");
    let backup = run(&["backup", "--data", at, copy.to_str().unwrap()], b"");
    assert_eq!(backup.status.code(), Some(2), "{}", said(&backup));
    assert!(said(&backup).contains("pg_dump"), "{}", said(&backup));
}

#[test]
fn one_engine_has_the_ledger_and_who_lost_it_ends() {
    let Some(site) = Site::new() else { return };
    let mut first = site.start();
    send(&first, 0..10);
    wait_until("there is an alert", || !lines(&run(&["alerts", "--data", site.at()], b"")).is_empty());

    // A second one, as on another machine after a failover by hand: a copy of the folder, the same ledger.
    first.signal("STOP");
    let other = site.folder.path().join("other");
    let copied = Command::new("cp").args(["-r", site.at(), other.to_str().unwrap()]).status().unwrap();
    assert!(copied.success());
    let mut second = site.begin(&other);
    assert!(!second.is_ready_or_dead(), "{}", second.log());
    assert_eq!(second.ended().unwrap().code(), Some(2));
    assert!(second.log().contains("is held by another engine"), "{}", second.log());

    // The server lets go of all connections; then the second one gets the ledger, and the first one finds it taken.
    site.server.kill();
    site.server.begin();
    let mut second = site.begin(&other);
    second.wait_ready();
    first.signal("CONT");
    wait_until("the first one has ended", || first.ended().is_some());
    assert_eq!(first.ended().unwrap().code(), Some(4), "{}", first.log());
    assert!(first.log().contains("another engine has taken the ledger"), "{}", first.log());
    send(&second, 10..20);
    second.stop();
    let audit = run(&["audit", "verify", "--data", other.to_str().unwrap()], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
    let alerts: Vec<Value> = lines(&run(&["alerts", "--data", other.to_str().unwrap()], b""));
    assert!(!alerts.is_empty());
}

/// SEC-06, SEC-12: over TCP only who has the password comes in, what is said is encrypted, and the server must be who it says.
#[test]
fn over_the_network_the_server_proves_its_name_and_we_our_password() {
    let Some(site) = Site::new() else { return };
    let Some((port, tls)) = site.server.listen_with_tls("s3cret phrase") else { return };
    let at = |name: &str| site.folder.path().join(name);
    std::fs::write(at("password"), "s3cret phrase\n").unwrap();
    std::fs::write(at("wrong"), "guessed\n").unwrap();
    let other = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other", "-keyout"])
        .arg(at("other.key"))
        .arg("-out")
        .arg(at("other.pem"))
        .output()
        .unwrap();
    assert!(other.status.success(), "{}", said(&other));
    let say = |host: &str, authority: &Path, password: &str| {
        let url = format!(
            "postgres://postgres@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={}",
            authority.display()
        );
        let text = format!("ledger:\n  url: {url}\n  password_file: {}\n", at(password).display());
        std::fs::write(at("settings.yml"), text).unwrap();
    };
    let ours = tls.join("ca.pem");
    for (host, authority, password, why) in [
        ("localhost", at("other.pem"), "password", "UnknownIssuer"),
        ("127.0.0.1", ours.clone(), "password", "not valid for name"),
        ("localhost", ours.clone(), "wrong", "password authentication failed"),
    ] {
        say(host, &authority, password);
        let mut refused = site.begin(&at("refused"));
        assert!(!refused.is_ready_or_dead(), "{}", refused.log());
        assert_eq!(refused.ended().unwrap().code(), Some(2), "{}", refused.log());
        assert!(refused.log().contains(why), "{why}: {}", refused.log());
    }

    say("localhost", &ours, "password");
    let engine = site.start();
    send(&engine, 0..10);
    let ssl = "SELECT DISTINCT s.ssl, s.version FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
               WHERE a.application_name LIKE 'counterflow%'";
    assert_eq!(site.server.ask(port, ssl), "t|TLSv1.3\n");
    // Gone and there again, when the engine has come up (one that cannot open its ledger ends with 2): the new connection is
    // as guarded as the old one.
    let alerts = || lines(&run(&["alerts", "--data", site.at()], b"")).len();
    wait_until("there is an alert", || alerts() > 0);
    site.server.kill();
    site.server.begin();
    send(&engine, 10..20);
    wait_until("it is connected again", || engine.log().contains("the connection to the ledger is there again"));
    assert_eq!(site.server.ask(port, ssl), "t|TLSv1.3\n");
    engine.stop();
    // Commands find address, authority and password by the folder.
    assert!(alerts() > 0);
}
