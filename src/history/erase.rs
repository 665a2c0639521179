//! Erasure of what history holds about a person or a machine.
//!
//! Rows that speak of an entity (in `entities`, or in one of the columns of entities) go from `events`, `rejects` and
//! `detections`: what was received and found about it. Everywhere else, and in what stays of these tables, the value is
//! replaced by a mark in every text that has it, so that what was told and done can still be counted. Texts are searched
//! without regard to the case of ASCII letters, at word borders.

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListBuilder, RecordBatch, StringArray, StringBuilder},
    compute::filter_record_batch,
    datatypes::DataType,
    error::ArrowError,
};
use cf_types::{Entity, EntityKind};
use std::sync::Arc;

use crate::schema::{Table, words_element};

/// What takes the place of an erased value.
pub const MARK: &str = "erased";

/// What is to be erased.
#[derive(Clone, Debug)]
pub struct Erasure {
    entity: String,
    column: &'static str,
    value: String,
}

impl Erasure {
    /// All about an entity.
    #[must_use]
    pub fn of(entity: &Entity) -> Erasure {
        let column = match entity.kind {
            EntityKind::Host => "host",
            EntityKind::User => "user",
            EntityKind::Address => "address",
            EntityKind::Process => "process",
            EntityKind::FileHash => "file_hash",
            EntityKind::Domain => "domain",
        };
        Erasure { entity: entity.to_string(), column, value: entity.value.to_string() }
    }

    /// How many rows go or are changed.
    #[must_use]
    pub fn rows(&self, table: Table, rows: &RecordBatch) -> usize {
        let goes = |row| match table {
            Table::Events | Table::Rejects | Table::Detections => self.is_about(table, rows, row),
            _ => false,
        };
        let one = |row| {
            let columns = rows.columns().iter().map(|column| column.slice(row, 1));
            columns.map(|column| (self.column_without(&column), column)).any(|(clean, column)| *clean != *column)
        };
        (0..rows.num_rows()).filter(|row| goes(*row) || one(*row)).count()
    }

    /// The rows without it.
    pub(crate) fn apply(&self, table: Table, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let rows = match table {
            Table::Events | Table::Rejects | Table::Detections => {
                let stays: Vec<bool> = (0..rows.num_rows()).map(|row| !self.is_about(table, rows, row)).collect();
                filter_record_batch(rows, &BooleanArray::from(stays))?
            }
            _ => rows.clone(),
        };
        let columns = rows.columns().iter().map(|column| self.column_without(column)).collect();
        RecordBatch::try_new(rows.schema(), columns)
    }

    fn is_about(&self, table: Table, rows: &RecordBatch, row: usize) -> bool {
        let text = |name: &str| {
            let texts = rows.column_by_name(name)?.as_string_opt::<i32>()?;
            texts.is_valid(row).then(|| texts.value(row))
        };
        let listed =
            rows.column_by_name("entities").and_then(|column| column.as_list_opt::<i32>()).is_some_and(|list| {
                let values = list.value(row);
                values
                    .as_string_opt::<i32>()
                    .is_some_and(|values| values.iter().flatten().any(|one| one == self.entity))
            });
        // A reject was not understood: what it is about is only in its text.
        let in_raw = table == Table::Rejects && text("raw").is_some_and(|raw| self.without(raw).is_some());
        listed || text(self.column) == Some(&self.value) || in_raw
    }

    fn column_without(&self, column: &ArrayRef) -> ArrayRef {
        match column.data_type() {
            DataType::Utf8 => {
                let texts = column.as_string::<i32>();
                let found = texts.iter().flatten().any(|text| self.without(text).is_some());
                if !found {
                    return Arc::clone(column);
                }
                let clean = |text: &str| self.without(text).unwrap_or_else(|| text.to_owned());
                Arc::new(texts.iter().map(|text| text.map(clean)).collect::<StringArray>())
            }
            DataType::List(_) => self.list_without(column),
            _ => Arc::clone(column),
        }
    }

    fn list_without(&self, column: &ArrayRef) -> ArrayRef {
        let lists = column.as_list::<i32>();
        let Some(texts) = lists.values().as_string_opt::<i32>() else { return Arc::clone(column) };
        if !texts.iter().flatten().any(|text| self.without(text).is_some()) {
            return Arc::clone(column);
        }
        let mut builder = ListBuilder::new(StringBuilder::new()).with_field(words_element());
        for row in 0..lists.len() {
            if lists.is_valid(row) {
                let values = lists.value(row);
                for text in values.as_string::<i32>().iter() {
                    let clean = text.map(|text| self.without(text).unwrap_or_else(|| text.to_owned()));
                    builder.values().append_option(clean);
                }
            }
            builder.append(lists.is_valid(row));
        }
        Arc::new(builder.finish())
    }

    /// A text with marks in the places of the value; `None` if it does not have it.
    #[must_use]
    pub fn without(&self, text: &str) -> Option<String> {
        // ASCII letters keep their length in lower case: places in both are the same.
        let (lower, value) = (text.to_ascii_lowercase(), self.value.to_ascii_lowercase());
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
        let mut out = String::new();
        let mut from = 0;
        for (at, found) in lower.match_indices(&value) {
            let end = at + found.len();
            let before = text.get(..at).and_then(|text| text.chars().next_back());
            let behind = text.get(end..).and_then(|text| text.chars().next());
            if at < from || is_word(before) || is_word(behind) {
                continue;
            }
            out.push_str(text.get(from..at).unwrap_or_default());
            out.push_str(MARK);
            from = end;
        }
        if from == 0 {
            return None;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, text: &str, expected: Option<&str>) {
        let erasure = Erasure::of(&Entity::of(EntityKind::User, value).unwrap());
        assert_eq!(erasure.without(text).as_deref(), expected, "{value} in {text}");
    }

    #[test]
    fn values_go_at_word_borders_in_any_case() {
        check("bob", "user bob logged in as Bob", Some("user erased logged in as erased"));
        check("bob", "bobby and kabob", None);
        check("bob", r#"{"user":"BOB","domain":"x"}"#, Some(r#"{"user":"erased","domain":"x"}"#));
        check("bob", r"CORP\bob", Some(r"CORP\erased"));
        check("bob", "", None);
        check("bob", "éboB", None);
        check("bob", "bob", Some("erased"));
    }
}
