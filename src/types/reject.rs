//! What could not be decoded or evaluated: kept, counted, queryable, never dropped.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    record::{Origin, Position},
    time::Time,
};

/// Why a record, an event or an item was refused. A closed set: it is a column and a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectCode {
    /// Not valid UTF-8.
    InvalidUtf8,
    /// Not valid JSON where JSON was begun or declared.
    InvalidJson,
    /// Valid JSON, but no object.
    NotAnObject,
    /// Longer than the limit for one record.
    TooLong,
    /// Nested deeper than the limit.
    TooDeep,
    /// More fields than the limit.
    TooManyFields,
    /// Nothing but white space in a place that wants a record.
    Empty,
    /// The record declares a time that is none.
    InvalidTime,
    /// A field has a type that its schema forbids.
    InvalidType,
    /// A compressed or binary file is damaged.
    Damaged,
    /// In a format that is known and not read: Avro or Protobuf of a schema registry.
    UnsupportedFormat,
    /// Its time lies ahead of its receipt by more than is allowed: detected, but kept out of correlation.
    TooFarAhead,
    /// Older than the horizon of the rules named: detected, but kept out of correlation.
    TooLate,
    /// The value that a rule sums or ranks is no number that fits: detected, but kept out of that rule's correlation.
    NotANumber,
    /// A correlation has reached the values or alerts that it may hold: what is named was not counted.
    OverBudget,
}

impl RejectCode {
    /// Its word in JSON, SQL and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RejectCode::InvalidUtf8 => "invalid_utf8",
            RejectCode::InvalidJson => "invalid_json",
            RejectCode::NotAnObject => "not_an_object",
            RejectCode::TooLong => "too_long",
            RejectCode::TooDeep => "too_deep",
            RejectCode::TooManyFields => "too_many_fields",
            RejectCode::Empty => "empty",
            RejectCode::InvalidTime => "invalid_time",
            RejectCode::InvalidType => "invalid_type",
            RejectCode::Damaged => "damaged",
            RejectCode::UnsupportedFormat => "unsupported_format",
            RejectCode::TooFarAhead => "too_far_ahead",
            RejectCode::TooLate => "too_late",
            RejectCode::NotANumber => "not_a_number",
            RejectCode::OverBudget => "over_budget",
        }
    }
}

/// One refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reject {
    /// Tenant, source and receipt.
    pub origin: Arc<Origin>,
    /// Where the record begins.
    pub position: Position,
    /// Why.
    pub code: RejectCode,
    /// What exactly, in a sentence for people; at most 1,024 bytes.
    pub reason: String,
    /// Its event time, if that was understood.
    pub time: Option<Time>,
    /// The record, cut after [`Reject::RAW_BYTES_MAX`].
    pub raw: Bytes,
}

impl Reject {
    /// How much of a refused record is kept, in bytes.
    pub const RAW_BYTES_MAX: usize = 65_536;

    /// Cuts a record to what is kept of it.
    #[must_use]
    pub fn kept(raw: &Bytes) -> Bytes {
        raw.slice(..raw.len().min(Self::RAW_BYTES_MAX))
    }
}
