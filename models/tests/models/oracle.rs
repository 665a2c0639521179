//! Figures and fits against slow, obvious definitions.

use cf_models::{
    calibrate::{Calibration, Conformal, Curve},
    matrix::{ColumnKind, Matrix},
    members::{Kind, Lesson, Member, Settings},
    metrics,
    tree::{Node, Tree},
};
use proptest::prelude::*;

use crate::support::Dice;

/// Scores of few different values, so that ties are common.
fn scored() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
    prop::collection::vec((0_u8..12, any::<bool>()), 2..80)
        .prop_map(|rows| rows.into_iter().map(|(score, is)| (f64::from(score) / 12.0, is)).unzip())
}

fn slow_roc_auc(scores: &[f64], positive: &[bool]) -> f64 {
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (a, _) in scores.iter().zip(positive).filter(|(_, is)| **is) {
        for (b, _) in scores.iter().zip(positive).filter(|(_, is)| !**is) {
            pairs += 1.0;
            sum += if a > b {
                1.0
            } else if a == b {
                0.5
            } else {
                0.0
            };
        }
    }
    if pairs == 0.0 { 0.5 } else { sum / pairs }
}

/// Sum over thresholds of precision times the recall that it adds.
fn slow_pr_auc(scores: &[f64], positive: &[bool]) -> f64 {
    let all = positive.iter().filter(|is| **is).count() as f64;
    let mut thresholds: Vec<f64> = scores.to_vec();
    thresholds.sort_by(|a, b| b.total_cmp(a));
    thresholds.dedup();
    let (mut area, mut before) = (0.0, 0.0);
    for threshold in thresholds {
        let above: Vec<bool> =
            scores.iter().zip(positive).filter(|(s, _)| **s >= threshold).map(|(_, is)| *is).collect();
        let found = above.iter().filter(|is| **is).count() as f64;
        area += (found - before) / all.max(1.0) * found / above.len() as f64;
        before = found;
    }
    area
}

/// Isotonic regression by its definition: the greatest over beginnings of the least over ends of the mean.
fn slow_isotonic(groups: &[(f64, f64)], at: usize) -> f64 {
    let mean = |from: usize, to: usize| {
        let part = &groups[from..=to];
        part.iter().map(|g| g.0).sum::<f64>() / part.iter().map(|g| g.1).sum::<f64>()
    };
    (0..=at)
        .map(|from| (at..groups.len()).map(|to| mean(from, to)).fold(f64::INFINITY, f64::min))
        .fold(f64::NEG_INFINITY, f64::max)
}

