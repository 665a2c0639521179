//! Rows on their way from worker threads to the committer, in Arrow columns.
//!
//! A builder belongs to one thread and copies what it is given once; what it hands over is immutable. Memory: the
//! caller asks [`BatchBuilder::bytes`] and hands over before it grows too large.

use std::marker::PhantomData;

use arrow::{
    array::{
        ArrayBuilder, ArrayRef, BinaryBuilder, Date32Builder, Float64Builder, Int64Builder, ListBuilder, RecordBatch,
        StringBuilder, TimestampMicrosecondBuilder,
    },
    error::ArrowError,
};
use cf_types::{Epoch, Event, Time};

use crate::{
    error::HistoryError,
    schema::{Kind, Table, words_element},
};

/// What can be a row of a table.
pub trait Row {
    /// The table.
    const TABLE: Table;

    /// Writes all its columns, in the order of the schema.
    fn write(&self, epoch: Epoch, rows: &mut Rows);
}

/// Immutable rows of one table, of one or several epochs.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(crate) table: Table,
    pub(crate) rows: RecordBatch,
}

impl Batch {
    /// Which table they belong to.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.get_array_memory_size()
    }
}

/// Collects rows of one kind, in one thread.
#[derive(Debug)]
pub struct BatchBuilder<R> {
    rows: Rows,
    row: PhantomData<fn(&R)>,
}

/// Collects events.
pub type EventBatch = BatchBuilder<Event>;

impl<R: Row> Default for BatchBuilder<R> {
    fn default() -> BatchBuilder<R> {
        BatchBuilder::new()
    }
}

impl<R: Row> BatchBuilder<R> {
    /// Bytes after which a caller had better hand over: far below the 2 GiB that one text column can address.
    pub const BYTES_MAX: usize = 64 << 20;

    /// Begins.
    #[must_use]
    pub fn new() -> BatchBuilder<R> {
        BatchBuilder { rows: Rows::new(R::TABLE), row: PhantomData }
    }

    /// Adds a row of an epoch.
    pub fn push(&mut self, epoch: Epoch, row: &R) {
        row.write(epoch, &mut self.rows);
        self.rows.end();
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.count == 0
    }

    /// What the rows take, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.bytes
    }

    /// Hands over what there is and begins anew.
    ///
    /// # Errors
    ///
    /// When the columns do not fit together, which would be a mistake in a [`Row`] of this crate.
    pub fn finish(&mut self) -> Result<Batch, HistoryError> {
        let table = R::TABLE;
        let rows = self.rows.finish().map_err(|source| HistoryError::Arrow { table, source })?;
        Ok(Batch { table, rows })
    }
}

