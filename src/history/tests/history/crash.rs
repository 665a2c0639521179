//! What commits hold, and that each epoch is there exactly once after crashes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use cf_history::{Batch, EventBatch, Table, Writer};
use cf_types::{Epoch, Event, Time};

use crate::support::*;

#[test]
fn every_table_takes_its_rows_and_gives_them_back_once() {
    let dir = tempfile::tempdir().unwrap();
    let history = dir.path().join("with space");
    let mut writer = Writer::open(&history, OPTIONS).unwrap();
    writer.write(1, &[event(0, time("2026-01-05T14:00:00Z")), event(1, time("2026-01-06T14:00:00Z"))]).unwrap();
    writer.write(1, &[reject(b"a\xffb"), reject(b"text")]).unwrap();
    writer.write(1, &[detection()]).unwrap();
    writer.write(1, &[alert()]).unwrap();
    writer.write(1, &[incident()]).unwrap();
    writer.write(1, &[action()]).unwrap();
    writer.write(1, &[risk()]).unwrap();
    writer.write(1, &[fact()]).unwrap();
    writer.write(1, &[verdict()]).unwrap();
    writer.write(1, &[features()]).unwrap();
    writer.write(1, &[prediction()]).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    writer.write(2, &[event(2, time("2026-01-05T14:00:00Z"))]).unwrap();
    assert!(writer.buffered_bytes() > 0);

    let committed = writer.commit(1).unwrap();
    let by_table: Vec<_> = committed.tables.iter().map(|table| (table.table.name(), table.rows, table.files)).collect();
    assert_eq!(
        by_table,
        [
            ("events", 2, 2), // two days
            ("rejects", 2, 1),
            ("detections", 1, 1),
            ("alerts", 1, 1),
            ("incidents", 1, 1),
            ("actions", 1, 1),
            ("risk", 1, 1),
            ("facts", 1, 1),
            ("verdicts", 1, 1),
            ("features", 1, 1),
            ("predictions", 1, 1),
            ("epochs", 1, 1)
        ]
    );
    assert_eq!(committed.epoch, 1);
    assert_eq!(rows_by_epoch(&history, Table::Events), BTreeMap::from([(1, 2)]));

    // Epoch 2 waited; given again it is taken once, epoch 1 not at all.
    writer.write(1, &[event(0, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.write(2, &[entry(2)]).unwrap();
    writer.commit(2).unwrap();
    assert_eq!(writer.buffered_bytes(), 0);
    assert_eq!(rows_by_epoch(&history, Table::Events), BTreeMap::from([(1, 2), (2, 1)]));
    drop(writer);

    // The same after it was opened anew; a table that got nothing stays where it was.
    let mut writer = Writer::open(&history, OPTIONS).unwrap();
    let last: Vec<_> = Table::ALL.iter().map(|table| writer.last_epoch(*table)).collect();
    assert_eq!(last, [2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
    writer.write(2, &[event(2, time("2026-01-05T14:00:00Z"))]).unwrap();
    assert_eq!(writer.buffered_bytes(), 0);
    assert!(writer.commit(2).unwrap().tables.is_empty());
}

#[test]
fn files_without_a_commit_are_removed_and_foreign_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    writer.write(1, &[event(0, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.commit(1).unwrap();
    drop(writer);
    let folder = dir.path().join("events");
    let part = folder.join("day=2026-01-05");
    std::fs::write(part.join("epoch-00000000000000000002-00000000000000000009-00000.zstd.parquet"), b"torn").unwrap();
    std::fs::write(part.join("note.txt"), b"mine").unwrap();
    assert_eq!(files(&folder), 3);
    drop(Writer::open(dir.path(), OPTIONS).unwrap());
    assert_eq!(files(&folder), 2);
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 1)]));
}

#[test]
fn times_from_nowhere_do_not_make_a_file_each() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let days = (0..500).map(|day| event(day, Time::from_seconds(i64::try_from(day).unwrap() * 86_400)));
    let events: Vec<_> = days.chain([event(500, Time::MIN), event(501, Time::MAX)]).collect();
    writer.write(1, &events).unwrap();
    let committed = writer.commit(1).unwrap();
    assert_eq!(committed.tables.first().map(|table| (table.rows, table.files)), Some((502, 65)));
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 502)]));
}

