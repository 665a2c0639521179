//! Which entities are hubs on which day: those that alerts of the day before named together with too many others.
//!
//! The degree of a day is counted while the day can still change; once no alert can begin in it any more, the hubs of
//! the day after are settled, and what comes late changes nothing. Memory: the neighbours of the days that can change,
//! and one number per hub and day as long as an incident has an alert of that day.

use std::collections::BTreeMap;

use cf_types::{
    Entity, Tenant,
    incident::{Day, Hub},
};

/// The degrees of entities by day.
#[derive(Default)]
pub(super) struct Hubs {
    /// More distinct neighbours than these on one day make a hub of the next.
    neighbours_max: u32,
    days: BTreeMap<(Day, Tenant, Entity), Degree>,
    /// Days before this one are settled.
    settled: Option<Day>,
}

enum Degree {
    /// How many alerts name each neighbour.
    Counting(BTreeMap<Entity, u32>),
    Settled(u32),
}

impl Degree {
    fn neighbours(&self) -> u32 {
        match self {
            Degree::Counting(neighbours) => u32::try_from(neighbours.len()).unwrap_or(u32::MAX),
            Degree::Settled(neighbours) => *neighbours,
        }
    }
}

impl Hubs {
    pub(super) fn new(neighbours_max: u32) -> Hubs {
        Hubs { neighbours_max, ..Hubs::default() }
    }

    /// How many neighbours the entity had on the day before `day`, if so many that it is a hub on `day`.
    pub(super) fn neighbours(&self, tenant: &Tenant, entity: &Entity, day: Day) -> Option<u32> {
        let degree = self.days.get(&(day - 1, tenant.clone(), entity.clone()))?;
        Some(degree.neighbours()).filter(|neighbours| *neighbours > self.neighbours_max)
    }

    /// An alert of `day` that names the entity with these others came or went. Says whether what holds on the day after
    /// changed.
    pub(super) fn count<'a>(
        &mut self,
        (tenant, entity, day): (&Tenant, &Entity, Day),
        others: impl Iterator<Item = &'a Entity>,
        came: bool,
    ) -> bool {
        if self.settled.is_some_and(|settled| day < settled) {
            return false;
        }
        let before = self.neighbours(tenant, entity, day + 1);
        let key = (day, tenant.clone(), entity.clone());
        let degree = self.days.entry(key.clone()).or_insert_with(|| Degree::Counting(BTreeMap::new()));
        let Degree::Counting(neighbours) = degree else { return false };
        for other in others {
            let alerts = neighbours.entry(other.clone()).or_default();
            *alerts = if came { alerts.saturating_add(1) } else { alerts.saturating_sub(1) };
            if *alerts == 0 {
                neighbours.remove(other);
            }
        }
        if neighbours.is_empty() {
            self.days.remove(&key);
        }
        before != self.neighbours(tenant, entity, day + 1)
    }

    /// A hub that was settled before a restart.
    pub(super) fn recall(&mut self, tenant: Tenant, Hub { entity, day, neighbours }: Hub) {
        self.days.insert((day - 1, tenant, entity), Degree::Settled(neighbours));
    }

    /// Settles the days before `day`; forgets settled hubs that no alert of an incident needs.
    pub(super) fn settle(&mut self, day: Day, needed: impl Fn(&Tenant, &Entity, Day) -> bool) {
        if self.settled >= Some(day) {
            return;
        }
        self.settled = Some(day);
        let neighbours_max = self.neighbours_max;
        self.days.retain(|(of, tenant, entity), degree| {
            if *of >= day {
                return true;
            }
            *degree = Degree::Settled(degree.neighbours());
            // Alerts of the day after may still come until that day is settled, too.
            degree.neighbours() > neighbours_max && (*of + 1 >= day || needed(tenant, entity, *of + 1))
        });
    }
}
