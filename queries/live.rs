//! Live tables: what the engine or its ledger knows now, beside history.
//!
//! This crate does not know the ledger; who has one hands in a [`Live`]. A table is read anew for each query that names it.

use std::{future::Future, pin::Pin, sync::Arc};

use cf_history::schema::{Column, Kind};
use datafusion::arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    error::ArrowError,
    json::ReaderBuilder,
};
use serde_json::Value;

/// A live table.
#[derive(Clone, Copy, Debug)]
pub struct LiveTable {
    /// Its name in SQL.
    pub name: &'static str,
    /// What a row of it is.
    pub meaning: &'static str,
    /// Its columns.
    pub columns: &'static [Column],
}

/// The rows of a live table, each a JSON object with a member for every column that is not null.
pub type LiveRows<'a> = Pin<Box<dyn Future<Output = Result<Vec<Value>, String>> + Send + 'a>>;

/// Where live tables come from.
pub trait Live: Send + Sync {
    /// The tables, always the same.
    fn tables(&self) -> &'static [LiveTable];

    /// The rows of one of them as they are now, or why they cannot be read.
    fn rows(&self, table: &'static str) -> LiveRows<'_>;
}

impl LiveTable {
    /// Its Arrow schema.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// Rows as a batch.
    pub(crate) fn batch(&self, rows: &[Value]) -> Result<RecordBatch, ArrowError> {
        let schema = self.arrow();
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(rows.len()).build_decoder()?;
        decoder.serialize(rows)?;
        Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
    }
}

/// A column as history has it.
pub(crate) fn field(column: &Column) -> Field {
    let kind = match column.kind {
        Kind::Word | Kind::Text | Kind::Field => DataType::Utf8,
        Kind::Words => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
        Kind::Integer => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        Kind::Bytes => DataType::Binary,
        Kind::Day => DataType::Date32,
    };
    Field::new(column.name, kind, column.nullable)
}
