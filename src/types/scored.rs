//! What models said of events: records of the control log, from which a later epoch takes its detections.
//!
//! Models are asked beside the graph, so their answers are input: an epoch that is lived again reads them and asks nobody.
//! Of an epoch's events those are recorded that a model called positive, with what it was given, and beside them a sample
//! of the others; how many there were besides is counted. Where two models are compared, one record has what both said.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    detection::Member,
    entity::Entity,
    epoch::Epoch,
    id::Tenant,
    triage::{Answer, Worth},
};

/// What a model was given of an event: columns and cells, as a training would read them.
pub type Cells = BTreeMap<Arc<str>, Value>;

/// One event that a model was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredEvent {
    /// Whose.
    pub tenant: Tenant,
    /// Its source's name.
    pub source: Arc<str>,
    /// The event.
    pub member: Member,
    /// Whom it speaks of.
    pub entities: Vec<Entity>,
    /// What the model was given.
    pub cells: Cells,
    /// What was answered: of two models that are compared, what the one said that serves this event.
    pub answer: Answer,
    /// What was answered besides, and only recorded: by the model that is compared. Records of before have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Answer>,
}

impl ScoredEvent {
    /// Whether it is a detection: a served answer that says "true".
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.answer.role.is_served() && self.answer.verdict == Worth::True
    }
}

/// What one task's model said of the events of one epoch: one record of the control log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// `urls` or `flows`.
    pub task: Arc<str>,
    /// The epoch of the events.
    pub epoch: Epoch,
    /// Version of the columns: their names and meaning.
    pub recipe: Arc<str>,
    /// Events that the model was asked about.
    pub asked: u64,
    /// Positive ones that are not recorded because there were too many.
    pub cut: u64,
    /// What is recorded, in the order of the events.
    pub events: Vec<ScoredEvent>,
}
