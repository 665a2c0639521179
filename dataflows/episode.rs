//! Finds the episodes of one rule in one group, exactly and incrementally (`streaming.md`, *Episodes*).
//!
//! In: changes of the multiset of items, in any order, and a limit below which nothing changes any more. Out: episodes
//! that went and came, ids that became final, and what became of the ids that went. Key: one [`Episodes`] is one key.
//! Memory: the non-empty cells from the limit less one timespan on (up to one chunk more; absence two timespans), one
//! small record per piece of a run that can still change, and what `memory.rs` says. Values are budgeted
//! ([`EpisodeRule::VALUES_MAX`]): an item that would go beyond it is refused, and that is told. Output appears with the change: a predicate that later items can unmake
//! (`<`, `<=`, `==`, `!=`) is told at once too, and taken back when they do.
//!
//! Three predicates go beyond a window that slides: one that something did *not* follow hits where the time for it is
//! over ([`EpisodeRule::lag`]); those that compare with the time before keep a memory of it (`memory.rs`).
//! `docs/correlations.md` defines them all.
//!
//! After any sequence of changes and limits, the episodes told are the function of the multiset of all items that the
//! definitions give; `tests/episode.rs` compares with that function. Why a bounded part of the state suffices:
//!
//! - Windows trail. Whether a cell is a hit depends on the cells of one timespan before it, so a change at `d` can
//!   change hits in `[d, d + T]` only ([`EpisodeRule::reach`] where there is a memory), and below the limit all hits
//!   are final.
//! - Going along the hits in order, all that has to be known is the current piece. It is known before the first
//!   change, and going on ends where the piece is the one that was there before.
//! - Of the one piece that began before the limit and may still grow, the totals of its dropped cells are kept with it
//!   (the *frozen prefix*).
//!
//! Windows that lead, or reach to both sides, would break all three.

mod cells;
mod chain;
mod memory;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
mod window;

use std::{mem, sync::Arc};

use cf_types::{AlertId, Cell, Episode, EpisodeKey, EpisodeRule, Fixed, Lineage, Predicate, ValueKind};

use self::{
    cells::{Cells, Totals, Value},
    chain::{Piece, chain},
    memory::Memory,
    window::Window,
};

/// A change of the multiset of items of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Update {
    /// When.
    pub cell: Cell,
    /// Which of the rule's references. Items of references that the rule does not have do not count.
    pub reference: u16,
    /// The value, for predicates that look at values; there, items without one do not count, nor do those whose value
    /// is no number where one is wanted.
    pub value: Option<Arc<str>>,
    /// How many more, or less.
    pub diff: i64,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Episodes that went. One whose id also came has other content now.
    pub removed: Vec<Episode>,
    /// Episodes that came.
    pub added: Vec<Episode>,
    /// Ids that are final now. Their episodes stay as they are.
    pub sealed: Vec<AlertId>,
    /// What became of ids that went, and where ids that came are from.
    pub lineage: Vec<Lineage>,
    /// Items that were not counted, because there was no room for their values.
    pub over_budget: Vec<OverBudget>,
}

/// Items of one key that were refused in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OverBudget {
    /// Rule and group.
    pub key: EpisodeKey,
    /// The first of their cells.
    pub cell: Cell,
    /// How many.
    pub items: u64,
}

/// The state of one key.
#[derive(Debug)]
pub struct Episodes {
    key: EpisodeKey,
    rule: Arc<EpisodeRule>,
    cut: Cell,
    limit: Cell,
    cells: Cells,
    pieces: Vec<Piece>, // those that are not sealed
    kept: Option<Box<KeptWindow>>,
    memory: Option<Box<Memory>>,
    /// Where hits may have changed by what was remembered since the last change.
    remembered: Option<(Cell, Cell)>,
    values_max: usize,
    rule_changed: bool,
}

/// The window before the last cell, kept where filling it again for every epoch would cost too much: a spray of a
/// million user names has a million values in its window.
#[derive(Debug)]
struct KeptWindow {
    window: Window,
    begin: Cell, // cells before it have left
    end: Cell,   // cells from here on have not entered
}

