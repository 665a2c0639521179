//! The figures of `docs/models.md`: trains on the given data and judges on what was held back. `scripts/campaign models`.
//!
//! `models-campaign novel [SEED]`   choose by training rows alone: whole kinds of attack are kept out of NSL-KDD's
//!                                  training file and judge, with normal rows that were kept out too
//! `models-campaign flows [SEED]`   NSL-KDD, KDDTrain+ to KDDTest+
//! `models-campaign alerts [SEED]`  AIT alerts, each scenario asked about by a training on the other five; what models and a
//!                                  rule surface together, and in how many incidents
//! `models-campaign tried [SEED] [VARIANT]` the same among four of the scenarios, with another recipe
//! `models-campaign baseline [SEED]` the same with what `ml.md` measured as the baseline
//! `models-campaign confidence [SEED]` AIT alerts: what the assessment's confidence says against what they were
//! `models-campaign urls [SEED] [all|text]` phishing URLs, folds grouped by registered domain, all features and the text
//!                                  alone
//! `models-campaign members [SEED]` what each member costs on KDDTrain+; `scripts/models-peers.py` asks others' libraries the
//!                                  same
//! `models-campaign tuned [SEED]`   KDDTrain+ with 30 trials on two threads: time and memory
//! `models-campaign trees [SEED]`   how many trees few rows need
//! `models-campaign peers [SEED]`   our forest and logistic regression against linfa's on the same rows: rank and time
//! `models-campaign drift [SEED]`   when the alarm goes off and how much is "unknown" on rows that are not like the learned
//! `models-campaign served [SEED]`  how fast alerts are decided about: features and answer

#![allow(clippy::as_conversions)] // as in the crate

