//! The graph, slow and obvious: all views from scratch, of all events, the last rules and the present facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use cf_types::{
    ActionId, Alert, AlertState, AnchorKind, Condition, DesiredAction, Entity, EntityKind, EntityRisk, Episode,
    EpisodeKey, EpisodeRule, Event, Fact, FactBody, Incident, Predicate, Row, Score, risk::hour_of,
};

use cf_dataflows::IncidentOptions;

use crate::{from_scratch, site::TestRules};

/// All rows, sorted.
pub fn rows(rules: &TestRules, events: &[Event], facts: &BTreeSet<Fact>, window: i64) -> Vec<Row> {
    let alerts: Vec<Alert> = alerts(rules, events).into_iter().filter(|alert| !is_allowed(alert, facts)).collect();
    let mut rows = Vec::new();
    rows.extend(risks(&alerts).into_iter().map(Row::Risk));
    rows.extend(incidents(&alerts, window).into_iter().map(Row::Incident));
    rows.extend(desired(&alerts, facts).into_iter().map(Row::Desired));
    rows.extend(alerts.into_iter().map(Row::Alert));
    rows.sort();
    rows
}

/// (cell, reference, value)
type Item = (i64, u16, Option<String>);

fn alerts(rules: &TestRules, events: &[Event]) -> Vec<Alert> {
    let mut items: BTreeMap<EpisodeKey, Vec<Item>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for detection in events.iter().flat_map(|event| rules.detections(event)) {
        if known.insert((detection.rule.clone(), detection.member.id)) {
            for item in detection.items {
                let key = EpisodeKey { tenant: detection.tenant.clone(), rule: item.rule, group: item.group };
                let item = (detection.member.time.cell(), item.reference, item.value.map(|value| value.to_string()));
                items.entry(key).or_default().push(item);
            }
        }
    }
    let mut alerts = Vec::new();
    // The site's rules stand in an order in which none refers to a later one.
    for rule in &rules.episode_rules {
        let keys: Vec<EpisodeKey> = items.keys().filter(|key| key.rule == rule.id).cloned().collect();
        for key in keys {
            for episode in episodes(rule, &key, &items[&key]) {
                for upper in rules.episode_rules.iter().filter(|upper| upper.id != rule.id) {
                    let is_plain = rule.references == [rule.id.clone()];
                    for (place, _) in upper.references.iter().enumerate().filter(|(_, id)| **id == rule.id && !is_plain)
                    {
                        let key = EpisodeKey { rule: upper.id.clone(), ..key.clone() };
                        let item = (episode.first_hit, u16::try_from(place).unwrap(), None);
                        items.entry(key).or_default().push(item);
                    }
                }
                if rule.alerts {
                    alerts.push(alert(rule, &episode));
                }
            }
        }
    }
    alerts
}

/// Hits, chains, anchors and extents by their definitions. The site's events are closer together than the cut grid.
fn episodes(rule: &EpisodeRule, key: &EpisodeKey, items: &[Item]) -> Vec<Episode> {
    let by_value = matches!(rule.predicate, Predicate::ValueCount(_));
    let items: Vec<&Item> = items.iter().filter(|(_, _, value)| !by_value || value.is_some()).collect();
    let window = |cell: i64| -> Vec<&Item> {
        items.iter().filter(|(at, ..)| (cell - rule.timespan..=cell).contains(at)).copied().collect()
    };
    let cells: BTreeSet<i64> = items.iter().map(|(cell, ..)| *cell).collect();
    let hits: Vec<i64> = cells.into_iter().filter(|cell| is_hit(rule, &window(*cell))).collect();
    let runs = hits.chunk_by(|a, b| b - a <= rule.timespan);
    runs.map(|run| {
        let (first_hit, last_cell) = (run[0], *run.last().unwrap());
        let anchor = window(first_hit).iter().map(|(cell, ..)| *cell).min().unwrap();
        let members = || items.iter().filter(|(cell, ..)| (anchor..=last_cell).contains(cell));
        let references = 0..u16::try_from(rule.references.len()).unwrap();
        Episode {
            key: key.clone(),
            kind: AnchorKind::Item,
            anchor,
            last_cell,
            first_hit,
            count: members().count().try_into().unwrap(),
            reference_counts: references
                .map(|reference| members().filter(|(_, at, _)| *at == reference).count().try_into().unwrap())
                .collect(),
            peak: run.iter().map(|hit| value_of(rule, &window(*hit))).max().unwrap(),
        }
    })
    .collect()
}

