//! From buffered rows to Parquet files: chosen by epoch, parted by day, sorted by time.
//!
//! Files of a commit are named after the epochs they hold, so that one without a commit (a crash in between) is known by
//! its name. Files that are made of others are sorted by hour, then by whom they speak of, then by time, so that
//! statistics of row groups and pages skip by both.
//! Memory: besides the buffered rows, one chunk, one row group and one encoded file per encoding thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{Array, AsArray, RecordBatch, new_null_array},
    compute::interleave_record_batch,
    datatypes::{Date32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType},
    error::ArrowError,
};
use cf_types::{Epoch, Time, clock};
use deltalake::kernel::Add;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::ParquetMetaData,
        properties::{EnabledStatistics, WriterProperties},
        statistics::Statistics,
    },
    schema::types::ColumnPath,
};
use serde_json::{Map, Value};

use crate::{
    error::HistoryError,
    files::{EPOCHS, Put},
    schema::{Kind, Table, field_arrow},
};

/// Days that one commit may part its rows into. Records with made-up times could else cost a file each: the days with
/// the fewest rows go to the partition without a day; their `time` is as true as ever.
const DAYS_MAX: usize = 64;

/// Rows that are taken together out of the buffered batches.
const CHUNK_ROWS: usize = 2_048;

/// Rows of a row group: what statistics can skip at once.
const GROUP_ROWS: usize = 65_536;

/// Buffered bytes that make one file (some 20 to 50 MB of Parquet).
const FILE_BYTES: usize = 512 << 20;

/// Below this a file is not parted among threads.
const SPLIT_ROWS: usize = 16_384;

/// Columns of whom a row speaks, in the order in which files that are made of others are sorted by them.
const SORTED_BY: [&str; 3] = ["host", "user", "address"];

/// Columns that equality looks for: a bloom filter says which row groups cannot have a value.
const LOOKED_FOR: [&str; 8] = ["event_id", "host", "user", "address", "process", "file_hash", "domain", "source_ip"];

const HOUR_MICROS: i64 = 3_600_000_000;

/// Where a row is: which batch, which row, and by what it is sorted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RowPlace {
    /// 0 where files are sorted by time alone.
    hour: i64,
    /// Rank of whom it speaks of; 0 where files are sorted by time alone.
    whom: u32,
    time: i64,
    batch: usize,
    row: usize,
}

/// Rows that are to be written, by day.
pub(crate) struct Selection<'a> {
    table: Table,
    batches: &'a [RecordBatch],
    days: BTreeMap<Option<i32>, Vec<RowPlace>>,
    /// First and last epoch in it.
    pub(crate) epochs: Option<(Epoch, Epoch)>,
    /// How many rows.
    pub(crate) rows: usize,
    bytes_per_row: usize,
    /// What the names of its files begin with.
    stem: String,
}

