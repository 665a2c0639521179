//! Rows on their way from worker threads to the committer, in Arrow columns.
//!
//! A builder belongs to one thread and copies what it is given once; what it hands over is immutable. Memory: the
//! caller asks [`BatchBuilder::bytes`] and hands over before it grows too large.

use std::{
    marker::PhantomData,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{
        ArrayBuilder, ArrayRef, BinaryBuilder, Date32Builder, Float64Builder, Int64Builder, ListBuilder, RecordBatch,
        StringBuilder, TimestampMicrosecondBuilder,
    },
    datatypes::Schema,
    error::ArrowError,
};
use cf_types::{Epoch, Event, Fields, Name, Time, fact::Observable};

use crate::{
    error::HistoryError,
    fields::FieldColumns,
    schema::{Column, Kind, Table, field_arrow, words_element},
};

/// URLs of one event at most.
const URLS_MAX: usize = 64;

/// The columns of tables whose rules nobody named.
static COMMON: LazyLock<Arc<FieldColumns>> = LazyLock::new(Arc::default);

static URL_NAMES: LazyLock<Vec<Name>> = LazyLock::new(|| Name::intern_all(Observable::URL_FIELDS));

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
        BatchBuilder::with_fields(Arc::clone(&COMMON))
    }

    /// Begins, with these columns for fields of events.
    #[must_use]
    pub fn with_fields(fields: Arc<FieldColumns>) -> BatchBuilder<R> {
        BatchBuilder { rows: Rows::new(R::TABLE, fields), row: PhantomData }
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
    /// Those of the schema that every row fills.
    columns: Vec<(&'static Column, Builder)>,
    fields: Arc<FieldColumns>,
    /// One per field column, made when the first row fills it.
    field_builders: Vec<Option<StringBuilder>>,
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
    fn new(table: Table, fields: Arc<FieldColumns>) -> Rows {
        let every_row = table.columns().iter().filter(|column| column.kind != Kind::Field);
        let columns = every_row.map(|column| (column, Builder::of(column.kind))).collect();
        Rows { columns, fields, field_builders: Vec::new(), cursor: 0, count: 0, bytes: 0 }
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

    /// Appends the URLs of an event, as indicators are compared.
    pub fn urls(&mut self, fields: &Fields) {
        let texts = URL_NAMES.iter().flat_map(|name| fields.all(*name)).take(URLS_MAX);
        let observables = texts.flat_map(|(text, _)| Observable::of_url(text));
        let mut urls: Vec<_> =
            observables.filter_map(|one| if let Observable::Url(url) = one { Some(url) } else { None }).collect();
        urls.sort();
        urls.dedup();
        self.words("urls", urls);
    }

    /// Fills the field columns of an event. Those that no event of a batch fills are not in it.
    pub fn field_columns(&mut self, fields: &Fields) {
        let layout = Arc::clone(&self.fields);
        layout.of_event(fields, &mut |column, text| {
            if self.field_builders.len() <= column {
                self.field_builders.resize_with(column + 1, || None);
            }
            let Some(slot) = self.field_builders.get_mut(column) else { return };
            let builder = slot.get_or_insert_with(|| StringBuilder::with_capacity(0, 0));
            builder.append_nulls(self.count.saturating_sub(builder.len()));
            builder.append_value(text);
            self.bytes += text.len() + 4;
        });
    }

    fn next(&mut self, name: &'static str) -> &mut Builder {
        self.cursor += 1;
        let next = self.columns.get_mut(self.cursor - 1);
        let (column, builder) = next.expect("a row writes the columns of its schema, no more");
        debug_assert_eq!(column.name, name);
        builder
    }

    fn end(&mut self) {
        assert_eq!(self.cursor, self.columns.len(), "a row writes all columns of its schema");
        self.cursor = 0;
        self.count += 1;
    }

    fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let count = std::mem::take(&mut self.count);
        self.bytes = 0;
        let mut fields: Vec<_> = self.columns.iter().map(|(column, _)| column.arrow()).collect();
        let mut arrays: Vec<_> = self.columns.iter_mut().map(|(_, builder)| builder.finish()).collect();
        for (name, builder) in self.fields.columns().iter().zip(std::mem::take(&mut self.field_builders)) {
            let Some(mut builder) = builder else { continue };
            builder.append_nulls(count.saturating_sub(builder.len()));
            fields.push(field_arrow(name));
            let array: ArrayRef = Arc::new(builder.finish());
            arrays.push(array);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }
}

impl Builder {
    fn of(kind: Kind) -> Builder {
        match kind {
            // Nothing reserved: an epoch of a quiet source has one row, and Arrow's default is room for a thousand.
            Kind::Word | Kind::Text | Kind::Field => Builder::Text(StringBuilder::with_capacity(0, 0)),
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
