//! One training: read, guard, split, fit, calibrate, judge.
//!
//! In: a [`Request`]. Out: a [`Trained`] model with what it was judged by; nothing is written here. Rows that calibrate,
//! set the threshold or judge were not seen by the members that score them: of few rows, or few groups, each is scored by the
//! members of the other folds, and the final members see all; of many, a hold-out is kept back and never learned from.

mod finish;
mod prepare;
mod report;

use std::{collections::BTreeSet, path::PathBuf};

pub use prepare::Prepared;
pub use report::{Evaluation, LabelRecall, MemberEvaluation};

use self::finish::Finish;
use crate::{
    ModelError,
    ensemble::{Ensemble, Recipe},
    model::Model,
    split,
    tune::{self, Limits},
};

/// Rows up to which every row is scored by members that have not seen it, fold by fold.
const CROSS_ROWS_MAX: usize = 30_000;
/// Folds of that.
const FOLDS: usize = 5;
/// One of so many parts of many rows is held out; of fewer groups, a part would be one whole group, never learned from: then
/// folds judge, however many rows there are.
const HOLD_OUT: usize = 10;
/// Groups from which on the others of one are enough to learn from.
const GROUPS_MIN: usize = 3;
/// Training rows of one label, signature and group, where there is a history.
const ALIKE_MAX: usize = 1_500;
/// Share that is held out in order of time.
const LATEST_SHARE: f64 = 0.2;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Task.
    pub task: crate::task::Task,
    /// Parquet or CSV.
    pub input: PathBuf,
    /// Label column.
    pub label: String,
    /// The positive value; by default what the task says.
    pub positive: Option<String>,
    /// Column whose rows stay together in splits; never a feature.
    pub group: Option<String>,
    /// Column of times: the latest rows judge; never a feature.
    pub time: Option<String>,
    /// Columns that may be as good as the label.
    pub allow_leak: Vec<String>,
    /// How.
    pub recipe: Recipe,
    /// Share of false positives at the operating point; `None` takes the most accurate point.
    pub budget: Option<f64>,
    /// Of conformal sets.
    pub confidence: f64,
    /// Threads at most.
    pub threads: usize,
}

/// A trained model and how it did.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// On rows that were not learned from.
    pub evaluation: Evaluation,
    /// Scores of these rows, in order of rows, for curves.
    pub judged: Judged,
    /// What was noticed and how it was treated.
    pub notes: Vec<String>,
}

/// Rows with scores by members that have not seen them.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Places in the input.
    pub rows: Vec<usize>,
    /// Per member, per row.
    pub member_scores: Vec<Vec<f64>>,
    /// Blended, per row.
    pub blended: Vec<f64>,
    /// Calibrated, per row, as the other rows say.
    pub probabilities: Vec<f64>,
    /// The truth.
    pub positive: Vec<bool>,
}

/// What is told while it runs: a phrase, steps done, steps in all.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// Trains on a prepared input.
///
/// # Errors
/// A feature cannot be made, or there are too few rows.
pub fn train(request: &Request, prepared: &Prepared, progress: &mut Progress<'_>) -> Result<Trained, ModelError> {
    let (mut ensemble, mut judged) = fit(request, prepared, progress)?;
    judged.positive = judged.rows.iter().map(|&row| prepared.labels.positive[row]).collect();
    both_classes(&judged.positive, "rows that judge")?;
    let groups = finish::groups(prepared, &judged);
    let said = finish::crossed(request, &ensemble, &judged, &groups);
    judged.probabilities = said.iter().map(|said| said.probability).collect();
    let everything: Vec<usize> = (0..judged.rows.len()).collect();
    let finish = Finish::fit(request, &ensemble, &judged, &groups, &everything);
    judged.blended = finish.weighing.blended(&judged.member_scores);
    (ensemble.weights, ensemble.mix) = (finish.weighing.weights.clone(), finish.weighing.mix.clone());
    // As the model will say it, step for step: what the parts say has steps elsewhere, which would look like drift.
    let answers: Vec<f64> = judged.blended.iter().map(|&score| finish.calibration.probability(score)).collect();
    ensemble.reference.answered(&answers);
    let model = Model {
        task: request.task.name.clone(),
        history: request.recipe.spec.history.clone(),
        inputs: prepared.inputs.clone(),
        ensemble,
        calibration: finish.calibration.clone(),
        threshold: finish.decide.threshold,
        conformal: finish.decide.conformal,
    };
    let evaluation = report::evaluate(request, prepared, &model, &finish, &judged, &said);
    Ok(Trained { model, evaluation, judged, notes: prepared.notes.clone() })
}