impl<'a> Selection<'a> {
    /// Chooses the rows of the epochs after `after` up to and with `upto`, for files that this writer makes.
    pub(crate) fn new(
        table: Table,
        batches: &'a [RecordBatch],
        (after, upto): (Epoch, Epoch),
        writer: &str,
    ) -> Selection<'a> {
        let mut selection = Selection::choose(table, batches, &|epoch| epoch > after && epoch <= upto);
        let (first, last) = selection.epochs.unwrap_or_default();
        selection.stem = format!("{EPOCHS}{first:020}-{last:020}-{writer}");
        selection.limit_days();
        selection.sort();
        selection
    }

    /// Chooses all rows, for files that are made of others and named so.
    pub(crate) fn merged(table: Table, batches: &'a [RecordBatch], stem: String) -> Selection<'a> {
        let mut selection = Selection { stem, ..Selection::choose(table, batches, &|_| true) };
        if table.columns().iter().any(|column| column.name == "host") {
            selection.rank();
        }
        selection.sort();
        selection
    }

    fn choose(table: Table, batches: &'a [RecordBatch], wanted: &dyn Fn(Epoch) -> bool) -> Selection<'a> {
        let mut days: BTreeMap<Option<i32>, Vec<RowPlace>> = BTreeMap::new();
        let mut epochs: Option<(Epoch, Epoch)> = None;
        let mut rows = 0;
        for (index, batch) in batches.iter().enumerate() {
            let times = column::<TimestampMicrosecondType>(batch, table.time_column());
            let dates = column::<Date32Type>(batch, "day");
            for (row, epoch) in epochs_of(batch).enumerate().filter(|(_, epoch)| wanted(*epoch)) {
                let (first, last) = epochs.unwrap_or((epoch, epoch));
                epochs = Some((first.min(epoch), last.max(epoch)));
                rows += 1;
                let time = if times.is_null(row) { 0 } else { times.value(row) };
                let day = (!dates.is_null(row)).then(|| dates.value(row));
                days.entry(day).or_default().push(RowPlace { hour: 0, whom: 0, time, batch: index, row });
            }
        }
        let buffered: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let bytes_per_row = bytes / buffered.max(1) + 1;
        Selection { table, batches, days, epochs, rows, bytes_per_row, stem: String::new() }
    }

    fn sort(&mut self) {
        self.days.values_mut().filter(|places| !places.is_sorted()).for_each(|places| places.sort_unstable());
    }

    /// Gives each row its hour and the rank of whom it speaks of.
    fn rank(&mut self) {
        let whom: Vec<Vec<Option<&arrow::array::StringArray>>> = self
            .batches
            .iter()
            .map(|batch| SORTED_BY.iter().map(|name| batch.column_by_name(name).map(|c| c.as_string())).collect())
            .collect();
        let key = |place: &RowPlace| -> [&str; 3] {
            let value = |at: usize| {
                let texts = whom.get(place.batch).and_then(|columns| columns.get(at).copied().flatten());
                texts.filter(|texts| texts.is_valid(place.row)).map_or("", |texts| texts.value(place.row))
            };
            [value(0), value(1), value(2)]
        };
        let known: BTreeSet<[&str; 3]> = self.days.values().flatten().map(key).collect();
        let ranks: BTreeMap<[&str; 3], u32> = known.into_iter().zip(0..).collect();
        for place in self.days.values_mut().flatten() {
            place.hour = place.time.div_euclid(HOUR_MICROS);
            place.whom = ranks.get(&key(place)).copied().unwrap_or(0);
        }
    }

    fn limit_days(&mut self) {
        let mut by_rows: Vec<_> = self.days.iter().map(|(day, places)| (places.len(), *day)).collect();
        by_rows.sort_unstable_by(|a, b| b.cmp(a));
        for (_, day) in by_rows.into_iter().skip(DAYS_MAX).filter(|(_, day)| day.is_some()) {
            let places = self.days.remove(&day).unwrap_or_default();
            self.days.entry(None).or_default().extend(places);
        }
    }

    /// Writes the files, durable before it returns, and gives what to commit.
    pub(crate) fn write(&self, files: &dyn Put, threads: usize) -> Result<Vec<Add>, HistoryError> {
        let schema = self.schema();
        let pieces = self.pieces(threads);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut adds = Vec::new();
            while let Some((number, piece)) = pieces.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
                adds.push(self.write_piece(files, &schema, number, piece)?);
            }
            Ok(adds)
        };
        if threads <= 1 || pieces.len() <= 1 {
            return work();
        }
        let results: Vec<Result<Vec<Add>, HistoryError>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(pieces.len())).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut adds = Vec::new();
        for result in results {
            adds.extend(result?);
        }
        adds.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(adds)
    }

    fn pieces(&self, threads: usize) -> Vec<(Option<i32>, Range<usize>)> {
        let mut pieces = Vec::new();
        for (day, places) in &self.days {
            let by_size = (places.len().saturating_mul(self.bytes_per_row)).div_ceil(FILE_BYTES);
            let by_threads = (places.len() / SPLIT_ROWS).min(threads);
            let size = places.len().div_ceil(by_size.max(by_threads).max(1)).max(1);
            let starts = (0..places.len()).step_by(size);
            pieces.extend(starts.map(|start| (*day, start..(start + size).min(places.len()))));
        }
        pieces
    }

    /// The columns of the files: those that every row has, and those of fields that some row fills.
    fn schema(&self) -> SchemaRef {
        let own = self.table.columns().iter().filter(|column| !matches!(column.kind, Kind::Day | Kind::Field));
        let mut fields: Vec<_> = own.map(crate::schema::Column::arrow).collect();
        fields.extend(self.field_columns().iter().map(|name| field_arrow(name)));
        Arc::new(Schema::new(fields))
    }

    /// Columns of fields that some row fills, sorted.
    pub(crate) fn field_columns(&self) -> BTreeSet<String> {
        let own: BTreeSet<&str> =
            self.table.columns().iter().filter(|column| column.kind != Kind::Field).map(|column| column.name).collect();
        let names = self.batches.iter().flat_map(|batch| {
            let schema = batch.schema();
            let filled =
                schema.fields().iter().zip(batch.columns()).filter(|(_, values)| values.null_count() < values.len());
            filled.map(|(field, _)| field.name().clone()).collect::<Vec<_>>()
        });
        names.filter(|name| !own.contains(name.as_str())).collect()
    }

    fn write_piece(
        &self,
        files: &dyn Put,
        schema: &SchemaRef,
        number: usize,
        (day, range): &(Option<i32>, Range<usize>),
    ) -> Result<Add, HistoryError> {
        let value = day.map(date_text);
        let part = format!("day={}", value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__"));
        let path = format!("{part}/{}-{number:05}.zstd.parquet", self.stem);
        let places = self.days.get(day).and_then(|places| places.get(range.clone())).unwrap_or_default();
        let (metadata, content) = self.encode(Path::new(&path), schema, places)?;
        let size = content.len();
        files.put(&path, content)?;
        Ok(Add {
            path,
            partition_values: [("day".to_owned(), value)].into(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            modification_time: clock::now().micros() / 1_000,
            data_change: true,
            stats: Some(stats(self.table, &metadata)),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }

    fn encode(
        &self,
        path: &Path,
        schema: &SchemaRef,
        places: &[RowPlace],
    ) -> Result<(ParquetMetaData, Vec<u8>), HistoryError> {
        let table = self.table;
        let parquet = |source: ParquetError| HistoryError::Parquet { path: path.to_owned(), source };
        let arrow = |source: ArrowError| HistoryError::Arrow { table, source };
        // The day is the partition: Delta keeps it in the log, not in the file.
        let batches: Vec<RecordBatch> =
            self.batches.iter().map(|batch| conform(batch, schema)).collect::<Result<_, _>>().map_err(arrow)?;
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let properties = properties(table, schema, places.len());
        let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).map_err(parquet)?;
        for chunk in places.chunks(CHUNK_ROWS) {
            let rows: Vec<(usize, usize)> = chunk.iter().map(|place| (place.batch, place.row)).collect();
            writer.write(&interleave_record_batch(&batches, &rows).map_err(arrow)?).map_err(parquet)?;
        }
        let metadata = writer.finish().map_err(parquet)?;
        Ok((metadata, std::mem::take(writer.inner_mut())))
    }
}

/// The columns of a schema from a batch; those that it lacks are null.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), batch.num_rows()),
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
}

/// The epochs of a batch's rows.
pub(crate) fn epochs_of(batch: &RecordBatch) -> impl Iterator<Item = Epoch> {
    column::<Int64Type>(batch, "epoch").values().iter().map(|epoch| Epoch::try_from(*epoch).unwrap_or(0))
}

fn column<'a, T: arrow::datatypes::ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> &'a arrow::array::PrimitiveArray<T> {
    batch.column_by_name(name).expect("every table has this column").as_primitive()
}

/// Whether a file of this name holds epochs after `last`: such a file was written, but never committed.
pub(crate) fn is_orphan(name: &str, last: Epoch) -> bool {
    let mut parts = name.strip_prefix(EPOCHS).unwrap_or_default().split('-').skip(1);
    parts.next().and_then(|to| to.parse::<Epoch>().ok()).is_some_and(|to| to > last)
}

fn date_text(day: i32) -> String {
    let midnight = Time::from_seconds(i64::from(day) * 86_400).to_string();
    midnight.split('T').next().unwrap_or_default().to_owned()
}

fn properties(table: Table, schema: &Schema, rows: usize) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_statistics_truncate_length(Some(64));
    for column in table.columns() {
        let path = ColumnPath::from(column.name);
        properties = match column.kind {
            Kind::Integer | Kind::Time => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
            Kind::Text | Kind::Bytes => properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None),
            Kind::Word | Kind::Words | Kind::Float | Kind::Day | Kind::Field => properties,
        };
    }
    // As many values as rows at most: a filter for more would be larger than the rows of a small file.
    let values = u64::try_from(rows.min(GROUP_ROWS)).unwrap_or(u64::MAX).max(1);
    for name in LOOKED_FOR.into_iter().filter(|name| schema.column_with_name(name).is_some()) {
        let path = ColumnPath::from(name);
        properties = properties
            .set_column_bloom_filter_enabled(path.clone(), true)
            .set_column_bloom_filter_fpp(path.clone(), 0.01)
            .set_column_bloom_filter_max_ndv(path, values);
    }
    properties.build()
}

