//! `counterflow train --data DIR`: learns from what was served and judged, as the named queries `training_set` (alerts) and
//! `training_events` (URLs and flows) give it ([`crate::triage::judged`]).
//!
//! Of URLs and flows only those are judged that a model called positive. What it learns is to tell the right ones of these
//! from the wrong, and from a sample of ordinary events, which count as benign: so a version that would call these positive
//! shows it on the rows that judge. Folds keep the events of one alert, of URLs those of one domain, together.
//!
//! Features were recorded before anybody judged their alert, so none can be a leak of the label, however well it
//! separates. Where the latest fifth has both classes, it judges, as it would have been lived; else folds do, in which
//! alerts of one rule and group stay together.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cf_models::{
    features::alert::{RECIPE, feature_names},
    publish::Gate,
    served, split,
    table::{Cells, Table},
    train::Request,
};

use crate::{
    output::{self, Failed},
    scoring::TASKS,
    triage::{
        judged::{UNJUDGED, labelled, labelled_events},
        switch::TASK as TRIAGE,
    },
};

/// The label that is positive.
const ATTACK: &str = "true_positive";
/// Judged rows that a training needs at least, and of each class.
const LEAST: usize = 50;
const LEAST_OF_CLASS: usize = 10;
/// Of each class in the latest fifth, if that is to judge.
const LEAST_LATEST: usize = 5;
const LATEST_SHARE: f64 = 0.2;
/// Ordinary events that must be among those that judge a version of urls or flows before it is promoted by itself: a model
/// that calls one in 70 of them positive does so here with 19 chances of 20.
const ORDINARY_MIN: usize = 200;

/// What was judged in a data folder, with its features.
pub(super) fn table(task: &str, data: &Path) -> Result<Table> {
    if TASKS.contains(&task) {
        let (rows, others) = labelled_events(data, task)?;
        told_apart(others, "events", served::event_recipe(task));
        let judged = rows.iter().map(|row| row.label.as_str()).filter(|label| *label != UNJUDGED);
        enough(judged.clone(), &format!("judged events that a model of {task} called positive"))?;
        let ordinary = rows.len() - judged.count();
        output::note(&format!("note: {ordinary} ordinary events, which nobody judged, count as benign"));
        return Ok(served::event_training_table(task, &rows));
    }
    if task != TRIAGE {
        bail!("--data is for tasks triage, urls and flows: of {task:?} nothing is served; give --input FILE");
    }
    let (rows, others) = labelled(data)?;
    told_apart(others, "alerts", RECIPE);
    enough(rows.iter().map(|row| row.label.as_str()), "judged alerts with served features")?;
    Ok(served::training_table(&rows))
}

/// Whether evidence may promote a version that learned from a table. One that was judged by alarms alone has shown nothing of
/// what it says of all other events.
pub(super) fn gate(task: &str, table: &Table) -> Gate {
    let ordinary = table.column(served::LABEL).map_or(0, |labels| {
        (0..table.rows).filter(|&row| labels.cells.text(row).is_some_and(|label| label == UNJUDGED)).count()
    });
    if !TASKS.contains(&task) || ordinary >= ORDINARY_MIN {
        return Gate::Evidence;
    }
    output::note(&format!(
        "note: it is not promoted by itself: {ordinary} ordinary events judge, {ORDINARY_MIN} are needed to see what it \
         would say of all others (one in 1,000 is recorded); `counterflow models challenge` compares it while events come in"
    ));
    Gate::Never
}

fn told_apart(others: usize, what: &str, recipe: &str) {
    if others > 0 {
        output::note(&format!("note: {others} {what} were served other features than {recipe}; they are left out"));
    }
}

fn enough<'a>(labels: impl Iterator<Item = &'a str> + Clone, what: &str) -> Result<()> {
    let (all, attacks) = (labels.clone().count(), labels.filter(|label| is_attack(label)).count());
    let others = all - attacks;
    if all >= LEAST && attacks >= LEAST_OF_CLASS && others >= LEAST_OF_CLASS {
        return Ok(());
    }
    bail!(Failed(format!(
        "there are {all} {what} ({attacks} attacks, {others} others); {LEAST} are needed, \
         {LEAST_OF_CLASS} of each kind: judge more with `counterflow facts add verdict ALERT verdict=true_positive` \
         (or false_positive, benign)"
    )))
}

fn is_attack(label: &str) -> bool {
    label == ATTACK
}

/// What a request needs beside the words of the command.
pub(super) fn complete(request: &mut Request, table: &Table, data: &Path) -> Result<()> {
    request.input = data.to_path_buf();
    request.label = served::LABEL.to_owned();
    request.positive = Some(ATTACK.to_owned());
    if TASKS.contains(&request.task.name.as_str()) {
        // What was given to a model was recorded before anybody judged what it said: none of it can be the label.
        request.allow_leak = served::event_columns(&request.task.name);
        request.recipe.spec.leave_out = vec![served::GROUP.to_owned()];
        if request.task.grouping_url(&table.columns).is_none() {
            request.group = Some(served::GROUP.to_owned());
            request.recipe.spec.leave_out.clear();
        }
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cf_models::served::LabelledEvent;

    use super::*;

    fn table(ordinary: usize) -> Table {
        let labels = ["true_positive", "false_positive"].into_iter().cycle().take(60);
        let rows: Vec<LabelledEvent> = labels
            .chain(std::iter::repeat_n(UNJUDGED, ordinary))
            .map(|label| LabelledEvent { group: String::new(), label: label.to_owned(), cells: BTreeMap::new() })
            .collect();
        served::event_training_table("urls", &rows)
    }

    #[test]
    fn a_version_that_alarms_alone_have_judged_is_not_promoted_by_itself() {
        assert_eq!(gate("urls", &table(0)), Gate::Never);
        assert_eq!(gate("flows", &table(ORDINARY_MIN - 1)), Gate::Never);
        assert_eq!(gate("urls", &table(ORDINARY_MIN)), Gate::Evidence);
        // Alerts are judged whatever the model said of them.
        assert_eq!(gate("triage", &table(0)), Gate::Evidence);
    }
}
