//! Isolation forest (Liu, Ting, Zhou 2008) on rows of the negative class: what random cuts separate soon is unlike it.

use serde::{Deserialize, Serialize};

use super::{Lesson, boost::TREES_MAX};
use crate::{
    matrix::{ColumnKind, Matrix},
    random::Random,
    threads,
    tree::{self, Node, Tree},
};

/// How it learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Trees.
    pub trees: usize,
    /// Rows of each tree.
    pub rows: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { trees: 200, rows: 512 }
    }
}

/// Trees whose leaves hold how deep they are, with what the rows in them would still take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Isolation {
    trees: Vec<Tree>,
    /// Mean depth that a random row would need.
    usual: f64,
}

impl Isolation {
    pub(super) fn train(lesson: &Lesson<'_>, settings: &Settings) -> Isolation {
        let negative: Vec<usize> = (0..lesson.matrix.rows).filter(|&row| !lesson.positive[row]).collect();
        let rows = settings.rows.clamp(2, negative.len().max(2));
        let trees = threads::map(lesson.threads, settings.trees.clamp(1, TREES_MAX), |at| {
            let mut random = Random::new(lesson.seed, 0x150_0000 + at as u64);
            let sample = random.choose(negative.len(), rows).into_iter().map(|at| negative[at]).collect();
            grow(lesson.matrix, sample, &mut random)
        });
        Isolation { trees, usual: usual_depth(rows) }
    }

    /// Scores of a block of rows.
    pub(super) fn scores(&self, rows: &[f32], width: usize) -> Vec<f64> {
        let mut depths = tree::sums(&self.trees, 0.0, rows, width, None);
        depths.iter_mut().for_each(|depth| *depth = (-(*depth / self.trees.len() as f64) / self.usual).exp2());
        depths
    }

    pub(super) fn check(&self, columns: usize) -> Result<(), String> {
        if self.trees.is_empty() || self.trees.len() > TREES_MAX || !(self.usual.is_finite() && self.usual > 0.0) {
            return Err(format!("an isolation forest of {} trees", self.trees.len()));
        }
        self.trees.iter().try_for_each(|tree| tree.check(columns))
    }
}

fn grow(matrix: &Matrix, sample: Vec<usize>, random: &mut Random) -> Tree {
    let depth_max = (sample.len() as f64).log2().ceil() as usize + 2;
    let mut tree = Tree { nodes: vec![Node::leaf(0.0)] };
    let mut open = vec![(0_usize, 0_usize, sample)];
    while let Some((at, depth, rows)) = open.pop() {
        let cut = if rows.len() < 2 || depth >= depth_max { None } else { cut(matrix, &rows, random) };
        let Some((column, threshold, equals)) = cut else {
            tree.nodes[at].value = (depth as f64 + usual_depth(rows.len())) as f32;
            continue;
        };
        let left_at = tree.nodes.len();
        tree.nodes.extend([Node::leaf(0.0), Node::leaf(0.0)]);
        let node =
            Node { column: column as u16, equals, missing_left: false, threshold, left: left_at as u32, value: 0.0 };
        tree.nodes[at] = node;
        let goes_left = |row: &usize| {
            let cell = matrix.row(*row)[column];
            if equals { cell == threshold } else { cell <= threshold }
        };
        let (left, right): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(goes_left);
        open.push((left_at, depth + 1, left));
        open.push((left_at + 1, depth + 1, right));
    }
    tree
}

/// A random column that is not constant here, and a random place in it.
fn cut(matrix: &Matrix, rows: &[usize], random: &mut Random) -> Option<(usize, f32, bool)> {
    for _ in 0..2 * matrix.columns() {
        let column = random.below(matrix.columns());
        let cells = || rows.iter().map(|&row| matrix.row(row)[column]);
        let (least, most) = cells().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), cell| (a.min(cell), b.max(cell)));
        if least >= most || !(most - least).is_finite() {
            continue;
        }
        if matrix.kinds[column] != ColumnKind::Ordered {
            return cells().nth(random.below(rows.len())).map(|cell| (column, cell, true));
        }
        let threshold = (f64::from(least) + random.unit() * f64::from(most - least)) as f32;
        return Some((column, threshold.clamp(least, most), false)).filter(|(_, threshold, _)| *threshold < most);
    }
    None
}

/// Mean depth of an unsuccessful search in a binary tree of `n` rows.
fn usual_depth(n: usize) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        n => 2.0 * ((n as f64 - 1.0).ln() + 0.577_215_664_901_532_9) - 2.0 * (n as f64 - 1.0) / n as f64,
    }
}
