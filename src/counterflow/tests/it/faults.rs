//! What happens when disk, clock, scheduler or peers fail (`docs/operations.md`), by real means. Longer with
//! `COUNTERFLOW_FAULT_S`, as `scripts/campaign faults` does.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    kill::pure,
    support::{Engine, Tmpfs, counterflow, free_address, get, lines, post, run, said, wait_until},
};

const NDJSON: &str = "application/x-ndjson";

/// How long the longer faults last, in seconds.
fn seconds() -> u64 {
    std::env::var("COUNTERFLOW_FAULT_S").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn failures(from: &str, ids: std::ops::Range<u32>) -> String {
    let line = |i: u32| {
        json!({
            "event_id": format!("{from}-{i}"), "timestamp": format!("2026-01-05T14:{:02}:{:02}Z", i / 60 % 60, i % 60),
            "source": "app", "event_type": "authentication_failed", "source_ip": from,
        })
    };
    ids.map(|i| format!("{}\n", line(i))).collect()
}

fn alerts(data: &Path) -> Vec<Value> {
    let output = run(&["alerts", "--data", data.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output)
}

fn state_of(data: &Path, address: &str) -> Option<String> {
    let all = alerts(data);
    let alert = all.iter().find(|alert| alert["group"]["source_ip"] == address)?;
    Some(alert["state"].as_str().unwrap().to_owned())
}

fn events(data: &Path) -> u64 {
    let statement = "select count(distinct event_id) as n from events";
    let output = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", statement], b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output)[0]["n"].as_u64().unwrap()
}

/// Status and headers of a POST of events.
fn post_raw(address: SocketAddr, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let length = body.len();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {NDJSON}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| std::io::Error::other("no answer"))?, answer.to_ascii_lowercase()))
}

fn audit_is_whole(data: &Path) {
    let audit = run(&["audit", "verify", "--data", data.to_str().unwrap()], b"");
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

/// Takes all space that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    for size in [1 << 20, 1 << 16, 1 << 12, 1] {
        let part = vec![0; size];
        while file.write_all(&part).is_ok() {}
    }
}

/// REL: ingest is refused with when to come again, what was accepted and what people decide is still written down, and when
/// there is space it goes on without a restart.
#[test]
fn a_full_disk_stops_the_intake_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let Some(_mount) = Tmpfs::mount(&disk, "64m") else { return };
    // By a link: the test's own log lies beside it, and not on the full disk.
    let data = folder.path().join("data");
    std::fs::create_dir(disk.join("data")).unwrap();
    std::os::unix::fs::symlink(disk.join("data"), &data).unwrap();
    let udp = free_address();
    let engine = Engine::start(&data, "rules", &["--syslog-udp", &udp.to_string()]);
    assert_eq!(post_raw(engine.http, &failures("10.0.0.1", 0..6)).unwrap().0, 202);
    wait_until("an alert", || state_of(&data, "10.0.0.1").as_deref() == Some("open"));

    let filler = disk.join("filler");
    fill(&filler);
    wait_until("the engine knows", || engine.log().contains("the disk is full: nothing more is taken in"));
    let (status, answer) = post_raw(engine.http, &failures("10.0.0.2", 0..6)).unwrap();
    assert!(status == 503 && answer.contains("retry-after: 10") && answer.contains("disk_full"), "{answer}");
    let (status, health) = get(engine.http, "/api/v1/health").unwrap();
    assert!(status == 200 && health.contains("senders are refused"), "{status} {health}");
    // TCP is not read: what is sent waits in the sender's and our buffers.
    let mut tcp = TcpStream::connect(engine.syslog).unwrap();
    for second in 0..6 {
        let line = format!(
            "<38>Nov 22 05:24:{second:02} target sshd[105]: Failed password for root from 10.9.9.9 port 4000 ssh2\n"
        );
        tcp.write_all(line.as_bytes()).unwrap();
    }
    // UDP is dropped by the kernel, and counted.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = [b'x'; 8_192];
    let dropped = || {
        let (_, page) = get(engine.http, "/metrics").unwrap();
        let line =
            page.lines().find_map(|line| line.strip_prefix("counterflow_syslog_udp_dropped_total ").map(str::to_owned));
        line.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    wait_until("datagrams are dropped and counted", || {
        (0..4_000).for_each(|_| drop(socket.send_to(&datagram, udp)));
        dropped() > 0
    });

    // What people decide is written down, with its audit record, and holds at once.
    let allow = run(&["facts", "add", "allow", "10.0.0.1", "--data", data.to_str().unwrap()], b"");
    assert_eq!(allow.status.code(), Some(0), "{}", said(&allow));
    wait_until("the alert is withdrawn", || state_of(&data, "10.0.0.1").as_deref() == Some("withdrawn"));
    audit_is_whole(&data);
    assert!(state_of(&data, "10.0.0.2").is_none() && state_of(&data, "10.9.9.9").is_none());

    std::fs::remove_file(&filler).unwrap();
    wait_until("events are taken again", || post_raw(engine.http, &failures("10.0.0.2", 0..6)).unwrap().0 == 202);
    wait_until("what waited in TCP is there", || state_of(&data, "10.9.9.9").as_deref() == Some("open"));
    wait_until("and what was sent again", || state_of(&data, "10.0.0.2").as_deref() == Some("open"));
    drop(tcp);
    engine.stop();
    let answered = "select count(distinct event_id) as n from events where source = 'http'";
    let output = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", answered], b"");
    assert_eq!(lines(&output)[0]["n"], 12, "{}", said(&output));
    audit_is_whole(&data);
}