#[test]
fn a_table_with_other_columns_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(Writer::open(dir.path(), OPTIONS).unwrap());
    let log = dir.path().join("rejects/_delta_log/00000000000000000000.json");
    let text = std::fs::read_to_string(&log).unwrap().replace(r#"\"name\":\"code\""#, r#"\"name\":\"kode\""#);
    std::fs::write(&log, text).unwrap();
    let error = Writer::open(dir.path(), OPTIONS).unwrap_err().to_string();
    assert!(error.contains("history table rejects has other columns") && error.contains("code"), "{error}");
}

#[test]
fn a_failed_commit_keeps_its_rows_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    writer.write(1, &[event(0, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    // Another's commit at the version that would be ours: nobody else may write here, so it is an error...
    let log = dir.path().join("events/_delta_log");
    let foreign = r#"{"commitInfo":{"timestamp":1,"operation":"WRITE","operationParameters":{}}}"#;
    std::fs::write(log.join("00000000000000000001.json"), foreign).unwrap();
    assert!(writer.commit(1).is_err());
    assert!(writer.buffered_bytes() > 0);
    assert_eq!(writer.last_epoch(Table::Epochs), 0);
    // ... and then the log is read anew, and the rows are added after it.
    assert_eq!(writer.commit(1).unwrap().epoch, 1);
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 1)]));
}

#[test]
fn batches_of_several_threads_and_epochs_are_committed_by_whole_epochs() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let threads = (0..2_u64).map(|thread| {
        std::thread::spawn(move || -> Batch {
            let mut builder = EventBatch::new();
            for epoch in 1..=10 {
                let at = time("2026-01-05T14:00:00Z").plus_micros(-i64::try_from(epoch).unwrap());
                builder.push(epoch, &event(epoch * 2 + thread, at));
            }
            builder.finish().unwrap()
        })
    });
    let batches: Vec<_> = threads.map(|thread| thread.join().unwrap()).collect();
    for batch in batches {
        writer.append(batch);
    }
    for upto in [4, 7, 10] {
        writer.commit(upto).unwrap();
        let expected = (1..=i64::try_from(upto).unwrap()).map(|epoch| (epoch, 2)).collect();
        assert_eq!(rows_by_epoch(dir.path(), Table::Events), expected);
    }
}

/// The engine of the crash test: gives each epoch from where `epochs` ends, as a replay does, and commits every third.
/// Runs in a child process, which its parent kills.
#[test]
fn child() {
    let Ok(dir) = std::env::var("CF_HISTORY_CRASH") else { return };
    let mut writer = Writer::open(Path::new(&dir), OPTIONS).unwrap();
    let begin = writer.last_epoch(Table::Epochs) + 1;
    for epoch in begin..=EPOCHS {
        let events: Vec<_> = (0..5).map(|i| event(epoch * 5 + i, time("2026-01-05T14:00:00Z"))).collect();
        writer.write(epoch, &events).unwrap();
        writer.write(epoch, &[detection()]).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        if epoch % 3 == 0 {
            writer.commit(epoch).unwrap();
            println!("committed {epoch}");
        }
    }
    writer.commit(EPOCHS).unwrap();
    println!("done");
}

const EPOCHS: Epoch = 60;

