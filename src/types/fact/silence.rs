//! Silences: alerts that are not told for a while, as data.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{alert::Alert, entity::Entity, rule::Level, time::Time};

/// Alerts like this are not told when their whole extent lies in its span of **event time**. All conditions given must
/// hold; at least one is given. Never by wall clock: whether an alert is silent does not depend on when it is computed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Silence {
    /// Its name: what it is changed and removed by.
    pub name: Arc<str>,
    /// Alerts of these rules; empty: of any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Arc<str>>,
    /// Alerts of this level or below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_max: Option<Level>,
    /// Alerts with one of these entities; empty: with any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
    /// Alerts with one of these tags; empty: with any or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
    /// From here on, inclusive.
    pub from: Time,
    /// Up to here, exclusive.
    pub until: Time,
}

crate::compact::text_where_compact!(Silence);

impl Silence {
    /// Whether it silences an alert: the conditions hold, and the extent lies inside. An extent is whole seconds.
    #[must_use]
    pub fn holds(&self, alert: &Alert) -> bool {
        let after_last = Time::from_seconds(alert.last_cell.saturating_add(1));
        alert.first() >= self.from
            && after_last <= self.until
            && (self.rules.is_empty() || self.rules.contains(&alert.rule))
            && self.level_max.is_none_or(|max| alert.level <= max)
            && (self.entities.is_empty() || self.entities.iter().any(|entity| alert.entities.contains(entity)))
            && (self.tags.is_empty() || self.tags.iter().any(|tag| alert.tags.contains(tag)))
    }
}
