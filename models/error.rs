//! What can go wrong, each with what to do about it.

use std::{io, path::PathBuf};

/// An input, a request or a stored model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("could not {what} {path}: {cause}", path = path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} is not readable as {format}: {why}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// CSV or Parquet.
        format: &'static str,
        /// What the reader says.
        why: String,
    },
    /// The name of the input says nothing of its format.
    #[error("{path} is neither .parquet nor .csv: rename or convert it", path = path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to learn from or to predict.
    #[error("{path} has no rows", path = path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// More than memory is meant for.
    #[error("{path} has more than {most} {what}: split it or leave columns out", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Rows, columns, cells or bytes.
        what: &'static str,
        /// The limit.
        most: u64,
    },
    /// A column that was named is not there.
    #[error("there is no column {name:?} ({role}){hint}; the columns are {known}")]
    NoColumn {
        /// The name that was asked for.
        name: String,
        /// What it was to be.
        role: &'static str,
        /// A similar name.
        hint: String,
        /// All names.
        known: String,
    },
    /// A column has a type that nothing can be made of.
    #[error(
        "column {name:?} has type {kind}, which is not a feature: leave it out of the file or list it under leave_out in --features"
    )]
    ColumnType {
        /// The column.
        name: String,
        /// Its type.
        kind: String,
    },
    /// A column is of another kind than what it is used for.
    #[error("column {name:?} is {is}, {role} must be {wanted}")]
    ColumnKind {
        /// The column.
        name: String,
        /// What it holds.
        is: String,
        /// What for.
        role: &'static str,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The label does not tell two classes apart.
    #[error("all {rows} rows are {class}: column {column:?} has {values}; {hint}")]
    OneClass {
        /// The label column.
        column: String,
        /// Rows with a label.
        rows: usize,
        /// The class that all are of.
        class: &'static str,
        /// What the column holds.
        values: String,
        /// What to do.
        hint: &'static str,
    },
    /// Too few rows of a class, or in too few groups.
    #[error("{what}: there are {found}, {least} are needed")]
    TooFew {
        /// Of what.
        what: String,
        /// How many there are.
        found: usize,
        /// How many it takes.
        least: usize,
    },
    /// A feature that is as good as the label.
    #[error(
        "column {column:?} alone separates the classes (ROC-AUC {auc:.4}): it looks like a leak of the label; leave it out under leave_out in --features, or allow it with --allow-leak {column}"
    )]
    Leak {
        /// The column.
        column: String,
        /// How well it separates alone.
        auc: f64,
    },
    /// No column is left to learn from.
    #[error("no feature is left: {why}")]
    NoFeature {
        /// What became of the columns.
        why: String,
    },
    /// A setting of the training is wrong.
    #[error("{what} is not valid: {why}")]
    Setting {
        /// Which.
        what: String,
        /// Why.
        why: String,
    },
    /// A stored model or the registry is damaged or hostile.
    #[error("{path} is not a usable {what}: {why}", path = path.display())]
    Stored {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A version that does not exist.
    #[error("task {task:?} has no version {version:?}; `counterflow models list` shows what there is")]
    NoVersion {
        /// The task.
        task: String,
        /// What was asked for.
        version: String,
    },
    /// A task without any trained model.
    #[error("task {task:?} has no {what} in {path}: run `counterflow train --task {task}` first", path = path.display())]
    NoModel {
        /// The task.
        task: String,
        /// Model, champion or predecessor.
        what: &'static str,
        /// The registry.
        path: PathBuf,
    },
    /// Another process writes the same registry.
    #[error("{path} is locked by another training or promotion", path = path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
}

impl ModelError {
    /// For `map_err` on file operations.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ModelError {
        let path = path.to_owned();
        move |cause| ModelError::Io { what, path, cause }
    }

    pub(crate) fn setting(what: impl Into<String>, why: impl Into<String>) -> ModelError {
        ModelError::Setting { what: what.into(), why: why.into() }
    }
}
