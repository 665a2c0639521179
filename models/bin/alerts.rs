//! AIT alerts: each scenario asked about by a training on the others, by the whole training and by the baseline of `ml.md`.

use std::collections::{BTreeMap, BTreeSet};

use cf_models::{
    ModelError,
    balance::Balance,
    features::Spec,
    members::Kind,
    metrics,
    table::{Cells, Table},
    task::Task,
    train::{self, Prepared, Request},
};

use crate::{chains::Shown, data, drift, peers::cpu_s, request, say};

/// What is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// As `counterflow train` does.
    Ours,
    /// As `ml.md` measured: 150 boosted trees of 31 leaves on counts of signature, host and address, time since last, how
    /// often so far, and hour; of a phase, signature and scenario 1,500 rows are learned from, weighed by label.
    Baseline,
    /// Ours, on four of the scenarios: where things are tried.
    Tried,
}

/// Rows of one phase, signature and scenario that the baseline learns from.
const CAP: usize = 1_500;

impl Recipe {
    fn apply(self, request: &mut Request, table: &mut Table) -> Result<(), ModelError> {
        if self != Recipe::Baseline {
            return Ok(());
        }
        let recipe = &mut request.recipe;
        recipe.members = vec![Kind::Boost];
        recipe.balance = Balance::Labels;
        recipe.settings.boost.trees = 150;
        recipe.settings.boost.rate = 0.1;
        recipe.settings.boost.leaves = 31;
        add_hour(table, "time")?;
        let history = recipe.spec.history.clone().into_iter();
        let counted = history.flat_map(|history| {
            let keys: Vec<String> = [&history.signature].into_iter().chain(&history.places).cloned().collect();
            let is_plain = move |name: &String| {
                let of = keys.iter().find_map(|key| name.strip_prefix(key.as_str()));
                of.is_some_and(|rest| !rest.starts_with(" with") && !rest.ends_with("against usual"))
            };
            history.names().into_iter().filter(is_plain).collect::<Vec<_>>()
        });
        recipe.spec.only = counted.chain([HOUR.to_owned()]).collect();
        Ok(())
    }

    /// The rows that are learned from.
    fn learned(self, prepared: &Prepared, rows: &[usize]) -> Result<Vec<usize>, ModelError> {
        if self != Recipe::Baseline {
            return Ok(rows.to_vec());
        }
        let Some(signature) = prepared.table.column("short").or_else(|| prepared.table.column("name")) else {
            return Err(ModelError::Setting { what: "the alerts".to_owned(), why: "no signatures".to_owned() });
        };
        let signatures = signature.cells.classes();
        let mut of: BTreeMap<(u64, u32, u32), Vec<usize>> = BTreeMap::new();
        for &row in rows {
            let key = (prepared.groups[row], prepared.labels.classes.codes[row], signatures.codes[row]);
            of.entry(key).or_default().push(row);
        }
        // Spread over the time of each, not its begin.
        let some = |rows: Vec<usize>| {
            let step = rows.len().div_ceil(CAP).max(1);
            rows.into_iter().step_by(step).collect::<Vec<usize>>()
        };
        let mut learned: Vec<usize> = of.into_values().flat_map(some).collect();
        learned.sort_unstable();
        Ok(learned)
    }
}

/// The column of hours.
const HOUR: &str = "hour of day";

fn add_hour(table: &mut Table, time: &str) -> Result<(), ModelError> {
    let Cells::Numbers(times) = &table.need(time, "the time")?.cells else {
        return Err(ModelError::Setting { what: "the alerts".to_owned(), why: "no times".to_owned() });
    };
    let hours = times.iter().map(|time| (time.rem_euclid(86_400.0) / 3_600.0).floor()).collect();
    table.columns.push(cf_models::table::Column { name: HOUR.to_owned(), cells: Cells::Numbers(hours) });
    Ok(())
}