fn spawn(history: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
        .env("CF_HISTORY_CRASH", history)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn kills_at_any_moment_leave_each_epoch_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kills, mut ahead) = (0, 0);
    loop {
        let mut child = spawn(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // Killed a little later each time, so that it falls before, within and between the tables' commits.
        let first = lines.find(|line| line.starts_with("committed") || line.contains("done")).unwrap_or_default();
        if first.contains("done") || kills >= 12 {
            lines.for_each(drop);
            assert!(child.wait().unwrap().success());
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(kills * 7 % 61));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let complete = rows_by_epoch(dir.path(), Table::Epochs).len();
        for table in [Table::Events, Table::Detections] {
            let rows = rows_by_epoch(dir.path(), table);
            assert!(rows.len() >= complete, "{table:?} lacks epochs that are said to be complete");
            ahead += usize::from(rows.len() > complete);
        }
    }
    let whole = |rows: usize| (1..=60).map(|epoch| (epoch, rows)).collect::<BTreeMap<i64, usize>>();
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), whole(5));
    assert_eq!(rows_by_epoch(dir.path(), Table::Detections), whole(1));
    assert_eq!(rows_by_epoch(dir.path(), Table::Epochs), whole(1));
    println!("{kills} kills, {ahead} times a table was ahead");
}

#[test]
fn a_long_log_is_checkpointed_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let mut times = Vec::new();
    for epoch in 1..=105 {
        writer.write(epoch, &[entry(epoch)]).unwrap();
        let committed = writer.commit(epoch).unwrap();
        times.extend(committed.tables.iter().map(|table| table.committing));
    }
    times.sort();
    eprintln!("commits of one row: median {:?}, longest {:?}", times.get(52), times.last());
    let log = dir.path().join("epochs/_delta_log");
    assert!(log.join("00000000000000000099.checkpoint.parquet").exists());
    drop(writer);
    let writer = Writer::open(dir.path(), OPTIONS).unwrap();
    assert_eq!(writer.last_epoch(Table::Epochs), 105);
    assert_eq!(rows_by_epoch(dir.path(), Table::Epochs).len(), 105);
}

#[test]
fn small_batches_are_joined_and_cost_little() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    for epoch in 1..=1_000 {
        writer.write(epoch, &[event(epoch, time("2026-01-05T14:00:00Z"))]).unwrap();
    }
    let per_row = writer.buffered_bytes() / 1_000;
    assert!(per_row < 1_500, "{per_row} bytes per buffered row");
    let committed = writer.commit(999).unwrap();
    assert_eq!(committed.tables.first().map(|table| (table.rows, table.files)), Some((999, 1)));
    writer.commit(1_000).unwrap();
    let expected = (1..=1_000).map(|epoch| (epoch, 1)).collect();
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), expected);
}

/// Real Windows events: what they take on disk. Prints what building and encoding cost, which debug builds inflate.
#[test]
fn real_records_are_stored_small() {
    let shared = std::env::var("COUNTERFLOW_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let Ok(file) = std::fs::File::open(Path::new(&shared).join("data/events/otrf_windows_400k.jsonl.zst")) else {
        eprintln!("skipped: no {shared}/data/events/otrf_windows_400k.jsonl.zst");
        return;
    };
    let lines = BufReader::new(zstd::Decoder::new(file).unwrap()).lines().map(Result::unwrap).take(20_000);
    let template = event(0, time("2026-01-05T14:00:00Z"));
    let events: Vec<Event> = lines
        .zip(0_u32..)
        .map(|(line, i)| Event {
            declared_id: Some(format!("host/Security/{i}").into()),
            time: template.time.plus_micros(i64::from(i) * 1_000),
            raw: Bytes::from(line),
            ..event(u64::from(i) * 1_700, template.time)
        })
        .collect();
    let raw: usize = events.iter().map(|event| event.raw.len()).sum();
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let begun = std::time::Instant::now();
    let mut builder = EventBatch::new();
    events.iter().for_each(|event| builder.push(1, event));
    writer.append(builder.finish().unwrap());
    let built = begun.elapsed();
    let committed = writer.commit(1).unwrap();
    let table = committed.tables.first().unwrap();
    let per_event = |time: std::time::Duration| time.as_nanos() / 20_000;
    eprintln!(
        "build {} ns, encode {} ns per event on 2 threads; commit {:?}; {} of {raw} raw bytes in {} files",
        per_event(built),
        per_event(table.encoding),
        table.committing,
        table.bytes,
        table.files,
    );
    let stored = usize::try_from(table.bytes).unwrap();
    assert!(stored * 100 < raw * 12, "{stored} of {raw} raw bytes");
}
