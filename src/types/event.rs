//! One normalised event.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    entity::Entity,
    field::Fields,
    id::EventId,
    record::{Origin, Position},
    time::Time,
};

/// What kind of log an event is from, in Sigma's words. Which rules' log sources it belongs to (often several) is
/// `cf-sigma`'s matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogSource {
    /// `windows`, `linux`, `aws`, ...
    pub product: Option<Arc<str>>,
    /// `process_creation`, `webserver`, ...
    pub category: Option<Arc<str>>,
    /// `sshd`, `sudo`, `security`, ...
    pub service: Option<Arc<str>>,
}

/// Where an event's time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeBasis {
    /// The record says it, with year and zone.
    #[default]
    Declared,
    /// The record says it; year or zone (or both) were assumed from the source.
    Assumed,
    /// The record has none: it is the time of receipt.
    Received,
}

/// One record, normalised: what rules meet.
#[derive(Clone, Debug)]
pub struct Event {
    /// What decided how it decoded; tenant and source are in here.
    pub origin: Arc<Origin>,
    /// Where its record begins.
    pub position: Position,
    /// The id that the source gave it: the envelope's `event_id`, ECS `event.id`, Windows
    /// `computer/channel/EventRecordID`, CloudTrail `eventID`.
    pub declared_id: Option<Box<str>>,
    /// When it happened.
    pub time: Time,
    /// How we know.
    pub time_basis: TimeBasis,
    /// What kind of log it is from; shared between the events of one decoder.
    pub log_source: Arc<LogSource>,
    /// Its fields, flat.
    pub fields: Fields,
    /// Whom it speaks of, without repeats, sorted.
    pub entities: Vec<Entity>,
    /// The raw record (for an array: the element).
    pub raw: Bytes,
}

impl Event {
    /// Its identity: by declared id and canonical content where there is one, else by position.
    ///
    /// Computed only when asked: nearly all events never need it.
    #[must_use]
    pub fn id(&self) -> EventId {
        let tenant = &self.origin.tenant;
        match &self.declared_id {
            // Declared ids are scoped by source, so that nobody can suppress another source's event.
            Some(declared) => EventId::declared(tenant, &self.origin.source, declared, &canonical(&self.raw)),
            None => {
                let Position { origin, offset, index, .. } = &self.position;
                EventId::positioned(tenant, &self.origin.source, origin, *offset, *index)
            }
        }
    }

    /// The id that people see: the declared one where there is one, else [`Event::id`].
    #[must_use]
    pub fn shown_id(&self) -> String {
        self.declared_id.as_deref().map_or_else(|| self.id().to_string(), str::to_owned)
    }
}

/// The record in canonical form: JSON without spaces, keys sorted; anything else as it is, trimmed.
///
/// A shipper that writes the same document anew (other spacing, other order of keys) still repeats the same event.
#[must_use]
pub fn canonical(raw: &[u8]) -> Vec<u8> {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(raw).ok();
    match parsed {
        Some(mut value) if value.is_object() => {
            value.sort_all_objects();
            serde_json::to_vec(&value).unwrap_or_else(|_| raw.to_vec())
        }
        _ => raw.trim_ascii().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_ignores_spacing_and_order() {
        assert_eq!(canonical(br#"{"b": 1, "a": {"d":2,"c":3}}"#), canonical(br#"{"a":{"c":3,"d":2},"b":1}"#));
        assert_ne!(canonical(br#"{"a":1}"#), canonical(br#"{"a":2}"#));
        assert_eq!(canonical(b"  plain \n"), b"plain");
    }
}
