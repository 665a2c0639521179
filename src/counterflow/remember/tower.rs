//! The episodes of the correlations below a rule, found anew from detections in the order of their days, as items of the
//! rule: by the operator's own [`Episodes`], level upon level.
//!
//! Memory: per group what [`Episodes`] keeps behind the last day, and what one day adds. What begins before a day is final
//! once the day before it is through, at every level: items of a level lie where hits of the level below do, and those
//! depend on nothing that comes later.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_dataflows::episode::{Diff, Episodes, Update};
use cf_types::{Cell, Detection, Episode, EpisodeKey, EpisodeRule, Epoch, Group, Tenant};

use super::Began;
use crate::below::Chains;

/// An item of the rule above.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct First {
    pub(super) cell: Cell,
    pub(super) key: EpisodeKey,
    pub(super) value: Option<Arc<str>>,
}

/// What the episodes below give, less those that the graph has and counts itself.
pub(super) struct Towers {
    /// As if the rules below had been there from the start.
    all: Tower,
    /// As the graph has them, if some of them began later.
    had: Option<Tower>,
    /// From here on the graph counts what it has.
    floor: Cell,
    began: Began,
}

impl Towers {
    /// `began` says since when the correlations below count, of those that were not there from the first; `floor` is where the
    /// graph begins to count. Without one it counts all that it has.
    pub(super) fn new(
        rule: &Arc<EpisodeRule>,
        rules: &[Arc<EpisodeRule>],
        began: &Began,
        floor: Option<Cell>,
    ) -> Towers {
        let had = (!began.is_empty()).then(|| Tower::new(rule, rules));
        Towers { all: Tower::new(rule, rules), had, floor: floor.unwrap_or(Cell::MIN), began: began.clone() }
    }

    /// Epochs of one era count for the same rules.
    pub(super) fn era(&self, epoch: Epoch) -> usize {
        self.began.values().filter(|began| **began <= epoch).count()
    }

    /// Takes the items of a detection that are of rules below.
    pub(super) fn take(&mut self, detection: &Detection, epoch: Epoch) {
        self.all.take(detection, |_| true);
        let began = &self.began;
        if let Some(had) = &mut self.had {
            had.take(detection, |rule| began.get(rule).is_none_or(|began| *began <= epoch));
        }
    }

    /// All items before this cell are in; gives those of the rule above that are new, and how many.
    pub(super) fn through(&mut self, cell: Cell) -> Vec<(First, u64)> {
        let mut firsts = self.all.through(cell);
        let floor = self.floor;
        match &mut self.had {
            None => firsts.retain(|first, _| first.cell < floor),
            Some(had) => {
                for (first, count) in had.through(cell).into_iter().filter(|(first, _)| first.cell >= floor) {
                    *firsts.entry(first).or_default() -= count;
                }
            }
        }
        let firsts = firsts.into_iter().filter_map(|(first, count)| Some((first, u64::try_from(count).ok()?)));
        firsts.filter(|(_, count)| *count > 0).collect()
    }
}

/// One pass over the levels.
struct Tower {
    rule: Arc<EpisodeRule>,
    /// The correlations below it by id, with their levels.
    below: BTreeMap<Arc<str>, (usize, Arc<EpisodeRule>)>,
    /// By level, what has to be added.
    updates: Vec<BTreeMap<EpisodeKey, Vec<Update>>>,
    states: BTreeMap<EpisodeKey, Episodes>,
    /// All before it was given.
    limit: Cell,
    /// Items of the rule above that may still change, by cell.
    firsts: BTreeMap<Cell, BTreeMap<(EpisodeKey, Option<Arc<str>>), i64>>,
}

impl Tower {
    fn new(rule: &Arc<EpisodeRule>, rules: &[Arc<EpisodeRule>]) -> Tower {
        let chains = Chains::new(rules);
        // One that stands on no other is counted first; more levels than rules there are none.
        let mut below: BTreeMap<Arc<str>, (usize, Arc<EpisodeRule>)> = BTreeMap::new();
        let mut left: BTreeSet<Arc<str>> = chains.all_below(&rule.id);
        let mut levels = 0;
        while !left.is_empty() {
            let ready = |id: &&Arc<str>| {
                chains.rule(id).is_some_and(|rule| rule.references.iter().all(|lower| !left.contains(lower)))
            };
            let ready: Vec<Arc<str>> = left.iter().filter(ready).cloned().collect();
            if ready.is_empty() {
                break; // a circle: such rules are not evaluated
            }
            for id in ready {
                left.remove(&id);
                below.extend(chains.rule(&id).map(|rule| (id, (levels, Arc::clone(rule)))));
            }
            levels += 1;
        }
        Tower {
            rule: Arc::clone(rule),
            below,
            updates: vec![BTreeMap::new(); levels],
            states: BTreeMap::new(),
            limit: Cell::MIN,
            firsts: BTreeMap::new(),
        }
    }

