//! The response side against real ledgers, a real HTTP server and the real kernel.

mod kernel;
mod webhooks;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cf_ledger::{
    Ledger,
    read::{ActionView, IntentView},
};
use cf_types::{
    ActionId, ActionKind, Alert, AlertId, AlertState, AnchorKind, DesiredAction, EpochOutput, EpochRecord, Group,
    Level, Row, Score, Tenant, clock,
};
use tempfile::TempDir;

use crate::{
    Responder, ResponseSettings,
    responder::{Hooks, Step},
    settings::{BlockAddressSettings, ChannelSettings, FileSettings, RetrySettings, StdoutSettings},
};

/// A ledger whose epochs are cut now, and settings of the response side.
struct World {
    dir: TempDir,
    ledger: Ledger,
    generation: u64,
    epoch: u64,
    settings: ResponseSettings,
}

impl World {
    async fn new(settings: ResponseSettings) -> World {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).await.unwrap();
        let generation = ledger.begin_generation(clock::now()).await.unwrap();
        World { dir, ledger, generation, epoch: 0, settings }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("out.jsonl")
    }

    fn with_file(mut self) -> World {
        let file = FileSettings { path: self.file(), ..FileSettings::default() };
        self.settings.channels.push(ChannelSettings::File(file));
        self
    }

    async fn epoch(&mut self, rows: Vec<(Row, i64)>) {
        self.epoch += 1;
        let record = EpochRecord {
            epoch: self.epoch,
            wall: clock::now(),
            generation: self.generation,
            ends: BTreeMap::new(),
            newest: BTreeMap::new(),
            starts: Default::default(),
            marks: Default::default(),
            idle: Vec::new(),
            passed_ms: 0,
            control: 0,
            rules: String::new(),
            begun: Vec::new(),
            models: BTreeMap::new(),
            engine: "test".to_owned(),
        };
        let output = EpochOutput { epoch: self.epoch, rows, ..EpochOutput::default() };
        self.ledger.apply(&record, &output, &self.settings.routes(), &|_| None).await.unwrap();
    }

    /// Runs the response side until `done`, or for eight seconds.
    async fn run_until(&self, done: impl AsyncFn() -> bool) -> Duration {
        let responder = Responder::new(self.ledger.clone(), self.settings.clone()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(responder.run(async { stopped.await.unwrap() }));
        let begun = Instant::now();
        while !done().await && begun.elapsed() < Duration::from_secs(8) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = begun.elapsed();
        stop.send(()).unwrap();
        running.await.unwrap();
        took
    }

    /// Runs until no intent waits.
    async fn run(&self) -> Duration {
        self.run_until(async || self.waiting().await == 0).await
    }

    async fn waiting(&self) -> usize {
        let open = |intent: &IntentView| matches!(intent.state.as_str(), "planned" | "trying");
        self.intents().await.iter().filter(|intent| open(intent)).count()
    }

    async fn intents(&self) -> Vec<IntentView> {
        let mut intents = self.ledger.reader().await.unwrap().intents(1_000).await.unwrap();
        intents.reverse();
        intents
    }

    async fn actions(&self) -> Vec<ActionView> {
        let mut actions = self.ledger.reader().await.unwrap().actions(1_000).await.unwrap();
        actions.reverse();
        actions
    }

    /// Runs with a hook that ends the work at a step, as a kill would.
    async fn die_at(&self, step: Step) {
        let hooks = Hooks { die_at: Some(step) };
        let responder = Responder::with_hooks(self.ledger.clone(), self.settings.clone(), hooks).unwrap();
        responder.run(tokio::time::sleep(Duration::from_millis(400))).await;
    }

    /// A new process on the same folder.
    async fn restart(self) -> World {
        let World { dir, ledger, epoch, settings, .. } = self;
        drop(ledger);
        let ledger = Ledger::open(dir.path()).await.unwrap();
        let generation = ledger.begin_generation(clock::now()).await.unwrap();
        World { dir, ledger, generation, epoch, settings }
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.file()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn quick() -> ResponseSettings {
    ResponseSettings {
        amend_interval_s: 0,
        retry: RetrySettings { first_ms: 20, max_ms: 100, tries_max: 4 },
        ..ResponseSettings::default()
    }
}

fn alert(user: &str) -> Alert {
    let tenant = Tenant::default();
    let group = Group::new([(Arc::from("user"), Arc::from(user))]);
    Alert {
        id: AlertId::of(&tenant, "rule-1", &group, AnchorKind::Item, 7),
        tenant,
        rule: Arc::from("rule-1"),
        title: Arc::from("Password guessing"),
        level: Level::High,
        entities: group.entities(),
        group,
        state: AlertState::Open,
        anchor: 7,
        last_cell: 9,
        count: 5,
        reference_counts: vec![5],
        peak: 5,
        score: Score::of_level(Level::High),
        tags: Arc::from([]),
    }
}

fn came(user: &str) -> (Row, i64) {
    (Row::Alert(alert(user)), 1)
}

fn desired(user: &str, target: &str, ttl_s: u32, diff: i64) -> (Row, i64) {
    let tenant = Tenant::default();
    let wish = DesiredAction {
        id: ActionId::of(&tenant, "block_address", target),
        tenant,
        kind: ActionKind::BlockAddress,
        target: Arc::from(target),
        ttl_s,
        alert: alert(user).id,
        anchor: 7,
    };
    (Row::Desired(wish), diff)
}

/// An `nft` that only notes that it was called.
fn noting_nft(dir: &Path) -> BlockAddressSettings {
    use std::os::unix::fs::PermissionsExt as _;
    let program = dir.join("nft");
    std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" >> {}/calls\n", dir.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    BlockAddressSettings { nft: program, ..BlockAddressSettings::default() }
}

#[tokio::test]
async fn a_message_is_one_line_with_all_that_is_known() {
    let mut world = World::new(quick()).await.with_file();
    world.epoch(vec![came("a")]).await;
    world.run().await;
    world.epoch(vec![(Row::Alert(alert("a")), -1)]).await;
    world.run().await;
    let lines = world.lines();
    let told: Vec<_> =
        lines.iter().map(|line| (&line["event"], &line["state"], &line["revision"], &line["reason"])).collect();
    assert_eq!(
        format!("{told:?}").replace("String", ""),
        r#"[(("opened"), ("open"), Number(1), Null), (("withdrawn"), ("withdrawn"), Number(2), ("evidence_withdrawn"))]"#
    );
    let first = &lines[0];
    assert_eq!(first["group"], serde_json::json!({"user": "a"}));
    assert_eq!(
        (first["level"].as_str(), first["score"].as_f64(), first["count"].as_u64()),
        (Some("high"), Some(7.5), Some(5))
    );
    assert_ne!(lines[0]["key"], lines[1]["key"]);
}

/// A kill between every two durable steps: each message arrives exactly once.
#[tokio::test]
async fn a_kill_at_any_step_repeats_no_line_and_loses_none() {
    for step in [Step::BeforeTry, Step::BeforeEffect, Step::AfterEffect, Step::AfterFinish] {
        let mut world = World::new(quick()).await.with_file();
        world.epoch(vec![came("a"), came("b"), came("c")]).await;
        // Every generation gets one step further and dies again.
        for _ in 0..4 {
            world.die_at(step).await;
            world = world.restart().await;
        }
        world.run().await;
        let mut keys: Vec<_> = world.lines().iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
        assert_eq!(keys.len(), 3, "{step:?}: {keys:?}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 3, "{step:?}");
        assert!(world.intents().await.iter().all(|intent| intent.state == "confirmed"), "{step:?}");
        assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_records_the_command() {
    let mut world = World::new(quick()).await;
    world.settings.block_address = noting_nft(world.dir.path());
    world.epoch(vec![came("a"), desired("a", "203.0.113.9", 60, 1)]).await;
    world.run().await;
    assert!(!world.dir.path().join("calls").exists(), "nft was called in a dry run");
    let intent = world.intents().await.remove(0);
    assert_eq!((intent.state.as_str(), world.actions().await[0].state.as_str()), ("dry_run", "dry_run"));
    let receipt = intent.receipt.unwrap();
    assert!(receipt["dry_run"]["stdin"].as_str().unwrap().contains("block4 { 203.0.113.9 timeout 60s }"), "{receipt}");
    // Nothing to undo when the alert goes.
    world.epoch(vec![desired("a", "203.0.113.9", 60, -1)]).await;
    assert_eq!(world.waiting().await, 0);
}

#[tokio::test]
async fn a_protected_target_is_refused_and_audited() {
    let mut world = World::new(quick()).await;
    world.settings.enforce = true;
    world.settings.protected = vec!["203.0.113.0/24".parse().unwrap()];
    world.settings.block_address = noting_nft(world.dir.path());
    let targets = ["203.0.113.9", "::ffff:203.0.113.9", "127.0.0.1", "::1", "203.0.0.0/8", "example.org"];
    world.epoch(targets.map(|target| desired("a", target, 60, 1)).to_vec()).await;
    world.run().await;
    assert!(!world.dir.path().join("calls").exists(), "nft was called for a protected target");
    assert!(world.actions().await.iter().all(|action| action.state == "refused"));
    let audit = world.ledger.reader().await.unwrap().audit(0, 1_000).await.unwrap();
    assert_eq!(audit.iter().filter(|record| record.action == "intent_refused").count(), targets.len());
    assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
}

#[tokio::test]
async fn the_own_address_is_refused_without_being_listed() {
    let own = crate::Nftables::new(&BlockAddressSettings::default()).own_addresses().await.unwrap();
    let Some(address) = own.into_iter().find(|address| address.is_ipv4() && !address.is_loopback()) else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let mut world = World::new(quick()).await;
    world.settings.enforce = true;
    world.settings.block_address = noting_nft(world.dir.path());
    world.epoch(vec![desired("a", &address.to_string(), 60, 1)]).await;
    world.run().await;
    let receipt = world.intents().await.remove(0).receipt.unwrap();
    assert!(receipt["refused"].as_str().unwrap().contains("own address"), "{receipt}");
}

#[tokio::test]
async fn a_missing_program_is_tried_again_and_given_up() {
    let mut world = World::new(quick()).await;
    world.settings.enforce = true;
    world.settings.block_address.nft = PathBuf::from("/nonexistent/nft");
    world.epoch(vec![desired("a", "203.0.113.9", 60, 1)]).await;
    world.run().await;
    let intent = world.intents().await.remove(0);
    assert_eq!((intent.state.as_str(), intent.tries), ("failed", 4));
    assert!(intent.receipt.unwrap()["error"].as_str().unwrap().contains("package nftables"));
    assert_eq!(world.actions().await[0].state, "failed");
}

#[tokio::test]
async fn settings_are_checked_once() {
    let world = World::new(quick()).await;
    let channel =
        |name: &str| ChannelSettings::Stdout(StdoutSettings { name: name.to_owned(), ..StdoutSettings::default() });
    let mut settings = quick();
    settings.channels = vec![channel("a"), channel("a")];
    let twice = Responder::new(world.ledger.clone(), settings).err().unwrap().to_string();
    assert!(twice.contains(r#"two channels are named "a""#), "{twice}");
    let unknown: Result<ResponseSettings, _> =
        serde_json::from_str(r#"{"channels": [{"type": "file", "path": "x", "levle": "high"}]}"#);
    assert!(unknown.unwrap_err().to_string().contains("unknown field `levle`"));
    let given: ResponseSettings = serde_json::from_str(
        r#"{"enforce": true, "protected": ["10.0.0.0/8"], "channels": [{"type": "stdout", "level_min": "high"}]}"#,
    )
    .unwrap();
    assert_eq!((given.enforce, given.channels[0].name(), given.block_address.timeout_ms), (true, "stdout", 5_000));
}
