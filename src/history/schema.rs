//! The tables and their columns, said once: Arrow, Delta, Parquet settings and the documentation come from here.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::{ArrayType, DataType, PrimitiveType, StructField};

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
    /// The epochs that all other tables hold completely. Committed last.
    Epochs,
}

impl Table {
    /// All of them, in the order in which they are committed: `epochs` last.
    pub const ALL: [Table; 7] = [
        Table::Events,
        Table::Rejects,
        Table::Detections,
        Table::Alerts,
        Table::Incidents,
        Table::Actions,
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
            Table::Epochs => "the epochs that all other tables hold completely",
        }
    }

    /// Its columns.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Events => EVENTS,
            Table::Rejects => REJECTS,
            Table::Detections => DETECTIONS,
            Table::Alerts => ALERTS,
            Table::Incidents => INCIDENTS,
            Table::Actions => ACTIONS,
            Table::Epochs => EPOCHS,
        }
    }

    /// The column of time by which its rows are sorted in a file.
    #[must_use]
    pub const fn time_column(self) -> &'static str {
        match self {
            Table::Events | Table::Rejects | Table::Detections => "time",
            Table::Alerts | Table::Incidents => "revised_at",
            Table::Actions => "at",
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
    fn arrow(&self) -> Field {
        let kind = match self.kind {
            Kind::Word | Kind::Text => ArrowType::Utf8,
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
            Kind::Word | Kind::Text => DataType::Primitive(PrimitiveType::String),
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

/// The element of a list: the name that Delta's readers expect.
pub(crate) fn words_element() -> Arc<Field> {
    Arc::new(Field::new("element", ArrowType::Utf8, true))
}

const fn must(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: false, meaning }
}

const fn may(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: true, meaning }
}

const TENANT: Column = must("tenant", Kind::Word, "whose it is");
const DAY: Column =
    may("day", Kind::Day, "partition: the day (UTC) of its time; null for days that hold next to nothing");
const EPOCH: Column = must("epoch", Kind::Integer, "the epoch that made it");
const SOURCE: Column = must("source", Kind::Word, "name of the source in the settings");
const ORIGIN: Column = must("origin", Kind::Word, "file, or stream of the spool");
const LINE: Column = must("line", Kind::Integer, "line where the record begins, from 1; 0 where there are none");
const OFFSET: Column =
    must("record_offset", Kind::Integer, "where the record begins: byte in the file, or row in the spool");
const INDEX: Column = must("record_index", Kind::Integer, "which event of the record, from 0");
const ENTITIES: Column = must("entities", Kind::Words, "whom it speaks of, each as kind:value");

const EVENTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("event_id", Kind::Text, "the id that people see: the declared one, else the identity"),
    may("id", Kind::Text, "the identity, 32 hexadecimal digits; null where the source declares ids"),
    must("time", Kind::Time, "when it happened"),
    must("time_basis", Kind::Word, "how we know: declared, assumed (year or zone), received"),
    must("received_at", Kind::Time, "when it was received; for files when the file was opened"),
    SOURCE,
    ORIGIN,
    LINE,
    OFFSET,
    INDEX,
    may("product", Kind::Word, "Sigma's product"),
    may("category", Kind::Word, "Sigma's category"),
    may("service", Kind::Word, "Sigma's service"),
    may("host", Kind::Word, "its first host entity (ECS host.name)"),
    may("user", Kind::Word, "its first user entity (ECS user.name)"),
    may("address", Kind::Word, "its first address entity (ECS source.ip)"),
    may("process", Kind::Word, "its first process entity (ECS process.executable)"),
    may("file_hash", Kind::Word, "its first file hash entity (ECS file.hash)"),
    may("domain", Kind::Word, "its first domain entity (ECS dns.question.name)"),
    ENTITIES,
    may("fields", Kind::Text, "named fields of a text record as JSON; null for JSON records, where raw has all"),
    must("raw", Kind::Text, "the record as it came"),
];

const REJECTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    may("time", Kind::Time, "when it happened, if that was understood"),
    must("received_at", Kind::Time, "when it was received"),
    SOURCE,
    ORIGIN,
    LINE,
    OFFSET,
    INDEX,
    must("code", Kind::Word, "why, one word of a closed set"),
    must("reason", Kind::Word, "what exactly"),
    must("raw", Kind::Text, "the record, at most 64 KiB; what is not UTF-8 in it is shown as U+FFFD"),
    may("raw_bytes", Kind::Bytes, "the same bytes where they are not UTF-8"),
];