/// Replaces the settings of the request by those that do best in trials on the rows that are learned from.
///
/// # Errors
/// A trial cannot be fitted.
pub fn tune(
    request: &mut Request,
    prepared: &Prepared,
    limits: Limits,
    progress: &mut Progress<'_>,
) -> Result<(), ModelError> {
    let inside: Vec<usize> = match held_out_rows(request, prepared) {
        Some(out) => (0..out.len()).filter(|&row| out[row]).collect(),
        None => Vec::new(),
    };
    let chosen = prepared.without_twins(&inside);
    let (settings, _) = tune::tune(&prepared.rows(), &chosen, &request.recipe, limits, request.threads, progress)?;
    request.recipe.settings = settings;
    Ok(())
}

/// Which rows are held out; `None` if all judge, fold by fold.
fn held_out_rows(request: &Request, prepared: &Prepared) -> Option<Vec<bool>> {
    if let (Some(times), None) = (&prepared.times, &request.group) {
        return Some(split::latest(times, LATEST_SHARE));
    }
    if prepared.table.rows <= CROSS_ROWS_MAX || is_of_few_groups(prepared) {
        return None;
    }
    let folds = split::folds(&prepared.groups, &prepared.labels.classes, HOLD_OUT, request.recipe.seed);
    Some(folds.iter().map(|&fold| fold == 0).collect())
}

/// Whether there are so few groups that a held-out part would be a whole one.
fn is_of_few_groups(prepared: &Prepared) -> bool {
    let mut known = BTreeSet::new();
    for group in &prepared.groups {
        known.insert(group);
        if known.len() >= HOLD_OUT {
            return false;
        }
    }
    known.len() >= GROUPS_MIN
}

fn fit(request: &Request, prepared: &Prepared, progress: &mut Progress<'_>) -> Result<(Ensemble, Judged), ModelError> {
    let rows = prepared.rows();
    let members = request.recipe.members.len();
    let count = prepared.table.rows;
    if let Some(out) = held_out_rows(request, prepared) {
        return held_out(request, prepared, &out, progress);
    }
    let folds = split::folds(&prepared.groups, &prepared.labels.classes, FOLDS, request.recipe.seed);
    let all = (FOLDS + 1) * members;
    let mut done = 0;
    let mut judged = Judged { rows: (0..count).collect(), ..Judged::default() };
    judged.member_scores = vec![vec![0.0; count]; members];
    for fold in 0..FOLDS {
        let inside: Vec<usize> = (0..count).filter(|&row| folds[row] == fold).collect();
        if inside.is_empty() {
            continue; // there are fewer groups than folds
        }
        let outside = fewer(request, prepared, prepared.without_twins(&inside));
        let positive: Vec<bool> = outside.iter().map(|&row| prepared.labels.positive[row]).collect();
        both_classes(&positive, "training rows of a fold (too few groups?)")?;
        let ensemble = Ensemble::fit(&rows, &outside, &request.recipe, request.threads, |kind| {
            done += 1;
            progress(&format!("fold {} of {FOLDS}: {}", fold + 1, kind.name()), done, all);
        })?;
        let scores = ensemble.member_scores(&prepared.table.take(&inside), request.threads)?;
        for (into, scores) in judged.member_scores.iter_mut().zip(scores) {
            for (&row, score) in inside.iter().zip(scores) {
                into[row] = score;
            }
        }
    }
    let everything = fewer(request, prepared, (0..count).collect());
    let ensemble = Ensemble::fit(&rows, &everything, &request.recipe, request.threads, |kind| {
        done += 1;
        progress(&format!("all rows: {}", kind.name()), done, all);
    })?;
    Ok((ensemble, judged))
}

