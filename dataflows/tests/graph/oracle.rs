//! The graph, slow and obvious: all views from scratch, of all events, the last rules and the present facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use cf_types::{
    ActionId, Alert, AlertId, AlertState, AnchorKind, Assessment, BlastRadius, Condition, DesiredAction, Entity,
    EntityKind, EntityLevel, EntityRisk, Episode, EpisodeKey, EpisodeRule, Event, Fact, FactBody, Group, Incident,
    Level, Predicate, RiskLevel, Row, Score, Suppressed,
    assess::{Context, Precision, assess},
    blast::Reached,
    fact::{Indicator, Pattern},
    risk::hour_of,
};

use cf_dataflows::IncidentOptions;

use crate::{from_scratch, site::TestRules};

/// All rows, sorted; no event met an indicator.
pub fn rows(rules: &TestRules, events: &[Event], facts: &BTreeSet<Fact>, window: i64) -> Vec<Row> {
    rows_with(rules, events, &[], facts, window)
}

/// All rows, sorted. Candidates are what events met when they came.
pub fn rows_with(
    rules: &TestRules,
    events: &[Event],
    candidates: &[(Event, Pattern)],
    facts: &BTreeSet<Fact>,
    window: i64,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let (mut told, mut suppressed) = (Vec::new(), Vec::new());
    for alert in alerts(rules, events).into_iter().chain(indicator_alerts(candidates, facts)) {
        // Facts are sorted: the first that forbids it is the one that is named.
        match facts.iter().find(|fact| forbids(fact, &alert)) {
            Some(fact) => suppressed.push(Suppressed { alert, fact: fact.clone() }),
            None => told.push(alert),
        }
    }
    let assessed: Vec<_> = told.into_iter().map(|alert| assessed(alert, facts)).collect();
    let mut alerts: Vec<Alert> = assessed.iter().map(|(alert, _)| alert.clone()).collect();
    let risks = risks(&alerts, facts);
    for alert in risks.iter().flat_map(risk_alerts) {
        match facts.iter().find(|fact| forbids(fact, &alert)) {
            Some(fact) => rows.push(Row::Suppressed(Suppressed { alert, fact: fact.clone() })),
            None => alerts.push(alert),
        }
    }
    rows.extend(risks.iter().map(|risk| Row::RiskLevel(level_of(risk))));
    rows.extend(assessed.into_iter().map(|(_, assessment)| Row::Assessment(assessment)));
    rows.extend(suppressed.into_iter().map(Row::Suppressed));
    rows.extend(risks.into_iter().map(Row::Risk));
    rows.extend(blast(&alerts, facts).into_iter().map(Row::Blast));
    rows.extend(incidents(&alerts, window).into_iter().map(Row::Incident));
    rows.extend(desired(&alerts, facts).into_iter().map(Row::Desired));
    rows.extend(alerts.into_iter().map(Row::Alert));
    rows.sort();
    rows
}

fn all_indicators(facts: &BTreeSet<Fact>) -> impl Iterator<Item = &Indicator> {
    facts.iter().filter_map(|fact| match &fact.body {
        FactBody::Indicator(indicator) => Some(indicator),
        _ => None,
    })
}

fn meets(pattern: &Pattern, address: &str) -> bool {
    matches!(pattern, Pattern::Address(network) if network.contains(&address.parse::<IpAddr>().unwrap()))
}

fn address_of(event: &Event) -> &str {
    std::str::from_utf8(&event.raw).unwrap().split(' ').nth(3).unwrap()
}

/// What an event meets when these facts hold.
pub fn candidates(event: &Event, facts: &BTreeSet<Fact>) -> Vec<(Event, Pattern)> {
    let met = all_indicators(facts).filter(|one| one.holds_at(event.time) && meets(&one.pattern, address_of(event)));
    let patterns: BTreeSet<Pattern> = met.map(|indicator| indicator.pattern.clone()).collect();
    patterns.into_iter().map(|pattern| (event.clone(), pattern)).collect()
}

