//! Indicators: events that meet one, and what rests on it (DET-04).
//!
//! **Looking up** ([`Table`]): each worker meets its events with the indicators of their epoch, without waiting. What it
//! finds are candidates: detections of the built-in rule [`INDICATOR_RULE`], one per event and pattern, whose item
//! carries the pattern. They pass dedup and the facts log like any other.
//!
//! **Holding** ([`holding`]): a candidate counts while an indicator of its pattern holds for its second. That is a join,
//! so an indicator that is revoked, or ends earlier than was said, takes along what rested on it alone.
//! In: items of the built-in rule, and facts. Out: those items that count. Key: tenant and pattern. Memory: the items of
//! the horizon and the indicators. Output appears when the epoch is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use cf_types::{
    Condition, Detection, Entity, EntityKind, EpisodeRule, Epoch, Event, Fact, FactBody, Group, Item, Level, Member,
    Name, Predicate, Tenant, Time,
    assess::INDICATOR_RULE,
    fact::{Indicator, Observable, Pattern},
};
use differential_dataflow::VecCollection;
use ipnet::IpNet;
use rustc_hash::FxHashMap;

use crate::correlate::CellItem;

/// Repeats of one group within this many seconds are one alert, as with plain rules.
const FOLD_S: i64 = 3_600;
/// Patterns of one event that are looked at: an event that lists more is cut, as its entities are.
const PATTERNS_MAX: usize = 32;
/// The rule whose alerts say that an indicator was seen. Its title is completed when the alert is assessed.
pub(crate) fn rule() -> EpisodeRule {
    EpisodeRule {
        id: Arc::from(INDICATOR_RULE),
        title: Arc::from("Indicator seen"),
        level: Level::High,
        tags: Arc::from([]),
        references: vec![Arc::from(INDICATOR_RULE)],
        timespan: FOLD_S,
        predicate: Predicate::EventCount(Condition::at_least(1)),
        alerts: true,
        chained: Vec::new(),
    }
}

/// How a pattern is written in groups and items.
pub(crate) fn key(pattern: &Pattern) -> Arc<str> {
    Arc::from(format!("{}:{pattern}", pattern.kind()))
}

/// What an observable may be named by: itself, the names above it, or the networks of these lengths around it.
pub(crate) fn patterns(observable: &Observable, lengths: impl Iterator<Item = u8>) -> Vec<Pattern> {
    match observable {
        Observable::Address(address) => lengths
            .filter_map(|length| IpNet::new(*address, length).ok())
            .map(|network| Pattern::Address(network.trunc()))
            .collect(),
        Observable::Domain(name) => {
            [Arc::clone(name)].into_iter().chain(Observable::wildcards(name)).map(Pattern::Domain).collect()
        }
        Observable::Url(url) => vec![Pattern::Url(Arc::clone(url))],
        Observable::Hash(hash) => vec![Pattern::Hash(Arc::clone(hash))],
    }
}

/// The indicators of an epoch, as one worker looks events up in them. Grows and shrinks with the facts.
pub struct Table {
    by_pattern: FxHashMap<(Tenant, Pattern), Vec<(Indicator, i64)>>,
    /// How many networks there are of each length, by whether they are of IPv4.
    lengths: BTreeMap<(bool, u8), i64>,
    urls: Vec<Name>,
}

impl Default for Table {
    fn default() -> Table {
        let urls = Name::intern_all(Observable::URL_FIELDS);
        Table { by_pattern: FxHashMap::default(), lengths: BTreeMap::new(), urls }
    }
}

impl Table {
    /// Takes a fact in or out; those of other kinds say nothing here.
    pub fn change(&mut self, fact: &Fact, diff: i64) {
        let FactBody::Indicator(indicator) = &fact.body else { return };
        if let Pattern::Address(network) = &indicator.pattern {
            let length = (network.addr().is_ipv4(), network.prefix_len());
            *self.lengths.entry(length).or_default() += diff;
            self.lengths.retain(|_, times| *times != 0);
        }
        let key = (fact.tenant.clone(), indicator.pattern.clone());
        let held = self.by_pattern.entry(key.clone()).or_default();
        match held.iter_mut().find(|(one, _)| one == indicator) {
            Some((_, times)) => *times += diff,
            None => held.push((indicator.clone(), diff)),
        }
        held.retain(|(_, times)| *times != 0);
        if held.is_empty() {
            self.by_pattern.remove(&key);
        }
    }

