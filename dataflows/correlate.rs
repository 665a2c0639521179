//! Correlates: keeps the episodes of every (rule, group) as a collection.
//!
//! In: items (a collection: what is taken back is subtracted), rule sets, and limits. Out: the episodes as a
//! collection, what became of their ids, and the items that came too late. Key: [`EpisodeKey`]; items are exchanged by
//! it, rules and limits must reach every worker. Memory: per key what [`Episodes`] keeps; a key leaves when its last
//! item lies more than a timespan below the limit. Output appears with the epoch, once all three inputs have passed it:
//! nothing waits for a watermark.
//!
//! In one epoch: first the rule set of that epoch, if one came, is put in force; then the items are taken, against the
//! limit of *earlier* epochs, so that the order inside an epoch does not matter; then limits of the epoch are put in
//! force for the next ones, which seals. So an episode may come and be sealed in one epoch; sealed episodes stay in the
//! collection for ever ([`Lineage::Sealed`] tells it).
//!
//! Rule sets: at most one per epoch, the whole set each time, a copy for each worker (no exchange here). Items of rules
//! that the set does not have are dropped. The episodes of a rule that leaves go, except the sealed. A rule whose
//! predicate or timespan changed is applied anew to the kept items, at and after the limit; one whose references
//! changed begins empty. Title, level and tags are not in an episode: who shows them joins the rule.
//!
//! Everything an epoch gives is sorted; no output depends on the number of workers or the order of arrival.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    mem,
    sync::Arc,
};

use cf_types::{Cell, Episode, EpisodeKey, EpisodeRule, Epoch, Lineage};
use differential_dataflow::{AsCollection, VecCollection};
use rustc_hash::FxHasher;
use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::{Exchange, Pipeline},
    operators::{
        Capability,
        generic::{OutputBuilder, builder_rc::OperatorBuilder},
        vec::Map,
    },
};

use crate::{
    episode::{Diff, Episodes, OverBudget, Update},
    waits::Waits,
};

/// An item of one episode rule: the unit that correlation counts. A collection of them, so equal ones add up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellItem {
    /// Rule and group.
    pub key: EpisodeKey,
    /// When.
    pub cell: Cell,
    /// Which of the rule's references it stands for.
    pub reference: u16,
    /// The value, for rules that look at values.
    pub value: Option<Arc<str>>,
}

/// What a rule that compares with the time before is told of what was before it was there: known then, and no hit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Remembered {
    /// Rule and group.
    pub key: EpisodeKey,
    /// The value, for rules that look at values.
    pub value: Option<Arc<str>>,
    /// When; it may lie below the limit.
    pub cell: Cell,
    /// How many items.
    pub count: u64,
}

/// In all epochs after the one it comes in, items before this cell are refused. A lower one than before does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Limit(pub Cell);

/// What [`correlate`] gives.
pub struct Correlated<'scope> {
    /// All episodes, open and sealed.
    pub episodes: VecCollection<'scope, Epoch, Episode, isize>,
    /// What became of ids: superseded, split, sealed.
    pub lineage: StreamVec<'scope, Epoch, Lineage>,
    /// Items that were not counted.
    pub refused: StreamVec<'scope, Epoch, Refused>,
    /// The limits at which a worker has something to seal or to drop: the least of the sum is the next.
    pub waits: StreamVec<'scope, Epoch, (Cell, isize)>,
}

/// Why an item was not counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// It came below the limit; each once per epoch.
    BelowLimit(CellItem),
    /// So many items of a key would have brought more values than there may be.
    OverBudget(OverBudget),
}

/// Finds the episodes of all rules in all groups.
#[must_use]
pub fn correlate<'scope>(
    items: VecCollection<'scope, Epoch, CellItem, isize>,
    rules: StreamVec<'scope, Epoch, Arc<Vec<Arc<EpisodeRule>>>>,
    limits: StreamVec<'scope, Epoch, Limit>,
) -> Correlated<'scope> {
    let nothing = limits.clone().flat_map(|_| None);
    correlate_remembering(items, rules, limits, nothing)
}

