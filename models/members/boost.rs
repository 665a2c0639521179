//! Gradient boosting on histograms, with logistic loss (Friedman 2001).

use serde::{Deserialize, Serialize};

use super::{Lesson, logit, sigmoid};
use crate::{
    matrix,
    random::Random,
    tree::{
        self, Tree,
        grow::{Grower, Growth},
    },
};

/// Trees of one member at most.
pub(super) const TREES_MAX: usize = 4_096;

/// How boosting learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Trees.
    pub trees: usize,
    /// Share of each tree's answer that counts.
    pub rate: f64,
    /// Leaves of a tree.
    pub leaves: usize,
    /// Rows of a leaf at least.
    pub leaf_rows: usize,
    /// Sum of hessians of a leaf at least.
    pub leaf_weight: f64,
    /// Shrinks leaves with few rows.
    pub lambda: f64,
    /// Share of rows that each tree sees.
    pub rows_share: f64,
    /// Share of columns that each tree sees.
    pub columns_share: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        // What common libraries begin with; a fifth of the rows left out costs nothing and saves a fifth of the time.
        Settings {
            trees: 200,
            rate: 0.1,
            leaves: 31,
            leaf_rows: 20,
            leaf_weight: 1.0,
            lambda: 1.0,
            rows_share: 0.8,
            columns_share: 0.7,
        }
    }
}

/// Trees whose values add up to a logit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boost {
    base: f64,
    trees: Vec<Tree>,
}

impl Boost {
    pub(super) fn train(lesson: &Lesson<'_>, settings: &Settings) -> Boost {
        let columns = matrix::bin(lesson.matrix);
        let rows = lesson.matrix.rows;
        let growth = Growth {
            leaves_max: settings.leaves.max(2),
            depth_max: 64,
            leaf_rows_min: settings.leaf_rows.max(1),
            leaf_weight_min: settings.leaf_weight,
            lambda: settings.lambda,
            columns_per_node: usize::MAX,
        };
        let base = logit(weighted_share(lesson));
        let mut logits = vec![base; rows];
        let (mut gradients, mut hessians) = (vec![0.0_f32; rows], vec![0.0_f32; rows]);
        let mut random = Random::new(lesson.seed, 0xB005);
        let mut trees = Vec::new();
        for _ in 0..settings.trees.min(TREES_MAX) {
            for row in 0..rows {
                let p = sigmoid(logits[row]);
                let weight = f64::from(lesson.weights[row]);
                gradients[row] = (weight * (p - f64::from(u8::from(lesson.positive[row])))) as f32;
                hessians[row] = (weight * (p * (1.0 - p)).max(1e-12)) as f32;
            }
            let mut used: Vec<u32> = (0..rows as u32)
                .filter(|_| settings.rows_share >= 1.0 || random.unit() < settings.rows_share)
                .collect();
            let wanted = (columns.len() as f64 * settings.columns_share).ceil().max(1.0) as usize;
            let mut chosen = random.choose(columns.len(), wanted);
            chosen.sort_unstable();
            let grower = Grower::new(&columns, chosen, &growth, &gradients, &hessians);
            let mut tree = grower.grow(&mut used, &mut random);
            if tree.nodes.len() == 1 {
                break;
            }
            for node in &mut tree.nodes {
                node.value = (f64::from(node.value) * settings.rate) as f32;
            }
            tree.add_to(&mut logits, &lesson.matrix.values, lesson.matrix.columns());
            trees.push(tree);
        }
        Boost { base, trees }
    }

    /// Scores of a block of rows; with `effects`, also what each column changed.
    pub(super) fn scores(&self, rows: &[f32], width: usize, effects: Option<&mut [f64]>) -> Vec<f64> {
        // A logit's slope is at most a quarter: so it is on the scale of a probability.
        let explained = effects.map(|effects| (0.25, effects));
        let mut sums = tree::sums(&self.trees, self.base, rows, width, explained);
        sums.iter_mut().for_each(|sum| *sum = sigmoid(*sum));
        sums
    }

    pub(super) fn check(&self, columns: usize) -> Result<(), String> {
        if self.trees.len() > TREES_MAX || !self.base.is_finite() {
            return Err(format!("boosting of {} trees", self.trees.len()));
        }
        self.trees.iter().try_for_each(|tree| tree.check(columns))
    }
}

/// Share of the positive class, by weight.
pub(super) fn weighted_share(lesson: &Lesson<'_>) -> f64 {
    let (mut positive, mut all) = (0.0, 0.0);
    for (&weight, &is) in lesson.weights.iter().zip(lesson.positive) {
        all += f64::from(weight);
        positive += if is { f64::from(weight) } else { 0.0 };
    }
    positive / f64::max(all, f64::MIN_POSITIVE)
}
