//! The definitions of `streaming.md`, *Episodes*, written down as a function of a multiset of items: slow and obvious.
//!
//! Nothing of it is shared with what it judges, save the types.

use std::{collections::BTreeSet, sync::Arc};

use cf_types::{AnchorKind, Cell, Episode, EpisodeKey, EpisodeRule, Predicate};

/// An item, and how many of it there are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OracleItem {
    pub(crate) cell: Cell,
    pub(crate) reference: u16,
    pub(crate) value: Option<Arc<str>>,
}

/// An episode, and from which limit on it is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OracleEpisode {
    pub(crate) episode: Episode,
    pub(crate) final_above: Cell,
}

/// All episodes of one key, in order. Windows that end before `hits_from` are not looked at.
pub(crate) fn oracle(
    key: &EpisodeKey,
    rule: &EpisodeRule,
    cut: Cell,
    hits_from: Cell,
    items: &[(OracleItem, u64)],
) -> Vec<OracleEpisode> {
    let valued = matches!(rule.predicate, Predicate::ValueCount(_));
    let items: Vec<&(OracleItem, u64)> = items
        .iter()
        .filter(|(item, count)| {
            *count > 0 && usize::from(item.reference) < rule.references.len() && (!valued || item.value.is_some())
        })
        .collect();
    let within =
        |from: Cell, to: Cell| items.iter().copied().filter(move |(item, _)| from <= item.cell && item.cell <= to);

    let cells: BTreeSet<Cell> = items.iter().map(|(item, _)| item.cell).collect();
    let hits: Vec<(Cell, u64)> = cells
        .into_iter()
        .filter(|cell| *cell >= hits_from)
        .filter_map(|cell| Some((cell, hit(rule, &within(cell - rule.timespan, cell).collect::<Vec<_>>())?)))
        .collect();

    let mut episodes = Vec::new();
    for run in hits.chunk_by(|(a, _), (b, _)| b - a <= rule.timespan) {
        let begin = run[0].0;
        // A boundary between two hits of the run, if the run began one grid length before it, or earlier.
        let boundary = |a: Cell, b: Cell| (a + 1..=b).find(|x| x.rem_euclid(cut) == 0 && begin <= x - cut);
        let mut kind = AnchorKind::Item;
        let mut anchor = within(begin - rule.timespan, begin).map(|(item, _)| item.cell).min().unwrap();
        let pieces: Vec<&[(Cell, u64)]> = run.chunk_by(|(a, _), (b, _)| boundary(*a, *b).is_none()).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let last = piece.last().unwrap().0;
            let next = pieces.get(index + 1).map(|next| next[0].0);
            let cut_at = next.map(|next| boundary(last, next).unwrap());
            let last_cell = cut_at.map_or(last, |at| at - 1);
            let reference_counts: Vec<u64> = (0..rule.references.len())
                .map(|r| {
                    let of = within(anchor, last_cell).filter(|(item, _)| usize::from(item.reference) == r);
                    of.map(|(_, count)| count).sum()
                })
                .collect();
            episodes.push(OracleEpisode {
                episode: Episode {
                    key: key.clone(),
                    kind,
                    anchor,
                    last_cell,
                    first_hit: piece[0].0,
                    count: reference_counts.iter().sum(),
                    reference_counts,
                    peak: piece.iter().map(|(_, peak)| *peak).max().unwrap(),
                },
                final_above: next.unwrap_or(last + rule.timespan),
            });
            (kind, anchor) = (AnchorKind::Cut, cut_at.unwrap_or(anchor));
        }
    }
    episodes
}

/// The predicate's count of a window, if it is a hit.
fn hit(rule: &EpisodeRule, window: &[&(OracleItem, u64)]) -> Option<u64> {
    let has = |reference: usize| window.iter().any(|(item, _)| usize::from(item.reference) == reference);
    match &rule.predicate {
        Predicate::EventCount(condition) => {
            let count = window.iter().map(|(_, count)| count).sum();
            condition.holds(count).then_some(count)
        }
        Predicate::ValueCount(condition) => {
            let distinct: BTreeSet<_> = window.iter().map(|(item, _)| &item.value).collect();
            let count = u64::try_from(distinct.len()).unwrap();
            condition.holds(count).then_some(count)
        }
        Predicate::Temporal => (0..rule.references.len()).all(has).then_some(0),
        Predicate::TemporalOrdered => in_order(window, 0, rule.references.len(), Cell::MIN).then_some(0),
    }
}

/// Whether cells exist, from `from` on and in order, that hold references `next`, `next + 1`, ... below `end`.
fn in_order(window: &[&(OracleItem, u64)], next: usize, end: usize, from: Cell) -> bool {
    next == end
        || window.iter().any(|(item, _)| {
            usize::from(item.reference) == next && item.cell >= from && in_order(window, next + 1, end, item.cell)
        })
}