proptest! {
    #[test]
    fn areas_are_what_they_are_defined_as((scores, positive) in scored()) {
        prop_assert!((metrics::roc_auc(&scores, &positive) - slow_roc_auc(&scores, &positive)).abs() < 1e-9);
        prop_assert!((metrics::pr_auc(&scores, &positive) - slow_pr_auc(&scores, &positive)).abs() < 1e-9);
    }

    #[test]
    fn thresholds_are_the_best_that_the_budget_allows((scores, positive) in scored(), budget in 0.0..0.5_f64) {
        let rate = |threshold: f64| metrics::decision(&scores, &positive, threshold).false_positive_rate;
        let threshold = metrics::budget_threshold(&scores, &positive, budget);
        prop_assert!(rate(threshold) <= budget);
        // The next lower score would cost too much.
        let lower = scores.iter().copied().filter(|s| *s < threshold).fold(f64::NEG_INFINITY, f64::max);
        if positive.contains(&false) && lower > f64::NEG_INFINITY {
            prop_assert!(rate(lower) > budget || rate(lower) == rate(threshold), "{threshold} {lower}");
        }
        let best = metrics::decision(&scores, &positive, metrics::accurate_threshold(&scores, &positive)).accuracy;
        for other in scores.iter().flat_map(|s| [s - 1e-6, *s]) {
            prop_assert!(best >= metrics::decision(&scores, &positive, other).accuracy - 1e-12);
        }
    }

    #[test]
    fn calibration_is_isotonic_regression((scores, positive) in scored()) {
        let calibration = Calibration::fit(&scores, &positive);
        let mut distinct = scores.clone();
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        let group = |value: &f64| {
            let of = scores.iter().zip(&positive).filter(|(s, _)| *s == value);
            (of.clone().filter(|(_, is)| **is).count() as f64, of.count() as f64)
        };
        let groups: Vec<(f64, f64)> = distinct.iter().map(group).collect();
        for (at, score) in distinct.iter().enumerate() {
            let tilted = 0.999 * slow_isotonic(&groups, at) + 0.001 * score;
            prop_assert!((calibration.probability(*score) - tilted).abs() < 1e-9, "{score}");
        }
        let probabilities: Vec<f64> = distinct.iter().map(|s| calibration.probability(*s)).collect();
        prop_assert!(probabilities.windows(2).all(|pair| pair[0] < pair[1]), "order is kept");
    }

    #[test]
    fn sets_hold_a_class_as_its_rank_says((scores, positive) in scored(), confidence in 0.5..0.99_f64) {
        let conformal = Conformal::fit(&scores, &positive, confidence);
        for score in scores.iter().flat_map(|s| [*s, s + 1e-6, s - 1e-6]) {
            for class in [true, false] {
                let of: Vec<f64> = scores.iter().zip(&positive).filter(|(_, is)| **is == class).map(|(s, _)| *s).collect();
                let stranger = of.iter().filter(|s| if class { **s <= score } else { **s >= score }).count() as f64;
                let p = (stranger + 1.0) / (of.len() as f64 + 1.0);
                let set = conformal.set(score);
                let holds = if class { set.positive } else { set.negative };
                let border = (p - (1.0 - confidence)).abs() < 1e-9;
                prop_assert!(border || holds == (p > 1.0 - confidence), "{score} {class} {p}");
            }
        }
    }
}

/// The loss that a beta curve is to make least, by its definition.
fn beta_loss(scores: &[f64], positive: &[bool], [a, b, c]: [f64; 3]) -> f64 {
    let surprise = |(score, is): (&f64, &bool)| {
        let logit = a * score.ln() - b * (1.0 - score).ln() + c;
        if *is { (-logit).exp().ln_1p() } else { logit.exp().ln_1p() }
    };
    scores.iter().zip(positive).map(surprise).sum::<f64>() / scores.len() as f64
}

#[test]
fn a_beta_curve_is_the_most_likely_of_its_kind() {
    for seed in 0..8 {
        let mut dice = Dice::new(seed);
        // From falling to steep: a curve may not fall.
        let slope = [-1.0, 0.0, 0.4, 1.0, 1.6, 2.5, 4.0, 0.7][seed as usize];
        let scores: Vec<f64> = (0..400).map(|_| 0.01 + 0.98 * dice.unit()).collect();
        let truth = |score: f64| 1.0 / (1.0 + (-slope * (score / (1.0 - score)).ln() - 0.3).exp());
        let positive: Vec<bool> = scores.iter().map(|score| dice.unit() < truth(*score)).collect();
        let line = Calibration::of(Curve::Beta, &scores, &positive);
        // What the line says without its tilt.
        let said = |score: f64| (line.probability(score) - 0.001 * score) / 0.999;
        let surprise = |(score, is): (&f64, &bool)| if *is { -said(*score).ln() } else { -(1.0 - said(*score)).ln() };
        let found = scores.iter().zip(&positive).map(surprise).sum::<f64>() / scores.len() as f64;
        let steps = |least: i32, most: i32, size: f64| (least..=most).map(move |at| f64::from(at) * size);
        let mut best = f64::INFINITY;
        for a in steps(0, 30, 0.2) {
            for b in steps(0, 30, 0.2) {
                for c in steps(-20, 20, 0.2) {
                    best = best.min(beta_loss(&scores, &positive, [a, b, c]));
                }
            }
        }
        assert!(found <= best + 1e-4, "seed {seed}: {found} where the grid has {best}");
        let rising =
            steps(1, 99, 0.01).map(&said).collect::<Vec<f64>>().windows(2).all(|pair| pair[0] <= pair[1] + 1e-12);
        assert!(rising, "seed {seed}");
    }
}