    fn take(&mut self, detection: &Detection, counts: impl Fn(&str) -> bool) {
        for item in &detection.items {
            let Some((level, _)) = self.below.get(&item.rule).filter(|_| counts(&item.rule)) else { continue };
            let key = key(&detection.tenant, &item.rule, &item.group);
            let cell = detection.member.time.cell();
            let update = Update { cell, reference: item.reference, value: item.value.clone(), diff: 1 };
            if let Some(level) = self.updates.get_mut(*level) {
                level.entry(key).or_default().push(update);
            }
        }
    }

    fn through(&mut self, cell: Cell) -> BTreeMap<First, i64> {
        for level in 0..self.updates.len() {
            let updates = self.updates.get_mut(level).map(std::mem::take).unwrap_or_default();
            for (key, mut updates) in updates {
                let Some((_, rule)) = self.below.get(&key.rule) else { continue };
                // What a day brings lies in it; the operator takes nothing below its limit.
                updates.retain(|update| update.cell >= self.limit);
                let new = || Episodes::new(key.clone(), Arc::clone(rule), self.limit);
                let mut diff = Diff::default();
                self.states.entry(key.clone()).or_insert_with(new).apply(&mut updates, &mut diff);
                diff.removed.iter().for_each(|episode| self.hand_on(episode, -1));
                diff.added.iter().for_each(|episode| self.hand_on(episode, 1));
            }
        }
        self.limit = cell;
        self.states.retain(|_, episodes| {
            episodes.advance(cell, &mut Diff::default());
            !episodes.is_empty()
        });
        let rest = self.firsts.split_off(&cell);
        let done = std::mem::replace(&mut self.firsts, rest).into_iter();
        let done = done.flat_map(|(cell, firsts)| {
            firsts.into_iter().map(move |((key, value), count)| (First { cell, key, value }, count))
        });
        done.filter(|(_, count)| *count != 0).collect()
    }

    /// An episode counts as one item, at its first hit, for the rules that refer to its rule.
    fn hand_on(&mut self, episode: &Episode, count: i64) {
        let uppers = self.below.values().map(|(level, rule)| (Some(*level), rule)).chain([(None, &self.rule)]);
        for (level, upper) in uppers {
            for (lower, reference) in upper.references.iter().zip(0u16..) {
                if *lower != episode.key.rule {
                    continue;
                }
                let Some((group, value)) = upper.taken(reference, &episode.key.group) else { continue };
                let (cell, key) = (episode.first_hit, key(&episode.key.tenant, &upper.id, &group));
                match level {
                    None => *self.firsts.entry(cell).or_default().entry((key, value)).or_default() += count,
                    Some(level) => {
                        let update = Update { cell, reference, value, diff: count };
                        if let Some(level) = self.updates.get_mut(level) {
                            level.entry(key).or_default().push(update);
                        }
                    }
                }
            }
        }
    }
}

fn key(tenant: &Tenant, rule: &Arc<str>, group: &Group) -> EpisodeKey {
    EpisodeKey { tenant: tenant.clone(), rule: Arc::clone(rule), group: group.clone() }
}

#[cfg(test)]
mod tests {
    use cf_types::{ChainedFields, Condition, EventId, Item, Level, Member, Position, Predicate, Time, random::Random};

    use super::*;
    use crate::below::{Counted, Items};

    const DAY: Cell = 86_400;

    fn rule(
        id: &str,
        references: &[&str],
        predicate: Predicate,
        chained: Vec<Option<ChainedFields>>,
    ) -> Arc<EpisodeRule> {
        Arc::new(EpisodeRule {
            id: id.into(),
            title: id.into(),
            level: Level::Low,
            tags: Arc::from([]),
            references: references.iter().map(|id| Arc::from(*id)).collect(),
            timespan: 600,
            predicate,
            alerts: true,
            chained,
        })
    }

    /// `low` by host and user, `mid` on it, `top` remembers users by host: of `mid`, and of `low` alone.
    fn rules() -> Vec<Arc<EpisodeRule>> {
        let at_least = |n| Predicate::EventCount(Condition::at_least(n));
        let by_host = ChainedFields { group: vec![("host".into(), "host".into())], value: vec!["user".into()] };
        let seen = Predicate::FirstSeen { memory: 30 * DAY, known_min: 1 };
        vec![
            rule("x", &["x"], at_least(1), Vec::new()),
            rule("low", &["x"], at_least(2), Vec::new()),
            rule("mid", &["low"], at_least(2), Vec::new()),
            rule("top", &["mid", "low"], seen, vec![Some(by_host.clone()), Some(by_host)]),
        ]
    }

