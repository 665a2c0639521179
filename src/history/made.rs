//! Data files that one process makes and another puts into the table: sorting and encoding is done where the rows are, and
//! what travels is a tenth of them.
//!
//! A [`Maker`] keeps rows until it is told that they are committed, so that files can be asked for again: the rows are the
//! same, and so is their place in the table.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use cf_types::{Epoch, clock};
use deltalake::kernel::Add;
use serde::{Deserialize, Serialize, de::Error as _};

use crate::{
    batch::Batch,
    error::HistoryError,
    file::Selection,
    files::{Put, is_ours},
    schema::Table,
    waiting::Waiting,
};

/// A data file that no table has yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Made {
    path: String,
    /// What the Delta log will say of it, as JSON.
    add: String,
    /// The file.
    content: Bytes,
    /// How many rows it has.
    rows: usize,
    /// Columns of fields that it, or a file made with it, fills.
    columns: Vec<String>,
}

impl Made {
    /// Where it will lie, relative to the table.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Puts the file where it belongs; gives what to commit.
    pub(crate) fn put(self, files: &dyn Put) -> Result<Add, HistoryError> {
        let add: Add = serde_json::from_str(&self.add).map_err(HistoryError::Made)?;
        // It comes from another machine: it may name a data file of the table, and nothing else on this one.
        let mut parts = Path::new(&add.path).components();
        if !is_ours(&add.path) || !parts.all(|part| matches!(part, Component::Normal(_))) {
            let why = format!("{:?} is no place of a data file", add.path);
            return Err(HistoryError::Made(serde_json::Error::custom(why)));
        }
        files.put(&add.path, self.content.into())?;
        Ok(add)
    }
}

/// Rows of one table in a process that does not write the table.
#[derive(Debug)]
pub struct Maker {
    table: Table,
    waiting: Waiting,
    /// In the names of its files: no other process's have it.
    token: String,
}

impl Maker {
    /// Begins without rows. `process` is another for each process that makes files of one table at the same time.
    #[must_use]
    pub fn new(table: Table, process: usize) -> Maker {
        let token = format!("{:x}{:08x}{process:02x}", clock::now().micros(), std::process::id());
        Maker { table, waiting: Waiting::default(), token }
    }

    /// Takes rows.
    pub fn append(&mut self, batch: Batch) {
        if batch.table() == self.table && !batch.is_empty() {
            self.waiting.push(batch.rows);
        }
    }

    /// What they take of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.waiting.bytes
    }

    /// Makes files of the rows of the epochs after `after`, up to and with `upto`. The rows stay.
    ///
    /// # Errors
    ///
    /// When the rows cannot be encoded.
    pub fn make(&self, after: Epoch, upto: Epoch) -> Result<Vec<Made>, HistoryError> {
        let selection = Selection::new(self.table, &self.waiting.batches, (after, upto), &self.token);
        let contents = Contents::default();
        let adds = selection.write(&contents, 1)?;
        let columns: Vec<String> = selection.field_columns().into_iter().collect();
        let mut contents = contents.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        // All rows are counted with the first file: nobody asks which file has which.
        let rows = std::iter::once(selection.rows).chain(std::iter::repeat(0));
        let made = adds.into_iter().zip(rows).map(|(add, rows)| {
            let content = contents.remove(&add.path).unwrap_or_default().into();
            let (path, columns) = (add.path.clone(), columns.clone());
            let add = serde_json::to_string(&add).map_err(HistoryError::Made)?;
            Ok(Made { path, add, content, rows, columns })
        });
        made.collect()
    }

    /// Lets go of the rows up to and with an epoch: the table has them.
    ///
    /// # Errors
    ///
    /// When Arrow cannot filter them.
    pub fn forget(&mut self, upto: Epoch) -> Result<(), HistoryError> {
        self.waiting.keep_after(self.table, upto)
    }
}

/// Files that are put into memory, by path.
#[derive(Default)]
struct Contents(Mutex<BTreeMap<String, Vec<u8>>>);

impl Put for Contents {
    fn put(&self, path: &str, content: Vec<u8>) -> Result<(), HistoryError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), content);
        Ok(())
    }
}
