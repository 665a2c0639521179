//! The search finds better points than chance does at the same price (ML-08).

use std::time::Duration;

use cf_models::{
    members::Kind,
    train::Prepared,
    tune::{Dimension, Estimator, Limits, tune},
};

use crate::support::{Dice, flows, request, table};

/// A bowl with its bottom off the middle, and one dimension that does nothing.
fn bowl(point: &[f64]) -> f64 {
    (point[0] - 0.2).powi(2) + (point[1] - 0.85).powi(2) + 0.5 * (point[2] - 0.6).abs()
}

#[test]
fn the_estimator_beats_random_search_at_the_same_number_of_trials() {
    let dimension = |name| Dimension { name, least: 0.0, most: 1.0, log: false };
    let (mut found, mut by_chance) = (0.0, 0.0);
    for seed in 0..30 {
        let mut estimator = Estimator::new(["a", "b", "c", "d"].map(dimension).to_vec(), seed);
        for _ in 0..40 {
            let point = estimator.ask();
            assert!(point.iter().all(|at| (0.0..=1.0).contains(at)));
            let loss = bowl(&point);
            estimator.tell(point, loss);
        }
        found += estimator.best().unwrap().1 / 30.0;
        let mut dice = Dice::new(seed);
        let chance = (0..40).map(|_| bowl(&[dice.unit(), dice.unit(), dice.unit()])).fold(f64::INFINITY, f64::min);
        by_chance += chance / 30.0;
    }
    assert!(found < 0.8 * by_chance, "{found} {by_chance}");
}

#[test]
fn what_is_chosen_is_never_worse_on_its_trials_and_the_same_each_time() {
    let asked = request(&[Kind::Boost]);
    let prepared = Prepared::new(&asked, table(&flows(600, 1, 0.3)).unwrap()).unwrap();
    let chosen: Vec<usize> = (0..500).collect();
    let limits = Limits { trials: 14, time_max: Duration::from_secs(3_600) };
    let search = || tune(&prepared.rows(), &chosen, &asked.recipe, limits, 1, &mut |_, _, _| {}).unwrap();
    let (settings, losses) = search();
    assert_eq!(losses.len(), 14);
    assert!(losses.iter().copied().fold(f64::INFINITY, f64::min) < losses[0]);
    assert_ne!(settings, asked.recipe.settings);
    assert_eq!(search(), (settings, losses));
}
