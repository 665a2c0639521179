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
    /// An object store did not do what it was asked.
    #[error("could not {attempt} {path} of history table {}", table.name())]
    Store {
        /// `read`, `write`, ...
        attempt: &'static str,
        /// Which table.
        table: Table,
        /// Which object.
        path: String,
        /// Why.
        #[source]
        source: Box<deltalake::ObjectStoreError>,
    },
    /// What another process says of a file that it made does not read.
    #[error("could not read what is said of a file of history that another process made")]
    Made(#[source] serde_json::Error),
    /// Another process that had rows is not there any more.
    #[error("another process that had rows of history has ended before they were committed")]
    Gone,
    /// Somebody else commits to the table.
    #[error(
        "another writer commits to history table {} (it has epoch {epoch}, which is not ours); \
         hint: one engine per history: stop the other one, or give this one a place of its own", table.name()
    )]
    OtherWriter {
        /// Which.
        table: Table,
        /// The last epoch that it wrote.
        epoch: u64,
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
    /// A Parquet file could not be decoded.
    #[error("could not read {} of history table {}", path.display(), table.name())]
    ParquetRead {
        /// Of which table.
        table: Table,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// The table on disk has other columns.
    #[error(
        "history table {} has other columns than this engine writes: {difference}; \
         hint: move {place} away, or use the engine that wrote it", table.name()
    )]
    Schema {
        /// Which.
        table: Table,
        /// Where.
        place: String,
        /// The first difference.
        difference: String,
    },
    /// The threads of the writer could not be started.
    #[error("could not start the history writer")]
    Runtime(#[source] std::io::Error),
}

impl HistoryError {
    /// Whether it is about one data file alone: the rest of its table can be read.
    pub(crate) fn is_of_one_file(&self) -> bool {
        match self {
            HistoryError::ParquetRead { .. } => true,
            HistoryError::File { attempt, source, .. } => {
                *attempt == "read" && source.kind() == std::io::ErrorKind::NotFound
            }
            HistoryError::Store { source, .. } => matches!(**source, deltalake::ObjectStoreError::NotFound { .. }),
            _ => false,
        }
    }

    /// Whether the same may work later: a store that is away, a disk that is full. What waits is kept until then.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, HistoryError::File { .. } | HistoryError::Store { .. } | HistoryError::Delta { .. })
    }

    pub(crate) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> HistoryError {
        let path = path.to_owned();
        move |source| HistoryError::File { attempt, path, source }
    }

    pub(crate) fn delta(attempt: &'static str, table: Table) -> impl FnOnce(DeltaTableError) -> HistoryError {
        move |source| HistoryError::Delta { attempt, table, source: Box::new(source) }
    }
}
