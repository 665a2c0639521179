//! Others read what we write, while we write it: delta-rs for Python, and DuckDB over the files that it names.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cf_history::{Housekeeper, Table, Writer, open_version};

use crate::{support::*, tools::programs};

/// Prints `table version rows-by-delta-rs rows-by-duckdb` for the newest version of each table, and for an older one.
const SCRIPT: &str = r#"
import sys, os, duckdb
from deltalake import DeltaTable
for table in sys.argv[2:]:
    path = os.path.join(sys.argv[1], table)
    newest = DeltaTable(path).version()
    for version in {newest, max(newest - 3, 1)}:
        read = DeltaTable(path, version=version)
        files = [uri.replace("file://", "") for uri in read.file_uris()]
        ours = sum(batch.num_rows for batch in read.to_pyarrow_dataset().to_batches(columns=["epoch"])) if files else 0
        duck = duckdb.execute("select count(*) from read_parquet($1, union_by_name=true)", [files]).fetchone()[0] if files else 0
        times = duckdb.execute("select count(distinct epoch) from read_parquet($1, union_by_name=true)", [files]).fetchone()[0] if files else 0
        print(table, version, ours, duck, times)
"#;

fn rows_of_version(history: &Path, table: Table, version: u64) -> (u64, u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opened = runtime.block_on(open_version(history, table, version)).unwrap();
    (opened.files(table).unwrap().iter().map(|file| file.rows).sum(), opened.last_epoch)
}

/// The same by SQL.
fn counted_by_sql(history: &Path, table: Table, version: u64) -> i64 {
    use arrow::{array::AsArray, datatypes::Int64Type};
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let opened = open_version(history, table, version).await.unwrap();
        let context = deltalake::datafusion::prelude::SessionContext::new();
        opened.delta.update_datafusion_session(&context.state()).unwrap();
        let provider = opened.delta.table_provider().await.unwrap();
        context.register_table("t", provider).unwrap();
        let batches = context.sql("select count(*) from t").await.unwrap().collect().await.unwrap();
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    })
}

#[test]
fn others_count_what_we_count_while_the_engine_writes() {
    let Some(programs) = programs("others_count_what_we_count_while_the_engine_writes") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path(), OPTIONS).unwrap();
    writer.write(1, &[event(1, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.write(1, &[detection()]).unwrap();
    writer.write(1, &[entry(1)]).unwrap();
    writer.commit(1).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (history, stopped) = (dir.path().to_owned(), Arc::clone(&stop));
    let engine = std::thread::spawn(move || {
        let mut keeper = Housekeeper::new(&history).unwrap();
        let mut epoch = 1;
        while !stopped.load(Ordering::Relaxed) {
            epoch += 1;
            let day = time("2026-01-05T14:00:00Z").plus_micros(i64::try_from(epoch % 3).unwrap() * 86_400_000_000);
            writer.write(epoch, &(0..7).map(|i| event(epoch * 7 + i, day)).collect::<Vec<_>>()).unwrap();
            writer.write(epoch, &[detection()]).unwrap();
            writer.write(epoch, &[entry(epoch)]).unwrap();
            writer.commit(epoch).unwrap();
            if epoch % 10 == 0
                && let Some(replacement) = keeper.compact(Table::Events, true).unwrap()
            {
                assert!(writer.replace(replacement).unwrap());
            }
        }
    });
    let mut seen = BTreeMap::new();
    for _ in 0..3 {
        let tables = [Table::Events, Table::Detections, Table::Epochs].map(Table::name);
        let output = Command::new(programs.join("python"))
            .args(["-c", SCRIPT, dir.path().to_str().unwrap()])
            .args(tables)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let numbers: Vec<u64> = words[1..].iter().map(|word| word.parse().unwrap()).collect();
            seen.insert((words[0].to_owned(), numbers[0]), (numbers[1], numbers[2], numbers[3]));
        }
    }
    stop.store(true, Ordering::Relaxed);
    engine.join().unwrap();
    assert!(seen.len() >= 6, "{seen:?}");
    for ((name, version), (delta_rs, duckdb, epochs)) in seen {
        let table = Table::ALL.into_iter().find(|table| table.name() == name).unwrap();
        let (rows, last_epoch) = rows_of_version(dir.path(), table, version);
        assert_eq!((delta_rs, duckdb, epochs), (rows, rows, last_epoch), "{name} at version {version}");
        assert_eq!(counted_by_sql(dir.path(), table, version), i64::try_from(rows).unwrap(), "{name} at {version}");
    }
}
