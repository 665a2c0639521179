//! Tables, columns and what they mean, for `\d` and completion.

use cf_history::{
    Table,
    schema::{Column, Kind},
};

use crate::{Session, session::EVENTS_DISTINCT};

/// A table as people see it.
#[derive(Clone, Debug)]
pub struct TableEntry {
    /// Its name.
    pub name: &'static str,
    /// `history`, `view` or `live`.
    pub kind: &'static str,
    /// What a row of it is.
    pub meaning: &'static str,
    /// Its columns.
    pub columns: Vec<ColumnEntry>,
}

/// A column as people see it.
#[derive(Clone, Debug)]
pub struct ColumnEntry {
    /// Its name.
    pub name: &'static str,
    /// Its type in the words of SQL.
    pub kind: &'static str,
    /// Whether it can be null.
    pub nullable: bool,
    /// What it means.
    pub meaning: &'static str,
}

impl Session {
    /// All tables by name.
    #[must_use]
    pub fn catalogue(&self) -> Vec<TableEntry> {
        let history = |table: Table| TableEntry {
            name: table.name(),
            kind: "history",
            meaning: table.meaning(),
            columns: columns(table.columns()),
        };
        let mut tables: Vec<TableEntry> = Table::ALL.into_iter().map(history).collect();
        tables.push(TableEntry {
            name: EVENTS_DISTINCT,
            kind: "view",
            meaning: "one row per event: of its deliveries the one at the smallest position",
            columns: columns(Table::Events.columns()),
        });
        tables.extend(self.live().iter().map(|table| TableEntry {
            name: table.name,
            kind: "live",
            meaning: table.meaning,
            columns: columns(table.columns),
        }));
        tables.sort_by_key(|table| table.name);
        tables
    }
}

fn columns(columns: &[Column]) -> Vec<ColumnEntry> {
    let entry = |column: &Column| ColumnEntry {
        name: column.name,
        kind: match column.kind {
            Kind::Word | Kind::Text | Kind::Field => "text",
            Kind::Words => "text[]",
            Kind::Integer => "bigint",
            Kind::Float => "double",
            Kind::Time => "timestamp",
            Kind::Bytes => "bytea",
            Kind::Day => "date",
        },
        nullable: column.nullable,
        meaning: column.meaning,
    };
    columns.iter().map(entry).collect()
}
