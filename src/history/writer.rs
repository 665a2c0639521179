//! The committer: takes batches of rows, appends whole epochs to each table.
//!
//! In: batches of any tables and epochs, in any order, before their epoch is committed. Out: one Delta commit per table
//! that has rows, `epochs` last. Memory: the batches between two commits ([`Writer::buffered_bytes`]).
//! After a crash between two tables, some are ahead: each skips what it has, by its own application transaction.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use cf_fail as fail;
use cf_types::{Epoch, clock};
use deltalake::kernel::Add;
use tokio::runtime::{Builder, Runtime};

use crate::{
    batch::{Batch, BatchBuilder, Row},
    error::HistoryError,
    fields::FieldColumns,
    file::{Selection, epochs_of},
    files::Files,
    made::Made,
    place::Place,
    schema::Table,
    table::{Appender, Replacement},
    waiting::Waiting,
};

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

/// Gives the files that others made of a table's rows of the epochs after one, up to and with another.
pub type Others<'a> = &'a mut dyn FnMut(Table, Epoch, Epoch) -> Result<Vec<Made>, HistoryError>;

/// The one writer of history. It blocks: give it a thread of its own, outside of any asynchronous runtime.
#[derive(Debug)]
pub struct Writer {
    runtime: Option<Runtime>,
    tables: Vec<Buffered>,
    options: Options,
    /// In the names of its files: no other writer's have it.
    token: String,
}

#[derive(Debug)]
struct Buffered {
    appender: Appender,
    waiting: Waiting,
    /// A commit failed: its outcome is unknown until the log was read anew.
    unsure: bool,
    /// What that commit would have added: the last epoch, and its files.
    attempted: Option<(Epoch, HashSet<String>)>,
}

impl Writer {
    /// Opens the tables of a history (`DIR/history`, say), makes those that are missing and adds columns that are.
    ///
    /// The caller holds the lock of the data folder: two writers are not provided for, and a commit that finds another
    /// one's fails.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written or a table there is not as this engine writes it.
    pub fn open(history: impl Into<Place>, options: Options) -> Result<Writer, HistoryError> {
        let place = history.into();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("history")
            .enable_all()
            .build()
            .map_err(HistoryError::Runtime)?;
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let appender = Appender::open(&place, table, runtime.handle())?;
            tables.push(Buffered { appender, waiting: Waiting::default(), unsure: false, attempted: None });
        }
        let token = format!("{:x}{:08x}", clock::now().micros(), std::process::id());
        Ok(Writer { runtime: Some(runtime), tables, options, token })
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
            buffered.waiting.push(batch.rows);
        }
    }

    /// What waits for the next commit, in bytes of memory.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.tables.iter().map(|buffered| buffered.waiting.bytes).sum()
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
        self.commit_with(upto, &mut |_, _, _| Ok(Vec::new()))
    }

    /// The same, with the files that others made of the rows that they have.
    ///
    /// # Errors
    ///
    /// As [`Writer::commit`], and when a file of others could not be put.
    pub fn commit_with(&mut self, upto: Epoch, others: Others<'_>) -> Result<Committed, HistoryError> {
        let mut committed = Committed::default();
        for (table, buffered) in Table::ALL.into_iter().zip(&mut self.tables) {
            buffered.settle(table)?;
            // Asked for when it is known what the table has.
            let made = others(table, buffered.appender.last_epoch(), upto)?;
            committed.tables.extend(buffered.commit(table, upto, made, self.options, &self.token)?);
        }
        committed.epoch = self.last_epoch(Table::Epochs);
        Ok(committed)
    }
}

impl Writer {
    /// The columns of events that the table has, for those who make batches ([`BatchBuilder::with_fields`]).
    ///
    /// # Errors
    ///
    /// When the table is not loaded.
    pub fn field_columns(&self) -> Result<Arc<FieldColumns>, HistoryError> {
        let events = self.tables.get(Table::Events.position());
        let present = events.map(|events| events.appender.field_columns()).transpose()?.unwrap_or_default();
        Ok(Arc::new(FieldColumns::new(present.iter().map(String::as_str))))
    }