    /// Adds the candidates of an event, sorted by pattern.
    pub fn detect(&self, event: &Event, out: &mut Vec<Detection>) {
        if self.by_pattern.is_empty() {
            return;
        }
        let urls = self.urls.iter().flat_map(|name| event.fields.all(*name)).take(PATTERNS_MAX);
        let of_urls = urls.flat_map(|(text, _)| Observable::of_url(text));
        let observables = event.entities.iter().filter_map(Observable::of_entity).chain(of_urls).collect();
        let tenant = &event.origin.tenant;
        let met = self.met(tenant, observables, event.time);
        if met.is_empty() {
            return;
        }
        let member = Member {
            time: event.time,
            id: event.id(),
            declared_id: event.declared_id.as_deref().map(Arc::from),
            position: event.position.clone(),
        };
        candidates(tenant, &event.origin.source, &member, &event.entities, met, out);
    }

    /// The same for an event of which no more is known than whom it speaks of and its URLs, as history has it.
    pub fn find<'a>(
        &self,
        (tenant, source): (&Tenant, &Arc<str>),
        member: &Member,
        entities: Vec<Entity>,
        urls: impl Iterator<Item = &'a str>,
        out: &mut Vec<Detection>,
    ) {
        let of_urls = urls.take(PATTERNS_MAX).flat_map(Observable::of_url);
        let observables = entities.iter().filter_map(Observable::of_entity).chain(of_urls).collect();
        let met = self.met(tenant, observables, member.time);
        candidates(tenant, source, member, &entities, met, out);
    }

    /// The patterns that name one of these and hold at this time, each with what it was met in.
    fn met(&self, tenant: &Tenant, observables: BTreeSet<Observable>, time: Time) -> BTreeMap<Pattern, Observable> {
        let mut met = BTreeMap::new();
        for observable in observables {
            for pattern in self.naming(tenant, &observable, time) {
                met.entry(pattern).or_insert_with(|| observable.clone());
            }
        }
        met
    }

    /// The patterns that name it and hold at this time.
    fn naming(&self, tenant: &Tenant, observable: &Observable, time: Time) -> Vec<Pattern> {
        let is_v4 = matches!(observable, Observable::Address(address) if address.is_ipv4());
        let lengths = self.lengths.keys().filter(|(v4, _)| *v4 == is_v4).map(|(_, length)| *length);
        let mut found = patterns(observable, lengths);
        found.retain(|pattern| {
            let held = self.by_pattern.get(&(tenant.clone(), pattern.clone()));
            // As the join does: by whole seconds.
            held.is_some_and(|held| held.iter().any(|(indicator, _)| holds(indicator, time.cell())))
        });
        found
    }
}

/// Whether an indicator holds for an event of this second.
pub(crate) fn holds(indicator: &Indicator, cell: i64) -> bool {
    indicator.holds_at(Time::from_seconds(cell))
}

/// One detection per pattern that an event met.
fn candidates(
    tenant: &Tenant,
    source: &Arc<str>,
    member: &Member,
    entities: &[Entity],
    met: BTreeMap<Pattern, Observable>,
    out: &mut Vec<Detection>,
) {
    out.extend(met.into_iter().take(PATTERNS_MAX).map(|(pattern, observable)| Detection {
        tenant: tenant.clone(),
        rule: Arc::from(INDICATOR_RULE),
        member: member.clone(),
        source: Arc::clone(source),
        entities: entities.to_vec(),
        items: vec![Item {
            rule: Arc::from(INDICATOR_RULE),
            reference: 0,
            group: group(entities, &pattern, &observable),
            value: Some(key(&pattern)),
        }],
    }));
}

/// What was seen, and whom the event speaks of beside it: the first host and user, and the first other address.
fn group(entities: &[Entity], pattern: &Pattern, observable: &Observable) -> Group {
    let first = |kind: EntityKind, but: &str| {
        entities.iter().find(|entity| entity.kind == kind && &*entity.value != but).map(|e| Arc::clone(&e.value))
    };
    let (field, seen): (&str, Arc<str>) = match observable {
        Observable::Address(address) => ("address", Arc::from(address.to_string())),
        Observable::Domain(name) => ("domain", Arc::clone(name)),
        Observable::Hash(hash) => ("hash", Arc::clone(hash)),
        Observable::Url(url) => ("url", Arc::clone(url)),
    };
    let others = [
        ("host", first(EntityKind::Host, "")),
        ("user", first(EntityKind::User, "")),
        ("source_ip", first(EntityKind::Address, &seen)),
    ];
    let others = others.into_iter().filter_map(|(field, value)| Some((Arc::from(field), value?)));
    let own = [(Arc::from("indicator"), key(pattern)), (Arc::from(field), seen)];
    Group::new(own.into_iter().chain(others))
}

