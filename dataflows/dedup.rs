//! Lets each matched pair (rule, event) count once, whoever repeats the event, and hands it on to correlation.
//!
//! In: detections, those of this epoch and those recalled from the facts log; rules and limits. Out: the winners
//! themselves; their items, collapsed per epoch, so that a million failed logins of one second are one update; pairs
//! that are refused for correlation, as rejects, and for these an episode of its own for a rule that alerts by itself.
//! Items whose value is to be summed or ranked and is no number are refused here, too.
//! Key: event id. Memory: 24 bytes a pair, dropped once its hour lies below the limit by more than the longest window.
//! Output appears when the epoch is complete: of the repeats in one epoch the one with the smallest position wins.
//!
//! Refusal is decided here and not where items are counted, because only here the event's position is still known.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{
    AnchorKind, Cell, Detection, Episode, EpisodeKey, Epoch, EventId, Fixed, Item, Origin, RejectCode, Tenant, Time,
    ValueKind, assess::INDICATOR_RULE, risk::hour_of,
};
use rustc_hash::{FxHashMap, FxHashSet};
use timely::dataflow::{StreamVec, channels::pact::Exchange};

use crate::{
    chain::Levels,
    correlate::CellItem,
    detect::{Matched, Rules, unknown_origin},
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
    /// What correlation or alerts go by.
    Counted(Counted),
    /// What was refused.
    Refused(Refusal),
}

/// What comes of new pairs.
#[derive(Clone)]
pub(crate) enum Counted {
    /// Items of rules of a level, and how many more there are.
    Item(usize, CellItem, isize),
    /// An episode that is final at birth: of a rule that alerts by itself, refused for correlation.
    Born(Episode),
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
    /// Rules that want a number of each item.
    numeric: BTreeSet<Arc<str>>,
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
                    let numeric = |values| matches!(values, ValueKind::Number | ValueKind::Sum);
                    let wanting = rules.episode_rules().iter().filter(|rule| numeric(rule.predicate.values()));
                    self.numeric = wanting.map(|rule| Arc::clone(&rule.id)).collect();
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
        out.extend(items.into_iter().map(|((level, item), count)| Deduped::Counted(Counted::Item(level, item, count))));
        self.limit = limit;
        self.forget();
    }

    /// Whether this pair is met for the first time; remembers it.
    fn is_new(&mut self, one: &Matched) -> bool {
        let (rule, member) = (counted_as(&one.detection), &one.detection.member);
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
        self.refuse_values(&mut detection, origin.as_ref(), out);
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

    /// Keeps items out whose value is no number where one is wanted, each named in a reject.
    fn refuse_values(&self, detection: &mut Detection, origin: Option<&Arc<Origin>>, out: &mut Vec<Deduped>) {
        if self.numeric.is_empty() || !detection.items.iter().any(|item| self.numeric.contains(&item.rule)) {
            return;
        }
        let mut refused = Vec::new();
        detection.items.retain(|item| {
            let Some(value) = item.value.as_deref().filter(|_| self.numeric.contains(&item.rule)) else { return true };
            let number = Fixed::parse(value);
            refused.extend(number.err().map(|why| (Arc::clone(&item.rule), Arc::<str>::from(value), why)));
            number.is_ok()
        });
        let Some(origin) = origin else { return }; // it was told when it came first
        out.extend(refused.into_iter().map(|(rule, value, why)| {
            let value: String = value.chars().take(VALUE_CHARS_SHOWN).collect();
            Deduped::Refused(Refusal {
                origin: Arc::clone(origin),
                position: detection.member.position.clone(),
                code: RejectCode::NotANumber,
                reason: shortened(format!("\"{value}\" is {why}: not counted by {rule}")),
                time: detection.member.time,
            })
        }));
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

/// Characters of a value that a reject shows.
const VALUE_CHARS_SHOWN: usize = 64;

/// What a detection counts once as: its rule, and for the rule of indicators the pattern, since one event may meet several.
fn counted_as(detection: &Detection) -> &Arc<str> {
    let pattern = detection.items.first().and_then(|item| item.value.as_ref());
    pattern.filter(|_| &*detection.rule == INDICATOR_RULE).unwrap_or(&detection.rule)
}

/// Recalled ones first: they were before this epoch. Ids differ nearly always, so they say it first.
fn order(matched: &Matched) -> impl Ord + '_ {
    let Detection { rule, member, .. } = &matched.detection;
    (member.id, rule, matched.origin.is_some(), &member.position)
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
        Deduped::Counted(Counted::Born(Episode {
            key,
            kind: AnchorKind::Item,
            anchor: cell,
            last_cell: cell,
            first_hit: cell,
            count: 1,
            reference_counts: vec![1],
            peak: 1,
        }))
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

/// A reject's reason has at most 1,024 bytes.
fn shortened(reason: String) -> String {
    if reason.len() <= 1_024 { reason } else { reason.chars().take(250).chain("...".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use cf_types::{Condition, EpisodeRule, Group, Level, Member, Position, Predicate};

    use super::*;
    use crate::detect::Matcher;

    struct OneRule([Arc<EpisodeRule>; 1]);

    impl Rules for OneRule {
        fn episode_rules(&self) -> &[Arc<EpisodeRule>] {
            &self.0
        }

        fn matcher(self: Arc<Self>) -> Box<dyn Matcher> {
            unreachable!("nothing is matched here")
        }
    }

    fn failures() -> Local {
        Local::Rules(Arc::new(OneRule([Arc::new(EpisodeRule {
            id: "failures".into(),
            title: "Failures".into(),
            level: Level::Low,
            tags: Arc::from([]),
            references: vec!["failed".into()],
            timespan: 300,
            predicate: Predicate::EventCount(Condition::at_least(5)),
            alerts: true,
            chained: Vec::new(),
        })])))
    }

    fn failed(number: u64, cell: Cell) -> Matched {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let item = Item { rule: "failures".into(), reference: 0, group: Group::new([]), value: None };
        let position = Position { origin: "log".into(), offset: number, line: number, index: 0 };
        let member = Member { time: Time::from_seconds(cell), id: EventId(id), declared_id: None, position };
        let (tenant, rule, source) = (Tenant::default(), "failed".into(), "log".into());
        let detection = Detection { tenant, rule, member, source, entities: Vec::new(), items: vec![item] };
        Matched { origin: Some(unknown_origin(&detection)), detection, ahead: false }
    }

    #[test]
    fn a_burst_costs_one_update_a_second_and_epoch() {
        let mut state = Dedup::default();
        let (mut updates, mut counted) = (0, 0);
        for epoch in 0..10_u64 {
            let burst = (0..2_000).map(|n| failed(epoch * 2_000 + n, i64::try_from(epoch * 2 + n % 4).unwrap()));
            let locals = if epoch == 0 { vec![failures()] } else { Vec::new() };
            let mut out = Vec::new();
            state.epoch(burst.collect(), locals, &mut out);
            for given in out {
                if let Deduped::Counted(Counted::Item(_, _, count)) = given {
                    updates += 1;
                    counted += count;
                }
            }
        }
        // Four seconds in each of ten epochs; each worker has a state of its own.
        assert_eq!((updates, counted), (4 * 10, 20_000));
    }
}
