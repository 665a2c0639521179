//! Files made of other files: read, changed or not, sorted anew and written; what is to be put in their place.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arrow::{
    array::{ArrayRef, Date32Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use cf_types::{Time, clock};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::{
    error::HistoryError,
    file::Selection,
    files::{Files, MERGED},
    schema::Table,
    stored::Stored,
    table::Replacement,
};

/// Rows read at once.
const BATCH_ROWS: usize = 8_192;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// What a rewriting does with rows: gives those that stay, changed or not.
pub(crate) type Change<'a> = &'a mut dyn FnMut(RecordBatch) -> Result<RecordBatch, ArrowError>;

/// Reads files whole, with the day of their partition.
pub(crate) fn read(files: &Files, table: Table, file: &Stored) -> Result<Vec<RecordBatch>, HistoryError> {
    let path = || file.path.clone().into();
    let parquet = |source| HistoryError::ParquetRead { table, path: path(), source };
    let arrow = |source| HistoryError::Arrow { table, source };
    let content = files.get(&file.path)?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(content).map_err(parquet)?;
    let reader = reader.with_batch_size(BATCH_ROWS).build().map_err(parquet)?;
    let day = file.day.as_deref().and_then(day_number);
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| parquet(error.into()))?;
        batches.push(with_day(&batch, day).map_err(arrow)?);
    }
    Ok(batches)
}

/// Reads files of one table, gives their rows to `change`, and writes what it gives back into new files, which nobody sees
/// before they are put in the place of the old ones. `None` if `change` left every row as it was.
pub(crate) fn rewrite(
    files: &Files,
    table: Table,
    group: &[Stored],
    change: Option<Change<'_>>,
) -> Result<Option<Replacement>, HistoryError> {
    let arrow = |source| HistoryError::Arrow { table, source };
    let same_rows = change.is_none();
    let mut rows = Vec::new();
    for file in group {
        rows.extend(read(files, table, file)?);
    }
    if let Some(change) = change {
        let changed: Vec<RecordBatch> =
            rows.iter().map(|batch| change(batch.clone())).collect::<Result<_, _>>().map_err(arrow)?;
        if changed == rows {
            return Ok(None);
        }
        rows = changed;
    }
    rows.retain(|batch| batch.num_rows() > 0);
    let adds = Selection::merged(table, &rows, new_stem()).write(files, 1)?;
    let removes = group.iter().map(|file| file.path.clone()).collect();
    Ok(Some(Replacement { table, removes, adds, same_rows }))
}

/// What the names of new files begin with: nobody else's do.
pub(crate) fn new_stem() -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{MERGED}{:020}-{}-{number}", clock::now().micros(), std::process::id())
}

fn with_day(batch: &RecordBatch, day: Option<i32>) -> Result<RecordBatch, ArrowError> {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![day; batch.num_rows()]));
    let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("day", DataType::Date32, true)));
    let columns = batch.columns().iter().cloned().chain([days]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The number of a day that a partition names.
fn day_number(text: &str) -> Option<i32> {
    let midnight: Time = format!("{text}T00:00:00Z").parse().ok()?;
    i32::try_from(midnight.cell().div_euclid(86_400)).ok()
}
