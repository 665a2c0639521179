//! The items of one key, summed per cell and kept in order, in chunks that carry sums of their own.
//!
//! Appending at the end is the usual case and touches one chunk. Sums over a long extent, and steps along a long chain
//! of hits, take whole chunks at once, so that a day of seconds costs some hundred steps and not 86,400.

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    sync::Arc,
};

use cf_types::{Cell, Fixed};
use smallvec::{SmallVec, smallvec};

/// Items by reference. Most rules have one or two references.
pub(super) type Counts = SmallVec<[u64; 2]>;

/// Cells in a chunk at most. Few in this crate's own tests, so that small random input fills several.
const CHUNK_CELLS: usize = if cfg!(test) { 4 } else { 128 };

/// One non-empty cell.
#[derive(Debug)]
pub(super) struct CellItems {
    pub(super) cell: Cell,
    /// Items by reference.
    pub(super) counts: Counts,
    /// Their values, for predicates that look at them; a word in every cell of every other rule.
    pub(super) values: Option<Box<Values>>,
    /// The predicate's count over the window that ends here, if that window is a hit.
    pub(super) hit: Option<u64>,
}

/// The values of a cell's items.
#[derive(Debug)]
pub(super) enum Values {
    /// Items by text.
    Texts(BTreeMap<Arc<str>, u64>),
    /// Items by number.
    Numbers(BTreeMap<Fixed, u64>),
    /// The sum of the numbers, in billionths.
    Sum(i128),
}

/// The value of an item, as its predicate takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// None is wanted.
    None,
    /// To be kept as a text.
    Text(&'a Arc<str>),
    /// To be kept as a number.
    Number(Fixed),
    /// To be added up.
    Addend(Fixed),
}

impl CellItems {
    /// Items by text.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let texts = match self.values.as_deref() {
            Some(Values::Texts(texts)) => Some(texts),
            _ => None,
        };
        texts.into_iter().flatten().map(|(text, count)| (text, *count))
    }

    /// Items by number.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (Fixed, u64)> {
        let numbers = match self.values.as_deref() {
            Some(Values::Numbers(numbers)) => Some(numbers),
            _ => None,
        };
        numbers.into_iter().flatten().map(|(number, count)| (*number, *count))
    }

    /// The sum of the values.
    pub(super) fn sum(&self) -> i128 {
        if let Some(Values::Sum(sum)) = self.values.as_deref() { *sum } else { 0 }
    }

    /// Whether an item has the value.
    fn holds(&self, value: Value<'_>) -> bool {
        match (self.values.as_deref(), value) {
            (Some(Values::Texts(texts)), Value::Text(text)) => texts.contains_key(text),
            (Some(Values::Numbers(numbers)), Value::Number(number)) => numbers.contains_key(&number),
            _ => false,
        }
    }

    /// Entries kept for values.
    fn entries(&self) -> usize {
        match self.values.as_deref() {
            Some(Values::Texts(texts)) => texts.len(),
            Some(Values::Numbers(numbers)) => numbers.len(),
            Some(Values::Sum(_)) | None => 0,
        }
    }

    /// Changes the number of items of a value; gives by how much, since no more go than there are.
    fn change_value(&mut self, value: Value<'_>, diff: i64) -> i64 {
        match value {
            Value::None => diff,
            Value::Text(text) => {
                let values = self.values.get_or_insert_with(|| Box::new(Values::Texts(BTreeMap::new())));
                let Values::Texts(texts) = &mut **values else { return 0 };
                change_entry(texts, Arc::clone(text), diff)
            }
            Value::Number(number) => {
                let values = self.values.get_or_insert_with(|| Box::new(Values::Numbers(BTreeMap::new())));
                let Values::Numbers(numbers) = &mut **values else { return 0 };
                change_entry(numbers, number, diff)
            }
            Value::Addend(number) => {
                let values = self.values.get_or_insert_with(|| Box::new(Values::Sum(0)));
                // Wrapping, so that what is added can be taken away again in any order.
                if let Values::Sum(sum) = &mut **values {
                    *sum = sum.wrapping_add(number.raw().wrapping_mul(i128::from(diff)));
                }
                diff
            }
        }
    }
}