/// Leaves one scenario out: recall per phase at exactly one in a hundred of its benign alerts, and at the threshold of
/// the training scenarios.
pub(crate) fn run(seed: u64, recipe: Recipe, change: fn(&mut cf_models::ensemble::Recipe)) -> Result<(), ModelError> {
    let task = Task::new("triage")?;
    let mut table = Table::read(&data("ait_ads_6.parquet"))?;
    let mut request = request(&task, &table, "ait_ads_6.parquet", "time_label", seed);
    request.time = Some("time".to_owned());
    request.group = Some("scenario".to_owned());
    request.recipe.spec = Spec::default().for_task(&task, &table, Some("time"), Some("scenario"));
    recipe.apply(&mut request, &mut table)?;
    change(&mut request.recipe);
    let begun_s = cpu_s();
    let prepared = Prepared::new(&request, table)?;
    let (rows, inputs) = (prepared.table.rows, prepared.inputs.len());
    // With all that a training wants besides: labels, hashes, groups.
    let features_s = cpu_s() - begun_s;
    let mut scoring_s = 0.0;
    let classes = &prepared.labels.classes;
    let mut scenarios: BTreeMap<String, u64> = BTreeMap::new();
    let names = &prepared.table.need("scenario", "the scenario")?.cells;
    for (row, group) in prepared.groups.iter().enumerate() {
        scenarios.entry(names.text(row).unwrap_or_default()).or_insert(*group);
    }
    if recipe == Recipe::Tried {
        scenarios = scenarios.into_iter().take(4).collect();
    }
    let mut shown = Shown::default();
    let mut recalls = vec![Vec::new(); classes.values.len()];
    let mut deployed = vec![Vec::new(); classes.values.len()];
    let taken: BTreeSet<u64> = scenarios.values().copied().collect();
    for (name, &scenario) in &scenarios {
        let (inside, outside): (Vec<usize>, Vec<usize>) = (0..prepared.table.rows)
            .filter(|&row| taken.contains(&prepared.groups[row]))
            .partition(|&row| prepared.groups[row] == scenario);
        let learned = recipe.learned(&prepared, &outside)?;
        let trained = train::train(&request, &prepared.take(&learned), &mut |_, _, _| {})?;
        let test = prepared.take(&inside);
        let model = &trained.model;
        let begun_s = cpu_s();
        let matrix = model.ensemble.encoder.encode(&test.table)?;
        let scores = model.probabilities(&matrix, 1);
        scoring_s += cpu_s() - begun_s;
        let positive = &test.labels.positive;
        let threshold = metrics::budget_threshold(&scores, positive, 0.01);
        let mut line = String::new();
        for code in 0..classes.values.len() {
            let of: Vec<f64> = (0..scores.len())
                .filter(|&row| test.labels.classes.codes[row] as usize == code)
                .map(|row| scores[row])
                .collect();
            if of.is_empty()
                || !positive[test.labels.classes.codes.iter().position(|c| *c as usize == code).unwrap_or(0)]
            {
                continue;
            }
            let found = |threshold: f64| of.iter().filter(|score| **score > threshold).count() as f64 / of.len() as f64;
            recalls[code].push(found(threshold));
            deployed[code].push(found(model.threshold));
            line.push_str(&format!(" {} {:.3}", classes.values[code], found(threshold)));
        }
        let ranking = metrics::ranking(&scores, positive);
        let decision = metrics::decision(&scores, positive, model.threshold);
        say(&format!(
            "{name}: ROC-AUC {:.4} PR-AUC {:.4} deployed FPR {:.4};{line}",
            ranking.roc_auc, ranking.pr_auc, decision.false_positive_rate
        ));
        say(&format!("  {}", drift::watched(model, &matrix)));
        let by_model: Vec<bool> = scores.iter().map(|score| *score > model.threshold).collect();
        shown.add(name, &test, &by_model)?;
    }
    say(&format!(
        "{rows} alerts of {inputs} columns: features {features_s:.2} CPU s, scores {scoring_s:.2} CPU s, {:.0} alerts a CPU second",
        rows as f64 / (features_s + scoring_s).max(0.01)
    ));
    for (what, recalls) in [("at 1 % of benign alerts", &recalls), ("at the threshold of training", &deployed)] {
        let mean = |of: &Vec<f64>| of.iter().sum::<f64>() / of.len() as f64;
        let phases: Vec<f64> = recalls.iter().filter(|of| !of.is_empty()).map(mean).collect();
        let pairs: Vec<f64> = recalls.iter().flatten().copied().collect();
        let surfaced = pairs.iter().filter(|recall| **recall > 0.0).count() as f64 / pairs.len() as f64;
        say(&format!("{what}: macro recall per phase {:.4}, phases surfaced {surfaced:.4}", mean(&phases)));
        for (phase, recalls) in classes.values.iter().zip(recalls).filter(|(_, of)| !of.is_empty()) {
            say(&format!("  {phase:22} {:.4}", mean(recalls)));
        }
    }
    shown.say();
    Ok(())
}