#[test]
fn a_read_only_data_folder_is_refused_and_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let Some(_mount) = Tmpfs::mount(&disk, "64m") else { return };
    let data = disk.join("data");
    let at = data.to_str().unwrap();
    let engine = Engine::start(&data, "rules/plan", &[]);
    assert_eq!(post_raw(engine.http, &failures("10.0.0.1", 0..6)).unwrap().0, 202);
    wait_until("an alert", || state_of(&data, "10.0.0.1").is_some());
    engine.stop();
    let remount = |how: &str| {
        assert!(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&disk).status().unwrap().success());
    };
    remount("ro");
    let refused = run(&["run", "--data", at, "--rules", "rules/plan", "--listen", "127.0.0.1:0"], b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("mounted read-only"), "{}", said(&refused));
    assert_eq!(state_of(&data, "10.0.0.1").as_deref(), Some("open"));
    assert_eq!(events(&data), 6);
    remount("rw");
    Engine::start(&data, "rules/plan", &[]).stop();
}

/// fsyncgate: after a failed sync nobody knows what is on the disk, so nothing is acknowledged any more.
#[test]
fn an_fsync_error_ends_the_engine_before_it_acknowledges() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not there");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Of each thread the fourth sync of data fails, and all after it; only that call is looked at. -D: the engine is our child.
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "--seccomp-bpf", "-qqq", "-o", "/dev/null", "-e", "trace=fdatasync"]);
    strace.args(["-e", "inject=fdatasync:error=EIO:when=4+"]).arg(env!("CARGO_BIN_EXE_counterflow"));
    strace.current_dir(crate::support::root()).env_remove("COUNTERFLOW_CONFIG");
    let mut engine = Engine::begin(strace, &data, "rules/plan", &[]);
    let mut accepted = Vec::new();
    if engine.is_ready_or_dead() {
        for n in 0..200 {
            match post_raw(engine.http, &failures("10.0.0.1", n..n + 1)) {
                Ok((202, _)) => accepted.push(n),
                Ok((503, _)) | Err(_) => break,
                Ok((status, answer)) => panic!("{status} {answer}"),
            }
        }
    }
    wait_until("the engine ends", || engine.ended().is_some());
    assert_ne!(engine.ended().unwrap().code(), Some(0));
    assert!((1..200).contains(&accepted.len()), "{}", engine.log());
    assert!(engine.log().contains("the spool could not be synced"), "{}", engine.log());
    // All that was acknowledged is there.
    Engine::start(&data, "rules/plan", &[]).stop();
    let statement = "select distinct event_id as id from events";
    let output = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", statement], b"");
    let found: Vec<_> = lines(&output).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    for n in accepted {
        assert!(found.contains(&format!("10.0.0.1-{n}")), "{n} was acknowledged and is lost");
    }
}

