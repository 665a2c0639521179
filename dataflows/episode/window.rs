//! The window that slides over a key's cells, one shape per predicate.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use cf_types::{Cell, Condition, Fixed, Predicate, Presence};
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
    Together { latest: Latest, presence: Option<Presence> },
    /// Per reference the latest beginning of an ordered sequence up to it. Nothing has to leave here either.
    Ordered { begins: Latest },
    /// The sum of the values, in billionths, and how many there are.
    Sum { condition: Condition<Fixed>, sum: i128, count: u64, mean: bool },
    /// Items by number, and how many there are.
    Ranked { percent: u8, condition: Condition<Fixed>, counts: BTreeMap<Fixed, u64>, count: u64 },
    /// Never a hit: of predicates that do not slide.
    Never,
}

impl Window {
    /// An empty window.
    pub(super) fn new(predicate: &Predicate, references: usize) -> Window {
        match predicate {
            Predicate::EventCount(condition) => Window::Count { condition: *condition, count: 0 },
            Predicate::ValueCount(condition) => Window::Values { condition: *condition, counts: HashMap::new() },
            Predicate::Temporal => Window::Together { latest: smallvec![None; references], presence: None },
            Predicate::Presence(presence) => {
                Window::Together { latest: smallvec![None; references], presence: Some(presence.clone()) }
            }
            Predicate::TemporalOrdered => Window::Ordered { begins: smallvec![None; references] },
            Predicate::Sum(condition) => Window::Sum { condition: *condition, sum: 0, count: 0, mean: false },
            Predicate::Average(condition) => Window::Sum { condition: *condition, sum: 0, count: 0, mean: true },
            Predicate::Percentile { percent, condition } => {
                Window::Ranked { percent: *percent, condition: *condition, counts: BTreeMap::new(), count: 0 }
            }
            Predicate::Absence | Predicate::FirstSeen { .. } | Predicate::Rate { .. } => Window::Never,
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
                for (value, n) in items.texts() {
                    *counts.entry(Arc::clone(value)).or_default() += n;
                }
            }
            Window::Together { latest, .. } => {
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
            Window::Sum { sum, count, .. } => {
                *sum = sum.wrapping_add(items.sum());
                *count += items.counts.iter().sum::<u64>();
            }
            Window::Ranked { counts, count, .. } => {
                for (number, n) in items.numbers() {
                    *counts.entry(number).or_default() += n;
                    *count += n;
                }
            }
            Window::Never => {}
        }
    }

    /// The earliest cell leaves.
    pub(super) fn leave(&mut self, items: &CellItems) {
        match self {
            Window::Count { count, .. } => *count -= items.counts.iter().sum::<u64>(),
            Window::Values { counts, .. } => {
                for (value, n) in items.texts() {
                    if let Some(count) = counts.get_mut(value) {
                        *count = count.saturating_sub(n);
                        if *count == 0 {
                            counts.remove(value);
                        }
                    }
                }
            }
            Window::Sum { sum, count, .. } => {
                *sum = sum.wrapping_sub(items.sum());
                *count -= items.counts.iter().sum::<u64>();
            }
            Window::Ranked { counts, count, .. } => {
                for (number, n) in items.numbers() {
                    *count = count.saturating_sub(n);
                    if let Some(of) = counts.get_mut(&number) {
                        *of = of.saturating_sub(n);
                        if *of == 0 {
                            counts.remove(&number);
                        }
                    }
                }
            }
            Window::Together { .. } | Window::Ordered { .. } | Window::Never => {}
        }
    }

    /// The window as it was before the last cell entered, if filling it anew would cost more than keeping it.
    pub(super) fn before_last(mut self, last: &CellItems) -> Option<Window> {
        let worth = match &self {
            Window::Values { counts, .. } => counts.len() >= VALUES_KEPT,
            Window::Ranked { counts, .. } => counts.len() >= VALUES_KEPT,
            Window::Sum { .. } => true, // no more than a few words
            Window::Count { .. } | Window::Together { .. } | Window::Ordered { .. } | Window::Never => false,
        };
        self.leave(last);
        worth.then_some(self)
    }

    /// The predicate's count if the window that begins at `from` is a hit.
    pub(super) fn hit(&self, from: Cell) -> Option<u64> {
        match self {
            Window::Count { condition, count } => condition.holds(*count).then_some(*count),
            Window::Values { condition, counts } => {
                let distinct = u64::try_from(counts.len()).unwrap_or(u64::MAX);
                condition.holds(distinct).then_some(distinct)
            }
            Window::Together { latest, presence } => {
                let present = |reference: u16| {
                    latest.get(usize::from(reference)).is_some_and(|latest| latest.is_some_and(|cell| cell >= from))
                };
                match presence {
                    Some(presence) => presence.holds(&present).then(|| presence.count(&present)),
                    None => latest.iter().all(|latest| latest.is_some_and(|cell| cell >= from)).then_some(0),
                }
            }
            Window::Ordered { begins } => {
                begins.last().is_some_and(|begin| begin.is_some_and(|cell| cell >= from)).then_some(0)
            }
            Window::Sum { condition, sum, count, mean } => {
                let of = if *mean { *count } else { 1 };
                let holds = *count > 0 && condition.holds_by(|bound| compare_quotient(*sum, of, bound));
                holds.then(|| whole_units(sum.div_euclid(i128::from(of.max(1)))))
            }
            Window::Ranked { percent, condition, counts, count } => {
                let number = at_rank(counts, *count, *percent)?;
                condition.holds(number).then(|| whole_units(number.raw()))
            }
            Window::Never => None,
        }
    }
}

/// How `sum / count` compares with a bound, without a division. Exact as long as a bound times the count fits, which it
/// does below 10^14 items.
fn compare_quotient(sum: i128, count: u64, bound: Fixed) -> Ordering {
    sum.cmp(&bound.raw().saturating_mul(i128::from(count)))
}

/// The number that `percent` of a hundred do not exceed: that of rank ceil(percent * count / 100), at least 1.
fn at_rank(counts: &BTreeMap<Fixed, u64>, count: u64, percent: u8) -> Option<Fixed> {
    let rank = (u128::from(count) * u128::from(percent)).div_ceil(100).max(1);
    let mut below: u128 = 0;
    counts.iter().find_map(|(number, n)| {
        below += u128::from(*n);
        (below >= rank).then_some(*number)
    })
}

/// Billionths in whole units, rounded down, at least 0.
fn whole_units(raw: i128) -> u64 {
    u64::try_from(raw.div_euclid(Fixed::SCALE).max(0)).unwrap_or(u64::MAX)
}
