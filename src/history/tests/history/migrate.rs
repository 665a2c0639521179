//! Tables of before are brought to the schema of now, and keep what they hold.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use cf_history::{EventBatch, Table, Writer, open};
use cf_types::{Name, Scalar};

use crate::support::*;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn columns(history: &Path, table: Table) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(open(history, table)).unwrap().unwrap().columns(table).unwrap()
}

/// `v1` was written by the engine before there was a version of the schema: 40 events, 9 detections, one epoch.
#[test]
fn a_folder_of_version_1_opens_and_gets_the_columns_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    copy(&here().join("tests/history/v1"), dir.path());
    let before = columns(dir.path(), Table::Events);
    assert!(!before.contains(&"process_command_line".to_owned()));
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    assert_eq!((writer.last_epoch(Table::Epochs), writer.last_epoch(Table::Risk)), (1, 0));
    writer.write(1, &[event(0, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.write(2, &[event(0, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.write(2, &[alert()]).unwrap();
    writer.write(2, &[entry(2)]).unwrap();
    writer.commit(2).unwrap();
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 40), (2, 1)]));
    assert_eq!(rows_by_epoch(dir.path(), Table::Detections), BTreeMap::from([(1, 9)]));
    let after = columns(dir.path(), Table::Events);
    assert_eq!(after[..before.len()], before);
    for table in Table::ALL {
        let present = columns(dir.path(), table);
        let missing: Vec<_> = table.columns().iter().filter(|c| !present.contains(&c.name.to_owned())).collect();
        assert!(missing.is_empty(), "{table:?} lacks {missing:?}");
    }
    drop(writer);
    // The second time there is nothing to do.
    let version = |table: Table| fs::read_dir(dir.path().join(table.name()).join("_delta_log")).unwrap().count();
    let versions: Vec<_> = Table::ALL.into_iter().map(version).collect();
    drop(Writer::open(dir.path(), OPTIONS).unwrap());
    assert_eq!(Table::ALL.into_iter().map(version).collect::<Vec<_>>(), versions);
}

#[test]
fn a_table_of_a_newer_engine_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(Writer::open(dir.path(), OPTIONS).unwrap());
    let log = dir.path().join("alerts/_delta_log/00000000000000000000.json");
    let newer = fs::read_to_string(&log)
        .unwrap()
        .replace(r#""counterflow.schemaVersion":"3""#, r#""counterflow.schemaVersion":"9""#);
    fs::write(&log, newer).unwrap();
    let error = Writer::open(dir.path(), OPTIONS).unwrap_err().to_string();
    assert!(error.contains("history table alerts") && error.contains("version 9"), "{error}");
}

#[test]
fn fields_of_rules_become_columns_and_stay_when_the_rules_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    let at = time("2026-01-05T14:00:00Z");
    let with = |field: &str| {
        let mut event = event(0, at);
        event.fields.push(Name::intern(field), "value", Scalar::Text);
        event
    };
    for (epoch, field) in [(1, "LogonType"), (2, "cs-uri-stem"), (3, "LogonType")] {
        let (columns, left_out) = writer.field_columns().unwrap().with(&[Arc::from(field)]);
        assert_eq!(left_out, 0);
        let mut batch = EventBatch::with_fields(Arc::new(columns));
        batch.push(epoch, &with(field));
        batch.push(epoch, &event(1, at));
        writer.append(batch.finish().unwrap());
        writer.write(epoch, &[entry(epoch)]).unwrap();
        writer.commit(epoch).unwrap();
    }
    let columns = columns(dir.path(), Table::Events);
    let own: Vec<_> = columns.iter().skip(Table::Events.columns().len()).collect();
    assert_eq!(own, ["logontype", "cs_uri_stem"]);
    assert_eq!(rows_by_epoch(dir.path(), Table::Events), BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
    drop(writer);
    let writer = Writer::open(dir.path(), OPTIONS).unwrap();
    assert!(writer.field_columns().unwrap().columns().iter().any(|column| **column == *"cs_uri_stem"));
}
