//! What the Delta log says of the data files: size, rows, times.

use std::collections::BTreeMap;

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