impl Episodes {
    /// A key without items; `limit` is the present one, [`Cell::MIN`] if there is none.
    #[must_use]
    pub fn new(key: EpisodeKey, rule: Arc<EpisodeRule>, limit: Cell) -> Episodes {
        let cells = Cells::new(rule.references.len(), rule.lag());
        Episodes {
            key,
            cut: rule.cut(),
            limit,
            cells,
            pieces: Vec::new(),
            kept: None,
            memory: rule.remembers().then(|| Box::new(Memory::new(limit))),
            remembered: None,
            rule,
            values_max: EpisodeRule::VALUES_MAX,
            rule_changed: false,
        }
    }

    /// Keeps fewer values. For tests: the usual number is too high to be reached by small input.
    #[must_use]
    pub fn with_values_max(mut self, values_max: usize) -> Episodes {
        self.values_max = values_max;
        self
    }

    /// Cuts by another grid than the rule's. For tests: the rule's is too long to be reached by random input.
    #[must_use]
    pub fn with_cut(mut self, cut: Cell) -> Episodes {
        self.cut = cut.max(self.rule.timespan.saturating_add(1));
        self
    }

    /// Rule and group.
    #[must_use]
    pub fn key(&self) -> &EpisodeKey {
        &self.key
    }

    /// The rule in force.
    #[must_use]
    pub fn rule(&self) -> &Arc<EpisodeRule> {
        &self.rule
    }