fn value_of(rule: &EpisodeRule, window: &[&Item]) -> u64 {
    match rule.predicate {
        Predicate::EventCount(_) => window.len().try_into().unwrap(),
        Predicate::ValueCount(_) => {
            window.iter().map(|(_, _, value)| value).collect::<BTreeSet<_>>().len().try_into().unwrap()
        }
        Predicate::Sum(_) => window.iter().map(|(_, _, value)| value.as_deref().unwrap().parse::<u64>().unwrap()).sum(),
        _ => 0,
    }
}

fn is_hit(rule: &EpisodeRule, window: &[&Item]) -> bool {
    let references = 0..u16::try_from(rule.references.len()).unwrap();
    match rule.predicate {
        Predicate::EventCount(condition) | Predicate::ValueCount(condition) => condition.holds(value_of(rule, window)),
        Predicate::Sum(Condition { gt: Some(bound), .. }) => {
            i128::from(value_of(rule, window)) * 1_000_000_000 > bound.raw()
        }
        Predicate::Temporal => references.into_iter().all(|want| window.iter().any(|(_, at, _)| *at == want)),
        Predicate::TemporalOrdered => {
            // Taking the earliest for each in turn leaves most room for those after.
            let mut since = i64::MIN;
            references.into_iter().all(|want| {
                let next =
                    window.iter().filter(|(cell, at, _)| *at == want && *cell >= since).map(|(cell, ..)| *cell).min();
                since = next.unwrap_or(since);
                next.is_some()
            })
        }
        _ => panic!("the site has no such rule"),
    }
}

fn alert(rule: &EpisodeRule, episode: &Episode) -> Alert {
    Alert {
        tenant: episode.key.tenant.clone(),
        id: episode.id(),
        rule: rule.id.clone(),
        title: rule.title.clone(),
        level: rule.level,
        group: episode.key.group.clone(),
        state: AlertState::Open,
        anchor: episode.anchor,
        last_cell: episode.last_cell,
        count: episode.count,
        reference_counts: episode.reference_counts.clone(),
        peak: episode.peak,
        score: Score::of_level(rule.level),
        entities: episode.key.group.entities(),
        tags: rule.tags.clone(),
    }
}

fn is_allowed(alert: &Alert, facts: &BTreeSet<Fact>) -> bool {
    addresses(alert).any(|address| {
        facts.iter().any(|fact| match &fact.body {
            FactBody::Allow { network } => network.contains(&address.value.parse::<IpAddr>().unwrap()),
            FactBody::Policy(_) => false,
        })
    })
}

fn addresses(alert: &Alert) -> impl Iterator<Item = &Entity> {
    alert.entities.iter().filter(|entity| entity.kind == EntityKind::Address)
}

fn risks(alerts: &[Alert]) -> Vec<EntityRisk> {
    let mut sums: BTreeMap<&Entity, BTreeMap<i64, u64>> = BTreeMap::new();
    for alert in alerts {
        for entity in &alert.entities {
            *sums.entry(entity).or_default().entry(hour_of(alert.anchor)).or_default() +=
                u64::from(alert.score.tenths());
        }
    }
    let row = |(entity, buckets): (&Entity, BTreeMap<i64, u64>)| EntityRisk {
        tenant: Default::default(),
        entity: entity.clone(),
        buckets: buckets.into_iter().collect(),
    };
    sums.into_iter().map(row).collect()
}

fn incidents(alerts: &[Alert], window: i64) -> Vec<Incident> {
    let options = IncidentOptions { window, ..IncidentOptions::default() };
    let neighbours = from_scratch::neighbours(alerts, &options);
    from_scratch::incidents(alerts, &options, &|entity, day| {
        neighbours.get(&(entity.clone(), day)).copied().unwrap_or(0)
    })
}

fn desired(alerts: &[Alert], facts: &BTreeSet<Fact>) -> Vec<DesiredAction> {
    let mut longest: BTreeMap<_, DesiredAction> = BTreeMap::new();
    for fact in facts {
        let FactBody::Policy(policy) = &fact.body else { continue };
        let fits = |alert: &&Alert| {
            alert.level >= policy.level_min && (policy.rules.is_empty() || policy.rules.contains(&alert.rule))
        };
        for alert in alerts.iter().filter(fits) {
            for entity in addresses(alert) {
                let wish = DesiredAction {
                    tenant: alert.tenant.clone(),
                    id: ActionId::of(&alert.tenant, "block_address", &entity.value),
                    kind: policy.action,
                    target: entity.value.clone(),
                    ttl_s: policy.ttl_s,
                    alert: alert.id,
                    anchor: alert.anchor,
                };
                let kept = longest.entry((alert.id, entity)).or_insert_with(|| wish.clone());
                kept.ttl_s = kept.ttl_s.max(policy.ttl_s);
            }
        }
    }
    longest.into_values().collect()
}
