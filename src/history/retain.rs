//! How long rows are kept, what goes first when there is too much, and what incidents hold back.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int64Type, TimestampMicrosecondType},
    error::ArrowError,
};
use cf_types::{Cell, Group, Time};
use serde::Deserialize;

use crate::schema::Table;

const DAY_SECONDS: i64 = 86_400;

/// How long the rows of each table are kept, by the time that the table is sorted by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    days: BTreeMap<Table, u32>,
}

impl Retention {
    /// What goes when there is too much, those before others: what can be had again or is large, then what leads from
    /// alerts to events. The oldest of each goes first.
    pub const GOES_FIRST: [&'static [Table]; 2] =
        [&[Table::Features, Table::Predictions, Table::Events, Table::Rejects], &[Table::Detections, Table::Risk]];

    /// What never goes, neither by time nor by size: what was told and done, and why.
    pub const STAYS: [Table; 2] = [Table::Facts, Table::Epochs];

    /// Keeps the rows of a table so many days. What never goes is not taken: `false`.
    pub fn set(&mut self, table: Table, days: u32) -> bool {
        if Retention::STAYS.contains(&table) {
            return false;
        }
        self.days.insert(table, days);
        true
    }

    /// Whether nothing ever goes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.days.is_empty()
    }

    /// Rows of a table before this are past their time.
    #[must_use]
    pub fn before(&self, table: Table, now: Time) -> Option<Time> {
        let days = i64::from(*self.days.get(&table)?);
        Some(Time::from_seconds(now.cell().saturating_sub(days.saturating_mul(DAY_SECONDS))))
    }
}

/// What of `detections` an alert of an incident rests on.
#[derive(Clone, Debug)]
pub struct Pin {
    /// Id of the rule that its items count for.
    pub rule: String,
    /// The group; `None` for any.
    pub group: Option<Group>,
    /// First and last second, inclusive.
    pub cells: (Cell, Cell),
}

/// Rows that incidents hold back: their detections, and the events of these.
///
/// Memory: some 80 bytes per event, at most [`Pinned::EVENTS_MAX`] of them; with more, nothing of the days concerned goes.
#[derive(Debug, Default)]
pub struct Pinned {
    by_rule: HashMap<String, Vec<(Option<BTreeMap<String, String>>, (Cell, Cell))>>,
    /// Position of each event: origin, offset, index.
    events: HashSet<(String, i64, i64)>,
    /// There were more events than may be held: none of their time goes.
    cut: Option<(Cell, Cell)>,
}

#[derive(Deserialize)]
struct FoundItem {
    rule_id: String,
    group: BTreeMap<String, String>,
}

impl Pinned {
    /// Events held at most.
    pub const EVENTS_MAX: usize = 5_000_000;

    /// Takes what alerts of incidents rest on.
    #[must_use]
    pub fn new(pins: impl IntoIterator<Item = Pin>) -> Pinned {
        let mut pinned = Pinned::default();
        for Pin { rule, group, cells } in pins {
            let group = group.map(|group| group.iter().map(|(f, v)| (f.to_owned(), v.to_owned())).collect());
            pinned.by_rule.entry(rule).or_default().push((group, cells));
        }
        pinned
    }

