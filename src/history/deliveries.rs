//! Reading events back: the deliveries that history holds, as the records that they were.
//!
//! In: the files of a snapshot of `events`, in the order of their names; within a file the rows as they lie (by time).
//! Files and row groups outside of the wanted times and epochs are passed over by their statistics, and of the columns
//! only those are read that make a record. Memory: one batch of rows, and a file's bytes where the store is not a local
//! disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
    sync::Arc,
};

use arrow::{
    array::{Array as _, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray},
    buffer::Buffer,
    compute::cast,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
    error::ArrowError,
};
use bytes::Bytes;
use cf_types::{Epoch, Framing, LogSource, Origin, Position, Record, Tenant, Time, TimeBasis};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowPredicate, ArrowPredicateFn, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
        },
    },
    errors::ParquetError,
    file::{metadata::RowGroupMetaData, reader::ChunkReader, statistics::Statistics},
};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::{error::HistoryError, files::Files, place::Place, row, schema::Table, table};

/// The columns that make a record again.
pub const RECORD_COLUMNS: &[&str] = &[
    "tenant",
    "epoch",
    "time",
    "time_basis",
    "received_at",
    "source",
    "origin",
    "line",
    "record_offset",
    "record_index",
    "raw",
    "framing",
    "year",
];

/// The columns of what a decoder declared.
const DECLARED_COLUMNS: [&str; 3] = ["product", "category", "service"];

/// Rows as queries give them, for [`Known::deliveries`].
pub type RowBatch = RecordBatch;

/// Decides which declared log sources are wanted.
pub type WantedLogSource = dyn Fn(&LogSource) -> bool + Send + Sync;

/// Rows that are made into records at once.
const BATCH_ROWS: usize = 4_096;

/// Which deliveries are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first time.
    pub from: Option<Time>,
    /// The end of the times, exclusive.
    pub to: Option<Time>,
    /// The last epoch.
    pub upto: Epoch,
}

impl Default for Span {
    /// All that is complete.
    fn default() -> Span {
        Span { from: None, to: None, upto: Epoch::MAX }
    }
}

/// One delivery of an event.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The epoch that it came with.
    pub epoch: Epoch,
    /// When it happened, as it was decided when it came: year and zone that were assumed then are not assumed anew.
    pub time: Time,
    /// How that was known.
    pub time_basis: TimeBasis,
    /// The event's own record, at its own position: an element of an array is a record by itself.
    pub record: Record,
}

/// A data file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataFile {
    /// Its path in the table, which no other file ever has.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// How many rows it has.
    pub rows: u64,
    /// Whether every row of it is wanted, as far as its statistics say.
    pub whole: bool,
}

/// The deliveries of a snapshot. Those of an object store are fetched on the runtime that opened them: it must be alive, of several
/// threads, and not the one that reads.
pub struct Deliveries {
    opened: Option<(deltalake::DeltaTable, Files)>,
    files: Vec<DataFile>,
    span: Span,
}

impl std::fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deliveries").field("files", &self.files.len()).field("span", &self.span).finish()
    }
}

impl Deliveries {
    /// What a history (`DIR/history`, or [`Place::of_data`]) has now within a span. Epochs that are not complete in all tables are left
    /// out.
    ///
    /// # Errors
    ///
    /// When there is a table and its log cannot be read.
    pub async fn open(history: impl Into<Place>, span: Span) -> Result<Deliveries, HistoryError> {
        let history = history.into();
        // `epochs` first: what it says is complete is in the table that is opened after it.
        let complete = table::open(&history, Table::Epochs).await?.map_or(0, |opened| opened.last_epoch);
        let span = Span { upto: span.upto.min(complete), ..span };
        let Some(opened) = table::open(&history, Table::Events).await? else {
            return Ok(Deliveries { opened: None, files: Vec::new(), span });
        };
        let store = opened.delta.log_store().object_store(None);
        let of = Files::new(Table::Events, history.folder(Table::Events), store, Handle::current());
        let mut files = Vec::new();
        let state = opened.delta.snapshot().map_err(HistoryError::delta("read", Table::Events))?;
        for view in state.log_data().iter() {
            let stats = view.stats().unwrap_or_default();
            let stats: Value = serde_json::from_str(&stats).unwrap_or(Value::Null);
            let bytes = u64::try_from(view.size()).unwrap_or(0);
            let rows = stats.get("numRecords").and_then(Value::as_u64).unwrap_or(0);
            let Some(whole) = span.holds(&stats) else { continue };
            files.push(DataFile { path: view.path().into_owned(), bytes, rows, whole });
        }
        files.sort_unstable();
        Ok(Deliveries { opened: Some((opened.delta, of)), files, span })
    }

