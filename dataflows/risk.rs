//! The risk of entities: the sum of their alerts' scores by hour of event time, its level, and alerts when it is high.
//!
//! In: changes of the alerts that remain, scored; facts, of which identities say what other names an account has: what
//! is done under them is the account's, and they have no risk of their own; watermarks. Out: changes of one row of buckets per entity, of its level
//! while it has one, and of risk alerts. Key: entity. What the risk is *at* a time is [`EntityRisk::score_in`], a pure
//! function. Memory: one number per entity and alert of the last seven days; an entity leaves when its risk is zero.
//! Output appears when the epoch is complete.
//!
//! The level is that of the watermark's hour, or of the newest alert's if that is later. It falls when event time passes,
//! never by a clock: each entity has one timer, the next hour in which something changes without an alert.
//!
//! A **risk alert** is a day of event time in which an entity's alerts of 24 hours, decayed, come to the threshold in an
//! hour that brought one. It is one per entity and day, named by the day, so late alerts move nothing; it depends on two
//! days of alerts, which a restart recalls. It is sealed when its day lies below the limit. A risk alert does not count
//! for the risk of its own entity: it is made here, behind the sum. Those that were sealed before a restart are recalled;
//! of what weighs nothing any more, for the incidents that are not closed yet.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{
    Alert, AlertId, AlertState, AnchorKind, Cell, Entity, EntityKind, EntityLevel, EntityRisk, Epoch, Fact, FactBody,
    Group, Level, RiskLevel, Score, Tenant, Time,
    assess::RISK_RULE,
    fact::Identity,
    risk::{Hour, hour_of},
};
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::Exchange,
    operators::{
        Concat,
        vec::{Broadcast, Map},
    },
};

use crate::{
    epochs::{changes, per_epoch_with},
    waits::Waits,
};

/// Hours of a day, and of the alerts that a risk alert looks at.
const DAY_HOURS: i64 = 24;

/// How risk is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RiskOptions {
    /// How far behind the watermark alerts still change, in seconds; `None`: for ever.
    pub(crate) horizon_s: Option<i64>,
    /// The sum of decayed scores, in tenths, from which on an entity has a risk alert; 0: never.
    pub(crate) alert_tenths: u64,
}

/// What this operator gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Risked {
    Risk(EntityRisk),
    Level(EntityLevel),
    Alert(Alert),
    /// A level falls, or a day is sealed, when the watermark reaches this cell.
    Waits(Cell),
}

/// Follows the risk of all entities.
pub(crate) fn risk<'s>(
    alerts: VecCollection<'s, Epoch, Alert, isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
    recalled: StreamVec<'s, Epoch, Alert>,
    watermarks: StreamVec<'s, Epoch, Time>,
    options: RiskOptions,
) -> StreamVec<'s, Epoch, (Risked, isize)> {
    let weights = alerts.flat_map(|Alert { tenant, id, anchor, score, entities, .. }| {
        let weight = (hour_of(anchor), id, score.tenths());
        entities.into_iter().map(move |entity| ((tenant.clone(), entity), weight))
    });
    let contributions = changes(of_accounts(weights, facts)).map(|((entity, (hour, alert, tenths)), diff)| {
        Change::Weight(Contribution { entity, hour, alert, tenths }, diff)
    });
    let recalled = recalled.flat_map(|alert| {
        let entity = alert.entities.first().cloned()?;
        Some(Change::Recalled((alert.tenant.clone(), entity), alert))
    });
    let by_entity = Exchange::new(|change: &Change| route(change.key()));
    let mut state = Risk::new(options);
    per_epoch_with(
        contributions.concat(recalled),
        by_entity,
        watermarks.broadcast(),
        "Risk",
        move |_epoch, changes, watermarks, out| {
            out.extend(state.epoch(changes, watermarks.into_iter().max()));
        },
    )
}

/// What an alert weighs, and when.
type Weight = (Hour, AlertId, u16);