/// The same with what is remembered of before. What is said of rules that are not there, or that remember nothing, is
/// dropped.
#[must_use]
pub fn correlate_remembering<'scope>(
    items: VecCollection<'scope, Epoch, CellItem, isize>,
    rules: StreamVec<'scope, Epoch, Arc<Vec<Arc<EpisodeRule>>>>,
    limits: StreamVec<'scope, Epoch, Limit>,
    remembered: StreamVec<'scope, Epoch, Remembered>,
) -> Correlated<'scope> {
    let by_key = Exchange::new(|(item, _, _): &(CellItem, Epoch, isize)| route(&item.key));
    let mut builder = OperatorBuilder::new("Correlate".to_owned(), items.inner.scope());
    let mut items = builder.new_input(items.inner, by_key);
    let mut rules = builder.new_input(rules, Pipeline);
    let mut limits = builder.new_input(limits, Pipeline);
    let mut remembered = builder.new_input(remembered, Exchange::new(|one: &Remembered| route(&one.key)));
    let (episodes_out, episodes) = builder.new_output::<Vec<(Episode, Epoch, isize)>>();
    let (lineage_out, lineage) = builder.new_output::<Vec<Lineage>>();
    let (refused_out, refused) = builder.new_output::<Vec<Refused>>();
    let (waits_out, waits) = builder.new_output::<Vec<(Cell, isize)>>();
    let mut episodes_out = OutputBuilder::from(episodes_out);
    let mut lineage_out = OutputBuilder::from(lineage_out);
    let mut refused_out = OutputBuilder::from(refused_out);
    let mut waits_out = OutputBuilder::from(waits_out);

    builder.build(move |_capabilities| {
        let mut keys = Keys::default();
        let mut waiting: BTreeMap<Epoch, Waiting> = BTreeMap::new();
        move |frontiers| {
            items.for_each(|stamp, batch| {
                for (item, epoch, diff) in batch.drain(..) {
                    let waiting = waiting.entry(epoch).or_default();
                    waiting.hold(|port| stamp.delayed(&epoch, port));
                    waiting.input.items.push((item, diff));
                }
            });
            rules.for_each(|stamp, batch| {
                let Some(epoch) = stamp.least().copied() else { return };
                let waiting = waiting.entry(epoch).or_default();
                waiting.hold(|port| stamp.delayed(&epoch, port));
                waiting.input.rules = batch.drain(..).next_back().or(waiting.input.rules.take());
            });
            limits.for_each(|stamp, batch| {
                let Some(epoch) = stamp.least().copied() else { return };
                let waiting = waiting.entry(epoch).or_default();
                waiting.hold(|port| stamp.delayed(&epoch, port));
                waiting.input.limit = batch.drain(..).max().max(waiting.input.limit);
            });
            remembered.for_each(|stamp, batch| {
                let Some(epoch) = stamp.least().copied() else { return };
                let waiting = waiting.entry(epoch).or_default();
                waiting.hold(|port| stamp.delayed(&epoch, port));
                waiting.input.remembered.append(batch);
            });

            let mut episodes_out = episodes_out.activate();
            let mut lineage_out = lineage_out.activate();
            let mut refused_out = refused_out.activate();
            let mut waits_out = waits_out.activate();
            while let Some(first) = waiting.first_entry() {
                let epoch = *first.key();
                if frontiers.iter().any(|frontier| frontier.less_equal(&epoch)) {
                    break; // more of this epoch may come
                }
                let Waiting { held: Some([for_episodes, for_lineage, for_refused, for_waits]), input } = first.remove()
                else {
                    continue;
                };
                let output = keys.epoch(input);
                let rows = output.episodes.into_iter().map(|(episode, diff)| (episode, epoch, diff));
                episodes_out.session(&for_episodes).give_iterator(rows);
                lineage_out.session(&for_lineage).give_iterator(output.lineage.into_iter());
                refused_out.session(&for_refused).give_iterator(output.refused.into_iter());
                waits_out.session(&for_waits).give_iterator(output.waits.into_iter());
            }
        }
    });
    Correlated { episodes: episodes.as_collection(), lineage, refused, waits }
}

/// An epoch that is not complete yet.
#[derive(Default)]
struct Waiting {
    held: Option<[Capability<Epoch>; 4]>, // one per output
    input: Input,
}

