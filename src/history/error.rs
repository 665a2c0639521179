//! What can go wrong with history.

use std::path::{Path, PathBuf};

use deltalake::DeltaTableError;

use crate::schema::Table;

/// An attempt on history that failed, on which table or file, and why.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A folder or file could not be made, read or written.
    #[error("could not {attempt} {}", path.display())]
    File {
        /// `create`, `write`, ...
        attempt: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The Delta log could not be read or written.
    #[error("could not {attempt} history table {}", table.name())]
    Delta {
        /// `open`, `commit to`, ...
        attempt: &'static str,
        /// Which.
        table: Table,
        /// Why.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// Rows could not be encoded.
    #[error("could not encode rows of history table {}", table.name())]
    Arrow {
        /// Which.
        table: Table,
        /// Why.
        #[source]
        source: arrow::error::ArrowError,
    },
    /// A Parquet file could not be encoded.
    #[error("could not write {}", path.display())]
    Parquet {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// A Parquet file could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// The table on disk has other columns.
    #[error(
        "history table {} has other columns than this engine writes: {difference}; \
         hint: move {} away, or use the engine that wrote it", table.name(), path.display()
    )]
    Schema {
        /// Which.
        table: Table,
        /// Where.
        path: PathBuf,
        /// The first difference.
        difference: String,
    },
    /// The threads of the writer could not be started.
    #[error("could not start the history writer")]
    Runtime(#[source] std::io::Error),
}

impl HistoryError {
    /// Whether the disk is full: nothing was committed, and the same may be tried again when there is space.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            // Some libraries on the way keep only the text.
            let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if io == Some(std::io::ErrorKind::StorageFull) || error.to_string().contains("No space left on device") {
                return true;
            }
            cause = error.source();
        }
        false
    }

    pub(crate) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> HistoryError {
        let path = path.to_owned();
        move |source| HistoryError::File { attempt, path, source }
    }

    pub(crate) fn delta(attempt: &'static str, table: Table) -> impl FnOnce(DeltaTableError) -> HistoryError {
        move |source| HistoryError::Delta { attempt, table, source: Box::new(source) }
    }
}