    /// The files that may hold wanted deliveries, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// What is wanted, up to the last complete epoch.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span
    }

    /// Begins to read a file of [`Deliveries::files`].
    ///
    /// # Errors
    ///
    /// When the file is gone or damaged.
    pub fn read(&self, file: &DataFile) -> Result<Reading, HistoryError> {
        self.open_file(file, None)
    }

    /// The same for events whose decoder declared a log source that is wanted: of the others no record is read.
    ///
    /// # Errors
    ///
    /// When the file is gone or damaged.
    pub fn read_where(&self, file: &DataFile, wanted: Arc<WantedLogSource>) -> Result<Reading, HistoryError> {
        self.open_file(file, Some(wanted))
    }

    fn open_file(&self, file: &DataFile, wanted: Option<Arc<WantedLogSource>>) -> Result<Reading, HistoryError> {
        let name = decoded(&file.path);
        let folder = self.opened.as_ref().and_then(|(_, files)| files.folder.as_ref());
        match (folder, &self.opened) {
            (None, Some((_, files))) => self.begin(files.get(&name)?, PathBuf::from(name), file, wanted),
            (folder, _) => {
                let path = folder.map_or_else(PathBuf::new, |folder| folder.join(name));
                let input = File::open(&path).map_err(HistoryError::file("read", &path))?;
                self.begin(input, path, file, wanted)
            }
        }
    }

    /// Begins to read what a file holds.
    fn begin<R: ChunkReader + 'static>(
        &self,
        input: R,
        path: PathBuf,
        file: &DataFile,
        wanted: Option<Arc<WantedLogSource>>,
    ) -> Result<Reading, HistoryError> {
        let damaged = |source| HistoryError::Read { path: path.clone(), source };
        let builder = ParquetRecordBatchReaderBuilder::try_new(input).map_err(damaged)?;
        let schema = builder.parquet_schema();
        let projection = ProjectionMask::columns(schema, RECORD_COLUMNS.iter().copied());
        let filtered = ProjectionMask::columns(schema, ["time", "epoch"]);
        let declaring = ProjectionMask::columns(schema, DECLARED_COLUMNS.iter().copied());
        let groups = builder.metadata().row_groups().iter().enumerate();
        let groups = groups.filter(|(_, group)| self.span.meets(group)).map(|(number, _)| number).collect();
        let mut builder = builder.with_projection(projection).with_row_groups(groups).with_batch_size(BATCH_ROWS);
        let mut filters: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        if !file.whole {
            let span = self.span;
            filters.push(Box::new(ArrowPredicateFn::new(filtered, move |batch| span.mask(&batch))));
        }
        if let Some(wanted) = wanted {
            let mut declared = Declared { wanted, known: BTreeMap::new() };
            filters.push(Box::new(ArrowPredicateFn::new(declaring, move |batch| declared.mask(&batch))));
        }
        if !filters.is_empty() {
            builder = builder.with_row_filter(RowFilter::new(filters));
        }
        Ok(Reading { rows: builder.build().map_err(damaged)?, path, known: Known::default() })
    }

    /// The version of the table that was opened; 0 where there is none.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.opened.as_ref().and_then(|(table, _)| table.version()).unwrap_or(0)
    }
}

/// What is wanted by what was declared, each declaration decided once.
struct Declared {
    wanted: Arc<WantedLogSource>,
    known: BTreeMap<[Option<String>; 3], bool>,
}

impl Declared {
    fn mask(&mut self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let text = |name| -> Result<StringArray, ArrowError> {
            Ok(cast(&column(batch, name)?, &DataType::Utf8)?.as_string::<i32>().clone())
        };
        let [product, category, service] = DECLARED_COLUMNS.map(text);
        let (product, category, service) = (product?, category?, service?);
        let mut last: Option<([Option<&str>; 3], bool)> = None;
        let rows = product.iter().zip(&category).zip(&service).map(|((product, category), service)| {
            let declared = [product, category, service];
            if let Some((known, wanted)) = last
                && known == declared
            {
                return Some(wanted);
            }
            let wanted = self.decide(declared);
            last = Some((declared, wanted));
            Some(wanted)
        });
        Ok(rows.collect())
    }

