//! Lets each matched pair (rule, event) count once, whoever repeats the event, and hands it on to correlation.
//!
//! In: detections, those of this epoch and those recalled from the facts log; rules and limits. Out: the winners
//! themselves; their items, collapsed per epoch, so that a million failed logins of one second are one update; pairs
//! that are refused for correlation, as rejects, and for these an episode of its own for a rule that alerts by itself.
//! Key: event id. Memory: 24 bytes a pair, dropped once its hour lies below the limit by more than the longest window.
//! Output appears when the epoch is complete: of the repeats in one epoch the one with the smallest position wins.
//!
//! Refusal is decided here and not where items are counted, because only here the event's position is still known.

use std::{collections::BTreeMap, sync::Arc};

use cf_types::{
    AnchorKind, Cell, Detection, Episode, EpisodeKey, Epoch, EventId, Item, Origin, RejectCode, Tenant, Time,
    record::Framing, risk::hour_of,
};
use rustc_hash::{FxHashMap, FxHashSet};
use timely::dataflow::{StreamVec, channels::pact::Exchange};

use crate::{
    chain::Levels,
    correlate::CellItem,
    detect::{Matched, Rules},
    epochs::{per_epoch_with, spread},
    sink::Refusal,
};

/// What every worker knows alike.
#[derive(Clone)]
pub(crate) enum Local {
    /// The rules of this epoch and on.
    Rules(Arc<dyn Rules>),
    /// Cells below it are refused in later epochs.
    Limit(Cell),
}

/// What this operator gives.
#[derive(Clone)]
pub(crate) enum Deduped {
    /// A pair that was not known.
    Detection(Detection),
    /// Items of rules of a level, and how many more there are.
    Item(usize, CellItem, isize),
    /// An episode that is final at birth: of a rule that alerts by itself, refused for correlation.
    Born(Episode),
    /// What was refused.
    Refused(Refusal),
}

/// Drops repeats. Without `expires`, the input is bounded and nothing is forgotten.
pub(crate) fn dedup<'s>(
    matched: StreamVec<'s, Epoch, Matched>,
    locals: StreamVec<'s, Epoch, Local>,
    expires: bool,
) -> StreamVec<'s, Epoch, Deduped> {
    let by_event = Exchange::new(|matched: &Matched| spread(&matched.detection.member.id.0));
    let mut state = Dedup { expires, ..Dedup::default() };
    per_epoch_with(matched, by_event, locals, "Dedup", move |_epoch, matched, locals, out| {
        state.epoch(matched, locals, out);
    })
}

/// The state of one worker: pure.
#[derive(Default)]
struct Dedup {
    expires: bool,
    seen: FxHashSet<(u32, EventId)>,
    /// What to forget when its hour has passed.
    hours: BTreeMap<i64, Vec<(u32, EventId)>>,
    /// Small numbers for rule ids; they never leave this worker. Grows with the rules ever loaded.
    numbers: FxHashMap<Arc<str>, u32>,
    levels: Levels,
    longest: Cell,
    limit: Option<Cell>,
}

impl Dedup {
    fn epoch(&mut self, mut matched: Vec<Matched>, locals: Vec<Local>, out: &mut Vec<Deduped>) {
        let mut limit = self.limit;
        for local in locals {
            match local {
                Local::Rules(rules) => {
                    self.levels = Levels::of(rules.episode_rules());
                    self.longest = rules.episode_rules().iter().map(|rule| rule.timespan).max().unwrap_or(0);
                }
                Local::Limit(cell) => limit = limit.max(Some(cell)),
            }
        }
        matched.sort_unstable_by(|a, b| order(a).cmp(&order(b)));
        let mut items = FxHashMap::default();
        for one in matched {
            if self.is_new(&one) {
                self.give(one, &mut items, out);
            }
        }
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_unstable();
        out.extend(items.into_iter().map(|((level, item), count)| Deduped::Item(level, item, count)));
        self.limit = limit;
        self.forget();
    }