/// Statistics of a file for the Delta log: what lets a reader skip it without opening it.
fn stats(table: Table, metadata: &ParquetMetaData) -> String {
    let (mut least, mut most) = (Map::new(), Map::new());
    let leaves = metadata.file_metadata().schema_descr().columns();
    for column in table.columns().iter().filter(|column| matches!(column.kind, Kind::Integer | Kind::Time)) {
        let Some(leaf) = leaves.iter().position(|leaf| leaf.path().string() == column.name) else { continue };
        let groups = metadata.row_groups().iter().filter_map(|group| match group.column(leaf).statistics() {
            Some(Statistics::Int64(values)) => Some((*values.min_opt()?, *values.max_opt()?)),
            _ => None,
        });
        let Some((min, max)) = groups.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { continue };
        if column.kind == Kind::Integer {
            least.insert(column.name.to_owned(), Value::from(min));
            most.insert(column.name.to_owned(), Value::from(max));
        } else if let (Some(min), Some(max)) = (milliseconds(min.div_euclid(1_000)), milliseconds(ceil(max))) {
            least.insert(column.name.to_owned(), Value::from(min));
            most.insert(column.name.to_owned(), Value::from(max));
        }
    }
    let rows = metadata.file_metadata().num_rows();
    serde_json::json!({ "numRecords": rows, "minValues": least, "maxValues": most }).to_string()
}

