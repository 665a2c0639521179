//! `run` in several processes (ARC-07): the alerts of one, through kills of any of them and with another number of them after
//! each; what does not belong together does not come together; who is silent for too long is gone.

use std::{
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
};

use serde_json::{Value, json};

use crate::{
    broker::Broker,
    kill::{PER_BATCH, batch, check},
    postgres_server::Server,
    support::{Engine, counterflow, free_address, get, lines, post, request, run, said, wait_until},
};

const SEED: u64 = 11;
const SECRET: &str = "a secret of more than sixteen bytes\n";

/// A data folder, its secret, and where its alerts are told.
struct Site {
    folder: tempfile::TempDir,
    data: PathBuf,
    told: PathBuf,
    /// Settings of the leader.
    config: Option<String>,
}

/// A process other than the leader.
struct Follower {
    child: Child,
    log: PathBuf,
}

/// The processes of one start.
struct Cluster {
    leader: Engine,
    followers: Vec<Follower>,
}

impl Follower {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it ends.
    #[track_caller]
    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the follower ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn signal(pid: u32, name: &str) {
    let done = std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(done.success());
}

impl Site {
    fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        let (data, told) = (folder.path().join("data"), folder.path().join("told.jsonl"));
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        Site { folder, data, told, config: None }
    }

    /// Waits until as many are told as there are alerts: messages go out beside the epochs.
    #[track_caller]
    fn wait_told(&self) {
        wait_until("all alerts are told", || {
            let told = std::fs::read_to_string(&self.told).unwrap_or_default().lines().count();
            let alerts = lines(&run(&["alerts", "--data", self.at()], b"")).len();
            alerts > 10 && told >= alerts
        });
    }

    fn at(&self) -> &str {
        self.data.to_str().unwrap()
    }

    /// A list of so many processes on this machine.
    fn list(&self, processes: usize) -> PathBuf {
        let addresses: Vec<String> = (0..processes).map(|_| free_address().to_string()).collect();
        let list = self.folder.path().join("processes");
        std::fs::write(&list, addresses.join("\n")).unwrap();
        list
    }

