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

    fn goes_left(&self, cell: f32) -> bool {
        if cell.is_nan() {
            self.missing_left
        } else if self.equals {
            cell == self.threshold
        } else {
            cell <= self.threshold
        }
    }
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

    /// Adds to each column what its splits changed on the row's way down, times `scale` (Saabas' decomposition).
    pub fn contribute(&self, row: &[f32], scale: f64, into: &mut [f64]) {
        let mut node = &self.nodes[0];
        while node.left != 0 {
            let column = usize::from(node.column);
            let right = u32::from(!node.goes_left(row[column]));
            let child = &self.nodes[(node.left + right) as usize];
            into[column] += f64::from(child.value - node.value) * scale;
            node = child;
        }
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
            if left != 0 && (left <= at || left + 1 >= self.nodes.len() || usize::from(node.column) >= columns) {
                return Err(format!("node {at} leads nowhere"));
            }
        }
        Ok(())
    }
}
