//! Growing one tree from histograms of gradients, for boosting (all columns, best leaf first) and for forests (a few
//! columns drawn at each node).
//!
//! A leaf's value is `-G / (H + lambda)`; a split's gain is the drop of `-G^2 / (H + lambda)` (Friedman 2001; Chen and
//! Guestrin 2016, eq. 7). With gradient `-w y` and hessian `w` this is the weighted mean and the drop of the Gini
//! impurity, so forests grow by the same code. Ties go to the first column and the lowest bin: the same bytes each time.

use std::{cmp::Ordering, collections::BinaryHeap, mem};

use super::{NODES_MAX, Node, Tree};
use crate::{matrix::Binned, random::Random};

/// How a tree may grow.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    pub(crate) leaves_max: usize,
    pub(crate) depth_max: usize,
    /// Rows of a leaf at least.
    pub(crate) leaf_rows_min: usize,
    /// Sum of hessians of a leaf at least.
    pub(crate) leaf_weight_min: f64,
    pub(crate) lambda: f64,
    /// Columns drawn at each node; all if as many as there are.
    pub(crate) columns_per_node: usize,
}

/// Sums over rows.
#[derive(Clone, Copy, Default)]
struct Sums {
    gradient: f64,
    hessian: f64,
    rows: u32,
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.gradient += other.gradient;
        self.hessian += other.hessian;
        self.rows += other.rows;
    }

    fn without(self, other: Sums) -> Sums {
        Sums {
            gradient: self.gradient - other.gradient,
            hessian: self.hessian - other.hessian,
            rows: self.rows - other.rows,
        }
    }
}

/// A split of a leaf.
#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    column: usize,
    bin: u8,
    missing_left: bool,
    left: Sums,
}

/// A leaf that may be split.
struct Leaf {
    node: usize,
    depth: usize,
    start: usize,
    end: usize,
    sums: Sums,
    split: Split,
    /// Per column drawn: kept for the children only while all columns are used.
    histogram: Vec<Sums>,
}

impl PartialEq for Leaf {
    fn eq(&self, other: &Leaf) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Leaf {}
impl PartialOrd for Leaf {
    fn partial_cmp(&self, other: &Leaf) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Leaf {
    fn cmp(&self, other: &Leaf) -> Ordering {
        self.split.gain.total_cmp(&other.split.gain).then_with(|| other.node.cmp(&self.node))
    }
}

/// What trees grow from.
pub(crate) struct Grower<'a> {
    pub(crate) columns: &'a [Binned],
    /// Columns that this tree may use.
    pub(crate) used: Vec<usize>,
    pub(crate) growth: &'a Growth,
    pub(crate) gradients: &'a [f32],
    pub(crate) hessians: &'a [f32],
    /// Where each used column's histogram begins.
    offsets: Vec<usize>,
    bins: usize,
}

impl<'a> Grower<'a> {
    pub(crate) fn new(
        columns: &'a [Binned],
        used: Vec<usize>,
        growth: &'a Growth,
        gradients: &'a [f32],
        hessians: &'a [f32],
    ) -> Grower<'a> {
        let mut bins = 0;
        let offsets = used
            .iter()
            .map(|&column| {
                bins += columns[column].count();
                bins - columns[column].count()
            })
            .collect();
        Grower { columns, used, growth, gradients, hessians, offsets, bins }
    }

