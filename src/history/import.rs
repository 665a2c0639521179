//! Archives into history: each file whole and once, without an epoch of the engine.
//!
//! In: batches of events and rejects of one file. Out: data files, and one Delta commit per table that names all of them,
//! with an application transaction of the file's own: given again, it is in already. Rows have epoch 0, which is before
//! everything the engine received. Memory: [`BUFFERED_BYTES`] and one encoded file. A crash before the commit leaves files
//! that nobody names; the next start removes them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use deltalake::kernel::Add;

use crate::{batch::Batch, error::HistoryError, file::Selection, rewrite::new_stem, schema::Table, writer::Writer};

/// Rows are written out when they take so much memory.
const BUFFERED_BYTES: usize = 192 << 20;

/// One file on its way into history.
#[derive(Debug)]
pub struct Import<'a> {
    writer: &'a mut Writer,
    key: String,
    encoders: usize,
    tables: BTreeMap<Table, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: Vec<RecordBatch>,
    bytes: usize,
    adds: Vec<Add>,
    columns: BTreeSet<String>,
    rows: usize,
}

impl<'a> Import<'a> {
    pub(crate) fn new(writer: &'a mut Writer, key: &str, encoders: usize) -> Import<'a> {
        Import { writer, key: format!("import-{key}"), encoders, tables: BTreeMap::new() }
    }

    /// Takes rows of the file.
    ///
    /// # Errors
    ///
    /// When they cannot be written out.
    pub fn append(&mut self, batch: Batch) -> Result<(), HistoryError> {
        let waiting = self.tables.entry(batch.table).or_default();
        waiting.bytes += batch.rows.get_array_memory_size();
        waiting.batches.push(batch.rows);
        if waiting.bytes >= BUFFERED_BYTES { self.write_out(batch.table) } else { Ok(()) }
    }

    fn write_out(&mut self, table: Table) -> Result<(), HistoryError> {
        let (Some(waiting), Some(files)) = (self.tables.get_mut(&table), self.writer.files(table)) else {
            return Ok(());
        };
        let batches = std::mem::take(&mut waiting.batches);
        waiting.bytes = 0;
        let selection = Selection::merged(table, &batches, new_stem());
        waiting.rows += selection.rows;
        waiting.columns.extend(selection.field_columns());
        waiting.adds.extend(selection.write(files, self.encoders)?);
        Ok(())
    }

    /// Makes all of it part of history, durably. Gives the rows that came, by table; a table that has this file already
    /// gets none.
    ///
    /// # Errors
    ///
    /// When a table could not be written: the same file given again is completed.
    pub fn commit(mut self) -> Result<Vec<(Table, usize)>, HistoryError> {
        let mut done = Vec::new();
        // Events last: who finds the file's transaction there finds all of it.
        for table in [Table::Rejects, Table::Events] {
            self.write_out(table)?;
            let waiting = self.tables.remove(&table).unwrap_or_default();
            let columns: Vec<String> = waiting.columns.into_iter().collect();
            if self.writer.add_once(table, &self.key, waiting.adds, &columns)? {
                done.push((table, waiting.rows));
            }
        }
        Ok(done)
    }
}

impl Writer {
    /// Begins to take in a file that is told by `key`, the hash of its content, say. `None` if it is in already.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn import(&mut self, key: &str) -> Result<Option<Import<'_>>, HistoryError> {
        let encoders = self.encoders();
        let import = Import::new(self, key, encoders);
        let is_in = import.writer.has(Table::Events, &import.key)?;
        Ok((!is_in).then_some(import))
    }
}
