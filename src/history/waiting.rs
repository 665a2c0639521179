//! Rows of one table that wait for a commit.

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
};
use cf_types::Epoch;

use crate::{error::HistoryError, file::epochs_of, schema::Table};

/// A batch below this is small.
const SMALL_BYTES: usize = 1 << 20;

/// So many small batches in a row are joined.
const SMALL_MAX: usize = 64;

/// The rows, in the batches in which they came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) batches: Vec<RecordBatch>,
    /// What they take of memory.
    pub(crate) bytes: usize,
    /// How many at the end of `batches` came one by one and are small.
    small: usize,
}

impl Waiting {
    /// Small batches (an epoch of a quiet source) are joined: each costs some kilobytes beside its rows.
    pub(crate) fn push(&mut self, rows: RecordBatch) {
        let bytes = rows.get_array_memory_size();
        self.small = if bytes < SMALL_BYTES { self.small + 1 } else { 0 };
        self.bytes += bytes;
        self.batches.push(rows);
        if self.small < SMALL_MAX {
            return;
        }
        let small = self.batches.split_off(self.batches.len().saturating_sub(self.small));
        self.small = 0;
        // Batches may differ in the columns of fields: then they stay apart.
        let alike = |first: &RecordBatch| small.iter().all(|batch| batch.schema() == first.schema());
        let first = small.first().filter(|first| alike(first));
        let joined = first.and_then(|first| concat_batches(&first.schema(), &small).ok());
        self.batches.extend(joined.map_or(small, |joined| vec![joined]));
        self.bytes = self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
    }

    /// Lets go of the rows up to and with `upto`.
    pub(crate) fn keep_after(&mut self, table: Table, upto: Epoch) -> Result<(), HistoryError> {
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
