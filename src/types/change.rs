//! What an epoch changed: the rows that the graph hands to the ledger, in one transaction with the epoch's record.

use serde::{Deserialize, Serialize};

use crate::{
    action::DesiredAction,
    alert::Alert,
    assess::Assessment,
    blast::BlastRadius,
    detection::Detection,
    epoch::Epoch,
    fact::Fact,
    id::AlertId,
    incident::Incident,
    reject::Reject,
    risk::{EntityLevel, EntityRisk},
    time::{Cell, Time},
};

/// One row of a maintained view that came or went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Row {
    /// An alert's pure content.
    Alert(Alert),
    /// An incident's membership.
    Incident(Incident),
    /// An entity's buckets.
    Risk(EntityRisk),
    /// A wish of the policy.
    Desired(DesiredAction),
    /// An alert that a fact keeps from being told.
    Suppressed(Suppressed),
    /// How bad an alert is, and why.
    Assessment(Assessment),
    /// The level of an entity's risk, at the watermark or its newest alert.
    RiskLevel(EntityLevel),
    /// What can be reached from an entity with an open alert.
    Blast(BlastRadius),
    /// So many entities with an open alert are more than are followed.
    BlastLeftOut(u64),
}

/// An alert that is not told, and why: nothing is lost by a silence (ALR-05).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Suppressed {
    /// What would be told.
    pub alert: Alert,
    /// The fact that forbids it; of several the least.
    pub fact: Fact,
}

/// What became of an alert's id, beside its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lineage {
    /// Its episode grew together with, or was re-anchored to, another: not withdrawn.
    SupersededBy {
        /// The id that went.
        old: AlertId,
        /// The id that stays for it.
        new: AlertId,
    },
    /// It came out of an episode that was parted.
    SplitFrom {
        /// The id that shrank or went.
        old: AlertId,
        /// The id that came.
        new: AlertId,
    },
    /// It lies behind the horizon now: final.
    Sealed(AlertId),
    /// It went because this fact forbids it.
    Suppressed {
        /// The alert.
        alert: AlertId,
        /// The fact, as it stands in the control log.
        fact: Fact,
    },
}

/// All that one epoch gives, complete and sorted: the same for any number of workers.
#[derive(Clone, Debug, Default)]
pub struct EpochOutput {
    /// Which epoch.
    pub epoch: Epoch,
    /// Matched pairs, without producers' repeats, sorted.
    pub detections: Vec<Detection>,
    /// Changed rows, consolidated, sorted: -1 went, +1 came.
    pub rows: Vec<(Row, i64)>,
    /// What became of ids, sorted.
    pub lineage: Vec<Lineage>,
    /// Items refused for correlation.
    pub rejects: Vec<Reject>,
    /// The watermark after this epoch, once there is one.
    pub watermark: Option<Time>,
    /// The first cell that the watermark has to reach for something to change without a further event.
    pub waits: Option<Cell>,
    /// Alerts that wait for the score that facts give them: those come with the next epochs, whatever these bring.
    pub rescoring: u64,
}
