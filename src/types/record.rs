//! One raw record as it was received, before anybody looked into it, and where it came from.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{id::Tenant, time::Time};

/// How the bytes of a record were cut out of what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    /// One line of text or one JSON document; the decoder looks which.
    #[default]
    Record,
    /// One syslog message (RFC 5424 or RFC 3164), with its priority.
    Syslog,
    /// One envelope or JSON document sent to `POST /api/v1/events`.
    Http,
    /// One record of an EVTX file, already rendered as JSON by the reader.
    Evtx,
    /// What could not be framed at all (too long, not decodable): kept to become a reject.
    Unframed,
}

/// Where a record begins. `line` is for people, `offset` for identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// File path as given, spool stream, or topic and partition.
    pub origin: Arc<str>,
    /// Byte offset in the uncompressed file, or row in the spool.
    pub offset: u64,
    /// Line where the record begins, from 1; record number for EVTX; 0 where there are none.
    pub line: u64,
    /// Which event of the record, from 0: a JSON array is one record of many events.
    pub index: u32,
}

/// What a record needs besides its bytes to decode to the same events for ever.
///
/// It is stored with the record (spool), because year, zone and receipt time must be chosen once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Whose record it is.
    pub tenant: Tenant,
    /// The source's name in the settings: `syslog`, `http`, `file`, ...; decides the decoder's options.
    pub source: Arc<str>,
    /// When it was received; for files the time the file was opened.
    pub received_at: Time,
    /// The year to assume for times that have none; for files from `--year` or the file's modification time, else
    /// `None`: taken from `received_at`.
    pub year: Option<i16>,
    /// How it was framed.
    pub framing: Framing,
}

/// What the positions of Kafka partitions begin with: `kafka:SOURCE:TOPIC/PARTITION`.
pub const KAFKA_PREFIX: &str = "kafka:";

/// The stream that a record belongs to: what has one event time and one watermark. A Kafka partition by its position,
/// anything else by its source.
#[must_use]
pub fn stream<'a>(origin: &'a Origin, position: &'a Position) -> &'a Arc<str> {
    if position.origin.starts_with(KAFKA_PREFIX) { &position.origin } else { &origin.source }
}

/// One raw record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What decides how it decodes.
    pub origin: Arc<Origin>,
    /// Where it begins.
    pub position: Position,
    /// The bytes, without the line's end.
    pub bytes: Bytes,
}
