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
    /// Per source with positions, the end of this epoch (exclusive): `spool` to its row, ...
    pub ends: BTreeMap<String, u64>,
    /// Per source, the newest time of its events up to and with this epoch that was not too far ahead of its receipt: with
    /// it a restart that does not read them again computes the same watermarks.
    #[serde(default)]
    pub newest: BTreeMap<String, Time>,
    /// Sources that were idle by the clock when it was cut: they do not hold the watermark back.
    pub idle: Vec<String>,
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