fn change_entry<K: Ord>(entries: &mut BTreeMap<K, u64>, key: K, diff: i64) -> i64 {
    match entries.entry(key) {
        Entry::Occupied(mut entry) => {
            let before = *entry.get();
            let after = before.saturating_add_signed(diff);
            if after == 0 {
                entry.remove();
            } else {
                *entry.get_mut() = after;
            }
            i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(diff)
        }
        Entry::Vacant(entry) => match u64::try_from(diff) {
            Ok(count) if count > 0 => {
                entry.insert(count);
                diff
            }
            _ => 0,
        },
    }
}

/// Where a cell stands. Valid until cells come or go.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    chunk: usize,
    index: usize,
}

/// What an extent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    /// Items by reference.
    pub(super) counts: Counts,
    /// Highest count of a hit.
    pub(super) peak: u64,
}

impl Totals {
    /// Nothing.
    pub(super) fn none(references: usize) -> Totals {
        Totals { counts: smallvec![0; references], peak: 0 }
    }

    /// Adds what another extent holds.
    pub(super) fn add(&mut self, other: &Totals) {
        add(&mut self.counts, &other.counts);
        self.peak = self.peak.max(other.peak);
    }

    /// Adds what one cell holds.
    pub(super) fn add_cell(&mut self, cell: &CellItems) {
        add(&mut self.counts, &cell.counts);
        self.peak = self.peak.max(cell.hit.unwrap_or(0));
    }
}

/// The hits of a chunk, enough to go along a chain without looking at each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hits {
    pub(super) first: Cell,
    pub(super) last: Cell,
    /// Longest distance between two neighbours; 0 if there is one hit.
    pub(super) gap_max: Cell,
    peak: u64,
}

impl Hits {
    fn later(self, lag: Cell) -> Hits {
        Hits { first: self.first.saturating_add(lag), last: self.last.saturating_add(lag), ..self }
    }
}

#[derive(Debug)]
struct Chunk {
    cells: Vec<CellItems>, // never empty
    counts: Counts,        // always right
    hits: Option<Hits>,    // right unless stale
    stale: bool,
}

impl Chunk {
    fn of(cells: Vec<CellItems>, references: usize) -> Chunk {
        let mut counts: Counts = smallvec![0; references];
        cells.iter().for_each(|cell| add(&mut counts, &cell.counts));
        let hits = find_hits(&cells);
        Chunk { cells, counts, hits, stale: false }
    }

    fn first(&self) -> Cell {
        self.cells.first().map_or(Cell::MAX, |cell| cell.cell)
    }

    fn last(&self) -> Cell {
        self.cells.last().map_or(Cell::MIN, |cell| cell.cell)
    }
}

/// All cells of a key, in order, none of them empty.
#[derive(Debug)]
pub(super) struct Cells {
    chunks: VecDeque<Chunk>,
    references: usize,
    /// How far behind its cell a hit lies: it is noted where the item is.
    lag: Cell,
    /// Entries kept for values, over all cells.
    entries: usize,
}

impl Cells {
    pub(super) fn new(references: usize, lag: Cell) -> Cells {
        Cells { chunks: VecDeque::new(), references, lag, entries: 0 }
    }

    /// Lets hits lie otherwise behind their cells; those that are noted are to be noted anew.
    pub(super) fn set_lag(&mut self, lag: Cell) {
        self.lag = lag;
    }

    /// The hit that is noted at a cell.
    pub(super) fn hit_of(&self, items: &CellItems) -> Option<Cell> {
        items.hit.map(|_| items.cell.saturating_add(self.lag))
    }

    /// Entries kept for values.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The first cell at or after `cell`.
    pub(super) fn seek(&self, cell: Cell) -> At {
        let chunk = self.chunks.partition_point(|chunk| chunk.last() < cell);
        let index = self.chunks.get(chunk).map_or(0, |chunk| chunk.cells.partition_point(|at| at.cell < cell));
        At { chunk, index }
    }

    pub(super) fn get(&self, at: At) -> Option<&CellItems> {
        self.chunks.get(at.chunk)?.cells.get(at.index)
    }

    /// The place after `at`.
    pub(super) fn after(&self, at: At) -> At {
        let index = at.index + 1;
        if self.chunks.get(at.chunk).is_some_and(|chunk| index < chunk.cells.len()) {
            At { chunk: at.chunk, index }
        } else {
            At { chunk: at.chunk + 1, index: 0 }
        }
    }

