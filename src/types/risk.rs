//! Scores in fixed point, and the risk of an entity as a pure function of hourly buckets and time.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    entity::Entity,
    id::Tenant,
    rule::Level,
    time::{Cell, Time},
};

/// A score 0.0 to 10.0 in tenths: integers, so that every machine computes the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score(u16);

impl Score {
    /// The highest score.
    pub const MAX: Score = Score(100);

    /// Makes a score of tenths, saturated at 10.0.
    #[must_use]
    pub const fn from_tenths(tenths: u16) -> Score {
        if tenths > 100 { Self::MAX } else { Score(tenths) }
    }

    /// In tenths.
    #[must_use]
    pub const fn tenths(self) -> u16 {
        self.0
    }

    /// The base score of a rule's level: 1.0, 3.0, 5.0, 7.5, 9.5.
    ///
    /// The middle of CVSS 3.1's bands low, medium, high, critical (specification, section 5), informational below.
    #[must_use]
    pub const fn of_level(level: Level) -> Score {
        Score(match level {
            Level::Informational => 10,
            Level::Low => 30,
            Level::Medium => 50,
            Level::High => 75,
            Level::Critical => 95,
        })
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

impl Serialize for Score {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 10.0)
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Score, D::Error> {
        let value = f64::deserialize(deserializer)?;
        (0..=100u16)
            .find(|tenths| (f64::from(*tenths) / 10.0 - value).abs() < 0.01)
            .map(Score)
            .ok_or_else(|| serde::de::Error::custom("a score lies between 0.0 and 10.0"))
    }
}

/// An hour of event time since 1970.
pub type Hour = i64;

/// What the graph knows of an entity's risk: the sum of its alerts' weights by hour. The score at a time is
/// [`EntityRisk::score_at`], a pure function called alike by graph, API and SQL; nothing ticks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityRisk {
    /// Whose.
    pub tenant: Tenant,
    /// The entity.
    pub entity: Entity,
    /// (hour, sum of alert scores in tenths), sorted by hour.
    pub buckets: Vec<(Hour, u64)>,
}

impl EntityRisk {
    /// Hours after which a contribution has lost half of its weight.
    pub const HALF_LIFE_HOURS: u32 = 24;
    /// Hours after which it is zero.
    pub const SPAN_HOURS: i64 = 7 * 24;

    /// The score at `time`: each bucket halved per 24 h of age (a factor of 2^32 fixed point per hour), summed,
    /// saturated at 10.0. Buckets after `time` do not count.
    #[must_use]
    pub fn score_at(&self, time: Time) -> Score {
        let now = time.cell().div_euclid(3_600);
        let sum: u128 = self
            .buckets
            .iter()
            .filter(|(hour, _)| (0..Self::SPAN_HOURS).contains(&(now - hour)))
            .map(|(hour, weight)| u128::from(*weight) * u128::from(decay(now - hour)))
            .sum();
        Score::from_tenths(u16::try_from(sum >> 32).unwrap_or(u16::MAX))
    }

    /// The score at its newest contribution.
    #[must_use]
    pub fn score(&self) -> Score {
        self.buckets
            .last()
            .map_or(Score::default(), |(hour, _)| self.score_at(Time::from_seconds(hour.saturating_mul(3_600))))
    }
}

/// 2^32 · 2^(-age/24) by repeated multiplication in 32-bit fixed point.
fn decay(age_hours: i64) -> u64 {
    const PER_HOUR: u64 = 4_172_692_580; // 2^32 · 2^(-1/24), rounded down
    (0..age_hours)
        .fold(1 << 32, |factor: u64, _| u64::try_from((u128::from(factor) * u128::from(PER_HOUR)) >> 32).unwrap_or(0))
}

/// The cell's hour.
#[must_use]
pub const fn hour_of(cell: Cell) -> Hour {
    cell.div_euclid(3_600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contribution_halves_in_a_day_and_ends_after_seven() {
        let risk = EntityRisk {
            tenant: Tenant::default(),
            entity: Entity::of(crate::EntityKind::Host, "a").unwrap(),
            buckets: vec![(0, 80)],
        };
        let at = |hours: i64| risk.score_at(Time::from_seconds(hours * 3_600)).tenths();
        assert_eq!((at(0), at(24), at(48), at(168)), (80, 39, 19, 0)); // truncation, never above the true value
        assert_eq!(at(-1), 0);
    }
}
