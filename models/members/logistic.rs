//! Logistic regression with a ridge, by Newton's method: the floor that other members must beat.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use super::{Lesson, scale::Scale, sigmoid};
use crate::random::Random;

/// How it learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Penalty of weights, per row.
    pub ridge: f64,
    /// Rows at most; of more, so many are drawn.
    pub rows_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        // Twenty thousand rows settle a few hundred weights (ml.md measured no gain from more).
        Settings { ridge: 1e-4, rows_max: 20_000 }
    }
}

/// A weight per scaled cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    scale: Scale,
    bias: f64,
    weights: Vec<f64>,
}

impl Logistic {
    pub(super) fn train(lesson: &Lesson<'_>, settings: &Settings) -> Logistic {
        let scale = Scale::fit(lesson.matrix);
        let mut rows = Random::new(lesson.seed, 0x1061).choose(lesson.matrix.rows, settings.rows_max.max(1));
        rows.sort_unstable();
        let width = scale.width() + 1;
        let mut x = Array2::<f64>::ones((rows.len(), width));
        let mut scaled = vec![0.0; scale.width()];
        for (mut cells, &row) in x.outer_iter_mut().zip(&rows) {
            scale.row(lesson.matrix.row(row), &mut scaled);
            for (cell, &value) in cells.iter_mut().zip(&scaled) {
                *cell = f64::from(value);
            }
        }
        let positive: Array1<f64> = rows.iter().map(|&row| f64::from(u8::from(lesson.positive[row]))).collect();
        let weights: Array1<f64> = rows.iter().map(|&row| f64::from(lesson.weights[row])).collect();
        let mut beta = newton(&x, &positive, &weights, settings.ridge.max(1e-9)).to_vec();
        let bias = beta.pop().unwrap_or_default();
        Logistic { scale, bias, weights: beta }
    }

    pub(super) fn score(&self, row: &[f32]) -> f64 {
        let mut scaled = vec![0.0; self.scale.width()];
        self.scale.row(row, &mut scaled);
        sigmoid(scaled.iter().zip(&self.weights).fold(self.bias, |sum, (&cell, weight)| sum + f64::from(cell) * weight))
    }

    pub(super) fn contribute(&self, row: &[f32], into: &mut [f64]) {
        let mut scaled = vec![0.0; self.scale.width()];
        self.scale.row(row, &mut scaled);
        for ((column, &cell), weight) in self.scale.sources().zip(&scaled).zip(&self.weights) {
            into[column] += 0.25 * f64::from(cell) * weight;
        }
    }

    pub(super) fn check(&self, columns: usize) -> Result<(), String> {
        self.scale.check(columns)?;
        let finite = self.bias.is_finite() && self.weights.iter().all(|weight| weight.is_finite());
        if finite && self.weights.len() == self.scale.width() {
            Ok(())
        } else {
            Err("weights of a logistic regression that do not fit".to_owned())
        }
    }
}

/// Newton's method on the penalised likelihood; the last column of `x` is the bias, which is not penalised.
pub(crate) fn newton(x: &Array2<f64>, positive: &Array1<f64>, weights: &Array1<f64>, ridge: f64) -> Array1<f64> {
    let width = x.ncols();
    let penalty = ridge * weights.sum();
    let mut beta = Array1::<f64>::zeros(width);
    for _ in 0..15 {
        let p = x.dot(&beta).mapv(sigmoid);
        let mut gradient = x.t().dot(&(weights * &(&p - positive)));
        let curvature = weights * &p.mapv(|p| (p * (1.0 - p)).max(1e-6));
        let weighted = x * &curvature.insert_axis(ndarray::Axis(1));
        let mut hessian = x.t().dot(&weighted);
        for at in 0..width {
            let penalty = if at + 1 < width { penalty } else { 1e-9 };
            gradient[at] += penalty * beta[at];
            hessian[[at, at]] += penalty;
        }
        let step = solve(hessian, gradient);
        // A step as long as this is a sign of separable classes: the ridge bounds them, slowly.
        let length = step.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
        let scale = if length > 5.0 { 5.0 / length } else { 1.0 };
        beta = beta - step * scale;
        if length < 1e-8 {
            break;
        }
    }
    beta
}

/// Solves a symmetric positive definite system (Cholesky), in place.
fn solve(mut a: Array2<f64>, mut b: Array1<f64>) -> Array1<f64> {
    let n = b.len();
    for column in 0..n {
        for row in column..n {
            let mut sum = a[[row, column]];
            for k in 0..column {
                sum -= a[[row, k]] * a[[column, k]];
            }
            a[[row, column]] = if row == column { sum.max(1e-12).sqrt() } else { sum / a[[column, column]] };
        }
    }
    for row in 0..n {
        let known: f64 = (0..row).map(|k| a[[row, k]] * b[k]).sum();
        b[row] = (b[row] - known) / a[[row, row]];
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|k| a[[k, row]] * b[k]).sum();
        b[row] = (b[row] - known) / a[[row, row]];
    }
    b
}
