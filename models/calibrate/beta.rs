//! Beta calibration (Kull, Silva Filho, Flach 2017): three numbers, so that few rows are enough, and the identity among
//! its shapes, which a logistic curve over the score is not.
//!
//! The logit of the probability is `c + a ln(s) - b ln(1 - s)`, with neither `a` nor `b` below zero, or a higher score
//! could mean less.

use ndarray::{Array1, Array2};

use crate::members::{logistic::newton, logit, sigmoid};

/// Pulls towards nothing, a row: without it classes that a score separates would have no best curve.
const RIDGE: f64 = 1e-6;
/// Logits between which the curve is drawn, and corners for each.
const REACH: i32 = 21;
const CORNERS_A_LOGIT: i32 = 8;

/// The curve as corners of score and probability.
pub(super) fn corners(scores: &[f64], positive: &[bool]) -> Vec<(f64, f64)> {
    let [a, b, c] = fit(scores, positive);
    let corner = |step: i32| {
        let score = sigmoid(f64::from(step) / f64::from(CORNERS_A_LOGIT));
        let [low, high] = sides(score);
        (score, sigmoid(c + a * low + b * high))
    };
    (-REACH * CORNERS_A_LOGIT..=REACH * CORNERS_A_LOGIT).map(corner).collect()
}

/// What `a` and `b` are multiplied with.
fn sides(score: f64) -> [f64; 2] {
    // The bounds of `logit`.
    let score = sigmoid(logit(score));
    [score.ln(), -(-score).ln_1p()]
}

/// `a`, `b` and `c` of the greatest likelihood; a side that would fall is left out.
fn fit(scores: &[f64], positive: &[bool]) -> [f64; 3] {
    let truth: Array1<f64> = positive.iter().map(|is| f64::from(u8::from(*is))).collect();
    let weights = Array1::ones(scores.len());
    let of = |used: &[usize]| {
        let mut x = Array2::ones((scores.len(), used.len() + 1));
        for (mut cells, score) in x.outer_iter_mut().zip(scores) {
            let sides = sides(*score);
            cells.iter_mut().zip(used).for_each(|(cell, &side)| *cell = sides[side]);
        }
        newton(&x, &truth, &weights, RIDGE).to_vec()
    };
    let both = of(&[0, 1]);
    if both[0] >= 0.0 && both[1] >= 0.0 {
        return [both[0], both[1], both[2]];
    }
    let side = usize::from(both[0] < 0.0);
    let one = of(&[side]);
    if one[0] < 0.0 {
        return [0.0, 0.0, of(&[])[0]];
    }
    let mut fitted = [0.0, 0.0, one[1]];
    fitted[side] = one[0];
    fitted
}