    /// The first and the last second of all pins.
    #[must_use]
    pub fn extent(&self) -> Option<(Cell, Cell)> {
        let cells = self.by_rule.values().flatten().map(|(_, cells)| *cells);
        cells.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    /// Whether rows of this table can be held back.
    pub(crate) fn concerns(&self, table: Table) -> bool {
        !self.by_rule.is_empty() && matches!(table, Table::Events | Table::Detections)
    }

    /// Takes rows of `detections`: the events of those that are held back are held back, too.
    pub fn learn(&mut self, detections: &RecordBatch) {
        let held = self.held(detections);
        let (Some(offsets), Some(indexes)) =
            (integers(detections, "record_offset"), integers(detections, "record_index"))
        else {
            return;
        };
        let times = times(detections);
        for row in (0..detections.num_rows()).filter(|row| held.get(*row).copied().unwrap_or(true)) {
            if self.events.len() >= Pinned::EVENTS_MAX {
                let cell = times.map_or(0, |times| times.value(row).div_euclid(1_000_000));
                let (first, last) = self.cut.unwrap_or((cell, cell));
                self.cut = Some((first.min(cell), last.max(cell)));
                continue;
            }
            let origin = text(detections, "origin", row).unwrap_or_default().to_owned();
            self.events.insert((origin, offsets.value(row), indexes.value(row)));
        }
    }

    /// The rows that stay.
    pub(crate) fn keep(&self, table: Table, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let held: Vec<bool> = match table {
            Table::Detections => self.held(rows),
            Table::Events => self.held_events(rows),
            _ => vec![false; rows.num_rows()],
        };
        filter_record_batch(rows, &BooleanArray::from(held))
    }

    fn held_events(&self, rows: &RecordBatch) -> Vec<bool> {
        let (offsets, indexes) = (integers(rows, "record_offset"), integers(rows, "record_index"));
        let times = times(rows);
        (0..rows.num_rows())
            .map(|row| {
                let (Some(offsets), Some(indexes)) = (offsets, indexes) else { return true };
                let origin = text(rows, "origin", row).unwrap_or_default().to_owned();
                let cell = times.map_or(0, |times| times.value(row).div_euclid(1_000_000));
                self.events.contains(&(origin, offsets.value(row), indexes.value(row)))
                    || self.cut.is_some_and(|(first, last)| (first..=last).contains(&cell))
            })
            .collect()
    }

    /// Which detections are held back. One whose items cannot be read is: nothing is lost by doubt.
    fn held(&self, rows: &RecordBatch) -> Vec<bool> {
        let times = times(rows);
        (0..rows.num_rows())
            .map(|row| {
                let Some(items) = text(rows, "items", row) else { return true };
                let cell = times.map_or(0, |times| times.value(row).div_euclid(1_000_000));
                let Ok(items) = serde_json::from_str::<Vec<FoundItem>>(items) else { return true };
                items.iter().any(|item| self.names(item, cell))
            })
            .collect()
    }

    fn names(&self, item: &FoundItem, cell: Cell) -> bool {
        self.by_rule.get(&item.rule_id).is_some_and(|pins| {
            pins.iter().any(|(group, (first, last))| {
                (*first..=*last).contains(&cell) && group.as_ref().is_none_or(|group| *group == item.group)
            })
        })
    }
}

fn integers<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a arrow::array::Int64Array> {
    rows.column_by_name(name)?.as_primitive_opt::<Int64Type>()
}

fn times(rows: &RecordBatch) -> Option<&arrow::array::TimestampMicrosecondArray> {
    rows.column_by_name("time")?.as_primitive_opt::<TimestampMicrosecondType>()
}

fn text<'a>(rows: &'a RecordBatch, name: &str, row: usize) -> Option<&'a str> {
    let texts = rows.column_by_name(name)?.as_string_opt::<i32>()?;
    texts.is_valid(row).then(|| texts.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_goes_takes_no_retention() {
        let mut retention = Retention::default();
        assert!(retention.set(Table::Events, 30));
        assert!(!retention.set(Table::Epochs, 30) && !retention.set(Table::Facts, 30));
        let now: Time = "2026-01-31T00:00:00Z".parse().unwrap();
        assert_eq!(retention.before(Table::Events, now), Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(retention.before(Table::Alerts, now), None);
        let goes: Vec<_> = Retention::GOES_FIRST.into_iter().flatten().collect();
        for table in [Table::Alerts, Table::Incidents, Table::Actions, Table::Verdicts, Table::Facts, Table::Epochs] {
            assert!(!goes.contains(&&table), "{table:?}");
        }
    }
}