/// Gives what is done under another name of an account to the account.
fn of_accounts<'s>(
    weights: VecCollection<'s, Epoch, (Key, Weight), isize>,
    facts: VecCollection<'s, Epoch, Fact, isize>,
) -> VecCollection<'s, Epoch, (Key, Weight), isize> {
    let accounts = facts.flat_map(|Fact { tenant, body }| match body {
        FactBody::Identity(Identity { user, aliases, .. }) => {
            let others = aliases.into_iter().filter(|alias| *alias != user);
            others.map(|alias| ((tenant.clone(), alias), (tenant.clone(), user.clone()))).collect()
        }
        _ => Vec::new(),
    });
    let accounts = accounts.distinct();
    let moved = weights.clone().join_map(accounts.clone(), |_, weight, account| (account.clone(), *weight));
    weights.antijoin(accounts.map(|(alias, _)| alias).distinct()).concat(moved)
}

/// Whose risk.
type Key = (Tenant, Entity);

/// What an alert adds to the risk of one of its entities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Contribution {
    entity: Key,
    hour: Hour,
    alert: AlertId,
    tenths: u16,
}

/// What risk is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Change {
    Weight(Contribution, isize),
    /// A risk alert that was sealed before a restart.
    Recalled(Key, Alert),
}

impl Change {
    fn key(&self) -> &Key {
        match self {
            Change::Weight(contribution, _) => &contribution.entity,
            Change::Recalled(key, _) => key,
        }
    }
}

/// Names of entities are an attacker's, so the hash that spreads them is one that cannot be aimed.
fn route((tenant, entity): &Key) -> u64 {
    let id = cf_types::id::digest128(
        "counterflow 2026 entity, worker",
        &[tenant.as_str().as_bytes(), entity.kind.as_str().as_bytes(), entity.value.as_bytes()],
    );
    crate::epochs::spread(&id)
}

/// The state of one worker: pure.
struct Risk {
    options: RiskOptions,
    entries: BTreeMap<Key, Entry>,
    /// Whom to look at in which hour.
    timers: BTreeMap<Hour, BTreeSet<Key>>,
    /// The watermark's hour.
    now: Option<Hour>,
    waits: Waits,
}

#[derive(Default)]
struct Entry {
    weights: BTreeMap<(Hour, AlertId, u16), isize>,
    told: BTreeSet<Risked>,
    timer: Option<Hour>,
}

impl Risk {
    fn new(options: RiskOptions) -> Risk {
        Risk { options, entries: BTreeMap::new(), timers: BTreeMap::new(), now: None, waits: Waits::default() }
    }

    /// Takes one epoch's changes in; gives what changed, sorted.
    fn epoch(&mut self, changes: Vec<Change>, watermark: Option<Time>) -> Vec<(Risked, isize)> {
        self.now = self.now.max(watermark.map(|time| hour_of(time.cell())));
        let (mut touched, mut out) = (BTreeSet::new(), Vec::new());
        for change in changes {
            let (Contribution { entity, hour, alert, tenths }, diff) = match change {
                Change::Weight(contribution, diff) => (contribution, diff),
                Change::Recalled(key, alert) => {
                    self.recall(&key, alert, &mut out);
                    touched.insert(key);
                    continue;
                }
            };
            // Weighs nothing any more; what it was is forgotten, so its going must be too.
            if self.now.is_some_and(|now| now.saturating_sub(hour) >= self.keep_hours()) {
                continue;
            }
            let entry = self.entries.entry(entity.clone()).or_default();
            *entry.weights.entry((hour, alert, tenths)).or_default() += diff;
            touched.insert(entity);
        }
        while let Some(due) = self.timers.first_entry().filter(|due| self.now.is_some_and(|now| *due.key() <= now)) {
            touched.extend(due.remove());
        }
        for key in touched {
            self.look_at(&key, &mut out);
        }
        out.sort();
        let next = self.timers.keys().next().map(|hour| hour.saturating_mul(3_600));
        out.extend(self.waits.until(next).map(|(cell, diff)| (Risked::Waits(cell), diff)));
        out
    }