    fn decide(&mut self, declared: [Option<&str>; 3]) -> bool {
        let key = declared.map(|word| word.map(str::to_owned));
        if let Some(wanted) = self.known.get(&key) {
            return *wanted;
        }
        let [product, category, service] = declared.map(|word| word.map(Arc::from));
        let wanted = (self.wanted)(&LogSource { product, category, service });
        self.known.insert(key, wanted);
        wanted
    }
}

impl Span {
    /// Whether a file of these statistics can hold wanted rows, and then, whether all of them are wanted.
    fn holds(self, stats: &Value) -> Option<bool> {
        let bound = |which: &str, column: &str| stats.get(which).and_then(|values| values.get(column));
        let time = |which| bound(which, "time").and_then(Value::as_str).and_then(|text| text.parse::<Time>().ok());
        let epoch = |which| bound(which, "epoch").and_then(Value::as_u64);
        let (first, last) = (time("minValues"), time("maxValues"));
        if last.zip(self.from).is_some_and(|(last, from)| last < from)
            || first.zip(self.to).is_some_and(|(first, to)| first >= to)
            || epoch("minValues").is_some_and(|least| least > self.upto)
        {
            return None;
        }
        let begins = self.from.is_none_or(|from| first.is_some_and(|first| first >= from));
        // A maximum is rounded up to a millisecond.
        let ends = self.to.is_none_or(|to| last.is_some_and(|last| last < to));
        Some(begins && ends && epoch("maxValues").is_some_and(|most| most <= self.upto))
    }

    /// Whether a row group can hold wanted rows.
    fn meets(self, group: &RowGroupMetaData) -> bool {
        let bounds = |name: &str| {
            let column = group.columns().iter().find(|column| column.column_path().string() == name)?;
            match column.statistics() {
                Some(Statistics::Int64(values)) => Some((*values.min_opt()?, *values.max_opt()?)),
                _ => None,
            }
        };
        let times = bounds("time").is_none_or(|(first, last)| {
            self.from.is_none_or(|from| last >= from.micros()) && self.to.is_none_or(|to| first < to.micros())
        });
        times && bounds("epoch").is_none_or(|(least, _)| u64::try_from(least).is_ok_and(|least| least <= self.upto))
    }

    fn mask(self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let times = column(batch, "time")?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let epochs = column(batch, "epoch")?;
        let epochs = epochs.as_primitive::<Int64Type>();
        let wanted = times.values().iter().zip(epochs.values()).map(|(time, epoch)| {
            let time = Time::from_micros(*time);
            let in_time = self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to);
            Some(in_time && u64::try_from(*epoch).is_ok_and(|epoch| epoch <= self.upto))
        });
        Ok(wanted.collect())
    }
}

/// The deliveries of one file, batch by batch.
pub struct Reading {
    rows: ParquetRecordBatchReader,
    path: PathBuf,
    known: Known,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Iterator for Reading {
    type Item = Result<Vec<Delivery>, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.rows.next()?;
        let read = batch.and_then(|batch| self.known.deliveries(&batch));
        Some(read.map_err(|error| HistoryError::Read { path: self.path.clone(), source: ParquetError::from(error) }))
    }
}

/// Makes rows with [`RECORD_COLUMNS`] into deliveries, however they were read. What rows have in common (tenant, source,
/// origin, receipt) is shared from batch to batch.
#[derive(Debug, Default)]
pub struct Known {
    origin: Option<Arc<Origin>>,
    places: BTreeSet<Arc<str>>,
    year: Option<(i64, i16)>,
}

/// Names of files and streams that are shared; beyond it each record has its own.
const PLACES_MAX: usize = 65_536;