impl Waiting {
    fn hold(&mut self, capability: impl Fn(usize) -> Capability<Epoch>) {
        self.held.get_or_insert_with(|| [0, 1, 2, 3].map(capability));
    }
}

/// What a worker gets in one epoch.
#[derive(Default)]
struct Input {
    rules: Option<Arc<Vec<Arc<EpisodeRule>>>>,
    items: Vec<(CellItem, isize)>,
    limit: Option<Limit>,
    remembered: Vec<Remembered>,
}

/// What it gives, each part sorted.
#[derive(Default)]
struct Output {
    episodes: Vec<(Episode, isize)>,
    lineage: Vec<Lineage>,
    refused: Vec<Refused>,
    waits: Vec<(Cell, isize)>,
}

/// Where a key's items go. It need not be the same in another run: nothing that leaves the operator depends on it.
fn route(key: &EpisodeKey) -> u64 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// All keys of one worker.
#[derive(Default)]
struct Keys {
    rules: HashMap<Arc<str>, Arc<EpisodeRule>>,
    limit: Option<Cell>,
    /// Where a key's slot is. Looked up, never gone through: its order is not defined.
    index: HashMap<EpisodeKey, usize>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// When a slot has to be looked at: once the limit has reached this cell. One entry per slot; it may be too early,
    /// because an item in order would move it every time.
    due: BTreeSet<(Cell, usize)>,
    waits: Waits,
}

struct Slot {
    episodes: Episodes,
    updates: Vec<Update>,
    touched: bool,
    due: Option<Cell>,
}

impl Keys {
    /// Takes all of one epoch.
    fn epoch(&mut self, input: Input) -> Output {
        let mut diff = Diff::default();
        let mut touched = Vec::new();
        if let Some(rules) = input.rules {
            self.set_rules(&rules, &mut touched, &mut diff);
        }
        self.remember(input.remembered, &mut touched, &mut diff);
        let refused = self.take(input.items, &mut touched);
        for at in touched {
            self.apply(at, &mut diff);
        }
        if let Some(Limit(limit)) = input.limit {
            self.advance(limit, &mut diff);
        }
        let waits = self.waits.until(self.due.first().map(|(limit, _)| *limit)).collect();
        Output::of(diff, refused, waits)
    }