const DETECTIONS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("rule_id", Kind::Word, "id of the rule"),
    must("event_id", Kind::Text, "the id that people see"),
    must("id", Kind::Text, "identity of the event, 32 hexadecimal digits"),
    must("time", Kind::Time, "when the event happened"),
    SOURCE,
    ORIGIN,
    LINE,
    OFFSET,
    INDEX,
    may("host", Kind::Word, "its first host entity"),
    may("user", Kind::Word, "its first user entity"),
    may("address", Kind::Word, "its first address entity"),
    ENTITIES,
    must("items", Kind::Text, "where it counts, as JSON: rule_id, reference, group, value"),
];

const ALERTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("alert_id", Kind::Text, "its stable id"),
    must("thread", Kind::Text, "first id of its lineage, which messages and tickets follow"),
    must("revision", Kind::Integer, "counts the revisions of the thread, from 1"),
    must("event", Kind::Word, "what the revision is: opened, amended, withdrawn, ..."),
    must("state", Kind::Word, "open, sealed, withdrawn, superseded"),
    may("reason", Kind::Word, "why it changed"),
    must("rule_id", Kind::Word, "id of the rule"),
    must("title", Kind::Word, "title of the rule"),
    must("level", Kind::Word, "level of the rule"),
    must("score", Kind::Float, "threat score, 0.0 to 10.0"),
    must("group_fields", Kind::Word, "the group as JSON, field to value"),
    must("first", Kind::Time, "event time of its first cell"),
    must("last", Kind::Time, "event time of its last cell"),
    must("count", Kind::Integer, "its members"),
    must("peak", Kind::Integer, "highest count of one window"),
    ENTITIES,
    must("tags", Kind::Words, "ATT&CK and other tags of the rule"),
    may("incident", Kind::Integer, "number of its incident"),
    may("members", Kind::Text, "first and last members as JSON"),
    must("revised_at", Kind::Time, "wall time of the revision"),
];

const INCIDENTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("incident", Kind::Integer, "its number"),
    must("incident_id", Kind::Text, "its stable id"),
    must("state", Kind::Word, "open, closed, withdrawn, merged"),
    may("redirect", Kind::Integer, "the incident that it was merged into"),
    may("title", Kind::Word, "for people"),
    may("score", Kind::Float, "threat score, 0.0 to 10.0"),
    may("first", Kind::Time, "event time of its first alert"),
    must("count", Kind::Integer, "its alerts"),
    must("alerts", Kind::Words, "ids of its alerts by time"),
    ENTITIES,
    must("revised_at", Kind::Time, "wall time of the revision"),
];

const ACTIONS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("action_id", Kind::Text, "kind and target as one id"),
    must("number", Kind::Integer, "the ledger's number of this application of it"),
    must("kind", Kind::Word, "block_address, ..."),
    must("target", Kind::Word, "to whom"),
    must("state", Kind::Word, "planned, applying, in_force, undoing, undone, failed, refused, dry_run"),
    may("reason", Kind::Word, "why it came to this state"),
    must("alerts", Kind::Words, "ids of the alerts that are its reason"),
    must("ttl_s", Kind::Integer, "how long the effect lasts"),
    may("until_at", Kind::Time, "when the effect ends"),
    may("detail", Kind::Text, "receipt or error as JSON"),
    must("at", Kind::Time, "wall time of the step"),
];

/// Among the ends of an epoch: how long all sources had been idle. A column of its own would have changed a table that is
/// there already.
pub const PASSED_MS: &str = "passed_ms";

const EPOCHS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("wall", Kind::Time, "when it was cut"),
    must("generation", Kind::Integer, "which start of the engine cut it"),
    must("ends", Kind::Text, "end of each source in this epoch, exclusive, as JSON"),
    must("idle", Kind::Words, "sources that were idle"),
    must("control", Kind::Integer, "the control log up to and with this sequence number is in"),
    must("rules", Kind::Word, "content hash of the rule set"),
    must("engine", Kind::Word, "version of the engine"),
    may("watermark", Kind::Time, "watermark after it"),
];
