//! linfa's random forest and logistic regression, on encoded rows of ours: somebody else's implementation of the same
//! definitions. It sees one-hot columns of mean 0 and deviation 1, which both of its learners want.
//!
//! Its forest draws from the thread's own generator, which nobody seeds, and its trees break ties in hash order: what it
//! gives differs a little from run to run, which is why it is the peer and not what serves.

use cf_models::matrix::{ColumnKind, Matrix};
use linfa::{DatasetBase, traits::Fit, traits::Predict};
use linfa_ensemble::EnsembleLearnerParams;
use linfa_logistic::LogisticRegression;
use linfa_trees::DecisionTree;
use ndarray::{Array1, Array2, Axis};

/// As `ml.md` found it to be as good as others' and not too slow.
#[derive(Clone, Copy)]
pub(crate) struct Forest {
    pub(crate) trees: usize,
    pub(crate) depth: usize,
    /// Of the rows, drawn for each tree.
    pub(crate) rows_share: f64,
    /// Of the columns, drawn for each tree.
    pub(crate) columns_share: f64,
}

/// Iterations of the logistic regression at most: of some 120 columns it needs fewer.
const ITERATIONS_MAX: u64 = 300;

/// How cells become what linfa takes, fitted on training rows.
pub(crate) struct Plain {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Plain {
    pub(crate) fn fit(matrix: &Matrix) -> Plain {
        let cells = one_hot(matrix);
        let rows = cells.nrows().max(1) as f64;
        let mut plain = Plain { mean: Vec::new(), deviation: Vec::new() };
        for column in cells.axis_iter(Axis(1)) {
            let known = column.iter().filter(|cell| !cell.is_nan());
            let mean = known.clone().sum::<f64>() / rows;
            let square = known.map(|cell| (cell - mean).powi(2)).sum::<f64>() / rows;
            plain.mean.push(mean);
            plain.deviation.push(if square > 0.0 { square.sqrt() } else { 1.0 });
        }
        plain
    }

    pub(crate) fn apply(&self, matrix: &Matrix) -> Array2<f64> {
        let mut cells = one_hot(matrix);
        for ((mut column, mean), deviation) in cells.axis_iter_mut(Axis(1)).zip(&self.mean).zip(&self.deviation) {
            column.mapv_inplace(|cell| if cell.is_nan() { 0.0 } else { (cell - mean) / deviation });
        }
        cells
    }
}

/// A column per number and per value of a category.
fn one_hot(matrix: &Matrix) -> Array2<f64> {
    let width = |kind: &ColumnKind| match kind {
        ColumnKind::Ordered => 1,
        ColumnKind::Category { values } => usize::from(*values),
    };
    let mut cells = Array2::zeros((matrix.rows, matrix.kinds.iter().map(width).sum()));
    for (row, mut out) in cells.outer_iter_mut().enumerate() {
        let mut at = 0;
        for (kind, &cell) in matrix.kinds.iter().zip(matrix.row(row)) {
            match kind {
                ColumnKind::Ordered => out[at] = f64::from(cell),
                ColumnKind::Category { values } => {
                    // The code after the last is any other value: no column of its own.
                    let code = cell as usize;
                    if code < usize::from(*values) {
                        out[at + code] = 1.0;
                    }
                }
            }
            at += width(kind);
        }
    }
    cells
}

fn labels(positive: &[bool]) -> Array1<usize> {
    positive.iter().map(|is| usize::from(*is)).collect()
}

impl Forest {
    /// The share of trees that say "positive" of each row, for each set of rows that is asked about.
    pub(crate) fn scores(
        self,
        rows: &Array2<f64>,
        positive: &[bool],
        asked: &[Array2<f64>],
    ) -> Result<Vec<Vec<f64>>, String> {
        let tree = DecisionTree::<f64, usize>::params().max_depth(Some(self.depth));
        let learner = EnsembleLearnerParams::new(tree)
            .ensemble_size(self.trees)
            .bootstrap_proportion(self.rows_share)
            .feature_proportion(self.columns_share);
        let data = DatasetBase::new(rows.clone(), labels(positive));
        let forest = learner.fit(&data).map_err(|error| error.to_string())?;
        // Its own vote only gives the winner; the share of votes ranks.
        let share = |asked: &Array2<f64>| {
            let mut votes = vec![0.0; asked.nrows()];
            for (tree, columns) in forest.models.iter().zip(&forest.model_features) {
                let said: Array1<usize> = tree.predict(&asked.select(Axis(1), columns));
                votes.iter_mut().zip(&said).for_each(|(votes, &said)| *votes += said as f64);
            }
            votes.iter_mut().for_each(|votes| *votes /= forest.models.len().max(1) as f64);
            votes
        };
        Ok(asked.iter().map(share).collect())
    }
}

/// The probability of each row by logistic regression with a ridge of `alpha`, for each set of rows that is asked about.
pub(crate) fn logistic(
    rows: &Array2<f64>,
    positive: &[bool],
    asked: &[Array2<f64>],
    alpha: f64,
) -> Result<Vec<Vec<f64>>, String> {
    let data = DatasetBase::new(rows.clone(), labels(positive));
    let learner = LogisticRegression::default().alpha(alpha).max_iterations(ITERATIONS_MAX);
    let model = learner.fit(&data).map_err(|error| error.to_string())?;
    // "The larger of the two classes", of which it gives the probability, is the one with more rows.
    let is_ours = model.labels().pos.class == 1;
    let ours = |probability: f64| if is_ours { probability } else { 1.0 - probability };
    Ok(asked.iter().map(|asked| model.predict_probabilities(asked).mapv(ours).to_vec()).collect())
}
