//! The ledger against real files: what epochs make of alerts, incidents, messages and actions.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use cf_types::{
    ActionId, ActionKind, Alert, AlertId, AlertState, AnchorKind, BlastRadius, DesiredAction, Entity, EntityKind,
    EntityLevel, EntityRisk, EpochOutput, EpochRecord, Fact, FactBody, Group, Incident, IncidentId, Level, Lineage,
    RiskLevel, Row, Said, Score, Suppressed, Tenant, Time, assess,
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    ActionInForce, AlertEvent, Applied, ControlLog, Difference, Intent, Ledger, LedgerError, NewFact, Operation,
    Outcome, Present, Reader, Route, Routes,
    database::{self, Connection},
    outbox::BLOCK_ADDRESS,
    read::AlertFilter,
    schema,
};

#[path = "erase_tests.rs"]
mod erase;
#[path = "hunts_tests.rs"]
mod hunts;
#[path = "postgres_tests.rs"]
mod postgres;
#[path = "sinks_tests.rs"]
mod sinks;
#[path = "triage_tests.rs"]
mod triage;

use postgres::{connection, folder, in_postgres};

/// Wall time of epoch `n`: one second each.
fn wall(epoch: u64) -> Time {
    Time::from_seconds(1_800_000_000 + i64::try_from(epoch).unwrap())
}

struct World {
    dir: TempDir,
    ledger: Ledger,
    generation: u64,
    epoch: u64,
    present: Present,
    routes: Routes,
}

impl World {
    async fn new() -> World {
        let dir = folder().await;
        let ledger = Ledger::open(dir.path()).await.unwrap();
        let generation = ledger.begin_generation(wall(0)).await.unwrap();
        let route = Route { channel: Arc::from("file"), level_min: Level::Medium };
        let routes = Routes { routes: vec![route], amend_interval_us: 0 };
        World { dir, ledger, generation, epoch: 0, present: Present::default(), routes }
    }

    /// Applies an epoch; the digest of the ledger must stay that of the present set.
    async fn epoch(&mut self, rows: Vec<(Row, i64)>, lineage: Vec<Lineage>) -> Applied {
        self.epoch += 1;
        let output = EpochOutput { epoch: self.epoch, rows, lineage, ..EpochOutput::default() };
        self.present.apply(&output);
        let record = record(self.epoch, self.generation);
        let applied = self.ledger.apply(&record, &output, &self.routes, &|_| None).await.unwrap();
        assert_eq!(self.ledger.digest().await.unwrap(), self.present.digest(), "after epoch {}", self.epoch);
        assert_eq!(self.ledger.reconcile(&self.present).await.unwrap(), []);
        applied
    }

    /// Gives up the ledger, as a killed process does, and takes it again.
    async fn restart(self) -> World {
        let World { dir, ledger, epoch, present, routes, .. } = self;
        drop(ledger);
        let ledger = Ledger::open(dir.path()).await.unwrap();
        let generation = ledger.begin_generation(wall(epoch)).await.unwrap();
        World { dir, ledger, generation, epoch, present, routes }
    }

    async fn pending(&self, receiver: &str) -> Vec<Intent> {
        self.ledger.pending(receiver, wall(self.epoch), 100).await.unwrap()
    }

    /// Tries all that is due on a receiver, with one outcome; gives what was tried.
    async fn work(&self, receiver: &str, outcome: Outcome) -> Vec<(Operation, String)> {
        let mut done = Vec::new();
        loop {
            let pending = self.pending(receiver).await;
            if pending.is_empty() {
                return done;
            }
            for intent in pending {
                let begun = self.ledger.begin_try(&intent, wall(self.epoch)).await.unwrap();
                self.ledger.finish(&begun, &outcome, &json!({"by": "test"}), wall(self.epoch)).await.unwrap();
                let what = intent.target().map_or_else(|| intent.thread.clone().unwrap(), str::to_owned);
                done.push((intent.operation, what));
            }
        }
    }

    async fn state_of(&self, alert: &Alert) -> (String, Option<String>, String, i64) {
        let reader = self.ledger.reader().await.unwrap();
        let filter = AlertFilter { id: Some(alert.id.to_string()), ..AlertFilter::default() };
        let views = reader.alerts(&filter).await.unwrap();
        let view = views.into_iter().find(|view| view.alert_id == alert.id.to_string()).unwrap();
        (view.state, view.reason, view.thread, view.revision)
    }

    async fn action_states(&self) -> Vec<(String, Option<String>)> {
        let actions = self.ledger.reader().await.unwrap().actions(100).await.unwrap();
        actions.into_iter().rev().map(|action| (action.state, action.reason)).collect()
    }
}

fn record(epoch: u64, generation: u64) -> EpochRecord {
    EpochRecord {
        epoch,
        wall: wall(epoch),
        generation,
        ends: BTreeMap::from([("spool".to_owned(), epoch * 10)]),
        newest: BTreeMap::new(),
        starts: Default::default(),
        marks: Default::default(),
        idle: Vec::new(),
        passed_ms: 0,
        control: 0,
        rules: "r1".to_owned(),
        begun: Vec::new(),
        models: BTreeMap::new(),
        engine: "test".to_owned(),
    }
}

fn alert(user: &str, anchor: i64) -> Alert {
    let tenant = Tenant::default();
    let group = Group::new([(Arc::from("user"), Arc::from(user))]);
    Alert {
        id: AlertId::of(&tenant, "rule-1", &group, AnchorKind::Item, anchor),
        tenant,
        rule: Arc::from("rule-1"),
        title: Arc::from("Password guessing"),
        level: Level::High,
        entities: group.entities(),
        group,
        state: AlertState::Open,
        anchor,
        last_cell: anchor + 5,
        count: 5,
        reference_counts: vec![5],
        peak: 5,
        score: Score::of_level(Level::High),
        tags: Arc::from([]),
    }
}

fn came(alert: &Alert) -> (Row, i64) {
    (Row::Alert(alert.clone()), 1)
}

fn went(alert: &Alert) -> (Row, i64) {
    (Row::Alert(alert.clone()), -1)
}

fn incident(alerts: &[&Alert], diff: i64) -> (Row, i64) {
    let mut ids: Vec<_> = alerts.iter().map(|alert| (alert.anchor, alert.id)).collect();
    ids.sort();
    let id = IncidentId::of(&Tenant::default(), ids[0].0, ids[0].1);
    (Row::Incident(Incident { id, alerts: ids, ..Incident::default() }), diff)
}

fn desired(alert: &Alert, target: &str, diff: i64) -> (Row, i64) {
    let tenant = Tenant::default();
    let wish = DesiredAction {
        id: ActionId::of(&tenant, "block_address", target),
        tenant,
        kind: ActionKind::BlockAddress,
        target: Arc::from(target),
        ttl_s: 10,
        alert: alert.id,
        anchor: alert.anchor,
    };
    (Row::Desired(wish), diff)
}

fn allow(network: &str) -> Fact {
    Fact { tenant: Tenant::default(), body: FactBody::Allow { network: network.parse().unwrap() } }
}

#[tokio::test]
async fn counts_are_gauges_and_what_is_material_makes_a_revision() {
    let mut world = World::new().await;
    let first = alert("a", 100);
    let counted = Alert { count: 50, reference_counts: vec![50], last_cell: 140, peak: 9, ..first.clone() };
    let raised = Alert { level: Level::Critical, score: Score::of_level(Level::Critical), ..counted.clone() };
    let mut events = Vec::new();
    for rows in [
        vec![came(&first)],
        vec![went(&first), came(&counted)],
        vec![went(&counted), came(&raised)],
        vec![went(&raised)],
        vec![came(&raised)],
    ] {
        let applied = world.epoch(rows, Vec::new()).await;
        let change = applied.alerts.last().unwrap();
        events.push((change.event, change.revision, applied.intents));
        world.work("file", Outcome::Confirmed).await;
    }
    assert_eq!(
        events,
        [
            (AlertEvent::Opened, 1, 1),
            (AlertEvent::Gauge, 1, 0),
            (AlertEvent::Amended, 2, 1),
            (AlertEvent::Withdrawn, 3, 1),
            (AlertEvent::Opened, 4, 1)
        ]
    );
}