    fn follow(&self, list: &Path, process: usize, secret: &str, more: &[&str]) -> Follower {
        let log = self.folder.path().join(format!("follower-{process}.log"));
        let (list, secret) = (list.to_str().unwrap(), self.folder.path().join(secret));
        let child = counterflow()
            .env("COUNTERFLOW_LOG", "info")
            .args(["run", "--processes", list, "--process", &process.to_string()])
            .args(["--cluster-secret", secret.to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Follower { child, log }
    }

    fn lead(&self, list: &Path, more: &[&str]) -> Engine {
        let (secret, told) = (self.folder.path().join("secret"), self.told.to_str().unwrap());
        let (list, secret) = (list.to_str().unwrap(), secret.to_str().unwrap());
        let mut arguments = vec!["--processes", list, "--cluster-secret", secret];
        arguments.extend(["--block-for", "1h", "--alerts-file", told]);
        arguments.extend(more);
        let mut command = counterflow();
        command.args(self.config.iter().flat_map(|config| ["--config", config]));
        Engine::begin(command, &self.data, "rules/plan", &arguments)
    }

    /// Starts so many processes, the followers first, and waits until they are ready.
    fn start(&self, processes: usize, more: &[&str]) -> Cluster {
        let list = self.list(processes);
        let followers = (1..processes).map(|process| self.follow(&list, process, "secret", more)).collect();
        let mut leader = self.lead(&list, more);
        leader.wait_ready();
        Cluster { leader, followers }
    }
}

impl Cluster {
    /// Waits until the leader ends because another process failed, and gives what it said.
    #[track_caller]
    fn end(&mut self) -> String {
        let mut status = None;
        wait_until("the leader ends", || {
            status = self.leader.ended();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(3), "{}", self.leader.log());
        self.leader.log()
    }
}

#[track_caller]
fn send(engine: &Engine, batches: std::ops::Range<u64>) {
    for number in batches {
        // A line that nobody can read goes along with each.
        let body = batch(number, SEED) + "{\"event_id\": \n";
        let (status, answer) = post(engine.http, "/api/v1/events", "application/x-ndjson", body.as_bytes()).unwrap();
        assert_eq!(status, 202, "{answer}");
    }
}

fn metric(engine: &Engine, name: &str) -> u64 {
    let (_, page) = get(engine.http, "/metrics").unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    line.parse().unwrap()
}

fn count(site: &Site, query: &str) -> u64 {
    let found = run(&["sql", "--data", site.at(), "--format", "json", query], b"");
    lines(&found)[0]["n"].as_u64().unwrap_or_else(|| panic!("{}", said(&found)))
}

/// Facts of every kind that change no alert of [`batch`]: the graph sends them between processes.
fn say_facts(site: &Site) {
    for words in [
        &["asset", "host:db01", "criticality=5"][..],
        &["asset", "address:10.0.1.2", "criticality=4", "exposure=internal", "owner=ops", "tags=pci"],
        &["identity", "alice", "privileged=true"],
        &["edge", "user:alice->host:db01", "access=admin"],
        &["indicator", "evil.example", "confidence=90", "source=feed"],
        &["silence", "night", "rules=nobody", "from=2026-01-05T13:00:00Z", "until=2026-01-05T15:00:00Z"],
        &["allow", "10.99.0.0/16"],
    ] {
        let output = run(&[&["facts", "add", "--data", site.at(), "--reason", "a test"], words].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
    }
}

#[test]
fn kills_of_any_process_and_any_number_of_them_change_nothing() {
    let site = Site::new();
    // Two; the follower is killed.
    let mut cluster = site.start(2, &["--workers", "2"]);
    say_facts(&site);
    send(&cluster.leader, 0..20);
    cluster.followers[0].child.kill().unwrap();
    let log = cluster.end();
    assert!(log.contains("process 1 of the cluster is gone"), "{log}");
    // Three; the leader is killed.
    let mut cluster = site.start(3, &[]);
    send(&cluster.leader, 20..40);
    cluster.leader.kill();
    for follower in &mut cluster.followers {
        assert_eq!(follower.end().code(), Some(3), "{}", follower.log());
    }
    // One, which never heard of others; then two again, of which the follower is asked to stop.
    let mut engine = site.lead(&site.list(1), &[]);
    engine.wait_ready();
    send(&engine, 40..50);
    engine.kill();
    let mut cluster = site.start(2, &[]);
    send(&cluster.leader, 50..70);
    // What followers decoded is counted.
    let all = 70 * PER_BATCH;
    wait_until("all is decoded", || metric(&cluster.leader, "counterflow_events_total") >= 20 * PER_BATCH);
    site.wait_told();
    cluster.followers[0].signal("TERM");
    let follower = &mut cluster.followers[0];
    assert_eq!(follower.end().code(), Some(0), "{}", follower.log());
    wait_until("the leader ends", || cluster.leader.ended().is_some_and(|status| status.code() == Some(0)));
    check(&site.data, &site.told, 70, SEED, "a cluster");
    assert_eq!(count(&site, "select count(*) as n from events"), all);
    assert_eq!(count(&site, "select count(*) as n from rejects where code = 'invalid_json'"), 70);
}

#[test]
fn rules_and_settings_that_change_hold_in_all_processes_from_one_epoch_on() {
    let site = Site::new();
    let cluster = site.start(3, &[]);
    let rule = "rule:\n  id: everywhere\n  name: everywhere\n  severity: high\n  conditions:\n    \
                - {field: event_type, operator: equals, value: seen_everywhere}\n";
    let (status, answer) = request(
        cluster.leader.http,
        "POST",
        "/api/v1/rules",
        &[("content-type", "application/json")],
        json!({"text": rule, "reason": "a test"}).to_string().as_bytes(),
    )
    .unwrap();
    assert_eq!(status, 201, "{answer}");
    // One request, so that one epoch has events of all shares.
    let line = |i: u32| {
        let event = json!({
            "event_id": format!("x{i}"), "timestamp": "2026-01-05T14:00:00Z", "source": "app",
            "event_type": "seen_everywhere", "source_ip": format!("10.1.{}.{}", i / 250, i % 250),
        });
        format!("{event}\n")
    };
    let body: String = (0..300).map(line).collect();
    let (status, answer) =
        post(cluster.leader.http, "/api/v1/events", "application/x-ndjson", body.as_bytes()).unwrap();
    assert_eq!(status, 202, "{answer}");
    let found = || {
        let alerts = lines(&run(&["alerts", "--data", site.at()], b""));
        let of = |alert: &&Value| alert["rule_id"] == "everywhere";
        alerts.iter().filter(of).map(|alert| alert["count"].as_u64().unwrap()).sum::<u64>()
    };
    wait_until("the rule met all of them", || found() == 300);
    cluster.leader.stop();
    for mut follower in cluster.followers {
        assert_eq!(follower.end().code(), Some(0), "{}", follower.log());
    }
}

#[test]
fn a_process_that_is_frozen_ends_all_and_does_nothing_when_it_wakes() {
    let site = Site::new();
    let patience = ["--frozen-after", "2s"];
    let mut cluster = site.start(2, &patience);
    send(&cluster.leader, 0..3);
    cluster.followers[0].signal("STOP");
    let log = cluster.end();
    assert!(log.contains("process 1 of the cluster has said nothing for 2 s"), "{log}");
    cluster.followers[0].signal("CONT");
    assert_eq!(cluster.followers[0].end().code(), Some(3));
    // The leader: its follower goes, and so does it when it wakes.
    let mut cluster = site.start(2, &patience);
    send(&cluster.leader, 3..6);
    cluster.leader.signal("STOP");
    let follower = &mut cluster.followers[0];
    assert_eq!(follower.end().code(), Some(3));
    assert!(follower.log().contains("process 0 of the cluster has said nothing for 2 s"), "{}", follower.log());
    cluster.leader.signal("CONT");
    cluster.end();
    let cluster = site.start(2, &patience);
    site.wait_told();
    cluster.leader.stop();
    check(&site.data, &site.told, 6, SEED, "after frozen processes");
}

#[test]
fn what_does_not_belong_together_does_not_come_together() {
    let site = Site::new();
    std::fs::write(site.folder.path().join("other"), "another secret of sixteen bytes\n").unwrap();
    let settings = site.folder.path().join("settings.yml");
    std::fs::write(&settings, "detection:\n  horizon_s: 3600\n").unwrap();
    let mut command = counterflow();
    command.arg("--config").arg(&settings);
    // Another horizon: each names it.
    let list = site.list(2);
    let mut follower = site.follow(&list, 1, "secret", &[]);
    let (secret, list) = (site.folder.path().join("secret"), list.to_str().unwrap().to_owned());
    let arguments = ["--processes", &list, "--cluster-secret", secret.to_str().unwrap()];
    let mut leader = Engine::begin(command, &site.data, "rules/plan", &arguments);
    assert_eq!(follower.end().code(), Some(2), "{}", follower.log());
    wait_until("the leader ends", || leader.ended().is_some_and(|status| status.code() == Some(2)));
    assert!(follower.log().contains("setting detection.horizon_s: 86400 here, 3600 there"), "{}", follower.log());
    assert!(leader.log().contains("setting detection.horizon_s: 3600 here, 86400 there"), "{}", leader.log());
    drop(leader);
    // A stranger is refused, and the right one is still awaited.
    let list = site.list(2);
    let mut leader = site.lead(&list, &[]);
    let mut stranger = site.follow(&list, 1, "other", &[]);
    assert_eq!(stranger.end().code(), Some(2), "{}", stranger.log());
    assert!(stranger.log().contains("did not prove the shared secret"), "{}", stranger.log());
    let _follower = site.follow(&list, 1, "secret", &[]);
    leader.wait_ready();
    send(&leader, 0..2);
    leader.stop();
    // Who is not listed is told so.
    let mut nobody = site.follow(&list, 2, "secret", &[]);
    assert_eq!(nobody.end().code(), Some(2));
    assert!(nobody.log().contains("there is no process 2"), "{}", nobody.log());
}

#[test]
fn a_leader_with_its_ledger_in_postgresql_is_killed_and_nothing_changes() {
    let Some(server) = Server::start(true) else { return };
    let mut site = Site::new();
    let config = site.folder.path().join("ledger.yml");
    std::fs::write(&config, format!("ledger:\n  url: {}\n", server.url())).unwrap();
    site.config = Some(config.to_str().unwrap().to_owned());
    let mut cluster = site.start(2, &[]);
    send(&cluster.leader, 0..10);
    cluster.leader.kill();
    assert_eq!(cluster.followers[0].end().code(), Some(3));
    let cluster = site.start(3, &[]);
    send(&cluster.leader, 10..20);
    site.wait_told();
    cluster.leader.stop();
    check(&site.data, &site.told, 20, SEED, "a cluster over PostgreSQL");
}

#[test]
fn what_the_leader_reads_of_kafka_is_dealt_out_and_read_again_after_a_kill() {
    let Some(broker) = Broker::shared() else { return };
    let mut site = Site::new();
    broker.create("dealt", 3);
    site.config = Some(broker.settings(site.folder.path(), &["dealt"], ""));
    let produce = |batches: std::ops::Range<u64>| {
        let text: String = batches.map(|number| batch(number, SEED)).collect();
        broker.produce("dealt", 3, text.lines());
    };
    let all_decoded = |cluster: &Cluster, events| {
        wait_until("all is decoded", || metric(&cluster.leader, "counterflow_events_total") >= events);
    };
    produce(0..10);
    let mut cluster = site.start(2, &[]);
    all_decoded(&cluster, 5 * PER_BATCH);
    cluster.followers[0].signal("KILL");
    cluster.end();
    produce(10..20);
    let cluster = site.start(3, &[]);
    wait_until("all is counted", || {
        let rows = request(cluster.leader.http, "GET", "/api/v1/sources", &[], b"").unwrap().1;
        let rows: Value = serde_json::from_str(&rows).unwrap();
        let next = rows["sources"].as_array().unwrap().iter().filter_map(|row| row["next"].as_u64());
        next.sum::<u64>() == 20 * PER_BATCH
    });
    site.wait_told();
    cluster.leader.stop();
    check(&site.data, &site.told, 20, SEED, "a cluster over Kafka");
}