    /// Takes in what was told of a day that is final. Where that is forgotten already, it is for others alone.
    fn recall(&mut self, key: &Key, alert: Alert, out: &mut Vec<(Risked, isize)>) {
        let ends = (hour_of(alert.anchor).div_euclid(DAY_HOURS) + 1) * DAY_HOURS;
        let row = Risked::Alert(alert);
        out.push((row.clone(), 1));
        if self.now.is_none_or(|now| ends > now - self.keep_hours()) {
            self.entries.entry(key.clone()).or_default().told.insert(row);
        }
    }

    /// Hours behind the watermark after which an alert is forgotten: it weighs nothing, and its day is sealed.
    fn keep_hours(&self) -> i64 {
        EntityRisk::SPAN_HOURS.max(self.options.horizon_s.unwrap_or(0) / 3_600 + 3 * DAY_HOURS)
    }

    fn look_at(&mut self, key: &Key, out: &mut Vec<(Risked, isize)>) {
        let keep_hours = self.keep_hours();
        let Some(entry) = self.entries.get_mut(key) else { return };
        let forgotten = |hour: Hour| self.now.is_some_and(|now| now.saturating_sub(hour) >= keep_hours);
        entry.weights.retain(|(hour, ..), times| *times != 0 && !forgotten(*hour));
        let view = View { options: self.options, now: self.now, keep_hours, key, weights: &entry.weights };
        let (rows, timer) = view.rows(&entry.told);
        // A sealed risk alert that goes only leaves the graph; it stays what it was.
        out.extend(entry.told.difference(&rows).map(|row| (row.clone(), -1)));
        out.extend(rows.difference(&entry.told).map(|row| (row.clone(), 1)));
        entry.told = rows;
        if let Some(before) = entry.timer
            && let Some(others) = self.timers.get_mut(&before)
        {
            others.remove(key);
            if others.is_empty() {
                self.timers.remove(&before);
            }
        }
        entry.timer = timer;
        if let Some(hour) = timer {
            self.timers.entry(hour).or_default().insert(key.clone());
        }
        if entry.weights.is_empty() && entry.told.is_empty() {
            self.entries.remove(key);
        }
    }
}

/// What is known of one entity.
struct View<'a> {
    options: RiskOptions,
    now: Option<Hour>,
    keep_hours: i64,
    key: &'a Key,
    weights: &'a BTreeMap<(Hour, AlertId, u16), isize>,
}

