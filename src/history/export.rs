//! Rows of any shape as one Parquet file, for others.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};

use crate::error::HistoryError;

/// A Parquet file on its way. Memory: one row group.
#[derive(Debug)]
pub struct ParquetFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
    rows: u64,
}

impl ParquetFile {
    /// Creates a file for rows of these columns.
    ///
    /// # Errors
    ///
    /// When the file cannot be created.
    pub fn create(path: &Path, schema: &SchemaRef) -> Result<ParquetFile, HistoryError> {
        let file = File::create(path).map_err(HistoryError::file("create", path))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
        let writer = ArrowWriter::try_new(file, SchemaRef::clone(schema), Some(properties));
        Ok(ParquetFile { path: path.to_owned(), writer: writer.map_err(failed(path))?, rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), HistoryError> {
        self.rows += u64::try_from(rows.num_rows()).unwrap_or(0);
        self.writer.write(rows).map_err(failed(&self.path))
    }

    /// Ends the file and gives the number of its rows.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<u64, HistoryError> {
        self.writer.finish().map_err(failed(&self.path))?;
        self.writer.inner().sync_all().map_err(HistoryError::file("write", &self.path))?;
        Ok(self.rows)
    }
}

fn failed(path: &Path) -> impl FnOnce(ParquetError) -> HistoryError {
    let path = path.to_owned();
    move |source| HistoryError::Parquet { path, source }
}
