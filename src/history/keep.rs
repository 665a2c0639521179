//! Housekeeping: joins small files, lets go of what is too old or too much, removes files that no reader needs.
//!
//! It reads tables and writes new files by itself, beside the writer; what takes the place of what is decided by the one
//! [`Writer`](crate::Writer) alone, in one Delta commit each. A crash before that commit leaves files that nobody names,
//! which the next start removes; a crash after it leaves files that are not needed any more, which go when their time is
//! up. Epochs and their transactions are not touched, so each row stays in the table exactly once.

use std::collections::{BTreeMap, HashSet};

use cf_types::{Epoch, Time, clock};
use tokio::runtime::{Builder, Runtime};

use crate::{
    compact,
    erase::Erasure,
    error::HistoryError,
    files::Files,
    place::Place,
    retain::{Pinned, Retention},
    rewrite::{read, rewrite},
    schema::Table,
    stored::Stored,
    table::{Opened, Replacement, gone, open},
};

/// One table, for people.
#[derive(Clone, Debug)]
pub struct TableStatus {
    /// Which.
    pub table: Table,
    /// Its rows.
    pub rows: u64,
    /// Its files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Files that readers of older versions may still need, and their size.
    pub replaced: (usize, u64),
    /// Time of its oldest row.
    pub oldest: Option<Time>,
    /// Time of its newest row.
    pub newest: Option<Time>,
    /// The last epoch that it holds.
    pub last_epoch: Epoch,
    /// Its version.
    pub version: u64,
}

/// Joins, lets go, removes. For one thread, outside of any asynchronous runtime.
#[derive(Debug)]
pub struct Housekeeper {
    place: Place,
    runtime: Runtime,
    /// Files that cannot be read: said once, then left alone.
    set_aside: HashSet<String>,
    /// Files of days that are over their time, of which all rows are pinned.
    pinned_whole: HashSet<String>,
}

struct Found {
    opened: Opened,
    stored: Vec<Stored>,
    files: Files,
}

