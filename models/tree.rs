//! Decision trees as arrays: prediction, contributions, and the check that a stored one is sound.

pub(crate) mod grow;

use serde::{Deserialize, Serialize};

/// Nodes of one tree at most.
pub const NODES_MAX: usize = 1 << 17;

/// A node; the first is the root, children come after their parent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Column that is asked; unused in leaves.
    pub column: u16,
    /// One value of a category against the rest, instead of a threshold.
    pub equals: bool,
    /// Where missing values go: left or not.
    pub missing_left: bool,
    /// Left is `<=` this, or equal to this.
    pub threshold: f32,
    /// Place of the left child; the right one follows it. 0 is a leaf.
    pub left: u32,
    /// Mean of the rows that reach it.
    pub value: f32,
}

/// A tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// Root first.
    pub nodes: Vec<Node>,
}

impl Node {
    pub(crate) fn leaf(value: f32) -> Node {
        Node { column: 0, equals: false, missing_left: true, threshold: 0.0, left: 0, value }
    }

    /// Without a branch: which way a row goes is what a processor guesses worst. Nothing compares to a missing cell, and
    /// what is equal is also `<=`.
    fn goes_left(&self, cell: f32) -> bool {
        (cell.is_nan() & self.missing_left) | (cell == self.threshold) | ((cell <= self.threshold) & !self.equals)
    }
}

/// Rows that go down a tree side by side: while one waits for memory, the others go on.
const LANES: usize = 8;

/// The sum of the trees' answers to each row of a block, over `base`; with `explained`, also what each column changed, times
/// a scale, added to as many cells (Saabas' decomposition).
///
/// Tree by tree, so that a tree is in the cache for all rows; each row's sum is over the trees in order, as if it were
/// alone.
pub(crate) fn sums(
    trees: &[Tree],
    base: f64,
    rows: &[f32],
    width: usize,
    mut explained: Option<(f64, &mut [f64])>,
) -> Vec<f64> {
    let mut sums = vec![base; rows.len() / width.max(1)];
    for tree in trees {
        match &mut explained {
            None => tree.add_to(&mut sums, rows, width),
            Some((scale, effects)) => {
                let blocks = sums.chunks_mut(LANES).zip(rows.chunks(LANES * width));
                for ((sums, rows), effects) in blocks.zip(effects.chunks_mut(LANES * width)) {
                    tree.add_explained(rows, width, sums, *scale, effects);
                }
            }
        }
    }
    sums
}

impl Tree {
    /// The value of the leaf that a row reaches.
    #[must_use]
    pub fn predict(&self, row: &[f32]) -> f32 {
        let mut node = &self.nodes[0];
        while node.left != 0 {
            let right = u32::from(!node.goes_left(row[usize::from(node.column)]));
            node = &self.nodes[(node.left + right) as usize];
        }
        node.value
    }

    /// Adds to the sum of each row the value of the leaf that it reaches.
    pub(crate) fn add_to(&self, sums: &mut [f64], rows: &[f32], width: usize) {
        let blocks = sums.chunks_mut(LANES).zip(rows.chunks(LANES * width));
        blocks.for_each(|(sums, rows)| self.add(rows, width, sums));
    }

    /// Adds to each sum the value of the leaf that its row reaches: at most [`LANES`] rows, which go down together.
    fn add(&self, rows: &[f32], width: usize, sums: &mut [f64]) {
        let mut at = [0_u32; LANES];
        loop {
            let mut moved = 0;
            for (at, row) in at.iter_mut().zip(rows.chunks_exact(width)) {
                let node = &self.nodes[*at as usize];
                // A leaf's column is the first: it asks in vain, which costs less than a branch.
                let next = node.left + u32::from(!node.goes_left(row[usize::from(node.column)]));
                let next = if node.left == 0 { *at } else { next };
                moved |= next ^ *at;
                *at = next;
            }
            if moved == 0 {
                break;
            }
        }
        sums.iter_mut().zip(at).for_each(|(sum, at)| *sum += f64::from(self.nodes[at as usize].value));
    }

    /// The same, and adds to each column of each row what its splits changed on the way down, times `scale`.
    fn add_explained(&self, rows: &[f32], width: usize, sums: &mut [f64], scale: f64, effects: &mut [f64]) {
        let mut at = [0_u32; LANES];
        loop {
            let mut moved = 0;
            let lanes = rows.chunks_exact(width).zip(effects.chunks_exact_mut(width));
            for (at, (row, effects)) in at.iter_mut().zip(lanes) {
                let node = &self.nodes[*at as usize];
                let column = usize::from(node.column);
                let next = node.left + u32::from(!node.goes_left(row[column]));
                let next = if node.left == 0 { *at } else { next };
                // Of one that stays at its leaf, nothing.
                effects[column] += f64::from(self.nodes[next as usize].value - node.value) * scale;
                moved |= next ^ *at;
                *at = next;
            }
            if moved == 0 {
                break;
            }
        }
        sums.iter_mut().zip(at).for_each(|(sum, at)| *sum += f64::from(self.nodes[at as usize].value));
    }

    /// Whether prediction on rows of `columns` cells ends and stays within the arrays.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, columns: usize) -> Result<(), String> {
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return Err(format!("a tree of {} nodes", self.nodes.len()));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let left = node.left as usize;
            if !node.value.is_finite() || node.threshold.is_nan() {
                return Err(format!("node {at} is not a number"));
            }
            // Also of a leaf: it asks in vain.
            let is_outside = usize::from(node.column) >= columns;
            if is_outside || (left != 0 && (left <= at || left + 1 >= self.nodes.len())) {
                return Err(format!("node {at} leads nowhere"));
            }
        }
        Ok(())
    }
}