    /// Puts files in the place of others; `false` if some of those are not there any more: then nothing is changed.
    ///
    /// # Errors
    ///
    /// When the table cannot be written; what was to come is not in it, or is in it whole.
    pub fn replace(&mut self, replacement: Replacement) -> Result<bool, HistoryError> {
        let table = replacement.table();
        let Some(buffered) = self.tables.get_mut(table.position()) else { return Ok(false) };
        buffered.settle(table)?;
        buffered.unsure = true;
        let replaced = buffered.appender.replace(replacement)?;
        buffered.unsure = false;
        Ok(replaced.is_some())
    }
}

impl Writer {
    pub(crate) fn encoders(&self) -> usize {
        self.options.encoders
    }

    pub(crate) fn files(&self, table: Table) -> Option<&Files> {
        self.tables.get(table.position()).map(|buffered| &buffered.appender.files)
    }

    /// Whether a table has what is told by this key.
    pub(crate) fn has(&self, table: Table, key: &str) -> Result<bool, HistoryError> {
        self.tables.get(table.position()).map_or(Ok(false), |buffered| buffered.appender.has(key))
    }

    /// Adds files under a key, once: `false` if the table has it already.
    pub(crate) fn add_once(
        &mut self,
        table: Table,
        key: &str,
        adds: Vec<Add>,
        columns: &[String],
    ) -> Result<bool, HistoryError> {
        let Some(buffered) = self.tables.get_mut(table.position()) else { return Ok(false) };
        buffered.settle(table)?;
        if buffered.appender.has(key)? {
            return Ok(false);
        }
        buffered.unsure = true;
        buffered.appender.add_under(key, adds, columns)?;
        buffered.unsure = false;
        Ok(true)
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
    fn commit(
        &mut self,
        table: Table,
        upto: Epoch,
        made: Vec<Made>,
        options: Options,
        token: &str,
    ) -> Result<Option<TableCommit>, HistoryError> {
        let started = Instant::now();
        let selection = Selection::new(table, &self.waiting.batches, (self.appender.last_epoch(), upto), token);
        if selection.epochs.is_none() && made.is_empty() {
            return self.waiting.keep_after(table, upto).map(|()| None);
        }
        let mut adds = selection.write(&self.appender.files, options.encoders)?;
        let (mut columns, mut rows) = (selection.field_columns(), selection.rows);
        for made in made {
            columns.extend(made.columns().iter().cloned());
            rows += made.rows();
            adds.push(made.put(&self.appender.files)?);
        }
        let (columns, files): (Vec<String>, usize) = (columns.into_iter().collect(), adds.len());
        let bytes = adds.iter().filter_map(|add| u64::try_from(add.size).ok()).sum();
        let encoding = started.elapsed();
        fail::point("history.files_written");
        self.attempted = Some((upto, adds.iter().map(|add| add.path.clone()).collect()));
        self.unsure = true;
        let version = self.appender.append(adds, upto, &columns)?;
        self.unsure = false;
        fail::point("history.table_committed");
        let committing = started.elapsed().saturating_sub(encoding);
        self.waiting.keep_after(table, upto)?;
        Ok(Some(TableCommit { table, version, rows, files, bytes, encoding, committing }))
    }

    /// Reads the log anew if the outcome of a commit is not known; another writer's commits are an error.
    fn settle(&mut self, table: Table) -> Result<(), HistoryError> {
        if !self.unsure {
            return Ok(());
        }
        let before = self.appender.last_epoch();
        self.appender.reload()?;
        let last = self.appender.last_epoch();
        if last != before {
            let files: HashSet<String> =
                self.appender.opened().files(table)?.into_iter().map(|file| file.path).collect();
            let is_ours = self.attempted.as_ref().is_some_and(|(epoch, ours)| *epoch == last && ours.is_subset(&files));
            if !is_ours {
                return Err(HistoryError::OtherWriter { table, epoch: last });
            }
        }
        self.unsure = false;
        Ok(())
    }
}
