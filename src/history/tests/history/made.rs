//! Files that other processes make of their rows: in the table once, however often they are asked for.

use std::collections::BTreeMap;

use cf_history::{Batch, EventBatch, HistoryError, Made, Maker, Table, Writer};
use cf_types::Epoch;

use crate::support::*;

/// The events of an epoch that one process has.
fn rows(epoch: Epoch, count: usize) -> Batch {
    let mut builder = EventBatch::new();
    let days = ["2026-01-05T14:00:00Z", "2026-01-06T14:00:00Z"];
    for (number, day) in days.iter().cycle().take(count).enumerate() {
        builder.push(epoch, &event(number.try_into().unwrap(), time(day)));
    }
    builder.finish().unwrap()
}

fn made(makers: &[Maker], table: Table, after: Epoch, upto: Epoch) -> Result<Vec<Made>, HistoryError> {
    let makers = makers.iter().filter(|_| table == Table::Events);
    let made = makers.map(|maker| maker.make(after, upto)).collect::<Result<Vec<_>, _>>()?;
    Ok(made.into_iter().flatten().collect())
}

#[test]
fn what_others_made_is_in_the_table_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let mut makers = [Maker::new(Table::Events, 1), Maker::new(Table::Events, 2)];
    for epoch in 1..=3 {
        writer.append(rows(epoch, 1));
        writer.write(epoch, &[entry(epoch)]).unwrap();
        makers[0].append(rows(epoch, 2));
        makers[1].append(rows(epoch, 3));
    }
    let held = |rows: &[(i64, usize)]| {
        let wanted: BTreeMap<_, _> = rows.iter().copied().collect();
        assert_eq!(rows_by_epoch(dir.path(), Table::Events), wanted);
    };
    let committed = writer.commit_with(2, &mut |table, after, upto| made(&makers, table, after, upto)).unwrap();
    assert_eq!(committed.tables[0].rows, 12);
    held(&[(1, 6), (2, 6)]);
    // Nobody was told to forget: what the table has is not asked for again.
    assert!(
        writer.commit_with(2, &mut |table, after, upto| made(&makers, table, after, upto)).unwrap().tables.is_empty()
    );
    makers.iter_mut().for_each(|maker| maker.forget(2).unwrap());
    assert!(makers.iter().all(|maker| maker.bytes() > 0));
    // Asked for twice, as after a commit that failed.
    drop(made(&makers, Table::Events, 2, 3).unwrap());
    writer.commit_with(3, &mut |table, after, upto| made(&makers, table, after, upto)).unwrap();
    makers.iter_mut().for_each(|maker| maker.forget(3).unwrap());
    assert!(makers.iter().all(|maker| maker.bytes() == 0));
    // An epoch of which only others have events.
    makers[0].append(rows(4, 5));
    writer.write(4, &[entry(4)]).unwrap();
    writer.commit_with(4, &mut |table, after, upto| made(&makers, table, after, upto)).unwrap();
    held(&[(1, 6), (2, 6), (3, 6), (4, 5)]);
    drop(writer);
    assert_eq!(Writer::open(dir.path(), OPTIONS).unwrap().last_epoch(Table::Events), 4);
    held(&[(1, 6), (2, 6), (3, 6), (4, 5)]);
}

/// A process of the cluster names the files that it has made: no name reaches out of the table.
#[test]
fn a_file_that_is_no_data_file_of_the_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("history");
    let outside = folder.path().join("outside/epoch-1.parquet");
    let mut maker = Maker::new(Table::Events, 1);
    maker.append(rows(1, 1));
    let right = serde_json::to_value(maker.make(0, 1).unwrap().remove(0)).unwrap();
    let mut writer = Writer::open(&dir, OPTIONS).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    let absolute = outside.to_str().unwrap();
    for path in ["day=x/../../../outside/epoch-1.parquet", absolute, "_delta_log/0.json", "day=2026-01-05/x.exe", ""] {
        let mut wrong = right.clone();
        let mut add: serde_json::Value = serde_json::from_str(wrong["add"].as_str().unwrap()).unwrap();
        add["path"] = path.into();
        wrong["add"] = add.to_string().into();
        let wrong: Made = serde_json::from_value(wrong).unwrap();
        let mut others = |table, _, _| Ok(if table == Table::Events { vec![wrong.clone()] } else { Vec::new() });
        let refused = writer.commit_with(1, &mut others).unwrap_err();
        assert!(matches!(refused, HistoryError::Made(_)), "{path}: {refused}");
        assert!(!outside.exists());
    }
    let right: Made = serde_json::from_value(right).unwrap();
    let mut others = |table, _, _| Ok(if table == Table::Events { vec![right.clone()] } else { Vec::new() });
    writer.commit_with(1, &mut others).unwrap();
    assert_eq!(rows_by_epoch(&dir, Table::Events), BTreeMap::from([(1, 1)]));
}