#[tokio::test]
async fn a_withdrawal_names_its_reason() {
    let mut world = World::new().await;
    let (one, two, three) = (alert("a", 1), alert("b", 2), alert("c", 3));
    world.epoch(vec![came(&one), came(&two), came(&three)], Vec::new()).await;
    let fact = allow("10.0.0.7/32");
    let suppressed = Lineage::Suppressed { alert: one.id, fact };
    let wide = Lineage::Suppressed { alert: two.id, fact: allow("10.0.0.0/8") };
    world.epoch(vec![went(&one), went(&two), went(&three)], vec![suppressed, wide]).await;
    let reasons = [world.state_of(&one).await.1, world.state_of(&two).await.1, world.state_of(&three).await.1]
        .map(Option::unwrap);
    assert_eq!(reasons, ["allowed by 10.0.0.7", "allowed by 10.0.0.0/8", "evidence_withdrawn"]);
    // Nobody had been told, so nobody is told that it is over.
    assert_eq!(world.pending("file").await, []);
}

#[tokio::test]
async fn a_moved_anchor_keeps_the_thread_and_tells_nobody() {
    let mut world = World::new().await;
    let (old, new) = (alert("a", 100), alert("a", 90));
    world.epoch(vec![came(&old)], Vec::new()).await;
    world.work("file", Outcome::Confirmed).await;
    let lineage = vec![Lineage::SupersededBy { old: old.id, new: new.id }];
    let applied = world.epoch(vec![went(&old), came(&new)], lineage).await;
    assert_eq!(applied.intents, 0);
    assert_eq!(world.state_of(&old).await, ("superseded".to_owned(), None, old.id.to_string(), 1));
    assert_eq!(world.state_of(&new).await, ("open".to_owned(), None, old.id.to_string(), 2));
    // Its end is told on the thread that people know.
    world.epoch(vec![went(&new)], Vec::new()).await;
    assert_eq!(world.work("file", Outcome::Confirmed).await, [(Operation::Withdrawn, old.id.to_string())]);
}

#[tokio::test]
async fn a_merge_keeps_the_thread_that_was_issued_first() {
    let mut world = World::new().await;
    let (late, early, next) = (alert("a", 300), alert("a", 100), alert("a", 50));
    world.epoch(vec![came(&late)], Vec::new()).await;
    world.epoch(vec![came(&early)], Vec::new()).await;
    // An event between them joins both into the one that begins first.
    let merge = vec![Lineage::SupersededBy { old: late.id, new: early.id }];
    world.epoch(vec![went(&late)], merge).await;
    assert_eq!(world.state_of(&early).await.2, late.id.to_string());
    assert_eq!(world.state_of(&late).await.0, "superseded");
    // The thread goes on, also when the id moves once more.
    let moved = vec![Lineage::SupersededBy { old: early.id, new: next.id }];
    world.epoch(vec![went(&early), came(&next)], moved).await;
    assert_eq!(world.state_of(&next).await.2, late.id.to_string());
}

#[tokio::test]
async fn a_split_gives_the_thread_on_only_when_the_old_id_is_gone() {
    let mut world = World::new().await;
    let (whole, other, stays) = (alert("a", 100), alert("a", 900), alert("b", 100));
    let (left, right) = (alert("a", 110), alert("a", 500));
    world.epoch(vec![came(&whole), came(&stays)], Vec::new()).await;
    let part = alert("b", 700);
    world.epoch(vec![came(&part)], vec![Lineage::SplitFrom { old: stays.id, new: part.id }]).await;
    assert_eq!(world.state_of(&part).await.2, part.id.to_string());
    let lineage = [&left, &right].map(|new| Lineage::SplitFrom { old: whole.id, new: new.id }).to_vec();
    world.epoch(vec![went(&whole), came(&left), came(&right), came(&other)], lineage).await;
    assert_eq!(world.state_of(&left).await.2, whole.id.to_string());
    assert_eq!(world.state_of(&right).await.2, right.id.to_string());
    assert_eq!(world.state_of(&whole).await.0, "superseded");
}

#[tokio::test]
async fn a_provisional_alert_is_listed_and_told_to_nobody_until_it_is_open() {
    let mut world = World::new().await;
    let open = alert("a", 1);
    let provisional = Alert { state: AlertState::Provisional, ..open.clone() };
    let grown = Alert { count: 7, ..provisional.clone() };
    let gone = Alert { state: AlertState::Provisional, ..alert("b", 2) };
    let mut events = Vec::new();
    for rows in [
        vec![came(&provisional), came(&gone)],
        vec![went(&provisional), came(&grown), went(&gone)],
        vec![went(&grown), came(&open)],
    ] {
        let applied = world.epoch(rows, Vec::new()).await;
        events.extend(applied.alerts.iter().map(|change| (change.event, change.state, change.revision)));
        events.push((AlertEvent::Gauge, "intents", i64::try_from(applied.intents).unwrap()));
        let reader = world.ledger.reader().await.unwrap();
        let alerts = reader.alerts(&AlertFilter::default()).await.unwrap();
        let shown: Vec<String> = alerts.into_iter().map(|alert| alert.state).collect();
        let counted = reader.counts().await.unwrap().alerts;
        assert_eq!(shown.len(), usize::try_from(counted.iter().map(|(_, count)| count).sum::<i64>()).unwrap());
        assert!(counted.iter().all(|(state, _)| shown.contains(state)), "{counted:?} {shown:?}");
    }
    assert_eq!(
        events,
        [
            (AlertEvent::Provisional, "provisional", 1),
            (AlertEvent::Provisional, "provisional", 1),
            (AlertEvent::Gauge, "intents", 0),
            (AlertEvent::Gauge, "provisional", 1),
            (AlertEvent::Withdrawn, "withdrawn", 2),
            (AlertEvent::Gauge, "intents", 0),
            (AlertEvent::Opened, "open", 2),
            (AlertEvent::Gauge, "intents", 1),
        ]
    );
    let provisional = AlertFilter { state: Some("provisional".to_owned()), ..AlertFilter::default() };
    assert_eq!(world.ledger.reader().await.unwrap().alerts(&provisional).await.unwrap().len(), 0);
}

#[tokio::test]
async fn sealed_is_final_and_leaves_the_digest() {
    let mut world = World::new().await;
    let (one, two) = (alert("a", 1), alert("b", 2));
    let sealed = Alert { state: AlertState::Sealed, ..one.clone() };
    world.epoch(vec![came(&one), came(&two)], Vec::new()).await;
    world.epoch(vec![went(&one), came(&sealed)], vec![Lineage::Sealed(one.id)]).await;
    assert_eq!(world.state_of(&one).await.0, "sealed");
    world.epoch(vec![went(&sealed)], Vec::new()).await; // the graph forgets it
    assert_eq!(world.state_of(&one).await.0, "sealed");
    world.epoch(Vec::new(), vec![Lineage::Sealed(two.id)]).await;
    assert_eq!(world.ledger.digest().await.unwrap(), 0);
}

#[tokio::test]
async fn messages_nobody_has_seen_are_folded() {
    let mut world = World::new().await;
    let first = alert("a", 1);
    let raised = Alert { level: Level::Critical, ..first.clone() };
    world.epoch(vec![came(&first)], Vec::new()).await;
    world.epoch(vec![went(&first), came(&raised)], Vec::new()).await;
    let pending = world.pending("file").await;
    let seen: Vec<_> =
        pending.iter().map(|intent| (intent.operation, intent.revision, &intent.body["level"])).collect();
    assert_eq!(seen, [(Operation::Opened, Some(2), &json!("critical"))]);
    // Amendments wait for the interval, the first message does not.
    world.routes.amend_interval_us = 30_000_000;
    world.work("file", Outcome::Confirmed).await;
    world.epoch(vec![went(&raised), came(&first)], Vec::new()).await;
    assert_eq!(world.pending("file").await, []);
    assert_eq!(world.ledger.next_due("file").await.unwrap(), Some(wall(2).plus_micros(30_000_000)));
    // A low alert is not for this channel.
    let low = Alert { level: Level::Low, ..alert("z", 5) };
    assert_eq!(world.epoch(vec![came(&low)], Vec::new()).await.intents, 0);
}

