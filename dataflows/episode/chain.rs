//! Links hits to runs, and cuts runs to pieces.
//!
//! One automaton, fed with hits in order; what it knows is its current piece. So it can begin at any hit whose piece is
//! known, and may stop at any later hit where it finds itself in the piece that was there before.

use std::cmp::Reverse;

use cf_types::{AnchorKind, Cell, EpisodeRule};

use super::cells::{CellItems, Cells, Hits, Step, Totals};

/// A piece of a run. Pieces of a key are in order and do not overlap.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) kind: AnchorKind,
    pub(super) anchor: Cell,
    pub(super) first_hit: Cell,
    pub(super) last_hit: Cell,
    /// The boundary where the run goes on as the next piece.
    pub(super) cut_at: Option<Cell>,
    /// What its extent holds.
    pub(super) totals: Totals,
    /// The frozen prefix: the part of `totals` whose cells have been dropped. Only the first piece has one.
    pub(super) frozen: Option<Box<Totals>>,
}

impl Piece {
    fn new(kind: AnchorKind, anchor: Cell, hit: Cell) -> Piece {
        Piece { kind, anchor, first_hit: hit, last_hit: hit, cut_at: None, totals: Totals::none(0), frozen: None }
    }

    /// The last cell of its extent, inclusive.
    pub(super) fn last_cell(&self) -> Cell {
        self.cut_at.map_or(self.last_hit, |boundary| boundary - 1)
    }

    /// The piece with the same id, in a list that is in order and without overlaps.
    pub(super) fn same_id_in<'a>(&self, pieces: &'a [Piece]) -> Option<&'a Piece> {
        let index = pieces.binary_search_by_key(&self.anchor, |piece| piece.anchor).ok()?;
        pieces.get(index).filter(|piece| piece.kind == self.kind)
    }

    /// Whether both have the same id and content.
    pub(super) fn shows_like(&self, other: &Piece) -> bool {
        let shown = |piece: &Piece| (piece.kind, piece.anchor, piece.first_hit, piece.last_cell());
        shown(self) == shown(other) && self.totals == other.totals
    }

    /// Which piece of a list covers the most of this one's extent; of equals the first.
    pub(super) fn most_covered_by(&self, pieces: &[Piece]) -> Option<usize> {
        let begin = pieces.partition_point(|piece| piece.last_cell() < self.anchor);
        let common = |piece: &Piece| piece.last_cell().min(self.last_cell()) - piece.anchor.max(self.anchor);
        let overlapping = pieces.iter().enumerate().skip(begin);
        overlapping
            .take_while(|(_, piece)| piece.anchor <= self.last_cell())
            .max_by_key(|(index, piece)| (common(piece), Reverse(*index)))
            .map(|(index, _)| index)
    }

    /// Whether both go on alike, given the same hits: an uncut beginning counts from its first hit, a cut one has been
    /// cut before and is cut at every boundary.
    fn goes_on_like(&self, other: &Piece) -> bool {
        (self.kind, self.anchor) == (other.kind, other.anchor)
            && (self.kind == AnchorKind::Cut || self.first_hit == other.first_hit)
    }

    /// Whether the run may be cut at `boundary`: it began at or before one grid length earlier.
    fn may_be_cut_at(&self, boundary: Cell, cut: Cell) -> bool {
        self.kind == AnchorKind::Cut || self.first_hit <= boundary - cut
    }

    /// Takes the end of a piece that goes on alike.
    fn end_like(&mut self, other: &Piece) {
        self.last_hit = other.last_hit;
        self.cut_at = other.cut_at;
    }
}

/// What chaining a part of the hits anew has given.
pub(super) struct Chained {
    /// The new pieces.
    pub(super) pieces: Vec<Piece>,
    /// How many of the old ones they stand for.
    pub(super) replaced: usize,
}

/// Chains the hits from `from` on, going on with `current`. Stops after `to`, the last cell where hits may have
/// changed, as soon as it stands in the same piece as before; `old` are the pieces of before, from `current` on.
pub(super) fn chain(
    cells: &Cells,
    rule: &EpisodeRule,
    cut: Cell,
    current: Option<Piece>,
    (from, to): (Cell, Cell),
    old: &[Piece],
) -> Chained {
    let (timespan, lead) = (rule.timespan, rule.lead());
    let mut chain = Chain { cells, timespan, lead, cut, current, done: Vec::new() };
    let mut before = old.iter().enumerate().peekable();
    for step in cells.hits(from) {
        let singles: &[CellItems] = match step {
            Step::Chunk(hits, _) if chain.take(&hits) => &[],
            Step::Chunk(_, cells) | Step::Cells(cells) => cells,
        };
        let mut ends = singles.iter().filter_map(|items| cells.hit_of(items));
        loop {
            // After each hit, and after each chunk that was taken whole.
            match ends.next() {
                Some(hit) => chain.hit(hit),
                None if singles.is_empty() => {}
                None => break,
            }
            let Some(current) = chain.current.as_mut().filter(|piece| piece.last_hit > to) else {
                if singles.is_empty() { break } else { continue }
            };
            while before.next_if(|(_, piece)| piece.last_hit < current.last_hit).is_some() {}
            if let Some((index, piece)) = before.peek().filter(|(_, piece)| current.goes_on_like(piece)) {
                current.end_like(piece);
                return chain.end(index + 1);
            }
            if singles.is_empty() {
                break;
            }
        }
    }
    chain.end(old.len())
}

struct Chain<'a> {
    cells: &'a Cells,
    timespan: Cell,
    lead: Cell,
    cut: Cell,
    current: Option<Piece>,
    done: Vec<Piece>,
}

impl Chain<'_> {
    fn hit(&mut self, hit: Cell) {
        let boundary = self.grid(hit);
        match &mut self.current {
            Some(piece) if hit - piece.last_hit <= self.timespan => {
                if piece.last_hit < boundary && piece.may_be_cut_at(boundary, self.cut) {
                    piece.cut_at = Some(boundary);
                    self.begin(Piece::new(AnchorKind::Cut, boundary, hit));
                } else {
                    piece.last_hit = hit;
                }
            }
            _ => {
                // A window that is a hit holds an item, so there is a first one.
                let window = self.cells.seek(hit.saturating_sub(self.lead));
                let anchor = self.cells.get(window).map_or(hit, |items| items.cell);
                self.begin(Piece::new(AnchorKind::Item, anchor, hit));
            }
        }
    }

    /// Takes all hits of a chunk at once if they only lengthen the current piece.
    fn take(&mut self, hits: &Hits) -> bool {
        let boundary = self.grid(hits.last);
        match &mut self.current {
            Some(piece)
                if hits.first - piece.last_hit <= self.timespan
                    && hits.gap_max <= self.timespan
                    && !(piece.last_hit < boundary && piece.may_be_cut_at(boundary, self.cut)) =>
            {
                piece.last_hit = hits.last;
                true
            }
            _ => false,
        }
    }

    /// The last boundary of the grid at or before a cell.
    fn grid(&self, cell: Cell) -> Cell {
        cell.div_euclid(self.cut).saturating_mul(self.cut)
    }

    fn begin(&mut self, piece: Piece) {
        self.done.extend(self.current.replace(piece));
    }

    fn end(self, replaced: usize) -> Chained {
        let mut pieces = self.done;
        pieces.extend(self.current);
        Chained { pieces, replaced }
    }
}