    /// Grows a tree on the given rows (repeats count as often); these are reordered on the way.
    pub(crate) fn grow(&self, rows: &mut [u32], random: &mut Random) -> Tree {
        let all_columns = self.growth.columns_per_node >= self.used.len();
        let sums = self.sums(rows);
        let mut tree = Tree { nodes: vec![Node::leaf(self.value(sums))] };
        let mut open = BinaryHeap::new();
        let mut spare = vec![0_u32; rows.len()];
        let histogram = if all_columns { self.histogram(rows) } else { Vec::new() };
        open.extend(self.leaf(0, 0, (0, rows.len()), sums, histogram, rows, random));
        let mut leaves = 1;
        while leaves < self.growth.leaves_max && tree.nodes.len() + 2 <= NODES_MAX {
            let Some(mut leaf) = open.pop() else { break };
            leaves += 1;
            let middle = leaf.start + self.partition(&mut rows[leaf.start..leaf.end], leaf.split, &mut spare);
            let right_sums = leaf.sums.without(leaf.split.left);
            let left_at = tree.nodes.len();
            self.write(&mut tree, &leaf, left_at, right_sums);
            let left = (leaf.start, middle);
            let right = (middle, leaf.end);
            if leaf.depth + 1 >= self.growth.depth_max {
                continue;
            }
            let (left_bins, right_bins) = if all_columns {
                self.children(mem::take(&mut leaf.histogram), &rows[left.0..left.1], &rows[right.0..right.1])
            } else {
                (Vec::new(), Vec::new())
            };
            open.extend(self.leaf(left_at, leaf.depth + 1, left, leaf.split.left, left_bins, rows, random));
            open.extend(self.leaf(left_at + 1, leaf.depth + 1, right, right_sums, right_bins, rows, random));
        }
        tree
    }

    fn write(&self, tree: &mut Tree, leaf: &Leaf, left_at: usize, right_sums: Sums) {
        let column = &self.columns[leaf.split.column];
        let node = &mut tree.nodes[leaf.node];
        node.column = leaf.split.column as u16;
        node.equals = column.category;
        node.missing_left = leaf.split.missing_left;
        node.threshold = column.uppers[usize::from(leaf.split.bin) - 1];
        node.left = left_at as u32;
        tree.nodes.push(Node::leaf(self.value(leaf.split.left)));
        tree.nodes.push(Node::leaf(self.value(right_sums)));
    }

    /// The children's histograms: the smaller is counted, the other is what remains.
    fn children(&self, parent: Vec<Sums>, left: &[u32], right: &[u32]) -> (Vec<Sums>, Vec<Sums>) {
        let small = self.histogram(if left.len() <= right.len() { left } else { right });
        let large = parent.into_iter().zip(&small).map(|(all, &part)| all.without(part)).collect();
        if left.len() <= right.len() { (small, large) } else { (large, small) }
    }

    #[allow(clippy::too_many_arguments)] // a leaf is all of these
    fn leaf(
        &self,
        node: usize,
        depth: usize,
        (start, end): (usize, usize),
        sums: Sums,
        histogram: Vec<Sums>,
        rows: &[u32],
        random: &mut Random,
    ) -> Option<Leaf> {
        if (sums.rows as usize) < 2 * self.growth.leaf_rows_min || sums.hessian < 2.0 * self.growth.leaf_weight_min {
            return None;
        }
        let split = if histogram.is_empty() {
            self.draw_split(&rows[start..end], sums, random)
        } else {
            let split = |at: usize| {
                let column = self.used[at];
                let bins = &histogram[self.offsets[at]..self.offsets[at] + self.columns[column].count()];
                self.best(column, bins, sums)
            };
            (0..self.used.len()).filter_map(split).fold(None, better)
        }?;
        Some(Leaf { node, depth, start, end, sums, split, histogram })
    }

    /// The best split among columns drawn for this node; more are drawn while none splits.
    fn draw_split(&self, rows: &[u32], sums: Sums, random: &mut Random) -> Option<Split> {
        let order = random.choose(self.used.len(), self.used.len());
        let mut best = None;
        let mut bins = Vec::new();
        for (tried, &at) in order.iter().enumerate() {
            if tried >= self.growth.columns_per_node && best.is_some() {
                break;
            }
            let column = &self.columns[self.used[at]];
            bins.clear();
            bins.resize(column.count(), Sums::default());
            self.count(column, rows, &mut bins);
            best = [best, self.best(self.used[at], &bins, sums)].into_iter().flatten().fold(None, better);
        }
        best
    }

