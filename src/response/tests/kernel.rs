//! nftables in network namespaces of our own: the real program, the real kernel, nothing of this machine's tables.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use cf_types::clock;

use super::{World, came, desired, quick};
use crate::{Nftables, responder::Step, settings::BlockAddressSettings};

/// A target and an attacker, joined by one cable; both vanish with this.
struct Site {
    target: String,
    attacker: String,
}

const TARGET: &str = "10.97.0.1";
const ATTACKER: &str = "10.97.0.2";

impl Site {
    /// `None`, with the reason said, where namespaces or nft are missing.
    fn build() -> Option<Site> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("cfr{role}{}-{number}", std::process::id());
        let site = Site { target: name("t"), attacker: name("a") };
        let (t, a) = (site.target.as_str(), site.attacker.as_str());
        let (end_t, end_a) = (format!("t{}n{number}", std::process::id()), format!("a{}n{number}", std::process::id()));
        let steps: Vec<Vec<&str>> = vec![
            vec!["nft", "--version"],
            vec!["ip", "netns", "add", t],
            vec!["ip", "netns", "add", a],
            vec!["ip", "link", "add", &end_t, "netns", t, "type", "veth", "peer", "name", &end_a, "netns", a],
            vec!["ip", "-n", t, "addr", "add", "10.97.0.1/24", "dev", &end_t],
            vec!["ip", "-n", a, "addr", "add", "10.97.0.2/24", "dev", &end_a],
            vec!["ip", "-n", t, "addr", "add", "fd97::1/64", "dev", &end_t, "nodad"],
            vec!["ip", "-n", t, "link", "set", &end_t, "up"],
            vec!["ip", "-n", a, "link", "set", &end_a, "up"],
            vec!["ip", "-n", t, "link", "set", "lo", "up"],
        ];
        for step in steps {
            let done = Command::new(step[0]).args(&step[1..]).output();
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                eprintln!("skipped: could not run {step:?} ({done:?})");
                return None;
            }
        }
        Some(site)
    }

    fn settings(&self) -> BlockAddressSettings {
        BlockAddressSettings {
            netns: Some(PathBuf::from(format!("/run/netns/{}", self.target))),
            ..BlockAddressSettings::default()
        }
    }

    fn inside(namespace: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(words);
        command
    }

    fn nft(&self, arguments: &[&str]) -> String {
        let done = Site::inside(&self.target, &[&["nft"], arguments].concat()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    /// The ruleset without our table.
    fn others(&self) -> String {
        let all = self.nft(&["list", "ruleset"]);
        all.split("table ").filter(|table| !table.starts_with("inet counterflow")).collect::<Vec<_>>().join("table ")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for namespace in [&self.target, &self.attacker] {
            Command::new("ip").args(["netns", "del", namespace]).output().ok();
        }
    }
}

async fn world(site: &Site) -> World {
    let mut world = World::new(quick()).await;
    world.settings.enforce = true;
    world.settings.block_address = site.settings();
    world
}

fn nftables(site: &Site) -> Nftables {
    Nftables::new(&site.settings())
}

/// A talk over one connection: the attacker says a byte every 20 ms and hears it back.
struct Talk {
    server: Child,
    client: Child,
    heard: PathBuf,
}

impl Talk {
    fn begin(site: &Site, dir: &Path) -> Talk {
        const SERVER: &str = "
import socket
s = socket.create_server(('10.97.0.1', 7007))
print('ready', flush=True)
c, _ = s.accept()
while data := c.recv(1): c.sendall(data)";
        const CLIENT: &str = "
import socket, sys, time
c = socket.create_connection(('10.97.0.1', 7007), 2)
c.settimeout(60)
while True:
    c.sendall(b'x'); c.recv(1)
    with open(sys.argv[1], 'a') as f: f.write('x')
    time.sleep(0.02)";
        let heard = dir.join("heard");
        let mut server = Site::inside(&site.target, &["python3", "-c", SERVER]).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(server.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
        let words = ["python3", "-c", CLIENT, heard.to_str().unwrap()];
        let client = Site::inside(&site.attacker, &words).stderr(Stdio::null()).spawn().unwrap();
        Talk { server, client, heard }
    }

    fn heard(&self) -> usize {
        std::fs::read(&self.heard).map_or(0, |heard| heard.len())
    }

    /// Whether it goes on, waiting for at most that long.
    fn goes_on(&self, within: Duration) -> bool {
        let (begun, before) = (Instant::now(), self.heard());
        while begun.elapsed() < within {
            if self.heard() > before + 1 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.client] {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_stops_what_exists_and_ends_with_its_alert() {
    let Some(site) = Site::build() else { return };
    // A firewall that lets established connections through, as most do; it is not ours and must stay as it is.
    site.nft(&["add", "table", "inet", "filter"]);
    site.nft(&["add", "chain", "inet", "filter", "input", "{ type filter hook input priority 0; policy accept; }"]);
    site.nft(&["add", "rule", "inet", "filter", "input", "ct state established,related accept"]);
    let before = site.others();
    let mut world = world(&site).await;
    let talk = Talk::begin(&site, world.dir.path());
    assert!(talk.goes_on(Duration::from_secs(5)), "the connection was not made");

    world.epoch(vec![came("a"), desired("a", ATTACKER, 60, 1)]).await;
    world.run().await;
    let receipt = world.intents().await.remove(0).receipt.unwrap();
    eprintln!("block_address: in force {} ms after the decision: {receipt}", receipt["since_decision_ms"]);
    assert!(receipt["since_decision_ms"].as_u64().unwrap() < 500, "{receipt}");
    assert!(!talk.goes_on(Duration::from_millis(300)), "the connection goes on");
    assert_eq!(world.ledger.actions_in_force().await.unwrap().len(), 1);

    world.epoch(vec![desired("a", ATTACKER, 60, -1)]).await;
    let took = world.run().await;
    assert!(took < Duration::from_secs(1), "undone after {took:?}"); // REM-15
    assert!(talk.goes_on(Duration::from_secs(5)), "the connection does not go on after the undoing");
    assert_eq!(world.actions().await[0].reason.as_deref(), Some("withdrawn"));
    assert_eq!(site.others(), before);
    assert!(site.nft(&["list", "ruleset"]).contains("set block4"), "our table stays");
}

#[tokio::test]
async fn a_block_ends_when_its_time_is_up_and_is_not_repeated() {
    let Some(site) = Site::build() else { return };
    let mut world = world(&site).await;
    world.epoch(vec![came("a"), desired("a", ATTACKER, 1, 1)]).await;
    world.run_until(async || world.actions().await[0].state == "undone").await;
    let action = world.actions().await.remove(0);
    assert_eq!((action.state.as_str(), action.reason.as_deref()), ("undone", Some("expired")));
    assert_eq!(nftables(&site).remaining(ATTACKER.parse().unwrap()).await.unwrap(), None);
    assert_eq!(world.actions().await.len(), 1);
}

#[tokio::test]
async fn the_address_of_the_namespace_is_never_blocked() {
    let Some(site) = Site::build() else { return };
    let mut world = world(&site).await;
    world.epoch(vec![came("a"), desired("a", TARGET, 60, 1), desired("a", "fd97::1", 60, 1)]).await;
    world.run().await;
    assert_eq!(world.actions().await.iter().map(|action| action.state.as_str()).collect::<Vec<_>>(), ["refused"; 2]);
    assert_eq!(site.nft(&["list", "ruleset"]), "");
}

/// A kill between every two durable steps: the command runs once, and the state is known at the end.
#[tokio::test]
async fn a_kill_at_any_step_applies_once_and_undoes_once() {
    for step in [Step::BeforeTry, Step::BeforeEffect, Step::AfterEffect, Step::AfterFinish] {
        let Some(site) = Site::build() else { return };
        let mut world = world(&site).await;
        let log = world.dir.path().join("log");
        let wrapper = wrapper(world.dir.path(), &log, &site.target);
        world.settings.block_address.command_prefix = vec![wrapper];
        world.epoch(vec![came("a"), desired("a", ATTACKER, 60, 1)]).await;
        world.die_at(step).await;
        world = world.restart().await;
        world.run().await;
        assert_eq!(effects(&log, "add element"), 1, "{step:?}");
        assert!(nftables(&site).remaining(ATTACKER.parse().unwrap()).await.unwrap().is_some());
        let until = world.ledger.actions_in_force().await.unwrap()[0].until;
        assert!((until.micros() - clock::now().micros() - 60_000_000).abs() < 5_000_000, "{step:?}");

        world.epoch(vec![desired("a", ATTACKER, 60, -1)]).await;
        world.die_at(step).await;
        world = world.restart().await;
        world.run().await;
        assert_eq!(nftables(&site).remaining(ATTACKER.parse().unwrap()).await.unwrap(), None, "{step:?}");
        assert_eq!(world.actions().await[0].state, "undone", "{step:?}");
        assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
    }
}

/// Notes each script that changes something, then runs the command in the target's namespace.
fn wrapper(dir: &Path, log: &Path, namespace: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("enter");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *'-f -') tee -a {log} | exec ip netns exec {namespace} \"$@\";; \
         *) exec ip netns exec {namespace} \"$@\";; esac\n",
        log = log.display()
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// How many scripts have such a line last.
fn effects(log: &Path, line: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let blocks = text.matches("add table inet counterflow").count();
    if line == "add element" { blocks } else { text.matches(line).count() }
}

#[tokio::test]
async fn both_families_are_blocked_anew_and_let_through() {
    let Some(site) = Site::build() else { return };
    let nftables = nftables(&site);
    for address in ["203.0.113.9", "2001:db8::9"] {
        let address = address.parse().unwrap();
        assert_eq!(nftables.remaining(address).await.unwrap(), None);
        nftables.unblock(address).await.unwrap(); // nothing there is as good as undone
        nftables.block(address, 5).await.unwrap();
        assert!(nftables.remaining(address).await.unwrap().is_some_and(|left| left <= 5));
        nftables.block(address, 500).await.unwrap(); // its time begins anew
        assert!(nftables.remaining(address).await.unwrap().is_some_and(|left| left > 400));
        nftables.unblock(address).await.unwrap();
        assert_eq!(nftables.remaining(address).await.unwrap(), None);
    }
    // One element each, the rules once, however often they were made.
    assert_eq!(site.nft(&["list", "ruleset"]).matches("counter").count() - 1, 4);
}
