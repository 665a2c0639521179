//! One rule met one event, and what of it takes part in correlation.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    alert::Group,
    entity::Entity,
    id::{EventId, Tenant},
    record::Position,
    time::Time,
};

/// An event as a member of an alert: enough to name it and to find it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// When it happened.
    pub time: Time,
    /// Its identity.
    pub id: EventId,
    /// The id that the source gave it, if it did.
    pub declared_id: Option<Arc<str>>,
    /// Where its record begins. Of repeats of one event the smallest position counts.
    pub position: Position,
}

impl Member {
    /// The id that people see.
    #[must_use]
    pub fn shown_id(&self) -> String {
        self.declared_id.as_deref().map_or_else(|| self.id.to_string(), str::to_owned)
    }
}

/// A detection's part in one episode rule (`streaming.md`, *Episodes*): what is counted where.
///
/// A plain rule that alerts by itself is an episode rule too: `event_count >= 1` over the dedup window, grouped by its
/// fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    /// Id of the rule whose episodes it counts in.
    pub rule: Arc<str>,
    /// Which of the rules referred to it stands for, in the order of the correlation's list.
    pub reference: u16,
    /// The group it counts in.
    pub group: Group,
    /// The value for value_count and its kin.
    pub value: Option<Arc<str>>,
}

/// One rule met one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Detection {
    /// Whose.
    pub tenant: Tenant,
    /// The rule's id.
    pub rule: Arc<str>,
    /// The event.
    pub member: Member,
    /// Its source's name.
    pub source: Arc<str>,
    /// Whom the event speaks of.
    pub entities: Vec<Entity>,
    /// Where it counts.
    pub items: Vec<Item>,
}