    fn histogram(&self, rows: &[u32]) -> Vec<Sums> {
        let mut histogram = vec![Sums::default(); self.bins];
        for (&column, &offset) in self.used.iter().zip(&self.offsets) {
            let column = &self.columns[column];
            self.count(column, rows, &mut histogram[offset..offset + column.count()]);
        }
        histogram
    }

    fn count(&self, column: &Binned, rows: &[u32], bins: &mut [Sums]) {
        for &row in rows {
            let row = row as usize;
            let sums = &mut bins[usize::from(column.bins[row])];
            sums.gradient += f64::from(self.gradients[row]);
            sums.hessian += f64::from(self.hessians[row]);
            sums.rows += 1;
        }
    }

    fn sums(&self, rows: &[u32]) -> Sums {
        let mut sums = Sums::default();
        for &row in rows {
            let row = row as usize;
            sums.add(Sums {
                gradient: f64::from(self.gradients[row]),
                hessian: f64::from(self.hessians[row]),
                rows: 1,
            });
        }
        sums
    }

    /// The best split of one column.
    fn best(&self, column: usize, bins: &[Sums], all: Sums) -> Option<Split> {
        let missing = bins[0];
        let category = self.columns[column].category;
        let mut best = None;
        let mut below = Sums::default();
        for (bin, &sums) in bins.iter().enumerate().skip(1) {
            if category {
                below = sums;
            } else {
                below.add(sums);
            }
            if sums.rows == 0 || (!category && bin + 1 == bins.len() && missing.rows == 0) {
                continue;
            }
            // Where none is missing, one that is missing later goes with the many.
            let with_many = below.rows * 2 >= all.rows;
            let sides: &[bool] = if missing.rows > 0 { &[true, false] } else { &[with_many] };
            for &missing_left in sides {
                let mut left = below;
                if missing_left {
                    left.add(missing);
                }
                let gain = self.gain(left, all);
                let split = Split { gain, column, bin: bin as u8, missing_left, left };
                best = [best, gain.is_finite().then_some(split)].into_iter().flatten().fold(None, better);
            }
        }
        best
    }

    /// What a split gains; minus infinity if it must not be made.
    fn gain(&self, left: Sums, all: Sums) -> f64 {
        if left.rows > all.rows {
            return f64::NEG_INFINITY;
        }
        let right = all.without(left);
        let growth = self.growth;
        let too_small =
            |side: Sums| (side.rows as usize) < growth.leaf_rows_min || side.hessian < growth.leaf_weight_min;
        if too_small(left) || too_small(right) {
            return f64::NEG_INFINITY;
        }
        let score = |side: Sums| side.gradient * side.gradient / (side.hessian + growth.lambda);
        let gain = score(left) + score(right) - score(all);
        if gain > 1e-9 { gain } else { f64::NEG_INFINITY }
    }

    fn value(&self, sums: Sums) -> f32 {
        let value = -sums.gradient / (sums.hessian + self.growth.lambda);
        if value.is_finite() { value as f32 } else { 0.0 }
    }

    /// Moves the rows that go left to the front, keeping their order; returns how many.
    fn partition(&self, rows: &mut [u32], split: Split, spare: &mut [u32]) -> usize {
        let column = &self.columns[split.column];
        let (mut left, mut right) = (0, 0);
        for at in 0..rows.len() {
            let row = rows[at];
            let bin = column.bins[row as usize];
            let goes_left = match bin {
                0 => split.missing_left,
                bin if column.category => bin == split.bin,
                bin => bin <= split.bin,
            };
            if goes_left {
                rows[left] = row;
                left += 1;
            } else {
                spare[right] = row;
                right += 1;
            }
        }
        rows[left..].copy_from_slice(&spare[..right]);
        left
    }
}

/// The better of two splits; the first found wins a tie.
fn better(best: Option<Split>, split: Split) -> Option<Split> {
    match best {
        Some(best) if best.gain.total_cmp(&split.gain) != Ordering::Less => Some(best),
        _ => Some(split),
    }
}