    fn set_rules(&mut self, rules: &[Arc<EpisodeRule>], touched: &mut Vec<usize>, diff: &mut Diff) {
        self.rules = rules.iter().map(|rule| (Arc::clone(&rule.id), Arc::clone(rule))).collect();
        for at in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { continue };
            match self.rules.get(&slot.episodes.key().rule) {
                Some(rule) if rule == slot.episodes.rule() => {}
                Some(rule) if slot.episodes.rule().can_serve(rule) => {
                    slot.episodes.set_rule(Arc::clone(rule));
                    slot.touched = true;
                    touched.push(at);
                }
                Some(_) | None => self.remove(at, diff),
            }
        }
    }

    /// Gives what was before to the keys that remember. Sorted, because there may not be room for all.
    fn remember(&mut self, mut remembered: Vec<Remembered>, touched: &mut Vec<usize>, diff: &mut Diff) {
        remembered.sort_unstable();
        for Remembered { key, value, cell, count } in remembered {
            if !self.rules.get(&key.rule).is_some_and(|rule| rule.remembers()) {
                continue;
            }
            let Some((at, slot)) = self.slot(key) else { continue };
            let items = slot.episodes.remember(cell, value.as_ref(), count);
            if items > 0 {
                diff.over_budget.push(OverBudget { key: slot.episodes.key().clone(), cell, items });
            }
            if !mem::replace(&mut slot.touched, true) {
                touched.push(at);
            }
        }
    }

    /// Gives each item to its key; gives back those that are too late.
    fn take(&mut self, items: Vec<(CellItem, isize)>, touched: &mut Vec<usize>) -> Vec<(CellItem, isize)> {
        let mut refused = Vec::new();
        for (item, diff) in items {
            if !self.rules.contains_key(&item.key.rule) {
                continue;
            }
            if self.limit.is_some_and(|limit| item.cell < limit) {
                refused.push((item, diff));
                continue;
            }
            let CellItem { key, cell, reference, value } = item;
            let Some((at, slot)) = self.slot(key) else { continue };
            let diff = i64::try_from(diff).unwrap_or(i64::MAX);
            slot.updates.push(Update { cell, reference, value, diff });
            if !mem::replace(&mut slot.touched, true) {
                touched.push(at);
            }
        }
        refused
    }

    /// The slot of a key, made if it has none; `None` if its rule is not known.
    fn slot(&mut self, key: EpisodeKey) -> Option<(usize, &mut Slot)> {
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None => {
                let rule = Arc::clone(self.rules.get(&key.rule)?);
                let at = self.free.pop().unwrap_or(self.slots.len());
                self.index.insert(key.clone(), at);
                let episodes = Episodes::new(key, rule, self.limit.unwrap_or(Cell::MIN));
                let slot = Some(Slot { episodes, updates: Vec::new(), touched: false, due: None });
                match self.slots.get_mut(at) {
                    Some(empty) => *empty = slot,
                    None => self.slots.push(slot),
                }
                at
            }
        };
        Some((at, self.slots.get_mut(at)?.as_mut()?))
    }

    fn apply(&mut self, at: usize, diff: &mut Diff) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        slot.touched = false;
        if let Some(limit) = self.limit {
            slot.episodes.advance(limit, diff); // it was not due, so this seals nothing
        }
        slot.episodes.apply(&mut slot.updates, diff);
        // Room is kept for the next epoch only where it is worth it.
        slot.updates.shrink_to(UPDATES_KEPT);
        self.settle(at);
    }

    /// Raises the limit of the keys that have something to seal or to drop. The others learn it when they are due:
    /// items below it do not reach them.
    fn advance(&mut self, limit: Cell, diff: &mut Diff) {
        if self.limit.is_some_and(|before| limit <= before) {
            return;
        }
        self.limit = Some(limit);
        while let Some((_, at)) = self.due.first().copied().filter(|(due, _)| *due <= limit) {
            self.due.pop_first();
            let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { continue };
            slot.due = None;
            slot.episodes.advance(limit, diff);
            self.settle(at);
        }
    }

    /// Frees a slot that keeps nothing, and notes when another has to be looked at.
    fn settle(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        if let Some(due) = slot.episodes.due().filter(|due| slot.due.is_none_or(|noted| *due < noted)) {
            if let Some(noted) = slot.due.replace(due) {
                self.due.remove(&(noted, at));
            }
            self.due.insert((due, at));
        }
        if slot.episodes.is_empty() {
            self.free(at);
        }
    }

    /// Gives up a key whose rule is gone.
    fn remove(&mut self, at: usize, diff: &mut Diff) {
        if let Some(slot) = self.free(at) {
            slot.episodes.clear(diff);
        }
    }

    fn free(&mut self, at: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.index.remove(slot.episodes.key());
        if let Some(due) = slot.due {
            self.due.remove(&(due, at));
        }
        self.free.push(at);
        Some(slot)
    }
}

/// Room for updates that a key keeps between epochs.
const UPDATES_KEPT: usize = 4;

impl Output {
    /// Sorts, because keys were gone through in the order of their slots, which depends on the order of arrival.
    fn of(mut diff: Diff, mut refused: Vec<(CellItem, isize)>, waits: Vec<(Cell, isize)>) -> Output {
        let removed = diff.removed.into_iter().map(|episode| (episode, -1));
        let added = diff.added.into_iter().map(|episode| (episode, 1));
        let mut episodes: Vec<_> = removed.chain(added).collect();
        episodes.sort_unstable();
        let mut lineage = diff.lineage;
        lineage.extend(diff.sealed.into_iter().map(Lineage::Sealed));
        lineage.sort_unstable();
        refused.sort_unstable();
        let refused = refused
            .chunk_by(|(a, _), (b, _)| a == b)
            .filter(|same| same.iter().map(|(_, diff)| diff).sum::<isize>() > 0)
            .filter_map(|same| Some(Refused::BelowLimit(same.first()?.0.clone())));
        diff.over_budget.sort_unstable();
        let refused = refused.chain(diff.over_budget.into_iter().map(Refused::OverBudget)).collect();
        Output { episodes, lineage, refused, waits }
    }
}