/// The items whose indicator holds for their second.
pub(crate) fn holding<'s>(
    items: VecCollection<'s, Epoch, CellItem, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, CellItem, isize> {
    let indicators = facts.flat_map(|fact| match fact.body {
        FactBody::Indicator(indicator) => Some(((fact.tenant, key(&indicator.pattern)), indicator)),
        _ => None,
    });
    let seconds = items.clone().flat_map(|item| {
        let key = (item.key.tenant.clone(), item.value.clone()?);
        Some((key, item))
    });
    // Several sources may say the same: a candidate counts once.
    let counted = seconds
        .join_map(indicators, |_, item, indicator| (item.clone(), holds(indicator, item.cell)))
        .flat_map(|(item, holds)| holds.then_some(item))
        .distinct();
    items.map(|item| (item, ())).semijoin(counted).map(|(item, ())| item)
}

/// Per alert, the indicators that an entity of it meets, or that it was raised for, while they hold.
pub(crate) fn of_alerts<'s>(
    alerts: VecCollection<'s, Epoch, cf_types::Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (cf_types::AlertId, Indicator), isize> {
    let indicators = facts.flat_map(|fact| match fact.body {
        FactBody::Indicator(indicator) => Some(((fact.tenant, key(&indicator.pattern)), indicator)),
        _ => None,
    });
    // The extent says whether an indicator holds; only an alert's own changes bring it here again.
    let sought = alerts.flat_map(|alert| {
        let (span, tenant, id) = ((alert.anchor, alert.last_cell), alert.tenant.clone(), alert.id);
        sought(&alert).into_iter().map(move |sought| ((tenant.clone(), sought), (id, span)))
    });
    let addresses = sought.clone().flat_map(|((tenant, sought), at)| match sought {
        Sought::Address(address) => Some(((tenant, address.is_ipv4()), (address, at))),
        Sought::Key(_) => None,
    });
    let lengths = indicators
        .clone()
        .flat_map(|((tenant, _), indicator)| match indicator.pattern {
            Pattern::Address(network) => Some(((tenant, network.addr().is_ipv4()), network.prefix_len())),
            _ => None,
        })
        .distinct();
    let networks = addresses.join_map(lengths, |(tenant, _), (address, at), length| {
        let network = IpNet::new(*address, *length).unwrap_or_else(|_| IpNet::from(*address)).trunc();
        ((tenant.clone(), key(&Pattern::Address(network))), *at)
    });
    let keys = sought.flat_map(|((tenant, sought), at)| match sought {
        Sought::Key(key) => Some(((tenant, key), at)),
        Sought::Address(_) => None,
    });
    networks
        .concat(keys)
        .join_map(indicators, |_, (id, (first, last)), indicator| {
            let Indicator { from, until, .. } = indicator;
            let begins = from.is_none_or(|from| from <= Time::from_seconds(*last));
            let lasts = until.is_none_or(|until| Time::from_seconds(*first) < until);
            (*id, (begins && lasts).then(|| indicator.clone()))
        })
        .flat_map(|(id, indicator)| Some((id, indicator?)))
        .distinct()
}

/// What an alert is looked for by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
enum Sought {
    Address(IpAddr),
    Key(Arc<str>),
}

fn sought(alert: &cf_types::Alert) -> BTreeSet<Sought> {
    let of_entity = |entity: &Entity| match Observable::of_entity(entity) {
        Some(Observable::Address(address)) => vec![Sought::Address(address)],
        Some(other) => patterns(&other, std::iter::empty()).iter().map(|pattern| Sought::Key(key(pattern))).collect(),
        None => Vec::new(),
    };
    let raised_for = alert.group.iter().filter(|(field, _)| *field == "indicator" && &*alert.rule == INDICATOR_RULE);
    let raised_for = raised_for.map(|(_, key)| Sought::Key(Arc::from(key)));
    alert.entities.iter().flat_map(of_entity).chain(raised_for).collect()
}

#[cfg(test)]
mod tests;