mod alerts;
mod chains;
mod confidence;
mod drift;
mod peers;
mod served;
mod training;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use cf_models::{
    ModelError,
    balance::Balance,
    ensemble::{Blend, Ensemble, Recipe},
    features::Spec,
    members::Kind,
    metrics::{self, Decision},
    model::Verdict,
    split,
    table::Table,
    task::Task,
    train::{self, Evaluation, Prepared, Request},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = arguments.get(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let done = match arguments.first().map(String::as_str) {
        Some("novel") => novel(seed, arguments.get(2).map(String::as_str)),
        Some("flows") => flows(seed),
        Some("urls") => urls(seed, arguments.get(2).map(String::as_str)),
        Some("alerts") => alerts::run(seed, alerts::Recipe::Ours, |_| {}),
        Some("tried") => tried(seed, arguments.get(2).map(String::as_str)),
        Some("baseline") => alerts::run(seed, alerts::Recipe::Baseline, |_| {}),
        Some("confidence") => confidence::run(seed),
        Some("drift") => drift::run(seed),
        Some("members") => training::members(seed),
        Some("tuned") => training::tuned(seed),
        Some("trees") => training::trees(seed),
        Some("peers") => peers::run(seed),
        Some("served") => served::run(seed),
        _ => {
            say(
                "models-campaign novel|flows|urls|alerts|tried|baseline|confidence|drift|members|tuned|trees|peers|served [SEED]",
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout)] // what it is for
fn say(line: &str) {
    println!("{line}");
}

fn data(name: &str) -> PathBuf {
    let base = std::env::var_os("COUNTERFLOW_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    base.join("data/ml").join(name)
}

fn request(task: &Task, table: &Table, file: &str, label: &str, seed: u64) -> Request {
    let mut recipe = Recipe::usual(task.budget(), table.rows, seed);
    recipe.spec = Spec::default().for_task(task, table, None, None);
    Request {
        task: task.clone(),
        input: data(file),
        label: label.to_owned(),
        positive: None,
        group: None,
        time: None,
        allow_leak: Vec::new(),
        recipe,
        budget: task.budget(),
        confidence: 0.95,
        threads: 1,
    }
}

fn decided(decision: &Decision) -> String {
    format!(
        "accuracy {:.4} macro-F1 {:.4} recall {:.4} FPR {:.4}",
        decision.accuracy, decision.macro_f1, decision.recall, decision.false_positive_rate
    )
}

fn say_of_itself(name: &str, request: &Request, prepared: &Prepared, seed: u64) -> Result<(), ModelError> {
    let trained = train::train(request, prepared, &mut |_, _, _| {})?;
    let groups: Vec<u64> = trained.judged.rows.iter().map(|&row| prepared.groups[row]).collect();
    say(&format!(
        "{name}: {}; right probabilities would show {:.4}, or {:.4} if a group had one mind",
        of_itself(&trained.evaluation),
        luck(&trained.judged.probabilities, None, seed),
        luck(&trained.judged.probabilities, Some(&groups), seed),
    ));
    Ok(())
}

/// The mean calibration error of labels that are drawn from the probabilities themselves: what a perfect model shows on so
/// many rows. With groups, all rows of one are drawn by one dice.
fn luck(probabilities: &[f64], groups: Option<&[u64]>, seed: u64) -> f64 {
    const DRAWS: u64 = 50;
    let unit = |number: u64| (number >> 11) as f64 / (1_u64 << 53) as f64;
    let error = |draw: u64| {
        let dice = |row: usize| {
            let of = groups.map_or(row as u64, |groups| groups[row]);
            unit(split::fold_of(of, usize::MAX, seed ^ (draw << 32)) as u64)
        };
        let drawn: Vec<bool> = probabilities.iter().enumerate().map(|(row, p)| dice(row) < *p).collect();
        metrics::ranking(probabilities, &drawn).calibration_error
    };
    (1..=DRAWS).map(error).sum::<f64>() / DRAWS as f64
}

/// What a training says of itself.
fn of_itself(evaluation: &Evaluation) -> String {
    format!(
        "ROC-AUC {:.5} {:?} calibration error {:.4} coverage {:.4} unknown {:.4} {}",
        evaluation.ranking.roc_auc,
        evaluation.curve,
        evaluation.ranking.calibration_error,
        evaluation.coverage,
        evaluation.unknown,
        decided(&evaluation.decision)
    )
}

/// Ensembles under test: a name, a way to change the recipe.
fn variants(which: Option<&str>) -> Vec<(&'static str, fn(&mut Recipe))> {
    let all: Vec<(&'static str, fn(&mut Recipe))> = vec![
        ("labels", |_| {}),
        ("none", |recipe| recipe.balance = Balance::None),
        ("classes", |recipe| recipe.balance = Balance::Classes),
        ("smooth forest", |recipe| recipe.settings.forest.leaf_rows = 5),
        ("wide forest", |recipe| recipe.settings.forest.columns_share = 0.4),
        ("slow boost", |recipe| {
            recipe.settings.boost.rate = 0.05;
            recipe.settings.boost.leaves = 15;
        }),
        ("small leaves", |recipe| recipe.settings.boost.leaf_rows = 5),
        ("and isolation", |recipe| recipe.members.push(Kind::Isolation)),
        ("short boost", |recipe| recipe.settings.boost.trees = 60),
        ("bound boost", |recipe| {
            recipe.settings.boost.leaf_weight = 10.0;
            recipe.settings.boost.lambda = 10.0;
        }),
        ("ranked network", |recipe| recipe.settings.network.ranked = true),
        ("ranked decayed network", |recipe| {
            recipe.settings.network.ranked = true;
            recipe.settings.network.decay = 0.1;
        }),
        ("wide network", |recipe| {
            recipe.settings.network.ranked = true;
            recipe.settings.network.units = [256, 64];
            recipe.settings.network.rounds = 6;
        }),
        ("decayed network", |recipe| recipe.settings.network.decay = 0.1),
    ];
    all.into_iter().filter(|(name, _)| which.is_none_or(|which| name.contains(which))).collect()
}

/// Ways to make one score of five: name, kind, and how much logistic, forest, boost, network and isolation count.
const BLENDS: [(&str, Blend, [f64; 5]); 7] = [
    ("vote of three", Blend::Vote, [0.0, 0.34, 0.33, 0.33, 0.0]),
    ("vote of trees", Blend::Vote, [0.0, 0.5, 0.5, 0.0, 0.0]),
    ("rarity of three", Blend::Rarity, [0.0, 0.34, 0.33, 0.33, 0.0]),
    ("rarity of trees", Blend::Rarity, [0.0, 0.5, 0.5, 0.0, 0.0]),
    ("rarity, network 1/4", Blend::Rarity, [0.0, 0.44, 0.44, 0.12, 0.0]),
    ("rarity, isolation 1/4", Blend::Rarity, [0.0, 0.44, 0.44, 0.0, 0.12]),
    ("rarity, both 1/4", Blend::Rarity, [0.0, 0.4, 0.4, 0.1, 0.1]),
];

/// AIT alerts with recipes under test.
fn tried(seed: u64, which: Option<&str>) -> Result<(), ModelError> {
    for (name, change) in variants(which.or(Some("labels"))) {
        say(&format!("== {name}"));
        alerts::run(seed, alerts::Recipe::Tried, change)?;
    }
    Ok(())
}

/// Kinds of attack that training rows do not have: what a test set with new attacks asks, without the test set.
fn novel(seed: u64, which: Option<&str>) -> Result<(), ModelError> {
    const PARTS: usize = 3;
    let task = Task::new("flows")?;
    let table = Table::read(&data("nsl_kdd_train.parquet"))?;
    let mut request = request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
    request.recipe.members = vec![Kind::Logistic, Kind::Forest, Kind::Boost, Kind::Network, Kind::Isolation];
    let prepared = Prepared::new(&request, table)?;
    let classes = &prepared.labels.classes;
    let positive = &prepared.labels.positive;
    let folds = split::folds(&prepared.groups, classes, 10, seed);
    for (name, change) in variants(which) {
        let mut recipe = request.recipe.clone();
        change(&mut recipe);
        if name.contains("network") {
            // The trees are as before: small ones save the time.
            recipe.settings.forest.trees = 2;
            recipe.settings.boost.trees = 2;
        }
        let mut sums = vec![(0.0, 0.0); recipe.members.len() + BLENDS.len()];
        for part in 0..PARTS {
            // Two tenths of the rows threshold and judge; of the kinds of attack, every third is unknown.
            let kept_out = |row: usize| positive[row] && classes.codes[row] as usize % PARTS == part;
            let train: Vec<usize> =
                (0..folds.len()).filter(|&row| folds[row] > 1 && !kept_out(row) && row % 2 == 0).collect();
            let hold: Vec<usize> = (0..folds.len()).filter(|&row| folds[row] == 0 && !kept_out(row)).collect();
            let judge: Vec<usize> =
                (0..folds.len()).filter(|&row| (folds[row] == 1 && !positive[row]) || (kept_out(row))).collect();
            let ensemble = Ensemble::fit(&prepared.rows(), &train, &recipe, 1, |_| {})?;
            let scores = |rows: &[usize]| ensemble.member_scores(&prepared.table.take(rows), 1);
            let truth = |rows: &[usize]| rows.iter().map(|&row| positive[row]).collect::<Vec<bool>>();
            let (mut held, mut judged) = (scores(&hold)?, scores(&judge)?);
            for (_, blend, votes) in BLENDS {
                let mut ensemble = ensemble.clone();
                ensemble.weigh(blend, &held[..5], &truth(&hold));
                ensemble.weights = votes.to_vec();
                let (a, b) = (ensemble.blended(&held[..5]), ensemble.blended(&judged[..5]));
                held.push(a);
                judged.push(b);
            }
            let kinds: BTreeSet<u32> =
                judge.iter().filter(|&&row| positive[row]).map(|&row| classes.codes[row]).collect();
            for ((held, judged), sum) in held.iter().zip(&judged).zip(&mut sums) {
                let threshold = metrics::budget_threshold(held, &truth(&hold), 0.01);
                // Each kind counts the same: the most common would hide the others.
                let recall = |kind: &u32| {
                    let of: Vec<f64> = judge
                        .iter()
                        .zip(judged)
                        .filter(|(row, _)| classes.codes[**row] == *kind)
                        .map(|(_, s)| *s)
                        .collect();
                    of.iter().filter(|score| **score > threshold).count() as f64 / of.len() as f64
                };
                sum.0 += kinds.iter().map(recall).sum::<f64>() / kinds.len() as f64 / PARTS as f64;
                sum.1 += metrics::roc_auc(judged, &truth(&judge)) / PARTS as f64;
            }
        }
        let names: Vec<&str> =
            recipe.members.iter().map(|kind| kind.name()).chain(BLENDS.map(|blend| blend.0)).collect();
        for (member, (recall, auc)) in names.iter().zip(&sums) {
            say(&format!("{name:22} {member:20} recall of unknown kinds {recall:.4} ROC-AUC {auc:.4}"));
        }
    }
    Ok(())
}

fn flows(seed: u64) -> Result<(), ModelError> {
    let task = Task::new("flows")?;
    let table = Table::read(&data("nsl_kdd_train.parquet"))?;
    let request = request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
    let prepared = Prepared::new(&request, table)?;
    let known: BTreeSet<String> = prepared.labels.classes.values.iter().cloned().collect();
    let trained = train::train(&request, &prepared, &mut |_, _, _| {})?;
    let evaluation = &trained.evaluation;
    say(&format!("hold-out: {}", of_itself(evaluation)));
    let test = Table::read(&data("nsl_kdd_test.parquet"))?;
    let labels = task.labels(test.need("label", "the label")?, None)?;
    let model = &trained.model;
    let scores = model.ensemble.member_scores(&test, 1)?;
    for (member, scores) in evaluation.members.iter().zip(&scores) {
        let decision = metrics::decision(scores, &labels.positive, member.threshold);
        say(&format!(
            "{:10} ROC-AUC {:.4} {}",
            member.member,
            metrics::roc_auc(scores, &labels.positive),
            decided(&decision)
        ));
    }
    let scores = model.probabilities(&model.encode(&test)?, 1);
    let ranking = metrics::ranking(&scores, &labels.positive);
    let decision = metrics::decision(&scores, &labels.positive, model.threshold);
    say(&format!(
        "{:10} ROC-AUC {:.4} PR-AUC {:.4} {}",
        "ensemble",
        ranking.roc_auc,
        ranking.pr_auc,
        decided(&decision)
    ));
    let unknown = scores.iter().filter(|score| model.verdict(**score) == Verdict::Unknown).count();
    say(&format!("unknown {:.4}", unknown as f64 / scores.len() as f64));
    for (what, wanted) in [("known", true), ("absent from training", false)] {
        let of = |row: &usize| {
            labels.positive[*row] && labels.classes.get(*row).is_some_and(|label| known.contains(label) == wanted)
        };
        let rows: Vec<usize> = (0..scores.len()).filter(of).collect();
        let found = rows.iter().filter(|&&row| scores[row] > model.threshold).count();
        say(&format!("attacks {what}: {} rows, recall {:.4}", rows.len(), found as f64 / rows.len() as f64));
    }
    Ok(())
}

/// What the whole training says of itself, and the whole training on four fifths, asked about the last.
fn urls(seed: u64, which: Option<&str>) -> Result<(), ModelError> {
    const FOLDS: usize = 5;
    let task = Task::new("urls")?;
    let table = Table::read(&data("phishing_urls.csv"))?;
    let request = request(&task, &table, "phishing_urls.csv", "status", seed);
    let prepared = Prepared::new(&request, table)?;
    let positive = &prepared.labels.positive;
    let folds = split::folds(&prepared.groups, &prepared.labels.classes, FOLDS, seed ^ 0x0DD);
    let both = [("all features", vec![]), ("text alone", vec!["url".to_owned()])];
    for (name, only) in both.into_iter().filter(|(name, _)| which.is_none_or(|which| name.contains(which))) {
        let mut request = request.clone();
        request.recipe.spec.only = only;
        let mut whole = Prepared::new(&request, prepared.table.clone())?;
        say_of_itself(&format!("{name}, by domain"), &request, &whole, seed)?;
        // Rows drawn at random are exchangeable; domains are, too, but not their rows, which share a label.
        whole.groups.clone_from(&whole.hashes);
        say_of_itself(&format!("{name}, rows at random"), &request, &whole, seed)?;
        let mut probabilities = vec![0.0; folds.len()];
        let (mut said, mut unknown, mut covered) = (vec![false; folds.len()], 0_usize, 0_usize);
        for fold in 0..FOLDS {
            let (inside, outside): (Vec<usize>, Vec<usize>) = (0..folds.len()).partition(|&row| folds[row] == fold);
            let learned = Prepared::new(&request, prepared.table.take(&outside))?;
            let model = train::train(&request, &learned, &mut |_, _, _| {})?.model;
            let scores = model.probabilities(&model.encode(&prepared.table.take(&inside))?, 1);
            for (&row, &score) in inside.iter().zip(&scores) {
                probabilities[row] = score;
                said[row] = score > model.threshold;
                let set = model.conformal.set(score);
                covered += usize::from(if positive[row] { set.positive } else { set.negative });
                unknown += usize::from(model.verdict(score) == Verdict::Unknown);
            }
        }
        let rows = folds.len() as f64;
        let ranking = metrics::ranking(&probabilities, positive);
        say(&format!(
            "{name:14} ROC-AUC {:.4} calibration error {:.4} coverage {:.4} unknown {:.4}; above 0.5: {}; at the operating \
             point: {}",
            ranking.roc_auc,
            ranking.calibration_error,
            covered as f64 / rows,
            unknown as f64 / rows,
            decided(&metrics::decision(&probabilities, positive, 0.5)),
            decided(&metrics::decided(&said, positive)),
        ));
    }
    Ok(())
}
