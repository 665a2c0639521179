//! Alerts: episodes of a rule in a group. Only pure content here; thread, revision and messages are the ledger's.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    entity::{Entity, EntityKind},
    id::{AlertId, Tenant},
    risk::Score,
    rule::Level,
    time::{Cell, Time},
};

/// The values of a rule's group-by fields, sorted by field name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Group(Arc<[(Arc<str>, Arc<str>)]>);

impl Group {
    /// Makes a group; the order of the fields does not matter.
    #[must_use]
    pub fn new(fields: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Group {
        let mut fields: Vec<_> = fields.into_iter().collect();
        fields.sort();
        Group(fields.into())
    }

    /// Field and value, sorted by field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, value)| (&**field, &**value))
    }

    /// Bytes that no other group has: each text with its length before it.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for text in self.0.iter().flat_map(|(field, value)| [field, value]) {
            out.extend_from_slice(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    /// The entities that its fields name (by [`EntityKind::of_field`]), sorted, without repeats.
    #[must_use]
    pub fn entities(&self) -> Vec<Entity> {
        let mut entities: Vec<_> =
            self.iter().filter_map(|(field, value)| Entity::of(EntityKind::of_field(field)?, value)).collect();
        entities.sort();
        entities.dedup();
        entities
    }

    /// As a JSON object, field to value.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.iter().map(|(field, value)| (field.to_owned(), serde_json::Value::from(value))).collect()
    }
}

/// Whether later events can still change an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Told, but events that are still on their way in order could undo it: listed, not sent, nothing is done for it.
    Provisional,
    /// Within the horizon: late events, facts and verdicts still correct it.
    Open,
    /// Behind the horizon: final.
    Sealed,
}

/// The pure content of an alert: a function of events and facts, equal for any order, epochs and workers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Alert {
    /// Whose.
    pub tenant: Tenant,
    /// Its stable id.
    pub id: AlertId,
    /// The rule's id.
    pub rule: Arc<str>,
    /// The rule's title.
    pub title: Arc<str>,
    /// The rule's level.
    pub level: Level,
    /// The group.
    pub group: Group,
    /// Open or sealed.
    pub state: AlertState,
    /// First cell of its extent.
    pub anchor: Cell,
    /// Last cell of its extent, inclusive.
    pub last_cell: Cell,
    /// Members: all items whose cell lies in the extent.
    pub count: u64,
    /// Members by the rule that they met, in the order of the correlation's list.
    pub reference_counts: Vec<u64>,
    /// Highest value of the predicate over its windows.
    pub peak: u64,
    /// Threat score.
    pub score: Score,
    /// Entities of its group.
    pub entities: Vec<Entity>,
    /// ATT&CK and other tags of the rule.
    pub tags: Arc<[Arc<str>]>,
}

impl Alert {
    /// Begin of its first cell.
    #[must_use]
    pub fn first(&self) -> Time {
        Time::from_seconds(self.anchor)
    }
}
