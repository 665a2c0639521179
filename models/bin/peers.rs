//! Ours against linfa's on the same rows: NSL-KDD, subsampled, and made-up ones.

mod compare;
mod peer;

use cf_models::{ModelError, ensemble::Ensemble, table::Table, task::Task, train::Prepared};

pub(crate) use self::compare::cpu_s;
use self::{
    compare::{Labelled, WORSE_MAX, compare, made_up},
    peer::Forest,
};
use crate::{data, request, say};

/// Rows that are learned from; of the training file as many again judge.
const ROWS: usize = 10_000;
/// linfa's forest as `ml.md` found it to be best, which here is all rows for each tree.
const FOREST: Forest = Forest { trees: 50, depth: 16, rows_share: 1.0, columns_share: 0.6 };

/// Prints both sides, and fails where ours is worse.
pub(crate) fn run(seed: u64) -> Result<(), ModelError> {
    let (learn, asked) = nsl_kdd(seed)?;
    say(&format!("NSL-KDD, {ROWS} rows of KDDTrain+, judged on {ROWS} others of it and on KDDTest+"));
    let mut holds = report(&learn, &asked, seed)?;
    say(&format!("made up, {ROWS} rows, judged on {ROWS} others"));
    holds &= report(&made_up(ROWS, seed), &[made_up(ROWS, seed + 1)], seed)?;
    if holds {
        return Ok(());
    }
    Err(failed(format!("a learner of ours is worse than linfa's by more than {WORSE_MAX}")))
}

fn report(learn: &Labelled, asked: &[Labelled], seed: u64) -> Result<bool, ModelError> {
    let compared = compare(learn, asked, FOREST, seed).map_err(failed)?;
    compared.iter().for_each(|compared| say(&compared.line()));
    Ok(compared.iter().all(compare::Compared::holds))
}

fn failed(why: String) -> ModelError {
    ModelError::Setting { what: "the comparison".to_owned(), why }
}

fn nsl_kdd(seed: u64) -> Result<(Labelled, Vec<Labelled>), ModelError> {
    let task = Task::new("flows")?;
    let table = Table::read(&data("nsl_kdd_train.parquet"))?;
    let test = Table::read(&data("nsl_kdd_test.parquet"))?;
    let labels = task.labels(test.need("label", "the label")?, None)?.positive;
    let mut request = request(&task, &table, "nsl_kdd_train.parquet", "label", seed);
    request.recipe.members = Vec::new();
    let prepared = Prepared::new(&request, table)?;
    // Equal rows stay on one side.
    let folds = cf_models::split::folds(&prepared.groups, &prepared.labels.classes, 10, seed);
    let of = |fold: usize| (0..folds.len()).filter(|&row| folds[row] == fold).take(ROWS).collect::<Vec<usize>>();
    let learn = of(0);
    // No members: the encoder alone, fitted on what is learned from.
    let ensemble = Ensemble::fit(&prepared.rows(), &learn, &request.recipe, 1, |_| {})?;
    let encoded = |rows: &[usize]| -> Result<Labelled, ModelError> {
        let matrix = ensemble.encoder.encode(&prepared.table.take(rows))?;
        Ok(Labelled { matrix, positive: rows.iter().map(|&row| prepared.labels.positive[row]).collect() })
    };
    let asked = vec![encoded(&of(1))?, Labelled { matrix: ensemble.encoder.encode(&test)?, positive: labels }];
    Ok((encoded(&learn)?, asked))
}