/// The columns of a table under construction. [`Row::write`] appends one value to each, in order.
#[derive(Debug)]
pub struct Rows {
    table: Table,
    columns: Vec<Builder>,
    cursor: usize,
    count: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Builder {
    Text(StringBuilder),
    Words(ListBuilder<StringBuilder>),
    Integer(Int64Builder),
    Float(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Bytes(BinaryBuilder),
    Day(Date32Builder),
}

impl Rows {
    fn new(table: Table) -> Rows {
        let columns = table.columns().iter().map(|column| Builder::of(column.kind)).collect();
        Rows { table, columns, cursor: 0, count: 0, bytes: 0 }
    }

    /// Appends a text.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.text_or_null(name, Some(value));
    }

    /// Appends a text or a null.
    pub fn text_or_null(&mut self, name: &'static str, value: Option<&str>) {
        self.bytes += value.map_or(0, str::len) + 4;
        match self.next(name) {
            Builder::Text(builder) => builder.append_option(value),
            other => other.mismatch(name),
        }
    }

    /// Appends a list of texts.
    pub fn words<S: AsRef<str>>(&mut self, name: &'static str, values: impl IntoIterator<Item = S>) {
        let mut bytes = 8;
        match self.next(name) {
            Builder::Words(builder) => {
                for value in values {
                    bytes += value.as_ref().len() + 4;
                    builder.values().append_value(value);
                }
                builder.append(true);
            }
            other => other.mismatch(name),
        }
        self.bytes += bytes;
    }

    /// Appends a number, saturated at the limits of 64 bits with sign.
    pub fn integer(&mut self, name: &'static str, value: impl TryInto<i64>) {
        self.integer_or_null(name, Some(value.try_into().unwrap_or(i64::MAX)));
    }

    /// Appends a number or a null.
    pub fn integer_or_null(&mut self, name: &'static str, value: Option<i64>) {
        self.bytes += 8;
        match self.next(name) {
            Builder::Integer(builder) => builder.append_option(value),
            other => other.mismatch(name),
        }
    }

    /// Appends a number or a null.
    pub fn float_or_null(&mut self, name: &'static str, value: Option<f64>) {
        self.bytes += 8;
        match self.next(name) {
            Builder::Float(builder) => builder.append_option(value),
            other => other.mismatch(name),
        }
    }

    /// Appends a time.
    pub fn time(&mut self, name: &'static str, value: Time) {
        self.time_or_null(name, Some(value));
    }

    /// Appends a time or a null.
    pub fn time_or_null(&mut self, name: &'static str, value: Option<Time>) {
        self.bytes += 8;
        match self.next(name) {
            Builder::Time(builder) => builder.append_option(value.map(Time::micros)),
            other => other.mismatch(name),
        }
    }

    /// Appends bytes or a null.
    pub fn bytes_or_null(&mut self, name: &'static str, value: Option<&[u8]>) {
        self.bytes += value.map_or(0, <[u8]>::len) + 4;
        match self.next(name) {
            Builder::Bytes(builder) => builder.append_option(value),
            other => other.mismatch(name),
        }
    }

    /// Appends the day of a time: null outside of the years 1 to 9999, which a Delta partition cannot name.
    pub fn day_of(&mut self, time: Time) {
        self.bytes += 4;
        let day = i32::try_from(time.cell().div_euclid(86_400)).ok();
        let day = day.filter(|day| (-719_162..=2_932_896).contains(day));
        match self.next("day") {
            Builder::Day(builder) => builder.append_option(day),
            other => other.mismatch("day"),
        }
    }

    fn next(&mut self, name: &'static str) -> &mut Builder {
        debug_assert_eq!(self.table.columns().get(self.cursor).map(|column| column.name), Some(name));
        self.cursor += 1;
        self.columns.get_mut(self.cursor - 1).expect("a row writes the columns of its schema, no more")
    }

    fn end(&mut self) {
        assert_eq!(self.cursor, self.columns.len(), "a row writes all columns of its schema");
        self.cursor = 0;
        self.count += 1;
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.count = 0;
        self.bytes = 0;
        let columns = self.columns.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(self.table.arrow(true), columns)
    }
}

impl Builder {
    fn of(kind: Kind) -> Builder {
        match kind {
            // Nothing reserved: an epoch of a quiet source has one row, and Arrow's default is room for a thousand.
            Kind::Word | Kind::Text => Builder::Text(StringBuilder::with_capacity(0, 0)),
            Kind::Words => {
                let values = StringBuilder::with_capacity(0, 0);
                Builder::Words(ListBuilder::with_capacity(values, 0).with_field(words_element()))
            }
            Kind::Integer => Builder::Integer(Int64Builder::with_capacity(0)),
            Kind::Float => Builder::Float(Float64Builder::with_capacity(0)),
            Kind::Time => Builder::Time(TimestampMicrosecondBuilder::with_capacity(0).with_timezone("UTC")),
            Kind::Bytes => Builder::Bytes(BinaryBuilder::with_capacity(0, 0)),
            Kind::Day => Builder::Day(Date32Builder::with_capacity(0)),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        let builder: &mut dyn ArrayBuilder = match self {
            Builder::Text(builder) => builder,
            Builder::Words(builder) => builder,
            Builder::Integer(builder) => builder,
            Builder::Float(builder) => builder,
            Builder::Time(builder) => builder,
            Builder::Bytes(builder) => builder,
            Builder::Day(builder) => builder,
        };
        builder.finish()
    }

    /// A [`Row`] of this crate disagrees with the schema of this crate; each has a test.
    fn mismatch(&self, name: &str) -> ! {
        panic!("column {name} is not {self:?}")
    }
}
