//! What a key remembers for longer than a window: which values it had, and how many items there were.
//!
//! For rules that compare the present with the time before ([`Predicate::FirstSeen`], [`Predicate::Rate`]). Memory is
//! bounded by what the definitions can still ask: of a value below the limit only its latest cell matters, because
//! every hit to come lies at or after the limit; and earlier items are only ever counted in whole steps of a grid, so
//! their number per step is all that is kept. What lies more than the rule's memory below the limit leaves.
//!
//! What was before the rule was there can be remembered, too ([`super::Episodes::remember`]): then it is known, and is
//! neither a hit nor part of a window.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{Cell, EpisodeRule, Fixed, Predicate};

use super::cells::{CellItems, Cells};

/// The memory of one key.
#[derive(Debug)]
pub(super) struct Memory {
    /// By value: its cells from the limit on, and the latest one below it.
    terms: BTreeMap<Arc<str>, BTreeSet<Cell>>,
    /// What was remembered of before at or after the limit: it stays when an item of the same cell goes.
    before: BTreeSet<(Cell, Arc<str>)>,
    /// Items by the first cell of their step.
    steps: BTreeMap<Cell, u64>,
    /// From which limit on something may leave; may be too early.
    due: Cell,
}

impl Memory {
    /// Nothing is remembered; `limit` is the present one.
    pub(super) fn new(limit: Cell) -> Memory {
        let (terms, before, steps) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Memory { terms, before, steps, due: limit.saturating_add(1) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.steps.is_empty()
    }

    /// From which limit on [`Memory::forget`] may have something to do.
    pub(super) fn due(&self) -> Option<Cell> {
        (!self.is_empty()).then_some(self.due)
    }

    /// Values that are remembered.
    pub(super) fn entries(&self) -> usize {
        self.terms.len()
    }

    /// A cell has a value now, or no longer.
    pub(super) fn note_term(&mut self, cell: Cell, term: &Arc<str>, there: bool) {
        if there {
            self.terms.entry(Arc::clone(term)).or_default().insert(cell);
        } else if let Some(cells) = self.terms.get_mut(term)
            && !self.before.contains(&(cell, Arc::clone(term)))
        {
            cells.remove(&cell);
            if cells.is_empty() {
                self.terms.remove(term);
            }
        }
    }

    /// There was this value before, whatever items there are. Whether there was room for it.
    pub(super) fn recall_term(&mut self, cell: Cell, term: &Arc<str>, values_max: usize) -> bool {
        let has_room = self.terms.len() < values_max || self.terms.contains_key(term);
        if has_room {
            self.note_term(cell, term, true);
            self.before.insert((cell, Arc::clone(term)));
        }
        has_room
    }

    /// So many items more, or less, in the step of a cell.
    pub(super) fn note_items(&mut self, cell: Cell, grid: Cell, diff: i64) {
        let step = step_of(cell, grid);
        let count = self.steps.entry(step).or_default();
        *count = count.saturating_add_signed(diff);
        if *count == 0 {
            self.steps.remove(&step);
        }
    }

    /// The predicate's count at a cell, if it is a hit.
    pub(super) fn hit(&self, rule: &EpisodeRule, cells: &Cells, items: &CellItems) -> Option<u64> {
        match &rule.predicate {
            Predicate::FirstSeen { memory, known_min } => self.new_terms(*memory, *known_min, items),
            Predicate::Rate { memory, grid, age_min, count_min, times } => {
                let from = items.cell.saturating_sub(rule.timespan);
                let count: u64 = cells.totals(from, items.cell).counts.iter().sum();
                if count < *count_min {
                    return None;
                }
                // Whole steps that lie in the memory before the window, from the first that has an item on.
                let end = step_of(from, *grid);
                let mut steps = self.steps.range(from.saturating_sub(*memory)..end);
                let (first, earlier) = steps.next().map(|(first, count)| (*first, *count))?;
                let earlier = earlier + steps.map(|(_, count)| *count).sum::<u64>();
                let age = end - first;
                // count / (timespan + 1) against times * earlier / age.
                let present = i128::from(count) * i128::from(age) * Fixed::SCALE;
                let mean = i128::from(earlier) * i128::from(rule.timespan.saturating_add(1));
                let holds = age >= *age_min && times.holds_by(|times| present.cmp(&times.raw().saturating_mul(mean)));
                holds.then_some(count)
            }
            _ => None,
        }
    }

    fn new_terms(&self, memory: Cell, known_min: u64, items: &CellItems) -> Option<u64> {
        let before = items.cell.saturating_sub(memory)..items.cell;
        let known = |cells: &BTreeSet<Cell>| cells.range(before.clone()).next_back().is_some();
        let is_new = |term: &Arc<str>| self.terms.get(term).is_none_or(|cells| !known(cells));
        let new = items.texts().filter(|(term, _)| is_new(term)).count();
        if new == 0 {
            return None;
        }
        let enough = usize::try_from(known_min).unwrap_or(usize::MAX);
        let known = self.terms.values().filter(|cells| known(cells)).take(enough).count();
        (known == enough).then(|| u64::try_from(new).unwrap_or(u64::MAX))
    }

    /// Forgets what no hit at or after `limit` can ask for.
    pub(super) fn forget(&mut self, rule: &EpisodeRule, limit: Cell) {
        if limit < self.due {
            return;
        }
        let oldest = limit.saturating_sub(rule.reach());
        self.steps = self.steps.split_off(&oldest);
        // Below the limit no item goes any more.
        self.before.retain(|(cell, _)| *cell >= limit);
        self.terms.retain(|_, cells| {
            let latest = cells.range(..limit).next_back().copied();
            *cells = cells.split_off(&latest.unwrap_or(limit).max(oldest));
            !cells.is_empty()
        });
        // Not at every step of the limit: that would look at every value each time.
        self.due = limit.saturating_add(rule.reach() / 16).saturating_add(1);
    }
}

/// The first cell of a cell's step.
fn step_of(cell: Cell, grid: Cell) -> Cell {
    cell.div_euclid(grid.max(1)).saturating_mul(grid.max(1))
}
