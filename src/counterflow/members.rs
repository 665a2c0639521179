//! Which events belong to which alert: looked up by rule, group and extent, since the graph keeps counts only.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use cf_types::{Alert, Cell, Detection, EventId, Group, Member, Position, Time};

/// The detections of the horizon, by rule and group, in the order of event time.
///
/// Memory: about 150 bytes a member; entries leave by [`Members::forget_before`]. A group that has more than
/// [`Members::PER_GROUP_MAX`] members keeps the first and the last of them: their number is the graph's and stays exact.
#[derive(Default)]
pub(crate) struct Members {
    groups: HashMap<(Arc<str>, Group), BTreeSet<Member>>,
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

    /// Adds an epoch's detections.
    pub(crate) fn add(&mut self, detections: &[Detection]) {
        for detection in detections {
            for item in &detection.items {
                let members = self.groups.entry((Arc::clone(&item.rule), item.group.clone())).or_default();
                members.insert(detection.member.clone());
                if members.len() > Self::PER_GROUP_MAX {
                    let middle = members.iter().nth(Self::PER_GROUP_MAX / 2).cloned();
                    middle.map(|member| members.remove(&member));
                }
            }
        }
    }

    /// The members of an alert: the first `ends` and the last `ends` of its extent.
    pub(crate) fn of(&self, alert: &Alert, ends: usize) -> Extent {
        let Some(members) = self.groups.get(&(Arc::clone(&alert.rule), alert.group.clone())) else {
            return Extent::default();
        };
        let range = || {
            members.range((
                Bound::Included(floor(alert.anchor)),
                Bound::Excluded(floor(alert.last_cell.saturating_add(1))),
            ))
        };
        let mut inline: Vec<Member> = range().take(ends).cloned().collect();
        let after = inline.last().cloned();
        let mut tail: Vec<Member> = range()
            .rev()
            .take(ends)
            .take_while(|member| after.as_ref().is_none_or(|last| *member > last))
            .cloned()
            .collect();
        tail.reverse();
        inline.extend(tail);
        // The same event may stand for two references of one rule: it is one member.
        inline.dedup_by(|a, b| a.id == b.id);
        inline.sort_by_cached_key(|member| (member.time, member.shown_id()));
        Extent { first: range().next().map(|m| m.time), last: range().next_back().map(|m| m.time), inline }
    }

    /// Forgets the members of rules that begin empty.
    pub(crate) fn forget_rules(&mut self, rules: &[String]) {
        if !rules.is_empty() {
            let rules: BTreeSet<&str> = rules.iter().map(String::as_str).collect();
            self.groups.retain(|(rule, _), _| !rules.contains(&**rule));
        }
    }

    /// Forgets what lies before a cell: no alert that can still change reaches there.
    pub(crate) fn forget_before(&mut self, cell: Cell) {
        let floor = floor(cell);
        self.groups.retain(|_, members| {
            if members.first().is_some_and(|first| *first < floor) {
                *members = members.split_off(&floor);
            }
            !members.is_empty()
        });
    }
}

/// The smallest member of a cell.
fn floor(cell: Cell) -> Member {
    Member { time: Time::from_seconds(cell), id: EventId::default(), declared_id: None, position: Position::default() }
}
