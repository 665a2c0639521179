//! The features of alerts for `triage`: what an alert says of itself, and what went before it.
//!
//! In: alerts in the order in which they were decided about, and verdicts as they were said. Out: one number or nothing
//! per name. A pure function of that sequence and nothing else: no clock, no order of a hash map. All numbers are whole
//! (shares in thousandths), so that JSON, SQL and memory hold the same bits; what is learned from is what was served.
//! What went before goes through [`super::causal`], as in trainings on files.
//!
//! Memory: [`TIMES_MAX`] times per value, [`VALUES_MAX`] values, [`THREADS_MAX`] threads; beyond it the oldest go, and
//! counts stay where they are. Time is event time that never falls: an alert from before counts as of now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cf_types::{Alert, AlertId, Entity, EntityKind, Tactic, triage::Decision};

use super::causal::{Limits, Past, Windows, names};
use crate::random::{hash, mix};

/// Version of names and meanings. Another one is another set of features: models of the old one do not fit any more.
pub const RECIPE: &str = "alert-1";

/// An hour, a day, a week: alerts are rarer than events.
const WINDOWS: Windows = [3_600.0, 86_400.0, 604_800.0];
/// Times kept of one value: counts stay there.
const TIMES_MAX: usize = 10_000;
/// Values of rules, hosts, users, addresses and pairs that are remembered.
const VALUES_MAX: usize = 200_000;
/// Threads of which is remembered what went before them, and alerts whose verdict may still come.
const THREADS_MAX: usize = 20_000;
/// Seconds in which an entity's neighbours are counted.
const DEGREE_S: i64 = 86_400;
/// Entities of an alert that are looked at.
const ENTITIES_MAX: usize = 20;
/// Where or by whom.
const PLACES: [(&str, EntityKind); 3] =
    [("host", EntityKind::Host), ("user", EntityKind::User), ("address", EntityKind::Address)];

/// What an alert says of itself.
const OWN: [&str; 16] = [
    "level",
    "count",
    "references",
    "references met",
    "peak",
    "span s",
    "entities",
    "hosts",
    "users",
    "addresses",
    "outside address",
    "tactics",
    "furthest tactic",
    "techniques",
    "hour",
    "weekday",
];
/// What went before besides [`super::causal`].
const ALSO: [&str; 2] = ["neighbours in 86400 s", "rule share permille"];
/// What people said before.
const SAID: [&str; 4] = ["rule verdicts", "rule true permille", "group verdicts", "group true permille"];

/// The names of the features, in order.
#[must_use]
pub fn feature_names() -> Vec<String> {
    let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    [fixed(&OWN), causal_names(), fixed(&ALSO), fixed(&SAID)].concat()
}

fn causal_names() -> Vec<String> {
    names("rule", &PLACES.map(|(name, _)| name), &WINDOWS)
}

/// Verdicts on something.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    verdicts: i64,
    attacks: i64,
}

impl Said {
    fn numbers(self) -> [Option<i64>; 2] {
        let share = (self.verdicts > 0).then(|| self.attacks * 1_000 / self.verdicts);
        [Some(self.verdicts), share]
    }

    fn add(&mut self, is_attack: bool, sign: i64) {
        self.verdicts += sign;
        self.attacks += if is_attack { sign } else { 0 };
    }
}

/// What went before: rebuilt from the decisions of before, it is the same as if it had been there all the time.
pub struct AlertPast {
    past: Past,
    /// Of each number of the past, what it is multiplied with before it becomes whole.
    scales: Vec<f64>,
    /// Where among them are "all so far" and "rule so far".
    so_far: [usize; 2],
    now: i64,
    neighbours: BTreeMap<u64, VecDeque<(i64, u64)>>,
    /// What went before each thread, the oldest first in `order`.
    threads: BTreeMap<AlertId, Vec<Option<i64>>>,
    /// Rule and signature of alerts that a verdict may come for.
    alerts: BTreeMap<AlertId, (u64, u64)>,
    order: VecDeque<(AlertId, AlertId)>,
    rules: BTreeMap<u64, Said>,
    signatures: BTreeMap<u64, Said>,
}

/// What an alert is to be asked with.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The alert.
    pub alert: &'a Alert,
    /// The first id of its lineage.
    pub thread: AlertId,
    /// Verdicts up to this entry of the control log are known.
    pub upto: i64,
}