impl Housekeeper {
    /// Makes one for a history.
    ///
    /// # Errors
    ///
    /// When its threads cannot be started.
    pub fn new(place: impl Into<Place>) -> Result<Housekeeper, HistoryError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("history-keep")
            .enable_all()
            .build()
            .map_err(HistoryError::Runtime)?;
        let (set_aside, pinned_whole) = (HashSet::new(), HashSet::new());
        Ok(Housekeeper { place: place.into(), runtime, set_aside, pinned_whole })
    }

    fn open(&self, table: Table) -> Result<Option<Found>, HistoryError> {
        let Some(opened) = self.runtime.block_on(Box::pin(open(&self.place, table)))? else { return Ok(None) };
        let stored = opened.files(table)?;
        let store = opened.delta.log_store().object_store(None);
        let files = Files::new(table, self.place.folder(table), store, self.runtime.handle().clone());
        Ok(Some(Found { opened, stored, files }))
    }

    /// Joins the next group of small files of a table; `None` when there is none. With `all` also those of days that are
    /// still written.
    ///
    /// # Errors
    ///
    /// When the table cannot be read or the new file not be written. A file that is damaged or missing is said and left
    /// alone from then on.
    pub fn compact(&mut self, table: Table, all: bool) -> Result<Option<Replacement>, HistoryError> {
        let Some(Found { mut stored, files, .. }) = self.open(table)? else { return Ok(None) };
        stored.retain(|file| !self.set_aside.contains(&file.path));
        for group in compact::plan(&stored, clock::now(), all) {
            match rewrite(&files, table, &group, None) {
                Ok(replacement) => return Ok(replacement),
                Err(error) if error.is_of_one_file() => self.set_bad_aside(&files, table, &group),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn set_bad_aside(&mut self, files: &Files, table: Table, group: &[Stored]) {
        for file in group {
            if let Err(error) = read(files, table, file) {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(table = table.name(), path = file.path, %error, cause, "a file of history is damaged");
                self.set_aside.insert(file.path.clone());
            }
        }
    }

    /// Lets go of the next file that is past its time; rows that incidents rest on stay. `None` when there is none.
    ///
    /// # Errors
    ///
    /// When a table cannot be read or what stays not be written.
    pub fn expire(&mut self, retention: &Retention, pinned: &Pinned) -> Result<Option<Replacement>, HistoryError> {
        for table in Table::ALL {
            let Some(before) = retention.before(table, clock::now()) else { continue };
            let Some(opened) = self.open(table)? else { continue };
            for file in opened.stored.iter().filter(|file| file.newest.is_some_and(|newest| newest < before)) {
                if let Some(replacement) = self.let_go(&opened.files, table, file, pinned)? {
                    return Ok(Some(replacement));
                }
            }
        }
        Ok(None)
    }

    /// Lets go of the next file because all together are more than `bytes_max`: the oldest of what goes first. `None` when
    /// they are not, or nothing is left that may go.
    ///
    /// # Errors
    ///
    /// When a table cannot be read or what stays not be written.
    pub fn shrink(&mut self, bytes_max: u64, pinned: &Pinned) -> Result<Option<Replacement>, HistoryError> {
        let mut opened = BTreeMap::new();
        let mut bytes = 0;
        for table in Table::ALL {
            let Some(found) = self.open(table)? else { continue };
            bytes += found.stored.iter().map(|file| file.bytes).sum::<u64>();
            opened.insert(table, found);
        }
        if bytes <= bytes_max {
            return Ok(None);
        }
        for tables in Retention::GOES_FIRST {
            let mut files: Vec<(Option<Time>, Table, &Stored)> = tables
                .iter()
                .filter_map(|table| Some((*table, opened.get(table)?)))
                .flat_map(|(table, found)| found.stored.iter().map(move |file| (file.newest, table, file)))
                .collect();
            files.sort_by(|a, b| (a.0, a.1, &a.2.path).cmp(&(b.0, b.1, &b.2.path)));
            for (_, table, file) in files {
                let Some(found) = opened.get(&table) else { continue };
                if let Some(replacement) = self.let_go(&found.files, table, file, pinned)? {
                    return Ok(Some(replacement));
                }
            }
        }
        tracing::warn!(bytes, bytes_max, "history is larger than its budget, and nothing is left that may go");
        Ok(None)
    }

    fn let_go(
        &mut self,
        files: &Files,
        table: Table,
        file: &Stored,
        pinned: &Pinned,
    ) -> Result<Option<Replacement>, HistoryError> {
        if !pinned.concerns(table) {
            return Ok(Some(Replacement::removing(table, &file.path)));
        }
        if self.set_aside.contains(&file.path) || self.pinned_whole.contains(&file.path) {
            return Ok(None);
        }
        match rewrite(files, table, std::slice::from_ref(file), Some(&mut |rows| pinned.keep(table, &rows))) {
            Ok(Some(replacement)) => Ok(Some(replacement)),
            Ok(None) => {
                self.pinned_whole.insert(file.path.clone());
                Ok(None)
            }
            Err(error) if error.is_of_one_file() => {
                self.set_bad_aside(files, table, std::slice::from_ref(file));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Erases from the next file of a table that has any of it; `None` when none has. Files of `done` are passed over;
    /// those that have nothing of it are added.
    ///
    /// # Errors
    ///
    /// When the table cannot be read, a file of it is damaged (what is in it cannot be told), or the new file not be
    /// written.
    pub fn erase(
        &mut self,
        table: Table,
        erasure: &Erasure,
        done: &mut HashSet<String>,
    ) -> Result<Option<Replacement>, HistoryError> {
        let Some(Found { stored, files, .. }) = self.open(table)? else { return Ok(None) };
        for file in stored {
            if done.contains(&file.path) {
                continue;
            }
            let change = &mut |rows: arrow::array::RecordBatch| erasure.apply(table, &rows);
            if let Some(replacement) = rewrite(&files, table, std::slice::from_ref(&file), Some(change))? {
                done.extend(replacement.adds.iter().map(|add| add.path.clone()));
                return Ok(Some(replacement));
            }
            done.insert(file.path);
        }
        Ok(None)
    }

    /// Reads the rows of a table that pass `wanted` (by what the log says of each file), file by file.
    ///
    /// # Errors
    ///
    /// When the table cannot be read. Files that are damaged are said and passed over.
    pub fn read(
        &mut self,
        table: Table,
        wanted: &dyn Fn(&Stored) -> bool,
        each: &mut dyn FnMut(&arrow::array::RecordBatch),
    ) -> Result<(), HistoryError> {
        let Some(Found { stored, files, .. }) = self.open(table)? else { return Ok(()) };
        for file in stored.iter().filter(|file| wanted(file)) {
            match read(&files, table, file) {
                Ok(batches) => batches.iter().for_each(&mut *each),
                Err(error) if error.is_of_one_file() => self.set_bad_aside(&files, table, std::slice::from_ref(file)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes files that no version of the last `keep_ms` milliseconds needs. Gives how many, and their size.
    ///
    /// # Errors
    ///
    /// When a table cannot be read or a file not be removed.
    pub fn vacuum(&self, keep_ms: i64) -> Result<(usize, u64), HistoryError> {
        let limit = clock::now().micros() / 1_000 - keep_ms;
        let (mut count, mut bytes) = (0, 0);
        for table in Table::ALL {
            let Some(opened) = self.open(table)? else { continue };
            let mut needed: HashSet<String> = opened.stored.into_iter().map(|file| file.path).collect();
            let gone = gone(&opened.opened, table, self.runtime.handle())?;
            needed.extend(gone.into_iter().filter(|(_, at)| *at > limit).map(|(path, _)| path));
            for file in opened.files.list()? {
                // What is young may be on its way into the table at this moment.
                if file.modified_ms <= limit && !needed.contains(&file.path) {
                    opened.files.remove(&file.path)?;
                    count += 1;
                    bytes += file.bytes;
                }
            }
        }
        Ok((count, bytes))
    }

    /// Each table: what it holds and what it takes.
    ///
    /// # Errors
    ///
    /// When a table cannot be read.
    pub fn status(&self) -> Result<Vec<TableStatus>, HistoryError> {
        let mut tables = Vec::new();
        for table in Table::ALL {
            let Some(Found { opened, stored, files }) = self.open(table)? else { continue };
            let needed: HashSet<&str> = stored.iter().map(|file| file.path.as_str()).collect();
            let listed = files.list()?;
            let replaced = listed.iter().filter(|file| !needed.contains(file.path.as_str()));
            tables.push(TableStatus {
                table,
                rows: stored.iter().map(|file| file.rows).sum(),
                files: stored.len(),
                bytes: stored.iter().map(|file| file.bytes).sum(),
                replaced: replaced.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.bytes)),
                oldest: stored.iter().filter_map(|file| file.oldest).min(),
                newest: stored.iter().filter_map(|file| file.newest).max(),
                last_epoch: opened.last_epoch,
                version: opened.delta.version().unwrap_or(0),
            });
        }
        Ok(tables)
    }
}
