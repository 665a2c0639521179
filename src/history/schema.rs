//! The tables and their columns, said once: Arrow, Delta, Parquet settings and the documentation come from here.

mod columns;

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::{ArrayType, DataType, PrimitiveType, StructField};

/// The version of all that is said here. A table of an older one gets the columns that it lacks when it is opened for
/// writing; one of a newer one is refused. Columns that were added after version 1 can be null: older rows have none.
pub const VERSION: u32 = 3;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text of few distinct values: dictionary encoded.
    Word,
    /// Text that hardly repeats (ids, raw records, JSON): never worth a dictionary.
    Text,
    /// Several words.
    Words,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// A point in time, microseconds, UTC.
    Time,
    /// Bytes that are no text.
    Bytes,
    /// The day partition.
    Day,
    /// The text of a field of events: filled only where an event has it, absent from files in which none has.
    Field,
}

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it can be null.
    pub nullable: bool,
    /// What it means, for `\d` and the documentation.
    pub meaning: &'static str,
}

/// The tables of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Every delivery of every event.
    Events,
    /// What could not be decoded or evaluated.
    Rejects,
    /// One rule met one event.
    Detections,
    /// Every revision of every alert.
    Alerts,
    /// Every revision of every incident.
    Incidents,
    /// Every step of every action.
    Actions,
    /// Every change of an entity's risk.
    Risk,
    /// The control log: what people and programs said while the engine ran.
    Facts,
    /// What people judged of alerts.
    Verdicts,
    /// What models were asked about.
    Features,
    /// What models answered.
    Predictions,
    /// The epochs that all other tables hold completely. Committed last.
    Epochs,
}

impl Table {
    /// All of them, in the order in which they are committed: `epochs` last.
    pub const ALL: [Table; 12] = [
        Table::Events,
        Table::Rejects,
        Table::Detections,
        Table::Alerts,
        Table::Incidents,
        Table::Actions,
        Table::Risk,
        Table::Facts,
        Table::Verdicts,
        Table::Features,
        Table::Predictions,
        Table::Epochs,
    ];

    pub(crate) fn position(self) -> usize {
        Table::ALL.iter().position(|table| *table == self).unwrap_or(0)
    }

    /// Its name in SQL and its folder.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Table::Events => "events",
            Table::Rejects => "rejects",
            Table::Detections => "detections",
            Table::Alerts => "alerts",
            Table::Incidents => "incidents",
            Table::Actions => "actions",
            Table::Risk => "risk",
            Table::Facts => "facts",
            Table::Verdicts => "verdicts",
            Table::Features => "features",
            Table::Predictions => "predictions",
            Table::Epochs => "epochs",
        }
    }

    /// What a row of it is.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Table::Events => "one row per delivery of an event; events_distinct has one per event",
            Table::Rejects => "records and items that were refused, with their reason",
            Table::Detections => "one row per rule and event that met",
            Table::Alerts => "one row per revision of an alert",
            Table::Incidents => "one row per revision of an incident",
            Table::Actions => "one row per step of an action",
            Table::Risk => "one row per change of an entity's risk",
            Table::Facts => "one row per entry of the control log",
            Table::Verdicts => "one row per judgement of an alert, given or taken back",
            Table::Features => "one row per alert or event that a model was asked about",
            Table::Predictions => "one row per answer of a model",
            Table::Epochs => "the epochs that all other tables hold completely",
        }
    }

    /// Its columns.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Events => columns::EVENTS,
            Table::Rejects => columns::REJECTS,
            Table::Detections => columns::DETECTIONS,
            Table::Alerts => columns::ALERTS,
            Table::Incidents => columns::INCIDENTS,
            Table::Actions => columns::ACTIONS,
            Table::Risk => columns::RISK,
            Table::Facts => columns::FACTS,
            Table::Verdicts => columns::VERDICTS,
            Table::Features => columns::FEATURES,
            Table::Predictions => columns::PREDICTIONS,
            Table::Epochs => columns::EPOCHS,
        }
    }

    /// The column of time by which its rows are sorted in a file.
    #[must_use]
    pub const fn time_column(self) -> &'static str {
        match self {
            Table::Events | Table::Rejects | Table::Detections => "time",
            Table::Alerts | Table::Incidents => "revised_at",
            Table::Actions | Table::Risk | Table::Facts | Table::Verdicts => "at",
            Table::Features | Table::Predictions => "time",
            Table::Epochs => "wall",
        }
    }

    /// Its Arrow schema; with `day`, as rows are handed over, or without, as Parquet files hold them.
    #[must_use]
    pub fn arrow(self, with_day: bool) -> SchemaRef {
        let columns = self.columns().iter().filter(|column| with_day || column.kind != Kind::Day);
        Arc::new(Schema::new(columns.map(Column::arrow).collect::<Vec<_>>()))
    }

    /// Its Delta columns.
    #[must_use]
    pub fn delta(self) -> Vec<StructField> {
        self.columns().iter().map(Column::delta).collect()
    }
}

impl Column {
    pub(crate) fn arrow(&self) -> Field {
        let kind = match self.kind {
            Kind::Word | Kind::Text | Kind::Field => ArrowType::Utf8,
            Kind::Words => ArrowType::List(words_element()),
            Kind::Integer => ArrowType::Int64,
            Kind::Float => ArrowType::Float64,
            Kind::Time => ArrowType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            Kind::Bytes => ArrowType::Binary,
            Kind::Day => ArrowType::Date32,
        };
        Field::new(self.name, kind, self.nullable)
    }

    fn delta(&self) -> StructField {
        let kind = match self.kind {
            Kind::Word | Kind::Text | Kind::Field => DataType::Primitive(PrimitiveType::String),
            Kind::Words => ArrayType::new(DataType::Primitive(PrimitiveType::String), true).into(),
            Kind::Integer => DataType::Primitive(PrimitiveType::Long),
            Kind::Float => DataType::Primitive(PrimitiveType::Double),
            Kind::Time => DataType::Primitive(PrimitiveType::Timestamp),
            Kind::Bytes => DataType::Primitive(PrimitiveType::Binary),
            Kind::Day => DataType::Primitive(PrimitiveType::Date),
        };
        StructField::new(self.name, kind, self.nullable).with_metadata([("comment", self.meaning)])
    }
}

/// Among the ends of an epoch: how long all sources had been idle. A column of its own would have changed a table that is
/// there already.
pub const PASSED_MS: &str = "passed_ms";

/// A column for a field of events that rules name, beside those that every table of events has.
pub(crate) fn field_column(name: &str) -> StructField {
    StructField::nullable(name, DataType::Primitive(PrimitiveType::String))
        .with_metadata([("comment", "a field that rules name; its first value as text")])
}

/// The same for Arrow.
pub(crate) fn field_arrow(name: &str) -> Field {
    Field::new(name, ArrowType::Utf8, true)
}

/// The element of a list: the name that Delta's readers expect.
pub(crate) fn words_element() -> Arc<Field> {
    Arc::new(Field::new("element", ArrowType::Utf8, true))
}
