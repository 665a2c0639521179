//! Decisions of models: as they were written, and the queue that they rank.

use cf_types::{
    Decision, Triage,
    triage::{Answer, Reason, Role, Worth},
};

use super::*;

fn decision(alert: &Alert, probability_ppm: u32, verdict: Worth) -> Decision {
    let answer = Answer {
        model: "0123456789ab".into(),
        role: Role::Champion,
        probability_ppm,
        verdict,
        set: vec![true],
        reasons: vec![Reason { feature: "level".into(), effect_milli: -7 }],
    };
    Decision {
        tenant: alert.tenant.clone(),
        alert: alert.id,
        thread: alert.id,
        cell: alert.last_cell,
        rule: Arc::clone(&alert.rule),
        signature: u64::MAX,
        material: u64::MAX - 1,
        entities: alert.entities.clone(),
        first: true,
        upto: 3,
        recipe: "alert-1".into(),
        features: vec![Some(i64::MAX), None, Some(-1)],
        answers: vec![answer],
    }
}

/// The assessment that the graph makes of an alert with what a model said of it.
fn assessed(alert: &Alert, triage: Option<Triage>) -> (Row, i64) {
    (Row::Assessment(assess::assess(alert, &assess::Context { triage, ..assess::Context::default() })), 1)
}

#[tokio::test]
async fn decisions_are_read_as_they_were_written_in_pages_up_to_a_position() {
    let world = World::new().await;
    let mut log = ControlLog::open(world.dir.path()).await.unwrap();
    let made: Vec<Decision> =
        (0..2_500).map(|at| decision(&alert("a", at), u32::try_from(at).unwrap(), Worth::Unknown)).collect();
    assert_eq!(log.append_decisions(&[], wall(1)).await.unwrap(), None);
    let last = log.append_decisions(&made, wall(1)).await.unwrap().unwrap();
    assert_eq!(last, 2_500);
    let mut read = Vec::new();
    world.ledger.decisions_upto(last - 1, |decision| read.push(decision)).await.unwrap();
    assert_eq!(read, made[..2_499]);
    let reader = world.ledger.reader().await.unwrap();
    assert_eq!(reader.decisions_begin(0).await.unwrap(), 2_500);
    assert_eq!(reader.decisions_begin(100).await.unwrap(), 2_400);
    assert_eq!(reader.decisions_begin(10_000).await.unwrap(), 0);
    assert_eq!(reader.audit_verify().await.unwrap(), None);
    // They are no facts: nobody lists or removes them.
    assert_eq!(reader.facts().await.unwrap(), []);
}

#[tokio::test]
async fn the_queue_has_every_open_alert_by_score_and_confidence() {
    let mut world = World::new().await;
    let of = |probability_ppm, verdict| {
        Some(Triage { probability_ppm, verdict, model: "0123456789ab".into(), role: Role::A })
    };
    let (likely, unlikely) = (alert("likely", 100), alert("unlikely", 200));
    let (unknown, without) = (alert("unknown", 300), alert("without", 400));
    let (gone, new) = (alert("gone", 500), alert("new", 600));
    let rows = vec![
        came(&likely),
        assessed(&likely, of(990_000, Worth::True)),
        came(&unlikely),
        assessed(&unlikely, of(10_000, Worth::False)),
        came(&unknown),
        assessed(&unknown, of(10_000, Worth::Unknown)),
        came(&without),
        assessed(&without, None),
        came(&gone),
        assessed(&gone, None),
        came(&new),
    ];
    world.epoch(rows, Vec::new()).await;
    world.epoch(vec![went(&gone)], Vec::new()).await;
    let reader = world.ledger.reader().await.unwrap();
    let queue = reader.queue(&AlertFilter::default()).await.unwrap();
    let shown: Vec<(&str, Option<u8>, Option<u16>)> = queue
        .iter()
        .map(|view| (view.thread.as_str(), view.standing.confidence_percent, view.standing.priority))
        .collect();
    // One that is not assessed yet is first; the unknown one keeps its place beside the one without any model.
    let expect = [
        (&new, None, None),
        (&likely, Some(99), Some(742)),
        (&without, Some(70), Some(525)),
        (&unknown, Some(70), Some(525)),
        (&unlikely, Some(1), Some(7)),
    ];
    let expect = expect.map(|(alert, confidence, priority)| (alert.id.to_string(), confidence, priority));
    let expect: Vec<_> =
        expect.iter().map(|(id, confidence, priority)| (id.as_str(), *confidence, *priority)).collect();
    assert_eq!(shown, expect);
    let json = serde_json::to_value(&queue[1]).unwrap();
    assert_eq!(json["triage"], json!({"probability": 0.99, "verdict": true, "model": "0123456789ab", "role": "a"}));
    // A later answer takes the place of the earlier.
    world.epoch(vec![assessed(&likely, of(5_000, Worth::False))], Vec::new()).await;
    let queue = reader.queue(&AlertFilter { limit: 2, ..AlertFilter::default() }).await.unwrap();
    let shown: Vec<&str> = queue.iter().map(|view| view.alert_id.as_str()).collect();
    assert_eq!(shown, [new.id.to_string(), without.id.to_string()]);
    assert!(
        reader
            .queue(&AlertFilter { state: Some("withdrawn".to_owned()), ..AlertFilter::default() })
            .await
            .unwrap()
            .len()
            == 1
    );
}