#[tokio::test]
async fn an_incident_keeps_its_number_by_lineage() {
    let mut world = World::new().await;
    let (a, b, c) = (alert("a", 10), alert("b", 20), alert("c", 30));
    let all = vec![came(&a), came(&b), came(&c), incident(&[&a], 1), incident(&[&b], 1), incident(&[&c], 1)];
    let applied = world.epoch(all, Vec::new()).await;
    assert_eq!(applied.alerts.iter().map(|change| change.incident).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    let numbers = |applied: &Applied| {
        applied.incidents.iter().map(|change| (change.number, change.state, change.redirect)).collect::<Vec<_>>()
    };
    // b and c meet: 3 goes into 2.
    let merged = world.epoch(vec![incident(&[&b], -1), incident(&[&c], -1), incident(&[&b, &c], 1)], vec![]).await;
    assert_eq!(numbers(&merged), [(2, "open", None), (3, "merged", Some(2))]);
    // all meet: 2 goes into 1, and 3 with it.
    let merged =
        world.epoch(vec![incident(&[&a], -1), incident(&[&b, &c], -1), incident(&[&a, &b, &c], 1)], vec![]).await;
    assert_eq!(numbers(&merged), [(1, "open", None), (2, "merged", Some(1))]);
    // they part: who holds the canonical alert of before keeps the number.
    let split =
        world.epoch(vec![incident(&[&a, &b, &c], -1), incident(&[&a, &c], 1), incident(&[&b], 1)], vec![]).await;
    assert_eq!(numbers(&split), [(1, "open", None), (4, "open", None)]);
    // the canonical alert is withdrawn: the rest keeps the number, the alert stays in the story.
    let rest = world.epoch(vec![went(&a), incident(&[&a, &c], -1), incident(&[&c], 1)], vec![]).await;
    assert_eq!(numbers(&rest), [(1, "open", None)]);
    let reader = world.ledger.reader().await.unwrap();
    let story = reader.incident(3).await.unwrap().unwrap();
    assert_eq!((story.incident.number, story.incident.alerts, story.alert_list.len()), (1, 1, 2));
    // its last alert goes for good.
    let end = world.epoch(vec![went(&c), incident(&[&c], -1)], vec![]).await;
    assert_eq!(numbers(&end), [(1, "withdrawn", None)]);
    let list = reader.incidents(false, 10).await.unwrap();
    assert_eq!(
        list.iter().map(|one| (one.number, one.state.as_str())).collect::<Vec<_>>(),
        [(4, "open"), (1, "withdrawn")]
    );
}

#[tokio::test]
async fn an_action_is_applied_once_and_undone_when_its_time_is_up() {
    let mut world = World::new().await;
    let (a, b) = (alert("a", 1), alert("b", 2));
    let block = |_: &World| (Operation::Block, "10.0.0.9".to_owned());
    world.epoch(vec![came(&a), desired(&a, "10.0.0.9", 1)], vec![]).await;
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [block(&world)]);
    let in_force = world.ledger.actions_in_force().await.unwrap();
    let until = wall(1).plus_micros(10_000_000);
    assert_eq!(
        in_force,
        [ActionInForce { id: 1, kind: "block_address".to_owned(), target: "10.0.0.9".to_owned(), until }]
    );
    assert_eq!(world.ledger.expire_actions(until.plus_micros(-1)).await.unwrap(), 0);
    assert_eq!(world.ledger.expire_actions(until).await.unwrap(), 1);
    world.epoch = 20;
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [(Operation::Unblock, "10.0.0.9".to_owned())]);
    assert_eq!(world.action_states().await, [("undone".to_owned(), Some("expired".to_owned()))]);
    // The same alert does not bring it back, also when it goes and comes; another does.
    world.epoch = 1;
    world.epoch(vec![desired(&a, "10.0.0.9", -1)], vec![]).await;
    world.epoch(vec![desired(&a, "10.0.0.9", 1)], vec![]).await;
    world.epoch = 3;
    assert_eq!(world.ledger.pending(BLOCK_ADDRESS, wall(99), 9).await.unwrap(), []);
    world.epoch(vec![came(&b), desired(&b, "10.0.0.9", 1)], vec![]).await;
    let again = world.ledger.pending(BLOCK_ADDRESS, wall(99), 9).await.unwrap();
    assert_eq!(
        again.iter().map(|intent| (intent.operation, intent.action)).collect::<Vec<_>>(),
        [(Operation::Block, Some(2))]
    );
}

#[tokio::test]
async fn an_action_ends_with_the_last_alert_that_wants_it() {
    let mut world = World::new().await;
    let (a, b) = (alert("a", 1), alert("b", 2));
    world.epoch(vec![came(&a), came(&b), desired(&a, "10.0.0.9", 1), desired(&b, "10.0.0.9", 1)], vec![]).await;
    world.work(BLOCK_ADDRESS, Outcome::Confirmed).await;
    world.epoch(vec![went(&a), desired(&a, "10.0.0.9", -1)], vec![]).await;
    assert_eq!(world.pending(BLOCK_ADDRESS).await, []);
    world.epoch(vec![went(&b), desired(&b, "10.0.0.9", -1)], vec![]).await;
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [(Operation::Unblock, "10.0.0.9".to_owned())]);
    assert_eq!(world.action_states().await, [("undone".to_owned(), Some("withdrawn".to_owned()))]);
    // Its reason came back: it may be applied again.
    world.epoch(vec![came(&a), desired(&a, "10.0.0.9", 1)], vec![]).await;
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [(Operation::Block, "10.0.0.9".to_owned())]);
    // A further alert begins its time anew, in the same application.
    let c = alert("c", 3);
    world.epoch(vec![came(&c), desired(&c, "10.0.0.9", 1)], vec![]).await;
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [(Operation::Block, "10.0.0.9".to_owned())]);
    assert_eq!(world.ledger.actions_in_force().await.unwrap()[0].until, wall(5).plus_micros(10_000_000));
}

#[tokio::test]
async fn what_nobody_tried_is_cancelled_and_what_was_not_done_is_not_repeated() {
    let mut world = World::new().await;
    let a = alert("a", 1);
    world.epoch(vec![came(&a), desired(&a, "10.0.0.1", 1)], vec![]).await;
    world.epoch(vec![desired(&a, "10.0.0.1", -1)], vec![]).await;
    assert_eq!(world.pending(BLOCK_ADDRESS).await, []);
    for (target, outcome, state) in [
        ("10.0.0.2", Outcome::Refused, "refused"),
        ("10.0.0.3", Outcome::DryRun, "dry_run"),
        ("10.0.0.4", Outcome::Failed { retry_at: None }, "failed"),
    ] {
        world.epoch(vec![desired(&a, target, 1)], vec![]).await;
        world.work(BLOCK_ADDRESS, outcome).await;
        world.epoch(vec![desired(&a, target, -1)], vec![]).await;
        world.epoch(vec![desired(&a, target, 1)], vec![]).await;
        assert_eq!(world.pending(BLOCK_ADDRESS).await, [], "{target}");
        assert_eq!(world.action_states().await.last().unwrap().0, state);
    }
}