impl Default for AlertPast {
    fn default() -> AlertPast {
        let names = causal_names();
        let place = |wanted: &str| names.iter().position(|name| name == wanted).unwrap_or(0);
        AlertPast {
            past: Past::new(WINDOWS, Limits { times: TIMES_MAX, values: VALUES_MAX }),
            scales: names.iter().map(|name| if name.ends_with("against usual") { 1_000.0 } else { 1.0 }).collect(),
            so_far: [place("all so far"), place("rule so far")],
            now: i64::MIN,
            neighbours: BTreeMap::new(),
            threads: BTreeMap::new(),
            alerts: BTreeMap::new(),
            order: VecDeque::new(),
            rules: BTreeMap::new(),
            signatures: BTreeMap::new(),
        }
    }
}

impl AlertPast {
    /// The decision about an alert without answers; what it says is part of the past from then on.
    pub fn decide(&mut self, asked: &Asked<'_>) -> Decision {
        let Asked { alert, thread, upto } = asked;
        let mut entities = alert.entities.clone();
        entities.truncate(ENTITIES_MAX);
        let mut decision = Decision {
            tenant: alert.tenant.clone(),
            alert: alert.id,
            thread: *thread,
            cell: alert.last_cell,
            rule: std::sync::Arc::clone(&alert.rule),
            signature: signature(alert),
            material: material(alert),
            entities,
            first: !self.threads.contains_key(thread),
            upto: *upto,
            recipe: RECIPE.into(),
            features: Vec::new(),
            answers: Vec::new(),
        };
        let before = self.take(&decision);
        decision.features.extend(own(alert));
        decision.features.extend(before);
        decision.features.extend(self.said(&decision));
        decision
    }

    /// Takes in a decision of before, as it was made.
    pub fn recall(&mut self, decision: &Decision) {
        if &*decision.recipe == RECIPE {
            let _known = self.take(decision);
        }
    }

    /// A verdict on an alert was said (1) or taken back (-1).
    pub fn verdict(&mut self, alert: AlertId, rule: &str, is_attack: bool, sign: i64) {
        self.rules.entry(hash(rule.as_bytes())).or_default().add(is_attack, sign);
        if let Some((_, signature)) = self.alerts.get(&alert) {
            self.signatures.entry(*signature).or_default().add(is_attack, sign);
        }
        if self.signatures.len() > VALUES_MAX {
            self.signatures.pop_first();
        }
    }

    /// What went before the thread; a thread that is new is part of what goes before others.
    fn take(&mut self, decision: &Decision) -> Vec<Option<i64>> {
        let rule = hash(decision.rule.as_bytes());
        if self.alerts.insert(decision.alert, (rule, decision.signature)).is_none() {
            self.order.push_back((decision.thread, decision.alert));
        }
        if let Some(before) = self.threads.get(&decision.thread) {
            return before.clone();
        }
        self.now = self.now.max(decision.cell);
        let places = PLACES.map(|(_, kind)| first(&decision.entities, kind));
        let values = self.past.row(self.now as f64, rule, &places);
        let wholes = values.iter().zip(&self.scales).map(|(value, scale)| whole(*value, *scale));
        let mut before: Vec<Option<i64>> = wholes.collect();
        let [all, of_rule] = self.so_far.map(|at| before.get(at).copied().flatten().unwrap_or(0));
        before.push(Some(self.degree(&decision.entities)));
        before.push(Some((of_rule + 1) * 1_000 / (all + 1)));
        self.threads.insert(decision.thread, before.clone());
        self.forget();
        before
    }

    /// The most neighbours that one of the entities had, alerts of a day; then these are its neighbours, too.
    fn degree(&mut self, entities: &[Entity]) -> i64 {
        let hashes: BTreeSet<u64> = entities.iter().map(|entity| hash(entity.to_string().as_bytes())).collect();
        let mut most = 0;
        let mut distinct = Vec::new();
        for &entity in &hashes {
            let known = self.neighbours.entry(entity).or_default();
            while known.front().is_some_and(|(time, _)| self.now - time > DEGREE_S) {
                known.pop_front();
            }
            distinct.clear();
            distinct.extend(known.iter().map(|(_, other)| *other));
            distinct.sort_unstable();
            distinct.dedup();
            most = most.max(distinct.len());
            known.extend(hashes.iter().filter(|other| **other != entity).map(|other| (self.now, *other)));
            while known.len() > TIMES_MAX / 10 {
                known.pop_front();
            }
        }
        if self.neighbours.len() > VALUES_MAX {
            let now = self.now;
            self.neighbours.retain(|_, known| known.back().is_some_and(|(time, _)| now - time <= DEGREE_S));
            while self.neighbours.len() > VALUES_MAX {
                self.neighbours.pop_first();
            }
        }
        most as i64
    }

