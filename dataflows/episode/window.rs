//! The window that slides over a key's cells, one shape per predicate.

use std::{collections::HashMap, sync::Arc};

use cf_types::{Cell, Condition, Predicate};
use smallvec::{SmallVec, smallvec};

use super::cells::{CellItems, Cells};

/// Latest cells, one per reference.
type Latest = SmallVec<[Option<Cell>; 2]>;

/// A window of fewer values is not kept. Few in this crate's own tests, so that small random input has it kept.
const VALUES_KEPT: usize = if cfg!(test) { 2 } else { 64 };

/// What is known of the cells in a window. Cells enter in order; they leave in order, where that matters.
#[derive(Debug)]
pub(super) enum Window {
    /// Items.
    Count { condition: Condition, count: u64 },
    /// Items by value. Only its size is ever asked, so its order does not matter.
    Values { condition: Condition, counts: HashMap<Arc<str>, u64> },
    /// Per reference the latest cell that holds it. Nothing has to leave: too early is too early.
    Together { latest: Latest },
    /// Per reference the latest beginning of an ordered sequence up to it. Nothing has to leave here either.
    Ordered { begins: Latest },
}

impl Window {
    /// An empty window.
    pub(super) fn new(predicate: &Predicate, references: usize) -> Window {
        match predicate {
            Predicate::EventCount(condition) => Window::Count { condition: *condition, count: 0 },
            Predicate::ValueCount(condition) => Window::Values { condition: *condition, counts: HashMap::new() },
            Predicate::Temporal => Window::Together { latest: smallvec![None; references] },
            Predicate::TemporalOrdered => Window::Ordered { begins: smallvec![None; references] },
        }
    }

    /// Lets all cells of `[from, before)` enter.
    pub(super) fn fill(&mut self, cells: &Cells, from: Cell, before: Cell) {
        if let Window::Count { count, .. } = self {
            *count = cells.totals(from, before.saturating_sub(1)).counts.iter().sum();
            return;
        }
        let mut at = cells.seek(from);
        while let Some(items) = cells.get(at).filter(|items| items.cell < before) {
            self.enter(items);
            at = cells.after(at);
        }
    }

    /// A cell enters, later than all before it.
    pub(super) fn enter(&mut self, items: &CellItems) {
        match self {
            Window::Count { count, .. } => *count += items.counts.iter().sum::<u64>(),
            Window::Values { counts, .. } => {
                for (value, n) in items.values.iter().flat_map(|values| values.iter()) {
                    *counts.entry(Arc::clone(value)).or_default() += n;
                }
            }
            Window::Together { latest } => {
                for (latest, _) in latest.iter_mut().zip(&items.counts).filter(|(_, count)| **count > 0) {
                    *latest = Some(items.cell);
                }
            }
            Window::Ordered { begins } => {
                // In the order of the references, so that one cell can serve several: the same cell is in order.
                let mut before = Some(items.cell);
                for (begin, count) in begins.iter_mut().zip(&items.counts) {
                    if *count > 0 {
                        *begin = before;
                    }
                    before = *begin;
                }
            }
        }
    }

    /// The earliest cell leaves.
    pub(super) fn leave(&mut self, items: &CellItems) {
        match self {
            Window::Count { count, .. } => *count -= items.counts.iter().sum::<u64>(),
            Window::Values { counts, .. } => {
                for (value, n) in items.values.iter().flat_map(|values| values.iter()) {
                    if let Some(count) = counts.get_mut(value) {
                        *count = count.saturating_sub(*n);
                        if *count == 0 {
                            counts.remove(value);
                        }
                    }
                }
            }
            Window::Together { .. } | Window::Ordered { .. } => {}
        }
    }

    /// The window as it was before the last cell entered, if filling it anew would cost more than keeping it.
    pub(super) fn before_last(mut self, last: &CellItems) -> Option<Window> {
        let values = if let Window::Values { counts, .. } = &self { counts.len() } else { 0 };
        self.leave(last);
        (values >= VALUES_KEPT).then_some(self)
    }

    /// The predicate's count if the window that begins at `from` is a hit.
    pub(super) fn hit(&self, from: Cell) -> Option<u64> {
        match self {
            Window::Count { condition, count } => condition.holds(*count).then_some(*count),
            Window::Values { condition, counts } => {
                let distinct = u64::try_from(counts.len()).unwrap_or(u64::MAX);
                condition.holds(distinct).then_some(distinct)
            }
            Window::Together { latest } => {
                latest.iter().all(|latest| latest.is_some_and(|cell| cell >= from)).then_some(0)
            }
            Window::Ordered { begins } => {
                begins.last().is_some_and(|begin| begin.is_some_and(|cell| cell >= from)).then_some(0)
            }
        }
    }
}
