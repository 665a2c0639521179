//! What is too old or too much goes; what incidents rest on, and what must never go, stays.

use std::collections::BTreeMap;

use cf_history::{Housekeeper, Pin, Pinned, Retention, Table, Writer};
use cf_types::{Detection, Item, Member, Time, clock};

use crate::support::*;

/// The detection of an event.
fn detection_of(offset: u64, at: Time) -> Detection {
    let event = event(offset, at);
    let member = Member { time: at, id: event.id(), declared_id: None, position: event.position };
    let items = vec![Item { rule: "r2".into(), reference: 0, group: alert().alert.group, value: None }];
    Detection { member, items, ..detection() }
}

/// Ten events on each of three days, one of each met a rule; all in one epoch.
fn three_days(history: &std::path::Path, newest: Time) -> Writer {
    let mut writer = Writer::open(history, OPTIONS).unwrap();
    for day in 0..3_u64 {
        let at = newest.plus_micros(-i64::try_from(day).unwrap() * 90_000_000_000);
        let events: Vec<_> = (0..10).map(|i| event(day * 10 + i, at)).collect();
        writer.write(1, &events).unwrap();
        writer.write(1, &[detection_of(day * 10, at)]).unwrap();
        writer.write(1, &[reject(b"x")]).unwrap();
    }
    writer.write(1, &[alert()]).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    writer.commit(1).unwrap();
    writer
}

fn pins(keeper: &mut Housekeeper, pins: Vec<Pin>) -> Pinned {
    let mut pinned = Pinned::new(pins);
    let mut batches = Vec::new();
    keeper.read(Table::Detections, &|_| true, &mut |batch| batches.push(batch.clone())).unwrap();
    batches.iter().for_each(|batch| pinned.learn(batch));
    pinned
}

fn rows(history: &std::path::Path, table: Table) -> usize {
    rows_by_epoch(history, table).values().sum()
}

#[test]
fn what_is_past_its_time_goes_and_what_incidents_rest_on_stays() {
    let dir = tempfile::tempdir().unwrap();
    let now = clock::now();
    let mut writer = three_days(dir.path(), now);
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    let mut retention = Retention::default();
    assert!(retention.set(Table::Events, 1) && retention.set(Table::Detections, 1));
    let oldest = now.plus_micros(-2 * 90_000_000_000).cell();
    let pin = Pin { rule: "r2".to_owned(), group: Some(alert().alert.group), cells: (oldest, oldest) };
    let pinned = pins(&mut keeper, vec![pin]);
    while let Some(replacement) = keeper.expire(&retention, &pinned).unwrap() {
        assert!(writer.replace(replacement).unwrap());
    }
    // Today's ten; of the day before yesterday the one that the incident rests on; yesterday's are 25 hours old.
    assert_eq!(rows(dir.path(), Table::Detections), 2);
    assert_eq!(rows(dir.path(), Table::Events), 11);
    assert_eq!(rows(dir.path(), Table::Rejects), 3);
    assert_eq!(rows_by_epoch(dir.path(), Table::Epochs), BTreeMap::from([(1, 1)]));

    // Without the incident it goes, too.
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    while let Some(replacement) = keeper.expire(&retention, &Pinned::default()).unwrap() {
        assert!(writer.replace(replacement).unwrap());
    }
    assert_eq!((rows(dir.path(), Table::Events), rows(dir.path(), Table::Detections)), (10, 1));
}

#[test]
fn a_budget_takes_the_oldest_events_first_and_never_what_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = three_days(dir.path(), clock::now());
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    let bytes = |keeper: &Housekeeper| keeper.status().unwrap().iter().map(|status| status.bytes).sum::<u64>();
    let all = bytes(&keeper);
    assert!(keeper.shrink(all, &Pinned::default()).unwrap().is_none());
    let replacement = keeper.shrink(all - 1, &Pinned::default()).unwrap().unwrap();
    assert!(writer.replace(replacement).unwrap());
    // The rejects have no time of their own, so they are the oldest; the next are the events of the oldest day.
    assert_eq!((rows(dir.path(), Table::Events), rows(dir.path(), Table::Rejects)), (30, 0));
    let replacement = keeper.shrink(1, &Pinned::default()).unwrap().unwrap();
    assert!(writer.replace(replacement).unwrap());
    assert_eq!(rows(dir.path(), Table::Events), 20);
    while let Some(replacement) = keeper.shrink(1, &Pinned::default()).unwrap() {
        assert!(writer.replace(replacement).unwrap());
    }
    let left: Vec<_> = Table::ALL.into_iter().filter(|table| rows(dir.path(), *table) > 0).map(Table::name).collect();
    assert_eq!(left, ["alerts", "epochs"]);
    assert!(bytes(&keeper) > 1);
}

#[test]
fn a_budget_keeps_what_incidents_rest_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = three_days(dir.path(), clock::now());
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    let any = Pin { rule: "r2".to_owned(), group: None, cells: (i64::MIN, i64::MAX) };
    let pinned = pins(&mut keeper, vec![any]);
    while let Some(replacement) = keeper.shrink(1, &pinned).unwrap() {
        assert!(writer.replace(replacement).unwrap());
    }
    assert_eq!((rows(dir.path(), Table::Events), rows(dir.path(), Table::Detections)), (3, 3));
}
