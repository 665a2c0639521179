//! `counterflow train --data DIR`: learns from what was served and judged, as the named query `training_set`
//! gives it ([`crate::triage::judged`]).
//!
//! Features were recorded before anybody judged their alert, so none can be a leak of the label, however well it
//! separates. Where the latest fifth has both classes, it judges, as it would have been lived; else folds do, in which
//! alerts of one rule and group stay together.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cf_models::{
    features::alert::{RECIPE, feature_names},
    served::{self, Labelled},
    split,
    table::{Cells, Table},
    train::Request,
};

use crate::{
    output::{self, Failed},
    triage::judged::labelled,
};

/// Judged alerts that a training needs at least, and of each class.
const LEAST: usize = 50;
const LEAST_OF_CLASS: usize = 10;
/// Of each class in the latest fifth, if that is to judge.
const LEAST_LATEST: usize = 5;
const LATEST_SHARE: f64 = 0.2;

/// The judged alerts of a data folder, with their features.
pub(super) fn table(task: &str, data: &Path) -> Result<Table> {
    if task != "triage" {
        bail!("--data is for task triage: of {task:?} nothing is served; give --input FILE");
    }
    let (rows, others) = labelled(data)?;
    if others > 0 {
        output::note(&format!("note: {others} alerts were served other features than {RECIPE}; they are left out"));
    }
    enough(&rows)?;
    Ok(served::training_table(&rows))
}

fn enough(labelled: &[Labelled]) -> Result<()> {
    let attacks = labelled.iter().filter(|row| is_attack(&row.label)).count();
    let others = labelled.len() - attacks;
    if labelled.len() >= LEAST && attacks >= LEAST_OF_CLASS && others >= LEAST_OF_CLASS {
        return Ok(());
    }
    bail!(Failed(format!(
        "there are {} judged alerts with served features ({attacks} attacks, {others} others); {LEAST} are needed, \
         {LEAST_OF_CLASS} of each kind: judge more with `counterflow facts add verdict ALERT verdict=true_positive` \
         (or false_positive, benign)",
        labelled.len()
    )))
}

fn is_attack(label: &str) -> bool {
    label == "true_positive"
}

/// What a request needs beside the words of the command.
pub(super) fn complete(request: &mut Request, table: &Table, data: &Path) -> Result<()> {
    request.input = data.to_path_buf();
    request.label = served::LABEL.to_owned();
    request.positive = Some("true_positive".to_owned());
    request.allow_leak = feature_names();
    if let Some(times) = latest_judges(table)? {
        output::note(&format!("note: the latest {times} judged alerts judge"));
        request.time = Some(served::TIME.to_owned());
        request.recipe.spec.leave_out = vec![served::GROUP.to_owned()];
    } else {
        output::note("note: too few of a kind are among the latest fifth: folds judge, by rule and group");
        request.group = Some(served::GROUP.to_owned());
        request.recipe.spec.leave_out = vec![served::TIME.to_owned()];
    }
    Ok(())
}

/// How many the latest fifth has, if it can judge.
fn latest_judges(table: &Table) -> Result<Option<usize>> {
    let column = table.column(served::TIME).context("the training set has no times")?;
    let Cells::Numbers(times) = &column.cells else { bail!("the training set has no times") };
    let labels = &table.column(served::LABEL).context("the training set has no labels")?.cells;
    let latest = split::latest(times, LATEST_SHARE);
    let kind =
        |wanted: bool| -> (usize, usize) {
            let rows = (0..table.rows).filter(|&row| labels.text(row).is_some_and(|label| is_attack(&label) == wanted));
            rows.fold((0, 0), |(inside, outside), row| {
                if latest.get(row) == Some(&true) { (inside + 1, outside) } else { (inside, outside + 1) }
            })
        };
    let (attacks, others) = (kind(true), kind(false));
    let fits = [attacks.0, attacks.1, others.0, others.1].iter().all(|count| *count >= LEAST_LATEST);
    Ok(fits.then_some(attacks.0 + others.0))
}
