//! When the alarm goes off on rows that are not like those of training, and how many verdicts are "unknown" there: beside
//! the same figures on rows that are alike, which is what an alarm is worth.

use cf_models::{
    ModelError,
    drift::{Alarm, WINDOW, Watch},
    features::url::registered_domain,
    matrix::Matrix,
    model::Model,
    split,
    table::{Cells, Table},
    task::Task,
    train::{self, Prepared},
};

use crate::{data, request, say};

/// Watches rows go by in their order: the first alarm, how many windows have one, and the share of "unknown".
pub(crate) fn watched(model: &Model, matrix: &Matrix) -> String {
    let probabilities = model.probabilities(matrix, 1);
    let mut watch = Watch::new(&model.ensemble.reference, model.ensemble.encoder.names());
    let alarms: Vec<Alarm> =
        probabilities.iter().enumerate().filter_map(|(row, &p)| watch.row(matrix.row(row), p)).collect();
    let unknown = 100.0 * model.unknown_share(&probabilities);
    let windows = matrix.rows / WINDOW;
    let Some(first) = alarms.first() else {
        return format!("no alarm in {windows} windows of {WINDOW} rows, unknown {unknown:.1} %");
    };
    let columns: Vec<String> = first.columns.iter().take(3).map(|(name, index)| format!("{name} {index:.2}")).collect();
    format!(
        "alarm at row {} ({}{}), in {} of {windows} windows, unknown {unknown:.1} %",
        first.rows,
        columns.join(", "),
        if first.mean_moved { "; the mean moved" } else { "" },
        alarms.len(),
    )
}

pub(crate) fn run(seed: u64) -> Result<(), ModelError> {
    flows(seed)?;
    urls(seed)
}

/// KDDTrain+ to KDDTest+, which has other attacks in other shares.
fn flows(seed: u64) -> Result<(), ModelError> {
    let task = Task::new("flows")?;
    let table = Table::read(&data("nsl_kdd_train.parquet"))?;
    let request = request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
    let prepared = Prepared::new(&request, table)?;
    let trained = train::train(&request, &prepared, &mut |_, _, _| {})?;
    let model = &trained.model;
    let alike = model.encode(&prepared.table.take(&trained.judged.rows))?;
    say(&format!("flows, held out of KDDTrain+: {}", watched(model, &alike)));
    let other = Table::read(&data("nsl_kdd_test.parquet"))?;
    say(&format!("flows, KDDTest+: {}", watched(model, &model.encode(&other)?)));
    // Of few rows, folds judge, and the final members learn from all.
    let tenth = |of: usize| (0..prepared.table.rows).filter(|row| row % 10 == of).collect::<Vec<usize>>();
    for of in 0..3 {
        let table = prepared.table.take(&tenth(of));
        let request = crate::request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
        let model = train::train(&request, &Prepared::new(&request, table)?, &mut |_, _, _| {})?.model;
        let rest = prepared.table.take(&(0..prepared.table.rows).filter(|row| row % 10 != of).collect::<Vec<usize>>());
        say(&format!("flows, tenth {of} of KDDTrain+, on the other nine: {}", watched(&model, &model.encode(&rest)?)));
        say(&format!("flows, tenth {of} of KDDTrain+, on KDDTest+: {}", watched(&model, &model.encode(&other)?)));
    }
    Ok(())
}

/// The text of URLs under `.com` learned, those of other registries asked about.
fn urls(seed: u64) -> Result<(), ModelError> {
    const FOLDS: usize = 5;
    let task = Task::new("urls")?;
    let table = Table::read(&data("phishing_urls.csv"))?;
    let mut request = request(&task, &table, "phishing_urls.csv", "status", seed);
    request.recipe.spec.only = vec!["url".to_owned()];
    let prepared = Prepared::new(&request, table)?;
    let Cells::Texts(texts) = &prepared.table.need("url", "the URLs")?.cells else {
        return Err(ModelError::Setting { what: "the URLs".to_owned(), why: "they are numbers".to_owned() });
    };
    let is_learned = |row: usize| registered_domain(texts.get(row).unwrap_or_default()).ends_with(".com");
    let folds = split::folds(&prepared.groups, &prepared.labels.classes, FOLDS, seed ^ 0x0DD);
    let rows = 0..prepared.table.rows;
    let learned: Vec<usize> = rows.clone().filter(|&row| is_learned(row) && folds[row] > 0).collect();
    let alike: Vec<usize> = rows.clone().filter(|&row| is_learned(row) && folds[row] == 0).collect();
    let shifted: Vec<usize> = rows.filter(|&row| !is_learned(row)).collect();
    let model =
        train::train(&request, &Prepared::new(&request, prepared.table.take(&learned))?, &mut |_, _, _| {})?.model;
    for (what, rows) in [("held out of .com", alike), ("other registries", shifted)] {
        say(&format!("urls, {what}: {}", watched(&model, &model.encode(&prepared.table.take(&rows))?)));
    }
    Ok(())
}