/// Keeps some rows back, learns from the others.
fn held_out(
    request: &Request,
    prepared: &Prepared,
    out: &[bool],
    progress: &mut Progress<'_>,
) -> Result<(Ensemble, Judged), ModelError> {
    let inside: Vec<usize> = (0..out.len()).filter(|&row| out[row]).collect();
    let outside = fewer(request, prepared, prepared.without_twins(&inside));
    let positive: Vec<bool> = outside.iter().map(|&row| prepared.labels.positive[row]).collect();
    both_classes(&positive, "training rows")?;
    let mut done = 0;
    let ensemble = Ensemble::fit(&prepared.rows(), &outside, &request.recipe, request.threads, |kind| {
        done += 1;
        progress(kind.name(), done, request.recipe.members.len() + 1);
    })?;
    let member_scores = ensemble.member_scores(&prepared.table.take(&inside), request.threads)?;
    progress("hold-out", done + 1, request.recipe.members.len() + 1);
    Ok((ensemble, Judged { rows: inside, member_scores, ..Judged::default() }))
}

/// Where there is a history, alerts come in floods of the same: few of them are enough.
fn fewer(request: &Request, prepared: &Prepared, rows: Vec<usize>) -> Vec<usize> {
    match &request.recipe.spec.history {
        Some(history) => prepared.capped(&rows, &history.signature, ALIKE_MAX, request.recipe.seed),
        None => rows,
    }
}

fn both_classes(positive: &[bool], what: &str) -> Result<(), ModelError> {
    const LEAST: usize = 5;
    for class in [true, false] {
        let found = positive.iter().filter(|is| **is == class).count();
        if found < LEAST {
            let name = if class { "positive" } else { "negative" };
            return Err(ModelError::TooFew { what: format!("{name} {what}"), found, least: LEAST });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Cells, Column, Table, Texts};

    /// Rows of so many groups: how many of them are held out.
    fn held_out(rows: usize, groups: u32) -> Option<usize> {
        let text = |name: &str, codes: Vec<u32>, values: u32| Column {
            name: name.to_owned(),
            cells: Cells::Texts(Texts { codes, values: (0..values).map(|value| format!("v{value}")).collect() }),
        };
        let numbers = (0..rows).map(|row| (row * 7_919 % 10_007) as f64).collect();
        let columns = vec![
            text("label", (0..rows as u32).map(|row| row % 2).collect(), 2),
            text("group", (0..rows as u32).map(|row| row % groups).collect(), groups),
            Column { name: "number".to_owned(), cells: Cells::Numbers(numbers) },
        ];
        let table = Table { columns, rows, ..Table::default() };
        let request = Request {
            task: crate::task::Task::new("other").unwrap(),
            input: PathBuf::new(),
            label: "label".to_owned(),
            positive: Some("v1".to_owned()),
            group: Some("group".to_owned()),
            time: None,
            allow_leak: Vec::new(),
            recipe: Recipe::usual(None, rows, 1),
            budget: None,
            confidence: 0.95,
            threads: 1,
        };
        let prepared = Prepared::new(&request, table).unwrap();
        held_out_rows(&request, &prepared).map(|out| out.iter().filter(|is| **is).count())
    }

    #[test]
    fn a_part_is_held_out_only_of_many_rows_and_groups() {
        assert_eq!(held_out(30_000, 100), None, "few rows");
        // Of two, one group is all there is to judge or to learn from.
        assert_eq!(held_out(30_002, 2), Some(15_001));
        assert_eq!(held_out(30_003, 3), None);
        assert_eq!(held_out(30_006, 9), None);
        assert_eq!(held_out(30_010, 10), Some(3_001));
    }
}