    /// Whether this pair is met for the first time; remembers it.
    fn is_new(&mut self, one: &Matched) -> bool {
        let Detection { rule, member, .. } = &one.detection;
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let number = match self.numbers.get(rule) {
            Some(number) => *number,
            None => *self.numbers.entry(Arc::clone(rule)).or_insert(next),
        };
        let pair = (number, member.id);
        let new = self.seen.insert(pair);
        if new && self.expires {
            // By its receipt if its time is ahead of it: else a far future time would be kept for as long.
            let received = one.origin.as_ref().filter(|_| one.ahead).map(|origin| origin.received_at);
            self.hours.entry(hour_of(received.unwrap_or(member.time).cell())).or_default().push(pair);
        }
        new
    }

    fn give(&self, one: Matched, items: &mut FxHashMap<(usize, CellItem), isize>, out: &mut Vec<Deduped>) {
        let Matched { mut detection, origin, ahead } = one;
        let cell = detection.member.time.cell();
        let late = self.limit.filter(|limit| cell < *limit);
        if ahead || late.is_some() {
            // Its items go, so that recalling it later does not count what was refused now.
            let refused = std::mem::take(&mut detection.items);
            refuse(&detection, origin.as_ref(), refused, late.filter(|_| !ahead), out);
        }
        for item in &detection.items {
            let Some(level) = self.levels.level(&item.rule) else { continue };
            *items.entry((level, cell_item(&detection.tenant, cell, item))).or_default() += 1;
        }
        if origin.is_some() {
            out.push(Deduped::Detection(detection));
        }
    }

    /// Forgets the hours that no item can come from any more.
    fn forget(&mut self) {
        let Some(limit) = self.limit else { return };
        let first = hour_of(limit.saturating_sub(self.longest));
        while let Some(entry) = self.hours.first_entry().filter(|entry| *entry.key() < first) {
            for pair in entry.remove() {
                self.seen.remove(&pair);
            }
        }
    }
}

/// Recalled ones first: they were before this epoch.
fn order(matched: &Matched) -> impl Ord + '_ {
    let Detection { rule, member, .. } = &matched.detection;
    (rule, member.id, matched.origin.is_some(), &member.position)
}

/// An item at its cell.
fn cell_item(tenant: &Tenant, cell: Cell, item: &Item) -> CellItem {
    CellItem {
        key: EpisodeKey { tenant: tenant.clone(), rule: Arc::clone(&item.rule), group: item.group.clone() },
        cell,
        reference: item.reference,
        value: item.value.clone(),
    }
}

/// Keeps items out of correlation: a rule that alerts by itself has its alert all the same, final at birth; the other
/// rules are named in a reject.
fn refuse(
    detection: &Detection,
    origin: Option<&Arc<Origin>>,
    items: Vec<Item>,
    limit: Option<Cell>,
    out: &mut Vec<Deduped>,
) {
    let cell = detection.member.time.cell();
    let (own, others): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.rule == detection.rule);
    out.extend(own.iter().map(|item| {
        let CellItem { key, .. } = cell_item(&detection.tenant, cell, item);
        Deduped::Born(Episode {
            key,
            kind: AnchorKind::Item,
            anchor: cell,
            last_cell: cell,
            first_hit: cell,
            count: 1,
            reference_counts: vec![1],
            peak: 1,
        })
    }));
    if others.is_empty() {
        return;
    }
    let mut rules: Vec<&str> = others.iter().map(|item| &*item.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let rules = rules.join(", ");
    let (code, reason) = match limit {
        Some(limit) => (RejectCode::TooLate, format!("older than {}, the limit of {rules}", Time::from_seconds(limit))),
        None => (RejectCode::TooFarAhead, format!("too far ahead of its receipt for {rules}")),
    };
    out.push(Deduped::Refused(Refusal {
        origin: origin.map_or_else(|| unknown_origin(detection), Arc::clone),
        position: detection.member.position.clone(),
        code,
        reason: shortened(reason),
        time: detection.member.time,
    }));
}

/// A recalled detection does not say how its record came.
fn unknown_origin(detection: &Detection) -> Arc<Origin> {
    Arc::new(Origin {
        tenant: detection.tenant.clone(),
        source: Arc::clone(&detection.source),
        received_at: detection.member.time,
        year: None,
        framing: Framing::Record,
    })
}

/// A reject's reason has at most 1,024 bytes.
fn shortened(reason: String) -> String {
    if reason.len() <= 1_024 { reason } else { reason.chars().take(250).chain("...".chars()).collect() }
}
