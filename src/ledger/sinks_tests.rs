//! What sinks are told, by a slow reader that folds records by key: it must end with the ledger's state, have every
//! revision, and see each id's in order.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{ChangeKind, Cursor};

const ALL: [ChangeKind; 3] = [ChangeKind::Alert, ChangeKind::Incident, ChangeKind::Action];

/// A compacted topic, with its cursor and every record that it was ever given.
struct Topic {
    name: &'static str,
    cursor: Cursor,
    state: BTreeMap<(ChangeKind, String), Value>,
    told: Vec<(String, Value)>,
}

impl Topic {
    async fn new(world: &World, name: &'static str) -> Topic {
        let cursor = world.ledger.sink_register(name, "{}", wall(0)).await.unwrap();
        Topic { name, cursor, state: BTreeMap::new(), told: Vec::new() }
    }

    /// Takes one batch of at most so many ids; with `dies` the cursor is not moved, as when the engine is killed.
    async fn take(&mut self, world: &World, ids: u32, dies: bool) -> bool {
        let reader = world.ledger.reader().await.unwrap();
        let found = reader.changes(self.cursor, &BTreeSet::from(ALL), ids, 1 << 20).await.unwrap();
        let some = found.upto != self.cursor;
        for change in found.changes {
            for record in change.records {
                let key = (change.kind, change.id.clone());
                match record {
                    Some(record) => {
                        if change.kind == ChangeKind::Alert {
                            self.told.push((change.id.clone(), record.clone()));
                        }
                        self.state.insert(key, record);
                    }
                    None => drop(self.state.remove(&key)),
                }
            }
        }
        if some && !dies {
            assert!(world.ledger.sink_advance(self.name, self.cursor, found.upto, wall(0)).await.unwrap());
            self.cursor = found.upto;
        }
        some
    }

    async fn take_all(&mut self, world: &World) {
        while self.take(world, 3, false).await {}
    }

    fn get(&self, kind: ChangeKind, id: &str) -> Option<&Value> {
        self.state.get(&(kind, id.to_owned()))
    }
}

/// The same state by other ways: the views that people have.
async fn check(world: &World, topic: &Topic) {
    let reader = world.ledger.reader().await.unwrap();
    let alerts = reader.alerts(&AlertFilter::default()).await.unwrap();
    let incidents = reader.incidents(true, 1_000).await.unwrap();
    let actions = reader.actions(1_000).await.unwrap();
    assert_eq!(topic.state.len(), alerts.len() + incidents.len() + actions.len());
    for alert in alerts {
        let told = topic.get(ChangeKind::Alert, &alert.alert_id).unwrap();
        let shown =
            json!([alert.state, alert.thread, alert.revision, alert.reason, alert.superseded_by, alert.incident]);
        let fields = ["state", "thread", "revision", "reason", "superseded_by", "incident"];
        assert_eq!(json!(fields.map(|field| &told[field])), shown, "{told}");
        assert_eq!(told["content"], alert.content);
    }
    for incident in incidents {
        let told = topic.get(ChangeKind::Incident, &incident.number.to_string()).unwrap();
        assert_eq!(json!([told["state"], told["redirect"]]), json!([incident.state, incident.redirect]), "{told}");
    }
    for action in actions {
        let told = topic.get(ChangeKind::Action, &action.id.to_string()).unwrap();
        let shown = json!([action.state, action.reason, action.target, action.alerts, action.until]);
        assert_eq!(json!(["state", "reason", "target", "alerts", "until"].map(|field| &told[field])), shown, "{told}");
    }
}

/// Every revision was told since the sink was registered, each for the first time in order.
async fn check_revisions(world: &World, topic: &Topic) {
    let rows: Vec<(String, String, i64)> =
        database::query_as("SELECT alert_id, thread, revision FROM alert_revisions ORDER BY alert_id, epoch, revision")
            .fetch_all(&mut *world.ledger.writer().await)
            .await
            .unwrap();
    let mut wanted: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for (id, thread, revision) in rows {
        wanted.entry(id).or_default().push((thread, revision));
    }
    for (id, wanted) in wanted {
        let mut first: Vec<i64> = Vec::new();
        for (_, record) in topic.told.iter().filter(|(told, _)| *told == id) {
            let revision = record["revision"].as_i64().unwrap();
            if !first.contains(&revision) {
                first.push(revision);
            }
        }
        assert!(first.is_sorted(), "{id}: {first:?}");
        assert!(wanted.iter().all(|(_, revision)| first.contains(revision)), "{id}: {first:?} of {wanted:?}");
    }
}

