//! What the Delta log says of the data files: size, rows, times.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use cf_types::Time;
use deltalake::DeltaTable;
use serde::Deserialize;

use crate::{error::HistoryError, schema::Table};

/// One data file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Relative to the table.
    pub path: String,
    /// The day of its partition; `None` for days that hold next to nothing.
    pub day: Option<String>,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The least time of its rows, rounded down to milliseconds.
    pub oldest: Option<Time>,
    /// The greatest time of its rows, rounded up to milliseconds.
    pub newest: Option<Time>,
}

/// A snapshot whose rows are those of its data files, and no more is to be known: no deletion vectors, no renamed columns, and
/// the day the only partition column.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The store: `file://`, `s3://BUCKET`.
    pub store: String,
    /// The path of the table in it, as a URL has it.
    pub root: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Its files.
    pub files: Vec<Stored>,
}

/// The files of a loaded snapshot, unless it takes more than reading them: then somebody else has changed the table.
pub(crate) fn plain(delta: &DeltaTable, table: Table) -> Result<Option<Plain>, HistoryError> {
    let state = delta.snapshot().map_err(HistoryError::delta("open", table))?;
    let metadata = state.metadata();
    let is_mapped = metadata.configuration().get("delta.columnMapping.mode").is_some_and(|mode| mode != "none");
    let log = state.log_data();
    let is_else = log.iter().any(|file| file.deletion_vector_descriptor().is_some() || file.path().contains("://"));
    if is_mapped || is_else || metadata.partition_columns() != ["day"] {
        return Ok(None);
    }
    let url = delta.table_url();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let store = format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default());
    let schema = state.snapshot().arrow_schema();
    Ok(Some(Plain { store, root: url.path().to_owned(), schema, files: stored(delta, table)? }))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Stats {
    num_records: u64,
    min_values: BTreeMap<String, serde_json::Value>,
    max_values: BTreeMap<String, serde_json::Value>,
}

/// The data files of a loaded snapshot, by day, then time, then path.
pub(crate) fn stored(delta: &DeltaTable, table: Table) -> Result<Vec<Stored>, HistoryError> {
    let state = delta.snapshot().map_err(HistoryError::delta("open", table))?;
    let mut found: Vec<Stored> = state
        .log_data()
        .iter()
        .map(|view| {
            let stats: Stats = view.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let time = |values: &BTreeMap<String, serde_json::Value>| {
                values.get(table.time_column()).and_then(|value| value.as_str()?.parse::<Time>().ok())
            };
            Stored {
                path: view.path().to_string(),
                day: view.partition_values_map().get("day").cloned().flatten(),
                bytes: u64::try_from(view.size()).unwrap_or(0),
                rows: view.num_records().and_then(|rows| u64::try_from(rows).ok()).unwrap_or(stats.num_records),
                oldest: time(&stats.min_values),
                newest: time(&stats.max_values),
            }
        })
        .collect();
    found.sort_by(|a, b| (&a.day, a.oldest, &a.path).cmp(&(&b.day, b.oldest, &b.path)));
    Ok(found)
}