impl View<'_> {
    /// All rows, and the next hour in which they are others without an alert.
    fn rows(&self, told: &BTreeSet<Risked>) -> (BTreeSet<Risked>, Option<Hour>) {
        let (tenant, entity) = self.key;
        let mut buckets: BTreeMap<Hour, u64> = BTreeMap::new();
        // Once, also of an alert that names an account twice.
        for ((hour, _, tenths), _) in self.weights.iter().filter(|(_, times)| **times > 0) {
            *buckets.entry(*hour).or_default() += u64::from(*tenths);
        }
        let all = EntityRisk { tenant: tenant.clone(), entity: entity.clone(), buckets: buckets.into_iter().collect() };
        let mut rows: BTreeSet<Risked> = self.risk_alerts(&all, told).into_iter().map(Risked::Alert).collect();
        let mut timers: Vec<Hour> = Vec::new();
        timers.extend(all.buckets.first().map(|(hour, _)| hour + self.keep_hours));
        timers.extend(rows.iter().filter_map(|row| self.seals_in(row)));
        let risk = EntityRisk::new(all.tenant, all.entity, all.buckets);
        if let Some(newest) = risk.newest() {
            let at = self.now.map_or(newest, |now| now.max(newest));
            let level = RiskLevel::of(risk.score_in(at));
            timers.extend(risk.falls_after(at));
            if level != RiskLevel::None {
                let (tenant, entity) = (tenant.clone(), entity.clone());
                rows.insert(Risked::Level(EntityLevel { tenant, entity, level }));
            }
            rows.insert(Risked::Risk(risk));
        }
        // Without a watermark no time passes.
        let next = timers.into_iter().filter(|hour| self.now.is_none_or(|now| *hour > now)).min();
        (rows, next)
    }

    /// The hour in which an open risk alert is sealed, or a sealed one forgotten.
    fn seals_in(&self, row: &Risked) -> Option<Hour> {
        let Risked::Alert(alert) = row else { return None };
        let day = hour_of(alert.anchor).div_euclid(DAY_HOURS);
        match alert.state {
            AlertState::Provisional | AlertState::Open => self.final_in(day),
            AlertState::Sealed => Some((day + 1) * DAY_HOURS + self.keep_hours),
        }
    }

    /// The watermark's hour in which a day lies below the limit.
    fn final_in(&self, day: i64) -> Option<Hour> {
        let horizon_hours = self.options.horizon_s?.saturating_add(3_599) / 3_600;
        Some((day + 1) * DAY_HOURS + horizon_hours)
    }

    /// One per day at the most. A day that is final keeps what was told of it.
    fn risk_alerts(&self, all: &EntityRisk, told: &BTreeSet<Risked>) -> Vec<Alert> {
        let connects = matches!(self.key.1.kind, EntityKind::Host | EntityKind::User | EntityKind::Address);
        if self.options.alert_tenths == 0 || !connects {
            return Vec::new();
        }
        let mut days: BTreeMap<i64, Vec<(Hour, u64)>> = BTreeMap::new();
        for (hour, _) in &all.buckets {
            let sum = all.tenths_at(*hour, DAY_HOURS);
            if sum >= self.options.alert_tenths {
                days.entry(hour.div_euclid(DAY_HOURS)).or_default().push((*hour, sum));
            }
        }
        let is_final = |day: i64| self.now.is_some_and(|now| self.final_in(day).is_some_and(|hour| hour <= now));
        let sealed = told.iter().filter_map(|row| match row {
            Risked::Alert(alert) if alert.state == AlertState::Sealed => Some(alert.clone()),
            _ => None,
        });
        // Of the day that is sealed now, what is told last is its last word; younger days may still change.
        let mut alerts: BTreeMap<i64, Alert> =
            sealed.map(|alert| (hour_of(alert.anchor).div_euclid(DAY_HOURS), alert)).collect();
        alerts.retain(|day, _| {
            let oldest = self.now.map(|now| now - self.keep_hours);
            oldest.is_none_or(|oldest| (day + 1) * DAY_HOURS > oldest)
        });
        for (day, hits) in days {
            let state = if is_final(day) { AlertState::Sealed } else { AlertState::Open };
            if let Some(alert) = self.risk_alert(day, &hits, state) {
                alerts.entry(day).or_insert(alert);
            }
        }
        alerts.into_values().collect()
    }

    fn risk_alert(&self, day: i64, hits: &[(Hour, u64)], state: AlertState) -> Option<Alert> {
        let (tenant, entity) = self.key;
        let ((first, _), (last, _)) = (hits.first()?, hits.last()?);
        let peak = hits.iter().map(|(_, sum)| *sum).max()?;
        let group = Group::new([(entity.kind.as_str().into(), std::sync::Arc::clone(&entity.value))]);
        let day_begins: Cell = day * DAY_HOURS * 3_600;
        Some(Alert {
            tenant: tenant.clone(),
            id: AlertId::of(tenant, RISK_RULE, &group, AnchorKind::Cut, day_begins),
            rule: RISK_RULE.into(),
            title: format!("Risk of {entity} is high").into(),
            level: Level::High,
            group,
            state,
            anchor: first * 3_600,
            last_cell: last * 3_600 + 3_599,
            count: u64::try_from(hits.len()).unwrap_or(u64::MAX),
            reference_counts: vec![u64::try_from(hits.len()).unwrap_or(u64::MAX)],
            peak,
            score: Score::from_tenths(u16::try_from(peak).unwrap_or(u16::MAX)),
            entities: vec![entity.clone()],
            tags: [].into(),
        })
    }
}

#[cfg(test)]
mod tests;