/// Delta's statistics have milliseconds: a maximum must not be rounded down, or rows in its last part would be skipped.
const fn ceil(micros: i64) -> i64 {
    -((-micros).div_euclid(1_000))
}

/// As Delta's statistics write it; nothing outside of the years 1 to 9999.
fn milliseconds(millis: i64) -> Option<String> {
    let range = -62_135_596_800_000..253_402_207_200_000;
    range.contains(&millis).then(|| Time::from_millis(millis).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_later_epochs_are_orphans() {
        for (name, last, orphan) in [
            ("epoch-00000000000000000005-00000000000000000007-00000.zstd.parquet", 7, false),
            ("epoch-00000000000000000005-00000000000000000007-00000.zstd.parquet", 6, true),
            ("part-00000-compacted.parquet", 0, false),
            ("epoch-x-y.parquet", 0, false),
        ] {
            assert_eq!(is_orphan(name, last), orphan, "{name} {last}");
        }
    }

    #[test]
    fn statistics_never_exclude_a_row() {
        assert_eq!(ceil(1_000_001), 1_001);
        assert_eq!(ceil(1_000_000), 1_000);
        assert_eq!(ceil(-1), 0);
        assert_eq!(milliseconds(1).as_deref(), Some("1970-01-01T00:00:00.001Z"));
        assert_eq!(milliseconds(i64::MIN / 2), None);
        assert_eq!(date_text(-1), "1969-12-31");
    }
}