    /// Adds `diff` items of `reference` and `value` to a cell; gives how many it were. Takes no more away than there
    /// are: the keeper of a key that begins anew is told of leavings that it never saw come.
    pub(super) fn change(&mut self, cell: Cell, reference: usize, value: Value<'_>, diff: i64) -> i64 {
        let Some(at) = self.place(cell, diff > 0) else { return 0 };
        let Some(chunk) = self.chunks.get_mut(at.chunk) else { return 0 };
        let Some(items) = chunk.cells.get_mut(at.index) else { return 0 };
        let entries = items.entries();
        let mut diff = items.change_value(value, diff);
        self.entries = self.entries + items.entries() - entries;
        if let (Some(count), Some(total)) = (items.counts.get_mut(reference), chunk.counts.get_mut(reference)) {
            let changed = count.saturating_add_signed(diff);
            diff = i64::try_from(i128::from(changed) - i128::from(*count)).unwrap_or(diff);
            *total = *total - *count + changed;
            *count = changed;
        }
        if items.counts.iter().all(|count| *count == 0) {
            self.remove(at);
        }
        diff
    }

    /// Whether an item of a cell has the value.
    pub(super) fn holds(&self, cell: Cell, value: Value<'_>) -> bool {
        self.get(self.seek(cell)).filter(|items| items.cell == cell).is_some_and(|items| items.holds(value))
    }

    /// Says whether the window that ends at `at` is a hit.
    pub(super) fn set_hit(&mut self, at: At, hit: Option<u64>) {
        let Some(chunk) = self.chunks.get_mut(at.chunk) else { return };
        let Some(items) = chunk.cells.get_mut(at.index) else { return };
        if items.hit != hit {
            items.hit = hit;
            chunk.stale = true;
        }
    }

    /// Makes the sums of hits right again after cells, or hits of cells, in `[from, to]` changed.
    pub(super) fn refresh(&mut self, from: Cell, to: Cell) {
        // One chunk earlier: it may have lost its last cell, and then no longer reaches `from`. Likewise the one where
        // `to` is may have lost its first cells, and then no longer holds anything in between.
        let begin = self.seek(from).chunk.saturating_sub(1);
        let end = self.chunks.len().min(self.seek(to).chunk + 1);
        for chunk in self.chunks.range_mut(begin..end) {
            if chunk.stale {
                chunk.hits = find_hits(&chunk.cells);
                chunk.stale = false;
            }
        }
    }

    /// The last hit before `cell`.
    pub(super) fn last_hit_before(&self, cell: Cell) -> Option<Cell> {
        let end = self.seek(cell.saturating_sub(self.lag));
        let here = self.chunks.get(end.chunk).and_then(|chunk| chunk.cells.get(..end.index));
        here.and_then(|cells| cells.iter().rev().find(|items| items.hit.is_some()).map(|items| items.cell))
            .or_else(|| self.chunks.range(..end.chunk).rev().find_map(|chunk| Some(chunk.hits?.last)))
            .map(|cell| cell.saturating_add(self.lag))
    }

    /// What the cells in `[from, to]` hold.
    pub(super) fn totals(&self, from: Cell, to: Cell) -> Totals {
        let mut totals = Totals::none(self.references);
        for chunk in self.chunks.range(self.seek(from).chunk..).take_while(|chunk| chunk.first() <= to) {
            if from <= chunk.first() && chunk.last() <= to {
                add(&mut totals.counts, &chunk.counts);
                totals.peak = totals.peak.max(chunk.hits.map_or(0, |hits| hits.peak));
            } else {
                let inside = chunk.cells.iter().filter(|items| (from..=to).contains(&items.cell));
                inside.for_each(|items| totals.add_cell(items));
            }
        }
        totals
    }