#[test]
fn the_curve_is_chosen_that_unseen_rows_are_likely_under() {
    let mut dice = Dice::new(3);
    let mut rows = |count: usize, truth: fn(f64) -> f64| -> (Vec<f64>, Vec<bool>, Vec<u64>) {
        let scores: Vec<f64> = (0..count).map(|_| 0.001 + 0.998 * dice.unit()).collect();
        let positive = scores.iter().map(|score| dice.unit() < truth(*score)).collect();
        (scores, positive, (0..count as u64).collect())
    };
    let chosen = |(scores, positive, groups): (Vec<f64>, Vec<bool>, Vec<u64>)| {
        Calibration::chosen(&scores, &positive, &groups, 1).0
    };
    assert_eq!(chosen(rows(300, |score| score)), Curve::Beta, "few rows and nothing to mend");
    // Steps that no curve of three numbers has.
    let stairs = |score: f64| {
        if score < 0.3 {
            0.05
        } else if score < 0.7 {
            0.5
        } else {
            0.95
        }
    };
    assert_eq!(chosen(rows(20_000, stairs)), Curve::Isotonic);
}

/// A walk as it is said: a missing cell goes where missing cells go, a value to the left if it is that value, a number if it
/// is not above.
fn slow_walk(tree: &Tree, row: &[f32]) -> f32 {
    let mut at = 0;
    loop {
        let node = &tree.nodes[at];
        if node.left == 0 {
            return node.value;
        }
        let cell = row[usize::from(node.column)];
        let left = if cell.is_nan() {
            node.missing_left
        } else if node.equals {
            cell == node.threshold
        } else {
            cell <= node.threshold
        };
        at = node.left as usize + usize::from(!left);
    }
}

#[test]
fn trees_are_walked_as_they_say() {
    let mut dice = Dice::new(11);
    for _ in 0..200 {
        // A tree that grows at its end, of random questions.
        let mut nodes =
            vec![Node { column: 0, equals: false, missing_left: false, threshold: 0.0, left: 0, value: 1.0 }];
        for at in 0..20 {
            if dice.roll(3) > 0 && at < nodes.len() {
                let left = nodes.len() as u32;
                nodes[at] = Node {
                    column: dice.roll(3) as u16,
                    equals: dice.roll(2) == 0,
                    missing_left: dice.roll(2) == 0,
                    threshold: dice.roll(4) as f32,
                    left,
                    value: 0.0,
                };
                for _ in 0..2 {
                    let value = nodes.len() as f32;
                    nodes.push(Node { column: 0, equals: false, missing_left: true, threshold: 0.0, left: 0, value });
                }
            }
        }
        let tree = Tree { nodes };
        tree.check(3).unwrap();
        for _ in 0..50 {
            let row: Vec<f32> = (0..3)
                .map(|_| if dice.roll(5) == 0 { f32::NAN } else { dice.roll(5) as f32 - 0.5 * dice.roll(2) as f32 })
                .collect();
            assert_eq!(tree.predict(&row), slow_walk(&tree, &row), "{row:?} {tree:?}");
        }
    }
}

#[test]
fn a_row_scores_the_same_alone_and_among_others() {
    let (matrix, positive, weights) = rows(700, 9);
    for kind in Kind::ALL {
        let mut settings = Settings::default();
        settings.forest.trees = 20;
        let member = Member::train(kind, &lesson(&matrix, &positive, &weights), &settings);
        let mut effects = vec![0.0; matrix.values.len()];
        let together = member.scores(&matrix.values, 3, Some(&mut effects));
        for row in 0..700 {
            let mut alone = vec![0.0; 3];
            let score = member.scores(matrix.row(row), 3, Some(&mut alone))[0];
            assert_eq!(score.to_bits(), together[row].to_bits(), "{kind:?} {row}");
            assert_eq!(score.to_bits(), member.score(matrix.row(row)).to_bits(), "{kind:?} {row}, explained");
            assert_eq!(alone, effects[row * 3..row * 3 + 3], "{kind:?} {row}");
        }
    }
}

fn lesson<'a>(matrix: &'a Matrix, positive: &'a [bool], weights: &'a [f32]) -> Lesson<'a> {
    Lesson { matrix, positive, weights, seed: 1, threads: 1 }
}