impl Known {
    /// The deliveries of a batch of rows.
    ///
    /// # Errors
    ///
    /// When a column is missing or of another kind.
    pub fn deliveries(&mut self, batch: &RecordBatch) -> Result<Vec<Delivery>, ArrowError> {
        let text = |name| -> Result<StringArray, ArrowError> {
            Ok(cast(&column(batch, name)?, &DataType::Utf8)?.as_string::<i32>().clone())
        };
        let number = |name| -> Result<_, ArrowError> {
            Ok(cast(&column(batch, name)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let (tenants, sources, origins) = (text("tenant")?, text("source")?, text("origin")?);
        let (bases, raws) = (text("time_basis")?, text("raw")?);
        let (epochs, times, received) = (number("epoch")?, number("time")?, number("received_at")?);
        let (lines, offsets, indexes) = (number("line")?, number("record_offset")?, number("record_index")?);
        // Files of before have neither.
        let framings = text("framing").ok();
        let years = number("year").ok();
        let bytes = Bytes::from_owner(Texts(raws.values().clone()));
        let ends = raws.value_offsets();
        let mut deliveries = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let time = Time::from_micros(times.value(row));
            let time_basis = basis_of(bases.value(row));
            let kept =
                years.as_ref().filter(|years| years.is_valid(row)).and_then(|years| years.value(row).try_into().ok());
            let year = kept.or_else(|| (time_basis == TimeBasis::Assumed).then(|| self.year_of(time)).flatten());
            let received_at = Time::from_micros(received.value(row));
            let framing =
                framings.as_ref().filter(|framings| framings.is_valid(row)).map(|framings| framings.value(row));
            let framing = framing.map_or(Framing::Record, row::framing_of);
            let origin = self.origin(tenants.value(row), sources.value(row), received_at, year, framing);
            let position = Position {
                origin: self.place(origins.value(row)),
                offset: unsigned(offsets.value(row)),
                line: unsigned(lines.value(row)),
                index: u32::try_from(indexes.value(row)).unwrap_or(0),
            };
            let end = |at: usize| ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
            let record = Record { origin, position, bytes: bytes.slice(end(row)..end(row + 1)) };
            deliveries.push(Delivery { epoch: unsigned(epochs.value(row)), time, time_basis, record });
        }
        Ok(deliveries)
    }

    fn origin(
        &mut self,
        tenant: &str,
        source: &str,
        received_at: Time,
        year: Option<i16>,
        framing: Framing,
    ) -> Arc<Origin> {
        if let Some(known) = &self.origin
            && known.received_at == received_at
            && known.year == year
            && known.framing == framing
            && *known.source == *source
            && known.tenant.as_str() == tenant
        {
            return Arc::clone(known);
        }
        let origin =
            Arc::new(Origin { tenant: Tenant::new(tenant), source: source.into(), received_at, year, framing });
        self.origin = Some(Arc::clone(&origin));
        origin
    }

    fn place(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.places.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        if self.places.len() < PLACES_MAX {
            self.places.insert(Arc::clone(&name));
        }
        name
    }

    /// The year of a time whose record has none.
    fn year_of(&mut self, time: Time) -> Option<i16> {
        let day = time.cell().div_euclid(86_400);
        if let Some((known, year)) = self.year
            && known == day
        {
            return Some(year);
        }
        let year = time.to_string().split('-').next()?.parse().ok()?;
        self.year = Some((day, year));
        Some(year)
    }
}

/// The texts of a column, which records share without a copy.
struct Texts(Buffer);

impl AsRef<[u8]> for Texts {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

fn column(batch: &RecordBatch, name: &str) -> Result<ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError(format!("the column {name} is missing"));
    batch.column_by_name(name).cloned().ok_or_else(missing)
}

fn basis_of(word: &str) -> TimeBasis {
    match word {
        "assumed" => TimeBasis::Assumed,
        "received" => TimeBasis::Received,
        _ => TimeBasis::Declared,
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A path as Delta's log writes it, with `%` before the two digits of what a URL may not have.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_passed_over_only_if_no_row_can_be_wanted() {
        let stats = serde_json::json!({
            "numRecords": 3,
            "minValues": {"time": "2026-01-05T10:00:00Z", "epoch": 4},
            "maxValues": {"time": "2026-01-05T11:00:00.001Z", "epoch": 9},
        });
        let at = |text: &str| Some(text.parse::<Time>().unwrap());
        for (from, to, upto, holds) in [
            (None, None, 9, Some(true)),
            (None, None, 8, Some(false)),
            (None, None, 3, None),
            (at("2026-01-05T10:00:00Z"), at("2026-01-05T12:00:00Z"), 20, Some(true)),
            (at("2026-01-05T10:00:01Z"), None, 20, Some(false)),
            (at("2026-01-05T11:00:00.001Z"), None, 20, Some(false)),
            (at("2026-01-05T11:00:01Z"), None, 20, None),
            (None, at("2026-01-05T10:00:00Z"), 20, None),
            (None, at("2026-01-05T11:00:00Z"), 20, Some(false)),
        ] {
            assert_eq!(Span { from, to, upto }.holds(&stats), holds, "{from:?} {to:?} {upto}");
        }
        assert_eq!(Span::default().holds(&Value::Null), Some(false), "nothing is known: it is read");
    }

    #[test]
    fn paths_are_read_as_delta_writes_them() {
        for (path, file) in
            [("day=2026-01-05/a.parquet", "day=2026-01-05/a.parquet"), ("a%20b%2", "a b%2"), ("%zz", "%zz")]
        {
            assert_eq!(decoded(path), file);
        }
    }
}