    fn detection(random: &mut Random, number: u64) -> Detection {
        let (host, user) = (random.below(2), random.below(3));
        let group =
            Group::new([("host".into(), Arc::from(format!("h{host}"))), ("user".into(), format!("u{user}").into())]);
        // Crowded about midnight, where days meet.
        let cell = random.within(1, 4) * DAY + random.within(-1_500, 1_500);
        let position = Position { origin: "s".into(), offset: number, line: number, index: 0 };
        let id = EventId::positioned(&Tenant::default(), "s", "s", number, 0);
        Detection {
            tenant: Tenant::default(),
            rule: "x".into(),
            member: Member { time: Time::from_seconds(cell), id, declared_id: None, position },
            source: "s".into(),
            entities: Vec::new(),
            items: vec![Item { rule: "low".into(), reference: 0, group, value: None }],
        }
    }

    /// The same from all items at once.
    fn expected(detections: &[Detection]) -> BTreeMap<First, u64> {
        let (rules, mut expected) = (rules(), BTreeMap::new());
        let (chains, top) = (Chains::new(&rules), &rules[3]);
        let items = |rule: &str, _: Cell, _: Cell| {
            let mut items = Items::new();
            for detection in detections.iter().filter(|_| rule == "low") {
                let (cell, group) = (detection.member.time.cell(), detection.items[0].group.clone());
                items.entry(group).or_default().push(Counted { cell, reference: 0, value: None });
            }
            items
        };
        for (reference, lower) in [(0, &rules[2]), (1, &rules[1])] {
            for episode in chains.episodes(&Tenant::default(), lower, Cell::MIN, Cell::MAX, 0, &items) {
                let (group, value) = top.taken(reference, &episode.key.group).unwrap();
                let first = First { cell: episode.first_hit, key: key(&Tenant::default(), &top.id, &group), value };
                *expected.entry(first).or_default() += 1;
            }
        }
        expected
    }

    fn got(detections: &[Detection], began: &Began, floor: Option<Cell>) -> BTreeMap<First, u64> {
        let rules = rules();
        let mut towers = Towers::new(&rules[3], &rules, began, floor);
        let mut got = BTreeMap::new();
        for day in 0..6 {
            for (first, count) in towers.through(day * DAY) {
                assert!(got.insert(first, count).is_none());
            }
            let of_day = |detection: &&Detection| detection.member.time.cell().div_euclid(DAY) == day;
            for detection in detections.iter().filter(of_day) {
                towers.take(detection, detection.member.position.offset % 10);
            }
        }
        got.extend(towers.through(Cell::MAX));
        got
    }

    #[test]
    fn day_by_day_the_episodes_are_those_of_all_items_at_once() {
        let mut found = 0;
        for seed in 0..200 {
            let mut random = Random(seed);
            let detections: Vec<_> = (0..80).map(|number| detection(&mut random, number)).collect();
            let whole = expected(&detections);
            let before = |floor: Cell| -> BTreeMap<First, u64> {
                whole.iter().filter(|(first, _)| first.cell < floor).map(|(first, n)| (first.clone(), *n)).collect()
            };
            let floor = 3 * DAY + random.within(-2_000, 2_000);
            assert_eq!(got(&detections, &Began::new(), Some(floor)), before(floor), "seed {seed}");
            assert_eq!(got(&detections, &Began::new(), None), BTreeMap::new(), "the graph has all of it");
            // Both began with the rule: the graph has nothing of before.
            let began = Began::from([("low".to_owned(), 10), ("mid".to_owned(), 10)]);
            assert_eq!(got(&detections, &began, Some(floor)), whole, "seed {seed}");
            // One began in between: what the graph has from the floor on is left out.
            let began = Began::from([("low".to_owned(), 4)]);
            let later: Vec<_> = detections.iter().filter(|d| d.member.position.offset % 10 >= 4).cloned().collect();
            let mut rest = whole.clone();
            for (first, count) in expected(&later).into_iter().filter(|(first, _)| first.cell >= floor) {
                let left = rest.get(&first).map_or(0, |held| held.saturating_sub(count));
                rest.insert(first, left);
            }
            rest.retain(|_, count| *count > 0);
            assert_eq!(got(&detections, &began, Some(floor)), rest, "seed {seed}");
            found += whole.len();
        }
        assert!(found > 2_000, "{found}");
    }
}