    /// The hits from `from` on, whole chunks at once where the chunk begins at or after it.
    pub(super) fn hits(&self, from: Cell) -> impl Iterator<Item = Step<'_>> {
        let begin = self.seek(from.saturating_sub(self.lag));
        let head = self.chunks.get(begin.chunk).and_then(|chunk| chunk.cells.get(begin.index..));
        let head = head.filter(|_| begin.index > 0).map(Step::Cells);
        let whole = self.chunks.range(self.chunks.len().min(begin.chunk + usize::from(begin.index > 0))..);
        head.into_iter().chain(whole.filter_map(|chunk| Some(Step::Chunk(chunk.hits?.later(self.lag), &chunk.cells))))
    }

    /// Takes out the chunks that end before `limit`, and gives their cells.
    pub(super) fn drop_before(&mut self, limit: Cell, mut dropped: impl FnMut(&CellItems)) {
        while self.chunks.front().is_some_and(|chunk| chunk.last() < limit) {
            let chunk = self.chunks.pop_front();
            for items in chunk.iter().flat_map(|chunk| &chunk.cells) {
                self.entries -= items.entries();
                dropped(items);
            }
        }
    }

    /// Takes out every cell before `limit`.
    pub(super) fn trim(&mut self, limit: Cell) {
        self.drop_before(limit, |_| {});
        let references = self.references;
        if let Some(chunk) = self.chunks.front_mut().filter(|chunk| chunk.first() < limit) {
            let kept = chunk.cells.split_off(chunk.cells.partition_point(|items| items.cell < limit));
            self.entries -= chunk.cells.iter().map(CellItems::entries).sum::<usize>();
            *chunk = Chunk::of(kept, references); // not empty: the chunk ends at or after the limit
        }
    }

    /// The cell that has to be passed for [`Cells::drop_before`] to take something.
    pub(super) fn first_end(&self) -> Option<Cell> {
        self.chunks.front().map(Chunk::last)
    }

    /// Finds a cell, or makes it.
    fn place(&mut self, cell: Cell, make: bool) -> Option<At> {
        let at = self.seek(cell);
        if self.get(at).is_some_and(|items| items.cell == cell) {
            return Some(at);
        }
        if !make {
            return None;
        }
        let items = CellItems { cell, counts: smallvec![0; self.references], values: None, hit: None };
        self.insert(at, items);
        Some(self.seek(cell))
    }

    fn insert(&mut self, at: At, items: CellItems) {
        let references = self.references;
        if at.chunk < self.chunks.len() {
            if let Some(chunk) = self.chunks.get_mut(at.chunk) {
                chunk.cells.insert(at.index, items);
                chunk.stale = true;
                if chunk.cells.len() > CHUNK_CELLS {
                    let upper = chunk.cells.split_off(CHUNK_CELLS / 2);
                    let lower = std::mem::take(&mut chunk.cells);
                    *chunk = Chunk::of(lower, references);
                    self.chunks.insert(at.chunk + 1, Chunk::of(upper, references));
                }
            }
            return;
        }
        // At the end: chunks that were filled in order stay full.
        match self.chunks.back_mut() {
            Some(chunk) if chunk.cells.len() < CHUNK_CELLS => {
                chunk.cells.push(items);
                chunk.stale = true;
            }
            _ => {
                // Most keys have one cell ever: no room is kept for more.
                self.chunks.reserve_exact(usize::from(self.chunks.is_empty()));
                self.chunks.push_back(Chunk::of(vec![items], references));
            }
        }
    }

    fn remove(&mut self, at: At) {
        if let Some(chunk) = self.chunks.get_mut(at.chunk) {
            let gone = chunk.cells.remove(at.index);
            self.entries -= gone.entries();
            chunk.stale = true;
            if chunk.cells.is_empty() {
                self.chunks.remove(at.chunk);
            }
        }
    }
}

/// A part of the way along the hits.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Cells to be looked at one by one.
    Cells(&'a [CellItems]),
    /// A chunk that has hits: what they are, and its cells.
    Chunk(Hits, &'a [CellItems]),
}

fn add(sum: &mut Counts, counts: &Counts) {
    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

fn find_hits(cells: &[CellItems]) -> Option<Hits> {
    let mut hits: Option<Hits> = None;
    for (cell, peak) in cells.iter().filter_map(|items| Some((items.cell, items.hit?))) {
        hits = Some(match hits {
            None => Hits { first: cell, last: cell, gap_max: 0, peak },
            Some(before) => Hits {
                first: before.first,
                last: cell,
                gap_max: before.gap_max.max(cell - before.last),
                peak: before.peak.max(peak),
            },
        });
    }
    hits
}
