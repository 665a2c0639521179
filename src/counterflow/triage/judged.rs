//! What models learn from: what people judged, with what was served before anybody judged it.
//!
//! Of triage, alerts: the rows of the named query `training_set` over history, and nothing else. Of URLs and flows, events:
//! the rows of `training_events`, which are what a model called positive and people judged, and a sample of what no model
//! called positive. What anybody can look at with `counterflow sql --named training_events` is what a training sees.
//! History follows the engine by seconds.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use cf_models::{
    features::alert::{RECIPE, feature_names},
    served::{self, Labelled, LabelledEvent},
};
use cf_queries::{Options, named, write_json_lines};
use cf_types::Time;
use serde::Deserialize;

use crate::sql;

/// The label of an event that came to nothing and that nobody judged.
pub(crate) const UNJUDGED: &str = "unjudged";
/// The queries.
const ALERTS: &str = "training_set";
const EVENTS: &str = "training_events";
/// Judged rows of a training at most: hundreds of days of an analyst's judgements.
const ROWS_MAX: u64 = 100_000;

/// The rows of a training, by time and alert; and how many alerts were served features of another version.
pub(crate) fn labelled(data: &Path) -> Result<(Vec<Labelled>, usize)> {
    let names = feature_names();
    let (mut labelled, mut others) = (Vec::new(), 0);
    for row in rows::<Row>(data, ALERTS)? {
        if row.recipe == RECIPE {
            labelled.push(row.labelled(&names)?);
        } else {
            others += 1;
        }
    }
    Ok((labelled, others))
}

/// The same of the events that models of a task were asked about.
pub(crate) fn labelled_events(data: &Path, task: &str) -> Result<(Vec<LabelledEvent>, usize)> {
    let (mut labelled, mut others) = (Vec::new(), 0);
    for row in rows::<EventRow>(data, EVENTS)?.into_iter().filter(|row| row.model == task) {
        if row.recipe == served::event_recipe(task) {
            let damaged = || format!("what a model was given of event {} is damaged", row.event_id);
            let cells = serde_json::from_str(&row.features).with_context(damaged)?;
            labelled.push(LabelledEvent { group: row.alert_id.unwrap_or(row.event_id), label: row.verdict, cells });
        } else {
            others += 1;
        }
    }
    Ok((labelled, others))
}

fn rows<R: for<'de> Deserialize<'de>>(data: &Path, query: &str) -> Result<Vec<R>> {
    let query = named::find(query).context("the query of the training set is not built in")?;
    let options = Options { rows_max: Some(ROWS_MAX), ..Options::default() };
    let runtime = sql::runtime(options.threads, 0)?;
    let text = runtime.block_on(async {
        let session = sql::open(data, options).await?;
        let mut rows = session.query(query.sql).await?;
        let mut text = Vec::new();
        write_json_lines(&mut rows, &mut text).await?;
        anyhow::Ok(text)
    });
    let text = text.context("could not read the training set from history")?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a row of the training set is damaged")).collect()
}

/// A judged event as the query gives it.
#[derive(Deserialize)]
struct EventRow {
    event_id: String,
    model: String,
    /// None of an ordinary event.
    alert_id: Option<String>,
    verdict: String,
    recipe: String,
    /// JSON in a text.
    features: String,
}

/// A row as the query gives it.
#[derive(Deserialize)]
struct Row {
    alert_id: String,
    time: Time,
    signature: Option<String>,
    verdict: String,
    recipe: String,
    /// JSON in a text.
    features: String,
}

impl Row {
    fn labelled(self, names: &[String]) -> Result<Labelled> {
        let damaged = || format!("the features of alert {} are damaged", self.alert_id);
        let numbers: BTreeMap<&str, i64> = serde_json::from_str(&self.features).with_context(damaged)?;
        let features = names.iter().map(|name| numbers.get(name.as_str()).copied()).collect();
        Ok(Labelled {
            cell: self.time.cell(),
            // Alerts of one rule in one group are alike: never on both sides of a split.
            group: self.signature.unwrap_or_else(|| self.alert_id.clone()),
            alert: self.alert_id,
            label: self.verdict,
            features,
        })
    }
}
