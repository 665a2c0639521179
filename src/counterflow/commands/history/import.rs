//! `counterflow history import`: archives into history, without the graph: decoded on all cores, each file once.
//!
//! A file is told by the BLAKE3 of its bytes, so the same archive under another name is not taken in again.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context, Result};
use cf_history::{Batch, BatchBuilder, EventBatch, FieldColumns, Table, Writer};
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_types::{Epoch, Record};

use super::{Held, hold};
use crate::{
    cli::ImportHistoryArguments,
    input::{BATCH_RECORDS, Input},
    output::{self, Exit},
    rules::{self, RuleOptions},
};

/// Imported rows are before everything that the engine received.
const EPOCH: Epoch = 0;

/// Rows that one thread hands over at once: large enough that a file's batches are few.
const HANDED_OVER_ROWS: usize = 16_384;

pub(super) fn run(arguments: &ImportHistoryArguments) -> Result<Exit> {
    std::fs::create_dir_all(&arguments.data)
        .with_context(|| format!("could not make data folder {}", arguments.data.display()))?;
    // The ledger is held to the end: it keeps an engine out.
    let Held { ledger: _ledger, mut writer, .. } = hold(&arguments.data)?;
    let mut columns = writer.field_columns()?;
    if !arguments.rules.is_empty() {
        let loaded = rules::load(&arguments.rules, &RuleOptions::default())?;
        columns = Arc::new(columns.with(&loaded.rules.fields()).0);
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.map_or(cores, usize::from);
    let mut unreadable = 0;
    for path in &arguments.files {
        let shown = path.display();
        match one(&mut writer, path, arguments.year, threads, &columns) {
            Ok(None) => output::note(&format!("{shown} is in history already")),
            Ok(Some((events, rejects))) => output::note(&format!("{shown}: {events} events, {rejects} rejects")),
            Err(error) => {
                output::note(&format!("error: {shown} was not taken in: {error:#}"));
                unreadable += 1;
            }
        }
    }
    Ok(if unreadable == 0 { Exit::Ok } else { Exit::Problems })
}

/// Takes in one file; `None` if it is in already. What was taken in.
fn one(
    writer: &mut Writer,
    path: &Path,
    year: Option<i16>,
    threads: usize,
    columns: &Arc<FieldColumns>,
) -> Result<Option<(usize, usize)>> {
    let Some(mut import) = writer.import(&hash(path)?)? else { return Ok(None) };
    let mut input = Input::new(&[path.to_owned()], year);
    let (records, work) = mpsc::sync_channel::<Vec<Record>>(threads * 2);
    let work = Mutex::new(work);
    let (batches, made) = mpsc::sync_channel::<Result<Batch>>(threads * 2);
    let import = thread::scope(|scope| {
        for _ in 0..threads {
            let (work, batches) = (&work, batches.clone());
            scope.spawn(move || decode(work, &batches, columns));
        }
        drop(batches);
        let taking = scope
            .spawn(move || made.into_iter().try_for_each(|batch| anyhow::Ok(import.append(batch?)?)).map(|()| import));
        loop {
            let next = input.batch(BATCH_RECORDS);
            if next.is_empty() || taking.is_finished() || records.send(next).is_err() {
                break;
            }
        }
        drop(records);
        taking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    anyhow::ensure!(input.unreadable == 0, "it could not be read to its end");
    let rows = import.commit()?;
    let of = |table: Table| rows.iter().find(|(one, _)| *one == table).map_or(0, |(_, rows)| *rows);
    Ok(Some((of(Table::Events), of(Table::Rejects))))
}

/// Decodes until there is no more, and hands over rows.
fn decode(
    work: &Mutex<mpsc::Receiver<Vec<Record>>>,
    batches: &mpsc::SyncSender<Result<Batch>>,
    columns: &Arc<FieldColumns>,
) {
    let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
    let mut decoded = Decoded::default();
    let mut events = EventBatch::with_fields(Arc::clone(columns));
    let mut rejects = BatchBuilder::new();
    let hand_over = |batch: Result<Batch, cf_history::HistoryError>| batches.send(batch.map_err(Into::into)).is_ok();
    let mut failed = false;
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(records) = next else { break };
        if failed {
            continue; // who reads the file must not wait for us
        }
        decoded.clear();
        records.iter().for_each(|record| decoder.decode(record, &mut decoded));
        decoded.events.iter().for_each(|event| events.push(EPOCH, event));
        decoded.rejects.iter().for_each(|reject| rejects.push(EPOCH, reject));
        let full = events.len() >= HANDED_OVER_ROWS || events.bytes() >= EventBatch::BYTES_MAX;
        failed = (full && !hand_over(events.finish()))
            || (rejects.len() >= HANDED_OVER_ROWS && !hand_over(rejects.finish()));
    }
    if !failed && (events.is_empty() || hand_over(events.finish())) {
        let _failed = rejects.is_empty() || hand_over(rejects.finish());
    }
}

fn hash(path: &Path) -> Result<String> {
    let failed = || format!("could not read {}", path.display());
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).with_context(failed)?).with_context(failed)?;
    Ok(hasher.finalize().to_hex().to_string())
}
