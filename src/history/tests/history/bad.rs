//! Bad input: damaged and missing files, foreign ones, a cut log, two writers. Named, contained, recoverable.

use std::{collections::BTreeMap, fs, path::PathBuf};

use cf_history::{Housekeeper, Table, Writer};

use crate::support::*;

fn three_commits(history: &std::path::Path) -> Writer {
    let mut writer = Writer::open(history, OPTIONS).unwrap();
    for epoch in 1..=3 {
        writer.write(epoch, &[event(epoch, time("2026-01-05T14:00:00Z"))]).unwrap();
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
    }
    writer
}

fn data_files(history: &std::path::Path) -> Vec<PathBuf> {
    let folder = history.join("events/day=2026-01-05");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|file| file.path()).collect();
    files.sort();
    files
}

#[test]
fn a_damaged_or_missing_file_is_set_aside_and_the_others_are_joined() {
    for damage in ["cut", "bytes", "missing"] {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = three_commits(dir.path());
        let files = data_files(dir.path());
        let whole = fs::read(&files[1]).unwrap();
        match damage {
            "cut" => fs::write(&files[1], &whole[..whole.len() / 2]).unwrap(),
            "bytes" => fs::write(&files[1], vec![0xff; whole.len()]).unwrap(),
            _ => fs::remove_file(&files[1]).unwrap(),
        }
        let mut keeper = Housekeeper::new(dir.path()).unwrap();
        assert!(keeper.compact(Table::Events, true).unwrap().is_none(), "{damage}: the first try meets it");
        let replacement = keeper.compact(Table::Events, true).unwrap().unwrap();
        assert_eq!(replacement.files(), (2, 1), "{damage}");
        assert!(writer.replace(replacement).unwrap());
        // Writing goes on, and what is whole is there; the damaged file comes back with a backup of it.
        writer.write(4, &[event(4, time("2026-01-05T14:00:00Z"))]).unwrap();
        writer.commit(4).unwrap();
        fs::write(&files[1], &whole).unwrap();
        let all = (1..=4).map(|epoch| (epoch, 1)).collect::<BTreeMap<_, _>>();
        assert_eq!(rows_by_epoch(dir.path(), Table::Events), all, "{damage}");
    }
}

#[test]
fn foreign_files_are_left_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = three_commits(dir.path());
    let foreign = [
        dir.path().join("events/day=2026-01-05/part-00000-foreign.parquet"),
        dir.path().join("events/day=2026-01-05/.hidden"),
        dir.path().join("events/day=nonsense"),
        dir.path().join("events/_delta_log/notes.txt"),
        dir.path().join("somebody-elses-table"),
    ];
    for path in &foreign {
        fs::write(path, b"mine").unwrap();
    }
    let mut keeper = Housekeeper::new(dir.path()).unwrap();
    let replacement = keeper.compact(Table::Events, true).unwrap().unwrap();
    assert!(writer.replace(replacement).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(5));
    keeper.vacuum(0).unwrap();
    drop(writer);
    drop(Writer::open(dir.path(), OPTIONS).unwrap());
    assert!(foreign.iter().all(|path| fs::read(path).unwrap() == b"mine"));
    assert_eq!(rows_by_epoch(dir.path(), Table::Events).len(), 3);
}

#[test]
fn a_cut_log_is_refused_by_name_and_opens_when_it_is_whole_again() {
    let dir = tempfile::tempdir().unwrap();
    drop(three_commits(dir.path()));
    let entry = dir.path().join("events/_delta_log/00000000000000000002.json");
    let whole = fs::read(&entry).unwrap();
    fs::write(&entry, &whole[..whole.len() / 2]).unwrap();
    let error = Writer::open(dir.path(), OPTIONS).unwrap_err().to_string();
    assert!(error.contains("history table events"), "{error}");
    // An entry that is missing from the middle, too: nothing is written behind a gap.
    fs::remove_file(&entry).unwrap();
    let error = Writer::open(dir.path(), OPTIONS).map(drop).unwrap_err().to_string();
    assert!(error.contains("history table events"), "{error}");
    fs::write(&entry, &whole).unwrap();
    let writer = Writer::open(dir.path(), OPTIONS).unwrap();
    assert_eq!(writer.last_epoch(Table::Events), 3);
}

#[test]
fn of_two_writers_the_second_to_commit_is_told_and_no_row_is_written_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = three_commits(dir.path());
    let mut second = Writer::open(dir.path(), OPTIONS).unwrap();
    for writer in [&mut first, &mut second] {
        writer.write(4, &[event(4, time("2026-01-05T14:00:00Z"))]).unwrap();
        writer.write(4, &[entry(4)]).unwrap();
    }
    first.commit(4).unwrap(); // the same epoch, the same rows: still not ours
    assert!(second.commit(4).is_err());
    let error = second.commit(4).unwrap_err().to_string();
    assert!(error.contains("another writer commits to history table events"), "{error}");
    let rows = rows_by_epoch(dir.path(), Table::Events);
    assert_eq!(rows, (1..=4).map(|epoch| (epoch, 1)).collect::<BTreeMap<_, _>>());
}
