//! SQL as of an epoch or a time: what history held then.
//!
//! Rows are only ever added, and each names the epoch that made it. So a table as of epoch `e` is its rows up to `e`, whatever was
//! compacted since; reading an old version of the Delta log would give the same rows as long as its files were not
//! vacuumed, and nothing after. A time means the last epoch cut at it or before.

use std::{fmt, str::FromStr};

use cf_types::{Epoch, Time};

/// A point in the engine's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// All epochs up to and with this one.
    Epoch(Epoch),
    /// All epochs that were cut at this wall time or before.
    Time(Time),
}

impl FromStr for AsOf {
    type Err = String;

    /// Reads an epoch's number or an RFC 3339 time; a date is its begin.
    fn from_str(text: &str) -> Result<AsOf, String> {
        let text = text.trim();
        if let Ok(epoch) = text.parse() {
            return Ok(AsOf::Epoch(epoch));
        }
        let midnight = format!("{text}T00:00:00Z");
        let time = text.parse::<Time>().or_else(|_| midnight.parse::<Time>());
        time.map(AsOf::Time)
            .map_err(|_| format!("{text:?} is neither an epoch nor a time; write 120 or 2026-01-05T14:00:00Z"))
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AsOf::Epoch(epoch) => write!(f, "{epoch}"),
            AsOf::Time(time) => write!(f, "{time}"),
        }
    }
}