#[tokio::test]
async fn an_undoing_waits_for_the_try_before_it() {
    let mut world = World::new().await;
    let a = alert("a", 1);
    world.epoch(vec![came(&a), desired(&a, "10.0.0.9", 1)], vec![]).await;
    let intent = world.pending(BLOCK_ADDRESS).await.remove(0);
    let begun = world.ledger.begin_try(&intent, wall(1)).await.unwrap();
    // The alert goes while the block is on its way.
    world.epoch(vec![went(&a), desired(&a, "10.0.0.9", -1)], vec![]).await;
    assert_eq!(world.pending(BLOCK_ADDRESS).await, []);
    world.ledger.finish(&begun, &Outcome::Confirmed, &json!({}), wall(2)).await.unwrap();
    assert_eq!(world.action_states().await, [("undoing".to_owned(), Some("withdrawn".to_owned()))]);
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [(Operation::Unblock, "10.0.0.9".to_owned())]);
    assert_eq!(world.action_states().await[0].0, "undone");
}

#[tokio::test]
async fn what_was_being_tried_when_the_engine_died_is_verified_first() {
    let mut world = World::new().await;
    let a = alert("a", 1);
    world.epoch(vec![came(&a), desired(&a, "10.0.0.9", 1)], vec![]).await;
    let intent = world.pending(BLOCK_ADDRESS).await.remove(0);
    assert!(!intent.verify_first);
    world.ledger.begin_try(&intent, wall(1)).await.unwrap();
    let again = world.ledger.begin_try(&intent, wall(1)).await;
    assert!(matches!(again, Err(LedgerError::Intent { .. })), "{again:?}");
    let world = world.restart().await;
    let pending = world.pending(BLOCK_ADDRESS).await;
    let seen: Vec<_> = pending.iter().map(|one| (one.verify_first, one.tries, one.key == intent.key)).collect();
    assert_eq!(seen, [(true, 1, true)]);
    // A try that ends without an answer is the same.
    let begun = world.ledger.begin_try(&pending[0], wall(1)).await.unwrap();
    let unknown = Outcome::Unknown { retry_at: Some(wall(9)) };
    world.ledger.finish(&begun, &unknown, &json!({}), wall(1)).await.unwrap();
    assert_eq!(world.pending(BLOCK_ADDRESS).await, []);
    assert!(world.ledger.pending(BLOCK_ADDRESS, wall(9), 1).await.unwrap()[0].verify_first);
}

#[tokio::test]
async fn only_the_next_epoch_of_the_holding_generation_passes() {
    let mut world = World::new().await;
    world.epoch(vec![came(&alert("a", 1))], vec![]).await;
    let apply = async |epoch, generation| {
        let output = EpochOutput { epoch, rows: vec![came(&alert("b", 1))], ..EpochOutput::default() };
        world.ledger.apply(&record(epoch, generation), &output, &world.routes, &|_| None).await
    };
    for (epoch, generation) in [(1, 1), (3, 1), (2, 0), (2, 2)] {
        let refused = apply(epoch, generation).await;
        assert!(matches!(refused, Err(LedgerError::Fenced { upper: 2, holder: 1, .. })), "{refused:?}");
    }
    assert_eq!(apply(2, 1).await.unwrap().upper, 3);
    assert_eq!(world.ledger.epochs_from(2).await.unwrap(), [record(2, 1)]);
    assert_eq!(world.ledger.epochs_from(0).await.unwrap().len(), 2);
}

#[tokio::test]
async fn differences_are_listed() {
    let mut world = World::new().await;
    let (a, b) = (alert("a", 1), alert("b", 2));
    world.epoch(vec![came(&a), came(&b)], vec![]).await;
    let mut other = Present::default();
    let c = alert("c", 3);
    let changed = Alert { count: 6, ..a.clone() };
    let rows = vec![came(&changed), came(&c)];
    other.apply(&EpochOutput { rows, ..EpochOutput::default() });
    let mut differences = world.ledger.reconcile(&other).await.unwrap();
    differences.sort_by_key(|difference| format!("{difference:?}"));
    let rule = || "rule-1".to_owned();
    assert_eq!(
        differences,
        [
            Difference::Content { alert: a.id, rule: rule() },
            Difference::OnlyInGraph { alert: c.id, rule: rule() },
            Difference::OnlyInLedger { alert: b.id, rule: rule() },
        ]
    );
}

#[tokio::test]
async fn another_engine_s_results_are_adopted_with_their_reason() {
    let mut world = World::new().await;
    let (a, b, c) = (alert("a", 1), alert("b", 2), alert("c", 3));
    let risk = |hour| {
        let entity = a.entities[0].clone();
        Row::Risk(EntityRisk { tenant: Tenant::default(), entity, buckets: vec![(hour, 75)] })
    };
    let rows = vec![came(&a), came(&b), incident(&[&a, &b], 1), desired(&b, "10.0.0.9", 1), (risk(1), 1)];
    world.epoch(rows, vec![]).await;
    world.work("file", Outcome::Confirmed).await;
    world.work(BLOCK_ADDRESS, Outcome::Confirmed).await;
    // The other engine has no b, another a, and c besides.
    let mut other = Present::default();
    let changed = Alert { count: 6, ..a.clone() };
    let rows = vec![came(&changed), came(&c), incident(&[&a], 1), incident(&[&c], 1), (risk(2), 1)];
    other.apply(&EpochOutput { rows, ..EpochOutput::default() });
    assert_eq!(world.ledger.reconcile(&other).await.unwrap().len(), 3);
    let applied = world.ledger.adopt(&record(2, 1), &other, &world.routes, &|_| None).await.unwrap();
    world.epoch = 2;
    let seen: Vec<_> = applied.alerts.iter().map(|change| (change.event, change.incident)).collect();
    assert_eq!(seen, [(AlertEvent::Gauge, Some(1)), (AlertEvent::Withdrawn, Some(1)), (AlertEvent::Opened, Some(2))]);
    assert_eq!(world.state_of(&b).await.1.as_deref(), Some("engine_changed"));
    assert_eq!(world.ledger.digest().await.unwrap(), other.digest());
    assert_eq!(world.ledger.reconcile(&other).await.unwrap(), []);
    assert_eq!(world.work(BLOCK_ADDRESS, Outcome::Confirmed).await, [(Operation::Unblock, "10.0.0.9".to_owned())]);
    assert_eq!(world.ledger.reader().await.unwrap().risk().await.unwrap(), other.risk().cloned().collect::<Vec<_>>());
    // Then there is nothing left to adopt.
    let again = world.ledger.adopt(&record(3, 1), &other, &world.routes, &|_| None).await.unwrap();
    assert_eq!((again.alerts.len(), again.incidents.len(), again.intents), (0, 0, 0));
}