/// The same of all that comes after the spool: one failed sync, although the next would succeed.
#[test]
fn a_failed_sync_of_ledger_history_or_facts_log_ends_the_engine() {
    for name in cf_fail::SYNCS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut command = counterflow();
        command.env("COUNTERFLOW_FAIL_AT", format!("{name}:3"));
        end_and_keep(Engine::begin(command, &data, "rules/plan", &[]), &data, name);
    }
}

/// A real one, of the ledger's log.
#[test]
fn an_fsync_error_of_the_ledger_ends_the_engine() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not there");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    Engine::start(&data, "rules/plan", &[]).stop();
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-P", data.join("ledger.db-wal").to_str().unwrap()]);
    strace.args(["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=20"]);
    strace.arg(env!("CARGO_BIN_EXE_counterflow")).current_dir(crate::support::root());
    strace.env_remove("COUNTERFLOW_CONFIG");
    end_and_keep(Engine::begin(strace, &data, "rules/plan", &[]), &data, "ledger.sync");
}

/// Sends until the engine ends; then everything that it acknowledged is there, and the alerts of it.
#[track_caller]
fn end_and_keep(mut engine: Engine, data: &Path, name: &str) {
    let mut accepted = Vec::new();
    if engine.is_ready_or_dead() {
        for n in 0..600 {
            match post_raw(engine.http, &failures("10.0.0.1", n..n + 1)) {
                Ok((202, _)) => accepted.push(n),
                Ok((503, _)) | Err(_) => break,
                Ok((status, answer)) => panic!("{status} {answer}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    wait_until("the engine ends", || engine.ended().is_some());
    assert_eq!(engine.ended().unwrap().code(), Some(2), "{name}: {}", engine.log());
    assert!(engine.log().contains(name) && engine.log().contains("could not be synced"), "{}", engine.log());
    assert!(!accepted.is_empty(), "{name}");
    Engine::start(data, "rules/plan", &[]).stop();
    let statement = "select distinct event_id as id from events";
    let output = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", statement], b"");
    let found: Vec<_> = lines(&output).iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    for n in &accepted {
        assert!(found.contains(&format!("10.0.0.1-{n}")), "{name}: {n} was acknowledged and is lost");
    }
    audit_is_whole(data);
}

/// Sends some events before, during and after a fault; then all alerts are those of a replay.
fn alerts_are_those_of_a_replay(data: &Path, told: &Path, body: &str) {
    let wanted = run(&["replay", "--rules", "rules/plan", "-"], body.as_bytes());
    let (wanted, found): (BTreeMap<_, _>, _) = (pure(&lines(&wanted)), pure(&alerts(data)));
    assert!(!wanted.is_empty());
    assert_eq!(found, wanted);
    let text = std::fs::read_to_string(told).unwrap_or_default();
    let mut keys: Vec<_> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].to_string()).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all, "nothing is told twice");
}

#[test]
fn a_jump_of_the_clock_by_an_hour_changes_no_alert() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let Some(library) = library.iter().find(|path| Path::new(path).exists()) else {
        eprintln!("skipped: libfaketime is not there");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (data, told, clock) =
        (folder.path().join("data"), folder.path().join("told.jsonl"), folder.path().join("clock"));
    std::fs::write(&clock, "+0").unwrap();
    let mut command = counterflow();
    command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    let more = ["--block-for", "30m", "--alerts-file", told.to_str().unwrap()];
    let mut engine = Engine::begin(command, &data, "rules/plan", &more);
    assert!(engine.is_ready_or_dead(), "{}", engine.log());
    let mut all = String::new();
    for (round, jump) in ["+0", "+1h", "+0", "-1h", "+0"].into_iter().enumerate() {
        std::fs::write(&clock, jump).unwrap();
        let from = u32::try_from(round).unwrap() * 10;
        for address in ["10.0.0.1", "10.0.0.2"] {
            let body = failures(address, from..from + 10);
            assert_eq!(post_raw(engine.http, &body).unwrap().0, 202);
            all.push_str(&body);
        }
        std::thread::sleep(Duration::from_millis(500 * seconds()));
        assert_eq!(get(engine.http, "/api/v1/health").unwrap().0, 200);
    }
    assert!(engine.ended().is_none(), "{}", engine.log());
    engine.stop();
    alerts_are_those_of_a_replay(&data, &told, &all);
    audit_is_whole(&data);
}

#[test]
fn a_frozen_engine_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (data, told) = (folder.path().join("data"), folder.path().join("told.jsonl"));
    let engine = Engine::start(&data, "rules/plan", &["--alerts-file", told.to_str().unwrap()]);
    let mut all = String::new();
    let send = |body: &str| {
        let (status, answer) = post(engine.http, "/api/v1/events", NDJSON, body.as_bytes()).unwrap();
        assert_eq!(status, 202, "{answer}");
    };
    let before = failures("10.0.0.1", 0..20);
    send(&before);
    engine.signal("STOP");
    let during: Vec<_> = (0..4).map(|i| failures("10.0.0.2", i * 5..i * 5 + 5)).collect();
    std::thread::scope(|scope| {
        // Sent while it is frozen: answered when it is not any more. The answers may take as long as the freeze.
        let senders: Vec<_> = during
            .iter()
            .map(|body| {
                scope.spawn(move || {
                    loop {
                        if let Ok((202, _)) = post_raw(engine.http, body) {
                            return;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(seconds()));
        engine.signal("CONT");
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
    all.push_str(&before);
    during.iter().for_each(|body| all.push_str(body));
    let after = failures("10.0.0.1", 20..40);
    send(&after);
    all.push_str(&after);
    engine.stop();
    alerts_are_those_of_a_replay(&data, &told, &all);
}

/// Peers that vanished, that send half a message, or one byte a second: others do not notice.
#[test]
fn slow_and_half_open_peers_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = Engine::start(&data, "rules/plan", &[]);
    let half = |address, bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Half open: nothing more ever comes, nor an end.
    let http: Vec<_> = (0..40)
        .map(|_| half(engine.http, b"POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-le"))
        .chain((0..40).map(|_| {
            half(engine.http, b"POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{")
        }))
        .collect();
    let syslog: Vec<_> =
        (0..40).map(|_| half(engine.syslog, b"<38>Nov 22 05:24:01 target sshd[1]: Failed pass")).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(engine.http).unwrap();
                for byte in b"POST /api/v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{".iter().cycle() {
                    if stop.load(Ordering::Acquire) || stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_secs(1).min(Duration::from_millis(500 * seconds())));
                }
            });
        }
        for n in 0..20 {
            let (status, answer) = post_raw(engine.http, &failures("10.0.0.1", n..n + 1)).unwrap();
            assert_eq!(status, 202, "{answer}");
        }
        let mut whole = TcpStream::connect(engine.syslog).unwrap();
        whole
            .write_all(b"<38>Nov 22 05:24:01 target sshd[1]: Accepted password for root from 10.9.9.9 port 1 ssh2\n")
            .unwrap();
        wait_until("the alert is there", || state_of(&data, "10.0.0.1").as_deref() == Some("open"));
        wait_until("whole messages are taken beside halves", || {
            let (_, page) = get(engine.http, "/metrics").unwrap();
            page.contains("counterflow_syslog_records_total 1")
        });
        stop.store(true, Ordering::Release);
    });
    drop((http, syslog));
    engine.stop();
    assert!(events(&data) >= 21);
}
