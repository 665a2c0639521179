//! The committer: takes batches of rows, appends whole epochs to each table.
//!
//! In: batches of any tables and epochs, in any order, before their epoch is committed. Out: one Delta commit per table
//! that has rows, `epochs` last. Memory: the batches between two commits ([`Writer::buffered_bytes`]).
//! After a crash between two tables, some are ahead: each skips what it has, by its own application transaction.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use arrow::{
    array::BooleanArray,
    array::RecordBatch,
    compute::{concat_batches, filter_record_batch},
};
use cf_fail as fail;
use cf_types::Epoch;
use tokio::runtime::{Builder, Runtime};

use crate::{
    batch::{Batch, BatchBuilder, Row},
    error::HistoryError,
    file::{Selection, epochs_of},
    schema::Table,
    table::Appender,
};

/// A batch below this is small.
const SMALL_BYTES: usize = 1 << 20;

/// So many small batches in a row are joined.
const SMALL_MAX: usize = 64;

/// How the writer works.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that encode Parquet during a commit. More shorten a commit of many rows; each holds one row group.
    pub encoders: usize,
}

impl Default for Options {
    fn default() -> Options {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Options { encoders: cores.div_ceil(2).min(4) } // the other half is the dataflow's
    }
}

/// What a commit did.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The last epoch that all tables hold now.
    pub epoch: Epoch,
    /// By table, those that had rows.
    pub tables: Vec<TableCommit>,
}

/// What a commit did to one table.
#[derive(Clone, Debug)]
pub struct TableCommit {
    /// Which.
    pub table: Table,
    /// Its new version.
    pub version: u64,
    /// Rows added.
    pub rows: usize,
    /// Files added.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Time to encode and write them.
    pub encoding: Duration,
    /// Time of the Delta commit.
    pub committing: Duration,
}

/// The one writer of history. It blocks: give it a thread of its own, outside of any asynchronous runtime.
#[derive(Debug)]
pub struct Writer {
    runtime: Option<Runtime>,
    tables: Vec<Buffered>,
    options: Options,
}

#[derive(Debug)]
struct Buffered {
    appender: Appender,
    batches: Vec<RecordBatch>,
    /// How many at the end of `batches` came one by one and are small.
    small: usize,
    bytes: usize,
    /// A commit failed: its outcome is unknown until the log was read anew.
    unsure: bool,
}