    /// Whether nothing is kept: no item and no episode.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.pieces.is_empty() && self.memory.as_ref().is_none_or(|memory| memory.is_empty())
    }

    /// The lowest limit for which [`Episodes::advance`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Cell> {
        let seal = self.pieces.first().map(|piece| self.sealed_after(0, piece).saturating_add(1));
        let kept = self.rule.timespan.saturating_add(self.rule.lag()).saturating_add(1);
        let drop = self.cells.first_end().map(|end| end.saturating_add(kept));
        let forget = self.memory.as_ref().and_then(|memory| memory.due());
        seal.into_iter().chain(drop).chain(forget).min()
    }

    /// Puts another version of the rule in force, one that the kept items [can serve](EpisodeRule::can_serve). Episodes follow
    /// with the next [`Episodes::apply`], even of nothing, and are found from the items at and after the limit: what
    /// began before it went by the old rule.
    pub fn set_rule(&mut self, rule: Arc<EpisodeRule>) {
        if (self.rule.timespan, &self.rule.predicate) != (rule.timespan, &rule.predicate) {
            self.rule_changed = true;
            self.cut = rule.cut();
            // Whole chunks were dropped so far; what a longer window sees must not depend on how they were filled.
            self.cells.trim(self.limit.saturating_sub(self.rule.timespan));
            self.cells.set_lag(rule.lag());
        }
        self.rule = rule;
    }

    /// Remembers what was before the rule was there: so many items at a cell, which may lie below the limit. They count as
    /// what was known before, and are no hits themselves. Episodes follow with the next [`Episodes::apply`], even of
    /// nothing; hits below the limit stay as they are. Says how many items were not taken, for lack of room.
    pub fn remember(&mut self, cell: Cell, value: Option<&Arc<str>>, count: u64) -> u64 {
        let Some(memory) = &mut self.memory else { return 0 };
        match (&self.rule.predicate, value) {
            (Predicate::Rate { grid, .. }, _) => {
                memory.note_items(cell, *grid, i64::try_from(count).unwrap_or(i64::MAX))
            }
            (_, Some(term)) if memory.recall_term(cell, term, self.values_max) => {}
            (_, Some(_)) => return count,
            (_, None) => return 0,
        }
        let (from, to) = self.remembered.unwrap_or((cell, cell));
        self.remembered = Some((from.min(cell), to.max(cell.saturating_add(self.rule.reach()))));
        0
    }

    /// Gives up the key: all its episodes that are not sealed go.
    pub fn clear(self, diff: &mut Diff) {
        diff.removed.extend(self.pieces.iter().map(|piece| self.episode(piece)));
    }

    /// Applies the changes of one epoch, any order, and tells what they change.
    ///
    /// # Panics
    ///
    /// If a change lies below the limit: it has to be refused before.
    pub fn apply(&mut self, updates: &mut Vec<Update>, diff: &mut Diff) {
        let mut dirty = self.change_cells(updates, diff);
        let remembered = self.remembered.take().map(|(from, to)| (from.max(self.limit), to));
        if mem::take(&mut self.rule_changed) {
            self.begin_anew(diff);
            return;
        }
        dirty.extend(remembered.filter(|(from, to)| from <= to));
        let (Some(from), Some(to)) = (dirty.iter().map(|at| at.0).min(), dirty.iter().map(|at| at.1).max()) else {
            return;
        };
        for (from, to) in dirty {
            self.judge(from, to);
        }
        self.cells.refresh(from.saturating_sub(self.rule.lag()), to);
        self.rechain(from, to, diff);
    }

    /// Raises the limit: no change below it will come. Seals, and drops what is not needed any more.
    pub fn advance(&mut self, limit: Cell, diff: &mut Diff) {
        if limit < self.limit {
            return;
        }
        self.limit = limit;
        // Those that are sealed come first: what is final for a piece is final for the one before.
        let pieces = self.pieces.iter().enumerate();
        let sealed = pieces.take_while(|(index, piece)| self.sealed_after(*index, piece) < limit).count();
        diff.sealed.extend(self.pieces.drain(..sealed).map(|piece| id(&self.key, &piece)));

        let references = self.rule.references.len();
        let mut first = self.pieces.first_mut();
        let needed = limit.saturating_sub(self.rule.timespan).saturating_sub(self.rule.lag());
        self.kept = self.kept.take().filter(|kept| kept.begin >= needed); // cells that are dropped cannot leave it
        self.cells.drop_before(needed, |items| {
            // Only the first piece can reach back to here: a later one begins after a hit of this one, and that hit
            // is at most a timespan below the limit, else the piece were sealed.
            if let Some(piece) = first.as_deref_mut().filter(|piece| piece.anchor <= items.cell) {
                piece.frozen.get_or_insert_with(|| Box::new(Totals::none(references))).add_cell(items);
            }
        });
        if let Some(memory) = &mut self.memory {
            memory.forget(&self.rule, limit);
        }
    }

    /// The piece is sealed once the limit lies above this cell: the hit that cut it off, or the last one where a hit
    /// could still be linked.
    fn sealed_after(&self, index: usize, piece: &Piece) -> Cell {
        let next = self.pieces.get(index + 1).filter(|_| piece.cut_at.is_some());
        next.map_or(piece.last_hit.saturating_add(self.rule.timespan), |next| next.first_hit)
    }

    /// Applies the changes to the cells; gives the ranges where hits may have changed, merged, in order.
    fn change_cells(&mut self, updates: &mut Vec<Update>, diff: &mut Diff) -> Vec<(Cell, Cell)> {
        updates.sort_unstable();
        let mut dirty: Vec<(Cell, Cell)> = Vec::new();
        let mut refused: Option<OverBudget> = None;
        for same in updates.chunk_by(|a, b| (a.cell, a.reference, &a.value) == (b.cell, b.reference, &b.value)) {
            let Some(Update { cell, reference, value, .. }) = same.first() else { continue };
            let times: i64 = same.iter().map(|update| update.diff).sum();
            if times == 0 || usize::from(*reference) >= self.rule.references.len() {
                continue;
            }
            let Some(value) = value_for(self.rule.predicate.values(), value.as_ref()) else { continue };
            assert!(*cell >= self.limit, "items below the limit are refused before");
            if times > 0 && !self.has_room(*cell, value) {
                let first = || OverBudget { key: self.key.clone(), cell: *cell, items: 0 };
                refused.get_or_insert_with(first).items += times.unsigned_abs();
                continue;
            }
            self.change(*cell, usize::from(*reference), value, times);
            let end = cell.saturating_add(self.rule.reach());
            match dirty.last_mut() {
                Some(last) if last.1 >= *cell => last.1 = end,
                _ => dirty.push((*cell, end)),
            }
        }
        updates.clear();
        diff.over_budget.extend(refused);
        dirty
    }

    /// Whether a value of a cell needs no entry more than there may be.
    fn has_room(&self, cell: Cell, value: Value<'_>) -> bool {
        let remembered = || self.memory.as_ref().map_or(0, |memory| memory.entries());
        matches!(value, Value::None | Value::Addend(_))
            || self.cells.entries() + remembered() < self.values_max
            || self.cells.holds(cell, value)
    }

    fn change(&mut self, cell: Cell, reference: usize, value: Value<'_>, times: i64) {
        let times = self.cells.change(cell, reference, value, times);
        let Some(memory) = &mut self.memory else { return };
        match (&self.rule.predicate, value) {
            (Predicate::Rate { grid, .. }, _) => memory.note_items(cell, *grid, times),
            (_, Value::Text(text)) => memory.note_term(cell, text, self.cells.holds(cell, value)),
            _ => {}
        }
    }

    /// Says anew which cells in `[from, to]` are hits.
    fn judge(&mut self, from: Cell, to: Cell) {
        match self.rule.predicate {
            Predicate::Absence => self.judge_absence(from, to),
            Predicate::FirstSeen { .. } | Predicate::Rate { .. } => self.judge_memory(from, to),
            _ => self.judge_windows(from, to),
        }
    }

    /// The hit of an item that something was to follow lies where the time for that is over.
    fn judge_absence(&mut self, from: Cell, to: Cell) {
        let timespan = self.rule.timespan;
        let last = to.saturating_sub(timespan);
        let mut at = self.cells.seek(from.saturating_sub(timespan));
        let mut next = at; // the first cell, from `at` on, that may answer
        while let Some(items) = self.cells.get(at).filter(|items| items.cell <= last) {
            let (begin, end) = (items.cell, items.cell.saturating_add(timespan));
            let began = items.counts.first().is_some_and(|count| *count > 0);
            let answers = |items: &cells::CellItems| items.counts.get(1).is_some_and(|count| *count > 0);
            while self.cells.get(next).is_some_and(|next| next.cell < begin || (next.cell <= end && !answers(next))) {
                next = self.cells.after(next);
            }
            let answered = self.cells.get(next).is_some_and(|next| next.cell <= end);
            self.cells.set_hit(at, (began && !answered).then_some(0));
            at = self.cells.after(at);
        }
    }

    /// Cells are compared with the memory one by one.
    fn judge_memory(&mut self, from: Cell, to: Cell) {
        let Some(memory) = &self.memory else { return };
        let mut at = self.cells.seek(from);
        while let Some(items) = self.cells.get(at).filter(|items| items.cell <= to) {
            let hit = memory.hit(&self.rule, &self.cells, items);
            self.cells.set_hit(at, hit);
            at = self.cells.after(at);
        }
    }

    /// Says anew which windows that end in `[from, to]` are hits.
    fn judge_windows(&mut self, from: Cell, to: Cell) {
        let timespan = self.rule.timespan;
        let KeptWindow { mut window, mut begin, end } = match self.kept.take().filter(|kept| kept.end <= from) {
            Some(kept) => *kept,
            None => {
                let begin = from.saturating_sub(timespan);
                let mut window = Window::new(&self.rule.predicate, self.rule.references.len());
                window.fill(&self.cells, begin, from);
                KeptWindow { window, begin, end: from }
            }
        };
        let mut tail = self.cells.seek(begin);
        let mut at = self.cells.seek(end);
        let mut last = at;
        while let Some(items) = self.cells.get(at).filter(|items| items.cell <= to) {
            begin = items.cell.saturating_sub(timespan);
            window.enter(items);
            while let Some(gone) = self.cells.get(tail).filter(|gone| gone.cell < begin) {
                window.leave(gone);
                tail = self.cells.after(tail);
            }
            self.cells.set_hit(at, window.hit(begin));
            last = at;
            at = self.cells.after(at);
        }
        // At the end of all cells the window is worth keeping: items mostly come in order.
        if let (None, Some(items)) = (self.cells.get(at), self.cells.get(last)) {
            let end = items.cell;
            self.kept = window.before_last(items).map(|window| Box::new(KeptWindow { window, begin, end }));
        }
    }

    /// Chains anew where hits in `[from, to]` or items under them changed.
    fn rechain(&mut self, from: Cell, to: Cell, diff: &mut Diff) {
        let known = self.pieces.partition_point(|piece| piece.first_hit < from);
        let begin = known.saturating_sub(1);
        let current = self.pieces.get(begin).filter(|_| known > 0).map(|piece| Piece {
            // Its first hit is one, and stays: the changes come after it.
            last_hit: self.cells.last_hit_before(from).unwrap_or(piece.first_hit),
            cut_at: None,
            ..piece.clone()
        });
        let old = self.pieces.get(begin..).unwrap_or(&[]);
        let mut new = chain(&self.cells, &self.rule, self.cut, current, (from, to), old);
        self.add_up(&mut new.pieces);
        let old: Vec<Piece> = self.pieces.splice(begin..begin + new.replaced, new.pieces.iter().cloned()).collect();
        self.compare(&old, &new.pieces, diff);
    }

    /// Finds all episodes anew, for a rule that sees the items otherwise. Cells below the limit are no hits for it.
    fn begin_anew(&mut self, diff: &mut Diff) {
        let mut at = self.cells.seek(Cell::MIN);
        while self.cells.get(at).is_some() {
            self.cells.set_hit(at, None);
            at = self.cells.after(at);
        }
        self.kept = None;
        self.judge(self.limit, Cell::MAX);
        self.cells.refresh(Cell::MIN, Cell::MAX);
        let all = (Cell::MIN, Cell::MAX);
        let mut new = chain(&self.cells, &self.rule, self.cut, None, all, &[]).pieces;
        self.add_up(&mut new);
        let old = mem::replace(&mut self.pieces, new);
        self.compare(&old, &self.pieces, diff);
    }

    /// Adds up what the extents hold.
    fn add_up(&self, pieces: &mut [Piece]) {
        for piece in pieces {
            piece.totals = self.cells.totals(piece.anchor, piece.last_cell());
            if let Some(frozen) = &piece.frozen {
                piece.totals.add(frozen);
            }
        }
    }

    /// Tells the difference of two lists of pieces, both in order and without overlaps.
    fn compare(&self, old: &[Piece], new: &[Piece], diff: &mut Diff) {
        let mut taken = vec![false; new.len()]; // those that stand for an id that went
        for piece in old {
            let now = piece.same_id_in(new);
            if now.is_some_and(|now| now.shows_like(piece)) {
                continue;
            }
            diff.removed.push(self.episode(piece));
            if let (None, Some(index)) = (now, piece.most_covered_by(new)) {
                let Some((taken, by)) = taken.get_mut(index).zip(new.get(index)) else { continue };
                *taken = true;
                diff.lineage.push(Lineage::SupersededBy { old: id(&self.key, piece), new: id(&self.key, by) });
            }
        }
        for (piece, taken) in new.iter().zip(taken) {
            let before = piece.same_id_in(old);
            if before.is_some_and(|before| before.shows_like(piece)) {
                continue;
            }
            diff.added.push(self.episode(piece));
            if let (None, false, Some(from)) = (before, taken, piece.most_covered_by(old).and_then(|i| old.get(i))) {
                diff.lineage.push(Lineage::SplitFrom { old: id(&self.key, from), new: id(&self.key, piece) });
            }
        }
    }

    fn episode(&self, piece: &Piece) -> Episode {
        Episode {
            key: self.key.clone(),
            kind: piece.kind,
            anchor: piece.anchor,
            last_cell: piece.last_cell(),
            first_hit: piece.first_hit,
            count: piece.totals.counts.iter().sum(),
            reference_counts: piece.totals.counts.to_vec(),
            peak: piece.totals.peak,
        }
    }
}

fn id(key: &EpisodeKey, piece: &Piece) -> AlertId {
    AlertId::of(&key.tenant, &key.rule, &key.group, piece.kind, piece.anchor)
}

/// An item's value as the predicate takes it; `None` if it is not one that counts.
fn value_for(kind: ValueKind, value: Option<&Arc<str>>) -> Option<Value<'_>> {
    let number = || value.and_then(|text| Fixed::parse(text).ok());
    match kind {
        ValueKind::None => Some(Value::None),
        ValueKind::Text => value.map(Value::Text),
        ValueKind::Number => number().map(Value::Number),
        ValueKind::Sum => number().map(Value::Addend),
    }
}
