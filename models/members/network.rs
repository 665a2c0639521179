//! A small neural network: two hidden layers with rectified units, Adam (Kingma and Ba 2015), decay of weights.
//!
//! Training multiplies whole batches; a single row is multiplied in plain order, so that a prediction does not depend on
//! which rows come with it.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use serde::{Deserialize, Serialize};

use super::{
    Lesson,
    scale::{Scale, WIDTH_MAX},
    sigmoid,
};
use crate::random::Random;

/// Units of a layer at most.
const UNITS_MAX: usize = 1_024;

/// How the network learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Units of the first and second hidden layer.
    pub units: [usize; 2],
    /// Times that every row is seen.
    pub rounds: usize,
    /// Rows of a step.
    pub batch: usize,
    /// Length of a step.
    pub rate: f64,
    /// Share of a weight that is lost with each step, times `rate`.
    pub decay: f64,
    /// Rows at most; of more, so many are drawn.
    pub rows_max: usize,
    /// Numbers by their rank among training rows instead of their size.
    pub ranked: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { units: [64, 32], rounds: 12, batch: 256, rate: 2e-3, decay: 1e-2, rows_max: 200_000, ranked: false }
    }
}

/// Weights of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Layer {
    inputs: usize,
    /// For each unit its weights.
    weights: Vec<f32>,
    biases: Vec<f32>,
}

/// A trained network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    scale: Scale,
    layers: Vec<Layer>,
}

/// A layer while it learns: weights are inputs x units.
struct Learning {
    weights: Array2<f32>,
    biases: Array1<f32>,
    weight_moments: (Array2<f32>, Array2<f32>),
    bias_moments: (Array1<f32>, Array1<f32>),
}

impl Network {
    pub(super) fn train(lesson: &Lesson<'_>, settings: &Settings) -> Network {
        let scale = if settings.ranked { Scale::ranked(lesson.matrix) } else { Scale::fit(lesson.matrix) };
        let mut random = Random::new(lesson.seed, 0x4E37);
        let mut rows = random.choose(lesson.matrix.rows, settings.rows_max.max(1));
        rows.sort_unstable();
        let mut inputs = Array2::<f32>::zeros((rows.len(), scale.width()));
        for (mut scaled, &row) in inputs.outer_iter_mut().zip(&rows) {
            if let Some(scaled) = scaled.as_slice_mut() {
                scale.row(lesson.matrix.row(row), scaled);
            }
        }
        let units = settings.units.map(|units| units.clamp(1, UNITS_MAX));
        let sizes = [scale.width(), units[0], units[1], 1];
        let mut layers: Vec<Learning> =
            sizes.windows(2).map(|size| Learning::new(size[0], size[1], &mut random)).collect();
        let batch = settings.batch.clamp(1, rows.len());
        let steps = settings.rounds * rows.len().div_ceil(batch);
        let mut order: Vec<usize> = (0..rows.len()).collect();
        let mut step = 0;
        for _ in 0..settings.rounds {
            random.shuffle(&mut order);
            for places in order.chunks(batch) {
                step += 1;
                let x = inputs.select(Axis(0), places);
                // The step's length falls to a twentieth along a half cosine.
                let along = step as f64 / steps as f64;
                let rate = settings.rate * (0.05 + 0.475 * (1.0 + (std::f64::consts::PI * along).cos()));
                let errors = |places: &[usize], answers: &Array1<f32>| -> Array1<f32> {
                    let error = |(&place, &answer): (&usize, &f32)| {
                        let row = rows[place];
                        let p = sigmoid(f64::from(answer)) as f32;
                        (p - f32::from(u8::from(lesson.positive[row]))) * lesson.weights[row] / places.len() as f32
                    };
                    places.iter().zip(answers).map(error).collect()
                };
                learn(
                    &mut layers,
                    x.view(),
                    |answers| errors(places, answers),
                    rate as f32,
                    settings.decay as f32,
                    step,
                );
            }
        }
        let layers = layers.into_iter().map(Learning::finish).collect();
        Network { scale, layers }
    }

    /// Scores of a block of rows, each in the same order of additions as if it were alone.
    pub(super) fn scores(&self, rows: &[f32], width: usize) -> Vec<f64> {
        let mut values = vec![0.0; self.scale.width()];
        let mut layers: Vec<Vec<f32>> = self.layers.iter().map(|layer| vec![0.0; layer.biases.len()]).collect();
        let mut score = |row: &[f32]| {
            self.scale.row(row, &mut values);
            let mut inputs: &[f32] = &values;
            for (at, (layer, answers)) in self.layers.iter().zip(&mut layers).enumerate() {
                layer.answer(inputs, at + 1 < self.layers.len(), answers);
                inputs = answers;
            }
            sigmoid(f64::from(inputs[0]))
        };
        rows.chunks_exact(width).map(&mut score).collect()
    }