    fn said(&self, decision: &Decision) -> Vec<Option<i64>> {
        let rule = self.rules.get(&hash(decision.rule.as_bytes())).copied().unwrap_or_default();
        let signature = self.signatures.get(&decision.signature).copied().unwrap_or_default();
        rule.numbers().into_iter().chain(signature.numbers()).collect()
    }

    fn forget(&mut self) {
        while self.order.len() > THREADS_MAX {
            let Some((thread, alert)) = self.order.pop_front() else { return };
            self.threads.remove(&thread);
            self.alerts.remove(&alert);
        }
    }
}

/// What a decision depends on: not counts, and not the score. An answer never leads to another question.
#[must_use]
pub fn material(alert: &Alert) -> u64 {
    let met = alert.reference_counts.iter().map(|count| u8::from(*count > 0)).collect::<Vec<_>>();
    let tags = alert.tags.iter().fold(0, |tags, tag| mix(tags ^ hash(tag.as_bytes())));
    [hash(&met), tags, u64::from(level(alert))].iter().fold(signature(alert), |all, part| mix(all ^ part))
}

/// What repeats itself: the rule in its group.
fn signature(alert: &Alert) -> u64 {
    mix(hash(alert.rule.as_bytes()) ^ hash(&alert.group.canonical()).rotate_left(17))
}

fn first(entities: &[Entity], kind: EntityKind) -> u64 {
    entities.iter().find(|entity| entity.kind == kind).map_or(0, |entity| hash(entity.value.as_bytes()))
}

/// A float of the past as a whole number; NaN is nothing.
fn whole(value: f64, scale: f64) -> Option<i64> {
    (!value.is_nan()).then(|| (value * scale).round().clamp(-9e15, 9e15) as i64)
}

fn own(alert: &Alert) -> Vec<Option<i64>> {
    let count = |kind: EntityKind| alert.entities.iter().filter(|entity| entity.kind == kind).count();
    let tactics: BTreeSet<Tactic> = alert.tags.iter().filter_map(|tag| Tactic::of_tag(tag)).collect();
    let technique = |tag: &&std::sync::Arc<str>| {
        let tag = tag.to_ascii_lowercase();
        tag.strip_prefix("attack.t").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let outside = |entity: &&Entity| entity.kind == EntityKind::Address && is_outside(&entity.value);
    let met = alert.reference_counts.iter().filter(|count| **count > 0).count();
    let numbers = [
        i64::from(level(alert)),
        i64::try_from(alert.count).unwrap_or(i64::MAX),
        alert.reference_counts.len() as i64,
        met as i64,
        i64::try_from(alert.peak).unwrap_or(i64::MAX),
        alert.last_cell.saturating_sub(alert.anchor),
        alert.entities.len() as i64,
        count(EntityKind::Host) as i64,
        count(EntityKind::User) as i64,
        count(EntityKind::Address) as i64,
        i64::from(alert.entities.iter().find(outside).is_some()),
        tactics.len() as i64,
        tactics.last().map_or(0, |tactic| *tactic as i64 + 1),
        alert.tags.iter().filter(technique).count() as i64,
        alert.anchor.rem_euclid(86_400) / 3_600,
        // 1970-01-01 was a Thursday: day 3 of a week that begins with Monday.
        (alert.anchor.div_euclid(86_400) + 3).rem_euclid(7),
    ];
    // Beyond 2^53 a float would round: nothing counts so far.
    numbers.into_iter().map(|number| Some(number.clamp(-(1 << 53), 1 << 53))).collect()
}

fn level(alert: &Alert) -> u8 {
    use cf_types::Level;
    match alert.level {
        Level::Informational => 0,
        Level::Low => 1,
        Level::Medium => 2,
        Level::High => 3,
        Level::Critical => 4,
    }
}

fn is_outside(address: &str) -> bool {
    use std::net::IpAddr;
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => !(v4.is_private() || v4.is_link_local() || v4.is_loopback()),
        Ok(IpAddr::V6(v6)) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
        Err(_) => false,
    }
}