/// Rows of two ordered columns and a category, some cells missing.
fn rows(count: usize, seed: u64) -> (Matrix, Vec<bool>, Vec<f32>) {
    let mut dice = Dice::new(seed);
    let mut matrix = Matrix {
        kinds: vec![ColumnKind::Ordered, ColumnKind::Ordered, ColumnKind::Category { values: 4 }],
        values: Vec::new(),
        rows: count,
    };
    let (mut positive, mut weights) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (a, b, c) = (dice.roll(20) as f32, dice.roll(5) as f32, dice.roll(5) as f32);
        let missing = dice.roll(10) == 0;
        matrix.values.extend([if missing { f32::NAN } else { a }, b, c]);
        positive.push((f64::from(a) + 6.0 * f64::from(u8::from(c == 2.0)) + 8.0 * dice.unit()) > 14.0);
        weights.push(0.5 + dice.roll(3) as f32);
    }
    (matrix, positive, weights)
}

#[test]
fn a_stump_is_the_best_of_all_possible_splits() {
    for seed in 0..20 {
        let (matrix, positive, weights) = rows(60, seed);
        let mut settings = Settings::default();
        settings.boost.trees = 1;
        settings.boost.leaves = 2;
        settings.boost.leaf_rows = 3;
        settings.boost.leaf_weight = 0.0;
        settings.boost.rows_share = 1.0;
        settings.boost.columns_share = 1.0;
        settings.boost.rate = 1.0;
        let member = Member::train(Kind::Boost, &lesson(&matrix, &positive, &weights), &settings);
        let loss = |score: &dyn Fn(usize) -> f64| -> f64 {
            // The second-order loss that the split is to lower: both sides' best step.
            let base = weights.iter().zip(&positive).filter(|(_, is)| **is).map(|(w, _)| f64::from(*w)).sum::<f64>()
                / weights.iter().map(|w| f64::from(*w)).sum::<f64>();
            let mut sides = std::collections::BTreeMap::new();
            for row in 0..60 {
                let (g, h) = sides.entry(score(row).to_bits()).or_insert((0.0, 0.0));
                *g += f64::from(weights[row]) * (base - f64::from(u8::from(positive[row])));
                *h += f64::from(weights[row]) * base * (1.0 - base);
            }
            sides.values().map(|(g, h)| -g * g / (h + 1.0)).sum()
        };
        let found = loss(&|row| member.score(matrix.row(row)));
        let mut best = f64::INFINITY;
        for column in 0..3 {
            for cut in -1..25 {
                for missing in [true, false] {
                    let left = |row: usize| {
                        let cell = matrix.row(row)[column];
                        if cell.is_nan() {
                            missing
                        } else if column == 2 {
                            cell == cut as f32
                        } else {
                            cell <= cut as f32
                        }
                    };
                    let count = (0..60).filter(|&row| left(row)).count();
                    if (3..=57).contains(&count) {
                        best = best.min(loss(&|row| f64::from(u8::from(left(row)))));
                    }
                }
            }
        }
        assert!((found - best).abs() < 1e-4, "seed {seed}: {found} {best}");
    }
}

#[test]
fn logistic_regression_is_where_no_step_helps() {
    let (matrix, positive, weights) = rows(400, 3);
    let member = Member::train(Kind::Logistic, &lesson(&matrix, &positive, &weights), &Settings::default());
    // At the optimum the weighted residuals sum to nothing: the bias is not penalised.
    let residual: f64 = (0..400)
        .map(|row| f64::from(weights[row]) * (member.score(matrix.row(row)) - f64::from(u8::from(positive[row]))))
        .sum();
    assert!(residual.abs() < 1e-3, "{residual}");
}

#[test]
fn contributions_add_up_to_the_score() {
    // Saabas: the mean of the roots and what each column changed is the forest's answer.
    let (matrix, positive, weights) = rows(300, 5);
    let member = Member::train(Kind::Forest, &lesson(&matrix, &positive, &weights), &Settings::default());
    let mut differences = Vec::new();
    for row in 0..300 {
        let mut effects = vec![0.0; 3];
        let scores = member.scores(matrix.row(row), 3, Some(&mut effects));
        differences.push(scores[0] - effects.iter().sum::<f64>());
    }
    assert!(differences.iter().all(|d| (d - differences[0]).abs() < 1e-5), "{differences:?}");
}
