//! Files as records for `detect`, `replay` and `bench`: opened one after the other, read in batches.

use std::{collections::VecDeque, path::PathBuf, time::UNIX_EPOCH};

use cf_ingest::file::{self, FileOptions};
use cf_types::{Record, Time, clock};

use crate::output;

/// Records a batch holds at most.
pub(crate) const BATCH_RECORDS: usize = 2_048;

/// Files to read, in their order.
pub(crate) struct Input {
    files: VecDeque<PathBuf>,
    reader: Option<file::FileReader>,
    year: Option<i16>,
    opened_at: Time,
    /// Files that could not be read, or not to their end.
    pub(crate) unreadable: usize,
    /// Bytes of records given out.
    pub(crate) bytes: u64,
}

impl Input {
    /// Over these files; `-` is standard input. `year` is for times without one, instead of the file's own.
    pub(crate) fn new(files: &[PathBuf], year: Option<i16>) -> Input {
        Input {
            files: files.iter().cloned().collect(),
            reader: None,
            year,
            opened_at: clock::now(),
            unreadable: 0,
            bytes: 0,
        }
    }

    /// The next records, at most `max`; empty at the end of all files.
    pub(crate) fn batch(&mut self, max: usize) -> Vec<Record> {
        let mut records = Vec::with_capacity(max);
        while records.len() < max {
            let Some(reader) = &mut self.reader else {
                let Some(path) = self.files.pop_front() else { break };
                self.open(&path);
                continue;
            };
            match reader.next() {
                Some(Ok(record)) => {
                    self.bytes += u64::try_from(record.bytes.len()).unwrap_or(0);
                    records.push(record);
                }
                Some(Err(error)) => {
                    // Said, and the other files are read: one bad disk block must not hide the rest.
                    output::note(&format!("error: {error}"));
                    self.unreadable += 1;
                    self.reader = None;
                }
                None => self.reader = None,
            }
        }
        records
    }

    fn open(&mut self, path: &PathBuf) {
        // Times without a year take the file's: the choice must not depend on when the replay is run.
        let modified = std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_micros()).ok())
            .map_or(self.opened_at, Time::from_micros);
        let options = FileOptions { year: self.year, ..FileOptions::new(modified) };
        match file::open(&path.to_string_lossy(), &options) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => {
                output::note(&format!("error: {error}"));
                self.unreadable += 1;
            }
        }
    }
}
