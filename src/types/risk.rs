//! Scores in fixed point, and the risk of an entity as a pure function of hourly buckets and time.

use std::{fmt, sync::LazyLock};

use serde::{Deserialize, Serialize};

use crate::{
    assess::RiskLevel,
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
    /// (hour, sum of alert scores in tenths), sorted by hour; at most [`EntityRisk::SPAN_HOURS`] of them, the newest.
    pub buckets: Vec<(Hour, u64)>,
}

impl EntityRisk {
    /// Hours after which a contribution has lost half of its weight.
    pub const HALF_LIFE_HOURS: u32 = 24;
    /// Hours after which it is zero.
    pub const SPAN_HOURS: i64 = 7 * 24;

    /// The risk with these buckets, sorted by hour. Those that are zero at the newest one already are left out.
    #[must_use]
    pub fn new(tenant: Tenant, entity: Entity, mut buckets: Vec<(Hour, u64)>) -> EntityRisk {
        let newest = buckets.last().map_or(0, |(hour, _)| *hour);
        buckets.retain(|(hour, weight)| *weight > 0 && newest.saturating_sub(*hour) < Self::SPAN_HOURS);
        EntityRisk { tenant, entity, buckets }
    }

    /// The sum at an hour, in tenths, rounded down and not saturated: each bucket halved per 24 h of age (a factor of
    /// 2^32 fixed point per hour). Buckets after the hour, and those of `span` hours before and older, do not count.
    #[must_use]
    pub fn tenths_at(&self, now: Hour, span: i64) -> u64 {
        let sum: u128 = self
            .buckets
            .iter()
            .filter(|(hour, _)| (0..span.min(Self::SPAN_HOURS)).contains(&now.saturating_sub(*hour)))
            .map(|(hour, weight)| u128::from(*weight) * u128::from(decay(now - hour)))
            .sum();
        u64::try_from(sum >> 32).unwrap_or(u64::MAX)
    }

    /// The score in an hour: the sum, saturated at 10.0.
    #[must_use]
    pub fn score_in(&self, hour: Hour) -> Score {
        Score::from_tenths(u16::try_from(self.tenths_at(hour, Self::SPAN_HOURS)).unwrap_or(u16::MAX))
    }

    /// The score at `time`.
    #[must_use]
    pub fn score_at(&self, time: Time) -> Score {
        self.score_in(hour_of(time.cell()))
    }

    /// The score at its newest contribution.
    #[must_use]
    pub fn score(&self) -> Score {
        self.newest().map_or(Score::default(), |hour| self.score_in(hour))
    }

    /// The hour of its newest contribution.
    #[must_use]
    pub fn newest(&self) -> Option<Hour> {
        self.buckets.last().map(|(hour, _)| *hour)
    }

    /// The first hour after `hour` in which its level is lower than in `hour`, which is not before its newest
    /// contribution: from there on the score only falls. `None` if it is zero already.
    #[must_use]
    pub fn falls_after(&self, hour: Hour) -> Option<Hour> {
        let level = RiskLevel::of(self.score_in(hour));
        if level == RiskLevel::None {
            return None;
        }
        // Lower at `low` never, at `high` always: zero after the span.
        let (mut low, mut high) = (hour, hour.saturating_add(Self::SPAN_HOURS));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if RiskLevel::of(self.score_in(middle)) < level { high = middle } else { low = middle }
        }
        Some(high)
    }
}

/// The level of an entity's risk, while it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityLevel {
    /// Whose.
    pub tenant: Tenant,
    /// The entity.
    pub entity: Entity,
    /// Its level; never none.
    pub level: RiskLevel,
}

/// 2^32 · 2^(-age/24), for each hour of the span: by repeated multiplication in 32-bit fixed point.
static DECAY: LazyLock<Vec<u64>> = LazyLock::new(|| {
    const PER_HOUR: u64 = 4_172_692_580; // 2^32 · 2^(-1/24), rounded down
    let next = |factor: &u64| u64::try_from((u128::from(*factor) * u128::from(PER_HOUR)) >> 32).ok();
    let hours = usize::try_from(EntityRisk::SPAN_HOURS).unwrap_or_default();
    std::iter::successors(Some(1 << 32), next).take(hours).collect()
});

fn decay(age_hours: i64) -> u64 {
    usize::try_from(age_hours).ok().and_then(|age| DECAY.get(age)).copied().unwrap_or(0)
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

    #[test]
    fn the_hour_in_which_a_level_falls_is_found() {
        let entity = Entity::of(crate::EntityKind::Host, "a").unwrap();
        for buckets in
            [vec![(0, 80)], vec![(0, 95), (3, 75)], vec![(0, 1)], vec![(-5, 500), (0, 12)], vec![(0, 10_000)]]
        {
            let risk = EntityRisk::new(Tenant::default(), entity.clone(), buckets);
            let mut hour = risk.newest().unwrap();
            while let Some(next) = risk.falls_after(hour) {
                let level = |hour| RiskLevel::of(risk.score_in(hour));
                assert!((hour..next).all(|between| level(between) == level(hour)), "{risk:?} {hour} {next}");
                assert!(level(next) < level(hour));
                hour = next;
            }
            assert_eq!(risk.score_in(hour), Score::default());
        }
    }

    #[test]
    fn there_are_at_most_as_many_buckets_as_hours_count() {
        let entity = Entity::of(crate::EntityKind::Host, "a").unwrap();
        let risk = EntityRisk::new(Tenant::default(), entity, (0..1_000).map(|hour| (hour, 1)).collect());
        assert_eq!((risk.buckets.len(), risk.buckets[0]), (168, (832, 1)));
    }
}