/// A candidate counts while an indicator of its pattern holds for it.
fn indicator_alerts(candidates: &[(Event, Pattern)], facts: &BTreeSet<Fact>) -> Vec<Alert> {
    let rule = cf_dataflows::builtin().into_iter().find(|rule| &*rule.id == "indicator").unwrap();
    let mut items: BTreeMap<EpisodeKey, Vec<Item>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (event, pattern) in candidates {
        let holds = all_indicators(facts).any(|one| one.pattern == *pattern && one.holds_at(event.time));
        if holds && known.insert((pattern, event.id())) {
            let host = std::str::from_utf8(&event.raw).unwrap().split(' ').nth(1).unwrap();
            let fields = [
                ("indicator", format!("address:{pattern}")),
                ("address", address_of(event).into()),
                ("host", host.into()),
            ];
            let key = EpisodeKey {
                tenant: Default::default(),
                rule: rule.id.clone(),
                group: Group::new(fields.map(|(field, value)| (field.into(), value.into()))),
            };
            items.entry(key).or_default().push((event.time.cell(), 0, None));
        }
    }
    items.iter().flat_map(|(key, items)| episodes(&rule, key, items)).map(|episode| alert(&rule, &episode)).collect()
}

/// The alert with what facts say of it, found by looking at every fact.
fn assessed(mut alert: Alert, facts: &BTreeSet<Fact>) -> (Alert, Assessment) {
    let mut context = Context::default();
    let mut verdicts = Vec::new();
    for fact in facts {
        match &fact.body {
            FactBody::Asset(asset) if alert.entities.contains(&asset.entity) => context.assets.push(asset.clone()),
            FactBody::Asset(asset) if asset.entity.value.contains('/') => {
                let network: ipnet::IpNet = asset.entity.value.parse().unwrap();
                if addresses(&alert).any(|entity| network.contains(&entity.value.parse::<IpAddr>().unwrap())) {
                    context.assets.push(asset.clone());
                }
            }
            FactBody::Identity(identity)
                if alert.entities.iter().any(|e| identity.user == *e || identity.aliases.contains(e)) =>
            {
                context.identities.push(identity.clone());
            }
            FactBody::Verdict(verdict) if verdict.rule == alert.rule => verdicts.push(verdict.clone()),
            FactBody::Triage(triaged) if triaged.alert == alert.id => context.triage = Some(triaged.triage.clone()),
            FactBody::Indicator(one) => {
                let begins = one.from.is_none_or(|from| from.cell() <= alert.last_cell);
                let lasts = one.until.is_none_or(|until| until.cell() > alert.anchor);
                if begins && lasts && addresses(&alert).any(|entity| meets(&one.pattern, &entity.value)) {
                    context.indicators.push(one.clone());
                }
            }
            _ => {}
        }
    }
    context.precision = Precision::of(&verdicts);
    if &*alert.rule == "indicator" {
        let (_, seen) = alert.group.iter().find(|(field, _)| *field == "indicator").unwrap();
        alert.title = format!("Indicator seen: {seen}").into();
        let tags: BTreeSet<_> = context.indicators.iter().flat_map(|one| one.tags.clone()).collect();
        alert.tags = tags.into_iter().collect();
    }
    let assessment = assess(&alert, &context);
    alert.score = assessment.score;
    (alert, assessment)
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

fn forbids(fact: &Fact, alert: &Alert) -> bool {
    match &fact.body {
        FactBody::Allow { network } => {
            addresses(alert).any(|address| network.contains(&address.value.parse::<IpAddr>().unwrap()))
        }
        FactBody::Silence(silence) => {
            let inside = (alert.anchor..=alert.last_cell)
                .all(|cell| (silence.from.cell()..silence.until.cell()).contains(&cell));
            let about = silence.entities.is_empty() || alert.entities.iter().any(|e| silence.entities.contains(e));
            let named = silence.rules.is_empty() || silence.rules.contains(&alert.rule);
            inside && about && named && silence.level_max.is_none_or(|level| alert.level <= level)
        }
        _ => false,
    }
}

fn addresses(alert: &Alert) -> impl Iterator<Item = &Entity> {
    alert.entities.iter().filter(|entity| entity.kind == EntityKind::Address)
}

fn risks(alerts: &[Alert], facts: &BTreeSet<Fact>) -> Vec<EntityRisk> {
    let mut sums: BTreeMap<&Entity, BTreeMap<i64, u64>> = BTreeMap::new();
    for alert in alerts {
        let mut whose: BTreeSet<&Entity> = BTreeSet::new();
        for entity in &alert.entities {
            let accounts = facts.iter().filter_map(|fact| match &fact.body {
                FactBody::Identity(one) if one.user != *entity && one.aliases.contains(entity) => Some(&one.user),
                _ => None,
            });
            let accounts: Vec<&Entity> = accounts.collect();
            whose.extend(if accounts.is_empty() { vec![entity] } else { accounts });
        }
        for entity in whose {
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

/// The site's events are of a few hours, so their days are what risk alerts look at.
fn risk_alerts(risk: &EntityRisk) -> Vec<Alert> {
    let connects = matches!(risk.entity.kind, EntityKind::Host | EntityKind::User | EntityKind::Address);
    let mut days: BTreeMap<i64, Vec<(i64, u64)>> = BTreeMap::new();
    for (hour, _) in &risk.buckets {
        let of_the_day: Vec<_> =
            risk.buckets.iter().filter(|(b, _)| (hour - 23..=*hour).contains(b)).copied().collect();
        let sum = EntityRisk { buckets: of_the_day, ..risk.clone() }.tenths_at(*hour, 168);
        if sum >= 190 && connects {
            days.entry(hour.div_euclid(24)).or_default().push((*hour, sum));
        }
    }
    let of_day = |(day, hits): (i64, Vec<(i64, u64)>)| {
        let group = Group::new([(risk.entity.kind.as_str().into(), risk.entity.value.clone())]);
        let peak = hits.iter().map(|(_, sum)| *sum).max().unwrap();
        let count = u64::try_from(hits.len()).unwrap();
        Alert {
            tenant: risk.tenant.clone(),
            id: AlertId::of(&risk.tenant, "risk", &group, AnchorKind::Cut, day * 86_400),
            rule: "risk".into(),
            title: format!("Risk of {} is high", risk.entity).into(),
            level: Level::High,
            group,
            state: AlertState::Open,
            anchor: hits[0].0 * 3_600,
            last_cell: hits.last().unwrap().0 * 3_600 + 3_599,
            count,
            reference_counts: vec![count],
            peak,
            score: Score::from_tenths(peak.min(100).try_into().unwrap()),
            entities: vec![risk.entity.clone()],
            tags: [].into(),
        }
    };
    days.into_iter().map(of_day).collect()
}

fn level_of(risk: &EntityRisk) -> EntityLevel {
    let (tenant, entity) = (risk.tenant.clone(), risk.entity.clone());
    EntityLevel { tenant, entity, level: RiskLevel::of(risk.score()) }
}

/// What each entity of an open alert reaches, by searching the breadth of the graph step by step.
pub fn blast(alerts: &[Alert], facts: &BTreeSet<Fact>) -> Vec<BlastRadius> {
    let roots: BTreeSet<&Entity> =
        alerts.iter().filter(|alert| alert.state == AlertState::Open).flat_map(|alert| &alert.entities).collect();
    let targets = |from: &Entity| -> BTreeSet<Entity> {
        let to = facts.iter().filter_map(|fact| match &fact.body {
            FactBody::Edge(edge) if edge.from == *from => Some(edge.to.clone()),
            _ => None,
        });
        to.collect()
    };
    let criticality = |entity: &Entity| {
        let said = facts.iter().filter_map(|fact| match &fact.body {
            FactBody::Asset(asset) if asset.entity == *entity => Some(asset.criticality),
            _ => None,
        });
        said.max()
    };
    let mut radii = Vec::new();
    for root in roots {
        let mut hop_of: BTreeMap<Entity, u8> = [(root.clone(), 0)].into();
        let mut and_more = Vec::new();
        for hop in 1..=4u8 {
            let edge_of_search: Vec<Entity> =
                hop_of.iter().filter(|(_, at)| **at == hop - 1).map(|(entity, _)| entity.clone()).collect();
            for from in edge_of_search {
                let to = targets(&from);
                if to.len() > 50 {
                    and_more.push((from, u64::try_from(to.len() - 50).unwrap()));
                }
                for entity in to.into_iter().take(50) {
                    hop_of.entry(entity).or_insert(hop);
                }
            }
        }
        hop_of.remove(root);
        if hop_of.is_empty() {
            continue;
        }
        and_more.sort();
        let mut all: Vec<Reached> = hop_of
            .iter()
            .map(|(entity, hop)| Reached { entity: entity.clone(), hop: *hop, criticality: criticality(entity) })
            .collect();
        all.sort_by_key(|one| (std::cmp::Reverse(one.criticality), one.hop, one.entity.clone()));
        let number = |count: usize| u64::try_from(count).unwrap();
        radii.push(BlastRadius {
            tenant: Default::default(),
            root: root.clone(),
            hops: (1..=4).map(|hop| number(all.iter().filter(|one| one.hop == hop).count())).collect(),
            by_criticality: (1..=5)
                .map(|level| number(all.iter().filter(|one| one.criticality == Some(level)).count()))
                .collect(),
            named: all.into_iter().take(20).collect(),
            and_more: and_more.into_iter().take(20).collect(),
        });
    }
    radii
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
