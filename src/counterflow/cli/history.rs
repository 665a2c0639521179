//! The words of `counterflow history`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum HistoryCommand {
    /// Show each table: rows, files, sizes, oldest and newest; complete up to which epoch
    Status(HistoryArguments),
    /// Join small files, let go of what the settings do not keep, remove files that no version needs
    Compact(CompactArguments),
    /// Take archives of events (JSON, EVTX, text; .gz and .zst too) into history at full speed, each file once
    Import(ImportHistoryArguments),
    /// Write a table to a file as CSV, JSON lines or Parquet
    Export(ExportArguments),
    /// Erase what is held about an entity: a person's data
    Erase(EraseArguments),
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// Folder of the engine or of a replay
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArguments {
    /// Folder of an engine that is stopped; one that runs does this by itself
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Remove files of older versions at once, so that only the present one can be read
    #[arg(long)]
    pub(crate) drop_versions: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportHistoryArguments {
    /// Folder of an engine that is stopped, or a new one
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Threads that decode; default: one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,

    /// Year of times that have none; default: that of the file's modification time
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=9998))]
    pub(crate) year: Option<i16>,

    /// Rule file or folder whose fields become columns; may be repeated
    #[arg(long = "rules", value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,

    /// Files to take in
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// What a file is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// RFC 4180, with a header.
    Csv,
    /// One object a line.
    Json,
    /// Apache Parquet.
    Parquet,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// Folder of the engine or of a replay
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Rows from this time on, e.g. 2026-11-22T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<cf_types::Time>,

    /// Rows before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<cf_types::Time>,

    /// What to write
    #[arg(long = "as", value_enum, default_value = "json")]
    pub(crate) format: ExportFormat,

    /// File to write; `-` is standard output (not for Parquet)
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) out: PathBuf,

    /// The table: events, alerts, ...
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,
}

#[derive(Debug, Args)]
pub(crate) struct EraseArguments {
    /// Folder of an engine that is stopped
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Whom, as KIND:VALUE, e.g. user:bob
    #[arg(long, value_name = "ENTITY")]
    pub(crate) entity: String,

    /// Do it; without it only what would be erased is counted
    #[arg(long)]
    pub(crate) yes: bool,
}