impl Writer {
    /// Opens the tables under the history folder (`DIR/history`), makes those that are missing.
    ///
    /// The caller holds the lock of the data folder: two writers are not provided for, and a commit that finds another
    /// one's fails.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written or a table there is not as this engine writes it.
    pub fn open(history: &Path, options: Options) -> Result<Writer, HistoryError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("history")
            .enable_all()
            .build()
            .map_err(HistoryError::Runtime)?;
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let appender = runtime.block_on(Box::pin(Appender::open(history, table)))?;
            tables.push(Buffered { appender, batches: Vec::new(), small: 0, bytes: 0, unsure: false });
        }
        Ok(Writer { runtime: Some(runtime), tables, options })
    }

    /// The last epoch whose rows a table holds; 0 before the first. That of [`Table::Epochs`] is complete in all.
    #[must_use]
    pub fn last_epoch(&self, table: Table) -> Epoch {
        self.tables.get(table.position()).map_or(0, |buffered| buffered.appender.last_epoch())
    }

    /// Takes rows of one epoch, of any kind.
    ///
    /// # Errors
    ///
    /// When the columns do not fit together, which would be a mistake in this crate.
    pub fn write<R: Row>(&mut self, epoch: Epoch, rows: &[R]) -> Result<(), HistoryError> {
        let mut builder = BatchBuilder::new();
        for row in rows {
            builder.push(epoch, row);
            if builder.bytes() >= BatchBuilder::<R>::BYTES_MAX {
                self.append(builder.finish()?);
            }
        }
        self.append(builder.finish()?);
        Ok(())
    }

    /// Takes a batch. Rows of epochs that the table has already are left out.
    pub fn append(&mut self, batch: Batch) {
        let Some(buffered) = self.tables.get_mut(batch.table.position()) else { return };
        let last = buffered.appender.last_epoch();
        if epochs_of(&batch.rows).any(|epoch| epoch > last) {
            buffered.push(batch.rows);
        }
    }

    /// What waits for the next commit, in bytes of memory.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.tables.iter().map(|buffered| buffered.bytes).sum()
    }

    /// Appends the buffered rows of all epochs up to and with `upto` to each table, durably, `epochs` last.
    ///
    /// The caller has handed over all rows of these epochs, and the ledger has their transactions.
    ///
    /// # Errors
    ///
    /// When a table could not be written: its rows and those of the tables after it stay buffered, and the same call
    /// may be tried again.
    pub fn commit(&mut self, upto: Epoch) -> Result<Committed, HistoryError> {
        let mut committed = Committed::default();
        let Some(runtime) = &self.runtime else { return Ok(committed) };
        for (table, buffered) in Table::ALL.into_iter().zip(&mut self.tables) {
            committed.tables.extend(buffered.commit(runtime, table, upto, self.options)?);
        }
        committed.epoch = self.last_epoch(Table::Epochs);
        Ok(committed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Not by waiting: that is forbidden where an asynchronous runtime runs, and every commit was waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Buffered {
    /// Small batches (an epoch of a quiet source) are joined: each costs some kilobytes beside its rows.
    fn push(&mut self, rows: RecordBatch) {
        let bytes = rows.get_array_memory_size();
        self.small = if bytes < SMALL_BYTES { self.small + 1 } else { 0 };
        self.bytes += bytes;
        self.batches.push(rows);
        if self.small < SMALL_MAX {
            return;
        }
        let small = self.batches.split_off(self.batches.len().saturating_sub(self.small));
        self.small = 0;
        let joined = small.first().and_then(|first| concat_batches(&first.schema(), &small).ok());
        self.batches.extend(joined.map_or(small, |joined| vec![joined]));
        self.bytes = self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
    }

    fn commit(
        &mut self,
        runtime: &Runtime,
        table: Table,
        upto: Epoch,
        options: Options,
    ) -> Result<Option<TableCommit>, HistoryError> {
        if self.unsure {
            runtime.block_on(Box::pin(self.appender.reload()))?;
            self.unsure = false;
        }
        let started = Instant::now();
        let selection = Selection::new(table, &self.batches, self.appender.last_epoch(), upto);
        if selection.epochs.is_none() {
            return self.keep_after(table, upto).map(|()| None);
        }
        let adds = selection.write(&self.appender.folder, options.encoders)?;
        let (rows, files) = (selection.rows, adds.len());
        let bytes = adds.iter().filter_map(|add| u64::try_from(add.size).ok()).sum();
        let encoding = started.elapsed();
        fail::point("history.files_written");
        self.unsure = true;
        let version = runtime.block_on(Box::pin(self.appender.append(adds, upto)))?;
        self.unsure = false;
        fail::point("history.table_committed");
        let committing = started.elapsed().saturating_sub(encoding);
        self.keep_after(table, upto)?;
        Ok(Some(TableCommit { table, version, rows, files, bytes, encoding, committing }))
    }

    /// Lets go of the rows up to and with `upto`.
    fn keep_after(&mut self, table: Table, upto: Epoch) -> Result<(), HistoryError> {
        let mut kept = Vec::new();
        for batch in self.batches.drain(..) {
            let later: BooleanArray = epochs_of(&batch).map(|epoch| Some(epoch > upto)).collect();
            match later.true_count() {
                0 => {}
                all if all == batch.num_rows() => kept.push(batch),
                _ => kept
                    .push(filter_record_batch(&batch, &later).map_err(|source| HistoryError::Arrow { table, source })?),
            }
        }
        self.bytes = kept.iter().map(RecordBatch::get_array_memory_size).sum();
        self.batches = kept;
        self.small = 0;
        Ok(())
    }
}
