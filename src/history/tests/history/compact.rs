//! Small files become few, sorted ones; each row is there exactly once, also after kills; old versions can be read.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use arrow::array::AsArray;
use cf_history::{Housekeeper, Table, Writer, open, open_version};
use cf_types::{Entity, EntityKind, Epoch, Event};

use crate::support::*;

fn event_of(host: &str, offset: u64) -> Event {
    let at = time("2026-01-05T14:00:00Z").plus_micros(i64::try_from(offset).unwrap() * 1_000_000);
    Event { entities: vec![Entity::of(EntityKind::Host, host).unwrap()], ..event(offset, at) }
}

/// Joins until nothing is left to join; gives how many files went and came.
fn compact_all(writer: &mut Writer, keeper: &mut Housekeeper) -> (usize, usize) {
    let mut files = (0, 0);
    for table in Table::ALL {
        while let Some(replacement) = keeper.compact(table, true).unwrap() {
            files = (files.0 + replacement.files().0, files.1 + replacement.files().1);
            assert!(writer.replace(replacement).unwrap());
        }
    }
    files
}

fn stored(history: &Path, table: Table) -> usize {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(open(history, table)).unwrap().unwrap().files(table).unwrap().len()
}

#[test]
fn small_files_become_one_sorted_by_hour_and_host() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    for epoch in 1..=20 {
        let hosts = ["web02", "web01", "db01"];
        let events: Vec<_> = hosts.iter().zip(0..).map(|(host, i)| event_of(host, epoch * 3 + i)).collect();
        writer.write(epoch, &events).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
    }
    let before = rows_by_epoch(dir.path(), Table::Events);
    assert_eq!(stored(dir.path(), Table::Events), 20);
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    assert_eq!(compact_all(&mut writer, &mut keeper), (40, 2)); // events and epochs
    assert_eq!(stored(dir.path(), Table::Events), 1);
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), before);
    assert_eq!(keeper.status().unwrap().iter().map(|status| status.rows).sum::<u64>(), 80);
    // Sorted by whom, then time: all in one hour.
    let mut hosts = Vec::new();
    keeper
        .read(Table::Events, &|_| true, &mut |batch| {
            let column = batch.column_by_name("host").unwrap().as_string::<i32>();
            hosts.extend(column.iter().map(|host| host.unwrap().to_owned()));
        })
        .unwrap();
    assert_eq!(hosts.len(), 60);
    assert!(hosts.is_sorted(), "{hosts:?}");

    // A version of before can still be read, until what it needs is removed.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let old = runtime.block_on(open_version(dir.path(), Table::Events, 10)).unwrap();
    assert_eq!((old.files(Table::Events).unwrap().len(), old.last_epoch), (10, 10));
    assert_eq!(keeper.vacuum(3_600_000).unwrap().0, 0);
    assert_eq!(files(&dir.path().join("events")), 21);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(keeper.vacuum(0).unwrap().0, 40);
    assert_eq!(files(&dir.path().join("events")), 1);

    // The writer goes on where it was, also when it is opened anew.
    writer.write(20, &[event_of("web01", 1)]).unwrap();
    writer.write(21, &[event_of("web01", 100)]).unwrap();
    writer.commit(21).unwrap();
    drop(writer);
    let writer = Writer::open(dir.path(), OPTIONS).unwrap();
    assert_eq!(writer.last_epoch(Table::Events), 21);
    assert_eq!(rows_by_epoch(dir.path(), Table::Events).values().sum::<usize>(), 61);
}

#[test]
fn a_replacement_of_files_that_are_gone_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    for epoch in 1..=3 {
        writer.write(epoch, &[event_of("web01", epoch)]).unwrap();
        writer.commit(epoch).unwrap();
    }
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    let first = keeper.compact(Table::Events, true).unwrap().unwrap();
    let second = keeper.compact(Table::Events, true).unwrap().unwrap();
    assert!(writer.replace(first).unwrap());
    assert!(!writer.replace(second).unwrap());
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 1), (2, 1), (3, 1)]));
    drop(writer);
    // What the second one wrote belongs to nobody: removed at the next start. What was replaced is still kept.
    assert_eq!(files(&dir.path().join("events")), 5);
    drop(Writer::open(dir.path(), OPTIONS).unwrap());
    assert_eq!(files(&dir.path().join("events")), 4);
}

const EPOCHS: Epoch = 80;

/// The engine of the crash test: commits each epoch and joins files between commits, for the parent to kill.
#[test]
fn child() {
    let Ok(dir) = std::env::var("CF_HISTORY_COMPACT") else { return };
    let mut writer = Writer::open(Path::new(&dir), OPTIONS).unwrap();
    let mut keeper = Housekeeper::new(Path::new(&dir)).unwrap();
    for epoch in writer.last_epoch(Table::Epochs) + 1..=EPOCHS {
        writer.write(epoch, &[event_of("web01", epoch), event_of("db01", epoch)]).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
        println!("committed {epoch}");
        if epoch % 4 == 0 {
            let replacement = keeper.compact(Table::Events, true).unwrap();
            println!("written {epoch}");
            if let Some(replacement) = replacement {
                assert!(writer.replace(replacement).unwrap());
            }
            println!("replaced {epoch}");
            keeper.vacuum(50).unwrap();
        }
    }
    println!("done");
}

#[test]
fn kills_while_files_are_joined_leave_each_row_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut kills = 0_u64;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "compact::child", "--nocapture", "--test-threads=1"])
            .env("CF_HISTORY_COMPACT", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // In turn: after a commit, after the new file was written, after it took the place of the others, and a little
        // later than each, which falls into the steps themselves.
        let mark = ["committed", "written", "replaced"][usize::try_from(kills % 3).unwrap()];
        let reached = lines.find(|line| line.starts_with(mark) || line.contains("done")).unwrap_or_default();
        if reached.contains("done") || kills >= 12 {
            lines.for_each(drop);
            assert!(child.wait().unwrap().success());
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(kills * 5 % 37));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let complete = rows_by_epoch(dir.path(), Table::Epochs).len();
        let rows = rows_by_epoch(dir.path(), Table::Events);
        assert!(rows.len() >= complete && rows.values().all(|rows| *rows == 2), "after {mark}: {rows:?}");
    }
    assert!(kills >= 6, "only {kills} kills");
    let whole = (1..=i64::try_from(EPOCHS).unwrap()).map(|epoch| (epoch, 2)).collect::<BTreeMap<_, _>>();
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), whole);
}
