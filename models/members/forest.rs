//! Random forest (Breiman 2001): each tree sees a bootstrap sample, each node a few columns; the score is the mean of
//! the leaves' shares, which is smoother than a vote.

use serde::{Deserialize, Serialize};

use super::{Lesson, boost::TREES_MAX};
use crate::{
    matrix,
    random::Random,
    threads,
    tree::{
        self, NODES_MAX, Tree,
        grow::{Grower, Growth},
    },
};

/// How the forest learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Trees.
    pub trees: usize,
    /// Rows drawn for each tree, as a share of all.
    pub rows_share: f64,
    /// Columns drawn at each node, as a share of all; 0 takes the square root of their number.
    pub columns_share: f64,
    /// Splits from the root to a leaf at most.
    pub depth: usize,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { trees: 100, rows_share: 1.0, columns_share: 0.0, depth: 24, leaf_rows: 1 }
    }
}

/// Trees whose mean is a probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forest {
    trees: Vec<Tree>,
}

impl Forest {
    pub(super) fn train(lesson: &Lesson<'_>, settings: &Settings) -> Forest {
        let columns = matrix::bin(lesson.matrix);
        let rows = lesson.matrix.rows;
        let gradients: Vec<f32> =
            lesson.weights.iter().zip(lesson.positive).map(|(&weight, &is)| if is { -weight } else { 0.0 }).collect();
        let share = if settings.columns_share > 0.0 {
            columns.len() as f64 * settings.columns_share
        } else {
            (columns.len() as f64).sqrt()
        };
        let growth = Growth {
            leaves_max: NODES_MAX / 2,
            depth_max: settings.depth,
            leaf_rows_min: settings.leaf_rows.max(1),
            leaf_weight_min: 0.0,
            lambda: 0.0,
            // One below all, so that nodes draw, and no histograms are kept.
            columns_per_node: (share.ceil().max(1.0) as usize).min(columns.len().saturating_sub(1)),
        };
        let used: Vec<usize> = (0..columns.len()).collect();
        let grower = Grower::new(&columns, used, &growth, &gradients, lesson.weights);
        let drawn = ((rows as f64 * settings.rows_share) as usize).max(1);
        let trees = threads::map(lesson.threads, settings.trees.min(TREES_MAX), |at| {
            let mut random = Random::new(lesson.seed, 0xF0_0000 + at as u64);
            let mut sample: Vec<u32> = (0..drawn).map(|_| random.below(rows) as u32).collect();
            // In order, so that memory is read forwards.
            sample.sort_unstable();
            grower.grow(&mut sample, &mut random)
        });
        Forest { trees }
    }

    /// Scores of a block of rows; with `effects`, also what each column changed.
    pub(super) fn scores(&self, rows: &[f32], width: usize, effects: Option<&mut [f64]>) -> Vec<f64> {
        let trees = self.trees.len() as f64;
        let explained = effects.map(|effects| (1.0 / trees, effects));
        let mut sums = tree::sums(&self.trees, 0.0, rows, width, explained);
        sums.iter_mut().for_each(|sum| *sum = (*sum / trees).clamp(0.0, 1.0));
        sums
    }

    pub(super) fn check(&self, columns: usize) -> Result<(), String> {
        if self.trees.is_empty() || self.trees.len() > TREES_MAX {
            return Err(format!("a forest of {} trees", self.trees.len()));
        }
        self.trees.iter().try_for_each(|tree| tree.check(columns))
    }
}