#[tokio::test]
async fn the_folder_is_held_by_one_and_refused_clearly() {
    let world = World::new().await;
    let second = Ledger::open(world.dir.path()).await.unwrap_err().to_string();
    assert!(second.contains(&format!("is in use by process {}", std::process::id())), "{second}");
    let missing = Reader::open(Path::new("/nonexistent")).await.unwrap_err().to_string();
    assert!(missing.contains("there is no ledger in /nonexistent"), "{missing}");
    let file = world.dir.path().join("plain");
    std::fs::write(&file, "x").unwrap();
    let below = Ledger::open(&file.join("data")).await.unwrap_err().to_string();
    assert!(below.contains("or a part of its path, is a file"), "{below}");
    let dir = world.dir.path().to_path_buf();
    execute(&dir, "UPDATE meta SET value = '7' WHERE key = 'format_version'").await;
    let World { dir: guard, ledger, .. } = world;
    drop(ledger);
    let newer = Ledger::open(&dir).await.unwrap_err().to_string();
    assert!(newer.contains("has format 7, this engine (0.1.0) knows formats up to 2; start the newer"), "{newer}");
    // The file is looked at before anything is opened, and says which version to use; readers look, too.
    std::fs::write(dir.join("format"), r#"{"format":9,"written_by":"4.2.0"}"#).unwrap();
    for newer in [
        Ledger::open(&dir).await.unwrap_err().to_string(),
        Reader::open(&dir).await.unwrap_err().to_string(),
        ControlLog::open(&dir).await.unwrap_err().to_string(),
    ] {
        assert!(newer.contains("has format 9") && newer.contains("start Counterflow 4.2.0 or a later"), "{newer}");
    }
    std::fs::write(dir.join("format"), "nonsense").unwrap();
    let damaged = Ledger::open(&dir).await.unwrap_err().to_string();
    assert!(damaged.contains("does not state a format"), "{damaged}");
    drop(guard);
}

/// OPS-08: what a restored ledger tells again has the key that it had, whatever came before it and in whichever epochs.
#[tokio::test]
async fn a_message_has_the_same_key_in_any_order() {
    let keys = async |epochs: Vec<Vec<Alert>>| {
        let mut world = World::new().await;
        for alerts in epochs {
            world.epoch(alerts.iter().map(came).collect(), vec![]).await;
        }
        let pending = world.pending("file").await;
        pending.into_iter().map(|intent| (intent.thread, intent.key)).collect::<BTreeMap<_, _>>()
    };
    let [one, two, three] = ["u1", "u2", "u3"].map(|user| alert(user, 1));
    let together = keys(vec![vec![one.clone(), two.clone(), three.clone()]]).await;
    let apart = keys(vec![vec![three.clone()], vec![two.clone()], vec![one.clone()]]).await;
    assert_eq!(together.len(), 3);
    assert_eq!(together, apart);

    // Said again after it was taken back, it is another message; another level is one, too.
    let mut world = World::new().await;
    let mut seen = std::collections::BTreeSet::new();
    let higher = Alert { level: Level::Critical, ..one.clone() };
    let steps = [vec![came(&one)], vec![went(&one)], vec![came(&one)], vec![went(&one), came(&higher)]];
    for (step, rows) in steps.into_iter().enumerate() {
        world.epoch(rows, vec![]).await;
        let pending = world.pending("file").await;
        assert_eq!(pending.len(), 1, "step {step}");
        assert!(seen.insert(pending[0].key.clone()), "step {step}");
        world.work("file", Outcome::Confirmed).await;
    }
}

/// OPS-08: for a day after a restore everything is verified before it is tried.
#[tokio::test]
async fn a_restored_ledger_verifies_first() {
    if in_postgres() {
        return; // its backup is pg_dump's
    }
    let mut world = World::new().await;
    world.epoch(vec![came(&alert("u1", 1))], vec![]).await;
    let copy = folder().await;
    let stands = crate::restored::copy(world.dir.path(), &copy.path().join("ledger.db")).await.unwrap();
    assert_eq!(stands.upper, 2);
    assert!(crate::restored::copy(world.dir.path(), &copy.path().join("ledger.db")).await.is_err(), "it is there");
    crate::restored::mark(copy.path(), json!({"made_at": "now"}), wall(1)).await.unwrap();
    drop(world);

    let ledger = Ledger::open(copy.path()).await.unwrap();
    let generation = ledger.begin_generation(wall(1)).await.unwrap();
    let routes =
        Routes { routes: vec![Route { channel: Arc::from("file"), level_min: Level::Medium }], amend_interval_us: 0 };
    let day = 24 * 3_600;
    for (epoch, user, at) in [(2, "u2", 2), (3, "u3", day + 2), (4, "u4", day + 3)] {
        let output = EpochOutput { epoch, rows: vec![came(&alert(user, 1))], ..EpochOutput::default() };
        let record = EpochRecord { wall: wall(at), ..record(epoch, generation) };
        ledger.apply(&record, &output, &routes, &|_| None).await.unwrap();
    }
    let pending = ledger.pending("file", wall(day * 2), 100).await.unwrap();
    let verified: Vec<bool> = pending.iter().map(|intent| intent.verify_first).collect();
    assert_eq!(verified, [true, true, true, false], "planned, within the day, the first after it, later");
    assert_eq!(ledger.audit_verify().await.unwrap(), None);
}

/// ING-05: each reject goes through again once, and the record is kept as long as its epoch may be replayed.
#[tokio::test]
async fn rejects_go_through_again_once() {
    use cf_types::{Framing, Origin, Position, Record};
    let mut world = World::new().await;
    let retry = |epoch, offset| {
        let origin = Origin {
            tenant: Tenant::default(),
            source: Arc::from("http"),
            received_at: wall(0),
            year: None,
            framing: Framing::Http,
        };
        let position = Position { origin: Arc::from("spool"), offset, line: 0, index: 2 };
        crate::Retry { epoch, record: Record { origin: Arc::new(origin), position, bytes: "{}".into() } }
    };
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    let first = log.retry(&[retry(1, 7), retry(1, 8)], "me", "why", wall(1)).await.unwrap();
    assert_eq!(first, Some((1, 2)));
    assert_eq!(log.retry(&[retry(1, 8)], "me", "why", wall(2)).await.unwrap(), None);
    // One of them failed again in a later epoch; it and an old one are asked for.
    assert_eq!(log.retry(&[retry(1, 7), retry(5, 7)], "me", "", wall(3)).await.unwrap(), Some((2, 1)));
    let many = (0..=crate::retries::RECORDS_MAX).map(|n| retry(9, u64::try_from(n).unwrap())).collect::<Vec<_>>();
    assert!(log.retry(&many, "me", "", wall(3)).await.unwrap_err().to_string().contains("at most 500"));

    let offsets = async |ledger: &Ledger, seq| {
        let records = ledger.retried(seq).await.unwrap();
        records.iter().map(|record| (record.position.offset, record.position.index)).collect::<Vec<_>>()
    };
    assert_eq!(offsets(&world.ledger, 1).await, [(7, 2), (8, 2)]);
    let reader = world.ledger.reader().await.unwrap();
    let known = reader.retries(&[retry(1, 7).key(), retry(1, 9).key()]).await.unwrap();
    assert_eq!(known.into_values().collect::<Vec<_>>(), [(1, wall(1))]);

    // The epoch that took entry 1 is in the facts log: its records are let go of, the keys stay.
    world.epoch(vec![], vec![]).await;
    world.ledger.epochs_trim(1).await.unwrap();
    assert_eq!(offsets(&world.ledger, 1).await, [(7, 2), (8, 2)], "epoch 1 took nothing of the control log");
    let output = EpochOutput { epoch: 2, ..EpochOutput::default() };
    let record = EpochRecord { control: 1, ..record(2, world.generation) };
    world.ledger.apply(&record, &output, &world.routes, &|_| None).await.unwrap();
    world.ledger.epochs_trim(2).await.unwrap();
    assert_eq!(offsets(&world.ledger, 1).await, []);
    assert_eq!(offsets(&world.ledger, 2).await, [(7, 2)]);
    assert_eq!(log.retry(&[retry(1, 8)], "me", "why", wall(2)).await.unwrap(), None);
}

/// OPS-07: the ledger of before is copied, then migrated, whatever a crash left of an earlier attempt.
#[tokio::test]
async fn a_folder_of_format_1_is_migrated_after_a_copy() {
    if in_postgres() {
        return; // there was no such format
    }
    let mut world = World::new().await;
    let one = alert("u1", 1);
    world.epoch(vec![came(&one)], vec![]).await;
    let World { dir, ledger, .. } = world;
    drop(ledger);
    let dir = dir.path();
    execute(dir, "UPDATE meta SET value = '1' WHERE key = 'format_version'").await;
    execute(dir, "DROP TABLE retries").await;
    execute(dir, "DROP TABLE backfilled").await;
    std::fs::remove_file(dir.join("format")).unwrap();
    // An interrupted copy is no copy.
    std::fs::write(dir.join("ledger.format-1.new"), "half").unwrap();
    let readers = Reader::open(dir).await.unwrap();
    assert_eq!(readers.alerts(&AlertFilter::default()).await.unwrap().len(), 1, "an older folder can be read as it is");
    drop(readers);
    assert!(!dir.join("format").exists());

    let ledger = Ledger::open(dir).await.unwrap();
    assert_eq!(ledger.reader().await.unwrap().alerts(&AlertFilter::default()).await.unwrap().len(), 1);
    assert_eq!(crate::format::stated(dir).unwrap(), Some(crate::format::Stated::ours()));
    assert!(!dir.join("ledger.format-1.new").exists());
    drop(ledger);
    let kept = sqlx::ConnectOptions::connect(&schema::reading_file(&dir.join("ledger.format-1.db"))).await.unwrap();
    let mut kept = Connection::sqlite(kept);
    assert_eq!(schema::format_of(&mut kept).await.unwrap(), Some(1), "as it was");
    assert!(!schema::has_table(&mut kept, "retries").await.unwrap());
    drop(kept);

    // Killed after the ledger had changed: nothing is copied again, the file is written.
    std::fs::remove_file(dir.join("format")).unwrap();
    std::fs::remove_file(dir.join("ledger.format-1.db")).unwrap();
    drop(Ledger::open(dir).await.unwrap());
    assert!(dir.join("format").exists() && !dir.join("ledger.format-1.db").exists());
}

#[tokio::test]
async fn facts_are_added_beside_a_running_and_a_stopped_engine() {
    let world = World::new().await;
    let dir = world.dir.path().to_path_buf();
    let fact = allow("10.1.2.3/32");
    let mut beside = ControlLog::open(&dir).await.unwrap();
    assert_eq!(beside.fact_add(&fact, "me", "a scanner of ours", wall(1)).await.unwrap(), Some(1));
    assert_eq!(beside.fact_add(&fact, "me", "again", wall(2)).await.unwrap(), None);
    let entries = world.ledger.control_since(0).await.unwrap();
    assert_eq!(entries[0].fact().unwrap(), Some((fact.clone(), 1)));
    let World { dir: guard, ledger, .. } = world;
    drop(ledger);
    assert_eq!(beside.fact_remove(&fact, "me", "gone", wall(3)).await.unwrap(), Some(2));
    let ledger = Ledger::open(&dir).await.unwrap();
    assert_eq!(ledger.facts_at(1).await.unwrap(), [fact]);
    assert_eq!(ledger.facts_at(2).await.unwrap(), []);
    assert_eq!(ledger.audit_verify().await.unwrap(), None);
    drop(guard);
}

fn said(kind: &str, json: &str) -> Fact {
    Fact { tenant: Tenant::default(), body: Said::read(kind, json.as_bytes()).unwrap().body }
}

#[tokio::test]
async fn a_fact_takes_the_place_of_what_was_said_of_its_subject() {
    let world = World::new().await;
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    let three = said("asset", r#"{"value":"host:a","criticality":3}"#);
    let five = said("asset", r#"{"value":"host:a","criticality":5}"#);
    let other = said("asset", r#"{"value":"host:b"}"#);
    for (fact, seq) in [(&three, Some(1)), (&three, None), (&five, Some(3)), (&other, Some(4))] {
        assert_eq!(log.fact_add(fact, "me", "", wall(1)).await.unwrap(), seq);
    }
    let held = |facts: Vec<(Fact, crate::ControlEntry)>| facts.into_iter().map(|(fact, _)| fact).collect::<Vec<_>>();
    let mut expect = vec![five, other.clone()];
    expect.sort();
    assert_eq!(held(log.facts().await.unwrap()), expect);
    // Whatever it says: it is removed by what it is about.
    assert_eq!(log.fact_remove(&three, "me", "", wall(2)).await.unwrap(), Some(5));
    assert_eq!(log.fact_remove(&three, "me", "", wall(2)).await.unwrap(), None);
    assert_eq!(held(log.facts().await.unwrap()), [other]);
    assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
}

#[tokio::test]
async fn an_engine_that_does_not_know_the_table_of_facts_is_followed() {
    let world = World::new().await;
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    let (one, two) = (allow("10.0.0.1/32"), allow("10.0.0.2/32"));
    log.fact_add(&one, "me", "", wall(1)).await.unwrap();
    let body = |fact: &Fact| serde_json::to_string(fact).unwrap();
    log.append("fact_remove", &body(&one), "older", "", wall(2)).await.unwrap();
    log.append("fact_add", &body(&two), "older", "", wall(2)).await.unwrap();
    assert_eq!(log.fact_add(&two, "me", "", wall(3)).await.unwrap(), None);
    assert_eq!(log.fact_add(&one, "me", "", wall(3)).await.unwrap(), Some(4));
}

#[tokio::test]
async fn a_verdict_gets_its_alerts_rule_and_many_facts_are_one_transaction() {
    let mut world = World::new().await;
    let one = alert("a", 100);
    world.epoch(vec![came(&one)], Vec::new()).await;
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    let verdict = |alert: &str| said("verdict", &format!(r#"{{"value":"{alert}","verdict":"true_positive"}}"#));
    let facts = [verdict(&one.id.to_string()), verdict(&"0".repeat(32)), verdict(&one.id.to_string())];
    let new = |fact: &Fact| NewFact { fact: fact.clone(), author: "me".into(), reason: String::new() };
    let done = log.facts_add(&facts.each_ref().map(new), wall(7)).await.unwrap();
    let shown: Vec<String> = done
        .into_iter()
        .map(|one| one.map_or_else(|error| error.to_string(), |seq| format!("{:?}", seq.is_some())))
        .collect();
    let unknown = format!("this fact cannot hold: there is no alert {}", "0".repeat(32));
    assert_eq!(shown, ["true", unknown.as_str(), "false"]);
    let (held, _) = log.facts().await.unwrap().pop().unwrap();
    let FactBody::Verdict(held) = held.body else { panic!("a verdict") };
    assert_eq!((held.rule, held.at), (one.rule, wall(7)));
}

#[tokio::test]
async fn a_suppressed_alert_is_kept_with_its_reason() {
    let mut world = World::new().await;
    let (one, fact) = (alert("a", 100), allow("10.0.0.0/8"));
    let row = |diff| (Row::Suppressed(Suppressed { alert: one.clone(), fact: fact.clone() }), diff);
    world.epoch(vec![row(1)], Vec::new()).await;
    let reader = world.ledger.reader().await.unwrap();
    let held = reader.suppressed(10).await.unwrap();
    assert_eq!((held[0].alert_id.as_str(), held[0].reason.as_str()), (&*one.id.to_string(), "allowed by 10.0.0.0/8"));
    let audited = reader.audit(0, 100).await.unwrap();
    assert!(audited.iter().any(|record| record.action == "alert_suppressed"));
    world.epoch(vec![row(-1), came(&one)], Vec::new()).await;
    assert_eq!(reader.suppressed(10).await.unwrap(), []);
}

/// RSK-06, RSK-11: one record per alert, with its history; and what entities carry.
#[tokio::test]
async fn assessments_risk_and_radii_are_read_with_their_history() {
    let mut world = World::new().await;
    let one = alert("a", 1_000 * 3_600);
    let entity = Entity::of(EntityKind::Address, "10.0.0.1").unwrap();
    let one = Alert { entities: vec![entity.clone()], ..one };
    let assessed = |criticality: u8| {
        let asset = format!(r#"{{"value":"{entity}","criticality":{criticality}}}"#);
        let FactBody::Asset(asset) = said("asset", &asset).body else { panic!("an asset") };
        let context = assess::Context { assets: vec![asset], ..assess::Context::default() };
        Row::Assessment(assess::assess(&one, &context))
    };
    let tenant = Tenant::default();
    let risk = |tenths| Row::Risk(EntityRisk::new(tenant.clone(), entity.clone(), vec![(1_000, tenths)]));
    let level = |level| Row::RiskLevel(EntityLevel { tenant: tenant.clone(), entity: entity.clone(), level });
    let reached = |hops: [u64; 4]| {
        Row::Blast(BlastRadius {
            tenant: tenant.clone(),
            root: entity.clone(),
            hops: hops.to_vec(),
            by_criticality: vec![0; 5],
            named: Vec::new(),
            and_more: Vec::new(),
        })
    };
    let first =
        vec![came(&one), (assessed(5), 1), (risk(75), 1), (level(RiskLevel::High), 1), (reached([1, 0, 0, 0]), 1)];
    world.epoch(first, Vec::new()).await;
    let second = vec![
        (assessed(5), -1),
        (assessed(1), 1),
        (risk(75), -1),
        (risk(50), 1),
        (level(RiskLevel::High), -1),
        (level(RiskLevel::Medium), 1),
        (reached([1, 0, 0, 0]), -1),
        (reached([2, 1, 0, 0]), 1),
    ];
    world.epoch(second, Vec::new()).await;
    let reader = world.ledger.reader().await.unwrap();
    let story = reader.assessment_story(one.id).await.unwrap().unwrap();
    assert_eq!((story.before.len(), story.entities.len()), (1, 1));
    assert!(story.assessment.assessment.score < story.before[0].assessment.score);
    assert_eq!(story.entities[0].blast_radius.as_ref().unwrap().reached(), 3);
    let risk_story = reader.risk_story(&tenant, &entity).await.unwrap().unwrap();
    assert_eq!((risk_story.risk.score.tenths(), risk_story.risk.level), (50, RiskLevel::Medium));
    assert_eq!(risk_story.contributions.len(), 1);
    let words: Vec<_> = risk_story.changes.iter().map(|c| (c.was.as_str(), c.level.as_str())).collect();
    assert_eq!(words, [("high", "medium"), ("none", "high")]);
    assert_eq!(reader.risks().await.unwrap().len(), 1);

    let last = vec![
        (risk(50), -1),
        (level(RiskLevel::Medium), -1),
        (reached([2, 1, 0, 0]), -1),
        (assessed(1), -1),
        went(&one),
    ];
    world.epoch(last, Vec::new()).await;
    assert_eq!(reader.risks().await.unwrap(), []);
    let after = reader.risk_story(&tenant, &entity).await.unwrap().unwrap();
    assert_eq!((after.risk.level, after.contributions.len(), after.blast_radius), (RiskLevel::None, 0, None));
    assert_eq!(after.changes.len(), 3);
    assert_eq!(
        reader.assessment_story(one.id).await.unwrap().unwrap().before.len(),
        1,
        "what was known stays readable"
    );
}

#[tokio::test]
async fn another_score_alone_is_a_lesser_difference() {
    let mut world = World::new().await;
    let (one, two) = (alert("a", 100), alert("b", 200));
    world.epoch(vec![came(&one), came(&two)], Vec::new()).await;
    let mut present = Present::default();
    let scored = Alert { score: Score::from_tenths(1), ..one.clone() };
    let counted = Alert { count: 99, ..two.clone() };
    let rows = vec![(Row::Alert(scored), 1), (Row::Alert(counted), 1)];
    present.apply(&EpochOutput { epoch: 1, rows, ..EpochOutput::default() });
    let found = world.ledger.reconcile(&present).await.unwrap();
    let rule = |alert: &Alert| alert.rule.to_string();
    assert!(found.contains(&Difference::Score { alert: one.id, rule: rule(&one) }), "{found:?}");
    assert!(found.contains(&Difference::Content { alert: two.id, rule: rule(&two) }), "{found:?}");
}

#[tokio::test]
async fn rule_sets_are_kept_by_hash() {
    let world = World::new().await;
    world.ledger.rule_set_put("abc", b"title: x", wall(1)).await.unwrap();
    world.ledger.rule_set_put("abc", b"other", wall(1)).await.unwrap();
    assert_eq!(world.ledger.rule_set_get("abc").await.unwrap().unwrap(), b"title: x");
    assert_eq!(world.ledger.rule_set_get("abd").await.unwrap(), None);
    let two: [(&str, &[u8]); 2] = [("text:1", b"one"), ("text:2", b"two")];
    world.ledger.rule_sets_put(&two, wall(2)).await.unwrap();
    assert_eq!(world.ledger.rule_set_get("text:2").await.unwrap().unwrap(), b"two");
    let hashes: Vec<_> = world.ledger.rule_set_hashes("text:").await.unwrap().into_iter().collect();
    assert_eq!(hashes, ["text:1", "text:2"]);
}

#[tokio::test]
async fn an_epoch_that_rules_begin_with_is_remembered_with_it() {
    let world = World::new().await;
    let routes = Routes::default();
    let apply = async |epoch: u64, begun: &[&str]| {
        let begun = begun.iter().map(ToString::to_string).collect();
        let record = EpochRecord { begun, ..record(epoch, 1) };
        let watermark = Some(Time::from_micros(i64::try_from(epoch).unwrap() * 10));
        let output = EpochOutput { epoch, watermark, ..EpochOutput::default() };
        world.ledger.apply(&record, &output, &routes, &|_| None).await
    };
    apply(1, &["a", "b"]).await.unwrap();
    apply(2, &[]).await.unwrap();
    apply(3, &["b"]).await.unwrap();
    // An epoch that is not applied leaves nothing.
    assert!(apply(9, &["c"]).await.is_err());
    let since = world.ledger.rules_since().await.unwrap();
    assert_eq!(since, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 3)]));
    let reader = world.ledger.reader().await.unwrap();
    let cases = [("a", 1, Some(None)), ("b", 3, Some(Some(Time::from_micros(20)))), ("b", 1, None), ("c", 9, None)];
    for (rule, epoch, watermark) in cases {
        assert_eq!(reader.rule_watermark(rule, epoch).await.unwrap(), watermark, "{rule} since epoch {epoch}");
    }
    assert_eq!(world.ledger.epochs_from(3).await.unwrap()[0].begun, ["b"]);
    let entries = [("rule", "{}"), ("other", "{}"), ("rule", "[]")];
    for (kind, body) in entries {
        world.ledger.control_append(kind, body, "me", "", wall(1)).await.unwrap();
    }
    let bodies = world.ledger.control_of_kind("rule").await.unwrap().into_iter().map(|entry| entry.body);
    assert_eq!(bodies.collect::<Vec<_>>(), ["{}", "[]"]);
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_half_written() {
    if in_postgres() {
        return; // by SQLite's own limit
    }
    let mut world = World::new().await;
    world.epoch(vec![came(&alert("a", 1))], vec![]).await;
    // SQLite's own limit stands for the disk's: the same error at the same places.
    database::query("PRAGMA max_page_count = 1").execute(&mut *world.ledger.writer().await).await.unwrap();
    let rows = (0..2_000).map(|n| came(&alert(&format!("u{n}"), n))).collect();
    let output = EpochOutput { epoch: 2, rows, ..EpochOutput::default() };
    let full = world.ledger.apply(&record(2, 1), &output, &world.routes, &|_| None).await.unwrap_err();
    assert!(full.is_disk_full() && full.to_string().contains("free space"), "{full}");
    database::query("PRAGMA max_page_count = 1000000").execute(&mut *world.ledger.writer().await).await.unwrap();
    world.ledger.apply(&record(2, 1), &output, &world.routes, &|_| None).await.unwrap();
    assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
}

async fn execute(dir: &Path, sql: &'static str) {
    database::query(sql).execute(&mut connection(dir).await).await.unwrap();
}

/// Every kind of edit, at every place: the verifier finds all.
#[tokio::test]
async fn every_mutation_of_the_audit_chain_is_found() {
    let mut world = World::new().await;
    for n in 0..12 {
        let one = alert(&format!("u{n}"), n);
        world.epoch(vec![came(&one), incident(&[&one], 1), desired(&one, &format!("10.0.0.{n}"), 1)], vec![]).await;
        world.work("file", Outcome::Confirmed).await;
        world.work(BLOCK_ADDRESS, Outcome::Confirmed).await;
    }
    assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
    let (last, _) = world.ledger.audit_head().await.unwrap();
    let mutations = [
        "UPDATE audit SET at = at + 1 WHERE seq = $1",
        "UPDATE audit SET actor = actor || 'x' WHERE seq = $1",
        "UPDATE audit SET subject = substr(subject, 2) || substr(subject, 1, 1) WHERE seq = $1",
        "UPDATE audit SET detail = detail || ' ' WHERE seq = $1",
        "UPDATE audit SET actor = actor || substr(action, 1, 1), action = substr(action, 2) WHERE seq = $1",
        "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'z') WHERE seq = $1",
        "DELETE FROM audit WHERE seq = $1",
        "DELETE FROM audit WHERE seq >= $1",
        "UPDATE audit SET (action, detail) = (SELECT b.action || 'x', b.detail FROM audit b WHERE b.seq = $1 % 9 + 1) WHERE seq = $1",
        "INSERT INTO audit SELECT seq + 100000, at, actor, action, subject, detail, prev_hash, hash FROM audit WHERE seq = $1",
    ];
    let mut found = 0;
    for seq in 1..=last {
        for sql in mutations {
            let mut writer = world.ledger.writer().await;
            database::query("BEGIN").execute(&mut *writer).await.unwrap();
            let done = database::query(sql).bind(seq).execute(&mut *writer).await.unwrap();
            assert!(done.rows_affected() > 0, "{sql} at {seq}");
            let fault = crate::audit::verify(&mut writer).await.unwrap();
            assert!(fault.is_some(), "{sql} at {seq} was not found");
            database::query("ROLLBACK").execute(&mut *writer).await.unwrap();
            found += 1;
        }
    }
    assert!(found > 500, "{found} mutations");
    eprintln!("audit: {found} mutations of a chain of {last}, all found");
}

/// One transaction of 100 alerts with an incident and a message each.
#[tokio::test]
async fn an_epoch_of_a_hundred_alerts_is_fast() {
    let mut world = World::new().await;
    let mut before: Vec<Alert> = Vec::new();
    let mut best = std::time::Duration::MAX;
    for round in 0..5u32 {
        let now: Vec<Alert> = (0..100)
            .map(|n| Alert {
                level: if round % 2 == 0 { Level::High } else { Level::Critical },
                ..alert(&format!("u{n}"), n)
            })
            .collect();
        let mut rows: Vec<_> = before.iter().map(went).chain(now.iter().map(came)).collect();
        if round == 0 {
            rows.extend(now.iter().map(|alert| incident(&[alert], 1)));
        }
        world.epoch += 1;
        let output = EpochOutput { epoch: world.epoch, rows, ..EpochOutput::default() };
        let begun = std::time::Instant::now();
        let applied = world.ledger.apply(&record(world.epoch, 1), &output, &world.routes, &|_| None).await.unwrap();
        best = best.min(begun.elapsed());
        assert_eq!(applied.intents, 100);
        before = now;
    }
    eprintln!("apply: 100 changed alerts, 100 messages, 200 audit records in {best:?}");
    assert!(best < std::time::Duration::from_secs(1), "{best:?}");
}

/// A small generator: the same numbers on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Alerts of a few groups come, change, move, merge, are sealed and go in any order; the engine dies now and then.
#[tokio::test]
async fn random_epochs_keep_the_invariants() {
    for seed in 1..=4 {
        let mut numbers = Numbers(seed);
        let mut world = World::new().await;
        let mut open: BTreeMap<AlertId, Alert> = BTreeMap::new();
        for _ in 0..60 {
            let (rows, lineage) = random_epoch(&mut numbers, &mut open);
            world.epoch(rows, lineage).await;
            if numbers.below(3) == 0 {
                world.work("file", Outcome::Confirmed).await;
            }
            if numbers.below(10) == 0 {
                if let Some(intent) = world.pending("file").await.first() {
                    world.ledger.begin_try(intent, wall(world.epoch)).await.unwrap();
                }
                world = world.restart().await;
            }
        }
        assert_invariants(&world, &open, seed).await;
    }
}

fn random_epoch(numbers: &mut Numbers, open: &mut BTreeMap<AlertId, Alert>) -> (Vec<(Row, i64)>, Vec<Lineage>) {
    let (mut rows, mut lineage) = (Vec::new(), Vec::new());
    for _ in 0..=numbers.below(4) {
        let group = format!("g{}", numbers.below(3));
        let anchor = i64::try_from(numbers.below(50)).unwrap();
        let new = alert(&group, anchor);
        let same_group: Vec<Alert> = open.values().filter(|alert| alert.group == new.group).cloned().collect();
        // One change per group and epoch, as an operator would give it.
        if rows.iter().any(|(row, _)| matches!(row, Row::Alert(alert) if alert.group == new.group)) {
            continue;
        }
        match (numbers.below(6), same_group.first()) {
            (0, Some(old)) => {
                rows.push(went(old));
                open.remove(&old.id);
            }
            (1, Some(old)) if !open.contains_key(&new.id) => {
                // All of the group become one new id.
                for old in &same_group {
                    rows.push(went(old));
                    open.remove(&old.id);
                    lineage.push(Lineage::SupersededBy { old: old.id, new: new.id });
                }
                assert!(!same_group.contains(old) || rows.contains(&went(old)));
                rows.push(came(&new));
                open.insert(new.id, new);
            }
            (2, Some(old)) => {
                let changed = Alert { count: old.count + 1, last_cell: old.last_cell + 1, ..old.clone() };
                rows.extend([went(old), came(&changed)]);
                open.insert(old.id, changed);
            }
            (3, Some(old)) => {
                let level = if old.level == Level::High { Level::Critical } else { Level::High };
                let changed = Alert { level, ..old.clone() };
                rows.extend([went(old), came(&changed)]);
                open.insert(old.id, changed);
            }
            (4, Some(old)) => {
                let sealed = Alert { state: AlertState::Sealed, ..old.clone() };
                rows.extend([went(old), came(&sealed)]);
                lineage.push(Lineage::Sealed(old.id));
                open.remove(&old.id);
            }
            _ if !open.contains_key(&new.id) => {
                rows.push(came(&new));
                open.insert(new.id, new);
            }
            _ => {}
        }
    }
    (rows, lineage)
}

async fn assert_invariants(world: &World, open: &BTreeMap<AlertId, Alert>, seed: u64) {
    let reader = world.ledger.reader().await.unwrap();
    let filter = AlertFilter { state: Some("open".to_owned()), ..AlertFilter::default() };
    let mut held: Vec<_> = reader.alerts(&filter).await.unwrap().into_iter().map(|view| view.alert_id).collect();
    held.sort();
    assert_eq!(held, open.keys().map(ToString::to_string).collect::<Vec<_>>(), "seed {seed}");
    // At most one message per thread, revision and channel; and the trail of what was told makes sense to a reader.
    let mut seen = std::collections::BTreeSet::new();
    let views = reader.alerts(&AlertFilter { limit: 10_000, ..AlertFilter::default() }).await.unwrap();
    let thread_now: BTreeMap<String, String> = views.into_iter().map(|view| (view.alert_id, view.thread)).collect();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut intents = reader.intents(10_000).await.unwrap();
    intents.reverse();
    for intent in intents.into_iter().filter(|intent| intent.state == "confirmed") {
        let thread = intent.thread.unwrap();
        assert!(seen.insert((thread.clone(), intent.revision, intent.receiver.clone())), "seed {seed}");
        let before = told.entry(thread.clone()).or_default();
        let sensible = match (intent.operation.as_str(), before.as_str()) {
            ("opened", "" | "withdrawn") | ("amended" | "withdrawn", "opened" | "amended") => true,
            // A thread that stays after a merge speaks for the one that goes.
            ("amended" | "withdrawn", _) => {
                seen.iter().any(|(other, ..)| *other != thread && thread_now[other] == thread_now[&thread])
            }
            _ => false,
        };
        assert!(sensible, "seed {seed}: {} after {before:?}", intent.operation);
        *before = intent.operation;
    }
    assert!(!seen.is_empty());
    assert_eq!(world.ledger.audit_verify().await.unwrap(), None);
}
