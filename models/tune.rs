//! Chooses settings of members by trials on training rows alone.
//!
//! The next trial comes from a tree-structured Parzen estimator (Bergstra et al. 2011): where good trials are dense and
//! bad ones rare. Each trial fits on folds of a sample and is judged by the logarithmic loss on the fold left out, so a
//! setting is good when its probabilities are. The number of trials is fixed; a time limit only ends them early, and what
//! was chosen stands in the recipe of the version.

use std::time::{Duration, Instant};

use crate::{
    ModelError,
    ensemble::{Ensemble, Recipe, Rows},
    members::{Kind, Settings},
    random::Random,
    split,
    train::Progress,
};

/// Trials drawn at random before the estimator has something to go by.
const RANDOM_TRIALS: usize = 8;
/// Candidates of which the best is tried.
const CANDIDATES: usize = 24;
/// Folds of a trial.
const FOLDS: usize = 3;
/// Rows of a trial at most.
const ROWS_MAX: usize = 20_000;

/// How long to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Trials.
    pub trials: usize,
    /// Time after which no new trial begins.
    pub time_max: Duration,
}

/// A setting that is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dimension {
    /// Its name.
    pub name: &'static str,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub most: f64,
    /// Whether steps are factors.
    pub log: bool,
}

/// Asks and is told: knows nothing of what it optimises.
#[derive(Clone, Debug)]
pub struct Estimator {
    dimensions: Vec<Dimension>,
    /// Points in `0..=1` per dimension with their loss, in order of trials.
    trials: Vec<(Vec<f64>, f64)>,
    random: Random,
}

impl Estimator {
    /// Begins a search.
    #[must_use]
    pub fn new(dimensions: Vec<Dimension>, seed: u64) -> Estimator {
        Estimator { dimensions, trials: Vec::new(), random: Random::new(seed, 0x79E) }
    }

    /// The next point to try.
    pub fn ask(&mut self) -> Vec<f64> {
        if self.trials.len() < RANDOM_TRIALS {
            return (0..self.dimensions.len()).map(|_| self.random.unit()).collect();
        }
        let mut order: Vec<usize> = (0..self.trials.len()).collect();
        order.sort_by(|&a, &b| self.trials[a].1.total_cmp(&self.trials[b].1));
        let good = order.len().div_ceil(4);
        let point = |at: usize| {
            let of = |trials: &[usize]| trials.iter().map(|&trial| self.trials[trial].0[at]).collect::<Vec<f64>>();
            (of(&order[..good]), of(&order[good..]))
        };
        let parts: Vec<(Vec<f64>, Vec<f64>)> = (0..self.dimensions.len()).map(point).collect();
        let random = &mut self.random;
        parts.iter().map(|(good, bad)| best_candidate(good, bad, random)).collect()
    }

    /// What a point was worth; less is better.
    pub fn tell(&mut self, point: Vec<f64>, loss: f64) {
        self.trials.push((point, if loss.is_finite() { loss } else { f64::MAX }));
    }

