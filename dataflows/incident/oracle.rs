//! Incidents from scratch, slow and obvious: every pair of alerts is looked at.

use std::collections::{BTreeMap, BTreeSet};

use cf_dataflows::IncidentOptions;
use cf_types::{
    Alert, Entity, EntityKind, Incident, IncidentId, IncidentKind, IncidentSeverity, Tactic,
    incident::{Day, Hub, day_of},
};

/// Entities that may connect.
pub fn linking<'a>(alert: &'a Alert, options: &'a IncidentOptions) -> impl Iterator<Item = &'a Entity> {
    let connects = |kind| matches!(kind, EntityKind::Host | EntityKind::User | EntityKind::Address);
    alert.entities.iter().filter(move |entity| connects(entity.kind) && !options.unlinked.contains(*entity))
}

/// Distinct entities that alerts of each day name together with each entity.
pub fn neighbours(alerts: &[Alert], options: &IncidentOptions) -> BTreeMap<(Entity, Day), usize> {
    let mut sets: BTreeMap<(Entity, Day), BTreeSet<Entity>> = BTreeMap::new();
    for alert in alerts {
        for one in linking(alert, options) {
            for two in linking(alert, options).filter(|two| *two != one) {
                sets.entry((one.clone(), day_of(alert.anchor))).or_default().insert(two.clone());
            }
        }
    }
    sets.into_iter().map(|(key, set)| (key, set.len())).collect()
}

/// The incidents of these alerts, where `degree` says how many neighbours an entity had on a day.
pub fn incidents(alerts: &[Alert], options: &IncidentOptions, degree: &dyn Fn(&Entity, Day) -> usize) -> Vec<Incident> {
    let max = usize::try_from(options.hub_neighbours_max).unwrap();
    let hub = |alert: &Alert, entity: &Entity| {
        Some(degree(entity, day_of(alert.anchor) - 1)).filter(|neighbours| *neighbours > max)
    };
    let linked = |a: &Alert, b: &Alert| {
        let shared: Vec<&Entity> = linking(a, options).filter(|entity| b.entities.contains(entity)).collect();
        let connects = shared.iter().any(|entity| hub(a, entity).is_none() && hub(b, entity).is_none());
        (a.anchor - b.anchor).abs() <= options.window && (connects || shared.len() >= 2)
    };
    let mut left: BTreeSet<usize> = (0..alerts.len()).collect();
    let mut incidents = Vec::new();
    // Those between two on their common link, if any, are nearer still: so the components are the same as with
    // connections between neighbours only.
    while let Some(start) = left.pop_first() {
        let (mut members, mut open) = (vec![start], vec![start]);
        while let Some(one) = open.pop() {
            let near: Vec<usize> = left.iter().copied().filter(|other| linked(&alerts[one], &alerts[*other])).collect();
            for other in near {
                left.remove(&other);
                members.push(other);
                open.push(other);
            }
        }
        let members: Vec<&Alert> = members.iter().map(|one| &alerts[*one]).collect();
        let mut places: Vec<_> = members.iter().map(|alert| (alert.anchor, alert.id)).collect();
        places.sort();
        let entities: BTreeSet<Entity> = members.iter().flat_map(|alert| alert.entities.clone()).collect();
        let tactics: BTreeSet<Tactic> =
            members.iter().flat_map(|alert| alert.tags.iter().filter_map(|tag| Tactic::of_tag(tag))).collect();
        let tactics: Vec<Tactic> = tactics.into_iter().collect();
        let kind = |alert: &Alert| IncidentKind::of_tags(alert.tags.iter().map(|tag| &**tag));
        let telling = members.iter().filter(|alert| kind(alert) != IncidentKind::Other);
        let kind =
            telling.max_by_key(|alert| (alert.score, kind(alert))).map_or(IncidentKind::Other, |alert| kind(alert));
        let hubs: BTreeSet<Hub> = members
            .iter()
            .flat_map(|alert| linking(alert, options).map(move |entity| (alert, entity)))
            .filter_map(|(alert, entity)| {
                let neighbours = u32::try_from(hub(alert, entity)?).unwrap();
                Some(Hub { entity: entity.clone(), day: day_of(alert.anchor), neighbours })
            })
            .collect();
        incidents.push(Incident {
            tenant: Default::default(),
            id: IncidentId::of(&Default::default(), places[0].0, places[0].1),
            entities: entities.into_iter().collect(),
            kind,
            severity: IncidentSeverity::of(
                members.iter().map(|alert| alert.score).max().unwrap(),
                members.len(),
                &tactics,
            ),
            tactics,
            hubs: hubs.into_iter().collect(),
            alerts: places,
        });
    }
    incidents.sort();
    incidents
}
