//! Which events belong to which alert: looked up by rule, group and extent, since the graph keeps counts only. Of a
//! chained correlation these are the events of the episodes that it stands on ([`crate::below`]).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use cf_types::{Alert, Cell, Detection, EpisodeRule, EventId, Group, Member, Position, Time};

use crate::below::{Chains, Counted, Items};

/// The detections of the horizon, by rule and group, in the order of event time.
///
/// Memory: about 150 bytes a member, twice that for members with a value of correlations that others stand on; entries
/// leave by [`Members::forget_before`]. A group that has more than [`Members::PER_GROUP_MAX`] members keeps the first and the last
/// of them: their number is the graph's and stays exact.
#[derive(Default)]
pub(crate) struct Members {
    chains: Chains,
    rules: HashMap<Arc<str>, HashMap<Group, Held>>,
}

/// The members of one group.
#[derive(Default)]
struct Held {
    members: BTreeSet<Member>,
    /// Of a correlation that others stand on: what a member counts as, unless that is (0, no value) alone.
    counted: BTreeMap<Member, BTreeSet<(u16, Option<Arc<str>>)>>,
}

impl Held {
    /// Notes what a member counts as. Nearly all count as the first reference without a value: those are not noted.
    fn count(&mut self, member: &Member, is_new: bool, as_what: (u16, Option<Arc<str>>)) {
        let usual = (0, None);
        if let Some(counted) = self.counted.get_mut(member) {
            counted.insert(as_what);
        } else if as_what != usual {
            let mut counted = BTreeSet::from([as_what]);
            if !is_new {
                counted.insert(usual);
            }
            self.counted.insert(member.clone(), counted);
        }
    }
}

/// What an alert shows of its members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extent {
    /// Event time of the first.
    pub(crate) first: Option<Time>,
    /// Event time of the last.
    pub(crate) last: Option<Time>,
    /// The first ones, and the last ones that are not among them, by event time, then id.
    pub(crate) inline: Vec<Member>,
}

impl Members {
    /// More members of one group than these are not held one by one.
    pub(crate) const PER_GROUP_MAX: usize = 1_000_000;

    /// From now on these are the rules.
    pub(crate) fn set_rules(&mut self, rules: &[Arc<EpisodeRule>]) {
        self.chains = Chains::new(rules);
    }

    /// Adds an epoch's detections.
    pub(crate) fn add(&mut self, detections: &[Detection]) {
        for detection in detections {
            for item in &detection.items {
                let groups = self.rules.entry(Arc::clone(&item.rule)).or_default();
                let held = groups.entry(item.group.clone()).or_default();
                let is_new = held.members.insert(detection.member.clone());
                if self.chains.is_below(&item.rule) {
                    held.count(&detection.member, is_new, (item.reference, item.value.clone()));
                }
                if held.members.len() > Self::PER_GROUP_MAX
                    && let Some(middle) = held.members.iter().nth(Self::PER_GROUP_MAX / 2).cloned()
                {
                    held.members.remove(&middle);
                    held.counted.remove(&middle);
                }
            }
        }
    }

    /// The members of an alert: the first `ends` and the last `ends` of its extent.
    pub(crate) fn of(&self, alert: &Alert, ends: usize) -> Extent {
        let extent = (alert.anchor, alert.last_cell);
        let lookup = |rule: &str, from: Cell, to: Cell| self.items(rule, from, to);
        let below = self.chains.below(&alert.tenant, &alert.rule, &alert.group, extent, &lookup);
        let own = (&alert.rule, &alert.group, alert.anchor, alert.last_cell);
        let below = below.iter().map(|one| (&one.key.rule, &one.key.group, one.anchor, one.last_cell));
        let (mut head, mut tail) = (BTreeSet::new(), BTreeSet::new());
        for (rule, group, from, to) in std::iter::once(own).chain(below) {
            let Some(held) = self.rules.get(rule).and_then(|groups| groups.get(group)) else { continue };
            let range = || held.members.range(between(from, to));
            head.extend(range().take(ends));
            tail.extend(range().rev().take(ends));
        }
        let mut inline: Vec<Member> = head.iter().take(ends).copied().cloned().collect();
        let after = inline.last().cloned();
        let behind = |member: &&&Member| after.as_ref().is_none_or(|last| **member > last);
        let mut rest: Vec<Member> = tail.iter().rev().take(ends).take_while(behind).copied().cloned().collect();
        rest.reverse();
        inline.extend(rest);
        // The same event may stand for two references of one rule: it is one member.
        inline.dedup_by(|a, b| a.id == b.id);
        inline.sort_by_cached_key(|member| (member.time, member.shown_id()));
        Extent { first: head.first().map(|member| member.time), last: tail.last().map(|member| member.time), inline }
    }

    /// The items of a correlation between two cells.
    fn items(&self, rule: &str, from: Cell, to: Cell) -> Items {
        let mut items = Items::new();
        for (group, held) in self.rules.get(rule).into_iter().flatten() {
            let mut counted = Vec::new();
            for member in held.members.range(between(from, to)) {
                let cell = member.time.cell();
                match held.counted.get(member) {
                    None => counted.push(Counted { cell, reference: 0, value: None }),
                    Some(all) => counted.extend(all.iter().map(|(reference, value)| Counted {
                        cell,
                        reference: *reference,
                        value: value.clone(),
                    })),
                }
            }
            items.insert(group.clone(), counted);
        }
        items
    }

    /// Forgets the members of rules that begin empty.
    pub(crate) fn forget_rules(&mut self, rules: &[String]) {
        for rule in rules {
            self.rules.remove(rule.as_str());
        }
    }

    /// Forgets what lies before a cell: no alert that can still change reaches there.
    pub(crate) fn forget_before(&mut self, cell: Cell) {
        let floor = floor(cell);
        self.rules.retain(|_, groups| {
            groups.retain(|_, held| {
                if held.members.first().is_some_and(|first| *first < floor) {
                    held.members = held.members.split_off(&floor);
                    held.counted = held.counted.split_off(&floor);
                }
                !held.members.is_empty()
            });
            !groups.is_empty()
        });
    }
}

/// The members whose cells lie in an extent.
fn between(from: Cell, to: Cell) -> (Bound<Member>, Bound<Member>) {
    (Bound::Included(floor(from)), Bound::Excluded(floor(to.saturating_add(1))))
}

/// The smallest member of a cell.
fn floor(cell: Cell) -> Member {
    Member { time: Time::from_seconds(cell), id: EventId::default(), declared_id: None, position: Position::default() }
}
