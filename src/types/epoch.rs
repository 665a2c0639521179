//! Epochs: logical time, cuts through all sources.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// Logical time: the number of a cut through all sources. The first epoch is 1; 0 is before everything.
pub type Epoch = u64;

/// What an epoch is made of: with it, a replay cuts exactly as the live run did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number.
    pub epoch: Epoch,
    /// When it was cut, for people; nothing is computed from it.
    pub wall: Time,
    /// Which start of the engine cut it.
    pub generation: u64,
    /// Per source with positions, the end of this epoch (exclusive): `spool` to its row, `file:PATH`,
    /// `kafka:SOURCE:TOPIC/PARTITION` to its next offset.
    pub ends: BTreeMap<String, u64>,
    /// Per stream, the newest time of its events up to and with this epoch that was not too far ahead of its receipt: with
    /// it a restart that does not read them again computes the same watermarks.
    #[serde(default)]
    pub newest: BTreeMap<String, Time>,
    /// Kafka partitions (`kafka:SOURCE:TOPIC/PARTITION`) that begin with this epoch, new or by somebody's word: at this
    /// offset, before all their records in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: BTreeMap<String, u64>,
    /// Per Kafka partition, what the record before its end was: it tells a topic that was made anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, u64>,
    /// Streams (see [`stream`](crate::record::stream)) that were idle by the clock when it was cut: they do not hold the watermark back.
    pub idle: Vec<String>,
    /// How long, in milliseconds of the engine's clock, all sources had been idle since the epoch before, or since the
    /// last of them was heard: event time went on by as much.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passed_ms: u64,
    /// The control log up to and including this sequence number is in.
    pub control: i64,
    /// Content hash of the rule set that its events met.
    pub rules: String,
    /// Rules that begin empty with this epoch, because they were not there before or refer to others now: what earlier
    /// epochs counted for them counts no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<String>,
    /// Versions of the models that answer about alerts, by task and part (`triage`, `triage.challenger`), as the control
    /// log said up to `control`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
    /// Version of the engine.
    pub engine: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