    pub(super) fn check(&self, columns: usize) -> Result<(), String> {
        self.scale.check(columns)?;
        let mut inputs = self.scale.width();
        if self.layers.len() != 3 || inputs > WIDTH_MAX {
            return Err(format!("a network of {} layers", self.layers.len()));
        }
        for layer in &self.layers {
            let units = layer.biases.len();
            if layer.inputs != inputs || units == 0 || units > UNITS_MAX || layer.weights.len() != inputs * units {
                return Err("layers of a network that do not fit together".to_owned());
            }
            if !layer.weights.iter().chain(&layer.biases).all(|weight| weight.is_finite()) {
                return Err("a weight of a network that is not a number".to_owned());
            }
            inputs = units;
        }
        if inputs == 1 { Ok(()) } else { Err(format!("a network with {inputs} answers")) }
    }
}

impl Layer {
    fn answer(&self, inputs: &[f32], rectified: bool, answers: &mut [f32]) {
        // Units are in the inner loop, so that inputs of zero (most one-hot cells) are skipped.
        answers.copy_from_slice(&self.biases);
        let weights = self.weights.chunks_exact(answers.len());
        for (&input, weights) in inputs.iter().zip(weights).filter(|(input, _)| **input != 0.0) {
            for (answer, weight) in answers.iter_mut().zip(weights) {
                *answer += input * weight;
            }
        }
        if rectified {
            answers.iter_mut().for_each(|answer| *answer = answer.max(0.0));
        }
    }
}

impl Learning {
    fn new(inputs: usize, units: usize, random: &mut Random) -> Learning {
        // He et al. 2015: the spread that keeps signals alive through rectified units.
        let spread = (2.0 / inputs.max(1) as f64).sqrt();
        Learning {
            weights: Array2::from_shape_simple_fn((inputs, units), || (random.normal() * spread) as f32),
            biases: Array1::zeros(units),
            weight_moments: (Array2::zeros((inputs, units)), Array2::zeros((inputs, units))),
            bias_moments: (Array1::zeros(units), Array1::zeros(units)),
        }
    }

    fn finish(self) -> Layer {
        Layer {
            inputs: self.weights.nrows(),
            weights: self.weights.iter().copied().collect(),
            biases: self.biases.to_vec(),
        }
    }

    fn update(&mut self, weights: &Array2<f32>, biases: &Array1<f32>, rate: f32, decay: f32, step: i32) {
        let (one, two) = (1.0 - 0.9_f32.powi(step), 1.0 - 0.999_f32.powi(step));
        let adam = |value: &mut f32, gradient: f32, first: &mut f32, second: &mut f32, decay: f32| {
            *first = 0.9 * *first + 0.1 * gradient;
            *second = 0.999 * *second + 0.001 * gradient * gradient;
            *value -= rate * (*first / one / ((*second / two).sqrt() + 1e-8) + decay * *value);
        };
        Zip::from(&mut self.weights)
            .and(weights)
            .and(&mut self.weight_moments.0)
            .and(&mut self.weight_moments.1)
            .for_each(|value, &gradient, first, second| adam(value, gradient, first, second, decay));
        Zip::from(&mut self.biases)
            .and(biases)
            .and(&mut self.bias_moments.0)
            .and(&mut self.bias_moments.1)
            .for_each(|value, &gradient, first, second| adam(value, gradient, first, second, 0.0));
    }
}

/// One step: answers, errors, and back through the layers.
fn learn(
    layers: &mut [Learning],
    x: ArrayView2<'_, f32>,
    errors: impl Fn(&Array1<f32>) -> Array1<f32>,
    rate: f32,
    decay: f32,
    step: usize,
) {
    let mut signals = vec![x.to_owned()];
    let last = layers.len() - 1;
    for (at, layer) in layers.iter().enumerate() {
        let mut next = signals[at].dot(&layer.weights) + &layer.biases;
        if at < last {
            next.mapv_inplace(|value| value.max(0.0));
        }
        signals.push(next);
    }
    let answers = signals[layers.len()].column(0).to_owned();
    let mut back = errors(&answers).insert_axis(Axis(1));
    for at in (0..layers.len()).rev() {
        let weights = signals[at].t().dot(&back);
        let biases = back.sum_axis(Axis(0));
        if at > 0 {
            let mut before = back.dot(&layers[at].weights.t());
            Zip::from(&mut before).and(&signals[at]).for_each(|error, &signal| {
                if signal <= 0.0 {
                    *error = 0.0;
                }
            });
            back = before;
        }
        layers[at].update(&weights, &biases, rate, decay, i32::try_from(step).unwrap_or(i32::MAX));
    }
}
