//! Archives are taken in once, and what is erased is gone from every file.

use std::collections::{BTreeMap, HashSet};

use cf_history::{Erasure, EventBatch, Housekeeper, Table, Writer};
use cf_types::{Entity, EntityKind};

use crate::support::*;

#[test]
fn a_file_is_taken_in_once_also_when_the_writer_is_opened_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    writer.write(1, &[event(0, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.commit(1).unwrap();
    for (key, expected) in [("a", 3), ("b", 6), ("a", 6)] {
        if let Some(mut import) = writer.import(key).unwrap() {
            let mut batch = EventBatch::new();
            for offset in 0..3 {
                batch.push(0, &event(offset, time("2020-01-05T14:00:00Z")));
            }
            import.append(batch.finish().unwrap()).unwrap();
            assert_eq!(import.commit().unwrap(), [(Table::Rejects, 0), (Table::Events, 3)]);
        }
        assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(0, expected), (1, 1)]), "{key}");
        drop(writer);
        writer = Writer::open(dir.path(), OPTIONS).unwrap();
        assert_eq!(writer.last_epoch(Table::Events), 1);
    }
}

#[test]
fn an_import_that_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let mut import = writer.import("a").unwrap().unwrap();
    let mut batch = EventBatch::new();
    batch.push(0, &event(0, time("2020-01-05T14:00:00Z")));
    import.append(batch.finish().unwrap()).unwrap();
    drop(import);
    assert!(rows_by_epoch(dir.path(), Table::Events).is_empty());
    assert!(writer.import("a").unwrap().is_some());
}

#[test]
fn what_is_erased_is_in_no_file_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let bob = Entity::of(EntityKind::Address, "10.0.0.1").unwrap();
    let other = Entity::of(EntityKind::Address, "10.0.0.12").unwrap();
    for epoch in 1..=2 {
        let about = |entity: &Entity, offset| {
            let raw = format!("seen {}", entity.value).into();
            let at = time("2026-01-05T14:00:00Z");
            cf_types::Event { entities: vec![entity.clone()], raw, ..event(offset, at) }
        };
        writer.write(epoch, &[about(&bob, epoch * 2), about(&other, epoch * 2 + 1)]).unwrap();
        writer.write(epoch, &[alert()]).unwrap(); // its group has the address
        writer.write(epoch, &[risk()]).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
    }
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    let erasure = Erasure::of(&bob);
    let mut rows = 0;
    for table in Table::ALL {
        keeper.read(table, &|_| true, &mut |batch| rows += erasure.rows(table, batch)).unwrap();
        let mut done = HashSet::new();
        while let Some(replacement) = keeper.erase(table, &erasure, &mut done).unwrap() {
            assert!(writer.replace(replacement).unwrap());
        }
    }
    assert_eq!(rows, 6); // two events, two alerts, two changes of risk
    std::thread::sleep(std::time::Duration::from_millis(5));
    keeper.vacuum(0).unwrap();
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(rows_by_epoch(dir.path(), Table::Alerts), BTreeMap::from([(1, 1), (2, 1)]));
    let mut left = 0;
    for table in Table::ALL {
        keeper.read(table, &|_| true, &mut |batch| left += erasure.rows(table, batch)).unwrap();
    }
    assert_eq!(left, 0);
    let mut raws = Vec::new();
    keeper
        .read(Table::Events, &|_| true, &mut |batch| {
            use arrow::array::AsArray;
            let column = batch.column_by_name("raw").unwrap().as_string::<i32>();
            raws.extend(column.iter().flatten().map(str::to_owned));
        })
        .unwrap();
    assert_eq!(raws, ["seen 10.0.0.12", "seen 10.0.0.12"]);
}