#[tokio::test]
async fn a_sink_has_the_ledgers_state_and_every_revision_whatever_it_missed() {
    for seed in 1..=40_u64 {
        let mut dice = seed;
        let mut roll = |sides: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut world = World::new().await;
        let mut topics = vec![Topic::new(&world, "one").await];
        let mut held: BTreeMap<u64, Alert> = BTreeMap::new();
        let mut wished: BTreeSet<u64> = BTreeSet::new();
        for step in 0..60 {
            let mut rows = Vec::new();
            for _ in 0..=roll(2) {
                let which = roll(6);
                let target = format!("10.0.0.{which}");
                let new = alert(&format!("user{which}"), 100);
                match held.remove(&which) {
                    None => {
                        rows.extend([came(&new), incident(&[&new], 1)]);
                        held.insert(which, new);
                    }
                    Some(old) if roll(3) == 0 => {
                        if wished.remove(&which) {
                            rows.push(desired(&old, &target, -1));
                        }
                        rows.extend([went(&old), incident(&[&old], -1)]);
                    }
                    Some(old) => {
                        let level = [Level::Low, Level::High, Level::Critical][usize::try_from(roll(3)).unwrap()];
                        let new = Alert { count: old.count + roll(2), level, ..old.clone() };
                        rows.extend([went(&old), came(&new)]);
                        if wished.insert(which) {
                            rows.push(desired(&new, &target, 1));
                        }
                        held.insert(which, new);
                    }
                }
            }
            world.epoch(rows, Vec::new()).await;
            if roll(4) == 0 {
                let outcome = if roll(2) == 0 { Outcome::Confirmed } else { Outcome::DryRun };
                world.work(BLOCK_ADDRESS, outcome).await;
            }
            if roll(10) == 0 {
                world = world.restart().await;
            }
            // One that comes later has what is there, and revisions from then on.
            if step == 30 {
                topics.push(Topic::new(&world, "two").await);
            }
            for topic in &mut topics {
                if roll(3) == 0 {
                    let (ids, dies) = (u32::try_from(1 + roll(4)).unwrap(), roll(3) == 0);
                    topic.take(&world, ids, dies).await;
                }
            }
        }
        for topic in &mut topics {
            topic.take_all(&world).await;
            check(&world, topic).await;
        }
        check_revisions(&world, &topics[0]).await;
        // All again: the same.
        let mut log = ControlLog::open(world.dir.path()).await.unwrap();
        assert!(log.sink_resend("one", wall(99)).await.unwrap());
        let reader = world.ledger.reader().await.unwrap();
        let before = std::mem::take(&mut topics[0].state);
        topics[0].cursor = reader.sink_cursor("one").await.unwrap().unwrap();
        topics[0].take_all(&world).await;
        assert_eq!(topics[0].state, before, "seed {seed}");
    }
}

#[tokio::test]
async fn what_is_erased_is_a_tombstone_for_every_sink_and_then_forgotten() {
    let mut world = World::new().await;
    let (a, b) = (alert("a", 1), alert("b", 2));
    world.epoch(vec![came(&a), came(&b)], Vec::new()).await;
    let (mut one, mut two) = (Topic::new(&world, "one").await, Topic::new(&world, "two").await);
    one.take_all(&world).await;
    two.take_all(&world).await;
    assert_eq!(one.state.len(), 2);
    database::query("DELETE FROM alerts WHERE alert_id = $1")
        .bind(a.id.to_string())
        .execute(&mut *world.ledger.writer().await)
        .await
        .unwrap();
    one.take_all(&world).await;
    let noted = async || -> i64 {
        let count = "SELECT count(*) FROM changes WHERE gone = 1";
        database::query_scalar(count).fetch_one(&mut *world.ledger.writer().await).await.unwrap()
    };
    assert_eq!((one.state.len(), two.state.len(), noted().await), (1, 2, 1));
    two.take_all(&world).await;
    assert_eq!((one.state, noted().await), (two.state, 0));
}

#[tokio::test]
async fn without_a_sink_nothing_is_noted_and_a_forgotten_one_leaves_nothing() {
    let mut world = World::new().await;
    let noted = async |world: &World| -> i64 {
        database::query_scalar("SELECT count(*) FROM changes")
            .fetch_one(&mut *world.ledger.writer().await)
            .await
            .unwrap()
    };
    world.epoch(vec![came(&alert("a", 1))], Vec::new()).await;
    assert_eq!(noted(&world).await, 0);
    // It begins with what is there; of an alert's past only how it stands.
    let mut topic = Topic::new(&world, "late").await;
    world.epoch(vec![came(&alert("b", 2))], Vec::new()).await;
    let reader = world.ledger.reader().await.unwrap();
    assert_eq!(reader.sinks().await.unwrap(), [("late".to_owned(), 2)]);
    topic.take_all(&world).await;
    assert_eq!(topic.told.len(), 2);
    assert_eq!(reader.sinks().await.unwrap(), [("late".to_owned(), 0)]);
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    assert!(log.sink_forget("late").await.unwrap() && !log.sink_forget("late").await.unwrap());
    world.epoch(vec![came(&alert("c", 3))], Vec::new()).await;
    assert_eq!(noted(&world).await, 0);
    // Who moves the cursor of a sink that is gone is told so.
    let upto = Cursor { seq: topic.cursor.seq + 1, epoch: 9 };
    assert!(!world.ledger.sink_advance("late", topic.cursor, upto, wall(9)).await.unwrap());
}

#[tokio::test]
async fn a_restored_ledger_tells_everything_again() {
    let mut world = World::new().await;
    let mut topic = Topic::new(&world, "out").await;
    world.epoch(vec![came(&alert("a", 1))], Vec::new()).await;
    topic.take_all(&world).await;
    crate::restored::mark(world.dir.path(), json!("a backup"), wall(2)).await.unwrap();
    let cursor = world.ledger.reader().await.unwrap().sink_cursor("out").await.unwrap();
    assert_eq!(cursor, Some(Cursor { seq: 0, epoch: 2 }));
}

#[tokio::test]
async fn other_topics_begin_with_everything() {
    let mut world = World::new().await;
    let mut topic = Topic::new(&world, "out").await;
    world.epoch(vec![came(&alert("a", 1))], Vec::new()).await;
    topic.take_all(&world).await;
    let same = world.ledger.sink_register("out", "{}", wall(1)).await.unwrap();
    assert_eq!(same, topic.cursor);
    let other = world.ledger.sink_register("out", "{\"alerts\": \"x\"}", wall(1)).await.unwrap();
    assert_eq!(other, Cursor { seq: 0, epoch: 2 });
}
