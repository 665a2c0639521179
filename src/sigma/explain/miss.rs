//! The nearest miss: the smallest set of parts which, had they been different, would have made a condition hold.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::Serialize;

use super::LogSourceFit;
use crate::rule::LogSourcePattern;

/// A part that would have to be different.
#[derive(Clone, Debug, Serialize)]
pub struct Miss {
    /// The selection it is in; none for the log source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selection: Option<Arc<str>>,
    /// The field with its modifiers, `keyword` or `log source`.
    pub part: Arc<str>,
    /// Whether it would have to hold (`true`), or must not (`false`).
    pub must_hold: bool,
    /// Values it wants, as written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<Arc<str>>,
    /// Values it saw.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub saw: Vec<String>,
}

impl Miss {
    pub(super) fn of_log_source(pattern: &LogSourcePattern, fit: &LogSourceFit) -> Miss {
        let parts = [&pattern.product, &pattern.category, &pattern.service];
        Miss {
            selection: None,
            part: Arc::from("log source"),
            must_hold: true,
            wanted: parts.into_iter().flatten().map(Arc::clone).collect(),
            saw: [Some(fit.declared.clone()), fit.channel.clone()].into_iter().flatten().collect(),
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(selection) = &self.selection {
            write!(f, "{selection}: ")?;
        }
        let must = if self.must_hold { "would have to hold" } else { "must not hold" };
        write!(f, "{} {must}", self.part)
    }
}

/// An item of the condition.
pub(super) struct Leaf {
    pub(super) selection: Arc<str>,
    pub(super) text: Arc<str>,
    pub(super) holds: bool,
    /// How many things would have to be different for it to hold.
    pub(super) cost: usize,
    pub(super) wanted: Vec<Arc<str>>,
    pub(super) saw: Vec<String>,
}

/// A condition over leaves. A leaf may stand several times: a selection that is named twice.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    All(Vec<Tree>),
    AtLeast(usize, Vec<Tree>),
    Not(Box<Tree>),
    Leaf(usize),
}

/// Leaves to be turned, and what they cost together.
type Turned = (usize, BTreeSet<usize>);

impl Tree {
    pub(super) fn holds(&self, leaves: &[Leaf]) -> bool {
        self.holds_with(leaves, &BTreeSet::new())
    }

    /// Whether it holds if some leaves were different.
    fn holds_with(&self, leaves: &[Leaf], turned: &BTreeSet<usize>) -> bool {
        match self {
            Tree::All(list) => list.iter().all(|tree| tree.holds_with(leaves, turned)),
            Tree::AtLeast(number, list) => {
                list.iter().filter(|tree| tree.holds_with(leaves, turned)).count() >= *number
            }
            Tree::Not(tree) => !tree.holds_with(leaves, turned),
            Tree::Leaf(leaf) => leaves.get(*leaf).is_some_and(|of| of.holds != turned.contains(leaf)),
        }
    }

    /// The parts that would have to be different; none if it holds.
    ///
    /// The least is sought part by part. Where a selection stands several times, turning it for one place may undo
    /// another; what was found is therefore tried, and if it does not do, sets of leaves are tried by their size.
    pub(super) fn nearest(&self, leaves: &[Leaf]) -> Vec<Miss> {
        if self.holds(leaves) {
            return Vec::new();
        }
        let found = self.cheapest(leaves, true).map(|(_, turned)| turned);
        let found = found.filter(|turned| self.holds_with(leaves, turned)).or_else(|| self.tried(leaves));
        let of = |leaf: &usize| {
            leaves.get(*leaf).map(|leaf| Miss {
                selection: Some(Arc::clone(&leaf.selection)),
                part: Arc::clone(&leaf.text),
                must_hold: !leaf.holds,
                wanted: leaf.wanted.clone(),
                saw: leaf.saw.clone(),
            })
        };
        found.iter().flatten().filter_map(of).collect()
    }

