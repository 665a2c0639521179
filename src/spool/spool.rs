//! A log of records: what receivers append and the cutter reads.

use std::{ops::Range, path::Path, time::Duration};

use cf_types::Record;
use thiserror::Error;

use crate::{
    log::{AppendError, Log, LogError, LogOptions, Recovery},
    reader::LogReader,
    record::{self, DecodeError, RecordDecoder},
    slot::Appended,
};

/// A log of records.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use bytes::Bytes;
/// use cf_spool::{LogOptions, Spool};
/// use cf_types::{Framing, Origin, Position, Record, Tenant, Time};
///
/// let dir = tempfile::tempdir()?;
/// let (spool, recovery) = Spool::open(dir.path(), &LogOptions::default())?;
/// assert!(recovery.is_clean());
/// let origin = Origin {
///     tenant: Tenant::default(),
///     source: Arc::from("http"),
///     received_at: Time::from_seconds(1),
///     year: None,
///     framing: Framing::Http,
/// };
/// let record = Record { origin: Arc::new(origin), position: Position::default(), bytes: Bytes::from_static(b"{}") };
/// assert_eq!(spool.append(&[record])?.wait()?, 0..1); // durable now; in a task: .await
///
/// assert_eq!(spool.wait(0, Duration::from_secs(1)), 1);
/// let (row, record) = spool.read(0)?.next().expect("one is there")?;
/// assert_eq!((row, &*record.position.origin, record.position.offset), (0, "spool", 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Spool(Log);

impl Spool {
    /// Opens the spool in `dir`.
    ///
    /// # Errors
    ///
    /// As [`Log::open`].
    pub fn open(dir: &Path, options: &LogOptions) -> Result<(Spool, Recovery), LogError> {
        Log::open(dir, options).map(|(log, recovery)| (Spool(log), recovery))
    }

    /// Appends records, all or none, in order. A record whose position has no origin gets its row as position.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    pub fn append(&self, records: &[Record]) -> Result<Appended, AppendError> {
        self.0.append(records.iter().map(record::encode).collect())
    }

    /// Appends records and waits until they are durable; gives their rows.
    ///
    /// # Errors
    ///
    /// As [`Log::append`] and [`Appended::wait`].
    pub fn append_wait(&self, records: &[Record]) -> Result<Range<u64>, AppendError> {
        self.append(records)?.wait()
    }

    /// Reads records from `from_row` on.
    ///
    /// # Errors
    ///
    /// When that row was trimmed.
    pub fn read(&self, from_row: u64) -> Result<SpoolReader, LogError> {
        Ok(SpoolReader { reader: self.0.read(from_row)?, decoder: RecordDecoder::default() })
    }

    /// Waits until `row` is durable, or the time is up, or the spool ends; gives the next row to be written.
    #[must_use]
    pub fn wait(&self, row: u64, timeout: Duration) -> u64 {
        self.0.wait(row, timeout)
    }

    /// The log beneath: its end, floor, size, trimming, closing.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0
    }
}

/// Why a record could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The log cannot be read here.
    #[error(transparent)]
    Log(#[from] LogError),
    /// This row is no record; reading may go on behind it.
    #[error("could not read row {row} of the spool")]
    Decode {
        /// Which row.
        row: u64,
        /// Why not.
        #[source]
        source: DecodeError,
    },
}

/// Reads records in order. An iterator that ends at the durable end and can be asked again later.
#[derive(Debug)]
pub struct SpoolReader {
    reader: LogReader,
    decoder: RecordDecoder,
}

impl SpoolReader {
    /// The next row that it would give, if it is there.
    #[must_use]
    pub fn next_row(&self) -> u64 {
        self.reader.next_row()
    }

    /// How many damaged ranges were skipped.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.reader.damaged()
    }
}

impl Iterator for SpoolReader {
    type Item = Result<(u64, Record), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.reader.next()? {
            Ok((row, payload)) => self
                .decoder
                .decode(row, payload)
                .map(|record| (row, record))
                .map_err(|source| ReadError::Decode { row, source }),
            Err(error) => Err(error.into()),
        })
    }
}