    /// The best point so far with its loss.
    #[must_use]
    pub fn best(&self) -> Option<&(Vec<f64>, f64)> {
        self.trials.iter().min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// A point's values.
    #[must_use]
    pub fn values(&self, point: &[f64]) -> Vec<(&'static str, f64)> {
        let value = |(dimension, &at): (&Dimension, &f64)| {
            let value = if dimension.log {
                (dimension.least.ln() + at * (dimension.most.ln() - dimension.least.ln())).exp()
            } else {
                dimension.least + at * (dimension.most - dimension.least)
            };
            (dimension.name, value)
        };
        self.dimensions.iter().zip(point).map(value).collect()
    }
}

/// Of candidates near good points the one that is most likely good and least likely bad.
fn best_candidate(good: &[f64], bad: &[f64], random: &mut Random) -> f64 {
    let width = |points: &[f64]| (1.2 / points.len().max(1) as f64).clamp(0.06, 0.3);
    let density = |points: &[f64], at: f64| {
        let width = width(points);
        let bell = |point: &f64| (-((at - point) / width).powi(2) / 2.0).exp() / width;
        // One flat part, so that no place is impossible.
        (points.iter().map(bell).sum::<f64>() + 1.0) / (points.len() as f64 + 1.0)
    };
    let mut best = (f64::NEG_INFINITY, 0.5);
    for _ in 0..CANDIDATES {
        let at = match good.get(random.below(good.len() + 1)) {
            Some(point) => (point + width(good) * random.normal()).clamp(0.0, 1.0),
            None => random.unit(),
        };
        let ratio = density(good, at) / density(bad, at);
        if ratio > best.0 {
            best = (ratio, at);
        }
    }
    best.1
}

/// What can be looked for in members.
fn dimensions(members: &[Kind]) -> Vec<Dimension> {
    let dimension = |name, least, most, log| Dimension { name, least, most, log };
    let mut all = Vec::new();
    if members.contains(&Kind::Boost) {
        all.extend([
            dimension("boost.rate", 0.03, 0.3, true),
            dimension("boost.leaves", 7.0, 63.0, true),
            dimension("boost.leaf_rows", 5.0, 100.0, true),
            dimension("boost.lambda", 0.1, 30.0, true),
            dimension("boost.columns_share", 0.2, 1.0, false),
        ]);
    }
    if members.contains(&Kind::Forest) {
        all.extend([
            dimension("forest.columns_share", 0.05, 0.6, true),
            dimension("forest.leaf_rows", 1.0, 10.0, true),
        ]);
    }
    if members.contains(&Kind::Network) {
        all.extend([dimension("network.rate", 3e-4, 1e-2, true), dimension("network.decay", 1e-4, 0.3, true)]);
    }
    all
}

fn set(settings: &mut Settings, values: &[(&'static str, f64)]) {
    for &(name, value) in values {
        match name {
            "boost.rate" => settings.boost.rate = value,
            "boost.leaves" => settings.boost.leaves = value.round() as usize,
            "boost.leaf_rows" => settings.boost.leaf_rows = value.round() as usize,
            "boost.lambda" => settings.boost.lambda = value,
            "boost.columns_share" => settings.boost.columns_share = value,
            "forest.columns_share" => settings.forest.columns_share = value,
            "forest.leaf_rows" => settings.forest.leaf_rows = value.round() as usize,
            "network.rate" => settings.network.rate = value,
            "network.decay" => settings.network.decay = value,
            _ => {}
        }
    }
}

/// Settings that did best in trials, and how each trial did.
///
/// # Errors
/// A trial cannot be fitted.
pub fn tune(
    rows: &Rows<'_>,
    chosen: &[usize],
    recipe: &Recipe,
    limits: Limits,
    threads: usize,
    progress: &mut Progress<'_>,
) -> Result<(Settings, Vec<f64>), ModelError> {
    // The clock only ends the search early; no result depends on it otherwise.
    let started = Instant::now();
    let mut random = Random::new(recipe.seed, 0x7B9E);
    let mut sample: Vec<usize> = random.choose(chosen.len(), ROWS_MAX).into_iter().map(|at| chosen[at]).collect();
    sample.sort_unstable();
    let folds = split::folds(rows.groups, rows.classes, FOLDS, recipe.seed ^ 0x7B9E);
    let mut estimator = Estimator::new(dimensions(&recipe.members), recipe.seed);
    let mut losses = Vec::new();
    for trial in 0..limits.trials {
        if trial > 0 && started.elapsed() > limits.time_max {
            break;
        }
        // The first trial is what there is without tuning: it can only get better.
        let point = if trial == 0 { None } else { Some(estimator.ask()) };
        let mut tried = recipe.clone();
        if let Some(point) = &point {
            set(&mut tried.settings, &estimator.values(point));
        }
        let loss = loss(rows, &sample, &folds, &tried, threads)?;
        losses.push(loss);
        if let Some(point) = point {
            estimator.tell(point, loss);
        }
        progress(&format!("trial {} of {}", trial + 1, limits.trials), trial + 1, limits.trials);
    }
    let mut settings = recipe.settings.clone();
    if let (Some((point, best)), Some(first)) = (estimator.best(), losses.first())
        && best < first
    {
        set(&mut settings, &estimator.values(point));
    }
    Ok((settings, losses))
}

/// Mean logarithmic loss of each member and of their vote, on folds left out.
fn loss(
    rows: &Rows<'_>,
    sample: &[usize],
    folds: &[usize],
    recipe: &Recipe,
    threads: usize,
) -> Result<f64, ModelError> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for fold in 0..FOLDS {
        let (inside, outside): (Vec<usize>, Vec<usize>) = sample.iter().partition(|&&row| folds[row] == fold);
        let ensemble = Ensemble::fit(rows, &outside, recipe, threads, |_| {})?;
        let members = ensemble.member_scores(&rows.table.take(&inside), threads)?;
        let blended = ensemble.blended(&members);
        for scores in members.iter().chain([&blended]) {
            for (&row, score) in inside.iter().zip(scores) {
                let p = if rows.positive[row] { *score } else { 1.0 - score };
                sum -= p.max(1e-6).ln();
                count += 1;
            }
        }
    }
    Ok(sum / count.max(1) as f64)
}