    /// The cheapest way to make it hold, or not hold; `None` if there is none.
    fn cheapest(&self, leaves: &[Leaf], wanted: bool) -> Option<Turned> {
        match self {
            Tree::All(list) if wanted => all_of(list, list.len(), leaves, true),
            Tree::All(list) => all_of(list, 1, leaves, false),
            Tree::AtLeast(number, list) if wanted => all_of(list, *number, leaves, true),
            Tree::AtLeast(number, list) => all_of(list, (list.len() + 1).saturating_sub(*number), leaves, false),
            Tree::Not(tree) => tree.cheapest(leaves, !wanted),
            Tree::Leaf(leaf) => {
                let of = leaves.get(*leaf)?;
                // A field that the event does not have is farther away than one with another value.
                let cost = if wanted { of.cost * 2 + usize::from(of.saw.is_empty()) } else { 2 };
                Some(if of.holds == wanted { (0, BTreeSet::new()) } else { (cost, BTreeSet::from([*leaf])) })
            }
        }
    }

    /// The smallest set of leaves that does, where they are few.
    fn tried(&self, leaves: &[Leaf]) -> Option<BTreeSet<usize>> {
        const LEAVES_MAX: usize = 12;
        if leaves.len() > LEAVES_MAX {
            return None;
        }
        let sets = 1_u32..(1 << leaves.len());
        let does = sets.filter_map(|bits| {
            let turned: BTreeSet<usize> = (0..leaves.len()).filter(|leaf| bits >> leaf & 1 == 1).collect();
            self.holds_with(leaves, &turned).then_some(turned)
        });
        does.min_by_key(BTreeSet::len)
    }
}

/// The cheapest so many of a list.
fn all_of(list: &[Tree], number: usize, leaves: &[Leaf], wanted: bool) -> Option<Turned> {
    let mut each: Vec<Turned> = list.iter().filter_map(|tree| tree.cheapest(leaves, wanted)).collect();
    if each.len() < number {
        return None;
    }
    each.sort_by_key(|(cost, _)| *cost);
    let turned: BTreeSet<usize> = each.into_iter().take(number).flat_map(|(_, turned)| turned).collect();
    let single = |leaf: &usize| Tree::Leaf(*leaf);
    let cost = turned.iter().filter_map(|leaf| {
        let holds = leaves.get(*leaf)?.holds;
        single(leaf).cheapest(leaves, !holds).map(|(cost, _)| cost)
    });
    Some((cost.sum(), turned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(holds: &[bool]) -> Vec<Leaf> {
        let leaf = |(place, holds): (usize, &bool)| Leaf {
            selection: Arc::from("s"),
            text: Arc::from(place.to_string()),
            holds: *holds,
            cost: 1,
            wanted: Vec::new(),
            saw: vec![String::new()],
        };
        holds.iter().enumerate().map(leaf).collect()
    }

    fn not(tree: Tree) -> Tree {
        Tree::Not(Box::new(tree))
    }

    #[test]
    fn the_nearest_miss_is_the_smallest_set_that_does() {
        let leaf = Tree::Leaf;
        let all = Tree::All;
        let any = |list| Tree::AtLeast(1, list);
        for (tree, holds, turned) in [
            (leaf(0), &[true][..], ""),
            (leaf(0), &[false], "0"),
            (not(leaf(0)), &[true], "0"),
            (all(vec![leaf(0), leaf(1)]), &[false, true], "0"),
            (all(vec![leaf(0), leaf(1)]), &[false, false], "01"),
            (any(vec![all(vec![leaf(0), leaf(1)]), leaf(2)]), &[false, false, false], "2"),
            (any(vec![all(vec![leaf(0), leaf(1)]), all(vec![leaf(2), leaf(3)])]), &[false, false, true, false], "3"),
            (all(vec![leaf(0), not(any(vec![leaf(1), leaf(2)]))]), &[true, true, true], "12"),
            (Tree::AtLeast(2, vec![leaf(0), leaf(1), leaf(2)]), &[false, true, false], "0"),
            (not(Tree::AtLeast(2, vec![leaf(0), leaf(1), leaf(2)])), &[true, true, true], "01"),
            // One leaf at two places that want it otherwise: only the other way is left.
            (any(vec![all(vec![leaf(0), not(leaf(0))]), all(vec![leaf(1), leaf(2)])]), &[false, false, false], "12"),
            (all(vec![leaf(0), not(leaf(0))]), &[false], ""),
        ] {
            let leaves = leaves(holds);
            let found: String = tree.nearest(&leaves).iter().map(|miss| miss.part.to_string()).collect();
            assert_eq!(found, turned, "{tree:?} {holds:?}");
        }
    }
}
