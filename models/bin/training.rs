//! What training costs: each member alone on the rows that `scripts/models-peers.py` gives to others' libraries, and the
//! whole with a search for settings.

use std::time::{Duration, Instant};

use cf_models::{
    ModelError,
    ensemble::Ensemble,
    members::{Kind, Lesson, Member},
    metrics,
    table::Table,
    task::Task,
    train::{self, Prepared},
    tune::Limits,
};

use crate::{data, peers::cpu_s, request, say};

/// Each member on all of KDDTrain+ without weights: CPU seconds, and its rank on KDDTest+.
pub(crate) fn members(seed: u64) -> Result<(), ModelError> {
    let task = Task::new("flows")?;
    let table = Table::read(&data("nsl_kdd_train.parquet"))?;
    let request = request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
    let prepared = Prepared::new(&request, table)?;
    let everything: Vec<usize> = (0..prepared.table.rows).collect();
    let mut recipe = request.recipe.clone();
    recipe.members.clear();
    let encoder = Ensemble::fit(&prepared.rows(), &everything, &recipe, 1, |_| {})?.encoder;
    let matrix = encoder.encode(&prepared.table)?;
    let test = Table::read(&data("nsl_kdd_test.parquet"))?;
    let (asked, truth) = (encoder.encode(&test)?, task.labels(test.need("label", "the label")?, None)?.positive);
    let (positive, weights) = (&prepared.labels.positive, vec![1.0; matrix.rows]);
    for kind in [Kind::Forest, Kind::Boost, Kind::Network] {
        let begun_s = cpu_s();
        let lesson = Lesson { matrix: &matrix, positive, weights: &weights, seed, threads: 1 };
        let member = Member::train(kind, &lesson, &recipe.settings);
        let trained_s = cpu_s() - begun_s;
        let scores = member.scores(&asked.values, asked.columns(), None);
        let decision = metrics::decision(&scores, &truth, 0.5);
        say(&format!(
            "{:8} {trained_s:.1} CPU s on {} rows of {} columns; KDDTest+ ROC-AUC {:.4}, accuracy at 0.5 {:.4}",
            kind.name(),
            matrix.rows,
            matrix.columns(),
            metrics::roc_auc(&scores, &truth),
            decision.accuracy
        ));
    }
    Ok(())
}

/// Thirty trials, then the training, on two threads.
pub(crate) fn tuned(seed: u64) -> Result<(), ModelError> {
    const TRIALS: usize = 30;
    let (begun, begun_s) = (Instant::now(), cpu_s());
    let task = Task::new("flows")?;
    let table = Table::read(&data("nsl_kdd_train.parquet"))?;
    let mut request = request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
    request.threads = 2;
    let prepared = Prepared::new(&request, table)?;
    let limits = Limits { trials: TRIALS, time_max: Duration::from_secs(24 * 3_600) };
    train::tune(&mut request, &prepared, limits, &mut |_, _, _| {})?;
    let tuned_s = cpu_s() - begun_s;
    let trained = train::train(&request, &prepared, &mut |_, _, _| {})?;
    say(&format!(
        "{} rows, {TRIALS} trials in {tuned_s:.1} CPU s, with the training {:.1} CPU s, {:.0} s on two threads, at most {} MiB; \
         ROC-AUC of the hold-out {:.5}",
        prepared.table.rows,
        cpu_s() - begun_s,
        begun.elapsed().as_secs_f64(),
        peak_mib(),
        trained.evaluation.ranking.roc_auc
    ));
    Ok(())
}

/// How many trees few rows need: what trainings say of themselves, folds judging, with fewer and larger steps.
pub(crate) fn trees(seed: u64) -> Result<(), ModelError> {
    let sets: [(&str, &str, &str, &[&str], usize); 3] = [
        ("urls", "phishing_urls.csv", "status", &[], 1),
        ("urls", "phishing_urls.csv", "status", &["url"], 1),
        ("flows", "nsl_kdd_train.parquet", "label", &[], 10),
    ];
    for (name, file, label, only, step) in sets {
        let task = Task::new(name)?;
        let whole = Table::read(&data(file))?;
        let some: Vec<usize> = (0..whole.rows).step_by(step).collect();
        let table = whole.take(&some);
        for (forest, boost, rate) in [(300, 400, 0.05), (200, 300, 0.07), (150, 200, 0.1), (100, 150, 0.13)] {
            let mut request = request(&task, &table, file, label, seed);
            request.recipe.spec.only = only.iter().map(|name| (*name).to_owned()).collect();
            let settings = &mut request.recipe.settings;
            (settings.forest.trees, settings.boost.trees, settings.boost.rate) = (forest, boost, rate);
            let prepared = Prepared::new(&request, table.clone())?;
            let of = train::train(&request, &prepared, &mut |_, _, _| {})?.evaluation;
            say(&format!(
                "{name} {only:?}, {forest} and {boost} trees: ROC-AUC {:.5}, square error {:.5}, accuracy {:.4}, unknown {:.4}",
                of.ranking.roc_auc, of.ranking.brier, of.decision.accuracy, of.unknown
            ));
        }
    }
    Ok(())
}

/// The most memory that this process has held (proc(5), `VmHWM`); 0 where the system does not tell.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1_024
}
